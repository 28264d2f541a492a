import numpy as np
import xarray as xr

from retina_codec.figures.retina.fields import (
    crop_around,
    first_events,
    plot_fields,
    shown_cells,
)
from tests.figures.checks import assert_readable, has_image, words_of


def test_tiles_show_the_fields_around_their_peak_or_say_that_the_cell_is_silent(results, drawn):
    fields = results["receptive_fields"].to_dataset()
    figure = drawn("plot_fields")
    events = first_events(fields)
    cells = shown_cells(fields, events)
    words = words_of(figure)
    silent = 0
    for event in events:
        for cell in cells:
            one = fields.isel(event=event, cell=cell)
            window = crop_around(np.abs(fields["spatial"].values[:, cell]).mean(0))
            shown = has_image(figure, one["spatial"].values[window])
            assert shown == bool(one["responding"])
            silent += not shown
    assert silent > 0
    assert words.count("below\n4 Hz") == silent
    assert words.count(" Hz") - silent == len(events) * len(cells) - silent


def test_rows_are_the_combinations_with_their_scene_and_time(results, drawn):
    fields = results["receptive_fields"].to_dataset()
    figure = drawn("plot_fields")
    words = words_of(figure)
    for event in first_events(fields):
        one = fields.isel(event=event)
        label = one["combination"].item()
        assert f"{'modes' if '+' in label else 'mode'} {label}\n{one['time'].item():.2f} s" in words
        assert has_image(figure, one["scene"].values)
    assert "20 px = 1000 µm wide" in words
    assert "time before the response (ms)" in words


def test_many_active_modes_stand_in_several_lines_and_inside(results):
    tree = results.copy()
    fields = results["receptive_fields"].to_dataset()
    labels = fields["combination"].values
    many = {label: f"0+12+13+14+15+2{number}" for number, label in enumerate(dict.fromkeys(labels))}
    named = [many[label] for label in labels]
    tree["receptive_fields"] = fields.assign_coords(combination=("event", named))
    figure = plot_fields(tree)
    assert_readable(figure)
    assert "modes\n0+12+13+14+15+\n20\n" in words_of(figure)


def test_time_courses_belong_to_the_cells_that_respond(results, drawn):
    fields = results["receptive_fields"].to_dataset()
    figure = drawn("plot_fields")
    courses = [axes for axes in figure.axes if axes.get_xlim() == (-400.0, 0.0)]
    events = first_events(fields)
    cells = shown_cells(fields, events)
    for axes, event in zip(courses, events, strict=True):
        lines = [line for line in axes.lines if len(line.get_xdata()) == fields.sizes["lag"]]
        expected = [cell for cell in cells if fields["responding"].values[event, cell]]
        assert len(lines) == len(expected)
        for line, cell in zip(lines, expected, strict=True):
            np.testing.assert_array_equal(line.get_ydata(), fields["temporal"][event, cell])
            np.testing.assert_allclose(line.get_xdata(), -1000 * fields["lag"])


def test_zero_is_white_in_every_tile(drawn):
    tiles = [
        axes.images[0]
        for axes in drawn("plot_fields").axes
        if axes.images and np.asarray(axes.images[0].get_array()).shape == (20, 20)
    ]
    for tile in tiles:
        low, high = tile.get_clim()
        assert -low == high == np.abs(np.asarray(tile.get_array())).max()


def test_cells_of_every_type_are_shown_and_the_liveliest_of_each():
    responding = np.zeros((2, 8), dtype=bool)
    responding[:, [1, 3, 5, 7]] = True
    fields = xr.Dataset(
        {
            "responding": (("event", "cell"), responding),
            "prediction": (("event", "cell"), np.ones((2, 8))),
        },
        coords={"type": ("cell", list("aabbccdd")), "combination": ("event", ["1", "0"])},
    )
    assert set(shown_cells(fields, [0, 1])) >= {1, 3, 5, 7}
    assert len(shown_cells(fields, [0, 1])) == 6


def test_crop_stays_inside_the_frame_and_holds_the_peak():
    for peak in ((0, 0), (49, 3), (25, 30)):
        image = np.zeros((50, 50))
        image[peak] = 1.0
        window = crop_around(image)
        assert image[window].shape == (20, 20)
        assert image[window].max() == 1.0
    assert np.zeros((9, 12))[crop_around(np.zeros((9, 12)))].shape == (9, 12)


def test_first_events_are_one_for_each_combination():
    fields = xr.Dataset(coords={"combination": ("event", ["3", "3", "1", "0+1", "1"])})
    assert first_events(fields) == [0, 2, 3]
