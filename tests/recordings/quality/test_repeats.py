"""Reliability and ceilings: closed forms, a slow second implementation, analysis of variance."""

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from retina_codec.errors import RetinaCodecError
from retina_codec.recordings.quality.repeats import (
    noise_ceiling,
    reliability,
    signal_variance_fraction,
)
from tests.reference.quality import holed_powers, jackknife_error, split_half, whole_powers


def labelled(values):
    """Rates (repeat, time, cell) with names of cells and one type."""
    coords = {"cell": np.arange(values.shape[2]) + 5, "type": ("cell", ["x"] * values.shape[2])}
    return xr.DataArray(values, dims=("repeat", "time", "cell"), coords=coords)


def poisson(rate, repeats, seed):
    """Counts around a rate (time, cell)."""
    random = np.random.default_rng(seed)
    return labelled(random.poisson(rate, (repeats, *rate.shape)).astype(float))


def test_poisson_counts_have_the_known_shares_of_signal():
    # S = var(rate), noise variance = mean(rate): everything follows in closed form.
    random = np.random.default_rng(0)
    rate = random.gamma(2.0, 0.5, (40_000, 2)) * [0.3, 3.0]
    signal, noise = rate.var(axis=0), rate.mean(axis=0)
    repeats = poisson(rate, 6, 1)
    # errors of a correlation over n bins are about 1/sqrt(n) = 0.005
    np.testing.assert_allclose(
        signal_variance_fraction(repeats), signal / (signal + noise), atol=0.015
    )
    whole = signal / (signal + noise / 6)
    np.testing.assert_allclose(noise_ceiling(repeats), np.sqrt(whole), atol=0.015)
    np.testing.assert_allclose(reliability(repeats)["reliability"], whole, atol=0.015)


@pytest.mark.parametrize("count", [4, 5, 6])
def test_whole_repeats_agree_with_the_slow_implementation(count):
    random = np.random.default_rng(count)
    repeats = poisson(np.exp(random.normal(size=(150, 3))), count, count)
    found = reliability(repeats)
    for cell in range(3):
        rates = repeats.values[:, :, cell]
        signal, total = whole_powers(rates)
        assert float(signal_variance_fraction(repeats)[cell]) == pytest.approx(signal / total)
        ceiling = np.sqrt(signal / rates.mean(axis=0).var(ddof=1))
        assert float(noise_ceiling(repeats)[cell]) == pytest.approx(ceiling)
        assert float(found["reliability"][cell]) == pytest.approx(split_half(rates, count))
        assert float(found["reliability_error"][cell]) == pytest.approx(jackknife_error(rates))
    assert found["cell"].values.tolist() == [5, 6, 7]
    assert found["type"].values.tolist() == ["x"] * 3


def test_two_repeats_are_one_pair_of_halves():
    random = np.random.default_rng(8)
    repeats = poisson(np.exp(random.normal(size=(300, 1))), 2, 3)
    r = stats.pearsonr(repeats.values[0, :, 0], repeats.values[1, :, 0]).statistic
    found = reliability(repeats)
    assert float(found["reliability"][0]) == pytest.approx(2 * r / (1 + r))
    assert np.isnan(found["reliability_error"][0])


def test_ceiling_and_fraction_are_those_of_an_analysis_of_variance():
    # Two-way layout, bins × repeats: ICC(C, k) = ceiling², ICC(C, 1) = fraction (McGraw and Wong).
    random = np.random.default_rng(4)
    repeats = poisson(np.exp(random.normal(size=(200, 1))), 5, 5)
    rates = repeats.values[:, :, 0] - repeats.values[:, :, 0].mean(axis=1, keepdims=True)
    f = stats.f_oneway(*rates.T).statistic * 199 / 200  # freedom of the five means
    assert float(noise_ceiling(repeats)[0]) ** 2 == pytest.approx(1 - 1 / f)
    assert float(signal_variance_fraction(repeats)[0]) == pytest.approx((f - 1) / (f + 4))


def test_noise_has_no_reliability_and_equal_repeats_all_of_it():
    noise = poisson(np.full((5000, 2), 2.0), 10, 2)
    # an estimate of 0 over 5000 bins: standard error of a covariance 1/sqrt(5000 · 45) of P
    assert (np.abs(signal_variance_fraction(noise)) < 5 / np.sqrt(5000 * 45)).all()
    assert (np.abs(reliability(noise)["reliability"]) < 0.15).all()
    assert (noise_ceiling(noise) < 0.2).all()
    same = xr.concat([noise.isel(repeat=0)] * 3, "repeat")
    np.testing.assert_allclose(noise_ceiling(same), 1.0)
    np.testing.assert_allclose(signal_variance_fraction(same), 1.0)
    np.testing.assert_allclose(reliability(same)["reliability"], 1.0)
    np.testing.assert_allclose(reliability(same)["reliability_error"], 0.0, atol=1e-12)


def test_shifted_repeats_are_below_zero_and_stay_so():
    wave = np.sin(np.arange(400) * np.pi / 10)
    repeats = labelled(np.stack([wave, -wave])[:, :, None])
    assert float(reliability(repeats)["reliability"][0]) == pytest.approx(-1)
    assert float(noise_ceiling(labelled(np.stack([wave, -0.9 * wave])[:, :, None]))[0]) == 0


def test_missing_bins_are_left_out_of_their_repeat_only():
    random = np.random.default_rng(3)
    repeats = poisson(np.exp(random.normal(size=(400, 2))), 5, 6)
    holed = repeats.copy(deep=True)
    holed[1, 7, 0] = np.nan
    holed[2, 250:, 0] = np.nan  # cut short
    holed[4, :, 0] = np.nan  # never shown
    rates = holed.values[:4, :, 0]
    signal, noise = holed_powers(rates)
    assert float(signal_variance_fraction(holed)[0]) == pytest.approx(signal / (signal + noise))
    ceiling = np.sqrt(signal / np.nanmean(rates, axis=0).var(ddof=1))
    assert ceiling < 1
    assert float(noise_ceiling(holed)[0]) == pytest.approx(ceiling)
    found = reliability(holed)
    assert float(found["reliability"][0]) == pytest.approx(split_half(rates, 4))
    assert float(found["reliability_error"][0]) == pytest.approx(jackknife_error(rates))
    for measure in (noise_ceiling, signal_variance_fraction):  # the other cell is whole
        assert float(measure(holed)[1]) == float(measure(repeats)[1])
    holed[1:, :, 0] = np.nan
    for measure in (noise_ceiling, signal_variance_fraction):
        assert np.isnan(measure(holed)[0])
    assert np.isnan(reliability(holed)["reliability"][0])


def test_ceiling_with_unequal_counts_is_the_correlation_with_the_true_rate():
    random = np.random.default_rng(7)
    rate = np.exp(random.normal(size=(20_000, 1)))
    repeats = poisson(rate, 8, 7)
    for number in range(2, 8):  # ever fewer repeats: 8 at the start, 2 at the end
        repeats[number, 20_000 - 2_500 * (number - 1) :] = np.nan
    mean = repeats.mean("repeat").values[:, 0]
    reached = np.corrcoef(rate[:, 0], mean)[0, 1]
    assert float(noise_ceiling(repeats)[0]) == pytest.approx(reached, abs=0.01)
    assert float(reliability(repeats)["reliability"][0]) == pytest.approx(reached**2, abs=0.05)


def test_repeats_that_share_no_bins_say_nothing():
    values = np.random.default_rng(0).poisson(2.0, (2, 100, 1)).astype(float)
    values[0, :50] = np.nan
    values[1, 50:] = np.nan
    repeats = labelled(values)
    assert np.isnan(noise_ceiling(repeats)[0])
    assert np.isnan(signal_variance_fraction(repeats)[0])
    assert np.isnan(reliability(repeats)["reliability"][0])


def test_silent_cells_and_single_spikes_have_no_reliability():
    values = np.zeros((4, 50, 2))
    values[2, 9, 1] = 1.0
    repeats = labelled(values)
    assert np.isnan(reliability(repeats)["reliability"]).all()
    assert np.isnan(noise_ceiling(repeats)[0])
    assert float(noise_ceiling(repeats)[1]) == 0


def test_many_repeats_are_split_by_chance_with_a_seed():
    random = np.random.default_rng(12)
    repeats = poisson(np.exp(random.normal(size=(300, 2))), 12, 12)
    once, again = (reliability(repeats, splits=40, seed=3) for _ in range(2))
    xr.testing.assert_identical(once, again)
    other = reliability(repeats, splits=40, seed=4)
    every = reliability(repeats, splits=10_000)  # all 462 of them
    assert (once["reliability"] != other["reliability"]).all()
    np.testing.assert_allclose(once["reliability"], every["reliability"], atol=0.01)


def test_error_is_the_scatter_over_recordings():
    random = np.random.default_rng(20)
    rate = np.exp(random.normal(size=(400, 1))) * 0.5
    found = [reliability(poisson(rate, 8, seed)) for seed in range(60)]
    scatter = np.std([float(x["reliability"][0]) for x in found], ddof=1)
    errors = np.mean([float(x["reliability_error"][0]) for x in found])
    # a standard deviation from 60 draws is known to 1/sqrt(120) = 9 %; the jackknife errs upwards
    assert 0.75 < errors / scatter < 1.6


def test_inputs_stay_and_wrong_dims_are_refused():
    repeats = poisson(np.ones((20, 1)), 3, 0)
    before = repeats.copy(deep=True)
    reliability(repeats)
    noise_ceiling(repeats)
    xr.testing.assert_identical(repeats, before)
    for measure in (reliability, noise_ceiling, signal_variance_fraction):
        with pytest.raises(RetinaCodecError, match="repeat, time and cell"):
            measure(repeats.isel(cell=0))
    with pytest.raises(RetinaCodecError, match="at least one split"):
        reliability(repeats, splits=0)


def repeats_of(rate, count, random):
    return xr.DataArray(
        random.poisson(rate, (count, *rate.shape)).astype(float),
        dims=("repeat", "time", "cell"),
        coords={"cell": [5, 6]},
    )


def test_ceiling_is_the_correlation_of_the_true_rate_with_the_mean():
    random = np.random.default_rng(1)
    rate = np.exp(random.normal(0, 1, (20_000, 2))) * [0.5, 3.0]
    repeats = repeats_of(rate, 8, random)
    ceiling = noise_ceiling(repeats)
    mean = repeats.mean("repeat").values
    reached = [np.corrcoef(rate[:, i], mean[:, i])[0, 1] for i in (0, 1)]
    np.testing.assert_allclose(ceiling, reached, atol=0.01)
    assert ceiling["cell"].values.tolist() == [5, 6]


def test_ceiling_without_signal_is_near_zero_and_with_equal_repeats_one():
    random = np.random.default_rng(2)
    noise = repeats_of(np.full((5000, 2), 2.0), 10, random)
    assert (noise_ceiling(noise) < 0.2).all()
    same = xr.concat([noise.isel(repeat=0)] * 3, "repeat")
    np.testing.assert_allclose(noise_ceiling(same), 1.0)


@pytest.mark.parametrize("constant", [0.1, 1 / 3])
def test_constant_rates_have_no_ceiling_though_their_mean_is_rounded(constant):
    assert np.isnan(noise_ceiling(labelled(np.full((4, 1000, 1), constant)))).all()
