"""How much of a response comes back when the same movie is shown again.

Everything here follows from one matrix per cell, the covariance between repeats: what two repeats
share is signal, the rest is noise. A missing bin is left out pair by pair, so that a presentation
that was cut short still counts where it was shown. No threshold stands here; see quality.py.

Notation, per cell: y (repeat, time) rates, NaN where missing; R repeats with at least two bins;
C[r, s] the covariance over time of y[r] and y[s] over the bins that both have; S the mean of C over
r ≠ s (signal power); P the mean of C[r, r] (total power); m (time) the mean over repeats.
"""

import itertools
import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.errors import RetinaCodecError

__all__ = ["noise_ceiling", "reliability", "signal_variance_fraction"]

Floats = npt.NDArray[np.float64]
DEFINED = 0.5  # share of the splits that must have a correlation


def noise_ceiling(repeats: xr.DataArray) -> xr.DataArray:
    """Highest correlation with the mean over repeats that any prediction can have.

    ``ceiling = sqrt(S / var_t(m))`` with the signal power S: the correlation of the noise-free rate
    with the mean of R noisy repeats. Without missing bins
    ``S = (R var_t(m) - mean_r var_t(y_r)) / (R - 1)``.

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
        shown = np.isfinite(rates).sum(axis=0)
        mean = np.nansum(rates, axis=0)[shown > 0] / shown[shown > 0]
        if len(rates) < 2 or np.ptp(mean) == 0:
            return np.nan
        ratio = _signal_power(_covariance(rates)) / mean.var(ddof=1)
        return float(np.sqrt(np.clip(ratio, 0.0, 1.0)))

    return _per_cell(repeats, ceiling, "noise ceiling of Pearson r")


def signal_variance_fraction(repeats: xr.DataArray) -> xr.DataArray:
    """Share of the variance of a single presentation that the stimulus explains.

    ``fraction = S / P``, signal power over total power: the explainable variance ratio that a
    fraction of explainable variance explained (FEVE) is normalised by.

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
        if len(rates) < 2 or np.nanmax(rates) == np.nanmin(rates):
            return np.nan
        covariance = _covariance(rates)
        return float(_signal_power(covariance) / covariance.diagonal().mean())

    return _per_cell(repeats, fraction, "explainable share of the variance")


def reliability(repeats: xr.DataArray, *, splits: int = 100, seed: int = 0) -> xr.Dataset:
    """Correlation of the mean over repeats with what another such set of repeats would give.

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
        Wrong dims, or no split asked for.

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
    covariance = _covariance(rates)
    value = _split_half(covariance, count, splits, seed)
    if count < 3:
        return value, np.nan
    without = [
        _split_half(np.delete(np.delete(covariance, i, 0), i, 1), count, splits, seed)
        for i in range(count)
    ]
    spread = np.square(np.array(without) - np.mean(without)).sum()
    return value, float(np.sqrt((count - 1) / count * spread))


def _split_half(covariance: Floats, target: int, splits: int, seed: int) -> float:
    """Mean correlation between halves, carried to ``target`` repeats."""
    half = len(covariance) // 2
    first, second = _halves(len(covariance), splits, seed)  # (split, repeat) of 0 and 1
    shared = np.einsum("nr,rs,ns->n", first, covariance, second)
    own = [np.einsum("nr,rs,ns->n", part, covariance, part) for part in (first, second)]
    power = own[0] * own[1]
    defined = (own[0] > 0) & (own[1] > 0) & np.isfinite(shared * power)
    if defined.mean() < DEFINED:
        return np.nan
    correlation = float(np.mean(shared[defined] / np.sqrt(power[defined])))
    if correlation <= 0:
        return correlation
    longer = target / half
    return longer * correlation / (1 + (longer - 1) * correlation)


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


def _covariance(rates: Floats) -> Floats:
    """Covariance over time between repeats, pair by pair over the bins that both have."""
    seen = np.isfinite(rates).astype(np.float64)  # (repeat, time)
    means = np.nansum(rates, axis=1) / seen.sum(axis=1)
    centred = np.where(seen > 0, rates - means[:, None], 0.0)
    common = seen @ seen.T
    total = centred @ seen.T  # sum of r over the bins shared with s
    with np.errstate(invalid="ignore", divide="ignore"):
        covariance: Floats = (centred @ centred.T - total * total.T / common) / (common - 1)
    constant = np.nanmax(rates, axis=1) == np.nanmin(rates, axis=1)  # exactly, not but for rounding
    covariance[constant] = covariance[:, constant] = 0.0
    covariance[common < 2] = np.nan
    return covariance


def _signal_power(covariance: Floats) -> float:
    """Mean covariance of two different repeats; NaN without a pair that shares bins."""
    pairs = covariance[~np.eye(len(covariance), dtype=bool)]
    known = pairs[np.isfinite(pairs)]
    return float(known.mean()) if known.size else np.nan


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
    """Along cell, with what is known about the cells."""
    labels = {key: v for key, v in repeats.coords.items() if v.dims == ("cell",)}
    attrs = {"units": "1", "long_name": name}
    return xr.DataArray(values, dims="cell", coords=labels, attrs=attrs)
