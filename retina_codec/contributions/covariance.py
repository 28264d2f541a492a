"""Tell whether a covariance of responses can be inverted, and if not, because of which cells.

Why this file exists: a silent or duplicated cell makes the covariance singular, and a silent
pseudo-inverse would give contributions that mean nothing. It estimates no covariance.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from retina_codec.errors import RetinaCodecError

__all__ = ["check_covariance"]

LARGEST_CONDITION = 1e8  # of the correlation matrix: responses are known to about 1e-7 (float32)
SMALLEST_SPREAD = 1e-5  # a cell's standard deviation over its mean, or over the most variable cell


def check_covariance(
    mean: np.ndarray, covariance: np.ndarray, cells: Sequence[Any] | None, *, shrunk: bool
) -> None:
    """Check that a covariance has an inverse worth using.

    Parameters
    ----------
    mean, covariance : np.ndarray, (cell,) Hz and (cell, cell) Hz²
    cells : sequence, optional
        Ids for the message.
    shrunk : bool
        Whether the covariance was shrunk: then only its condition number counts.

    Raises
    ------
    RetinaCodecError
        If it is singular; names the silent, duplicated or dependent cells, and the way out.
    """
    names = [repr(cell) for cell in (cells if cells is not None else range(len(mean)))]
    if not (np.isfinite(covariance).all() and np.isfinite(mean).all()):
        raise RetinaCodecError("mean and covariance of Surprisal must be finite.")
    spread = np.sqrt(np.clip(np.diag(covariance), 0, None))  # (n,)
    way_out = (
        "Leave them out of the network, explain a longer recording, or use "
        "Surprisal(shrinkage='ledoit-wolf')."
    )
    if shrunk:
        condition = np.linalg.cond(covariance)
        if not condition < LARGEST_CONDITION:
            raise RetinaCodecError(
                f"the covariance stays singular after shrinkage ({condition=:.1e}): no cell "
                "changes its rate enough. Explain a recording with responses."
            )
        return
    silent = spread <= SMALLEST_SPREAD * np.maximum(np.abs(mean), spread.max())
    if silent.any():
        listed = ", ".join(name for name, is_silent in zip(names, silent, strict=True) if is_silent)
        raise RetinaCodecError(
            "the covariance of Surprisal is singular: silent cells (their rate never changes): "
            f"{listed}. {way_out}"
        )
    correlation = covariance / np.outer(spread, spread)
    values, vectors = np.linalg.eigh(correlation)
    if values[0] > values[-1] / LARGEST_CONDITION:
        return
    rows, columns = np.nonzero(np.triu(np.abs(correlation) > 1 - 2 / LARGEST_CONDITION, 1))
    if len(rows):
        listed = ", ".join(f"{names[i]} = {names[j]}" for i, j in zip(rows, columns, strict=True))
        kind = f"duplicated cells: {listed}"
    else:
        together = np.abs(vectors[:, 0]) > 0.05
        listed = ", ".join(name for name, is_in in zip(names, together, strict=True) if is_in)
        kind = f"each of these cells is a weighted sum of the others: {listed}"
    raise RetinaCodecError(f"the covariance of Surprisal is singular: {kind}. {way_out}")
