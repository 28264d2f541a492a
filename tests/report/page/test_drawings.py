import base64
import io

import matplotlib as mpl
import matplotlib.image as image
import numpy as np
import pytest

from retina_codec.figures.style import SIGNED, type_colors
from retina_codec.report.page.drawings import change_bars, colors_of, kernel_drawing
from tests.report.small_hypotheses import NAN, TYPES, channels, hypotheses, timed


def scale_of(drawing):
    """Places of two ticks give the map from places back to Hz."""
    (zero, _), (place, words), *_ = drawing["ticks"]
    return lambda y: (y - zero) * float(words.replace("−", "-")) / (place - zero)


def test_bars_intervals_and_dashes_stand_at_their_values():
    row = timed().isel(hypothesis=0)
    drawing = change_bars(row)
    hertz = scale_of(drawing)
    order = [1, 3, 0, 2, 4]  # off, on, slow; within a type as they came
    assert [bar["label"] for bar in drawing["bars"]] == [row["cell"].values[i] for i in order]
    for bar, i in zip(drawing["bars"], order, strict=True):
        change = float(row["change"][i])
        end = bar["y"] if change > 0 else bar["y"] + bar["h"]
        start = bar["y"] + bar["h"] if change > 0 else bar["y"]
        assert hertz(end) == pytest.approx(change, abs=0.01)
        assert start == pytest.approx(drawing["zero"])
        assert hertz(bar["low"]) == pytest.approx(float(row["change_low"][i]), abs=0.01)
        assert hertz(bar["high"]) == pytest.approx(float(row["change_high"][i]), abs=0.01)
        assert hertz(bar["elsewhere"]) == pytest.approx(float(row["change_elsewhere"][i]), abs=0.01)
        assert bar["affected"] == bool(row["affected"][i])
        assert bar["color"] == type_colors(TYPES)[TYPES[i]].lower()
        assert 0 <= min(bar["low"], bar["high"], bar["y"])
        assert max(bar["low"], bar["high"], bar["y"] + bar["h"]) <= drawing["height"]
    places = [bar["middle"] for bar in drawing["bars"]]
    assert places == sorted(places)
    assert places[-1] < drawing["width"]


def test_words_of_a_bar():
    bars = change_bars(hypotheses().isel(hypothesis=0))["bars"]
    assert bars[2]["words"] == "cell a, on: −4 Hz (from −4.5 to −3.75)"
    assert bars[0]["words"] == "cell b, off: +1.5 Hz (from +1 to +1.75)"


def test_what_is_not_known_has_no_bar():
    row = hypotheses().isel(hypothesis=0)
    row["change"] = row["change"].copy(data=[NAN, 1.5, -2.0, 0.1, 0.0])
    row["change_low"] = row["change_low"].copy(data=[NAN, NAN, -2.5, 0.0, 0.0])
    bars = {bar["label"]: bar for bar in change_bars(row)["bars"]}
    assert bars["a"]["h"] is None
    assert bars["a"]["low"] is None
    assert bars["a"]["elsewhere"] is None
    assert bars["a"]["words"] == "cell a, on: not measured"
    assert bars["b"]["words"] == "cell b, off: +1.5 Hz, interval not measured"
    assert bars["e"]["h"] == 0  # a zero is known, and shown as one


def test_no_change_at_all_is_a_flat_line():
    row = hypotheses().isel(hypothesis=1)
    for name in ("change_low", "change_high"):
        row[name] = row["change"]
    drawing = change_bars(row)
    assert {bar["h"] for bar in drawing["bars"]} == {0}
    assert [words for _, words in drawing["ticks"]] == ["0"]


@pytest.mark.parametrize(
    ("size", "words"), [(0.011, "0.015"), (4.2, "5"), (10.0, "10"), (61, "80")]
)
def test_ticks_are_short_and_enclose_all_values(size, words):
    row = hypotheses().isel(hypothesis=0)
    for name in ("change", "change_low", "change_high"):
        row[name] = row[name].copy(data=[size, 0, 0, 0, -size])
    ticks = change_bars(row)["ticks"]
    assert [text for _, text in ticks] == ["0", f"+{words}", f"−{words}"]


def test_many_cells_have_no_ids_under_their_bars():
    row = hypotheses().isel(hypothesis=0, cell=np.arange(30) % 5)
    assert {bar["label"] for bar in change_bars(row)["bars"]} == {""}


def test_colors_of_more_types_than_the_palette_are_hex_too():
    kinds = [f"type {number}" for number in range(12)]
    found = colors_of(kinds)
    assert len(set(found.values())) == 12
    for name, color in type_colors(kinds).items():
        if name in kinds:
            np.testing.assert_allclose(
                mpl.colors.to_rgb(found[name]), mpl.colors.to_rgb(color), atol=0.003
            )


def test_the_drawing_of_a_kernel_is_its_field_and_its_course_in_time():
    drawing = kernel_drawing(channels(), "conv1/3")
    points = np.array([point.split(",") for point in drawing["points"].split()], dtype=float)
    assert np.all(np.diff(points[:, 0]) > 0)
    # from 40 ms before the response to 10 ms before it; the peak points upwards, as in the figures
    np.testing.assert_allclose((30 - points[:, 1]) / 26, [0.0, 0.0, -0.5, 1.0], atol=0.01)
    assert drawing["seconds"] == 0.04
    pixels = image.imread(io.BytesIO(base64.b64decode(drawing["field"])), format="png")
    colors = mpl.colormaps[SIGNED]
    # the channel is OFF: blue in the centre, light lowers the activation at that peak
    np.testing.assert_allclose(pixels[1, 1], colors(0.0), atol=0.01)
    np.testing.assert_allclose(pixels[0, 2], colors(0.75), atol=0.01)
    np.testing.assert_allclose(pixels[2, 0], colors(0.5), atol=0.01)
    on = kernel_drawing(channels(), "conv2/1")
    pixels = image.imread(io.BytesIO(base64.b64decode(on["field"])), format="png")
    np.testing.assert_allclose(pixels[1, 1], colors(1.0), atol=0.01)


def test_a_channel_that_is_not_there_has_no_drawing():
    assert kernel_drawing(None, "conv1/3") is None
    assert kernel_drawing(channels(), "conv1/4") is None
    broken = channels()
    broken["field"][0, 0, 0] = NAN
    assert kernel_drawing(broken, "conv1/3") is None
