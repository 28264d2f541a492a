"""Published recordings of white noise, from files in their layouts made here."""

import numpy as np
import pytest
import xarray as xr
from scipy.io import savemat

import retina_codec as rc
from retina_codec.errors import RetinaCodecError, command_line_words
from retina_codec.recordings.frames.seeded import SeededFrames


@pytest.fixture
def salamander(tmp_path):
    random = np.random.default_rng(0)
    running, frozen = random.poisson(0.3, (3, 20, 4)), random.poisson(0.4, (3, 6, 4))
    path = tmp_path / "cells.mat"
    savemat(path, {"spk1": running.astype(np.uint8), "spk2": frozen.astype(np.uint8)})
    return path, running, frozen


def test_salamander_counts_and_frames(salamander):
    path, running, frozen = salamander
    recording = rc.open_recording(path)
    train, test = recording["train"].to_dataset(), recording["test"].to_dataset()
    assert dict(train.sizes) == {"time": 80, "y": 150, "x": 200, "cell": 3, "cell_type": 1}
    for trial in range(4):  # trial by trial, frame by frame
        for frame in range(20):
            np.testing.assert_array_equal(
                train["spike_count"][trial * 20 + frame], running[:, frame, trial]
            )
    np.testing.assert_array_equal(train["block"], np.repeat(range(4), 20))
    assert "after it" in recording.attrs["trials"]
    repeats = recording["test/repeats/rate"]
    np.testing.assert_allclose(repeats, frozen.transpose(2, 1, 0) * 30, rtol=1e-6)
    np.testing.assert_array_equal(test["spike_count"], frozen.sum(2).T)
    shown = recording["test/repeats/start_time"].values  # after all blocks
    np.testing.assert_allclose(shown, 80 / 30 + np.arange(4) * 6 / 30)
    columns = SeededFrames("ran1", seed=-10000, shape=(80, 200, 150)).read(np.array([30]))
    np.testing.assert_array_equal(train["stimulus"][30], columns[0].T)  # y is the fast axis
    still = SeededFrames("ran1", seed=-20000, shape=(6, 200, 150)).read(np.array([5]))
    np.testing.assert_array_equal(test["stimulus"][5], still[0].T)


def test_salamander_parts(salamander):
    path, running, _ = salamander
    whole = rc.open_recording(path)
    part = rc.open_recording(path, cells=[2, 0], region=(35, 45, 95, 99), trials=2, seed=-5)
    train = part["train"].to_dataset()
    assert train["cell"].values.tolist() == [2, 0]
    assert train["y"].values.tolist() == list(range(35, 45))
    np.testing.assert_array_equal(train["spike_count"][:20, 0], running[2, :, 0])
    assert part["test/repeats"].sizes["repeat"] == 2
    assert (train["stimulus"].values != whole["train/stimulus"][:40, 35:45, 95:99]).any()
    same = rc.open_recording(path, region=(35, 45, 95, 99))
    np.testing.assert_array_equal(same["train/stimulus"], whole["train/stimulus"][:, 35:45, 95:99])


def test_salamander_to_nwb_and_back(salamander, tmp_path):
    path, *_ = salamander
    rc.recordings.convert(path, tmp_path / "cells.nwb", region=(40, 48, 100, 108))
    back = rc.open_recording(tmp_path / "cells.nwb")
    before = rc.open_recording(path, region=(40, 48, 100, 108))
    np.testing.assert_array_equal(back["train/stimulus"], before["train/stimulus"])
    np.testing.assert_array_equal(back["train/spike_count"], before["train/spike_count"])
    np.testing.assert_array_equal(back["test/stimulus"], before["test/stimulus"])
    np.testing.assert_allclose(back["test/repeats/rate"], before["test/repeats/rate"], rtol=1e-6)


def test_salamander_refuses(salamander, tmp_path):
    path, running, frozen = salamander
    for options, message in (
        ({"trials": 9}, r"trials must be 1 to 4.*got 9"),
        ({"region": (0, 10, 0)}, "region must be the first and last pixel"),
        ({"region": (0, 151, 0, 10)}, "within 150 × 200"),
        ({"cells": [3]}, r"cells must be different numbers of cells, 0 to 2; got \[3\]"),
        ({"cells": ["a"]}, "cells must be different numbers"),
        ({"seed": 4}, "seed of ran1 must be negative"),
        ({"color": "red"}, "the options of this format are cells, region"),
    ):
        with pytest.raises(RetinaCodecError, match=message):
            rc.open_recording(path, **options)
    for changed, message in (
        ({"spk1": running - 1.0, "spk2": frozen}, "spk1 must be whole counts"),
        ({"spk1": running + 0.5, "spk2": frozen}, "spk1 must be whole counts"),
        ({"spk1": running, "spk2": frozen[:2]}, "must have the same cells and trials"),
        ({"spk1": running[0], "spk2": frozen}, r"spk1 must be whole counts \(cell, frame, trial\)"),
        ({"counts": running}, r"must hold spk1 and spk2.*it holds counts.*recording_from_arrays"),
    ):
        savemat(tmp_path / "wrong.mat", changed)
        with pytest.raises(RetinaCodecError, match=message):
            rc.open_recording(tmp_path / "wrong.mat")
    (tmp_path / "text.mat").write_text("no MATLAB")
    with pytest.raises(RetinaCodecError, match="must be a MATLAB file"):
        rc.open_recording(tmp_path / "text.mat")
    savemat(tmp_path / "wrong.mat", {"counts": running})
    with command_line_words(), pytest.raises(RetinaCodecError, match="retina-codec import"):
        rc.open_recording(tmp_path / "wrong.mat")


PARAM = {"x": 64, "y": 48, "dx": 8, "dy": 8, "seed": -77}


def run_of(**changed):
    return {
        "type": "binarywhitenoise",
        "onset": 1.5,
        "frame": 0.02,
        "Nframes": 100,
        "pixelsize": 8.3,
        "param": PARAM,
    } | changed


def mouse_file(path, runs, seed=1):
    random = np.random.default_rng(seed)
    spikes = np.empty((2, len(runs)), dtype=object)
    for cell in range(2):
        for number in range(len(runs)):
            spikes[cell, number] = np.sort(random.uniform(0, 4, 50))
    info = {"Ncell": 2, "animal": "wild type"}
    savemat(path, {"datainfo": info, "stimulus": runs, "spikes": spikes})
    return spikes


def test_mouse_frames_clock_and_counts(tmp_path):
    stripes = run_of(param=PARAM | {"dy": 48, "dx": 2})
    spikes = mouse_file(tmp_path / "m.mat", [stripes, run_of()])
    recording = rc.open_recording(tmp_path / "m.mat")  # the run with checks
    assert recording.attrs["session"] == "m run 1"
    assert recording.attrs["frame_rate"] == pytest.approx(50)
    assert recording.attrs["pixel_size"] == pytest.approx(66.4)  # µm
    train, test = recording["train"].to_dataset(), recording["test"].to_dataset()
    assert dict(train.sizes) == {"time": 80, "y": 6, "x": 8, "cell": 2, "cell_type": 1}
    assert test.sizes["time"] == 20
    assert float(train["time"][0]) == 1.5
    for t in (0, 7, 79):
        edges = 1.5 + 0.02 * t, 1.5 + 0.02 * (t + 1)
        own = [((one >= edges[0]) & (one < edges[1])).sum() for one in spikes[:, 1]]
        assert train["spike_count"][t].values.tolist() == own
    rows = SeededFrames("ran1", seed=-77, shape=(100, 6, 8)).read(np.arange(100))
    np.testing.assert_array_equal(train["stimulus"], rows[:80])
    np.testing.assert_array_equal(test["stimulus"], rows[80:])
    np.testing.assert_allclose(recording["spikes/spike_time"], np.concatenate(list(spikes[:, 1])))


def test_mouse_options(tmp_path):
    mouse_file(tmp_path / "m.mat", [run_of(), run_of(onset=0.5)])
    with pytest.raises(RetinaCodecError, match=r"0: 6 × 8 checks.*1: 6 × 8.*2 have checks"):
        rc.open_recording(tmp_path / "m.mat")
    given = {"test": (0, 0.4), "train": (0.4, 2.0)}
    found = rc.open_recording(
        tmp_path / "m.mat", run=1, cells=1, region=(1, 3, 2, 7), splits=given, seed=-9
    )
    assert (found["test"].sizes["time"], found["train"].sizes["time"]) == (20, 80)
    assert float(found["test/time"][0]) == 0.5
    rows = SeededFrames("ran1", seed=-9, shape=(100, 6, 8)).read(np.arange(100))
    np.testing.assert_array_equal(found["train/stimulus"], rows[20:, 1:3, 2:7])
    for splits in ({"train": (0, 1)}, {"test": (0, 9)}, {"train": (0, 1), "test": (0.5, 2)}):
        with pytest.raises(RetinaCodecError, match="splits must"):
            rc.open_recording(tmp_path / "m.mat", run=1, splits=splits)


def test_mouse_refuses(tmp_path):
    path = tmp_path / "m.mat"
    mouse_file(path, [run_of(type="movie")])
    with pytest.raises(RetinaCodecError, match="must hold a run of type 'binarywhitenoise'"):
        rc.open_recording(path)
    mouse_file(path, [{"type": "binarywhitenoise", "onset": 1.0}])
    with pytest.raises(RetinaCodecError, match="stimulus 0 must state type, onset"):
        rc.open_recording(path)
    mouse_file(path, [run_of()])
    with pytest.raises(RetinaCodecError, match=r"got 3\. Pass run=0"):
        rc.open_recording(path, run=3)


def test_a_wrong_seed_is_told(tmp_path):
    """Spikes that follow the frames of one seed have no field in those of another."""
    movie = SeededFrames("ran1", seed=-77, shape=(3000, 6, 8)).read(np.arange(3000))
    fires = np.flatnonzero(movie[:, 3, 4] > 0)
    spikes = np.empty((2, 1), dtype=object)
    spikes[:, 0] = [1.5 + 0.02 * (fires + 2.5), np.random.default_rng(0).uniform(0, 60, 900)]
    path = tmp_path / "m.mat"
    savemat(
        path,
        {
            "datainfo": {"animal": "none"},
            "stimulus": [run_of(Nframes=3000)],
            "spikes": spikes,
        },
    )
    right = rc.recordings.spike_triggered_average(
        rc.open_recording(path)["train"], history=4, smooth=1
    )
    assert right["polarity"].values.tolist() == ["ON", "none"]
    assert (float(right["center_y"][0]), float(right["center_x"][0])) == (3, 4)
    assert float(right["peak_lag"][0]) == pytest.approx(0.04)
    wrong = rc.open_recording(path, seed=-78)
    with pytest.warns(rc.RecordingWarning, match=r"the largest \|z\| is \d.*check the seed"):
        rc.recordings.spike_triggered_average(wrong["train"], history=4, smooth=1)
    assert isinstance(wrong["train"].to_dataset(), xr.Dataset)


def test_one_cell_and_one_trial_keep_their_axes(tmp_path):
    """MATLAB readers like to drop axes of length 1."""
    running, frozen = np.ones((1, 20, 1), np.uint8), np.full((1, 6, 1), 2, np.uint8)
    savemat(tmp_path / "one.mat", {"spk1": running, "spk2": frozen})
    recording = rc.open_recording(tmp_path / "one.mat")
    assert recording["train/spike_count"].shape == (20, 1)
    assert (recording["test/repeats/rate"] == 60).all()
    spikes = mouse_file(tmp_path / "m.mat", [run_of(), run_of(onset=0.5)])
    info, runs = {"animal": "none"}, [run_of(), run_of(onset=0.5)]
    savemat(tmp_path / "m.mat", {"datainfo": info, "stimulus": runs, "spikes": spikes[:1]})
    found = rc.open_recording(tmp_path / "m.mat", run=1)
    np.testing.assert_allclose(found["spikes/spike_time"], spikes[0, 1])
