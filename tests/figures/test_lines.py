"""Lines and boxes from layer to layer: gaps, bars and names."""

from itertools import pairwise

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

from retina_codec.figures.lines import band, layer_axis, line, room_below, sites_of


@pytest.fixture
def axes():
    return Figure().add_subplot()


def test_lines_break_where_the_site_changes_and_leave_nan_out(axes):
    middle = np.array([1.0, np.nan, 3.0, 4.0])
    ends = np.stack([middle - 1, middle + 1], 1)
    ends[3] = np.nan
    line(axes, middle, ends, "red", sites=["a", "a", "b", "b"], shift=0.5)
    np.testing.assert_array_equal(axes.lines[0].get_xdata(), [0.5, np.nan, 2.5, 3.5])
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), [1, np.nan, 3, 4])
    bars = np.array(axes.collections[0].get_segments())
    np.testing.assert_array_equal(bars, [[[0.5, 0], [0.5, 2]], [[2.5, 2], [2.5, 4]]])


def test_boxes_span_their_interval(axes):
    band(axes, np.array([[0.1, 0.2], [np.nan, np.nan], [0.3, 0.3]]), "red", width=0.5)
    boxes = [part.get_paths()[0].get_extents() for part in axes.collections]
    np.testing.assert_allclose([box.intervaly for box in boxes], [[0.1, 0.2], [0.3, 0.3]])
    np.testing.assert_allclose([box.intervalx for box in boxes], [[-0.25, 0.25], [1.75, 2.25]])


@pytest.mark.parametrize(("names", "angle"), [(["a", "b"], 0), (["a long name"] * 4, 90)])
def test_long_names_stand_upright_and_have_room(axes, names, angle):
    layer_axis(axes, names)
    assert {label.get_rotation() for label in axes.get_xticklabels()} == {angle}
    assert room_below(names) == (0.5 if angle == 0 else 0.42 + 0.06 * 11)


@pytest.mark.parametrize("width", [2.0, 4.0, 9.0])
def test_names_of_many_layers_do_not_lie_on_each_other(width):
    figure = Figure(figsize=(width, 2))
    axes = figure.add_subplot()
    names = [f"layer{row}.{n}" for row in (1, 2, 3) for n in range(9)]
    layer_axis(axes, names)
    figure.draw_without_rendering()
    assert len(axes.get_xticks()) == 27  # every layer has its mark
    shown = [label for label in axes.get_xticklabels() if label.get_text()]
    assert len(shown) == {2.0: 9, 4.0: 14, 9.0: 27}[width]
    boxes = [label.get_window_extent() for label in shown]
    assert all(one.x1 <= other.x0 for one, other in pairwise(boxes))
    places = [label.get_position()[0] for label in shown]
    assert [names[int(place)] for place in places] == [label.get_text() for label in shown]


def test_sites_are_known_or_not():
    found = xr.Dataset(coords={"layer": ["a", "b"], "site": ("layer", ["mlp", "blocks"])})
    assert sites_of(found) == ["mlp", "blocks"]
    assert sites_of(found.drop_vars("site")) is None
