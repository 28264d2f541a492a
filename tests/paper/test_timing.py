"""Robust times: fits against known laws, medians that a bad round cannot move, honest intervals."""

import time

import numpy as np
import pytest
from scipy import stats

from retina_codec.errors import RetinaCodecError
from retina_codec.paper.timing import exponent, growth, over_rounds, slope, time_rounds

SIZES = np.array([8.0, 16, 32, 64, 128])


def noisy(seconds, rounds=7, noise=0.02, seed=0):
    """Rounds of these times, each wrong by a few percent."""
    shake = np.random.default_rng(seed).normal(size=(len(seconds), rounds))
    return np.asarray(seconds)[:, None] * (1 + noise * shake)


def test_slope_is_that_of_theil_and_sen():
    seconds = np.random.default_rng(0).normal(size=5) + SIZES
    assert slope(SIZES, seconds) == pytest.approx(stats.theilslopes(seconds, SIZES)[0])


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_exponents_of_known_laws(power):
    assert exponent(SIZES, 3 * SIZES**power) == pytest.approx(power)
    assert growth(SIZES, 5 + 3 * (SIZES - 8) ** power) == pytest.approx(power)


def test_what_is_paid_once_leaves_slope_and_growth_as_they_are():
    for once in (0.0, 100.0):
        assert slope(SIZES, once + 0.2 * SIZES) == pytest.approx(0.2)
        assert growth(SIZES, once + 0.2 * SIZES) == pytest.approx(1)
    assert exponent(SIZES, 100 + 0.2 * SIZES) < 0.1


def test_growth_is_missing_where_nothing_grows():
    assert np.isnan(growth(SIZES, 5 - 0.01 * SIZES))


def test_one_bad_round_changes_little():
    def estimate(medians):
        return growth(SIZES, medians)

    seconds = noisy(0.5 + 0.02 * SIZES)
    middle, _ = over_rounds(seconds, estimate)
    seconds[:, 3] *= np.random.default_rng(1).uniform(1, 20, 5)
    spoilt, (low, high) = over_rounds(seconds, estimate)
    assert spoilt == pytest.approx(middle, abs=0.05)
    assert low < 1 < high
    assert high - low < 0.5


def test_an_interval_is_missing_where_too_many_draws_are():
    seconds = np.stack([np.full(7, 1.0), [2.0] * 4 + [0.5] * 3, np.full(7, 3.0)])
    middle, ends = over_rounds(seconds, lambda m: growth([1, 2, 3], m))
    assert np.isfinite(middle)
    assert np.isnan(ends).all()


def test_intervals_cover_the_truth():
    """95 % intends; medians of 7 rounds give a little less."""
    inside = 0
    for seed in range(60):
        seconds = noisy(0.5 + 0.02 * SIZES, seed=seed)
        _, (low, high) = over_rounds(seconds, lambda m: slope(SIZES, m), draws=150, seed=seed)
        inside += low <= 0.02 <= high
    assert 50 <= inside


def test_few_rounds_have_no_interval_and_the_seed_decides_the_draws():
    seconds = noisy(0.5 + 0.02 * SIZES)
    middle, ends = over_rounds(seconds[:, :4], np.sum)
    assert middle == pytest.approx(np.median(seconds[:, :4], 1).sum())
    assert np.isnan(ends).all()
    assert over_rounds(seconds, np.sum) == over_rounds(seconds, np.sum)
    assert over_rounds(seconds, np.sum) != over_rounds(seconds, np.sum, seed=1)


def test_rounds_do_everything_once_in_changing_order():
    calls: list[int] = []
    works = [lambda number=number: calls.append(number) for number in range(6)]
    found = time_rounds(works, 4, seed=3)
    assert dict(found.sizes) == {"setting": 6, "round": 4}
    turns = np.reshape(calls, (5, 6))  # the first is not timed
    assert (np.sort(turns, 1) == np.arange(6)).all()
    assert len({tuple(turn) for turn in turns}) == 5
    again = len(calls)
    time_rounds(works, 4, seed=3)
    assert calls[again:] == calls[:again]
    time_rounds(works, 4, seed=3, warm=False)
    assert calls[2 * again :] == calls[6:again]


def test_clocks_tell_work_from_waiting():
    def work():
        end = time.process_time() + 0.03
        while time.process_time() < end:
            pass

    found = time_rounds([lambda: time.sleep(0.05), work], 2)
    assert (found["wall"] >= 0.03).all()
    assert (found["processor"][0] < 0.02).all()
    assert (found["processor"][1] >= 0.03).all()


def test_finish_comes_before_every_reading():
    events: list[str] = []
    time_rounds([lambda: events.append("work")], 2, finish=lambda: events.append("finish"))
    assert events == ["work"] + 2 * ["finish", "work", "finish"]


def test_nothing_to_time_is_refused():
    with pytest.raises(RetinaCodecError, match="at least one piece of work and one round"):
        time_rounds([], 3)
    with pytest.raises(RetinaCodecError, match="got 1 and 0"):
        time_rounds([time.time], 0)
