"""The number of groups: the gap by loops, stability by resamples with a known answer."""

import numpy as np
import pytest
from sklearn.cluster import KMeans

from retina_codec.statistics.clustering import cluster_cells, gap_statistic, in_order


def planted(spread, seed=0):
    """Three groups of five in two dimensions, and noisy copies."""
    random = np.random.default_rng(seed)
    truth = np.repeat([0, 1, 2], 5)
    centers = np.array([[0, 0], [10, 0], [0, 10.0]])[truth]
    points = centers + spread * random.normal(size=(15, 2))
    return points, points + spread * random.normal(size=(60, 15, 2)), truth


def test_gap_is_its_definition():
    points = planted(1.0)[0]
    gap, _ = gap_statistic(points, [1, 3], seed=4)
    axes = np.linalg.svd(points - points.mean(0), full_matrices=False)[2]
    box = (points - points.mean(0)) @ axes.T
    random = np.random.default_rng(5)
    for k, found in zip((1, 3), gap, strict=True):
        drawn = [
            np.log(
                KMeans(k, n_init=5).fit(random.uniform(box.min(0), box.max(0), (15, 2))).inertia_
            )
            for _ in range(60)
        ]
        expected = np.mean(drawn) - np.log(KMeans(k, n_init=5).fit(points).inertia_)
        # two sets of references: four standard errors of the difference of their means
        assert found == pytest.approx(expected, abs=4 * np.std(drawn) * np.sqrt(1 / 50 + 1 / 60))


def test_groups_that_are_there_are_found_and_sure():
    points, copies, truth = planted(0.5)
    found = cluster_cells(points, range(2, 9), resampled=copies)
    np.testing.assert_array_equal(found["pathway"], truth)
    assert (found.attrs["k"], found.attrs["gap_k"]) == (3, 3)
    np.testing.assert_allclose(found["ari_bootstrap"].sel(k=3), 1)
    assert (found["ari_bootstrap"].sel(k=slice(4, 8)) < 0.9).all()
    np.testing.assert_array_equal(found["consensus"], truth[:, None] == truth)
    np.testing.assert_array_equal(found["confidence"], 1)


def test_a_stray_cell_is_unsure():
    points, copies, _ = planted(0.3)
    points[14], copies[:, 14] = [5.0, 0.0], [5.0, 0.0]
    copies[::2, 14, 0], copies[1::2, 14, 0] = 3.0, 7.0
    found = cluster_cells(points, [3], resampled=copies)
    assert 0.3 < found["confidence"].values[14] < 0.7
    assert found["confidence"].values[:5].min() > 0.95


def test_numbers_follow_first_members():
    assert in_order(np.array([7, 2, 7, 0, 2])).tolist() == [0, 1, 0, 2, 1]
