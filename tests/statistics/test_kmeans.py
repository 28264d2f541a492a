"""Many small clusterings at once, against scikit-learn one by one."""

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, silhouette_score

from retina_codec.statistics.kmeans import adjusted_rand, fit_kmeans, silhouettes
from tests.reference import modes as reference

POINTS = np.random.default_rng(0).normal(size=(6, 14, 3))


@pytest.mark.parametrize("k", [1, 2, 4, 7])
def test_sum_of_squares_is_scikit_learns(k):
    groups, within = fit_kmeans(POINTS, k, starts=60)
    best = [KMeans(k, n_init=60, random_state=1).fit(points).inertia_ for points in POINTS]
    np.testing.assert_allclose(within.min(1), best, rtol=1e-6)
    for points, labels, value in zip(POINTS, groups[:, 3], within[:, 3], strict=True):
        by_hand = sum(
            ((points[labels == g] - points[labels == g].mean(0)) ** 2).sum() for g in set(labels)
        )
        assert by_hand == pytest.approx(value, rel=1e-6)


def test_silhouette_and_index():
    labels = np.random.default_rng(1).integers(0, 4, (6, 14))
    other = np.random.default_rng(2).integers(0, 3, 14)
    np.testing.assert_allclose(
        silhouettes(POINTS, labels),
        [silhouette_score(points, one) for points, one in zip(POINTS, labels, strict=True)],
    )
    expected = [adjusted_rand_score(other, one) for one in labels]
    np.testing.assert_allclose(adjusted_rand(labels, other), expected)
    np.testing.assert_allclose(reference.adjusted_rand(labels[0], other), expected[0])
    assert adjusted_rand(np.zeros((1, 5), int), np.zeros(5, int))[0] == 1
    assert np.isnan(silhouettes(POINTS[:1], np.zeros((1, 14), int)))[0]
