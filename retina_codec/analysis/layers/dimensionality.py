"""Count the directions in which class averages differ, with jackknife errors over classes.

Both numbers are bounded by the number of classes, so classes are left out, not resampled.

Notation: K classes, M (K, channel) class averages, λ eigenvalues of their covariance.
"""

from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
import numpy.typing as npt

__all__ = ["Dimensions", "components", "left_out", "measure", "spectrum"]

Floats = npt.NDArray[np.float64]

LEFT_OUT = 0.2  # share of the classes


@dataclass(frozen=True)
class Dimensions:
    """Components and participation ratio of all classes, and with some left out each time."""

    whole: Floats  # (2,)
    parts: Floats  # (draw, 2)
    scale: float  # variance over draws to variance of the estimate

    def error(self) -> Floats:
        """Return the standard error of both numbers, (2,)."""
        return jackknife_error(self.parts, self.scale)


def jackknife_error(parts: Floats, scale: float) -> Floats:
    """Return the delete-d jackknife standard error, ``√((K − d) / d · var over draws)``."""
    if len(parts) < 2:
        return np.full(parts.shape[1:], np.nan)
    return np.asarray(np.sqrt(scale * np.square(parts - parts.mean(axis=0)).mean(axis=0)))


def spectrum(means: Floats) -> Floats:
    """Return the eigenvalues of the covariance over classes, largest first, up to a factor."""
    centered = means - means.mean(axis=0)
    square = centered @ centered.T if len(means) <= means.shape[1] else centered.T @ centered
    return np.asarray(np.linalg.eigvalsh(square)[::-1].clip(min=0.0))


def components(values: Floats, variance: float) -> Floats:
    """Return how many λ reach a share of their sum, and ``(Σ λ)² / Σ λ²``; NaN if all are 0."""
    total = values.sum()
    if not total > 0:
        return np.full(2, np.nan)
    share = np.cumsum(values) / total
    count = int((share < variance - 1e-12).sum()) + 1
    return np.array([count, total**2 / np.square(values).sum()])


def left_out(classes: int, draws: int, seed: int) -> tuple[list[npt.NDArray[np.intp]], float]:
    """Draw sets of classes to keep, all but a fifth; every such set where there are few.

    Return them, none with fewer than five classes, and the scale (K − d) / d of the delete-d
    jackknife (Shao, Wu 1989, Ann. Statist. 17:1176).
    """
    out = max(1, round(LEFT_OUT * classes))
    if classes < 5:
        return [], np.nan
    every = np.arange(classes)
    if comb(classes, out) <= draws:
        some = [np.delete(every, one) for one in combinations(range(classes), out)]
    else:
        random = np.random.default_rng(seed)
        some = [np.sort(random.permutation(classes)[out:]) for _ in range(draws)]
    return some, (classes - out) / out


def measure(
    means: Floats, variance: float, kept: list[npt.NDArray[np.intp]], scale: float
) -> Dimensions:
    """Measure class averages (K, channel), whole and with classes left out."""
    whole = components(spectrum(means), variance)
    if len(means) <= means.shape[1]:  # products of pairs of classes serve for every part
        around = means - means.mean(axis=0)
        gram = around @ around.T
        spectra = [_centered_spectrum(gram[np.ix_(some, some)]) for some in kept]
    else:
        spectra = [spectrum(means[some]) for some in kept]
    parts = [components(values, variance) for values in spectra]
    return Dimensions(whole, np.array(parts).reshape(-1, 2), scale)


def _centered_spectrum(gram: Floats) -> Floats:
    """Return eigenvalues of products of classes after the mean over classes is subtracted."""
    row = gram.mean(axis=0)
    square = gram - row - row[:, None] + row.mean()
    return np.asarray(np.linalg.eigvalsh(square)[::-1].clip(min=0.0))
