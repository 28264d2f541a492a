import pickle
from datetime import UTC, datetime

import h5py
import numpy as np
import pytest
from pynwb import NWBHDF5IO, NWBFile, TimeSeries
from pynwb.image import ImageSeries, OpticalSeries

from retina_codec.errors import RecordingWarning, RetinaCodecError
from retina_codec.recordings.nwb.reader import read_nwb
from retina_codec.recordings.nwb.writer import write_nwb
from tests.recordings.nwb_files import ALL_TEST

pytestmark = pytest.mark.filterwarnings(ALL_TEST)

FRAMES = np.random.default_rng(0).integers(0, 255, (40, 4, 3), dtype=np.uint8)
REPEATED = np.concatenate([FRAMES[:15], FRAMES[15:25], FRAMES[15:25], FRAMES[25:30]])
SPIKES = {12: [0.05, 0.31, 0.33], 4: [0.29], 7: []}


def write_foreign(
    path,
    *,
    series=None,
    spikes=SPIKES,
    types=None,
    intervals=(),
    repeat=True,
    rename=None,
):
    """A file of another lab: pynwb alone, none of our columns unless asked for."""
    nwbfile = NWBFile("a session", "identifier", datetime(2020, 1, 1, tzinfo=UTC))
    if series is None:
        series = [image_series()]
    for each in series:
        nwbfile.add_stimulus(each)
    if types is not None:
        nwbfile.add_unit_column("cell_type", "type of the cell")
    for index, (cell, times) in enumerate(spikes.items()):
        row = {} if types is None else {"cell_type": types[index]}
        nwbfile.add_unit(id=cell, spike_times=times, **row)
    if intervals:
        nwbfile.add_trial_column("split", "train or test")
        if repeat:
            nwbfile.add_trial_column("repeat", "number")
        for number, (split, start, stop) in enumerate(intervals):
            row = {"repeat": number} if repeat else {}
            nwbfile.add_trial(start_time=start, stop_time=stop, split=split, **row)
    with NWBHDF5IO(path, "w") as stream:
        stream.write(nwbfile)
    if rename:
        with h5py.File(path, "a") as file:
            file.move(*rename)


def image_series(name="movie", data=FRAMES, **more):
    timing = {} if "timestamps" in more else {"rate": 50.0}
    return ImageSeries(name=name, data=data, unit="n/a", **{**timing, **more})


def test_a_file_without_intervals_is_one_test_split(tmp_path):
    write_foreign(tmp_path / "a.nwb")
    recording = read_nwb(tmp_path / "a.nwb")
    assert sorted(recording.children) == ["clock", "spikes", "test"]
    assert recording.attrs["split"].startswith("no split intervals")
    test = recording["test"].to_dataset()
    np.testing.assert_array_equal(test["stimulus"], FRAMES)
    assert test["cell"].values.tolist() == [12, 4, 7]
    assert test["type"].values.tolist() == ["unknown"] * 3
    expected = np.zeros((40, 3))
    expected[[2, 15, 16], 0] = 1
    expected[14, 1] = 1
    np.testing.assert_array_equal(test["spike_count"], expected)
    np.testing.assert_array_equal(test["rate"], expected * 50)
    np.testing.assert_allclose(test["time"], np.arange(40) / 50)
    assert np.isnan(recording.attrs["pixel_size"])
    assert (recording.attrs["species"], recording.attrs["source"]) == ("unknown", "a.nwb")
    assert (recording.attrs["session"], recording.attrs["frame_rate"]) == ("a session", 50.0)


def test_opening_reads_no_frame_and_a_slice_reads_only_its_block(recording, tmp_path, monkeypatch):
    write_nwb(recording, tmp_path / "a.nwb")
    with h5py.File(tmp_path / "a.nwb", "a") as file:
        group = file["stimulus/presentation/stimulus"]
        values, attributes = group["data"][()], dict(group["data"].attrs)
        del group["data"]
        group.create_dataset("data", data=values, chunks=(10, 2, 3)).attrs.update(attributes)
    monkeypatch.setattr("retina_codec.recordings.frames.lazy.FRAMES_PER_BLOCK", 10)
    read = []
    original = h5py.Dataset.__getitem__
    monkeypatch.setattr(
        h5py.Dataset,
        "__getitem__",
        lambda self, key, **more: read.append((self.name, key)) or original(self, key, **more),
    )
    found = read_nwb(tmp_path / "a.nwb")
    frames = "/stimulus/presentation/stimulus/data"
    assert any("spike_times" in name for name, _ in read)
    assert [entry for entry in read if entry[0] == frames] == []
    values = found["test/stimulus"][3:5].to_numpy()
    np.testing.assert_array_equal(values, recording["test/stimulus"].values[3:5])
    keys = [key[0] for name, key in read if name == frames]
    assert len(keys) == 1
    assert 40 <= keys[0].start <= keys[0].stop <= 50  # frames 40 and 41 lie in this block


def test_the_file_is_closed_and_the_tree_travels(recording, tmp_path):
    write_nwb(recording, tmp_path / "a.nwb")
    found = read_nwb(tmp_path / "a.nwb")
    with h5py.File(tmp_path / "a.nwb", "a"):  # fails while anyone holds the file open
        pass
    travelled = pickle.loads(pickle.dumps(found))
    assert travelled.identical(recording)
    (tmp_path / "a.nwb").unlink()
    with pytest.raises(RetinaCodecError, match="frames must stay readable at"):
        found["test/stimulus"].compute()


def test_train_and_repeats_of_unequal_length(tmp_path):
    intervals = [("train", 0.0, 0.2), ("grey", 0.2, 0.3), ("test", 0.3, 0.5), ("test", 0.5, 0.66)]
    series = [image_series(data=REPEATED)]
    write_foreign(tmp_path / "a.nwb", series=series, intervals=intervals, repeat=False)
    recording = read_nwb(tmp_path / "a.nwb")
    np.testing.assert_array_equal(recording["train/stimulus"], FRAMES[:10])
    np.testing.assert_array_equal(recording["test/stimulus"], FRAMES[15:25])
    rate = recording["test/repeats/rate"].values
    assert rate.shape == (2, 10, 3)
    assert np.isnan(rate[1, 8:]).all()  # cut short: missing, not silent
    assert np.isfinite(rate[0]).all()
    assert recording["test/repeats/start_time"].values.tolist() == [0.3, 0.5]
    assert recording["test/spike_count"].values[:, 0].tolist() == [1, 1] + [0] * 8


def test_intensities_follow_conversion_and_offset(tmp_path):
    write_foreign(tmp_path / "a.nwb", series=[image_series(conversion=0.5, offset=-3.0)])
    stimulus = read_nwb(tmp_path / "a.nwb")["test/stimulus"]
    np.testing.assert_array_equal(stimulus, FRAMES * 0.5 - 3.0)
    assert stimulus.dtype == np.float32
    assert stimulus[:3].compute().dtype == np.float32


def test_the_field_of_view_gives_the_pixel_size(tmp_path):
    series = OpticalSeries(
        name="movie",
        data=FRAMES,
        unit="n/a",
        rate=50.0,
        distance=0.1,
        field_of_view=[150e-6, 200e-6],
        orientation="n/a",
    )
    write_foreign(tmp_path / "a.nwb", series=[series])
    assert read_nwb(tmp_path / "a.nwb").attrs["pixel_size"] == pytest.approx(50.0)


@pytest.mark.filterwarnings("ignore:.*holds numbers that nothing names")
@pytest.mark.parametrize("types", [[np.nan, 1.0, 2.0], ["nan", "", "ON"], ["OFF", "ON", " ON "]])
def test_a_type_that_is_missing_is_unknown(tmp_path, types):
    write_foreign(tmp_path / "a.nwb", types=types)
    expected = {"1.0": "1.0", "2.0": "2.0", "ON": "ON", "OFF": "OFF"}
    found = read_nwb(tmp_path / "a.nwb")["test/type"].values.tolist()
    assert found == [expected.get(str(t).strip(), "unknown") for t in types]


def test_spikes_out_of_order_are_counted_all_the_same(tmp_path):
    write_foreign(tmp_path / "a.nwb", spikes={1: [0.33, 0.05, 0.31]})
    with pytest.warns(RecordingWarning, match=r"units 1 were unsorted"):
        recording = read_nwb(tmp_path / "a.nwb")
    count = recording["test/spike_count"].values[:, 0]
    assert recording["spikes/spike_time"].values.tolist() == [0.05, 0.31, 0.33]
    assert np.flatnonzero(count).tolist() == [2, 15, 16]


def test_timestamps_with_a_gap_between_the_splits(tmp_path):
    times = np.concatenate([np.arange(10) * 0.02 + 1, np.arange(30) * 0.02 + 5.0])
    write_foreign(
        tmp_path / "a.nwb",
        series=[image_series(timestamps=times)],
        spikes={1: [1.05, 3.0, 5.01]},
        intervals=[("train", 1.0, 1.2), ("test", 5.0, 5.6)],
    )
    recording = read_nwb(tmp_path / "a.nwb")
    assert recording.attrs["frame_rate"] == pytest.approx(50.0)
    np.testing.assert_allclose(recording["test/time"], times[10:])
    assert recording["train/spike_count"].values.sum() == 1
    assert np.flatnonzero(recording["test/spike_count"].values).tolist() == [0]


def test_one_of_several_stimuli_is_chosen_by_name(tmp_path):
    series = [image_series("one", FRAMES), image_series("two", FRAMES[::-1].copy())]
    write_foreign(tmp_path / "a.nwb", series=series)
    with pytest.raises(RetinaCodecError, match=r"one stimulus; it has one, two\. Pass"):
        read_nwb(tmp_path / "a.nwb")
    np.testing.assert_array_equal(
        read_nwb(tmp_path / "a.nwb", stimulus="two")["test/stimulus"], FRAMES[::-1]
    )
    with pytest.raises(RetinaCodecError, match=r"the stimulus 'three', once; it has one, two"):
        read_nwb(tmp_path / "a.nwb", stimulus="three")


GAP = np.concatenate([np.arange(20) * 0.02, np.arange(20) * 0.02 + 1])
REVERSED = np.arange(40)[::-1] * 0.02


def no_image():
    return [TimeSeries(name="trace", data=np.zeros(5), unit="V", rate=1.0)]


def external():
    return [
        ImageSeries(
            name="movie",
            external_file=["movie.avi"],
            format="external",
            starting_frame=[0],
            num_samples=40,
            rate=50.0,
        )
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spikes": {}}, "must have units with spike times; it has none"),
        ({"spikes": {1: [], 2: []}}, "must have spikes; all 2 units are empty"),
        ({"series": lambda: []}, "must have a stimulus that is an image series, .*; it has none"),
        ({"series": no_image}, "that is an image series, .*; it has trace"),
        ({"series": external}, r"a picture or video at .*movie\.avi; no file is there"),
        (
            {"series": lambda: [image_series(data=np.zeros((40, 4, 3, 3), "u1"))]},
            r"has frames in color, shape \(40, 4, 3, 3\)",
        ),
        (
            {"spikes": {1: [50.0, 61.5]}},
            r"must overlap in time; frames span 0 to 0\.8 s, spikes 50 to 61\.5 s",
        ),
        ({"series": lambda: [image_series(timestamps=REVERSED)]}, "finite, increasing"),
        ({"intervals": [("train", 0.0, 0.4)]}, "must have a test interval"),
        ({"intervals": [("fit", 0.0, 0.4)]}, "split must say 'train' or 'test'"),
        (
            {"intervals": [("train", 0.0, 0.2), ("train", 0.3, 0.4), ("test", 0.5, 0.6)]},
            "one train interval without gaps; it has 2",
        ),
        (
            {"intervals": [("test", 0.0, 1.8)]},
            r"test interval 0 to 1\.8 s must be covered by frames .* span 0 to 0\.8 s",
        ),
        ({"intervals": [("test", -1.0, 0.4)]}, "test interval -1 to 0.4 s must be covered"),
        (
            {"series": lambda: [image_series(timestamps=GAP)], "intervals": [("test", 0.0, 0.6)]},
            "covered by frames without gaps",
        ),
        (
            {"series": lambda: [image_series(timestamps=GAP)]},
            r"follow each other at 50 Hz within a split; the frame at 1 s is off by \+30 frames",
        ),
    ],
)
def test_what_is_missing_is_said_in_one_line(tmp_path, options, message):
    if "series" in options:
        options = {**options, "series": options["series"]()}
    write_foreign(tmp_path / "a.nwb", **options)
    with pytest.raises(RetinaCodecError, match=message) as caught:
        read_nwb(tmp_path / "a.nwb")
    assert "\n" not in str(caught.value)


def make_text(path):
    path.write_text("spikes")


def make_hdf5(path):
    with h5py.File(path, "w") as file:
        file["data"] = [1, 2, 3]


def make_nothing(path):
    assert not path.exists()


def make_truncated(path):
    write_foreign(path)
    path.write_bytes(path.read_bytes()[:5000])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (make_text, "must be an NWB file"),
        (make_hdf5, "must be an NWB file"),
        (make_truncated, "must be an NWB file"),
        (make_nothing, r"there must be an NWB file \(HDF5\) at"),
    ],
)
def test_what_is_no_nwb_file_is_refused_in_one_line(tmp_path, make, message):
    make(tmp_path / "a.nwb")
    with pytest.raises(RetinaCodecError, match=message) as caught:
        read_nwb(tmp_path / "a.nwb")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("column", ["cell_type", "cell_name"])
def test_text_of_fixed_width_is_text(tmp_path, column):
    write_foreign(tmp_path / "a.nwb")
    with NWBHDF5IO(tmp_path / "a.nwb", "a") as stream:
        nwbfile = stream.read()
        nwbfile.units.add_column(column, "text", data=np.array([b"ON", b"OFF", b"x"]))
        stream.write(nwbfile)
    test = read_nwb(tmp_path / "a.nwb")["test"]
    name = {"cell_type": "type", "cell_name": "cell"}[column]
    assert test[name].values.tolist() == ["ON", "OFF", "x"]


def test_a_repeat_that_is_no_number_is_no_repeat(tmp_path):
    path = tmp_path / "a.nwb"
    write_foreign(path, intervals=[("train", 0.0, 0.2), ("test", 0.2, 0.4)], repeat=False)
    with NWBHDF5IO(path, "a") as stream:
        nwbfile = stream.read()
        nwbfile.trials.add_column("repeat", "number", data=[np.nan, np.nan])
        stream.write(nwbfile)
    recording = read_nwb(path)
    assert sorted(recording.children) == ["clock", "spikes", "test", "train"]
    assert list(recording["test"].children) == []


def test_an_interval_without_an_end_is_refused_by_name(tmp_path):
    write_foreign(tmp_path / "a.nwb", intervals=[("test", 0.0, np.nan)])
    with pytest.raises(RetinaCodecError, match="test interval 0 to nan s must be covered"):
        read_nwb(tmp_path / "a.nwb")


def test_a_repeat_in_words_is_refused(tmp_path):
    path = tmp_path / "a.nwb"
    write_foreign(path, intervals=[("test", 0.0, 0.4)], repeat=False)
    with NWBHDF5IO(path, "a") as stream:
        nwbfile = stream.read()
        nwbfile.trials.add_column("repeat", "number", data=["first"])
        stream.write(nwbfile)
    with pytest.raises(RetinaCodecError, match="repeat must be a number in every row; got 'first'"):
        read_nwb(path)
