"""Arrays of published files: their clock, their length, frames that stay on disk."""

import pickle

import h5py
import numpy as np
import pytest

from retina_codec.errors import RetinaCodecError
from retina_codec.recordings.maheswaranathan_2023.recording import read_maheswaranathan
from tests.recordings.published_files import write_published
from tests.reference.published import slow_split

PLACE = "15-10-07/naturalscene.h5"


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return write_published(tmp_path_factory.mktemp("published") / PLACE, stas=True)


def test_a_response_beyond_the_movie_is_cut_and_said(published, tmp_path):
    said = read_maheswaranathan(published).attrs["cut"]
    names = ("response/firing_rate_10ms", "repeats", "response/binned")
    assert said == "the last sample, beyond the movie, is left out of: " + ", ".join(
        f"/test/{name}" for name in names
    )
    exact = read_maheswaranathan(write_published(tmp_path / PLACE, longer=0))
    assert "cut" not in exact.attrs
    with pytest.raises(RetinaCodecError, match="a sample per frame, or one more; it has 62 for 60"):
        read_maheswaranathan(write_published(tmp_path / "b" / PLACE, longer=2))


@pytest.mark.parametrize(
    ("clocks", "starts", "words"),
    [
        ((0.0, 0.0), (0.0, 1.2), "test times are moved by 1.2 s, behind train"),
        ((5.0, 5.5), (5.0, 6.2), "test times are moved by 0.7 s, behind train"),
        ((0.0, 7.0), (0.0, 7.0), None),
        ((9.0, 0.0), (9.0, 0.0), None),
        ((0.7, 0.0), (0.7, 1.9), "moved by 1.9 s"),  # three presentations of 0.6 s
        ((None, None), (0.0, 1.2), "stores no time: 100 Hz from 0 s"),
    ],
)
def test_one_session_clock(tmp_path, clocks, starts, words):
    recording = read_maheswaranathan(write_published(tmp_path / PLACE, clocks=clocks))
    for split, start, frames in zip(("train", "test"), starts, (120, 60), strict=True):
        expected = start + np.arange(frames) / 100
        np.testing.assert_allclose(recording[f"{split}/time"], expected, atol=1e-12)
    if words is None:
        assert "clock" not in recording.attrs
    else:
        assert words in recording.attrs["clock"]


def change_time(path, change):
    with h5py.File(path, "a") as file:
        time = file["train/time"][()]
        del file["train/time"]
        file["train/time"] = change(time)


def test_rounded_times_are_replaced_and_said(tmp_path):
    path = write_published(tmp_path / PLACE, clocks=(3000.0, 4000.0))
    change_time(path, lambda time: time.astype(np.float32))
    recording = read_maheswaranathan(path)
    np.testing.assert_allclose(recording["train/time"], 3000 + np.arange(120) / 100)
    assert "/train: exactly 100 Hz; stored times are up to" in recording.attrs["clock"]


def test_gaps_between_blocks_are_closed_and_others_refused(tmp_path):
    path = write_published(tmp_path / PLACE, clocks=(0.0, 90.0))
    change_time(path, lambda time: time + 5 * (np.arange(120) // 20))
    recording = read_maheswaranathan(path)
    np.testing.assert_allclose(recording["train/time"], np.arange(120) / 100)
    assert "/train: 5 gaps between blocks are closed" in recording.attrs["clock"]
    assert recording.attrs["spikes"].startswith("the clock of /train")
    with h5py.File(path, "a") as file:
        file["spikes/cell01"][...] += 5 * (file["spikes/cell01"][()] > 0.2)
    assert "not certain" in read_maheswaranathan(path).attrs["spikes"]
    change_time(path, lambda _: np.arange(120) / 100 + (np.arange(120) > 30))
    with pytest.raises(RetinaCodecError, match=r"advance evenly; at index 31 it goes from 0.3"):
        read_maheswaranathan(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda time: time * 2, "at 100 Hz, as published; it does at 50 Hz"),
        (lambda time: time * 0, "it does at nan Hz"),
        (lambda time: np.where(time > 0.5, np.nan, time), "finite seconds"),
        (lambda time: time[:-1], "it has 119 for 120 frames"),
        (lambda time: time[:, None], r"time must be an array \(time\); it is Dataset \(120, 1\)"),
    ],
)
def test_another_clock_is_refused(tmp_path, change, message):
    path = write_published(tmp_path / PLACE)
    change_time(path, change)
    with pytest.raises(RetinaCodecError, match=message):
        read_maheswaranathan(path)


def test_opening_reads_no_frame_and_a_slice_reads_its_block(tmp_path, monkeypatch):
    path = write_published(tmp_path / PLACE, chunks=(10, 50, 50), compression="gzip")
    monkeypatch.setattr("retina_codec.recordings.frames.lazy.FRAMES_PER_BLOCK", 10)
    read = []
    original = h5py.Dataset.__getitem__
    monkeypatch.setattr(
        h5py.Dataset,
        "__getitem__",
        lambda self, key, **more: read.append((self.name, key)) or original(self, key, **more),
    )
    recording = read_maheswaranathan(path)
    assert "/test/response/firing_rate_10ms" in [name for name, _ in read]
    assert not [name for name, _ in read if name.endswith("stimulus")]
    read.clear()
    values = recording["train/stimulus"][13:15].to_numpy()
    movie, _ = slow_split(path, "train")
    np.testing.assert_array_equal(values, movie[13:15])
    (name, key) = read[0]
    assert name == "/train/stimulus"
    assert (key[0].start, key[0].stop) in ((10, 20), (13, 15))


def test_the_file_is_closed_the_tree_travels_and_changed_frames_are_refused(tmp_path):
    path = write_published(tmp_path / PLACE)
    recording = read_maheswaranathan(path)
    with h5py.File(path, "a"):  # fails while anyone holds the file open
        pass
    assert pickle.loads(pickle.dumps(recording)).identical(recording)
    write_published(path, size=(8, 8))
    with pytest.raises(RetinaCodecError, match="must stay as they were"):
        recording["train/stimulus"].compute()
    path.unlink()
    with pytest.raises(RetinaCodecError, match="must stay readable"):
        recording["train/stimulus"].compute()
