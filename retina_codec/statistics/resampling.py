"""Bootstrap over blocks of time and over inputs, intervals, and p-values by flips of signs.

Whole blocks are drawn, not single bins, because neighbouring bins are alike.

Notation: T bins, L bins per block, B resamples, each of ⌈T / L⌉ blocks.
"""

import numpy as np
import numpy.typing as npt

from retina_codec.errors import RetinaCodecError

__all__ = [
    "block_bins",
    "draw_blocks",
    "flip_p_values",
    "mean_and_error",
    "percentiles",
    "resample_correlations",
    "resampled_means",
]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

PIECES = 4  # per block: blocks begin at multiples of a quarter of their length
FEWEST = 10  # blocks in a recording; a shorter one gets shorter blocks
TOGETHER = 64  # draws at a time


def block_bins(time: npt.NDArray[np.floating], block: float) -> int:
    """Return the bins of ``block`` s, a multiple of 4; at most a tenth of the recording."""
    if not block > 0:
        raise RetinaCodecError(f"block must be a time in s above 0; got {block=}. 2 s is usual.")
    if len(time) < PIECES * FEWEST:
        raise RetinaCodecError(
            f"resampling needs {PIECES * FEWEST} bins; got {len(time)}. Explain a longer "
            "recording, or leave intervals out with resamples=0."
        )
    step = float(np.median(np.diff(time)))
    bins = min(round(block / step), len(time) // FEWEST)
    return max(PIECES, bins // PIECES * PIECES)


def draw_blocks(bins: int, length: int, resamples: int, seed: int) -> Integers:
    """Draw blocks of ``length`` bins with replacement, moving by a quarter of it (moving blocks).

    Returns (B, piece), how often each quarter block is drawn; a rest shorter than a quarter block
    at the end is never drawn. Künsch 1989, Ann. Statist. 17:1217.
    """
    pieces = bins // (length // PIECES)
    random = np.random.default_rng(seed)
    starts = random.integers(pieces - PIECES + 1, size=(resamples, -(-bins // length)))
    drawn = np.zeros((resamples, pieces), dtype=np.int64)
    for offset in range(PIECES):
        np.add.at(drawn, (np.arange(resamples)[:, None], starts + offset), 1)
    return drawn


def resample_correlations(rate: Floats, loading: Floats, drawn: Integers, length: int) -> Floats:
    """Pearson r (B, cell, mode) of rates (T, cell) and loadings (T, mode) over the drawn blocks.

    From the weighted sums Σ w, Σ w x, Σ w z, Σ w x z, Σ w x², Σ w z² over pieces, w (B, piece) how
    often each was drawn, see `draw_blocks`. 0 where a series is constant over all that was drawn.
    """
    size, pieces = length // PIECES, drawn.shape[1]
    x, z = (
        (values - values.mean(axis=0))[: pieces * size].reshape(pieces, size, -1)
        for values in (rate, loading)
    )
    weight = drawn.astype(np.float64)
    total = weight.sum(1)[:, None] * size
    mean_x, mean_z = weight @ x.sum(1) / total, weight @ z.sum(1) / total  # (B, cell), (B, mode)
    variance_x = weight @ (x**2).sum(1) / total - mean_x**2
    variance_z = weight @ (z**2).sum(1) / total - mean_z**2
    product = np.einsum("ptc,ptm->pcm", x, z, optimize=True)  # (piece, cell, mode)
    covariance = np.tensordot(weight, product, 1) / total[..., None]
    covariance -= mean_x[:, :, None] * mean_z[:, None]
    floor_x, floor_z = 1e-12 * x.var(axis=(0, 1)), 1e-12 * z.var(axis=(0, 1))
    varies = (variance_x > floor_x)[:, :, None] & (variance_z > floor_z)[:, None]
    scale = np.sqrt(np.maximum(variance_x, 0)[:, :, None] * np.maximum(variance_z, 0)[:, None])
    found: Floats = np.divide(covariance, scale, out=np.zeros_like(covariance), where=varies)
    return found


def percentiles(values: Floats, coverage: float = 0.95, *, skip_missing: bool = False) -> Floats:
    """Return the ends (..., 2) of the middle ``coverage`` of resamples (B, ...).

    The percentile interval. A NaN among the resamples makes both ends NaN unless ``skip_missing``
    leaves it out. Efron 1981, Canadian Journal of Statistics 9:139, section 4.
    """
    outside = (1 - coverage) / 2
    quantile = np.nanquantile if skip_missing else np.quantile
    ends: Floats = np.moveaxis(quantile(values, [outside, 1 - outside], axis=0), 0, -1)
    return ends


def mean_and_error(values: Floats) -> tuple[Floats, Floats]:
    """Mean and standard error ``s / √n`` (k,) of the columns (n, k) over inputs with a value.

    A NaN is an input without one; NaN with fewer than one (mean) and two (error) values.
    """
    known = np.isfinite(values)
    count = known.sum(axis=0).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.where(known, values, 0.0).sum(axis=0) / count
        around = np.where(known, values - mean, 0.0)
        error = np.sqrt(np.square(around).sum(axis=0) / (count - 1) / count)
    return mean, np.where(count > 1, error, np.nan)


def resampled_means(
    values: Floats, draws: int, seed: int | np.random.Generator, block: int = 1
) -> Floats:
    """Means (B, k) of the columns (n, k) over inputs drawn with replacement, ``Σ w v / Σ w``.

    Drawn in blocks of ``block`` inputs, a shorter one at the end. A NaN is an input without a value
    and takes no part in that column; NaN where nothing with a value was drawn.
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
    """Two-sided p (k,) of the mean difference of every column (n, k), by flips of signs.

    Without a true difference each block is as likely to differ one way as the other:
    ``p = (1 + #{|Σ ± d| ≥ |Σ d|}) / (1 + B)``. Missing values and blocks as for `resampled_means`;
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
