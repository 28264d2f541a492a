"""Top contexts of a mode, by hand."""

import numpy as np
import pytest
import xarray as xr

from retina_codec.analysis.gallery.contexts import top_contexts
from retina_codec.errors import RetinaCodecError

TEXTS = ["the red cat", "a dog", "one two three four", "stop"]
LOADING = np.array([[2.0, 0.0], [0.0, 0.0], [5.0, 0.0], [2.0, 0.0]])


def tree(**coords):
    modes = xr.Dataset(
        {
            "dictionary": (("mode", "sign", "channel"), np.ones((2, 1, 3))),
            "loading": (("sample", "mode"), LOADING, {"units": "nats"}),
        },
        coords={"mode": [0, 7]},
    )
    layer = xr.Dataset(coords={name: ("sample", values) for name, values in coords.items()})
    return xr.DataTree.from_dict({"/layers/0": layer, "/layers/0/modes": modes})


def test_the_largest_loadings_come_first_and_zeros_are_left_out():
    found = top_contexts(tree(), "0", 0, TEXTS)
    assert found["text"].values.tolist() == ["one two three four", "the red cat", "stop"]
    assert found["word"].values.tolist() == ["four", "cat", "stop"]
    assert found["position"].values.tolist() == [3, 2, 0]
    assert found["loading"].values.tolist() == [5, 2, 2]
    assert found["sample"].values.tolist() == [2, 0, 3]
    assert found["loading"].attrs["units"] == "nats"
    assert "predicted" not in found
    assert "label" not in found
    assert top_contexts(tree(), "0", 7, TEXTS).sizes["rank"] == 0
    assert top_contexts(tree(), "0", 0, TEXTS, count=1)["sample"].values.tolist() == [2]


def test_positions_tokens_predictions_and_labels():
    tokens = [["the", " red", " cat"], ["a", " dog"], ["one", " two"], ["st", "op"]]
    found = top_contexts(
        tree(label=["x", "y", "z", "x"]), "0", 0, tokens, position=[1, 0, -2, 1],
        predicted=["a", "b", "c", "d"],
    )  # fmt: skip
    assert found["text"].values.tolist() == ["one two", "the red cat", "stop"]
    assert found["word"].values.tolist() == ["one", " red", "op"]
    assert found["position"].values.tolist() == [0, 1, 1]
    assert found["predicted"].values.tolist() == ["c", "a", "d"]
    assert found["label"].values.tolist() == ["z", "x", "x"]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"texts": TEXTS[:3]}, "texts must be those of the samples, 4 of them; got 3"),
        ({"texts": "the red cat"}, "got one text"),
        ({"predicted": ["a"]}, "predicted must be those of the samples"),
        ({"position": [0, 0, 4, 0]}, "text 2 has 4 words, got 4"),
        ({"position": [0.0, 0.0, 1.0, 0.0]}, "whole numbers"),
        ({"count": 0}, "count must be at least 1"),
        ({"mode": 3}, "has the modes 0, 7; got 3"),
    ],
)
def test_bad_input_is_refused(options, match):
    given = {"mode": 0, "texts": TEXTS} | options
    with pytest.raises(RetinaCodecError, match=match):
        top_contexts(tree(), "0", given.pop("mode"), given.pop("texts"), **given)
