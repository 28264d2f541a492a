"""Tables of concepts: members by hand, levels, and mistakes."""

import numpy as np
import pytest
import xarray as xr

from retina_codec.analysis.concepts.table import concept_table
from retina_codec.errors import RetinaCodecError

LABELS = ["cat", "oak", "dog", "cat", "", "elm"]


def test_members_are_those_with_the_label():
    table = concept_table(LABELS)
    assert table["concept"].values.tolist() == ["cat", "dog", "elm", "oak"]
    expected = [[label == name for name in ("cat", "dog", "elm", "oak")] for label in LABELS]
    np.testing.assert_array_equal(table, expected)
    assert set(table["level"].values) == {"class"}


def test_superclasses_are_unions_of_their_classes():
    hierarchy = {"cat": ["animal", "living"], "dog": "animal", "oak": ["living"], "yew": "dark"}
    table = concept_table(LABELS, hierarchy)
    above = table.isel(concept=table["level"].values == "superclass")
    assert above["concept"].values.tolist() == ["animal", "living"]  # none of the dark is here
    np.testing.assert_array_equal(
        above.sel(concept="animal"), table.sel(concept="cat") | table.sel(concept="dog")
    )
    np.testing.assert_array_equal(
        above.sel(concept="living"), table.sel(concept="cat") | table.sel(concept="oak")
    )


def test_labels_of_samples_stay():
    labels = xr.DataArray(LABELS, dims="sample", coords={"sample": np.arange(6) + 3})
    assert concept_table(labels)["sample"].values.tolist() == [3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize(
    ("labels", "hierarchy", "message"),
    [
        (["", None], None, "all are empty"),
        ([["a"]], None, "one per sample"),
        (["a", "b"], {"a": "b"}, "must not have the name of a class"),
    ],
)
def test_mistakes_are_named(labels, hierarchy, message):
    with pytest.raises(RetinaCodecError, match=message):
        concept_table(labels, hierarchy)


def test_numbers_and_missing_labels():
    table = concept_table(np.array([3, None, float("nan"), 3, 10], dtype=object))
    assert table["concept"].values.tolist() == ["10", "3"]
    np.testing.assert_array_equal(table.sel(concept="3"), [True, False, False, True, False])
    assert not table[1:3].any()
