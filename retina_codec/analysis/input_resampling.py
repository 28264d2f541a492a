"""What other inputs might have given: bootstrap of means, and sign flips of differences.

Why this file exists: images are drawn one by one, so inputs are drawn again one by one (or in
blocks where they are neighbours in time). Blocks of a movie with a clock are in resampling.py.

Notation: n inputs, L inputs per block, B draws, k columns, w how often a block is drawn.
"""

import numpy as np
import numpy.typing as npt

__all__ = ["flip_p_values", "mean_and_error", "resampled_means"]

Floats = npt.NDArray[np.float64]
TOGETHER = 64  # draws at a time


def mean_and_error(values: Floats) -> tuple[Floats, Floats]:
    """Mean and standard error ``s / √n`` of every column over the inputs that have a value.

    Parameters
    ----------
    values : array (n, k)
        NaN where an input has none.

    Returns
    -------
    mean, error : array (k,)
        NaN with fewer than one and two values.
    """
    known = np.isfinite(values)
    count = known.sum(axis=0).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.where(known, values, 0.0).sum(axis=0) / count
        around = np.where(known, values - mean, 0.0)
        error = np.sqrt(np.square(around).sum(axis=0) / (count - 1) / count)
    return mean, np.where(count > 1, error, np.nan)


def resampled_means(values: Floats, draws: int, seed: int, block: int = 1) -> Floats:
    """Means of every column over inputs drawn with replacement, ``Σ w v / Σ w``.

    Parameters
    ----------
    values : array (n, k)
        NaN where an input has no value: it takes no part in that column.
    draws : int
        B.
    seed : int
    block : int
        L; a rest shorter than a block at the end is a shorter block.

    Returns
    -------
    array (B, k)
        NaN where nothing with a value was drawn.
    """
    sums, counts = _blocks(values, block)
    random = np.random.default_rng(seed)
    blocks = len(sums)
    found = np.empty((draws, values.shape[1]))
    for start in range(0, draws, TOGETHER):
        some = min(TOGETHER, draws - start)
        chosen = random.integers(blocks, size=(some, blocks))
        weight = np.stack([np.bincount(row, minlength=blocks) for row in chosen]).astype(float)
        with np.errstate(divide="ignore", invalid="ignore"):
            found[start : start + some] = (weight @ sums) / (weight @ counts)
    return found


def flip_p_values(differences: Floats, draws: int, seed: int, block: int = 1) -> Floats:
    """Two-sided p of the mean difference of every column, by flips of signs.

    Without a true difference each block is as likely to differ one way as the other:
    ``p = (1 + #{|Σ ± d| ≥ |Σ d|}) / (1 + B)``.

    Parameters
    ----------
    differences : array (n, k)
        Paired, within inputs; NaN where an input has none.
    draws, seed, block
        As for `resampled_means`.

    Returns
    -------
    array (k,), in (0, 1]
        NaN for a column without a value.
    """
    sums, counts = _blocks(differences, block)
    observed = np.abs(sums.sum(axis=0))
    random = np.random.default_rng(seed)
    reached = np.zeros(differences.shape[1])
    for start in range(0, draws, TOGETHER):
        some = min(TOGETHER, draws - start)
        signs = random.integers(2, size=(some, len(sums))) * 2.0 - 1.0
        reached += (np.abs(signs @ sums) >= observed * (1 - 1e-9)).sum(axis=0)
    return np.where(counts.sum(axis=0) > 0, (1 + reached) / (1 + draws), np.nan)


def _blocks(values: Floats, block: int) -> tuple[Floats, Floats]:
    """Sum values, and count those that are there, in blocks of ``block`` inputs."""
    known = np.isfinite(values)
    starts = np.arange(0, len(values), block)
    sums = np.add.reduceat(np.where(known, values, 0.0), starts, axis=0)
    return sums, np.add.reduceat(known.astype(np.float64), starts, axis=0)
