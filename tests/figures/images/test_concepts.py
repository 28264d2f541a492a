"""Concepts by layer as a figure: numbers, intervals, nulls, levels."""

import numpy as np
import pytest
import xarray as xr

from retina_codec.analysis.concepts.correlate import correlate_concepts
from retina_codec.analysis.concepts.table import concept_table
from retina_codec.errors import RetinaCodecError
from retina_codec.figures.images.concepts import plot_concepts
from tests.analysis.planted_concepts import planted
from tests.figures.checks import assert_readable, words_of


@pytest.fixture(scope="module")
def found():
    tree = planted(layers=("conv1", "conv2", "conv3"), samples=80)
    labels = tree["layers/conv1"].coords["label"]
    table = concept_table(labels, {"c0": "low", "c1": "low", "c4": "high"})
    return correlate_concepts(tree, table, permutations=20, bootstraps=20)


@pytest.fixture(scope="module")
def figure(found):
    return plot_concepts(found)


def test_page_is_readable(figure, found):
    assert_readable(figure)
    assert "shuffled labels" in words_of(figure)
    assert_readable(plot_concepts(found, "superclass"))
    assert "superclass" in words_of(plot_concepts(found, "superclass"))


def test_numbers_stand_where_they_belong(figure, found):
    summary = found["summary"].to_dataset().sel(level="class")
    for number, kind in enumerate(summary["kind"].values):
        one = summary.sel(kind=kind)
        np.testing.assert_allclose(
            figure.axes[0].lines[number].get_ydata(), one["concept_correlation"]
        )
        np.testing.assert_allclose(
            figure.axes[1].lines[number].get_ydata(), 100 * one["correlated"] / one["features"]
        )
        np.testing.assert_allclose(figure.axes[2].lines[number].get_ydata(), 100 * one["coverage"])


def test_null_is_drawn_as_a_box_per_layer_and_kind(figure, found):
    summary = found["summary"].to_dataset().sel(level="class")
    drawn = [part.get_paths() for part in figure.axes[0].collections]
    boxes = [
        paths[0].get_extents().intervaly
        for paths in drawn
        if len(paths) == 1 and len(paths[0].vertices) > 4
    ]
    expected = summary["concept_correlation_null_interval"].transpose("kind", "layer", "bound")
    np.testing.assert_allclose(boxes[:9], expected.values.reshape(9, 2))


def test_mistakes_are_named(found):
    with pytest.raises(RetinaCodecError, match="level must be one of class, superclass"):
        plot_concepts(found, "kingdom")
    with pytest.raises(RetinaCodecError, match="correlate_concepts"):
        plot_concepts(xr.DataTree())
    with pytest.raises(RetinaCodecError, match="layers must be among"):
        plot_concepts(found, layers=["conv9"])


def test_some_layers_can_be_shown(found):
    figure = plot_concepts(found, layers=["conv3", "conv1"])
    summary = found["summary"].to_dataset().sel(level="class", kind="modes")
    expected = summary["concept_correlation"].sel(layer=["conv3", "conv1"])
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata(), expected)
