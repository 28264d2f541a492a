"""Reliability, noise ceiling and explainable variance of responses to a repeated movie.

Notation, per cell: y (repeat, time) rates, NaN where missing; R repeats with at least two bins;
n (time) how many of them a bin has, m (time) their mean over the bins with n > 0;
N = mean over r < s of var_t(y_r - y_s) / 2, over the bins that both have (noise power);
S = var_t(m) - N mean_t(1 / n) (signal power).
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.errors import RetinaCodecError

__all__ = ["noise_ceiling", "reliability", "signal_variance_fraction"]

Floats = npt.NDArray[np.float64]
DEFINED = 0.5  # share of the splits that must have a correlation
ROUNDING = 1e-12  # of the sum of squares: smaller variances count as 0


def noise_ceiling(repeats: xr.DataArray) -> xr.DataArray:
    """Highest correlation with the mean over repeats that any prediction can have.

    ``ceiling = sqrt(S / var_t(m))`` with the signal power ``S = var_t(m) - N mean_t(1 / n)`` and
    the noise power N, see the module's head: the correlation of the noise-free rate with the mean
    of n noisy repeats. With whole repeats ``S = (R var_t(m) - mean_r var_t(y_r)) / (R - 1)``.

    Parameters
    ----------
    repeats : xr.DataArray, dims (repeat, time, cell)
        Rates, any unit; NaN where missing.

    Returns
    -------
    xr.DataArray, dims (cell)
        In [0, 1]; NaN with fewer than two repeats or a silent cell. A cell without measurable
        signal power (S <= 0) has 0.

    Notes
    -----
    m is the mean over the repeats that a bin has, as in ``/test`` of a recording, so a bin with few
    repeats is a noisy one.

    References
    ----------
    Sahani and Linden 2003, NIPS 15; Schoppe et al. 2016, Front. Comput. Neurosci. 10:10
    (CC_max).
    """

    def ceiling(rates: Floats) -> float:
        signal, _, whole = _powers(rates)
        return float(np.sqrt(np.clip(signal / whole, 0.0, 1.0))) if whole > 0 else np.nan

    return _per_cell(repeats, ceiling, "noise ceiling of Pearson r")


def signal_variance_fraction(repeats: xr.DataArray) -> xr.DataArray:
    """Share of the variance of a single presentation that the stimulus explains.

    ``fraction = S / (S + N)``, signal power over signal and noise power of one presentation: the
    explainable variance that a fraction of explainable variance explained (FEVE) refers to.

    Parameters
    ----------
    repeats : xr.DataArray, dims (repeat, time, cell)
        Rates, any unit; NaN where missing.

    Returns
    -------
    xr.DataArray, dims (cell)
        At most 1; NaN with fewer than two repeats or a silent cell. Not clipped: without signal it
        scatters around 0, also below.

    References
    ----------
    Sahani and Linden 2003, NIPS 15; Cadena et al. 2019, PLoS Comput. Biol. 15:e1006897 (FEVE).
    """

    def fraction(rates: Floats) -> float:
        signal, noise, whole = _powers(rates)
        return signal / (signal + noise) if whole > 0 and signal + noise > 0 else np.nan

    return _per_cell(repeats, fraction, "explainable share of the variance")


def reliability(repeats: xr.DataArray, *, splits: int = 100, seed: int = 0) -> xr.Dataset:
    """Correlation of the mean over repeats with the mean over another such set of repeats.

    The repeats are split into halves of h = R // 2 repeats, every way there is, or ``splits`` ways
    drawn by ``seed`` where there are more. r is the mean over the splits of the correlation between
    the means of the two halves. Spearman and Brown's formula carries it from h to all R repeats:
    ``reliability = k r / (1 + (k - 1) r)`` with ``k = R / h``.

    Parameters
    ----------
    repeats : xr.DataArray, dims (repeat, time, cell)
        Rates, any unit; NaN where missing.
    splits : int
        Most splits per cell.
    seed : int
        Of the splits.

    Returns
    -------
    xr.Dataset, dims (cell)
        ``reliability``, at most 1, and ``reliability_error``, its standard error by the jackknife
        over repeats: ``sqrt((R - 1) / R Σ_i (x_i - mean x)²)``, x_i without repeat i, carried to R.
        NaN with fewer than two repeats (three for the error), and where more than half of the
        splits have a half without variance: such a cell has too few spikes.

    Raises
    ------
    RetinaCodecError
        Wrong dims, or fewer than one split.

    Notes
    -----
    A negative r is left as it is; the formula has no meaning there. The square of the noise ceiling
    estimates the same quantity for a whole set of repeats.

    References
    ----------
    Spearman 1910 and Brown 1910, Brit. J. Psychol. 3:271 and 3:296; Efron and Tibshirani 1993, An
    Introduction to the Bootstrap, chapter 11 (jackknife).
    """
    if splits < 1:
        raise RetinaCodecError(
            f"reliability needs at least one split of the repeats; got {splits=}"
        )
    rows = [_reliability(rates, splits, seed) for rates in _cells(repeats)]
    names = {
        "reliability": "correlation of two sets of repeats (split halves, Spearman-Brown)",
        "reliability_error": "standard error of reliability (jackknife over repeats)",
    }
    values = np.array(rows, dtype=np.float64).reshape(-1, 2)
    return xr.Dataset(
        {
            name: _labelled(repeats, values[:, i], words)
            for i, (name, words) in enumerate(names.items())
        }
    )


def _reliability(rates: Floats, splits: int, seed: int) -> tuple[float, float]:
    """Reliability of one cell and its standard error; rates (repeat, time)."""
    count = len(rates)
    if count < 2:
        return np.nan, np.nan
    moments = _Moments.of(rates)
    value = _split_half(moments, count, splits, seed)
    if count < 3:
        return value, np.nan
    without = [_split_half(moments.without(i), count, splits, seed) for i in range(count)]
    spread = np.square(np.array(without) - np.mean(without)).sum()
    return value, float(np.sqrt((count - 1) / count * spread))


def _split_half(moments: "_Moments", target: int, splits: int, seed: int) -> float:
    """Mean correlation between halves, carried to ``target`` repeats."""
    count = moments.varies.size
    half = count // 2
    shared, power = moments.of_halves(*_halves(count, splits, seed))
    defined = power > 0  # not where a half is constant, or shares no bins with the other
    if defined.mean() < DEFINED:
        return np.nan
    correlation = float(np.mean(shared[defined] / np.sqrt(power[defined])))
    if correlation <= 0:
        return correlation
    longer = target / half
    return longer * correlation / (1 + (longer - 1) * correlation)


@dataclass(frozen=True)
class _Moments:
    """Sums over the bins that the same repeats have: the mean of any half follows from them.

    There are as many groups of bins as patterns of missing repeats, one where nothing is missing.
    """

    seen: Floats  # (group, repeat), 1 or 0
    number: Floats  # (group) bins
    total: Floats  # (group, repeat) sum of rates
    product: Floats  # (group, repeat, repeat) sum of products of rates
    varies: npt.NDArray[np.bool_]  # (repeat)

    @classmethod
    def of(cls, rates: Floats) -> "_Moments":
        centred = rates - np.nanmean(rates)  # the same for all repeats: correlations do not change
        patterns, group = np.ones((len(rates), 1), dtype=bool), np.zeros(rates.shape[1], dtype=int)
        if not np.isfinite(rates).all():
            patterns, group = np.unique(np.isfinite(rates), axis=1, return_inverse=True)
        filled = np.where(np.isfinite(rates), centred, 0.0)
        parts = [filled[:, group == number] for number in range(patterns.shape[1])]
        return cls(
            seen=patterns.T.astype(np.float64),
            number=np.array([part.shape[1] for part in parts], dtype=np.float64),
            total=np.array([part.sum(axis=1) for part in parts]),
            product=np.array([part @ part.T for part in parts]),
            varies=np.nanmax(rates, axis=1) > np.nanmin(rates, axis=1),
        )

    def without(self, repeat: int) -> "_Moments":
        """Leave one repeat out."""
        kept = np.arange(self.varies.size) != repeat
        return _Moments(
            self.seen[:, kept],
            self.number,
            self.total[:, kept],
            self.product[:, kept][:, :, kept],
            self.varies[kept],
        )

    def of_halves(self, first: Floats, second: Floats) -> tuple[Floats, Floats]:
        """Covariance of the means of two halves, and product of their variances; (split) each."""
        counts = [self.seen @ part.T for part in (first, second)]  # (group, split)
        both = (counts[0] > 0) & (counts[1] > 0)
        bins = np.maximum(self.number @ both, 1.0)
        weights, means = [], []
        for part, count in zip((first, second), counts, strict=True):
            share = both / np.maximum(count, 1.0)
            weight = share[:, :, None] * part * self.seen[:, None, :]  # (group, split, repeat)
            weights.append(weight)
            means.append(np.einsum("gnr,gr->n", weight, self.total) / bins)
        rotated = [weight @ self.product for weight in weights]
        shared = (rotated[0] * weights[1]).sum(axis=(0, 2)) - bins * means[0] * means[1]
        power = np.ones(bins.size)
        for part, weight, turned, mean in zip(
            (first, second), weights, rotated, means, strict=True
        ):
            raw = (turned * weight).sum(axis=(0, 2))
            own = raw - bins * mean**2
            constant = (part @ self.varies == 0) | (own <= ROUNDING * raw)
            power = power * np.where(constant, 0.0, own)
        return shared, power


@cache
def _halves(count: int, splits: int, seed: int) -> tuple[Floats, Floats]:
    """Pairs of disjoint halves as rows of 0 and 1, (split, repeat) each."""
    half = count // 2
    ways = math.comb(count, half) * math.comb(count - half, half) // 2
    if ways <= splits:
        every = [
            (one, other)
            for one in itertools.combinations(range(count), half)
            for other in itertools.combinations(sorted(set(range(count)) - set(one)), half)
            if one < other
        ]
    else:
        random = np.random.default_rng(seed)
        orders = [random.permutation(count) for _ in range(splits)]
        every = [(tuple(order[:half]), tuple(order[half : 2 * half])) for order in orders]
    rows = np.zeros((2, len(every), count))
    for number, pair in enumerate(every):
        for side in (0, 1):
            rows[side, number, list(pair[side])] = 1.0
    return rows[0], rows[1]


def _powers(rates: Floats) -> tuple[float, float, float]:
    """Signal power, noise power, and variance of the mean over repeats; rates (repeat, time)."""
    shown = np.isfinite(rates).sum(axis=0)
    seen = shown[shown > 0]
    mean = np.nansum(rates, axis=0)[shown > 0] / seen
    if len(rates) < 2 or np.ptp(mean) == 0:
        return np.nan, np.nan, np.nan
    noises = []
    for one, other in itertools.combinations(rates, 2):
        difference = one - other
        difference = difference[np.isfinite(difference)]
        if difference.size > 1:
            noises.append(difference.var(ddof=1) / 2)
    noise = float(np.mean(noises)) if noises else np.nan
    whole = float(mean.var(ddof=1))
    return whole - noise * float(np.mean(1 / seen)), noise, whole


def _cells(repeats: xr.DataArray) -> list[Floats]:
    """Rates of every cell, (repeat, time), repeats with fewer than two bins left out."""
    expected = {"repeat", "time", "cell"}
    if set(repeats.dims) != expected:
        raise RetinaCodecError(
            f"repeats must have the dims repeat, time and cell; got {tuple(repeats.dims)}"
        )
    values = repeats.transpose("cell", "repeat", "time").to_numpy()
    usable = np.isfinite(values).sum(axis=2) >= 2
    return [rates[kept].astype(np.float64) for rates, kept in zip(values, usable, strict=True)]


def _per_cell(repeats: xr.DataArray, measure: Callable[[Floats], float], name: str) -> xr.DataArray:
    values = np.array([measure(rates) for rates in _cells(repeats)], dtype=np.float64)
    return _labelled(repeats, values, name)


def _labelled(repeats: xr.DataArray, values: Floats, name: str) -> xr.DataArray:
    """Return values along cell, with the coordinates of the cells."""
    labels = {key: v for key, v in repeats.coords.items() if v.dims == ("cell",)}
    attrs = {"units": "1", "long_name": name}
    return xr.DataArray(values, dims="cell", coords=labels, attrs=attrs)
