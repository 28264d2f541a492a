"""Repeats that an experiment needs to detect a change of mean spike counts."""

from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.errors import RetinaCodecError

__all__ = ["count_variability", "detectability", "repeats_needed"]

Floats = npt.NDArray[np.floating]


def detectability(
    before: npt.ArrayLike, after: npt.ArrayLike, duration: float, variability: npt.ArrayLike = 1.0
) -> Floats:
    """Squared expected z-score of one repeat with and one without the change.

    ``d² = (λ₁ − λ₀)² T / (F (λ₀ + λ₁))``: the squared difference of the mean counts λT over the sum
    of their variances FλT; λ₀, λ₁ (before, after) in Hz, T (duration) in s, F (variability) the
    variance over mean of the count, 1 for Poisson spikes. Without unit; 0 where nothing changes and
    where both rates are 0; NaN stays NaN.
    """
    low, high = np.asarray(before, np.float64), np.asarray(after, np.float64)
    factor = np.asarray(variability, np.float64)
    if (low < 0).any() or (high < 0).any() or not duration > 0 or (factor <= 0).any():
        raise RetinaCodecError(
            "rates must be at least 0 Hz, duration and variability above 0; got smallest rate "
            f"{min(low.min(initial=0), high.min(initial=0)):g} Hz, {duration=} s, smallest "
            f"variability {factor.min(initial=1):g}."
        )
    total = factor * (low + high)
    change = (high - low) ** 2 * duration
    return np.where(total == 0, 0.0, change / np.where(total == 0, 1.0, total))


def repeats_needed(
    squared: npt.ArrayLike, *, power: float = 0.8, significance: float = 0.05
) -> Floats:
    """Repeats of each condition, for a two-sided test of the difference of mean counts.

    ``N = ⌈(z(1 − α/2) + z(power))² / d²⌉``, with d² from `detectability` and α the significance;
    infinity where d² is 0. For several cells recorded together, pass the sum of their d²: the best
    weighted sum of their counts, weights (λ₁ − λ₀) / (F (λ₀ + λ₁)), has that d² if the cells vary
    independently. Any textbook of sample sizes, such as Cohen 1988, chapter 2; the normal form
    holds for expected counts of some ten or more over all repeats.
    """
    from scipy.stats import norm

    for name, value in (("power", power), ("significance", significance)):
        if not 0 < value < 1:
            raise RetinaCodecError(f"{name} must lie between 0 and 1; got {value}.")
    wanted = (norm.ppf(1 - significance / 2) + norm.ppf(power)) ** 2
    values = np.asarray(squared, np.float64)
    with np.errstate(divide="ignore"):
        return np.asarray(np.ceil(wanted / values))


def count_variability(repeats: xr.DataArray, block: float, frame_rate: float) -> xr.DataArray:
    """Variance over mean of counts in blocks of time, across repeats (repeat, time, cell) in Hz.

    ``F = mean over blocks of Var(count) / mean over blocks of mean(count)``, with the unbiased
    variance across repeats; block in s. Blocks without spikes count, blocks with a missing bin
    (NaN) do not. Dims (cell), without unit; 1 for Poisson spikes; NaN for a cell without spikes or
    whole blocks.
    """
    values = repeats.transpose("repeat", "time", "cell").to_numpy()
    size = max(1, round(block * frame_rate))
    count = values.shape[1] // size
    if values.shape[0] < 2 or count < 1:
        raise RetinaCodecError(
            f"variability needs two repeats of at least one block; got {values.shape[0]} repeats, "
            f"{values.shape[1] / frame_rate:g} s and {block=} s."
        )
    whole = values[:, : count * size].reshape(len(values), count, size, -1)
    counts = whole.sum(axis=2) / frame_rate  # (repeat, block, cell)
    found = [_ratio(counts[:, :, cell]) for cell in range(counts.shape[2])]
    labels: dict[Any, Any] = {k: v for k, v in repeats.coords.items() if v.dims == ("cell",)}
    attrs = {"units": "1", "long_name": "variance over mean of the count"}
    return xr.DataArray(found, dims="cell", coords=labels, attrs=attrs)


def _ratio(counts: Floats) -> float:
    """One cell, (repeat, block)."""
    seen = np.isfinite(counts)
    usable = seen.sum(axis=0) >= 2
    pairs = [
        (column[kept].var(ddof=1), column[kept].mean())
        for column, kept in zip(counts.T[usable], seen.T[usable], strict=True)
    ]
    total = sum(mean for _, mean in pairs)
    return float(sum(variance for variance, _ in pairs) / total) if total > 0 else float("nan")
