"""Whole recordings from arrays and files of arrays, against counting by hand."""

import numpy as np
import pytest
from scipy.io import savemat

import retina_codec as rc
from retina_codec.cli.main import main
from retina_codec.errors import RetinaCodecError
from retina_codec.recordings.from_arrays import read_arrays, recording_from_arrays

RANDOM = np.random.default_rng(0)
NOISE = RANDOM.integers(0, 255, (60, 4, 5), dtype=np.uint8)
FILM = RANDOM.integers(0, 255, (20, 4, 5), dtype=np.uint8)
SPIKES = {"a": RANDOM.uniform(0, 6, 90), "b": RANDOM.uniform(0, 6, 40)}  # s
STARTS = [3.0, 4.5]


def counted(start, bins, rate=30):
    edges = start + np.arange(bins + 1) / rate
    return np.stack([np.histogram(one, edges)[0] for one in SPIKES.values()], axis=1)


def test_spike_times_with_a_repeated_movie():
    own = recording_from_arrays(
        NOISE, SPIKES, frame_rate=30, test_frames=FILM, repeats=STARTS, types=["ON", "OFF"]
    )
    np.testing.assert_array_equal(own["train/spike_count"], counted(0, 60))
    for number, start in enumerate(STARTS):
        np.testing.assert_allclose(
            own["test/repeats/rate"][number], counted(start, 20) * 30, rtol=1e-5
        )
    assert own["test/repeats/start_time"].values.tolist() == STARTS
    assert own["train/type"].values.tolist() == ["ON", "OFF"]
    np.testing.assert_array_equal(own["test/stimulus"], FILM)


def test_counts_give_the_same_rates():
    counts = np.stack([counted(start, 20) for start in STARTS])
    own = recording_from_arrays(
        NOISE, counts=counted(0, 60), frame_rate=30, test_frames=FILM, test_counts=counts
    )
    by_times = recording_from_arrays(NOISE, SPIKES, frame_rate=30, test_frames=FILM, repeats=STARTS)
    for name in ("train/spike_count", "train/rate", "test/repeats/rate", "test/rate"):
        np.testing.assert_allclose(own[name], by_times[name], rtol=1e-5)


def test_without_a_test_movie_the_last_part_is_the_test_split():
    times = 2 + np.arange(60) / 25
    own = recording_from_arrays(NOISE, SPIKES, frame_times=times, held_out=0.25)
    assert (own["train"].sizes["time"], own["test"].sizes["time"]) == (45, 15)
    assert own.attrs["frame_rate"] == pytest.approx(25)
    np.testing.assert_array_equal(own["test/stimulus"], NOISE[45:])
    np.testing.assert_array_equal(own["test/spike_count"], counted(2 + 45 / 25, 15, 25))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frame_rate": 30}, "give spikes.*or counts.*got neither"),
        ({"spikes": SPIKES, "counts": counted(0, 60), "frame_rate": 30}, "got both"),
        ({"spikes": SPIKES}, "the clock of the frames must be known"),
        ({"spikes": SPIKES, "frame_rate": 10**400}, "the clock of the frames must be known"),
        ({"counts": counted(0, 50), "frame_rate": 30}, r"one row for each of the 60 frames"),
        ({"spikes": SPIKES, "frame_rate": 30, "test_frames": FILM}, "repeats must be the onset"),
        (
            {"counts": counted(0, 60), "frame_rate": 30, "test_frames": FILM, "test_counts": [1]},
            r"test_counts must be \(repeat, time, cell\)",
        ),
        ({"spikes": SPIKES, "frame_rate": 30, "held_out": 0.99}, "held_out must leave"),
        ({"spikes": SPIKES, "frame_rate": 30, "about": {"mouse": 1}}, "about takes"),
    ],
)
def test_bad_arrays(options, message):
    with pytest.raises(RetinaCodecError, match=message):
        recording_from_arrays(NOISE, **options)
    with pytest.raises(RetinaCodecError, match=r"array \(time, y, x\)"):
        recording_from_arrays(NOISE[0], SPIKES, frame_rate=30)


def test_files_of_arrays_become_recordings(tmp_path, capsys):
    np.savez(
        tmp_path / "a.npz",
        frames=NOISE,
        test_frames=FILM,
        repeats=STARTS,
        **{f"spikes_{name}": values for name, values in SPIKES.items()},
    )
    cells = np.empty(2, dtype=object)
    cells[:] = list(SPIKES.values())
    savemat(
        tmp_path / "a.mat",
        {
            "stim": NOISE.transpose(1, 2, 0),  # (y, x, time)
            "test_frames": FILM.transpose(1, 2, 0),
            "spikes": cells,
            "repeats": STARTS,
        },
    )
    expected = recording_from_arrays(NOISE, SPIKES, frame_rate=30, test_frames=FILM, repeats=STARTS)
    words = ["--frame-rate", "30", "--out"]
    matlab = ["--axes", "yxt", "--name", "frames=stim"]
    assert main(["import", str(tmp_path / "a.npz"), *words, str(tmp_path / "n.nwb")]) == 0
    assert main(["import", str(tmp_path / "a.mat"), *matlab, *words, str(tmp_path / "m.nc")]) == 0
    for name in ("n.nwb", "m.nc"):
        own = rc.open_recording(tmp_path / name)
        for what in ("train/stimulus", "train/spike_count", "test/stimulus"):
            np.testing.assert_array_equal(own[what], expected[what])
        np.testing.assert_allclose(own["test/repeats/rate"], expected["test/repeats/rate"])
    capsys.readouterr()
    assert main(["import", str(tmp_path / "a.mat"), *words, str(tmp_path / "x.nc")]) == 2
    assert "--name frames=NAME" in capsys.readouterr().err
    assert main(["import", str(tmp_path / "a.npz"), "--out", str(tmp_path / "x.nc")]) == 2
    assert "--frame-rate 30" in capsys.readouterr().err
    assert not (tmp_path / "x.nc").exists()


def test_nothing_is_unpickled(tmp_path):
    np.savez(tmp_path / "o.npz", frames=np.array([{1: 2}], dtype=object))
    with pytest.raises(RetinaCodecError, match="Arrays of objects are not read"):
        read_arrays(tmp_path / "o.npz")
    with pytest.raises(RetinaCodecError, match="axes must be one of"):
        read_arrays(tmp_path / "o.npz", axes="xxt")
    with pytest.raises(RetinaCodecError, match=r"\.npz or \.mat file that exists"):
        read_arrays(tmp_path / "none.npz")
    np.savez(tmp_path / "p.npz", frames=NOISE)
    with pytest.raises(RetinaCodecError, match="names must give frames"):
        read_arrays(tmp_path / "p.npz", names={"frames": "stim"})


def test_one_cell_of_a_matlab_file_is_one_cell(tmp_path):
    one = np.empty(1, dtype=object)
    one[0] = SPIKES["a"]
    for name, spikes in (("cell", one), ("plain", SPIKES["a"])):
        savemat(tmp_path / f"{name}.mat", {"frames": NOISE, "spikes": spikes})
        given = read_arrays(tmp_path / f"{name}.mat")
        own = recording_from_arrays(given["frames"], given["spikes"], frame_rate=30)
        np.testing.assert_array_equal(own["train/spike_count"], counted(0, 60)[:48, :1])
    savemat(tmp_path / "counts.mat", {"frames": NOISE, "counts": counted(0, 60)[:, :1]})
    given = read_arrays(tmp_path / "counts.mat")
    own = recording_from_arrays(given["frames"], counts=given["counts"], frame_rate=30)
    np.testing.assert_array_equal(own["train/spike_count"], counted(0, 60)[:48, :1])
