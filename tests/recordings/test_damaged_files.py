"""Damaged and hostile HDF5 files: an error that says so, or what h5py reads; no hang, no memory."""

import os
from collections import Counter

import h5py
import numpy as np
import pytest

from retina_codec.errors import RetinaCodecError
from retina_codec.recordings.maheswaranathan_2023.recording import read_maheswaranathan
from tests.recordings.nwb_files import RATE, movie, write
from tests.recordings.published_files import write_published
from tests.recordings.watchdog import outcomes

LONGEST = 10.0  # s for one file
MOST = 2**30  # bytes resident


def published(folder, seed):
    """Three files: old and new HDF5 layout, compressed and plain."""
    small = {"train_frames": 60, "test_frames": 45, "cells": 3, "seed": seed}
    packed = {"compression": "gzip", "chunks": (20, 8, 9)}
    old = write_published(folder / "old" / "a.h5", size=(8, 9), **packed, **small)
    plain = write_published(folder / "plain" / "a.h5", size=(40, 40), **small)
    with h5py.File(old) as source, h5py.File(folder / "new.h5", "w", libver="latest") as file:
        for name in source:
            source.copy(name, file)
    return [old, plain, folder / "new.h5"]


def sessions(folder, seed):
    """Two NWB files of others: frames by rate and by timestamps, in whole and in small chunks."""
    random = np.random.default_rng(seed)
    spikes = {cell: np.sort(random.uniform(0, 1.2, 40)).tolist() for cell in (3, 1, 2)}
    timed = movie(timestamps=np.arange(60) / RATE)

    def chunk(file):
        place = "stimulus/presentation/movie/data"
        attributes, frames = dict(file[place].attrs), file[place][()]
        del file[place]
        stored = file.create_dataset(place, data=frames, chunks=(7, 4, 3), compression="gzip")
        stored.attrs.update(attributes)

    columns = {"cell_type": ["ON", "OFF", "ON"]}
    one = write(folder / "one.nwb", spikes=spikes, columns=columns)
    two = write(folder / "two.nwb", stimulus=timed, spikes=spikes, mend=chunk)
    return [one, two]


def damaged(folder, count, seed, make=published):
    """Damage copies of files.

    In turn: a cut, one flipped byte per kilobyte, one to four flipped bytes, and the same among
    the first kilobytes, where the structure is.
    """
    random = np.random.default_rng(seed)
    sound = make(folder, seed)
    contents = [np.fromfile(path, np.uint8) for path in sound]
    paths = []
    for number in range(count):
        data = contents[number % len(contents)].copy()
        flips, end = random.integers(1, 5), data.size
        match number % 4:
            case 0:
                data = data[: random.integers(1, data.size)]
                flips = 0
            case 1:
                flips = data.size // 1024
            case 2:
                end = 2**13
        places = random.integers(0, end, flips)
        data[places] ^= random.integers(1, 256, flips).astype(np.uint8)
        paths.append(folder / f"damaged{number}" / f"a{sound[0].suffix}")
        paths[-1].parent.mkdir()
        data.tofile(paths[-1])
    return paths


def check(results, count):
    bad = [r for r in results if r["outcome"] not in ("read", "refused")]
    assert not bad, f"{len(bad)} of {count}: {bad[:3]}"
    assert len(results) == count
    assert max(r["peak"] for r in results) < MOST
    assert max(r["seconds"] for r in results) < LONGEST
    assert all("\n" not in r["text"] for r in results)
    found = Counter(r["outcome"] for r in results)
    assert found["refused"] > count // 4, "the damage must reach the file's structure"


def test_damaged_files_are_refused_or_read_right(tmp_path):
    check(outcomes(damaged(tmp_path, 60, seed=0), limit=LONGEST), 60)


@pytest.mark.slow
def test_many_damaged_files_are_refused_or_read_right(tmp_path):
    check(outcomes(damaged(tmp_path, 250, seed=1), limit=LONGEST), 250)


def test_damaged_sessions_are_refused_or_read_right(tmp_path):
    check(outcomes(damaged(tmp_path, 60, seed=2, make=sessions), limit=LONGEST), 60)


@pytest.mark.slow
def test_many_damaged_sessions_are_refused_or_read_right(tmp_path):
    check(outcomes(damaged(tmp_path, 250, seed=3, make=sessions), limit=LONGEST), 250)


@pytest.fixture
def path(tmp_path):
    return write_published(tmp_path / "15-10-07" / "a.h5", size=(8, 9))


def replace(path, name, make):
    with h5py.File(path, "a") as file:
        del file[name]
        make(file, name)


def bomb(file, name):
    """Claims a terabyte, stores nothing."""
    shape, chunks = (60, 10**5, 10**5), (1, 100, 100)
    if "response" in name:
        shape, chunks = (10**10, 61), (10**4, 61)
    file.create_dataset(name, shape=shape, dtype="f4", compression="gzip", chunks=chunks)


def circle(file, name):
    file[name] = h5py.SoftLink(f"/{name}2")
    file[name + "2"] = h5py.SoftLink(f"/{name}")


def outside(file, name):
    file[name] = h5py.ExternalLink("../elsewhere.h5", "/a")


def outside_by_two_links(file, name):
    """A file beside this one, which itself points elsewhere."""
    with h5py.File(os.path.dirname(file.filename) + "/stage.h5", "w") as stage:
        stage["a"] = h5py.ExternalLink("../elsewhere.h5", "/a")
    file[name] = h5py.ExternalLink("stage.h5", "/a")


def absolute(file, name):
    file[name] = h5py.ExternalLink(os.fspath(file.filename) + "/../../elsewhere.h5", "/a")


def raw(file, name):
    shape = (6, 61) if "response" in name else (60, 8, 9)
    file.create_dataset(name, shape=shape, dtype="u1", external=[("../elsewhere.h5", 0, 10**4)])


def virtual(file, name):
    shape = (6, 61) if "response" in name else (60, 8, 9)
    layout = h5py.VirtualLayout(shape, "u1")
    layout[...] = h5py.VirtualSource("../elsewhere.h5", "a", shape)
    file.create_virtual_dataset(name, layout)


def text(file, name):
    file[name] = np.full((6, 61) if "response" in name else (60, 8, 9), b"a")


def words(file, name):
    shape = (6, 61) if "response" in name else (60, 8, 9)
    file.create_dataset(name, data=np.full(shape, "a", dtype=object), dtype=h5py.string_dtype())


def table(file, name):
    file[name] = np.zeros((6, 61) if "response" in name else (60, 8, 9), dtype=[("a", "f4")])


def huge_chunk(file, name):
    chunks = (2**21, 8, 9)
    file.create_dataset(name, (60, 8, 9), "f4", maxshape=(None, 8, 9), chunks=chunks)


@pytest.mark.parametrize("name", ["test/stimulus", "test/response/firing_rate_10ms"])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (bomb, r"claims \d+ bytes and stores 0;"),
        (circle, "goes in circles"),
        (outside, "outside its own folder"),
        (outside_by_two_links, "outside its own folder"),
        (absolute, "outside its own folder"),
        (raw, "must stand in an HDF5 file"),
        (virtual, "outside its own folder"),
        (lambda file, name: file.create_group(name), "must be an array .* it is Group"),
        (text, "must hold real numbers"),
        (words, "must hold real numbers"),
        (table, "must hold real numbers"),
        (lambda file, name: file.create_dataset(name, data=h5py.Empty("f4")), "must be an array"),
    ],
)
def test_hostile_arrays_are_refused(path, name, make, message):
    with h5py.File(path.parents[1] / "elsewhere.h5", "w") as file:
        file["a"] = np.zeros((60, 8, 9), dtype="u1")
    replace(path, name, make)
    with pytest.raises(RetinaCodecError, match=message) as caught:
        read_maheswaranathan(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["test", "test/response", "test/repeats", "spikes"])
@pytest.mark.parametrize("make", [outside, outside_by_two_links, absolute])
def test_hostile_groups_are_refused(path, name, make):
    with h5py.File(path.parents[1] / "elsewhere.h5", "w") as file:
        file["a/cell01"] = np.zeros((3, 60))
    replace(path, name, make)
    with pytest.raises(RetinaCodecError, match="outside its own folder"):
        read_maheswaranathan(path)


def test_a_chunk_too_large_to_read_is_refused(path):
    replace(path, "test/stimulus", huge_chunk)
    with pytest.raises(RetinaCodecError, match=r"in pieces of at most 67108864 bytes; one is 6039"):
        read_maheswaranathan(path)


def test_frames_beside_the_file_may_be_linked(path):
    """Links within the folder are how some keep movies that several files share."""
    expected = read_maheswaranathan(path)["test/stimulus"].to_numpy()
    with h5py.File(path, "a") as file, h5py.File(path.with_name("movie.h5"), "w") as movie:
        movie["deep/movie"] = file["test/stimulus"][()]
        del file["test/stimulus"]
        file["test/stimulus"] = h5py.ExternalLink("movie.h5", "/deep/movie")
    found = read_maheswaranathan(path)["test/stimulus"]
    np.testing.assert_array_equal(found, expected)


def test_a_link_that_turns_hostile_after_opening_is_refused_at_reading(path):
    with h5py.File(path.parents[1] / "elsewhere.h5", "w") as file:
        file["a"] = np.zeros((60, 8, 9), dtype="u1")
    recording = read_maheswaranathan(path)
    replace(path, "test/stimulus", outside)
    with pytest.raises(RetinaCodecError, match="outside its own folder"):
        recording["test/stimulus"].compute()


def test_groups_that_hold_themselves_are_no_trouble(path):
    expected = read_maheswaranathan(path)["test/rate"]
    with h5py.File(path, "a") as file:
        file["test/response/again"] = file["test"]
        file["loop"] = h5py.SoftLink("/")
    np.testing.assert_array_equal(read_maheswaranathan(path)["test/rate"], expected)
