"""Modes of concepts and orders of channels, against SciPy and by hand."""

import numpy as np
import pytest
import xarray as xr
from scipy.stats import pearsonr

from retina_codec.analysis.control.channels import (
    best_modes,
    channel_counts,
    channel_weights,
    draw_orders,
    keep_sets,
)
from retina_codec.errors import RetinaCodecError


def test_best_modes_are_those_of_scipy() -> None:
    random = np.random.default_rng(0)
    loading, member = random.exponential(size=(60, 7)), random.random((60, 3)) < 0.3
    loading[:, 4] = 0.1  # does not vary
    mode, r = best_modes(loading, member, 7)
    for concept in range(3):
        expected = [
            pearsonr(loading[:, m], member[:, concept]).statistic if m != 4 else -np.inf
            for m in range(7)
        ]
        assert mode[concept].tolist() == np.argsort(expected)[::-1].tolist()
        np.testing.assert_allclose(r[concept, :6], np.sort(expected)[::-1][:6])
    assert (mode[:, 6] == 4).all()
    assert np.isnan(r[:, 6]).all()


def test_weights_by_hand() -> None:
    dictionary = xr.DataArray(
        [[[0.0, -0.6, -0.2], [0.8, 0.0, 0.1]], [[-0.5, 0.0, 0.0], [0.0, 0.3, 0.9]]],
        dims=("mode", "sign", "channel"),
        coords={"sign": ["inhibitory", "excitatory"]},
    )
    one, both = np.array([[1], [0]]), np.array([[0, 1]])
    found = channel_weights(dictionary, one, "excitatory")
    np.testing.assert_allclose(found, [[0, 0.3, 0.9], [0.8, 0, 0.1]])
    found = channel_weights(dictionary.transpose("channel", "sign", "mode"), both, "inhibitory")
    np.testing.assert_allclose(found, [[0.5, 0.6, 0.2]])
    np.testing.assert_allclose(channel_weights(dictionary, both, "net"), [[0.3, -0.3, 0.8]])


def test_equal_weights_stand_in_random_order() -> None:
    weight = np.array([0.0, 3.0, 0.0, 1.0, 0.0])
    orders = draw_orders(np.tile(weight, (600, 1)), np.random.default_rng(0))
    assert (orders[:, :2] == [1, 3]).all()
    places = np.array([(orders[:, 2] == c).mean() for c in (0, 2, 4)])
    np.testing.assert_allclose(places, 1 / 3, atol=0.07)  # 3.6 standard errors
    again = draw_orders(np.tile(weight, (600, 1)), np.random.default_rng(0))
    np.testing.assert_array_equal(orders, again)


def test_counts_by_hand() -> None:
    assert channel_counts([1, 2, 5, 10, 18, 25, 50, 80, 99], 16).tolist() == [
        1, 1, 1, 2, 3, 4, 8, 13, 15,
    ]  # fmt: skip
    assert channel_counts([1, 50, 99], 2048).tolist() == [20, 1024, 2028]
    assert channel_counts([1, 99], 1).tolist() == [1, 1]


def test_sets_by_hand() -> None:
    order, counts = np.array([[2, 0, 1]]), np.array([1, 2])
    np.testing.assert_array_equal(keep_sets(order, counts, "ablate", 3), [[[1, 1, 0], [0, 1, 0]]])
    preserved = keep_sets(order, counts, "preserve", 6)  # groups of two neighbours
    np.testing.assert_array_equal(preserved, [[[0, 0, 0, 0, 1, 1], [1, 1, 0, 0, 1, 1]]])
    with pytest.raises(RetinaCodecError, match="cannot share the layer's 5 evenly"):
        keep_sets(order, counts, "ablate", 5)
