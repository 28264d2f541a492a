"""Frames in blocks: each stored chunk is unpacked once, however readers ask."""

import pickle

import dask.array
import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retina_codec.recordings.frames import lazy
from retina_codec.recordings.frames.lazy import ArrayFrames, GivenFrames, lazy_frames, read_few
from retina_codec.recordings.frames.places import Place

FRAMES = np.random.default_rng(0).integers(0, 255, (6000, 4, 6), dtype=np.uint8)


def stored(folder, chunks, frames=FRAMES, axes="tyx"):
    order = ["tyx".index(letter) for letter in axes]
    turned = np.transpose(frames, order)
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("a", data=turned, chunks=chunks, compression="gzip")
    together = chunks[axes.index("t")]
    place = Place(str(folder / "a.h5"), "/a")
    return ArrayFrames(place, turned.shape, frames.dtype, axes=axes, together=together)


@pytest.fixture
def unpacked(monkeypatch):
    """Chunks that were unpacked, in order: those that each read of frames touches."""
    found = []
    original = ArrayFrames.read

    def read(self, numbers):
        found.extend(range(numbers.min() // self.together, numbers.max() // self.together + 1))
        return original(self, numbers)

    monkeypatch.setattr(ArrayFrames, "read", read)
    return found


@pytest.mark.parametrize(
    ("chunks", "axes"),
    [((6000, 2, 2), "tyx"), ((2254, 2, 3), "tyx"), ((700, 4, 6), "tyx"), ((2, 2, 6000), "yxt")],
)
@pytest.mark.parametrize("step", [6000, 500, 77])
def test_a_movie_in_long_chunks_unpacks_each_of_them_once(tmp_path, unpacked, chunks, axes, step):
    frames = lazy_frames(stored(tmp_path, chunks, axes=axes))
    parts = [
        frames[start : start + step].compute(scheduler="sync") for start in range(0, 6000, step)
    ]
    np.testing.assert_array_equal(np.concatenate(parts), FRAMES)
    assert len(unpacked) == len(set(unpacked))


@pytest.mark.parametrize("chunks", [(6000, 2, 2), (500, 4, 6), (10, 4, 6)])
def test_a_few_frames_unpack_no_chunk_twice(tmp_path, unpacked, chunks):
    """As where 60 presentations are compared by three frames of each."""
    numbers = (np.arange(60)[:, None] * 100 + [0, 50, 99]).ravel()[::-1]
    found = read_few(stored(tmp_path, chunks), numbers)
    np.testing.assert_array_equal(found, FRAMES[numbers])
    assert len(unpacked) == len(set(unpacked))


def test_blocks_that_do_not_fit_into_memory_are_cut(tmp_path, unpacked, monkeypatch):
    monkeypatch.setattr(lazy, "LONG_BLOCK_BYTES", 24 * 2500)  # frames of 24 bytes
    frames = lazy_frames(stored(tmp_path, (6000, 2, 2)))
    assert frames.chunks[0] == (2000, 2000, 2000)
    np.testing.assert_array_equal(frames.compute(scheduler="sync"), FRAMES)
    assert len(unpacked) == 3


def test_short_chunks_are_read_as_asked(tmp_path, unpacked):
    frames = lazy_frames(stored(tmp_path, (10, 4, 6)))
    np.testing.assert_array_equal(frames[1003:1005].compute(scheduler="sync"), FRAMES[1003:1005])
    assert unpacked == [100]


def test_a_kept_block_does_not_travel(tmp_path):
    frames = lazy_frames(stored(tmp_path, (6000, 2, 2)))
    frames[:5].compute(scheduler="sync")
    sent = pickle.dumps(frames)
    assert len(sent) < 10_000
    np.testing.assert_array_equal(pickle.loads(sent)[7:9].compute(), FRAMES[7:9])


def test_arrays_of_the_user_say_how_they_are_stored(tmp_path):
    assert GivenFrames(FRAMES).together == 1
    assert GivenFrames(dask.array.from_array(FRAMES, chunks=(4000, 4, 6))).together == 4000
    with h5py.File(tmp_path / "a.h5", "w") as file:
        made = file.create_dataset("a", data=FRAMES, chunks=(3000, 2, 2))
        assert GivenFrames(made).together == 3000
        np.testing.assert_array_equal(lazy_frames(GivenFrames(made))[2990:3010], FRAMES[2990:3010])


@settings(max_examples=30, deadline=None)
@given(
    length=st.integers(1, 70),
    together=st.integers(1, 90),
    per_block=st.integers(1, 40),
    most=st.integers(1, 80),
    picks=st.lists(st.integers(0, 69), min_size=1, max_size=8),
    seed=st.integers(0, 9),
)
def test_any_way_of_asking_gives_the_frames(length, together, per_block, most, picks, seed):
    """Over lengths, chunks, blocks and slices: the same as numpy."""
    data = np.random.default_rng(seed).integers(0, 255, (length, 2, 3), dtype=np.uint8)

    class Chunked(GivenFrames):
        pass

    source = Chunked(data)
    source.together = together
    before = lazy.FRAMES_PER_BLOCK, lazy.LONG_BLOCK_BYTES
    try:
        lazy.FRAMES_PER_BLOCK, lazy.LONG_BLOCK_BYTES = per_block, 6 * most
        frames = lazy_frames(source)
    finally:
        lazy.FRAMES_PER_BLOCK, lazy.LONG_BLOCK_BYTES = before
    assert sum(frames.chunks[0]) == length
    for first in picks:
        first %= length
        part = frames[first : first + 5].compute(scheduler="sync")
        np.testing.assert_array_equal(part, data[first : first + 5])
    np.testing.assert_array_equal(frames[::-3].compute(scheduler="sync"), data[::-3])
