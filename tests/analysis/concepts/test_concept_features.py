"""Which features are read, and that chunks are those of the arrays."""

import numpy as np
import pytest

from retina_codec.analysis.concepts.table import chunks_of, features_of, kinds_of
from retina_codec.errors import RetinaCodecError
from tests.analysis.planted_concepts import planted

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
