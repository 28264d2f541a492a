"""Statistics by layer as a figure: the numbers stand where they belong, and all can be read."""

import numpy as np
import pytest
import xarray as xr

from retina_codec.analysis.layers.sparsity import head_sparsity as measure_heads
from retina_codec.analysis.layers.statistics import measure_contributions as measure
from retina_codec.errors import RetinaCodecError
from retina_codec.figures.images.layers import plot_head_sparsity, plot_layers
from tests.analysis.planted_concepts import planted
from tests.figures.checks import assert_readable, words_of

LONG = tuple(f"blocks.{k}.attention" for k in range(8))


@pytest.fixture(scope="module")
def found():
    tree = planted(layers=LONG, samples=60, classes=6)
    return measure(tree, bootstraps=50, class_draws=10)


@pytest.fixture(scope="module")
def figure(found):
    return plot_layers(found)


def lines_of(axes):
    return {line.get_label(): line for line in axes.lines}


def test_page_is_readable(figure):
    assert_readable(figure)
    assert "blocks.7.attention" in words_of(figure)


def test_sparsity_has_its_intervals(figure, found):
    axes = figure.axes[0]
    for name, words in (("contribution", "contributions"), ("activation", "activations")):
        here = found.sel(quantity=name)
        np.testing.assert_allclose(lines_of(axes)[words].get_ydata(), here["sparsity"])
        ends = [
            np.array(part.get_segments())[:, :, 1] for part in axes.collections
        ]  # every quantity has its own
        assert any(np.allclose(one, here["sparsity_interval"]) for one in ends)


def test_the_varying_part_has_a_panel_with_what_noise_has(figure, found):
    axes = figure.axes[1]
    for name, words in (("contribution", "contributions"), ("activation", "activations")):
        here = found.sel(quantity=name)
        np.testing.assert_allclose(lines_of(axes)[words].get_ydata(), here["varying_sparsity"])
        ends = [np.array(part.get_segments())[:, :, 1] for part in axes.collections[:2]]
        assert any(np.allclose(one, here["varying_sparsity_interval"]) for one in ends)
    noise = lines_of(axes)["normal numbers"].get_ydata()
    np.testing.assert_allclose(noise, found["normal_sparsity"])


def test_signs_and_components(figure, found):
    np.testing.assert_allclose(figure.axes[2].lines[0].get_ydata(), found["sign_correlation"])
    np.testing.assert_allclose(
        lines_of(figure.axes[3])["activations"].get_ydata(),
        found["components"].sel(quantity="activation"),
    )
    assert "at most 5" in words_of(figure)


def test_short_names_lie_flat_and_missing_labels_are_said():
    tree = planted(layers=("conv1", "conv2"), samples=40)
    bare = xr.DataTree.from_dict(
        {
            f"/layers/{name}": tree[f"layers/{name}"].to_dataset().drop_vars("label")
            for name in ("conv1", "conv2")
        }
    )
    figure = plot_layers(measure(bare, bootstraps=10))
    assert_readable(figure)
    assert "inputs have no labels" in words_of(figure)
    assert "layer 2" in words_of(figure)


def test_heads_stand_beside_random_groups():
    tree = planted(layers=("a", "b"), samples=40)
    found = measure_heads(tree, 4, draws=20)
    figure = plot_head_sparsity(found)
    assert_readable(figure)
    lines = lines_of(figure.axes[0])
    np.testing.assert_allclose(
        lines["contributions"].get_ydata(), found["sparsity"].sel(quantity="contribution")
    )
    assert "random groups" in words_of(figure)
    long = {name: tree["layers/a/activation"] for name in LONG}
    assert_readable(plot_head_sparsity(measure_heads(long, 3, draws=5)))


def test_layers_of_other_sites_are_not_joined(found):
    sites = ["blocks"] * 5 + ["mlp"] * 3
    figure = plot_layers(found.assign_coords(site=("layer", sites)))
    drawn = figure.axes[2].lines[0].get_ydata()
    np.testing.assert_allclose(drawn, np.insert(found["sign_correlation"].values, 5, np.nan))


@pytest.mark.parametrize("draw", [plot_layers, plot_head_sparsity])
def test_something_else_is_refused(draw):
    with pytest.raises(RetinaCodecError, match="this figure needs what"):
        draw(xr.Dataset({"a": ("layer", [1.0])}))
