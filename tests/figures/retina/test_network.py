import numpy as np

from retina_codec.figures.retina.network import plot_network_and_target
from retina_codec.figures.style import type_colors
from tests.figures.checks import has_image, words_of


def named_cells(cloud):
    """Read the ids of the two cells from the labels of the axes."""
    labels = (cloud.get_xlabel(), cloud.get_ylabel())
    return [int(label.split(",")[0].removeprefix("cell ")) for label in labels]


def test_schematic_states_the_sizes_of_the_results(results, drawn):
    figure = drawn("plot_network_and_target")
    words = words_of(figure)
    for expected in (
        "last 40 frames\n50 × 50 px",
        "layer 1\n8 channels",
        "layer 3\n16 channels",
        "16 ganglion cells\nrates y (Hz)",
        "surprisal\n(nats)",
    ):
        assert expected in words
    assert has_image(figure, results["receptive_fields/scene"].values[0])
    dots = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    colors = type_colors(results["responses/type"].values)
    assert [dot.get_markerfacecolor() for dot in dots] == [
        colors[name] for name in results["responses/type"].values
    ]


def test_cloud_shows_true_rates_of_the_named_cells_in_the_colour_of_the_target(results, drawn):
    figure = drawn("plot_network_and_target")
    cloud = figure.axes[1]
    names = named_cells(cloud)
    assert "(Hz)" in cloud.get_xlabel()
    rates = results["responses/prediction"].sel(cell=names).values
    dots = cloud.collections[0]
    shown = np.column_stack([dots.get_offsets(), dots.get_array()])
    true = np.column_stack([rates, results["responses/target"].values])
    places = np.abs(true[:, None, :2] - shown[None, ::50, :2]).sum(-1).argmin(0)
    np.testing.assert_allclose(true[places], shown[::50], rtol=1e-6)


def test_ellipses_are_the_covariance_of_the_rates(results, drawn):
    cloud = drawn("plot_network_and_target").axes[1]
    inner, outer = cloud.patches[-2:]
    names = named_cells(cloud)
    rates = results["responses/prediction"].sel(cell=names).values.astype(float)
    angle = np.deg2rad(inner.angle)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    halves = np.diag([inner.width / 2, inner.height / 2])
    np.testing.assert_allclose(turn @ halves**2 @ turn.T, np.cov(rates.T), rtol=1e-6)
    np.testing.assert_allclose(inner.center, rates.mean(0))
    assert outer.width == 2 * inner.width


def test_histogram_counts_every_time(results, drawn):
    axes = drawn("plot_network_and_target").axes[3]
    assert sum(bar.get_height() for bar in axes.patches) == results["responses"].sizes["time"]
    assert axes.get_xlabel() == "F, surprisal (nats)"
    middle = axes.lines[0].get_xdata()[0]
    assert middle == np.median(results["responses/target"].values)


def test_another_target_is_named_with_its_unit_and_without_the_formula(results):
    tree = results.copy(deep=True)
    tree.attrs["target"] = "Sum()"
    tree["responses"]["target"].attrs["units"] = "Hz"
    words = words_of(plot_network_and_target(tree))
    assert "F, sum (Hz)" in words
    assert "Sigma" not in words
    assert "nats" not in words
