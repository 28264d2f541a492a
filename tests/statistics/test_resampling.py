"""Blocks of time: the quick sums against bins really repeated."""

import numpy as np
import pytest

from retina_codec.errors import RetinaCodecError
from retina_codec.statistics.resampling import block_bins, draw_blocks, resample_correlations


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
