"""Layers are found or refused in one way, labels where they stand, and chunks cover all inputs."""

import numpy as np
import pytest
import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.storage.results import (
    class_codes,
    input_dim,
    layer_sites,
    layers_of,
    layers_with,
    modes_at,
    read,
    sample_labels,
    table,
)
from retina_codec.storage.trees import open_tree, save_tree


@pytest.mark.parametrize("size", [1, 100, 1000, 10**6])
def test_chunks_cover_everything_once(size):
    one = xr.DataArray(np.arange(60.0).reshape(3, 20), dims=("channel", "sample"))
    other = xr.DataArray(np.arange(20, dtype=np.float32), dims="sample")
    chunks = list(read({"one": one, "other": other}, "sample", size=size))
    np.testing.assert_array_equal(np.concatenate([c["one"] for _, c in chunks]), one.values.T)
    np.testing.assert_array_equal(np.concatenate([c["other"] for _, c in chunks]), other.values)
    assert [part.start for part, _ in chunks][1:] == [part.stop for part, _ in chunks][:-1]
    assert all(c["other"].dtype == np.float64 for _, c in chunks)


def test_chunks_of_a_file_are_not_cut(tmp_path):
    values = np.random.default_rng(0).normal(size=(300, 2000))
    save_tree(xr.DataTree(xr.Dataset({"v": (("sample", "channel"), values)})), tmp_path / "v.zarr")
    with open_tree(tmp_path / "v.zarr") as stored:
        rows = stored["v"].encoding["chunks"][0]
        assert rows < 300
        size = 16000 * (2 * rows + 5)
        starts = [part.start for part, _ in read({"v": stored["v"]}, "sample", size=size)]
    assert starts == list(range(0, 300, 2 * rows))


def tree_with(label_on):
    nodes = {name: xr.Dataset({"a": ("sample", [1, 2, 3])}) for name in ("/layers/x", "/responses")}
    nodes["/"] = xr.Dataset()
    nodes[label_on].coords["label"] = ("sample", ["cat", "", "dog"])
    return xr.DataTree.from_dict(nodes)


@pytest.mark.parametrize("place", ["/layers/x", "/responses"])
def test_labels_are_found(place):
    found = sample_labels(tree_with(place), None, "x", 3)
    assert found.tolist() == ["cat", "", "dog"]


def test_given_labels_come_first_and_missing_ones_are_empty():
    found = sample_labels(tree_with("/layers/x"), [3, None, float("nan")], "x", 3)
    assert found.tolist() == ["3", "", ""]
    codes, names = class_codes(found)
    assert (codes.tolist(), names) == ([0, -1, -1], ["3"])


def test_codes_follow_the_alphabet():
    codes, names = class_codes(np.array(["b", "a", "b"]))
    assert (codes.tolist(), names) == ([1, 0, 1], ["a", "b"])


def test_no_labels_at_all():
    tree = xr.DataTree.from_dict({"/layers/x": xr.Dataset({"a": ("sample", [1])})})
    assert sample_labels(tree, None, "x", 1) is None


def test_inputs_need_their_dim():
    with pytest.raises(RetinaCodecError, match="'sample' or 'time'"):
        input_dim(xr.DataArray(np.ones(3), dims="channel"))


def test_layers_stand_in_the_order_of_depth_where_it_is_known():
    about = {"b10": ("blocks", 10), "a": ("attention", 0), "b2": ("blocks", 2), "m": ("mlp", 1)}
    nodes = {
        f"/layers/{name}": xr.Dataset(attrs={"site": site, "block": block})
        for name, (site, block) in about.items()
    }
    tree = xr.DataTree.from_dict(nodes)
    assert layers_of(tree) == ["b2", "b10", "m", "a"]
    assert layer_sites(tree, ["m", "b2"]) == ["mlp", "blocks"]
    assert layers_of(tree, ["m", "b10"]) == ["m", "b10"]  # as asked
    nodes["/layers/other"] = xr.Dataset()
    assert layers_of(xr.DataTree.from_dict(nodes)) == ["b10", "a", "b2", "m", "other"]


@pytest.fixture
def tree():
    modes = xr.Dataset({"loading": (("sample", "mode"), np.ones((2, 3)))})
    nodes = {f"/layers/{name}": xr.Dataset() for name in "bac"}
    nodes |= {"/layers/b/modes": modes, "/layers/c/modes": modes}
    return xr.DataTree.from_dict(nodes)


def test_layers_are_all_or_those_asked_for_or_those_that_hold_a_part(tree):
    assert layers_of(tree) == ["b", "a", "c"]
    assert layers_of(tree, "a") == ["a"]
    assert layers_of(tree, ["c", "b"]) == ["c", "b"]
    assert layers_of(tree, part="modes") == layers_with(tree, "modes") == ["b", "c"]
    assert layers_of(tree, part="modes", among=("a", "c", "x")) == ["c"]
    assert layers_with(tree, "score") == layers_with(xr.DataTree()) == []
    assert modes_at(tree, "c").sizes == {"sample": 2, "mode": 3}


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda _: layers_of(xr.DataTree()), "contributions of at least one layer; .* no layer"),
        (lambda tree: layers_of(tree, []), "contributions of at least one layer"),
        (
            lambda tree: layers_of(tree, ["a", "x"]),
            r"of \['a', 'x'\]; .* \['b', 'a', 'c'\]: run cont",
        ),
        (lambda tree: layers_of(tree, "a", part="modes"), r"modes of \['a'\]; .*run decompose\(\)"),
        (lambda tree: layers_of(tree, part="score"), r"score of at .* run score_modes\(\) first"),
        (lambda tree: layers_of(tree, part="modes", among=["x"]), r"modes of one of \['x'\]; they"),
        (lambda tree: modes_at(tree, "a"), r"must hold modes of \['a'\]; they hold .*\['b', 'c'\]"),
        (lambda tree: table(tree, "layers/x"), "must hold the node layers/x; its nodes are layers"),
        (lambda tree: table(tree, "layers/b/modes/loading"), "must hold the node"),
    ],
)
def test_what_is_missing_is_one_sentence_that_says_how_to_make_it(tree, ask, message):
    with pytest.raises(RetinaCodecError, match=message) as caught:
        ask(tree)
    assert str(caught.value).rstrip(".").count(". ") == 0
