from pathlib import Path

import numpy as np
import pytest

from retina_codec.report.page.text import (
    count,
    headline,
    listed,
    measured,
    number,
    percent,
    plural,
    signed,
    supporters,
)
from tests.report.small_hypotheses import hypotheses, timed

NAN = float("nan")


def test_numbers_are_written_as_people_write_them():
    assert number(0.8149) == "0.81"
    assert number(None) == number(NAN) == percent(None) == "–"
    assert percent(0.934) == "93\u00a0%"
    assert percent(0.0123) == "1.2\u00a0%"
    assert percent(0.00456) == "0.46\u00a0%"
    assert percent(0.00001) == "0.001\u00a0%"
    assert percent(0.0) == "0\u00a0%"
    assert percent(0.00142, 2) == "0.14\u00a0%"
    assert signed(-0.256) == "−0.26"
    assert (count(1234.4), count(2.5e9)) == ("1,234", "2.5e+09")


def test_what_is_not_measured_is_never_a_zero():
    assert measured(None) == measured(NAN) == "not measured"
    assert measured(0.0) == "0.00"
    assert measured(-1.25, 1) == "−1.2"


def test_lists_and_nouns():
    assert listed([]) == "none"
    assert listed(["a"]) == "a"
    assert listed(["a", 2, "c"]) == "a, 2 and c"
    assert (plural(1, "cell"), plural(0, "cell"), plural(3, "cell")) == (
        "1 cell",
        "0 cells",
        "3 cells",
    )


def row_with(number=0, *, source=hypotheses, **values):
    """One row with some values of its cells or of itself replaced."""
    row = source().isel(hypothesis=number)
    for name, value in values.items():
        row[name] = row[name].copy(data=np.asarray(value))
    return row


def test_a_sentence_names_cells_by_type_and_means_over_them():
    assert headline(row_with()) == (
        "Without fast bipolars, all 2 on cells would fire 3.0 Hz less and 1 of 2 off cells "
        "1.5 Hz more; the other 2 cells would hardly change."
    )


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"affected": [False] * 5}, "Without fast bipolars, no cell would change by much."),
        ({"interneuron": ""}, "Without the neurons that are like channels 3 and 0 of layer 1, all"),
        ({"interneuron": "", "channels": "7"}, "like channel 7 of layer 1, all"),
        ({"interneuron": "bipolars"}, "Without bipolars, all"),
        ({"affected": [True] * 4 + [False]}, "all 2 off cells 0.8 Hz more; the other cell"),
        ({"affected": [False, False, False, False, True], "change": [0, 0, 0, 0, 0.0213]},
         "the one slow cell would fire 0.02 Hz more; the other 4 cells would hardly change."),
        ({"affected": [True] * 5, "change": [-1.0] * 5},
         "all 2 off, all 2 on and the one slow cells would fire 1.0 Hz less."),
    ],
)  # fmt: skip
def test_sentences_by_hand(values, words):
    assert words in headline(row_with(**values))


def test_cells_that_cannot_be_decided_are_not_said_to_stay():
    def ends(undecided, **values):
        row = row_with(**values)
        row["undecided"] = ("cell", np.array(undecided))
        return headline(row).rsplit("1.5 Hz more", 1)[-1]

    no, yes = False, True
    assert ends([no] * 5) == "; the other 2 cells would hardly change."
    assert ends([no, no, no, yes, no]) == "; 1 other would hardly change, 1 cannot be decided."
    assert ends([no, no, no, yes, yes]) == "; 2 cannot be decided."
    none = ends([yes, no, no, no, no], affected=[no] * 5)
    assert none.endswith("no cell would change by much; 1 cannot be decided.")


def test_unknown_types_are_said_to_be_unknown():
    row = row_with().assign_coords(type=("cell", ["unknown"] * 5))
    assert "2 of 5 cells of unknown type would fire 3.0 Hz less and" in headline(row)


def test_events_are_those_of_the_mode_by_its_number_on_the_page():
    assert headline(row_with(source=timed)).startswith(
        "Without fast bipolars, while mode 2 of layer 1 acts, all 2 on cells would fire"
    )
    second = row_with(1, source=timed)
    assert ", while pathway 1 of layer 2 acts, no cell" in headline(second)
    older = row_with(source=timed).drop_vars("event_source")
    assert ", while its mode acts, " in headline(older)
    always = row_with(source=timed)
    always.attrs["when"] = "always"
    assert "acts" not in headline(always)


def test_all_that_name_a_row_are_listed():
    assert supporters(row_with()) == ["mode 2 of layer 1", "pathway 0 of layer 1"]
    assert supporters(row_with(1)) == ["pathways 0 and 1 of layer 2"]
    assert supporters(row_with(source=timed)) == [
        "mode 2 of layer 1",
        "modes 0 and 4 of layer 2",
        "pathway 1 of layer 2",
    ]


RIDDLES = (
    "bring F back",
    "says of a channel against",
    "moved in time either way or not at all",
    "so often with and as often",
    "√share",
    "hold it against",
    "stops early when the validation loss does",
    "Also where the results",
    "no path from a baseline",
    "give back what they gave",
)


def test_sentences_that_readers_did_not_understand_are_gone():
    import retina_codec

    root = Path(retina_codec.__file__).parent
    texts = {path: path.read_text(encoding="utf-8")
             for kind in ("*.py", "*.html") for path in root.rglob(kind)}  # fmt: skip
    assert len(texts) > 200
    found = [(path.name, riddle) for path, text in texts.items() for riddle in RIDDLES
             if riddle in text]  # fmt: skip
    assert found == []
