import numpy as np
import pytest
import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.figures.retina.contributions import liveliest_window, plot_contributions
from retina_codec.figures.style import cell_order
from tests.figures.checks import assert_readable, has_image, words_of


def test_maps_show_exactly_the_numbers_of_the_window(results):
    figure = plot_contributions(results, 10.0, 12.5)
    window = slice(10.0 - 1e-6, 12.5 + 1e-6)
    for name in ("conv1", "conv2"):
        contribution = results[f"layers/{name}/contribution"].sel(time=window)
        stacked = np.concatenate(
            [contribution.sel(sign=sign).values.T for sign in ("excitatory", "inhibitory")]
        )
        assert has_image(figure, stacked), name
        loading = results[f"layers/{name}/modes/loading"].sel(time=window).values.T
        assert has_image(figure, loading), name
    rates = results["responses/prediction"].sel(time=window).values.T
    assert has_image(figure, rates[cell_order(results, "conv1")])


def test_traces_and_axes_are_those_of_the_window(results):
    figure = plot_contributions(results, 10.0, 12.5)
    trace = figure.axes[0]
    words = words_of(figure)
    cell = int(words.split("cell ")[1].split("\n")[0])
    one = results["responses"].to_dataset().sel(cell=cell, time=slice(10 - 1e-6, 12.5 + 1e-6))
    line = next(line for line in trace.lines if line.get_label() == "predicted")
    np.testing.assert_array_equal(line.get_ydata(), one["prediction"])
    np.testing.assert_array_equal(line.get_xdata(), one["time"])
    assert trace.get_xlim() == pytest.approx((10.0, 12.51))
    for expected in ("rate (Hz)", "surprisal\n(nats)", "time (s)", "nats", "layer 1\ncontribution"):
        assert expected in words
    assert_readable(figure)


def test_heat_maps_lie_at_their_true_times(results):
    figure = plot_contributions(results, 10.0, 12.5)
    maps = [axes for axes in figure.axes if axes.images and axes.get_xlim()[0] == 10.0]
    assert len(maps) == 5
    for axes in maps:
        left, right = axes.images[0].get_extent()[:2]
        assert (left, right) == pytest.approx((10.0, 12.51))  # 251 bins of 10 ms


def test_numbered_moments_are_the_events_of_the_window_with_their_fields(results, drawn):
    fields = results["receptive_fields"].to_dataset()
    begin, end = liveliest_window(results)
    inside = fields.isel(event=(fields["time"] >= begin) & (fields["time"] <= end)).sortby("time")
    figure = drawn("plot_contributions")
    marks = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 2]
    np.testing.assert_allclose([line.get_xdata()[0] for line in marks], inside["time"])
    titles = [axes.get_title() for axes in figure.axes if "bf{" in axes.get_title()]
    assert [title.split()[-1] for title in titles] == inside["combination"].values.tolist()
    tile = next(axes for axes in figure.axes if "bf{1}" in axes.get_title())
    shown = np.asarray(tile.images[0].get_array())
    cell = int(words_of(figure).split("receptive field\nof cell ")[1].split(",")[0])
    field = inside["spatial"].sel(cell=cell)[0].values
    assert shown.shape == (20, 20)
    views = np.lib.stride_tricks.sliding_window_view(field, (20, 20))
    assert (views == shown).all(axis=(-2, -1)).any()
    assert np.abs(shown).max() == np.abs(field).max()


def test_liveliest_window_holds_most_events(results):
    begin, end = liveliest_window(results)
    events = results["receptive_fields/time"].values
    held = ((events >= begin) & (events <= end)).sum()
    assert end - begin == pytest.approx(4.0)
    for other in np.arange(0.4, 56, 0.5):  # a window may lose an event within 0.2 s of its edge
        assert held >= ((events >= other + 0.2) & (events <= other + 3.8)).sum()


def test_without_receptive_fields_the_strongest_moment_is_shown(results):
    kept = {n.path: n.to_dataset() for n in results.subtree if "receptive" not in n.path}
    tree = xr.DataTree.from_dict(kept)
    begin, end = liveliest_window(tree)
    target = results["responses/target"]
    assert begin <= float(target["time"][int(target.values.argmax())]) <= end
    figure = plot_contributions(tree)
    assert_readable(figure)
    assert "receptive field" not in words_of(figure)


def test_a_recording_shorter_than_the_window_is_shown_whole(results):
    kept = {
        node.path: node.to_dataset().isel(time=slice(0, 150), missing_dims="ignore")
        for node in results.subtree
        if "receptive" not in node.path
    }
    assert liveliest_window(xr.DataTree.from_dict(kept)) == pytest.approx((0.4, 1.89))


def test_an_empty_window_is_one_clear_error(results):
    with pytest.raises(RetinaCodecError, match=r"got 90 to 94 s, the results span 0\.4 to 59"):
        plot_contributions(results, 90.0)
