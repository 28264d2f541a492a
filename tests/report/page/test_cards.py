import numpy as np
import pytest
import xarray as xr

from retina_codec.figures.style import type_colors
from retina_codec.report.page.cards import hypothesis_cards
from retina_codec.report.page.text import headline
from tests.report.small_hypotheses import channels, hypotheses, timed


@pytest.fixture(scope="module")
def found():
    return hypothesis_cards(hypotheses(13), channels())


def test_ten_cards_in_order_and_the_rest_as_a_table(found):
    data = hypotheses(13)
    rows = found["cards"] + found["rest"]
    assert len(found["cards"]) == 10
    assert [row["rank"] for row in rows] == list(range(1, 14))
    assert [row["information"] for row in rows] == [f"{v:.1f}" for v in data["information"].values]
    for number, row in enumerate(rows):
        assert row["headline"] == headline(data.isel(hypothesis=number))


def test_a_card_says_what_the_row_holds(found):
    card = found["cards"][0]
    expected = {
        "interneuron": "fast bipolar",
        "match": "0.87",
        "p_value": "≤ 0.040",
        "second": "amacrine (r = −0.25)",
        "silenced": "channels 0, 3 and 5 of layer 1",
        "named_by": ["mode 2 of layer 1", "pathway 0 of layer 1"],
        "sees": "OFF, strongest 80 ms before the response, biphasic, 3 px wide",
        "segment": "12.3 to 13.3 s of the recording",
        "segment_repeats": "once",
        "stimulus": "OFF flash",
        "stimulus_repeats": "12 times",
        "information": "12.0",
        "statement": "Silencing them lowers cell a.",
        "kernel_channel": "3",
        "events": "",
    }
    assert {name: card[name] for name in expected} == expected
    assert card["kernel"] is not None


def test_what_is_not_known_is_said_and_never_a_number(found):
    card = found["cards"][1]
    assert (card["match"], card["p_value"], card["sees"]) == ("not measured",) * 3
    assert (card["second"], card["matched"]) == ("", False)
    assert card["segment_repeats"] == "no number of times is enough"
    assert card["stimulus_repeats"] == "how often was not measured"


def test_results_of_another_version_lack_some_variables():
    parts = ["silenced", "polarity", "match", "second_interneuron", "segment_start", "information"]
    bare = hypotheses().drop_vars([*parts, "best_stimulus", "stimulus_repeats"])
    card = hypothesis_cards(bare)["cards"][0]
    for name in ("silenced", "sees", "match", "segment", "information"):
        assert card[name] == "not measured", name
    assert card["second"] == card["stimulus"] == ""
    assert card["kernel"] is None


def test_settings_and_colours_are_those_of_the_results(found):
    assert (found["threshold"], found["significance"], found["power"]) == (0.1, 0.05, 0.8)
    assert (found["split"], found["named"], found["timed"]) == ("test", True, False)
    colors = type_colors(["on", "off", "slow"])
    assert found["types"] == [(name, colors[name].lower()) for name in ("off", "on", "slow")]
    nameless = hypotheses().assign(interneuron=("hypothesis", ["", ""])).assign_attrs(power=None)
    again = hypothesis_cards(nameless)
    assert (again["named"], again["power"]) == (False, None)


def test_events_and_what_happens_elsewhere():
    found = hypothesis_cards(timed())
    first, second = found["cards"]
    assert found["timed"]
    assert first["events"] == "2.0 s in 2 events, the longest from 7.50 to 9.00 s"
    assert second["events"] == "not measured"
    assert first["elsewhere"] == "−0.4 Hz and +0.2 Hz"  # of the cells that fire less, and more
    assert second["elsewhere"] == ""
    assert first["event_repeats"] == "twice"
    still = timed()
    still["change_elsewhere"] = 0.05 * still["change_elsewhere"]
    assert hypothesis_cards(still)["cards"][0]["elsewhere"] == "0.0 Hz and 0.0 Hz"


def test_nothing_is_changed_and_no_rows_make_no_cards():
    data, kernels = timed(), channels()
    before = data.copy(deep=True), kernels.copy(deep=True)
    hypothesis_cards(data, kernels)
    xr.testing.assert_identical(data, before[0])
    xr.testing.assert_identical(kernels, before[1])
    empty = hypothesis_cards(hypotheses().isel(hypothesis=np.arange(0)))
    assert (empty["cards"], empty["rest"], empty["named"]) == ([], [], False)
