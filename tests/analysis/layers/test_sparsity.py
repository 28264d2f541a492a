"""Hoyer sparsity: closed forms, a loop, invariances; heads against random groups."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import false_discovery_control

from retina_codec.analysis.layers.sparsity import head_sparsity, hoyer_sparsity
from retina_codec.errors import RetinaCodecError
from tests.reference import statistics_of_contributions as slow


def array(values, **coords):
    return xr.DataArray(np.asarray(values, float), dims=("sample", "channel"), coords=coords)


def test_closed_forms():
    """One-hot 1, equal sizes 0; k equal of n: (√n − √k) / (√n − 1)."""
    found = hoyer_sparsity(array([[0, 0, -3, 0], [2, -2, 2, 2], [5, 5, 0, 0]]))
    np.testing.assert_allclose(found, [1, 0, 2 - np.sqrt(2)], atol=1e-15)


def test_zeros_and_nan_have_no_sparsity():
    found = hoyer_sparsity(array([[0, 0, 0], [1, np.nan, 0], [1, 0, 0]]))
    np.testing.assert_array_equal(np.isnan(found), [True, True, False])


def test_tiny_values_are_not_lost():
    tiny = hoyer_sparsity(array([[1e-200, 3e-200, 0, 0]]))
    np.testing.assert_allclose(tiny, hoyer_sparsity(array([[1, 3, 0, 0]])))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.01, 100))
def test_equals_a_loop_and_does_not_change_with_scale_sign_and_order(seed, scale):
    random = np.random.default_rng(seed)
    values = random.normal(size=(3, 6)) * (random.random((3, 6)) < 0.7)
    values[:, 0] += 1
    found = hoyer_sparsity(array(values))
    np.testing.assert_allclose(found, [slow.hoyer(row) for row in values], rtol=1e-12, atol=1e-12)
    changed = -scale * values[:, random.permutation(6)]
    np.testing.assert_allclose(hoyer_sparsity(array(changed)), found, rtol=1e-9, atol=1e-12)


def test_dims_and_labels_stay():
    values = xr.DataArray(
        np.random.default_rng(0).normal(size=(4, 2, 3)),
        dims=("channel", "sign", "sample"),
        coords={"sign": ["inhibitory", "excitatory"], "sample": [7, 8, 9]},
    )
    found = hoyer_sparsity(values)
    assert found.dims == ("sign", "sample")
    assert found["sample"].values.tolist() == [7, 8, 9]
    assert float(found[1, 2]) == pytest.approx(slow.hoyer(values.values[:, 1, 2]))


def test_missing_dim():
    with pytest.raises(RetinaCodecError, match="needs the dim 'mode'"):
        hoyer_sparsity(array([[1, 2]]), "mode")


# Heads --------------------------------------------------------------------------------------


def one_head_acts(seed=0, inputs=40, heads=4, size=6):
    """Every input uses the dimensions of a single head."""
    random = np.random.default_rng(seed)
    values = np.zeros((inputs, heads * size))
    for row in values:
        head = random.integers(heads)
        row[head * size : (head + 1) * size] = random.random(size) + 0.5
    return array(values)


def test_one_active_head_has_sparsity_one_and_is_more_than_chance():
    found = head_sparsity(one_head_acts(), 4, draws=50).sel(layer="values", quantity="values")
    assert float(found["sparsity"]) == pytest.approx(1.0)
    assert float(found["null_interval"].sel(bound="high")) < 0.8
    assert float(found["p_value"]) == pytest.approx(1 / 51)
    assert float(found["excess"]) == pytest.approx(float(1 - found["null_mean"]))


def test_sparsity_and_null_equal_loops():
    random = np.random.default_rng(3)
    values = random.normal(size=(7, 12))
    values[2] = 0
    found = head_sparsity(array(values), 3, draws=5, seed=11).isel(layer=0, quantity=0)
    fine = [row for i, row in enumerate(values) if i != 2]
    expected = np.mean([slow.hoyer(slow.head_sums(row, 3)) for row in fine])
    assert float(found["sparsity"]) == pytest.approx(expected)
    assert float(found["undefined"]) == 1
    drawing = np.random.default_rng(11)
    orders = [drawing.permutation(12) for _ in range(5)]
    null = [
        np.mean([slow.hoyer(slow.head_sums(row[order], 3)) for row in fine]) for order in orders
    ]
    assert float(found["null_mean"]) == pytest.approx(np.mean(null))
    np.testing.assert_allclose(found["null_interval"], np.quantile(null, [0.025, 0.975]))


def test_p_is_uniform_without_heads():
    """Dimensions that know nothing of heads: p below 0.2 in about a fifth of cases."""
    random = np.random.default_rng(0)
    p = [
        float(
            head_sparsity(
                array(random.normal(size=(5, 24)) * random.gamma(1, size=24)), 4, draws=19, seed=i
            )["p_value"][0, 0]
        )
        for i in range(100)
    ]
    assert 0.08 <= np.mean(np.array(p) <= 0.2) <= 0.33


def test_signs_and_tokens_are_summed_first():
    random = np.random.default_rng(1)
    whole = random.normal(size=(6, 2, 8, 3))
    values = xr.DataArray(whole, dims=("sample", "sign", "channel", "token"))
    summed = array(whole.sum((1, 3)))
    one, other = head_sparsity(values, 2, draws=9), head_sparsity(summed, 2, draws=9)
    xr.testing.assert_allclose(one, other)


def test_layers_of_a_tree_with_heads_of_their_own():
    random = np.random.default_rng(2)
    nodes = {}
    for name, channels in (("a", 8), ("b", 9)):
        nodes[f"/layers/{name}"] = xr.Dataset(
            {
                "contribution": (
                    ("sample", "sign", "channel"),
                    random.normal(size=(5, 2, channels)),
                ),
                "activation": (("sample", "channel"), random.normal(size=(5, channels))),
            },
            coords={"sign": ["inhibitory", "excitatory"]},
        )
    tree = xr.DataTree.from_dict(nodes)
    found = head_sparsity(tree, {"a": 4, "b": 3}, draws=7)
    for name, heads in (("a", 4), ("b", 3)):
        net = nodes[f"/layers/{name}"]["contribution"].sum("sign")
        alone = head_sparsity(net, heads, draws=7)["sparsity"][0, 0]
        assert float(found["sparsity"].sel(layer=name, quantity="contribution")) == pytest.approx(
            float(alone)
        )
    assert found.attrs["heads"] == [4, 3]
    expected = false_discovery_control(found["p_value"].values.ravel()).reshape(2, 2)
    np.testing.assert_allclose(found["q_value"], expected)


@pytest.mark.parametrize("heads", [0, 1, 5, True])
def test_heads_must_divide_the_channels(heads):
    with pytest.raises(RetinaCodecError, match="divides the 24 channels"):
        head_sparsity(one_head_acts(), heads)


def test_groups_come_from_the_seed():
    values = array(np.random.default_rng(5).normal(size=(6, 12)))
    same = [head_sparsity(values, 3, draws=5, seed=1)["null_mean"] for _ in range(2)]
    xr.testing.assert_identical(*same)
    other = head_sparsity(values, 3, draws=5, seed=2)["null_mean"]
    assert float(same[0][0, 0]) != float(other[0, 0])


def test_heads_of_attention_sites_are_known():
    node = xr.Dataset(
        {
            "contribution": (
                ("sample", "sign", "channel"),
                np.random.default_rng(0).random((5, 2, 8)),
            ),
            "activation": (("sample", "channel"), np.random.default_rng(1).random((5, 8))),
        },
        coords={"sign": ["inhibitory", "excitatory"]},
    )
    tree = xr.DataTree.from_dict(
        {"/layers/a": node.assign_attrs(heads=4), "/layers/b": node, "/layers/c": node}
    )
    found = head_sparsity(tree, draws=3)
    assert found["layer"].values.tolist() == ["a"]
    xr.testing.assert_identical(found, head_sparsity(tree, 4, layers="a", draws=3))
    with pytest.raises(RetinaCodecError, match="number of heads is not known"):
        head_sparsity(one_head_acts())
