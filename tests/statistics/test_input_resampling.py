"""Bootstrap of means and flips of signs: against SciPy, all flips, and their promises."""

from itertools import product

import numpy as np
import pytest
from scipy.stats import sem

from retina_codec.statistics.resampling import flip_p_values, mean_and_error, resampled_means

RANDOM = np.random.default_rng(0)


def test_mean_and_error_equal_scipy_and_leave_nan_out():
    values = RANDOM.normal(size=(30, 3))
    values[4, 1] = np.nan
    values[:, 2] = np.nan
    mean, error = mean_and_error(values)
    np.testing.assert_allclose(mean[:2], np.nanmean(values[:, :2], axis=0))
    np.testing.assert_allclose(error[:2], sem(values[:, :2], nan_policy="omit"))
    assert np.isnan([mean[2], error[2]]).all()


def test_spread_of_resampled_means_is_the_standard_error():
    values = RANDOM.gamma(2, size=(200, 1))
    drawn = resampled_means(values, 4000, 1)
    assert drawn.std() == pytest.approx(sem(values)[0], rel=0.05)
    assert drawn.mean() == pytest.approx(values.mean(), rel=0.01)


def test_columns_are_drawn_together():
    """A difference of columns resampled is the resampled difference."""
    values = RANDOM.normal(size=(50, 2))
    both = np.column_stack([values, values[:, 0] - values[:, 1]])
    drawn = resampled_means(both, 20, 3)
    np.testing.assert_allclose(drawn[:, 2], drawn[:, 0] - drawn[:, 1], atol=1e-12)


def test_blocks_widen_the_spread_of_slow_series():
    slow = np.repeat(RANDOM.normal(size=(40, 1)), 25, axis=0)
    single, together = (resampled_means(slow, 2000, 0, block).std() for block in (1, 25))
    assert together == pytest.approx(5 * single, rel=0.1)


def test_missing_values_take_no_part():
    values = np.array([[1.0], [np.nan], [1.0], [1.0]])
    drawn = resampled_means(values, 200, 0)
    assert (drawn[np.isfinite(drawn)] == 1).all()


def test_p_equals_all_flips():
    values = np.random.default_rng(4).normal(0.5, 1, (8, 1))
    sums = [abs((np.array(s) @ values).item()) for s in product([-1, 1], repeat=8)]
    exact = np.mean(np.array(sums) >= abs(values.sum()) - 1e-12)
    assert flip_p_values(values, 20_000, 0)[0] == pytest.approx(exact, abs=0.01)


def test_p_is_uniform_without_a_difference():
    values = np.random.default_rng(5).standard_t(3, size=(30, 800))
    p = flip_p_values(values, 199, 1)
    assert np.mean(p <= 0.05) == pytest.approx(0.05, abs=0.025)
    assert np.mean(p <= 0.5) == pytest.approx(0.5, abs=0.06)


def test_nothing_to_compare_has_no_p():
    assert np.isnan(flip_p_values(np.full((5, 1), np.nan), 10, 0)).all()
