"""Train, test and repeats: from tables and from times; the clock of real sessions."""

import h5py
import numpy as np
import pytest

from retina_codec.errors import RecordingWarning, RetinaCodecError
from retina_codec.recordings.nwb.reader import read_nwb
from retina_codec.recordings.nwb.splits import periods_of
from tests.recordings.nwb_files import (
    ALL_TEST,
    FRAMES,
    RATE,
    SPIKES,
    counted,
    intervals,
    movie,
    write,
)

pytestmark = pytest.mark.filterwarnings(ALL_TEST)

# 20 frames of noise, then the same 10 frames twice, then 20 frames of noise
SESSION = np.concatenate([FRAMES[:20], FRAMES[20:30], FRAMES[20:30], FRAMES[30:50]])


def session(path, **more):
    def fill(nwbfile):
        table = intervals(
            "stimulus_epochs",
            [0, 0.4, 0.6, 0.8],
            [0.4, 0.6, 0.8, 1.2],
            stimulus_name=["noise", "clip", "clip", "noise"],
            block=[0, 1, 2, 3],
        )
        nwbfile.add_time_intervals(table)

    return write(path, fill, **{"stimulus": movie(data=SESSION), **more})


def test_rows_are_picked_by_what_stands_in_a_column(tmp_path):
    path = session(tmp_path / "a.nwb")
    splits = {"train": {"block": 0}, "test": {"stimulus_name": "clip"}}
    recording = read_nwb(path, splits=splits)
    np.testing.assert_array_equal(recording["train/stimulus"], FRAMES[:20])
    np.testing.assert_array_equal(recording["test/stimulus"], FRAMES[20:30])
    counts = counted(SPIKES, np.arange(60) / RATE, 1 / RATE)
    expected = np.stack([counts[20:30], counts[30:40]]) * RATE
    np.testing.assert_array_equal(recording["test/repeats/rate"], expected)
    assert "split" not in recording.attrs
    several = read_nwb(path, splits={"test": {"block": [1, 2]}})
    np.testing.assert_array_equal(several["test/repeats/rate"], expected)


def test_times_name_the_splits(tmp_path):
    path = session(tmp_path / "a.nwb")
    recording = read_nwb(path, splits={"train": (0.8, 1.2), "test": [(0.4, 0.6), (0.6, 0.8)]})
    np.testing.assert_array_equal(recording["train/stimulus"], FRAMES[30:50])
    assert recording["test/repeats"].sizes["repeat"] == 2
    np.testing.assert_allclose(recording["train/time"], 0.8 + np.arange(20) / RATE)


def test_blocks_are_joined_only_when_asked(tmp_path):
    path = session(tmp_path / "a.nwb")
    splits = {"train": {"stimulus_name": "noise"}, "test": {"stimulus_name": "clip"}}
    with pytest.raises(
        RetinaCodecError, match=r"it has 2: 0 to 0\.4 s; 0\.8 to 1\.2 s\. Pass join"
    ):
        read_nwb(path, splits=splits)
    train = read_nwb(path, splits=splits, join_blocks=True)["train"].to_dataset()
    np.testing.assert_array_equal(train["stimulus"], SESSION[np.r_[0:20, 40:60]])
    counts = counted(SPIKES, np.arange(60) / RATE, 1 / RATE)
    np.testing.assert_array_equal(train["spike_count"], counts[np.r_[0:20, 40:60]])
    np.testing.assert_allclose(train["session_time"], np.r_[0:20, 40:60] / RATE)
    assert train["block"].values.tolist() == [0] * 20 + [1] * 20


def test_blocks_that_touch_are_one(tmp_path):
    path = session(tmp_path / "a.nwb")
    recording = read_nwb(path, splits={"train": [(0, 0.2), (0.2, 0.4)], "test": (0.4, 0.6)})
    np.testing.assert_array_equal(recording["train/stimulus"], FRAMES[:20])


def test_presentations_must_show_the_same_movie(tmp_path):
    path = session(tmp_path / "a.nwb")
    with pytest.raises(
        RetinaCodecError, match=r"number 1, from 0\.6 s, shows others than the first"
    ):
        read_nwb(path, splits={"test": [(0.0, 0.2), (0.6, 0.8)]})


def test_one_row_per_frame_is_one_interval(tmp_path):
    starts = np.arange(60) / RATE

    def fill(nwbfile):
        words = ["noise"] * 20 + ["clip"] * 20 + ["noise"] * 20
        table = intervals("frames", starts, starts + 1 / RATE, stimulus_name=words)
        nwbfile.add_time_intervals(table)

    path = write(tmp_path / "a.nwb", fill, stimulus=movie(data=SESSION))
    recording = read_nwb(path, splits={"test": {"stimulus_name": "clip"}})
    np.testing.assert_array_equal(recording["test/stimulus"], SESSION[20:40])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"splits": {"train": (0, 1)}}, r"for 'test' and perhaps .*; got \{'train'"),
        ({"splits": {"test": (0, 1), "validation": (1, 2)}}, "for 'test' and perhaps for 'train'"),
        ({"splits": {"test": {"stimulus_name": "film"}}}, r"'film'; it has \['clip', 'noise'\]"),
        ({"splits": {"test": {"contrast": 1}}}, r"must have the columns \['contrast'\]; 0 have"),
        ({"splits": {"test": (1.0, 0.5)}}, "must end after it starts; got 1.0 to 0.5 s"),
        ({"splits": {"test": (5.0, 6.0)}}, "must be covered by frames"),
        ({"table": "epochs", "splits": {"test": {"block": 1}}}, "'epochs'; it has stimulus_epochs"),
    ],
)
def test_splits_that_cannot_be(tmp_path, options, message):
    with pytest.raises(RetinaCodecError, match=message):
        read_nwb(session(tmp_path / "a.nwb"), **options)


def test_an_interval_that_rounds_up_keeps_its_frames_with_a_doubt(tmp_path):
    """Epochs that end a little after the last frame, as old conversions write them."""
    long = np.concatenate([FRAMES] * 4)
    path = write(tmp_path / "a.nwb", stimulus=movie(data=long))
    with pytest.warns(RecordingWarning, match=r"reaches 0\.1 s beyond its frames"):
        recording = read_nwb(path, splits={"test": (2.4, 4.9)})
    np.testing.assert_array_equal(recording["test/stimulus"], long[120:])
    with pytest.raises(RetinaCodecError, match=r"they span 0 to 4\.8 s\. Cut it with splits="):
        read_nwb(path, splits={"test": (2.4, 6.0)})


# Real clocks


def test_timestamps_that_drift_and_jitter(tmp_path):
    random = np.random.default_rng(1)
    times = 1.0 + np.arange(60) / 50.005 + random.normal(0, 5e-4, 60)
    spikes = {1: (times[[3, 30, 59]] + 1e-4).tolist(), 2: [0.5, 9.0]}
    path = write(tmp_path / "a.nwb", stimulus=movie(timestamps=times), spikes=spikes)
    recording = read_nwb(path, frame_rate=50.0)
    counts = recording["test/spike_count"].values
    assert np.flatnonzero(counts[:, 0]).tolist() == [3, 30, 59]
    np.testing.assert_array_equal(counts, counted(spikes, times, 1 / recording.attrs["frame_rate"]))
    clock = recording["clock"].to_dataset()
    slope = np.polyfit(np.arange(60), times, 1)[0]
    assert float(clock["drift"]) == pytest.approx((1 / slope / 50 - 1) * 1e6, abs=5)
    assert float(clock["jitter"]) == pytest.approx(5e-4, rel=0.3)
    assert float(clock["offset"]) == times[0]
    assert clock["spikes_outside"].values.tolist() == [0, 2]
    assert clock["offset"].attrs["units"] == "s"


def test_dropped_frames_are_refused_or_held(tmp_path):
    keep = np.r_[0:25, 27:60]
    path = write(
        tmp_path / "a.nwb", stimulus=movie(data=FRAMES[keep], timestamps=np.arange(60)[keep] / RATE)
    )
    with (
        pytest.raises(
            RetinaCodecError, match=r"the frame at 0\.54 s is off by \+2 frames. Pass repair"
        ),
    ):
        read_nwb(path)
    with pytest.warns(RecordingWarning, match="2 dropped frames show the frame before once more"):
        recording = read_nwb(path, repair_clock=True)
    held = FRAMES.copy()
    held[25:27] = FRAMES[24]
    np.testing.assert_array_equal(recording["test/stimulus"], held)
    expected = counted(SPIKES, np.arange(60) / RATE, 1 / RATE)
    np.testing.assert_array_equal(recording["test/spike_count"], expected)
    assert int(recording["clock/dropped_frames"]) == 2


def test_onsets_of_a_photodiode_take_the_place_of_commands(tmp_path):
    late = np.arange(60) / RATE + 0.043
    path = write(tmp_path / "a.nwb", stimulus=movie(timestamps=np.arange(60) / RATE))
    recording = read_nwb(path, frame_times=late)
    expected = counted(SPIKES, late, 1 / RATE)
    np.testing.assert_array_equal(recording["test/spike_count"], expected)
    assert not np.array_equal(expected, read_nwb(path)["test/spike_count"])
    assert float(recording["test/time"][0]) == pytest.approx(0.043)
    with pytest.raises(RetinaCodecError, match=r"it has 59 for 60 frames. Nothing is cut"):
        read_nwb(path, frame_times=late[:-1])

    from pynwb import TimeSeries

    def fill(nwbfile):
        nwbfile.add_acquisition(
            TimeSeries(name="photodiode", data=np.ones(60), unit="a.u.", timestamps=late)
        )

    stored = write(tmp_path / "b.nwb", fill, stimulus=movie(timestamps=np.arange(60) / RATE))
    found = read_nwb(stored, frame_times="/acquisition/photodiode")
    np.testing.assert_array_equal(found["test/spike_count"], expected)
    with pytest.raises(RetinaCodecError, match="nothing is at '/acquisition/sync'"):
        read_nwb(stored, frame_times="/acquisition/sync")


def test_a_session_before_time_zero(tmp_path):
    path = write(tmp_path / "a.nwb", stimulus=movie(starting_time=-0.5))
    recording = read_nwb(path)
    expected = counted(SPIKES, np.arange(60) / RATE - 0.5, 1 / RATE)
    np.testing.assert_array_equal(recording["test/spike_count"], expected)


@pytest.mark.parametrize(
    ("index", "times"),
    [
        ([0, 1, 2, 0, 1, 2], 2),
        ([0, 1] * 6, 6),
        ([0, 1, 2, 0, 1], 1),
        ([3, 3, 3, 3], 1),
        ([0, 0, 1, 0, 0, 1], 2),
        ([5], 1),
        (np.tile(np.arange(900), 10), 10),
    ],
)
def test_how_often_a_sequence_repeats_itself(index, times):
    assert periods_of(np.asarray(index)) == times


def test_that_nothing_says_train_or_test_is_told(tmp_path):
    path = write(tmp_path / "a.nwb")
    with pytest.warns(RecordingWarning, match=r"whole session is the test split; splits=.* says"):
        recording = read_nwb(path)
    assert "doubt: no split intervals" in recording.attrs["reading"]


@pytest.mark.parametrize(
    ("starts", "stops", "split", "what"),
    [
        ([0.0, 0.4, 0.4], [0.4, 0.6, 0.6], ["train", "test", "test"], "test intervals"),
        ([0.0, 0.4, 0.5], [0.4, 0.6, 0.7], ["train", "test", "test"], "test intervals"),
        ([0.0, 0.0, 0.8], [0.4, 0.4, 1.2], ["train", "train", "test"], "train intervals"),
        ([0.0, 0.2], [0.4, 0.6], ["train", "test"], "train and test intervals"),
        ([0.0, 0.2], [1.2, 0.4], ["train", "test"], "train and test intervals"),
    ],
)
def test_intervals_that_overlap_are_refused(tmp_path, starts, stops, split, what):
    """A trial that stands twice would be two presentations with equal responses."""

    def fill(nwbfile):
        nwbfile.add_time_intervals(intervals("shown", starts, stops, split=split))

    path = write(tmp_path / "a.nwb", fill, stimulus=movie(data=SESSION))
    with pytest.raises(RetinaCodecError, match=rf"{what} must not overlap.*pass splits="):
        read_nwb(path, join_blocks=True)


def test_a_table_that_cannot_be_read_is_left_out_with_a_word(tmp_path):
    def mend(file):
        del file["intervals/stimulus_epochs/start_time"]
        file["intervals/stimulus_epochs/start_time"] = h5py.ExternalLink("gone.h5", "/a")

    path = session(tmp_path / "a.nwb", mend=mend)
    with pytest.warns(RecordingWarning, match=r"stimulus_epochs was left out: .*'gone\.h5'"):
        read_nwb(path)
