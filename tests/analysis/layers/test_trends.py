"""Trends over layers against lines, polyfit, and statistics recomputed from the layers."""

import numpy as np
import pytest
import xarray as xr

import retina_codec as rc
from retina_codec.analysis.layers.statistics import measure_contributions
from retina_codec.analysis.layers.trends import depth_trends, trend_weights


def made_tree(layers=4, inputs=60, channels=12, classes=6, rising=True):
    """Layers of which every next one has fewer large channels (or more), and labels."""
    random = np.random.default_rng(0)
    label = [f"class {number % classes}" for number in range(inputs)]
    nodes = {}
    for depth in range(layers):
        power = 1 + depth if rising else layers - depth
        size = np.abs(random.normal(size=(inputs, 2, channels))) ** power
        size[np.arange(inputs), 1, np.arange(inputs) % classes % channels] += 2.0
        nodes[f"/layers/l{depth}"] = xr.Dataset(
            {
                "contribution": (("sample", "sign", "channel"), size * [[-1], [1]]),
                "activation": (
                    ("sample", "channel"),
                    np.abs(random.normal(size=(inputs, channels))),
                ),
            },
            coords={"sign": ["inhibitory", "excitatory"], "label": ("sample", label)},
            attrs={"site": "blocks", "block": depth},
        )
    return xr.DataTree.from_dict(nodes)


@pytest.mark.parametrize("layers", [2, 3, 8])
def test_weights_give_the_change_along_the_fitted_line(layers):
    values = np.random.default_rng(layers).normal(size=layers)
    slope = np.polyfit(np.arange(layers), values, 1)[0]
    assert trend_weights(layers) @ values == pytest.approx(slope * (layers - 1))
    assert trend_weights(layers) @ np.linspace(3, 5, layers) == pytest.approx(2)
    assert trend_weights(layers) @ np.full(layers, 7.0) == pytest.approx(0)


def test_trends_are_those_of_the_statistics():
    tree = made_tree()
    trends = depth_trends(tree, bootstraps=200).squeeze("site")
    statistics = measure_contributions(tree, bootstraps=10, class_draws=50)
    weights = trend_weights(4)
    for name in ("sparsity", "components", "participation_ratio", "sign_correlation"):
        np.testing.assert_allclose(
            trends[name], np.tensordot(weights, statistics[name].values, 1), rtol=1e-9, atol=1e-12
        )


def test_intervals_cover_rising_and_flat_and_flip_with_the_layers():
    one = depth_trends(made_tree(), bootstraps=300).squeeze("site")
    other = depth_trends(made_tree(rising=False), bootstraps=300).squeeze("site")
    here = "inhibitory"
    assert one["sparsity_interval"].sel(quantity=here, bound="low") > 0
    assert other["sparsity_interval"].sel(quantity=here, bound="high") < 0
    flat = one["sparsity_interval"].sel(quantity="activation")  # the same at every depth
    assert flat.sel(bound="low") < 0 < flat.sel(bound="high")


def test_classes_are_left_out_of_all_layers_at_once():
    tree, classes = made_tree(), 6
    found = depth_trends(tree, bootstraps=10).squeeze("site").sel(quantity="contribution")
    labels = np.array(tree["layers/l0"]["label"].values)
    parts = []
    for out in range(classes):  # a fifth of six is one
        keep = np.flatnonzero(labels != f"class {out}")
        ratio = []
        for depth in range(4):
            net = tree[f"layers/l{depth}"]["contribution"].sum("sign").values[keep]
            means = np.stack([net[labels[keep] == one].mean(0) for one in np.unique(labels[keep])])
            values = np.linalg.eigvalsh(np.cov(means.T))
            ratio.append(values.sum() ** 2 / np.square(values).sum())
        parts.append(trend_weights(4) @ ratio)
    error = np.sqrt((classes - 1) * np.var(parts))
    ends = found["participation_ratio_interval"].values
    assert (ends[1] - ends[0]) / 2 == pytest.approx(1.96 * error, rel=1e-6)


def test_sites_have_trends_of_their_own_and_one_layer_has_none():
    tree = made_tree()
    for depth in (2, 3):
        tree[f"layers/l{depth}"].attrs["site"] = "mlp"
    found = depth_trends(tree, bootstraps=10)
    assert found["site"].values.tolist() == ["blocks", "mlp"]
    alone = depth_trends(tree, layers=["l2", "l3"], bootstraps=10)
    xr.testing.assert_allclose(found.sel(site="mlp"), alone.sel(site="mlp"))
    with pytest.raises(rc.RetinaCodecError, match="two layers or more"):
        depth_trends(tree, layers=["l0", "l2", "l3"])
