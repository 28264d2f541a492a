"""Runs of pieces: continued where they stopped, whole in one step, refused when they are another's.

Kills at any moment, full disks and other processes are tested with contributions, which are stored
in the same way (tests/contributions/test_store.py).
"""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.storage.runs import FolderLock, Run, open_run
from retina_codec.storage.trees import open_tree

IDENTITY = {"format": "test 1", "seed": "0"}
LENGTH = 4
VALUES = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)


def arrays() -> dict[str, xr.DataArray]:
    """Two arrays of ten rows: pieces of four, four and two."""
    empty = xr.DataArray(np.zeros((10, 3), np.float32), dims=("time", "cell"))
    return {
        "/layers/a/rate": empty.assign_attrs(units="Hz"),
        "/count": xr.DataArray(np.zeros(10, np.int32), dims="time"),
    }


def rest() -> xr.DataTree:
    """What is known at the end only, at the places of the arrays and at others."""
    about = xr.Dataset({"mean": ("cell", VALUES.mean(0))}, {"cell": ["x", "y", "z"]})
    whole = {"/": xr.Dataset(attrs={"made": "here"}), "/layers/a": about, "/layers/b": about}
    return xr.DataTree.from_dict(whole)


def begin(place: Path, identity: Any = IDENTITY) -> Run:
    opened = open_run(place, identity, arrays, LENGTH)
    assert isinstance(opened, Run)
    return opened


def write(run: Run, piece: int) -> None:
    start = LENGTH * piece
    rows = VALUES[start : start + LENGTH]
    numbers = np.arange(start, start + len(rows), dtype=np.int32)
    run.pieces.write(f"{piece}", start, {"/layers/a/rate": rows, "/count": numbers})


def test_pieces_in_any_order_and_any_process_make_the_whole(tmp_path: Path) -> None:
    place = tmp_path / "run.zarr"
    with begin(place) as run:
        write(run, 2)
        sent = pickle.loads(pickle.dumps(run.pieces))
        sent.write("0", 0, {"/layers/a/rate": VALUES[:4], "/count": np.arange(4, dtype=np.int32)})
        assert [run.pieces.done(name) for name in "012"] == [True, False, True]
        assert np.isnan(run.pieces.read("/layers/a/rate")[4:8]).all(), "not zeros: not known yet"
    assert not place.exists()
    with begin(place) as run:
        assert [run.pieces.done(name) for name in "012"] == [True, False, True]
        write(run, 1)
        tree = run.finish(rest())
    assert [path.name for path in tmp_path.iterdir()] == ["run.zarr"]
    np.testing.assert_array_equal(tree["layers/a/rate"], VALUES)
    assert tree["layers/a/rate"].attrs == {"units": "Hz"}
    assert tree["layers/a/rate"].dims == ("time", "cell")
    assert tree["layers/a"]["cell"].values.tolist() == ["x", "y", "z"]
    np.testing.assert_array_equal(tree["count"], np.arange(10))
    assert tree["count"].dtype == np.int32
    np.testing.assert_array_equal(tree["layers/b/mean"], VALUES.mean(0))
    assert tree.attrs["made"] == "here"
    again = open_run(place, IDENTITY, arrays, LENGTH)
    assert isinstance(again, xr.DataTree), "a finished store is opened, not begun again"
    xr.testing.assert_identical(again, tree)


def test_an_end_that_was_interrupted_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, moved = tmp_path / "run.zarr", []
    plain = os.replace

    def stop(source: Any, goal: Any) -> None:
        if "rest.zarr" in Path(source).parts and len(moved) == 3:
            raise KeyboardInterrupt
        if "rest.zarr" in Path(source).parts:
            moved.append(source)
        plain(source, goal)

    with begin(place) as run:
        for piece in range(3):
            write(run, piece)
        with monkeypatch.context() as patch:
            patch.setattr("os.replace", stop)
            with pytest.raises(KeyboardInterrupt):
                run.finish(rest())
    assert len(moved) == 3
    assert not place.exists()
    with begin(place) as run:
        found = run.finish(rest())
    np.testing.assert_array_equal(found["layers/a/rate"], VALUES)
    np.testing.assert_array_equal(found["layers/b/mean"], VALUES.mean(0))


def test_another_run_is_refused_and_says_what_differs(tmp_path: Path) -> None:
    place = tmp_path / "run.zarr"
    with begin(place) as run:
        write(run, 0)
    with pytest.raises(RetinaCodecError, match=r"another \(seed: 0 there, 1 here\)"):
        begin(place, IDENTITY | {"seed": "1"})
    with begin(place) as run:
        run.finish(rest())
    with pytest.raises(RetinaCodecError, match=r"another \(seed: 0 there, 1 here\)"):
        begin(place, IDENTITY | {"seed": "1"})
    with open_tree(place) as tree:
        assert tree.attrs["run"] == '{"format": "test 1", "seed": "0"}'


def test_a_store_is_a_zarr_folder(tmp_path: Path) -> None:
    with pytest.raises(RetinaCodecError, match=r"must end in \.zarr; got .*run\.nc"):
        begin(tmp_path / "run.nc")


def test_a_folder_has_one_writer(tmp_path: Path) -> None:
    place = tmp_path / "run.zarr"
    with begin(place):
        with pytest.raises(RetinaCodecError, match="only one process at a time"):
            begin(place)
        with pytest.raises(RetinaCodecError, match="only one process at a time"):
            FolderLock(place.with_name("run.zarr.partial"))
    with begin(place):
        pass


def test_a_piece_of_another_run_is_not_written(tmp_path: Path) -> None:
    place = tmp_path / "run.zarr"
    with begin(place) as run:
        (run.pieces.partial / "run.json").write_text('{"seed": "2"}')
        with pytest.raises(RetinaCodecError, match="now belongs to another run"):
            write(run, 0)
        assert not run.pieces.done("0")
