"""Power: simulated experiments, statsmodels' formula written out, and limits."""

import numpy as np
import pytest
import xarray as xr
from scipy.stats import norm

from retina_codec.errors import RetinaCodecError
from retina_codec.statistics.power import count_variability, detectability, repeats_needed

Z = norm.ppf(0.975)


def test_the_formula_by_hand():
    # counts 40 and 60: difference 20, variance 100, d² = 4; (1.95996 + 0.84162)² = 7.8489
    squared = detectability(20.0, 30.0, 2.0)
    assert squared == pytest.approx(4.0)
    assert repeats_needed(squared) == 2.0  # 7.8489 / 4 = 1.96
    assert repeats_needed(squared / 10) == 20.0
    assert repeats_needed(7.8488 / 3) == 4.0  # just above three
    assert detectability(20.0, 30.0, 2.0, 4.0) == pytest.approx(1.0)


def power_of(before, after, duration, repeats, random, weight=None, trials=4000):
    """Share of simulated Poisson experiments in which the z of the counts exceeds 1.96."""
    low = random.poisson(np.multiply(before, duration * repeats), (trials, len(before)))
    high = random.poisson(np.multiply(after, duration * repeats), (trials, len(after)))
    weight = np.ones(len(before)) if weight is None else weight
    difference = (high - low) @ weight
    spread = np.sqrt((np.multiply(weight**2, duration * repeats) * np.add(before, after)).sum())
    return np.mean(np.abs(difference / spread) > Z)


@pytest.mark.parametrize(("before", "after"), [(10.0, 11.5), (5.0, 3.5), (30.0, 32.0)])
def test_simulated_experiments_have_the_power_asked_for(before, after):
    random = np.random.default_rng(0)
    for wanted in (0.8, 0.5):
        repeats = float(repeats_needed(detectability(before, after, 1.0), power=wanted))
        found = power_of([before], [after], 1.0, repeats, random)
        assert found == pytest.approx(wanted, abs=0.04)  # whole repeats, and 3 s.e. of 4000


def test_cells_together_have_the_power_of_their_summed_detectability():
    random = np.random.default_rng(1)
    before, after = np.array([8.0, 20.0, 12.0]), np.array([7.0, 21.0, 12.6])
    squared = detectability(before, after, 1.0)
    repeats = float(repeats_needed(squared.sum()))
    assert repeats < repeats_needed(squared).min()
    weight = (after - before) / (before + after)
    found = power_of(before, after, 1.0, repeats, random, weight)
    assert found == pytest.approx(0.8, abs=0.04)


def test_no_change_is_never_seen_and_silence_is_no_evidence():
    np.testing.assert_array_equal(detectability([5.0, 0.0], [5.0, 0.0], 1.0), [0.0, 0.0])
    assert np.isinf(repeats_needed(0.0))
    assert np.isnan(repeats_needed(np.nan))
    assert repeats_needed(1e6) == 1.0


def test_variability_of_poisson_counts_is_one_and_of_doubled_ones_two():
    random = np.random.default_rng(2)
    counts = random.poisson(np.linspace(0.02, 0.4, 4000)[None, :, None], (30, 4000, 3))
    counts[:, :, 1] *= 2
    rate = xr.DataArray(
        counts * 100.0, dims=("repeat", "time", "cell"), coords={"cell": ["a", "b", "c"]}
    )
    found = count_variability(rate, 0.5, 100.0)
    np.testing.assert_allclose(found, [1.0, 2.0, 1.0], rtol=0.12)  # 80 blocks of 30 repeats
    blocks = counts[:, :, 0].reshape(30, 80, 50).sum(axis=2)
    expected = blocks.var(axis=0, ddof=1).mean() / blocks.mean()
    assert found.sel(cell="a") == pytest.approx(expected)


def test_missing_bins_and_silent_cells_stay_missing():
    random = np.random.default_rng(3)
    values = random.poisson(0.3, (4, 200, 2)) * 100.0
    values[:, :, 1] = 0
    whole = xr.DataArray(values, dims=("repeat", "time", "cell"))
    holes = whole.copy()
    holes[3, 100:, 0] = np.nan
    found = count_variability(holes, 1.0, 100.0)
    assert np.isnan(found[1])
    counts = values[:, :, 0].reshape(4, 2, 100).sum(axis=2) / 100
    variances = counts[:, 0].var(ddof=1) + counts[:3, 1].var(ddof=1)
    assert found[0] == pytest.approx(variances / (counts[:, 0].mean() + counts[:3, 1].mean()))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: detectability(-1.0, 2.0, 1.0), "at least 0 Hz"),
        (lambda: detectability(1.0, 2.0, 0.0), "above 0"),
        (lambda: detectability(1.0, 2.0, 1.0, 0.0), "variability"),
        (lambda: repeats_needed(1.0, power=1.0), "power"),
        (lambda: repeats_needed(1.0, significance=0.0), "significance"),
    ],
)
def test_impossible_numbers_are_refused(call, words):
    with pytest.raises(RetinaCodecError, match=words):
        call()


def test_one_repeat_has_no_variability():
    rate = xr.DataArray(np.ones((1, 200, 1)), dims=("repeat", "time", "cell"))
    with pytest.raises(RetinaCodecError, match="two repeats"):
        count_variability(rate, 1.0, 100.0)
