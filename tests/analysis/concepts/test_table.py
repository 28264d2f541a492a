"""Tables of concepts: members by hand, levels, and mistakes."""

import numpy as np
import pytest
import xarray as xr

from retina_codec.analysis.concepts.table import chunks_of, concept_table, features_of, kinds_of
from retina_codec.errors import RetinaCodecError
from tests.analysis.planted_concepts import planted

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


TREE = planted(samples=50)


def together(array):
    return np.concatenate([values for _, values in chunks_of(array, 50)()])


def test_kinds_stand_in_their_usual_order():
    assert kinds_of(["activations", "modes"], None) == ["modes", "activations"]
    assert kinds_of("modes", TREE) == ["modes", "activation_modes"]


def test_features_are_the_arrays_of_the_tree():
    both = TREE["layers/one/contribution"]
    for kind, sign, expected in (
        ("modes", "excitatory", TREE["layers/one/modes/loading"].values),
        ("activations", "excitatory", TREE["layers/one/activation"].values),
        ("contributions", "inhibitory", both.values[:, 0]),
        ("contributions", "net", both.values.sum(1)),
    ):
        found = features_of(TREE, None, "one", kind, sign)
        np.testing.assert_allclose(together(found), expected)


def test_activation_modes_are_those_of_the_other_tree():
    other = planted(seed=5, samples=50)
    found = features_of(TREE, other, "one", "activation_modes", "excitatory")
    np.testing.assert_array_equal(found, other["layers/one/modes/loading"])


def test_chunks_can_be_read_again():
    chunks = chunks_of(TREE["layers/one/activation"], 50)
    one, again = ([values for _, values in chunks()] for _ in range(2))
    np.testing.assert_array_equal(np.concatenate(one), np.concatenate(again))


def test_other_samples_are_refused():
    with pytest.raises(RetinaCodecError, match="50 and 40"):
        chunks_of(TREE["layers/one/activation"], 40)
