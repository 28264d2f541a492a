"""Damaged and hostile HDF5 files: an error that says so, or what h5py reads; no hang, no memory."""

import os
from collections import Counter

import h5py
import numpy as np
import pytest

from retina_codec.errors import RetinaCodecError
from retina_codec.recordings.maheswaranathan import read_maheswaranathan
from tests.recordings.published_files import write_published
from tests.recordings.watchdog import outcomes

LONGEST = 10.0  # s for one file
MOST = 2**30  # bytes resident


def damaged(folder, count, seed):
    """Damage copies of three files: old and new HDF5 layout, compressed and plain.

    In turn: a cut, one flipped byte per kilobyte, one to four flipped bytes, and the same among
    the first kilobytes, where the structure is.
    """
    random = np.random.default_rng(seed)
    small = {"train_frames": 60, "test_frames": 45, "cells": 3, "seed": seed}
    packed = {"compression": "gzip", "chunks": (20, 8, 9)}
    old = write_published(folder / "old" / "a.h5", size=(8, 9), **packed, **small)
    plain = write_published(folder / "plain" / "a.h5", size=(40, 40), **small)
    with h5py.File(old) as source, h5py.File(folder / "new.h5", "w", libver="latest") as file:
        for name in source:
            source.copy(name, file)
    contents = [np.fromfile(path, np.uint8) for path in (old, plain, folder / "new.h5")]
    paths = []
    for number in range(count):
        data = contents[number % 3].copy()
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
        paths.append(folder / f"damaged{number}" / "a.h5")
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
