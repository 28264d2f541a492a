"""Blocks of time against bins really repeated; means and flips of signs against SciPy."""

from itertools import product

import numpy as np
import pytest
from scipy.stats import sem

from retina_codec.errors import RetinaCodecError
from retina_codec.statistics.resampling import (
    block_bins,
    draw_blocks,
    flip_p_values,
    mean_and_error,
    percentiles,
    resample_correlations,
    resampled_means,
)

RANDOM = np.random.default_rng(0)


def test_correlations_are_those_of_the_drawn_bins():
    random = np.random.default_rng(0)
    rate, loading = random.normal(size=(200, 3)) + 50, random.normal(size=(200, 2))
    drawn = draw_blocks(200, 16, 9, seed=1)
    found = resample_correlations(rate, loading, drawn, 16)
    for one, counts in zip(found, drawn, strict=True):
        bins = np.concatenate(
            [np.tile(np.arange(4 * p, 4 * p + 4), n) for p, n in enumerate(counts)]
        )
        expected = np.corrcoef(rate[bins].T, loading[bins].T)[:3, 3:]
        np.testing.assert_allclose(one, expected, atol=1e-12)


def test_blocks_are_whole_and_as_long_as_the_recording():
    drawn = draw_blocks(200, 16, 400, seed=0)
    assert drawn.shape == (400, 50)
    np.testing.assert_array_equal(drawn.sum(1), 13 * 4)
    middle = drawn.mean(0)[4:-4]
    np.testing.assert_allclose(middle, 13 * 4 / 47, atol=0.25)
    assert (draw_blocks(200, 16, 5, seed=1) != drawn[:5]).any()


def test_spread_of_the_mean_of_a_slow_series():
    """Blocks keep the memory that single bins lose: AR(1), known variance of the mean."""
    a, bins = 0.95, 20_000
    noise = np.random.default_rng(1).normal(size=bins)
    series = np.empty(bins)
    series[0] = noise[0]
    for t in range(1, bins):
        series[t] = a * series[t - 1] + noise[t]
    drawn = draw_blocks(bins, 800, 400, seed=0)
    means = drawn @ series.reshape(-1, 200).sum(1) / (drawn.sum(1) * 200)
    assert means.std() == pytest.approx(1 / (1 - a) / np.sqrt(bins), rel=0.3)


def test_length_of_blocks():
    assert block_bins(np.arange(6000) / 100, 2.0) == 200
    assert block_bins(np.arange(500) / 100, 2.0) == 48
    with pytest.raises(RetinaCodecError, match="block must be a time"):
        block_bins(np.arange(500) / 100, 0.0)
    with pytest.raises(RetinaCodecError, match="resamples=0"):
        block_bins(np.arange(39) / 100, 1.0)


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


def test_intervals_hold_the_middle_of_the_resamples():
    values = np.stack([np.arange(101.0), 10 * np.arange(101.0)], 1)
    np.testing.assert_allclose(percentiles(values), [[2.5, 97.5], [25, 975]])
    np.testing.assert_allclose(percentiles(values, 0.8), [[10, 90], [100, 900]])
    values[0, 0] = np.nan
    assert np.isnan(percentiles(values)[0]).all()
    np.testing.assert_allclose(
        percentiles(values, skip_missing=True), [[1 + 0.025 * 99, 100 - 0.025 * 99], [25, 975]]
    )


def test_draws_of_a_generator_go_on_where_it_stands():
    values, one, two = RANDOM.normal(size=(12, 1)), *(np.random.default_rng(3) for _ in range(2))
    first, second = (resampled_means(values, 70, one) for _ in range(2))
    drawn = values[two.integers(12, size=(70, 12)), 0].mean(1)
    np.testing.assert_allclose(first[:, 0], drawn)
    drawn = values[two.integers(12, size=(70, 12)), 0].mean(1)
    np.testing.assert_allclose(second[:, 0], drawn)
