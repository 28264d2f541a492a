"""Matrices, scatter and lines by layer as a figure."""

import numpy as np
import pytest

from retina_codec.analysis.layers.matrix import channel_matrix, sign_pairs
from retina_codec.analysis.layers.statistics import measure_contributions
from retina_codec.errors import RetinaCodecError
from retina_codec.paper.figures.layers import plot_figure_3
from tests.analysis.layers.test_trends import made_tree
from tests.figures.checks import assert_readable, has_image, words_of


@pytest.fixture(scope="module")
def parts():
    tree = made_tree(layers=3)
    chosen = ("l0", "l2")
    return (
        [channel_matrix(tree, name) for name in chosen],
        [sign_pairs(tree, name, count=300) for name in chosen],
        measure_contributions(tree, bootstraps=50, class_draws=20),
    )


@pytest.fixture(scope="module")
def figure(parts):
    return plot_figure_3(*parts)


def test_page_is_readable_and_names_layers_and_classes(figure):
    assert_readable(figure)
    words = words_of(figure)
    assert all(text in words for text in ("l0: 12 channels", "l2", "class 0", "at most 5"))


def test_matrices_are_shown_as_they_are(figure, parts):
    for matrix in parts[0]:
        assert has_image(figure, matrix["contribution"].values)


def test_scatter_holds_every_pair_and_the_mean_correlation(figure, parts):
    points = [
        (line.get_xdata(), line.get_ydata())
        for axes in figure.axes
        for line in axes.lines
        if len(line.get_xdata()) == 300
    ]
    assert len(points) == 2
    for (x, y), pairs in zip(points, parts[1], strict=True):
        np.testing.assert_array_equal(x, pairs["excitatory"])
        np.testing.assert_array_equal(y, pairs["inhibitory"])
    for name in ("l0", "l2"):
        value = float(parts[2]["sign_correlation"].sel(layer=name))
        assert f"mean r = {value:.2f}".replace("-", "−") in words_of(figure)


def test_lines_are_the_statistics(figure, parts):
    drawn = [line.get_ydata() for axes in figure.axes for line in axes.lines]
    for name in ("sparsity", "components"):
        for quantity in ("contribution", "activation"):
            values = parts[2][name].sel(quantity=quantity).values
            assert any(np.array_equal(values, line) for line in drawn)
    assert any(np.array_equal(parts[2]["sign_correlation"], line) for line in drawn)


def test_many_classes_are_not_named(parts):
    tree = made_tree(layers=2, classes=30)
    matrices = [channel_matrix(tree, name) for name in ("l0", "l1")]
    statistics = measure_contributions(tree, bootstraps=20, class_draws=5)
    figure = plot_figure_3(matrices, parts[1], statistics.assign_coords(layer=["l0", "l2"]))
    assert_readable(figure)
    assert "class 3" not in words_of(figure)


def test_other_results_are_refused(parts):
    with pytest.raises(RetinaCodecError, match="two matrices"):
        plot_figure_3(parts[0][:1], parts[1], parts[2])
