"""Agreement of two decompositions of the same data, such as fits from different seeds.

Modes and loadings are matched one to one; one without a partner counts as 0.

Notation: A, B two fits of the same data; C (mode of A, mode of B) how alike their modes are.
"""

from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from retina_codec.statistics.correlation import column_correlations

__all__ = [
    "Agreement",
    "agreement",
    "correlation",
    "cosine",
    "leading",
    "matched",
    "shuffled_modes",
]

LEADING = 0.95  # modes that explain this share together are the ones that count


class Agreement(NamedTuple):
    """How well two fits agree; every number between 0 and 1 (or below, if all are opposed)."""

    leading: float
    """Mean likeness of the modes that explain 95 %, matched one to one, both ways averaged."""
    whole: float
    """The same over all modes of the larger fit (PW-MCC)."""
    collisions: float
    """Share of modes whose nearest mode is also the nearest of another, both ways averaged."""


def cosine(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return cosines (mode, mode) of the rows of two dictionaries (mode, feature)."""
    lengths = np.linalg.norm(one, axis=1)[:, None] * np.linalg.norm(other, axis=1)
    found: np.ndarray = np.zeros_like(lengths)
    np.divide(one @ other.T, lengths, out=found, where=lengths > 0)
    return found


def correlation(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return Pearson r (mode, mode) of two loadings (sample, mode); 0 where one is constant."""
    found = column_correlations(one, other)
    return np.where(np.isnan(found), 0.0, found)


def leading(share: np.ndarray) -> np.ndarray:
    """Return which modes together explain 95 %, the largest first; bool (mode,)."""
    order = np.argsort(-share, kind="stable")
    before = np.cumsum(share[order]) - share[order]
    chosen = np.zeros(len(share), bool)
    chosen[order[before < LEADING * share.sum()]] = True
    return chosen


def matched(likeness: np.ndarray) -> np.ndarray:
    """Match rows to columns one to one for the largest sum; likeness of each row, 0 without."""
    found = np.zeros(len(likeness))
    if likeness.size:
        rows, columns = linear_sum_assignment(-likeness)
        found[rows] = likeness[rows, columns]
    return found


def agreement(likeness: np.ndarray, share: np.ndarray, other_share: np.ndarray) -> Agreement:
    """Compare two fits.

    Parameters
    ----------
    likeness : array (mode of A, mode of B)
        `cosine` of the modes, or `correlation` of the loadings.
    share, other_share : array (mode,)
        How much each mode of A and of B explains, >= 0.

    Returns
    -------
    Agreement

    References
    ----------
    Paulo, Belrose 2025 (matching over seeds); Song et al. 2025 (mean correlation coefficient over
    pairs of runs).
    """
    ways = ((likeness, share), (likeness.T, other_share))
    first = np.mean([matched(c[leading(s)]).mean() for c, s in ways])
    whole = matched(likeness).sum() / max(likeness.shape)
    clash = []
    for c, _ in ways:
        nearest = c.argmax(1)
        clash.append(np.mean(np.bincount(nearest, minlength=c.shape[1])[nearest] > 1))
    return Agreement(float(first), float(whole), float(np.mean(clash)))


def shuffled_modes(dictionary: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Permute the entries of every mode (mode, feature): as sparse, at other features."""
    return generator.permuted(dictionary, axis=1)
