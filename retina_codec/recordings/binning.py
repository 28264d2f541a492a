"""Count spike times in bins."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["EDGE_SLACK", "LATE", "Floats", "bin_spikes"]

Floats = npt.NDArray[np.float64]
EDGE_SLACK = 1e-6  # of a bin, so that a spike at 0.29 s falls in the bin that starts at 29 · 0.01
LATE = 0.25  # of a bin: latest deviation of the next bin; a longer step is a pause


def bin_spikes(
    spikes: Sequence[Floats],
    observed: Sequence[Floats] | None,
    edges: Floats,
) -> npt.NDArray[Any]:
    """Count spikes in the bins of frames: bin t is [edge_t, edge_t+1).

    Parameters
    ----------
    spikes : sequence of numpy.ndarray
        s, one array per cell.
    observed : sequence of (interval, 2) arrays, optional
        s; a bin whose middle lies in none of a cell's intervals is missing.
    edges : numpy.ndarray, (time + 1,)
        s, onsets and the end of the last bin.

    Returns
    -------
    numpy.ndarray, (time, cell)
        Count per bin; float32, NaN where missing, where there are observation intervals.
    """
    middle = (edges[1:] + edges[:-1]) / 2
    edges = edges - EDGE_SLACK * (edges[-1] - edges[0]) / middle.size
    counts = np.empty((middle.size, len(spikes)), np.int32 if observed is None else np.float32)
    for cell, train in enumerate(spikes):
        counts[:, cell] = np.histogram(train[(train >= edges[0]) & (train < edges[-1])], edges)[0]
        if observed is None:
            continue
        intervals = np.asarray(observed[cell], dtype=np.float64).reshape(-1, 2)
        intervals = intervals[np.argsort(intervals[:, 0])]
        latest = np.searchsorted(intervals[:, 0], middle, side="right") - 1
        inside = latest >= 0
        inside[inside] = middle[inside] <= intervals[latest[inside], 1]
        counts[~inside, cell] = np.nan
    return counts
