"""Verdicts follow the numbers, and the table and the file say what they follow from."""

import csv

import numpy as np
import pytest

import retina_codec as rc
from retina_codec.paper.claims import claims_table, judge, save_claims, with_interval

ABOUT = ("sparser", "section 3, Fig. 3B", "Contributions are sparser than activations.")


@pytest.mark.parametrize(
    ("interval", "bounds", "holds"),
    [
        ((0.1, 0.3), {"low": 0}, True),
        ((-0.1, 0.3), {"low": 0}, False),
        ((0.0, 0.3), {"low": 0}, False),
        ((-0.3, -0.1), {"low": 0}, False),
        ((-0.3, -0.1), {"high": 0}, True),
        ((-0.02, 0.03), {"low": -0.05, "high": 0.05}, True),
        ((-0.02, 0.06), {"low": -0.05, "high": 0.05}, False),
        ((np.nan, np.nan), {"low": 0}, None),
    ],
)
def test_the_whole_interval_must_comply(interval, bounds, holds):
    claim = judge(*ABOUT, np.mean(interval), interval, **bounds)
    assert claim.holds is holds
    assert claim.verdict == {True: "yes", False: "no", None: "not tested"}[holds]


def test_one_layer_that_fails_is_enough_and_is_named():
    found = np.array([0.5, 0.2, 0.4])
    ends = np.stack([found - 0.1, found + 0.1], 1)
    layers = ["a", "b", "c"]
    fine = judge(*ABOUT, found, ends, low=0, measure="difference", places=layers)
    assert fine.holds is True
    assert (fine.found, fine.measure) == (0.2, "difference, at worst b; 3 of 3 comply")
    assert fine.rule == "interval above 0, in all 3"
    flipped = judge(*ABOUT, -found, -ends[:, ::-1], low=0, places=layers)
    assert flipped.holds is False
    assert flipped.measure == "at worst a; 0 of 3 comply"
    ends[2] = np.nan
    assert judge(*ABOUT, found, ends, low=0, places=layers).holds is None


def test_numbers_in_words():
    assert with_interval(-0.12345, -0.2, 1e-17) == "−0.123 (−0.2 to 0)"
    assert with_interval(0.0, 0.0, 0.0) == "0 (0 to 0)"
    assert with_interval(-2.56e-6, -1e-5, 3e-6) == "−2.56e−06 (−1e−05 to 3e−06)"


def test_table_and_file_hold_every_number(tmp_path):
    claims = [
        judge(*ABOUT, 0.25, (0.125, 0.5), low=0, measure="difference of Hoyer sparsity"),
        judge("not", "Fig. 9", "Something else.", low=0, measure="needs ImageNet"),
    ]
    text = claims_table(claims)
    assert "0.25 (0.125 to 0.5)" in text
    assert "— needs ImageNet" in text
    below = claims_table([judge(*ABOUT, -0.5, (-1.0, -0.25), low=0)])
    assert "−0.5 (−1 to −0.25)" in below
    assert max(map(len, text.splitlines())) <= 130
    save_claims(claims, tmp_path / "claims.csv")
    with open(tmp_path / "claims.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["holds"] for row in rows] == ["yes", "not tested"]
    assert [float(rows[0][key]) for key in ("found", "low", "high")] == [0.25, 0.125, 0.5]


def test_a_rule_without_a_bound_or_names_that_do_not_fit_are_refused():
    with pytest.raises(rc.RetinaCodecError, match="low < high"):
        judge(*ABOUT, 1.0, (0.5, 1.5))
    with pytest.raises(rc.RetinaCodecError, match="one interval"):
        judge(*ABOUT, [1.0, 2.0], (0.5, 1.5), low=0)
