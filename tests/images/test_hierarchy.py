"""Superclasses from tables and from links, and the table of members."""

import json
import pickle

import networkx
import numpy as np
import pytest
import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.images.hierarchy import Hierarchy, membership, open_hierarchy

TABLE = """class,family,kingdom
poodle,dog,animal
husky,dog,animal
tabby,cat,animal
oak,,plant
rock,,
"""
ABOVE = {
    "poodle": ("dog", "animal"),
    "husky": ("dog", "animal"),
    "tabby": ("cat", "animal"),
    "oak": ("plant",),
    "rock": (),
}


@pytest.fixture
def table(tmp_path):
    (tmp_path / "h.csv").write_text(TABLE)
    return open_hierarchy(tmp_path / "h.csv")


def test_a_table_with_levels(table):
    assert dict(table) == ABOVE
    assert table.levels == ("family", "kingdom")
    assert table.level["dog"] == "family"
    assert table.level["plant"] == "kingdom"
    assert table.at("family") == {"poodle": "dog", "husky": "dog", "tabby": "cat"}
    assert pickle.loads(pickle.dumps(table)) == table


def test_levels_keep_their_order_though_the_first_class_has_none(tmp_path):
    (tmp_path / "h.csv").write_text("class,low,high\nrock,,thing\noak,tree,thing\n")
    assert open_hierarchy(tmp_path / "h.csv").levels == ("low", "high")


def test_a_table_without_a_header(tmp_path):
    (tmp_path / "h.csv").write_text("poodle,dog\ntabby,cat\n")
    found = open_hierarchy(tmp_path / "h.csv")
    assert dict(found) == {"poodle": ("dog",), "tabby": ("cat",)}
    assert set(found.level.values()) == {"superclass"}


def test_json_of_every_form(tmp_path):
    given = {"a": "x", "b": ["x", "y"], "c": {"low": "p", "high": "q"}}
    (tmp_path / "h.json").write_text(json.dumps(given))
    found = open_hierarchy(tmp_path / "h.json")
    assert dict(found) == {"a": ("x",), "b": ("x", "y"), "c": ("p", "q")}
    assert found.level == {"x": "superclass", "y": "superclass", "p": "low", "q": "high"}
    assert found.at("superclass") == {"a": "x"}  # b has two


def random_links(seed, count=60):
    """A graph without circles, children with one to three parents."""
    generator = np.random.default_rng(seed)
    return [
        (f"n{parent:08d}", f"n{child:08d}")
        for child in range(1, count)
        for parent in generator.choice(child, min(child, generator.integers(1, 4)), replace=False)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_ancestors_are_those_of_a_graph(seed, tmp_path):
    links = random_links(seed)
    np.random.default_rng(seed).shuffle(links)
    (tmp_path / "is_a.txt").write_text("\n".join(" ".join(link) for link in links))
    found = open_hierarchy(tmp_path / "is_a.txt")
    graph = networkx.DiGraph(links)
    assert set(found) == {child for _, child in links}
    for child, above in found.items():
        assert set(above) == networkx.ancestors(graph, child)
        assert len(above) == len(set(above))
        direct = {parent for parent, one in links if one == child}
        assert set(above[: len(direct)]) == direct  # nearest first


def test_a_long_chain_needs_no_recursion(tmp_path):
    (tmp_path / "is_a.txt").write_text("\n".join(f"{k} {k + 1}" for k in range(1200)))
    assert len(open_hierarchy(tmp_path / "is_a.txt")["1200"]) == 1200


def test_members_are_those_of_the_definition(table):
    labels = np.random.default_rng(0).choice([*ABOVE, "pebble", ""], 50)
    found = membership(labels, table)
    assert found.dtype == bool
    assert found.dims == ("sample", "concept")
    for concept in found["concept"].values:
        for sample, label in enumerate(labels):
            expected = bool(label) and (concept == label or concept in ABOVE.get(label, ()))
            assert bool(found.sel(concept=concept)[sample]) == expected
    level = dict(zip(found["concept"].values, found["level"].values, strict=True))
    assert level["poodle"] == level["pebble"] == "class"
    assert level["dog"] == "family"
    assert level["animal"] == "kingdom"
    assert found["concept"].values.tolist()[-4:] == ["cat", "dog", "animal", "plant"]


def test_samples_may_come_in_any_order(table):
    labels = xr.DataArray(
        ["poodle", "oak", "tabby", "oak"], dims="sample", coords={"sample": [4, 2, 9, 7]}
    )
    found = membership(labels, table)
    order = [2, 0, 3, 1]
    xr.testing.assert_identical(membership(labels[order], table), found[order])
    assert found.sel(sample=9, concept="cat")


def test_concepts_without_a_sample_are_left_out(table):
    assert membership(["oak"], table)["concept"].values.tolist() == ["oak", "plant"]
    assert membership(np.array(["oak", "rock"], object))["concept"].values.tolist() == [
        "oak",
        "rock",
    ]


def test_a_plain_mapping_is_a_hierarchy():
    found = membership(["a", "b"], {"a": "x", "b": ["x", "y"]})
    assert found["concept"].values.tolist() == ["a", "b", "x", "y"]
    assert found["level"].values.tolist() == ["class", "class", "superclass", "superclass"]
    np.testing.assert_array_equal(found, [[1, 0, 1, 0], [0, 1, 1, 1]])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("h.csv", "", "a class and a superclass in every row"),
        ("h.csv", "a\nb\n", "a class and a superclass in every row"),
        ("h.csv", "class,superclass\n", "at least one class"),
        ("h.csv", "a,b\nc\n", r"2 cells in every row; got \['c'\]"),
        ("h.csv", "a,b\na,c\n", "name every class once; 'a' is there twice"),
        ("h.csv", "class,low,high\na,x,y\nb,y,z\n", "'y' is at 'high' and 'low'"),
        ("h.json", "[1]", "must hold a table"),
        ("h.json", '{"a": 3}', "must give text, a list or levels"),
        ("h.json", "{", "must be JSON"),
        ("h.txt", "a b c\n", "line 1 has 3 words"),
        ("h.txt", "a b\nb c\nc a\n", "is its own ancestor"),
        ("h.txt", "a a\n", "a is its own ancestor"),
        ("h.xml", "", "must be a .csv, a .json or WordNet"),
    ],
)
def test_what_is_no_hierarchy_is_refused(name, text, message, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(RetinaCodecError, match=message):
        open_hierarchy(tmp_path / name)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([1, 2], "labels must be text"),
        (["", ""], "at least one label"),
        ([["a"]], "one per sample"),
        (["poodle", "dog"], "'dog' is both"),
    ],
)
def test_labels_that_make_no_table_are_refused(labels, message, table):
    with pytest.raises(RetinaCodecError, match=message):
        membership(labels, table)


def test_a_hierarchy_is_a_mapping():
    assert dict(Hierarchy(ABOVE, {})) == ABOVE
    assert len(Hierarchy(ABOVE, {})) == 5
