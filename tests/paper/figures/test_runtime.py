"""The figure of the runtime section: what is drawn is what was measured."""

import numpy as np
import pytest

from retina_codec.paper.figures.runtime import plot_runtime
from tests.analyses.small_study import load_script
from tests.analyses.small_timings import ONE, PATH, timings
from tests.figures.checks import assert_readable, words_of

HOURS = {PATH: 4.1, ONE: 1.3}


def card_of(table):
    return load_script("runtime").card_of(table)


@pytest.fixture(scope="module")
def drawn():
    table = timings(ratio=9.0)
    card = card_of(table)
    return table, card, plot_runtime(table, card, HOURS)


def panel(figure, letter):
    """Return the axes of a panel; the second axis of E comes last."""
    return figure.axes["ABCDEFGHI".index(letter)] if letter < "F" else [
        axes for axes in figure.axes if axes.get_ylabel() != "memory above the network (MB)"
    ]["ABCDEFGHI".index(letter)]  # fmt: skip


def points(axes):
    """Return the middles of all points with bars, one array per series."""
    return [np.asarray(box.lines[0].get_xydata()) for box in axes.containers
            if hasattr(box, "lines") and box.lines[0] is not None]  # fmt: skip


def middles(table, **values):
    keep = np.full(table.sizes["setting"], True)
    for key, value in values.items():
        keep &= table[key].values == value
    return np.median(table["processor"].values[keep], axis=1)


def test_texts_are_readable_and_name_the_ratio(drawn):
    _, card, figure = drawn
    assert_readable(figure)
    assert f"×{card['ratio'][0]:.1f}" in words_of(figure)
    assert f"exponent {card['tokens'][ONE][0]:.2f}" in words_of(figure)


def test_bars_are_milliseconds_per_image(drawn):
    _, card, figure = drawn
    heights = [bar.get_height() for bar in panel(figure, "A").patches]
    expected = [1000 * card[name]["seconds_per_image"][0] for name in (PATH, ONE)]
    assert heights == pytest.approx(expected)


def test_points_are_medians_over_rounds(drawn):
    table, _, figure = drawn
    for series, name in zip(points(panel(figure, "C")), (PATH, ONE), strict=True):
        np.testing.assert_allclose(series[:, 1], middles(table, sweep="images", method=name))
    (steps,) = points(panel(figure, "B"))
    np.testing.assert_allclose(steps[:, 1], 1000 * middles(table, sweep="steps") / 16)
    tokens = points(panel(figure, "H"))[1]
    np.testing.assert_allclose(tokens[:, 1], middles(table, sweep="tokens", method=ONE))


def test_layers_are_relative_to_all_at_once(drawn):
    table, _, figure = drawn
    for series, name in zip(points(panel(figure, "D")), (PATH, ONE), strict=True):
        seconds = middles(table, sweep="layers", method=name)
        np.testing.assert_allclose(series[:, 1], seconds[:-1] / seconds[-1])
    first = points(panel(figure, "G"))[0]
    together = middles(table, sweep="tokens", tokens=64, method=PATH)
    single = middles(table, sweep="post_attention", method=PATH)
    np.testing.assert_allclose(first[:, 1], single / together)


def test_intervals_are_absent_with_few_rounds_and_no_language_model_is_said():
    table = timings(rounds=3, language=False)
    figure = plot_runtime(table, card_of(table), HOURS)
    assert_readable(figure)
    assert words_of(figure).count("not measured") == 2
    assert "nan" not in words_of(figure)
