"""Summaries of correlations: by hand, with undefined pairs, and apart by level."""

import numpy as np
import pytest
from scipy.stats import binomtest

from retina_codec.analysis.concepts.correlations import Correlated
from retina_codec.analysis.concepts.summaries import Levels, largest, summaries_of

NAN = np.nan
R = np.array([[0.5, 0.1, NAN], [0.3, -0.2, 0.25], [NAN, NAN, NAN], [0.0, 0.15, 0.6]])
LEVELS = Levels(["class", "class", "superclass"], 0.2)


def test_undefined_pairs_take_no_part():
    np.testing.assert_array_equal(largest(R, 0), [0.5, 0.15, 0.6])
    np.testing.assert_array_equal(largest(R, 1), [0.5, 0.3, NAN, 0.6])


def test_numbers_by_hand_and_by_level():
    found = LEVELS.measure(R)
    assert LEVELS.names == ["class", "superclass"]
    np.testing.assert_allclose(found["concept_correlation"], [(0.5 + 0.15) / 2, 0.6])
    np.testing.assert_allclose(found["feature_correlation"], [(0.5 + 0.3 + 0.15) / 3, 0.425])
    np.testing.assert_allclose(found["correlated"], [2, 2])
    np.testing.assert_allclose(found["coverage"], [0.5, 1])


def test_nothing_defined_is_nan():
    found = LEVELS.measure(np.full((2, 3), NAN))
    for name in ("concept_correlation", "feature_correlation", "coverage"):
        assert np.isnan(found[name]).all()


def summary(feature_p, feature_null, q):
    null = [LEVELS.measure(R * share) for share in (0.1, 0.5, 1.0)]
    kept = {key: [one[key] for one in null] for key in null[0]}
    found = Correlated(R, np.full_like(R, 0.5), feature_p, feature_null, kept)
    return summaries_of(found, q, LEVELS, 0.05, 200, 0)


def test_null_p_and_intervals():
    feature_p = np.array([0.001, 0.02, NAN, 0.3])
    feature_null = np.array([[0.5, 0.01, NAN, 0.9], [0.02, 0.02, NAN, 0.1], [0.4, 0.9, NAN, 0.8]])
    found = summary(feature_p, feature_null, np.array([0.003, 0.03, NAN, 0.3]))
    np.testing.assert_allclose(found["concept_correlation_null"], [0.325 * 1.6 / 3, 0.6 * 1.6 / 3])
    np.testing.assert_allclose(found["concept_correlation_p"], [2 / 4, 2 / 4])  # one is as large
    np.testing.assert_allclose(found["features"], [3, 2])
    np.testing.assert_allclose(found["significant"], [2, 2])
    np.testing.assert_allclose(found["significant_null"], [1, 1])  # 1, 2 and 0 reach p of 0.02
    ends = binomtest(2, 3).proportion_ci(method="wilson")
    np.testing.assert_allclose(found["correlated_interval"][0], [3 * ends.low, 3 * ends.high])


def test_nothing_significant_has_no_cut():
    found = summary(np.full(4, 0.9), np.full((3, 4), 0.01), np.full(4, 0.9))
    assert found["significant"].tolist() == [0, 0]
    assert found["significant_null"].tolist() == [0, 0]
    assert found["significant_p"] == pytest.approx(1)
