"""What is saved comes back: values, dtypes, dims, coordinates and attributes, in both formats."""

import string
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from retina_codec.errors import RetinaCodecError
from retina_codec.storage.trees import open_tree, save_tree

NUMBERS = ["?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "c8", "c16"]

DTYPES = [*NUMBERS, ">f4", ">i2", "S1", "S3", "U1", "U4", "O"]

LETTERS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=4)


def values(dtype: str, shape: tuple[int, ...]) -> st.SearchStrategy[Any]:
    """Arrays of a dtype; text without the null, which numpy itself drops at the end."""
    if dtype == "O" or dtype[0] == "U":
        return arrays.arrays(object, shape, elements=LETTERS).map(
            lambda a: a if dtype == "O" else a.astype(dtype)
        )
    if dtype[0] == "S":
        letters = st.binary(max_size=int(dtype[1:])).map(lambda b: b.replace(b"\0", b"x"))
        return arrays.arrays(dtype, shape, elements=letters)
    return arrays.arrays(dtype, shape)


@st.composite
def datasets(draw: Any) -> xr.Dataset:
    sizes = {"a": draw(st.integers(0, 3)), "b": draw(st.integers(1, 3))}
    variables, coords = {}, {}
    for number in range(draw(st.integers(1, 4))):
        dims = draw(st.sampled_from([(), ("a",), ("b",), ("a", "b"), ("b", "a")]))
        dtype = draw(st.sampled_from(DTYPES))
        found = draw(values(dtype, tuple(sizes[dim] for dim in dims)))
        name = f"v{number}"
        where = coords if draw(st.booleans()) else variables
        where[name] = (dims, found, draw(attributes()))
    if draw(st.booleans()):
        coords["b"] = ("b", draw(values(draw(st.sampled_from(["U3", "i4", "f8"])), (sizes["b"],))))
    return xr.Dataset(variables, coords, draw(attributes()))


def attributes() -> st.SearchStrategy[dict[str, Any]]:
    names = st.text(string.ascii_lowercase, min_size=1, max_size=5).map(lambda n: f"x_{n}")
    plain = st.one_of(LETTERS, st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False))
    return st.dictionaries(names, plain, max_size=2)


def check(tree: xr.DataTree, suffix: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / f"tree{suffix}"
        save_tree(tree, place)
        found = open_tree(place, lazy=False)
        xr.testing.assert_identical(found, tree)
        for node in tree.subtree:
            for name, variable in node.to_dataset(inherit=False).variables.items():
                there = found[node.path].to_dataset(inherit=False).variables[name]
                expected = variable.dtype
                if expected.kind in "OU":
                    assert there.dtype.kind == "U", name
                    assert there.values.tolist() == variable.values.tolist(), name
                else:
                    assert there.dtype == expected.newbyteorder("="), name
                    np.testing.assert_array_equal(there.values, variable.values)


@st.composite
def trees(draw: Any) -> xr.DataTree:
    nodes = {"/": draw(datasets())}
    if draw(st.booleans()):
        nodes["/one/two"] = draw(datasets())
    kept = {
        path: node.rename({str(dim): f"{dim}{number}" for dim in node.dims})
        for number, (path, node) in enumerate(nodes.items())
    }
    return xr.DataTree.from_dict(kept)


@given(tree=trees(), suffix=st.sampled_from([".nc", ".zarr"]))
@settings(deadline=None, max_examples=25)
def test_any_tree_comes_back(tree: xr.DataTree, suffix: str) -> None:
    check(tree, suffix)


@pytest.mark.slow
@given(tree=trees(), suffix=st.sampled_from([".nc", ".zarr"]))
@settings(deadline=None, max_examples=2000)
def test_any_tree_comes_back_in_many_draws(tree: xr.DataTree, suffix: str) -> None:
    check(tree, suffix)


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_comes_back_in_every_number_of_dims(dtype: str, suffix: str) -> None:
    words = np.array([["a", ""], ["é", "b"]])
    plain = words if dtype[0] in "UO" else [[b"a", b""], [b"\xe9", b"b"]]
    filled = np.array(plain if dtype[0] in "UOS" else [[0, 1], [1, 1]]).astype(dtype)
    whole = xr.Dataset(
        {
            "none": ((), filled[0, 0]),
            "one": ("x", filled[1]),
            "two": (("x", "y"), filled),
            "empty": (("z", "y"), filled[:0]),
        }
    )
    check(xr.DataTree(whole), suffix)


REFUSED: dict[str, tuple[Any, str]] = {
    "nothing": (np.array(["a", None], object), "text or numbers; v holds (None|nan)"),
    "mixed": (np.array(["a", 1], object), "text or numbers; v holds 1"),
    "bytes as objects": (np.array([b"a", b"b"], object), "text or numbers; v holds b'a'"),
    "dates": (np.zeros(2, "M8[ns]"), "dates and durations"),
    "durations": (np.zeros(2, "m8[ns]"), "dates and durations"),
    "half a letter": (np.array(["\ud800", "c"]), "surrogates|encode"),
}


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
@pytest.mark.parametrize("kind", REFUSED)
def test_what_would_come_back_different_is_refused(kind: str, suffix: str, tmp_path: Path) -> None:
    given_values, says = REFUSED[kind]
    tree = xr.DataTree(xr.Dataset({"v": ("x", given_values)}))
    with pytest.raises(RetinaCodecError, match=says) as caught:
        save_tree(tree, tmp_path / f"tree{suffix}")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["scale_factor", "_FillValue", "missing_value", "add_offset"])
def test_attributes_that_readers_obey_are_refused(name: str, tmp_path: Path) -> None:
    tree = xr.DataTree(xr.Dataset({"v": ("x", np.arange(3.0), {name: 2.0})}))
    with pytest.raises(RetinaCodecError, match=rf"instructions to a reader; /:v has {name}=2.0"):
        save_tree(tree, tmp_path / "tree.nc")


ODD: dict[str, Any] = {
    "a long whole number": {"attrs": {"odd": 2**70}},
    "a list of both": {"attrs": {"odd": ["a", 1]}},
    "an empty list": {"attrs": {"odd": []}},
    "an empty array": {"attrs": {"odd": np.array([], "i4")}},
    "bytes": {"attrs": {"odd": b"x"}},
    "a complex number": {"attrs": {"odd": 1 + 2j}},
    "an empty text": {"attrs": {"odd": ""}},
    "a null": {"data_vars": {"v": ("x", np.array(["a\0b", "c"]))}},
    "a null in bytes": {"data_vars": {"v": ("x", np.array([b"a\0b", b"c"]))}},
    "long numbers": {"data_vars": {"v": ("x", np.array([1, 2], np.longdouble))}},
    "a name of two parts": {"data_vars": {"a/b": ("x", np.arange(3))}},
    "a number as name": {"data_vars": {1: ("x", np.arange(3))}},
    "a list of coordinates": {
        "data_vars": {"v": ("x", np.arange(3), {"coordinates": "a b"})},
        "coords": {"a": 1},
    },
    "two levels": {
        "coords": xr.Coordinates.from_pandas_multiindex(
            pd.MultiIndex.from_product([["a"], [1, 2]], names=["k", "l"]), "x"
        )
    },
    "categories": {"data_vars": {"v": ("x", pd.Categorical(["a", "b"]))}},
}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_odd_things_come_back_or_are_refused_in_one_line(
    kind: str, suffix: str, tmp_path: Path
) -> None:
    refused = None
    try:
        tree = xr.DataTree(xr.Dataset(**ODD[kind]))
    except ValueError:
        pytest.skip("xarray itself refuses")
    try:
        save_tree(tree, tmp_path / f"tree{suffix}")
    except RetinaCodecError as error:
        refused = str(error)
    if refused is None:
        found = open_tree(tmp_path / f"tree{suffix}", lazy=False)
        xr.testing.assert_equal(found, tree)
        assert list(found.attrs.values()) == [
            value.tolist() if isinstance(value, np.ndarray) else value
            for value in tree.attrs.values()
        ]
    else:
        assert "\n" not in refused
        assert not list(tmp_path.iterdir())
