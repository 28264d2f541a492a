"""The picture of a circuit: widths, colours, which edges, kernels, words."""

import numpy as np
import pytest
import torch
import xarray as xr
from matplotlib.colors import same_color
from matplotlib.patches import PathPatch

from retina_codec.analysis.circuits.decomposition import circuit
from retina_codec.errors import RetinaCodecError
from retina_codec.figures.circuits import NEGATIVE, POSITIVE, plot_circuit
from retina_codec.targets.base import Sum
from tests.figures.checks import assert_readable, has_image, words_of
from tests.small import small_network


@pytest.fixture(scope="module")
def found():
    windows = torch.as_tensor(np.random.default_rng(0).normal(size=(3, 8, 16, 16)))
    return circuit(small_network().double(), windows, target=Sum(), steps=2, lags=2)


def edges_of(figure):
    return [patch for patch in figure.axes[0].patches if isinstance(patch, PathPatch)]


def test_widths_and_colours_are_shares(found):
    drawn = edges_of(plot_circuit(found, share=1))
    shares = [t["contribution"].mean("sample").values for t in found["edges"].children.values()]
    values = np.concatenate([one.ravel() for one in shares])
    assert len(drawn) == np.count_nonzero(values)
    largest = np.abs(values).max()
    expected = sorted(np.maximum(0.35, 9 * np.abs(values[values != 0]) / largest))
    np.testing.assert_allclose(sorted(edge.get_linewidth() for edge in drawn), expected)
    rising = [edge for edge in drawn if same_color(edge.get_edgecolor()[:3], POSITIVE[:3])]
    falling = [edge for edge in drawn if same_color(edge.get_edgecolor()[:3], NEGATIVE[:3])]
    assert (len(rising), len(falling)) == ((values > 0).sum(), (values < 0).sum())
    assert len(edges_of(plot_circuit(found, share=0.5))) < len(drawn) / 2


def test_words_and_kernels(found):
    field = np.random.default_rng(1).normal(size=(1, 5, 5))
    kernels = xr.Dataset(
        {
            "field": (("channel", "field_y", "field_x"), field),
            "time_course": (("channel", "lag"), [[0.0, 1.0, -0.5]]),
        },
        {"channel": ["conv1/2"], "lag": [0.03, 0.02, 0.01]},
    )
    figure = plot_circuit(found, kernels=kernels)
    assert_readable(figure)
    assert has_image(figure, field[0])
    words = words_of(figure)
    for word in ("stimulus", "layer 1", "cells", "40-80 ms", "mean of 3 inputs, Hz"):
        assert word in words


def test_bad_input(found):
    with pytest.raises(RetinaCodecError, match=r"share must lie in \(0, 1\]"):
        plot_circuit(found, share=0)
    with pytest.raises(RetinaCodecError, match="there is none"):
        plot_circuit(found, np.zeros(3, bool))
