"""Correlate many features with many concepts, with p-values from permuted samples.

Features are read in chunks; concepts enter through sums over their members.

Notation: n samples, F features z, C concepts with m members each, P permutations of the samples.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Correlated", "correlate", "resample_pairs", "tail"]

Floats = npt.NDArray[np.float64]
Chunks = Callable[[], Iterator[tuple[slice, Floats]]]

BYTES = 2**29  # of the sums of permutations that are gathered in one pass
CALIBRATED = 2 * 10**7  # pairs under the null that p-values are counted from
SMALL_SKEW = 1e-4  # below, the tail is normal


@dataclass
class Correlated:
    """Correlations, their p-values, and summaries of permutations.

    Rows of features that do not vary and columns of concepts without, or with all, samples are NaN.
    """

    correlation: Floats  # (F, C)
    p_value: Floats  # (F, C)
    feature_p: Floats  # (F,), of the most surprising concept of each feature
    feature_null: Floats  # (P, F), p of the same with shuffled labels
    null: dict[str, list[Any]] = field(default_factory=dict)  # one entry per permutation


def correlate(
    chunks: Chunks,
    table: npt.NDArray[np.bool_],
    permutations: int,
    seed: int,
    summarise: Callable[[Floats], dict[str, Any]],
) -> Correlated:
    """Correlate every feature with every concept, with p from permuted samples.

    ``r = Σ_members (z − z̄) / √(Σ (z − z̄)² · m (n − m) / n)``. Each r is turned into the tail of
    the Pearson III law with the exact mean, variance and skewness that r has over all permutations
    (see `tail`); p is the share of tails, pooled over pairs and permutations, that are as small:
    ``p = (1 + #{null tail ≤ tail}) / (1 + F C P)``. One-sided: r larger than by chance. The
    smallest tail of a feature over concepts is compared in the same way with smallest tails.

    ``chunks`` gives (slice, values (sample, F)) from the beginning at each call; ``table`` (n, C)
    is the membership; fewer permutations are used for p where they make more than 2 × 10⁷ pairs;
    ``summarise`` says what to keep of the r (F, C) of a permutation. Mielke, Berry 2007,
    Permutation Methods (Pearson III with exact moments). Tusher, Tibshirani, Chu 2001, PNAS 98:5116
    (pooling).
    """
    moments = _Moments.of(chunks, table)
    observed = moments.correlation(moments.sums)
    shape = observed.shape
    fine = np.isfinite(observed)
    tails = tail(observed, moments)
    order = np.argsort(tails[fine], kind="stable")
    ranked = tails[fine][order]
    counted = np.zeros(len(ranked) + 1, np.int64)
    used = max(1, min(permutations, CALIBRATED // max(1, int(fine.sum()))))
    kept: dict[str, list[Any]] = {}
    smallest: list[Floats] = []
    number = 0
    for sums in _permuted_sums(chunks, table, moments, permutations, seed):
        drawn = moments.correlation(sums)
        for key, value in summarise(drawn).items():
            kept.setdefault(key, []).append(value)
        if number < used:
            under = tail(drawn, moments)
            places = np.searchsorted(ranked * (1 + 1e-9), under[fine], side="left")
            counted += np.bincount(places, minlength=len(counted))
            smallest.append(_smallest(under, fine))
        number += 1
    p = np.full(shape, np.nan)
    values = np.empty(len(ranked))
    values[order] = (1 + np.cumsum(counted[:-1])) / (1 + used * max(1, len(ranked)))
    p[fine] = values
    known = fine.any(axis=1)
    null = np.stack(smallest)[:, known]  # (P, F)
    pool = np.sort(null.ravel())
    feature_p, feature_null = np.full(len(p), np.nan), np.full((used, len(p)), np.nan)
    feature_p[known] = _share_below(_smallest(tails, fine)[known], pool)
    feature_null[:, known] = _share_below(null, pool)
    return Correlated(observed, p, feature_p, feature_null, kept)


def _smallest(tails: Floats, fine: npt.NDArray[np.bool_]) -> Floats:
    """Return the tail of the most surprising concept of each feature."""
    return np.asarray(np.where(fine, tails, np.inf).min(axis=1, initial=np.inf))


def _share_below(tails: Floats, pool: Floats) -> Floats:
    """Return ``(1 + #{pool ≤ tail}) / (1 + number)``, pool in rising order."""
    reached = np.searchsorted(pool, tails * (1 + 1e-9), side="right")
    return np.asarray((1 + reached) / (1 + len(pool)))


@dataclass
class _Moments:
    """Sums over samples around a point near the mean."""

    n: int
    members: Floats  # (C,)
    around: Floats  # (F,), the point
    mean: Floats  # of z − around
    square: Floats  # Σ (z − z̄)²
    cube: Floats  # Σ (z − z̄)³
    varies: npt.NDArray[np.bool_]
    sums: Floats  # (F, C), Σ_members (z − around)

    @classmethod
    def of(cls, chunks: Chunks, table: npt.NDArray[np.bool_]) -> "_Moments":
        """Compute all sums in one pass over the samples."""
        around: Any = None
        first = second = third = sums = low = high = np.zeros(0)
        members = _sparse(table)
        for part, values in chunks():
            if around is None:
                around = values.mean(axis=0)
                first, second, third = (np.zeros(values.shape[1]) for _ in range(3))
                sums = np.zeros((table.shape[1], values.shape[1]))
                low, high = values.min(axis=0), values.max(axis=0)
            low, high = np.minimum(low, values.min(axis=0)), np.maximum(high, values.max(axis=0))
            z = values - around
            squared = z**2
            first, second = first + z.sum(axis=0), second + squared.sum(axis=0)
            third = third + (squared * z).sum(axis=0)
            sums += members[part].T @ z
        n = len(table)
        mean = first / n
        square = second - n * mean**2
        cube = third - 3 * mean * second + 2 * n * mean**3
        varies = (high > low) & (square > 0)
        count = table.sum(axis=0).astype(np.float64)
        return cls(n, count, around, mean, square, cube, varies, np.ascontiguousarray(sums.T))

    def correlation(self, sums: Floats) -> Floats:
        """Turn sums over members (F, C) into r."""
        part = self.members * (self.n - self.members) / self.n
        scale = np.sqrt(np.maximum(self.square, 0.0)[:, None] * part)
        fine = self.varies[:, None] & (part > 0)
        top = sums - self.mean[:, None] * self.members
        found: Floats = np.divide(
            top, scale, out=np.full(sums.shape, np.nan), where=fine & (scale > 0)
        )
        return found

    def skewness(self) -> Floats:
        """Return the skewness of r over all permutations, (F, C)."""
        n, m = self.n, self.members
        if n < 3:
            return np.zeros((len(self.square), len(m)))
        with np.errstate(divide="ignore", invalid="ignore"):
            variance = self.square[:, None] * (m * (n - m) / (n * (n - 1)))
            third = self.cube[:, None] * (m * (n - m) * (n - 2 * m) / (n * (n - 1) * (n - 2)))
            found: Floats = third / variance**1.5
        return found


def tail(correlation: Floats, moments: _Moments) -> Floats:
    """Return the upper tail of r (F, C) under the Pearson III law with mean 0, variance 1/(n − 1).

    With negative skewness the law has an upper end; the normal tail, which is heavier, is used.
    """
    from scipy.special import gammaincc, ndtr

    t = correlation * np.sqrt(moments.n - 1)
    skew = moments.skewness()
    found: Floats = ndtr(-t)
    heavy = np.isfinite(t) & (skew > SMALL_SKEW)
    g, x = skew[heavy], t[heavy]
    found[heavy] = gammaincc(4 / g**2, np.maximum((x + 2 / g) * 2 / g, 0.0))
    return found


def _permuted_sums(
    chunks: Chunks, table: npt.NDArray[np.bool_], moments: _Moments, permutations: int, seed: int
) -> Iterator[Floats]:
    """Yield sums over members (F, C) for each permutation of the samples; several per pass."""
    random = np.random.default_rng(seed)
    members = _sparse(table)
    features, concepts = moments.sums.shape
    together = max(1, min(permutations, BYTES // max(1, 8 * features * concepts)))
    for start in range(0, permutations, together):
        orders = [
            random.permutation(len(table)) for _ in range(min(together, permutations - start))
        ]
        sums = np.zeros((len(orders), concepts, features))
        for part, values in chunks():
            z = values - moments.around
            for number, order in enumerate(orders):
                sums[number] += members[order[part]].T @ z
        for one in sums:
            yield np.ascontiguousarray(one.T)


def resample_pairs(
    chunks: Chunks,
    table: npt.NDArray[np.bool_],
    features: npt.NDArray[np.intp],
    draws: int,
    seed: int,
) -> Floats:
    """Correlate one feature (C,) per concept over resampled samples: (draws, C).

    Every sample counts w times, w Poisson with mean 1, which is a bootstrap that needs no list of
    all samples (Hanley and MacGibbon 2006, Comput. Methods Programs Biomed. 83:57). NaN where
    feature or concept do not vary over what was drawn.
    """
    random = np.random.default_rng(seed)
    shape = (draws, len(features))
    total, member, first, second, both = (np.zeros(shape) for _ in range(5))
    around: Any = None
    for part, values in chunks():
        z = values[:, features]
        around = z.mean(axis=0) if around is None else around
        z, y = z - around, table[part].astype(np.float64)
        weight = random.poisson(1.0, (len(z), draws)).T.astype(np.float64)
        total += weight.sum(axis=1, keepdims=True)
        member += weight @ y
        first += weight @ z
        second += weight @ z**2
        both += weight @ (y * z)
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = (second - first**2 / total) * member * (total - member) / total
        top = both - first * member / total
        small = variance <= 1e-24 * np.maximum(second, 1e-300) * total
        found: Floats = np.where(small, np.nan, top / np.sqrt(np.maximum(variance, 0)))
    return found


def _sparse(table: npt.NDArray[np.bool_]) -> Any:
    """Return the table (n, C) with only its members stored."""
    from scipy.sparse import csr_array

    return csr_array(table.astype(np.float64))
