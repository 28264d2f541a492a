"""Dimensionality of class averages: closed forms, scikit-learn, and the jackknife."""

import numpy as np
import pytest
from sklearn.decomposition import PCA as Principal

from retina_codec.analysis.layers.dimensionality import components, left_out, measure, spectrum


def test_closed_forms():
    """Equal variances in d directions: d components, participation d; one direction: 1 and 1."""
    np.testing.assert_allclose(components(np.ones(7), 0.95), [7, 7])
    np.testing.assert_allclose(components(np.array([4.0, 0, 0]), 0.95), [1, 1])
    np.testing.assert_allclose(components(np.array([90.0, 5, 5]), 0.95), [2, 1e4 / 8150])
    assert np.isnan(components(np.zeros(3), 0.95)).all()


@pytest.mark.parametrize("shape", [(9, 20), (20, 9)])
def test_components_equal_those_of_sklearn(shape):
    random = np.random.default_rng(1)
    means = random.normal(size=shape) * random.gamma(0.5, size=shape[1])
    count, ratio = components(spectrum(means), 0.95)
    whole = Principal().fit(means).explained_variance_
    assert count == Principal(0.95, svd_solver="full").fit(means).n_components_
    assert ratio == pytest.approx(whole.sum() ** 2 / (whole**2).sum())


@pytest.mark.parametrize("shape", [(9, 20), (20, 9)])
def test_parts_are_measured_like_wholes(shape):
    means = np.random.default_rng(2).normal(size=shape)
    kept, scale = left_out(shape[0], 6, 0)
    found = measure(means, 0.9, kept, scale)
    expected = [components(spectrum(means[some]), 0.9) for some in kept]
    np.testing.assert_allclose(found.parts, expected)


def test_few_classes_are_left_out_in_all_ways():
    kept, scale = left_out(10, 200, 0)
    assert len({tuple(some) for some in kept}) == 45
    assert all(len(some) == 8 for some in kept)
    assert scale == 4
    assert left_out(4, 200, 0)[0] == []


def test_jackknife_finds_the_error_of_the_participation_ratio():
    """Against the spread over many independent sets of classes."""
    random = np.random.default_rng(3)
    size = np.array([3, 2, 1, 0.5])
    several = [random.normal(size=(60, 4)) * size for _ in range(150)]
    true = np.std([components(spectrum(means), 0.95)[1] for means in several])
    kept, scale = left_out(60, 100, 0)
    errors = [measure(means, 0.95, kept, scale).error()[1] for means in several[:30]]
    assert np.mean(errors) == pytest.approx(true, rel=0.25)
