"""Refractory Poisson spikes: interval law, expected rate, slow second implementation."""

import numpy as np
from scipy import stats

from retina_codec.recordings.simulated.spikes import expected_rate, refractory_poisson
from tests.reference.spikes import refractory_bernoulli


def test_intervals_follow_the_shifted_exponential():
    hazard = np.full((100_000, 1), 40.0)
    random = np.random.default_rng(0)
    (times,) = refractory_poisson(hazard, bin_width=0.01, refractory=0.003, random=random)
    intervals = np.diff(times)
    assert intervals.min() >= 0.003
    test = stats.kstest(intervals, stats.expon(loc=0.003, scale=1 / 40).cdf)
    assert test.pvalue > 0.01


def test_count_agrees_with_the_expected_rate():
    hazard = np.full((200_000, 1), 90.0)
    random = np.random.default_rng(1)
    (times,) = refractory_poisson(hazard, bin_width=0.01, refractory=0.003, random=random)
    expected = expected_rate(np.array([90.0]), 0.003)[0]
    assert expected == 90 / 1.27
    # renewal process: the count's standard deviation is below sqrt(count)
    assert abs(len(times) - 2000 * expected) < 4 * np.sqrt(2000 * expected)


def test_modulated_hazard_agrees_with_brute_force():
    bins = 400
    hazard = 60 * (1 + np.sin(np.arange(bins) / 8)) + 1e-9
    ours, slow = np.zeros(bins), np.zeros(bins)
    random = np.random.default_rng(2)
    for _ in range(60):
        (times,) = refractory_poisson(
            hazard[:, None], bin_width=0.01, refractory=0.004, random=random
        )
        ours += np.histogram(times, np.arange(bins + 1) * 0.01)[0]
        times = refractory_bernoulli(hazard, 0.01, 0.004, random, 5e-4)
        slow += np.histogram(times, np.arange(bins + 1) * 0.01)[0]
    # 20 groups of 20 bins, each a count with variance below its mean
    first, second = ours.reshape(-1, 20).sum(1), slow.reshape(-1, 20).sum(1)
    z = (first - second) / np.sqrt(first + second + 1)
    assert np.abs(z).max() < 4
    assert abs(z.mean()) < 4 / np.sqrt(20)


def test_silent_train_and_no_spike_outside():
    hazard = np.zeros((50, 2))
    hazard[10:20, 1] = 500.0
    random = np.random.default_rng(3)
    silent, burst = refractory_poisson(hazard, bin_width=0.01, refractory=0.002, random=random)
    assert len(silent) == 0
    assert len(burst) > 10
    assert burst.min() >= 0.1
    assert burst.max() < 0.2
