"""Words and tables: what is said is what the numbers are, and files hold all of it."""

import csv
import json

import numpy as np
import pytest
import xarray as xr

from retina_codec.analysis.hypotheses.table import describe, hypotheses_to_table
from retina_codec.errors import RetinaCodecError


@pytest.fixture
def claims():
    cells = ("hypothesis", "cell")
    data = xr.Dataset(
        {
            "layer": ("hypothesis", ["conv1", "conv2", "conv1"]),
            "channels": ("hypothesis", ["3, 4", "1", "0"]),
            "polarity": ("hypothesis", ["ON", "OFF", "ON"]),
            "interneuron": ("hypothesis", ["slow bipolar", "", "amacrine"]),
            "match": ("hypothesis", [0.951, np.nan, 0.5]),
            "change": (cells, [[-3.0, -1.0, 0.5], [0.0, 0.0, 2.0], [0.1, 0.0, 0.0]]),
            "change_low": (cells, np.full((3, 3), -4.0)),
            "change_high": (cells, np.full((3, 3), 4.0)),
            "affected": (cells, [[True, True, False], [False, False, True], [False] * 3]),
            "cell_repeats": (cells, np.full((3, 3), np.inf)),
            "rate": ("cell", [5.0, 4.0, 3.0]),
            "stimulus_detectability": (("hypothesis", "stimulus"), [[1.0], [2.0], [np.nan]]),
        },
        coords={
            "hypothesis": [0, 1, 2],
            "cell": ["a", "b", "c"],
            "type": ("cell", ["on", "on", "off"]),
            "stimulus": ["ON flash"],
        },
        attrs={"threshold": 0.1},
    )
    return data.assign(statement=("hypothesis", describe(data)))


def test_sentences_say_the_numbers(claims):
    one, two, three = claims["statement"].values
    assert one == (
        "Silencing slow bipolars (conv1 channels 3, 4, ON, r = 0.95) lowers the rate of cells a, b "
        "by 2.0 Hz on average; it leaves c alone."
    )
    assert "like conv2 channels 1 (OFF) raises the rate of cell c by 2.0 Hz" in two
    assert three.endswith("changes no cell surely by more than 10% of its rate.")


def test_a_sentence_about_events_says_which_and_what_happens_elsewhere(claims):
    timed = claims.assign(
        event_source=("hypothesis", ["conv1 mode 3", "conv2 pathway 1", "conv1 mode 0"]),
        event_time=("hypothesis", [5.9, 6.0, 1.04]),
        change_elsewhere=(("hypothesis", "cell"), [[0.5, -0.3, 0.0]] * 3),
        undecided=(
            ("hypothesis", "cell"),
            [[False, False, True], [True, False, False], [False] * 3],
        ),
    ).assign_attrs(when="active")
    one, two, three = describe(timed)
    assert one == (
        "Silencing slow bipolars (conv1 channels 3, 4, ON, r = 0.95) in the events of conv1 mode 3 "
        "(5.9 s) lowers the rate of cells a, b by 2.0 Hz on average (+0.1 Hz elsewhere); c cannot "
        "be decided."
    )
    assert "pathway 1 (6.0 s) raises the rate of cell c by 2.0 Hz on average (+0.0 Hz" in two
    assert two.endswith("it leaves b alone; a cannot be decided.")
    assert three.endswith("mode 0 (1.0 s) changes no cell surely by more than 10% of its rate.")


def test_the_table_has_every_number_and_no_infinity(claims):
    rows = hypotheses_to_table(claims)
    assert [row["rank"] for row in rows] == [1, 2, 3]
    assert rows[1]["match"] is None
    assert rows[0]["cells"][1] == {
        "cell": "b", "type": "on", "rate": 4.0, "change": -1.0, "change_low": -4.0,
        "change_high": 4.0, "affected": True, "cell_repeats": None,
    }  # fmt: skip
    assert rows[2]["stimuli"] == {"ON flash": None}


def test_json_and_csv_hold_the_table(claims, tmp_path):
    rows = hypotheses_to_table(claims, tmp_path / "claims.json")
    assert json.loads((tmp_path / "claims.json").read_text(encoding="utf-8")) == rows
    hypotheses_to_table(claims, tmp_path / "claims.csv")
    with (tmp_path / "claims.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["statement"] for line in lines] == claims["statement"].values.tolist()
    assert lines[0]["affected_cells"] == "a, b"
    assert lines[0]["changes"].startswith("a: -3 (-4 to 4) Hz; b: -1")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["claims.csv", "claims.json"]


def test_another_ending_is_refused_and_an_old_file_stays(claims, tmp_path):
    with pytest.raises(RetinaCodecError, match=r"\.csv or \.json"):
        hypotheses_to_table(claims, tmp_path / "claims.xlsx")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def unknown(claims):
    """One row without any interval, one with some; nothing else is missing but what was."""
    low, high = claims["change_low"].copy(), claims["change_high"].copy()
    low[0], high[0], low[1, 1] = np.nan, np.nan, -np.inf
    affected = claims["affected"].copy()
    affected[0] = False
    undecided = xr.zeros_like(affected)
    undecided[0, :2] = True
    claims = claims.assign(change_low=low, change_high=high, affected=affected, undecided=undecided)
    return claims.assign(statement=("hypothesis", describe(claims)))


@pytest.mark.parametrize("ending", ["csv", "json"])
def test_undefined_intervals_are_words(unknown, tmp_path, ending):
    rows = hypotheses_to_table(unknown, tmp_path / f"claims.{ending}")
    assert rows[0]["statement"].endswith(
        "10% of its rate; a, b cannot be decided (not enough blocks of time for intervals)."
    )
    assert rows[0]["cells"][0]["change_low"] is None
    assert "change_low, change_high: not enough blocks of time" in rows[0]["undefined"]
    assert "cell_repeats: no number is enough, nothing changes" in rows[0]["undefined"]
    assert "match: no interneuron" in rows[1]["undefined"]
    assert "change_low" not in rows[2]["undefined"]
    if ending == "csv":
        with (tmp_path / "claims.csv").open(encoding="utf-8", newline="") as file:
            lines = list(csv.DictReader(file))
        assert lines[0]["changes"].startswith("a: -3 Hz (no interval: not enough blocks of time);")
        assert lines[1]["changes"].split("; ")[0] == "a: 0 (-4 to 4) Hz"
        assert lines[1]["match"] == ""
        assert lines[0]["undefined"] == rows[0]["undefined"]
    else:
        assert json.loads((tmp_path / "claims.json").read_text(encoding="utf-8")) == rows


@pytest.mark.parametrize("name", ["change", "rate", "match", "change_low", "cell_repeats"])
def test_any_number_may_be_missing(claims, tmp_path, name):
    for missing in (np.nan, np.inf, -np.inf):
        spoiled = claims.assign({name: xr.full_like(claims[name], missing)})
        for ending in ("csv", "json"):
            rows = hypotheses_to_table(spoiled, tmp_path / f"claims.{ending}")
        assert all(name in row["undefined"] for row in rows)
        text = (tmp_path / "claims.csv").read_text(encoding="utf-8")
        assert "None" not in text
        assert "nan" not in text


def test_a_sentence_leaves_out_what_happens_elsewhere_if_all_times_are_events(claims):
    timed = claims.assign(
        event_source=("hypothesis", ["conv1 mode 3"] * 3),
        event_time=("hypothesis", [5.9] * 3),
        change_elsewhere=(("hypothesis", "cell"), np.full((3, 3), np.nan)),
    ).assign_attrs(when="active")
    assert "by 2.0 Hz on average; it leaves c alone" in describe(timed)[0]
