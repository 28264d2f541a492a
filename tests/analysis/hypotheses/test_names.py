"""Names of rows: the weighted best type, its p, and how well the cut channels resemble it."""

import numpy as np
import pytest
import xarray as xr

from retina_codec.analysis.hypotheses.names import match_of_rows, name_statement
from retina_codec.analysis.hypotheses.silencing import Silencing
from retina_codec.analysis.hypotheses.statements import Statement


@pytest.fixture
def matches():
    """Three channels, two types, three interneurons."""
    labels = ["conv1/0", "conv1/1", "conv2/0"]
    r = np.array([[0.8, 0.1], [0.2, 0.6], [0.3, 0.9]])
    each = np.array([[0.7, 0.9, 0.1], [0.2, 0.2, 0.6], [0.4, 0.2, 0.9]])
    return xr.Dataset(
        {
            "type_correlation": (("channel", "interneuron_type"), r),
            "type_p_value": (("channel", "interneuron_type"), [[0.02, 1], [1, 0.3], [1, 0.04]]),
            "correlation": (("channel", "interneuron"), each),
            "place_y": (("channel", "interneuron"), 10 * each),
            "place_x": (("channel", "interneuron"), 100 * each),
        },
        coords={
            "channel": labels,
            "interneuron": ["a 0", "a 1", "b 0"],
            "type": ("interneuron", ["a", "a", "b"]),
            "interneuron_type": ["a", "b"],
        },
    )


def test_the_type_with_the_largest_weighted_match_is_named(matches):
    row = name_statement(
        Statement(Silencing("conv1", (0, 1)), np.array([0.75, 0.25])), matches, 0.05
    )
    assert (row["interneuron"], row["second_interneuron"]) == ("a", "b")
    assert row["match"] == pytest.approx(0.75 * 0.8 + 0.25 * 0.2)
    assert row["second_match"] == pytest.approx(0.75 * 0.1 + 0.25 * 0.6)
    assert row["match_p_value"] == 0.02
    assert (row["place_y"], row["place_x"]) == (9.0, 90.0)  # of the better of both a


def test_a_match_that_chance_reaches_names_nothing(matches):
    row = name_statement(Statement(Silencing("conv1", (1,)), np.ones(1)), matches, 0.05)
    assert (row["interneuron"], row["match_p_value"]) == ("", 0.3)
    assert row["match"] == pytest.approx(0.6)
    assert (
        name_statement(Statement(Silencing("conv1", (1,)), np.ones(1)), None, 0.05)["interneuron"]
        == ""
    )


def test_rows_carry_the_match_of_what_is_cut(matches):
    cuts = [Silencing("conv1", (0, 1)), Silencing("conv2", (0,)), Silencing("conv1", (1,))]
    named = [
        {"interneuron": "b", "match": 0.4},
        {"interneuron": "b", "match": 0.5},
        {"interneuron": "", "match": 0.6},
    ]
    assert match_of_rows(cuts, named, matches, whole=True).tolist() == [0.6, 0.9, 0.0]
    assert match_of_rows(cuts, named, matches, whole=False).tolist() == [0.4, 0.5, 0.0]
    nothing = [row | {"interneuron": ""} for row in named]
    assert match_of_rows(cuts, nothing, None, whole=True).tolist() == [1.0, 1.0, 1.0]
