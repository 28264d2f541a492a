"""Files that are lost, cut short or changed are told of, wherever a Zarr folder is opened."""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from retina_codec.errors import RetinaCodecError
from retina_codec.storage import runs
from retina_codec.storage.integrity import FILES, root_attribute
from retina_codec.storage.runs import Run, open_run
from retina_codec.storage.trees import open_tree, save_tree

IDENTITY = {"format": "test 1"}
VALUES = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
PIECE = 4


def arrays() -> dict[str, xr.DataArray]:
    return {"/layers/a/rate": xr.DataArray(np.zeros((12, 3), np.float32), dims=("time", "cell"))}


def begin(place: Path) -> Run:
    opened = open_run(place, IDENTITY, arrays, PIECE)
    assert isinstance(opened, Run)
    return opened


def write(run: Run, piece: int) -> None:
    start = PIECE * piece
    run.pieces.write(f"{piece}", start, {"/layers/a/rate": VALUES[start : start + PIECE]})


def finished(place: Path) -> Path:
    with begin(place) as run:
        for piece in range(3):
            write(run, piece)
        about = xr.Dataset(coords={"cell": ["x", "y", "z"], "time": np.arange(12.0)})
        run.finish(xr.DataTree.from_dict({"/layers/a": about})).close()
    return place


def saved(place: Path) -> Path:
    rates = xr.Dataset({"rate": (("time", "cell"), VALUES)})
    save_tree(xr.DataTree.from_dict({"/layers/a": rates}), place)
    return place


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "lost": Path.unlink,
    "cut short": cut,
    "empty": lambda path: path.write_bytes(b""),
    "changed": flip,
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"x"),
}


def chunks(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and "c" in path.parts)


@pytest.mark.parametrize("make", [finished, saved])
@pytest.mark.parametrize("damage", DAMAGE)
def test_every_damage_to_every_chunk_is_told(make: Any, damage: str, tmp_path: Path) -> None:
    whole = make(tmp_path / "whole.zarr")
    with open_tree(whole) as tree:
        np.testing.assert_array_equal(tree["layers/a/rate"], VALUES)
        assert FILES not in tree.attrs
    for chunk in chunks(whole):
        place = tmp_path / "run.zarr"
        shutil.copytree(whole, place)
        DAMAGE[damage](place / chunk.relative_to(whole))
        with pytest.raises(RetinaCodecError, match="must be whole; 1 of its") as caught:
            open_tree(place, lazy=False)
        assert chunk.relative_to(whole).as_posix() in str(caught.value)
        assert "\n" not in str(caught.value)
        if make is finished and damage != "changed":
            with pytest.raises(RetinaCodecError, match="must be whole"):
                open_run(place, IDENTITY, arrays, PIECE)
        shutil.rmtree(place)


def test_an_array_whose_description_is_lost_is_told(tmp_path: Path) -> None:
    place = saved(tmp_path / "tree.zarr")
    (place / "layers/a/rate/zarr.json").unlink()
    with pytest.raises(RetinaCodecError, match=r"lost or damaged \(layers/a/rate/zarr.json\)"):
        open_tree(place)


def test_a_chunk_that_goes_while_the_tree_is_open_is_told(tmp_path: Path) -> None:
    place = saved(tmp_path / "tree.zarr")
    with open_tree(place) as tree:
        chunks(place)[0].unlink()
        with pytest.raises(RetinaCodecError, match="must be whole"):
            tree["layers/a/rate"].to_numpy()


def test_what_others_add_is_no_damage(tmp_path: Path) -> None:
    """Attributes, and groups of their own; and folders that list nothing are read as they are."""
    place = saved(tmp_path / "tree.zarr")
    root = zarr.open_group(str(place), mode="a")
    root["layers/a/rate"].attrs["note"] = "mine"
    root.create_group("more").create_array("x", data=np.arange(3), dimension_names=("n",))
    with open_tree(place) as tree:
        assert tree["layers/a/rate"].attrs["note"] == "mine"
        np.testing.assert_array_equal(tree["more/x"].values, np.arange(3))
    del root.attrs[FILES]
    with open_tree(place) as tree:
        np.testing.assert_array_equal(tree["layers/a/rate"], VALUES)


def test_chunks_of_fill_values_are_not_written_and_not_missed(tmp_path: Path) -> None:
    tree = xr.DataTree(xr.Dataset({"zero": ("x", np.zeros(9)), "nan": ("x", np.full(9, np.nan))}))
    save_tree(tree, tmp_path / "tree.zarr")
    xr.testing.assert_identical(open_tree(tmp_path / "tree.zarr", lazy=False), tree)


def test_the_list_holds_every_file(tmp_path: Path) -> None:
    place = finished(tmp_path / "run.zarr")
    listed = set(root_attribute(place, FILES))
    there = {p.relative_to(place).as_posix() for p in place.rglob("*") if p.is_file()}
    assert listed == there - {"zarr.json"}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("piece", [0, 1])
def test_an_interrupted_run_computes_damaged_pieces_again(
    damage: str, piece: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "run.zarr"
    with begin(place) as run:
        write(run, 0)
        write(run, 1)
        DAMAGE[damage](run.pieces.data / f"layers/a/rate/c/{piece}/0")
    with begin(place) as run:
        assert [run.pieces.done(f"{n}") for n in range(3)] == [piece != 0, piece != 1, False]
        assert "files of 1 finished pieces" in caplog.text
        write(run, piece)
        write(run, 2)
        with run.finish(xr.DataTree()) as tree:
            np.testing.assert_array_equal(tree["layers/a/rate"], VALUES)


def test_a_mark_that_was_torn_counts_as_none(tmp_path: Path) -> None:
    place = tmp_path / "run.zarr"
    with begin(place) as run:
        write(run, 0)
        (run.pieces.partial / "done/0").write_text('{"half')
        (run.pieces.partial / "done/1.partial").write_text("{}")
    with begin(place) as run:
        assert not run.pieces.done("0")
        assert list((run.pieces.partial / "done").iterdir()) == []


def test_a_piece_that_is_lost_before_the_end_is_told_and_computed_again(tmp_path: Path) -> None:
    place = tmp_path / "run.zarr"
    with begin(place) as run:
        for piece in range(3):
            write(run, piece)
        (run.pieces.data / "layers/a/rate/c/1/0").unlink()
        with pytest.raises(RetinaCodecError, match=r"files of 1 finished pieces .* Run the same"):
            run.pieces.read("/layers/a/rate")
        write(run, 1)
        (run.pieces.data / "layers/a/rate/c/2/0").unlink()
        with pytest.raises(RetinaCodecError, match=r"files of 1 finished pieces .* Run the same"):
            run.finish(xr.DataTree())
    assert not place.exists()
    with begin(place) as run:
        write(run, 2)
        with run.finish(xr.DataTree()) as tree:
            np.testing.assert_array_equal(tree["layers/a/rate"], VALUES)


def test_long_parts_of_an_identity_stand_in_the_root_alone(tmp_path: Path) -> None:
    identity = {"format": "test 1", "network.heads": "2", "code of f": "1"}
    with open_run(tmp_path / "run.zarr", identity, arrays, PIECE) as run:  # type: ignore[union-attr]
        for piece in range(3):
            write(run, piece)  # type: ignore[arg-type]
        tree = run.finish(xr.DataTree())  # type: ignore[union-attr]
    assert json.loads(tree.attrs["run"]) == {"format": "test 1"}
    save_tree(tree, tmp_path / "copy.nc")
    other = identity | {"network.heads": "4"}
    with pytest.raises(RetinaCodecError, match=r"\(network.heads: 2 there, 4 here\)"):
        open_run(tmp_path / "run.zarr", other, arrays, PIECE)


@pytest.fixture(scope="module")
def whole() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield finished(Path(folder) / "run.zarr")


@pytest.mark.parametrize("key", ["separator", "chunk_shape", "node_type", "data_type"])
def test_a_damaged_key_of_an_arrays_metadata_is_one_line(whole: Path, tmp_path: Path, key) -> None:
    copy = tmp_path / "run.zarr"
    shutil.copytree(whole, copy)
    file = copy / "layers" / "a" / "rate" / "zarr.json"
    text = file.read_text(encoding="utf-8")
    assert f'"{key}"' in text
    file.write_text(text.replace(f'"{key}"', f'"{key[:-1]}?"'), encoding="utf-8")
    with pytest.raises(RetinaCodecError, match="must be a readable Zarr folder") as found:
        open_tree(copy, lazy=False)
    assert "\n" not in str(found.value)


@given(
    number=st.integers(0, 10**6),
    damage=st.sampled_from([*DAMAGE]),
    place=st.integers(0, 10**6),
)
@settings(deadline=None, max_examples=30)
def test_no_damage_goes_unnoticed(whole: Path, number: int, damage: str, place: int) -> None:
    """Of any file, at any place in it: an error, or the values as they were."""
    files = sorted(path for path in whole.rglob("*") if path.is_file())
    chosen = files[number % len(files)]
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "run.zarr"
        shutil.copytree(whole, copy)
        path = copy / chosen.relative_to(whole)
        if damage == "changed":
            content = bytearray(path.read_bytes())
            content[place % len(content)] ^= 1 << place % 8
            path.write_bytes(content)
        else:
            DAMAGE[damage](path)
        try:
            tree = open_tree(copy, lazy=False)
        except RetinaCodecError:
            return
        if path.name != "zarr.json":
            np.testing.assert_array_equal(tree["layers/a/rate"], VALUES)
    assert runs.MOVED
