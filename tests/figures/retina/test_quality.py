import numpy as np
import xarray as xr

from retina_codec.contributions.results import completeness
from retina_codec.figures.retina.quality import plot_quality, relative_error
from tests.figures.checks import assert_readable, words_of


def test_bars_and_lines_are_prediction_and_ceiling_by_type(results, drawn):
    axes = drawn("plot_quality").axes[0]
    responses = results["responses"]
    order = np.argsort(responses["type"].values, kind="stable")
    heights = [bar.get_height() for bar in axes.patches]
    np.testing.assert_array_equal(heights, responses["pearson"].values[order])
    ceiling = [segment[0][1] for segment in axes.collections[0].get_segments()]
    np.testing.assert_array_equal(ceiling, responses["noise_ceiling"].values[order])


def test_error_curves_cross_at_the_reported_percentiles(results, drawn):
    axes = drawn("plot_quality").axes[1]
    summary = completeness(results)
    for line, name in zip(axes.lines, ("conv1", "conv2", "conv3"), strict=False):
        error, share = line.get_data()
        for words, percent in (("median", 50), ("percentile_95", 95)):
            expected = 100 * float(summary[words].sel(layer=name))
            np.testing.assert_allclose(np.interp(percent, share, error), expected, rtol=1e-3)
    assert axes.get_xlabel() == "error (% of the change in F)"


def test_a_time_without_change_and_error_misses_nothing():
    layer = xr.Dataset(
        {
            "completeness_error": ("time", [0.0, -0.1, 0.2]),
            "target_change": ("time", [0.0, 2.0, -4.0]),
        }
    )
    np.testing.assert_allclose(relative_error(layer), [0.0, 0.05, 0.05])


def test_dots_are_r2_of_features_and_words_the_whole(results, drawn):
    figure = drawn("plot_quality")
    axes = figure.axes[2]
    words = words_of(figure)
    for line, name in zip(axes.lines, ("conv1", "conv2", "conv3"), strict=True):
        modes = results[f"layers/{name}/modes"]
        expected = np.sort(modes["r2_feature"].values.ravel()).clip(min=-0.5)
        np.testing.assert_array_equal(line.get_ydata(), expected)
        assert f"{float(modes['r2']):.2f}" in words


def test_bars_count_active_modes_on_held_out_times(results, drawn):
    axes = drawn("plot_quality").axes[3]
    for bars, name in zip(axes.containers, ("conv1", "conv2", "conv3"), strict=True):
        modes = results[f"layers/{name}/modes"]
        heights = np.array([bar.get_height() for bar in bars])
        np.testing.assert_allclose(heights.sum(), 100)
        mean = (np.arange(len(heights)) * heights).sum() / 100
        np.testing.assert_allclose(mean, float(modes["mean_active"]))


def test_without_recorded_rates_the_figure_says_so(results):
    tree = results.copy(deep=True)
    tree["responses"] = tree["responses"].to_dataset().drop_vars(["pearson", "noise_ceiling"])
    figure = plot_quality(tree)
    assert "no recorded rates" in words_of(figure)
    assert_readable(figure)
