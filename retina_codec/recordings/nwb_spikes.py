"""Exact spike times on the way into a file: per cell, checked against the counts of the recording.

Why this file exists: a recording may hold spike times beside its counts. What is written must be
the same spikes as were counted, and every one of them must lie in an observation interval. Spikes
that are only counted are placed by nwb_session.py.
"""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.recordings.nwb_session import EDGE_SLACK, TOLERANCE, Floats, Presentation

__all__ = ["exact_spikes", "observed_with_spikes", "smallest_difference"]

WAY_OUT = "Correct them, or leave them out: recording.drop_nodes('spikes')."


def exact_spikes(recording: xr.DataTree) -> list[Floats] | None:
    """Sort the spike times of a recording by cell.

    Parameters
    ----------
    recording : xr.DataTree
        A valid recording; ``/spikes`` may hold ``spike_time`` (spike), s on the session clock, and
        ``spike_cell`` (spike), labels of cells.

    Returns
    -------
    list of numpy.ndarray, or None
        s, one array per cell of ``/test`` in its order; None without the node.

    Raises
    ------
    RetinaCodecError
        A cell that the recording does not have, times that do not ascend or are not finite.
    """
    if "spikes" not in recording.children:
        return None
    node = recording.children["spikes"].to_dataset()
    cells = recording["test/cell"].to_numpy()
    times = node["spike_time"].to_numpy().astype(np.float64)
    labels = node["spike_cell"].to_numpy()
    foreign = np.unique(labels[~np.isin(labels, cells)])
    if foreign.size:
        raise RetinaCodecError(
            f"/spikes must name cells of the recording; {foreign[:10].tolist()} are none of "
            f"{cells[:10].tolist()}. {WAY_OUT}"
        )
    order = np.argsort(labels, kind="stable")
    grouped, ordered = labels[order], times[order]
    edges = [np.searchsorted(grouped, cells, side) for side in ("left", "right")]
    spikes = [ordered[first:last] for first, last in zip(*edges, strict=True)]
    for cell, train in zip(cells.tolist(), spikes, strict=True):
        if not np.isfinite(train).all() or (np.diff(train) < 0).any():
            raise RetinaCodecError(
                f"/spikes must hold finite times that ascend for each cell; those of cell {cell!r} "
                f"do not. {WAY_OUT}"
            )
    return spikes


def observed_with_spikes(
    intervals: Floats, shown: Sequence[Presentation], spikes: Floats
) -> Floats:
    """Add to the observation intervals of a cell the pauses in which it has spikes.

    A recording knows nothing of the time between presentations; a spike there says that the cell
    was recorded. Bins keep their meaning: no interval is added within a presentation.

    Parameters
    ----------
    intervals : numpy.ndarray, (interval, 2)
        s, from `observed_intervals`.
    shown : sequence of Presentation
        In order of time.
    spikes : numpy.ndarray
        s, ascending.

    Returns
    -------
    numpy.ndarray, (interval, 2)
        s, ascending; every spike outside the presentations lies in one.
    """
    if spikes.size == 0:
        return intervals
    width = 1.0 / shown[0].frame_rate
    starts = np.array([entry.start for entry in shown])
    stops = np.array([entry.stop for entry in shown])
    first = [min(float(spikes[0]), starts[0]), *stops]
    last = [*starts, max(float(spikes[-1]), stops[-1])]
    rows = intervals.tolist()
    for start, stop in zip(first, last, strict=True):
        inside = (spikes >= start) & (spikes < stop - EDGE_SLACK * width)
        if inside.any() or (start == stops[-1] and spikes[-1] == stop):
            rows.append([start, stop])
    joined: list[list[float]] = []
    for start, stop in sorted(rows):
        if joined and start - joined[-1][1] <= TOLERANCE * width:
            joined[-1][1] = max(joined[-1][1], stop)
        else:
            early = (spikes < start) & (spikes >= start - EDGE_SLACK * width)  # rounding of an edge
            joined.append([float(spikes[early].min()) if early.any() else start, stop])
    return np.array(joined, dtype=np.float64).reshape(-1, 2)


def smallest_difference(spikes: Sequence[Floats]) -> float:
    """Find the smallest time between two spikes of one cell, s; NaN where no cell has two."""
    steps = [np.diff(train) for train in spikes]
    steps = [step[step > 0] for step in steps]
    return min((float(step.min()) for step in steps if step.size), default=float("nan"))
