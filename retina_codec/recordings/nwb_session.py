"""The clock of a session: presentations one after another, counts to spikes and back.

Shared by the NWB reader and writer, so that what one places the other finds. No file is touched
here.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.errors import RetinaCodecError

__all__ = [
    "Presentation",
    "bin_spikes",
    "join_session",
    "observed_intervals",
    "place_spikes",
    "presentations_of",
]

NOTES_KEY = "retina_codec"  # in the notes of a file: what NWB has no place for
TOLERANCE = 1e-2  # of a frame, between two presentations that touch
EDGE_SLACK = 1e-6  # of a frame, so that a spike at 0.29 s falls in the bin that starts at 29 · 0.01

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Presentation:
    """One showing of the train or the test movie.

    Attributes
    ----------
    split : str
        "train" or "test".
    repeat : int
        Number of the presentation of the test movie; −1 where there are no repeats.
    start : float
        s, session clock.
    frame_rate : float
        Hz.
    counts : numpy.ndarray, (time, cell)
        Spikes per bin, NaN where a cell was not recorded.
    """

    split: str
    repeat: int
    start: float
    frame_rate: float
    counts: Floats

    @property
    def frames(self) -> int:
        """Number of frames shown."""
        return len(self.counts)

    @property
    def stop(self) -> float:
        """End of the last frame, s."""
        return self.start + self.frames / self.frame_rate


def presentations_of(
    recording: xr.DataTree, spikes: Sequence[Floats] | None = None
) -> list[Presentation]:
    """List what was shown, in order of time, and the spikes that were counted.

    Counts are those of ``spike_count`` (of a split without repeats), of whole-number rates (of
    repeats), or of the spike times where these are given.

    Parameters
    ----------
    recording : xr.DataTree
        A valid recording.
    spikes : sequence of numpy.ndarray, optional
        s, session clock, ascending; one array per cell.

    Returns
    -------
    list of Presentation

    Raises
    ------
    RetinaCodecError
        Two presentations overlap, there are only smoothed rates, or spike times and counts differ.
    """
    frame_rate = float(recording.attrs["frame_rate"])
    parts: list[tuple[str, int, float, xr.DataArray, xr.DataArray]] = []
    for split in ("train", "test"):
        if split not in recording.children:
            continue
        node = recording[split].to_dataset()
        start = float(node["time"][0])
        if split == "test" and "repeats" in recording["test"].children:
            repeats = recording["test/repeats"].to_dataset()
            rates, starts = repeats["rate"], repeats["start_time"].to_numpy()
            each = rates / frame_rate
            parts += [(split, i, float(starts[i]), rates[i], each[i]) for i in range(len(rates))]
        else:
            parts.append((split, -1, start, node["rate"], node["spike_count"]))
    shown = []
    for split, repeat, start, rate, counted in parts:
        counts = _whole_counts(counted, rate, frame_rate)
        if spikes is not None:
            times = start + np.arange(rate.shape[0]) / frame_rate
            counts = _binned(spikes, times, frame_rate, counts, rate, split)
        elif counts is None:
            raise RetinaCodecError(
                "rates must be whole numbers of spikes per bin, or stand beside real counts, to be "
                f"written as spikes; those of the {split} split are smoothed. Add spike_count (of "
                "repeats: the node /spikes), or save the recording as .nc or .zarr."
            )
        shown.append(Presentation(split, repeat, start, frame_rate, counts))
    shown.sort(key=lambda entry: entry.start)
    for before, after in itertools.pairwise(shown):
        if (before.stop - after.start) * frame_rate > TOLERANCE:
            raise RetinaCodecError(
                "presentations must not overlap on the session clock; "
                f"{before.split} ends at {before.stop:.6g} s and {after.split} starts at "
                f"{after.start:.6g} s. Move the time coordinate or start_time."
            )
    return shown


def join_session(shown: Sequence[Presentation]) -> tuple[float, Floats | None]:
    """Lay the frames of all presentations on one clock.

    Parameters
    ----------
    shown : sequence of Presentation
        In order of time.

    Returns
    -------
    start : float
        s, time of the first frame.
    timestamps : numpy.ndarray or None
        s, one per frame where there are gaps between presentations; None without gaps, where the
        frame rate says it all.
    """
    gaps = [
        (after.start - before.stop) * before.frame_rate
        for before, after in itertools.pairwise(shown)
    ]
    if not gaps or max(gaps) <= TOLERANCE:
        return shown[0].start, None
    each = [entry.start + np.arange(entry.frames) / entry.frame_rate for entry in shown]
    return shown[0].start, np.concatenate(each)


def place_spikes(entry: Presentation, cell: int) -> Floats:
    """Place the n spikes of each bin at (k + ½)/n of the bin, k = 0..n−1.

    Parameters
    ----------
    entry : Presentation
    cell : int
        Position along the cells.

    Returns
    -------
    numpy.ndarray
        s, session clock, ascending.
    """
    counts = np.nan_to_num(entry.counts[:, cell], nan=0.0).astype(np.int64)  # no spike, no claim
    bins = np.repeat(np.arange(counts.size), counts)
    first = np.repeat(np.cumsum(counts) - counts, counts)
    within = (np.arange(bins.size) - first + 0.5) / np.repeat(counts, counts)
    spikes: Floats = entry.start + (bins + within) / entry.frame_rate
    return spikes


def observed_intervals(shown: Sequence[Presentation], cell: int) -> Floats:
    """Say when a cell was recorded: runs of bins that are not NaN, joined where they touch.

    Parameters
    ----------
    shown : sequence of Presentation
        In order of time.
    cell : int
        Position along the cells.

    Returns
    -------
    numpy.ndarray, (interval, 2)
        s, start and stop.
    """
    intervals: list[list[float]] = []
    for entry in shown:
        seen = np.concatenate([[False], np.isfinite(entry.counts[:, cell]), [False]])
        edges = np.flatnonzero(np.diff(seen.astype(np.int8))).reshape(-1, 2)
        for start, stop in entry.start + edges / entry.frame_rate:
            if intervals and (start - intervals[-1][1]) * entry.frame_rate <= TOLERANCE:
                intervals[-1][1] = float(stop)
            else:
                intervals.append([float(start), float(stop)])
    return np.array(intervals, dtype=np.float64).reshape(-1, 2)


def bin_spikes(
    spikes: Sequence[Floats],
    observed: Sequence[Floats] | None,
    times: Floats,
    frame_rate: float,
) -> npt.NDArray[Any]:
    """Count spikes in the bins of regular frames: bin t is [time_t, time_t + 1/frame_rate).

    Parameters
    ----------
    spikes : sequence of numpy.ndarray
        s, one array per cell.
    observed : sequence of (interval, 2) arrays, optional
        s; a bin whose middle lies in none of a cell's intervals is missing.
    times : numpy.ndarray, (time,)
        s, left edges.
    frame_rate : float
        Hz.

    Returns
    -------
    numpy.ndarray, (time, cell)
        Count per bin; float32, NaN where missing, where there are observation intervals.
    """
    width = 1.0 / frame_rate
    edges = np.append(times, times[-1] + width) - EDGE_SLACK * width
    counts = np.empty((times.size, len(spikes)), np.int32 if observed is None else np.float32)
    for cell, train in enumerate(spikes):
        counts[:, cell] = np.histogram(train[(train >= edges[0]) & (train < edges[-1])], edges)[0]
        if observed is None:
            continue
        intervals = np.asarray(observed[cell], dtype=np.float64).reshape(-1, 2)
        intervals = intervals[np.argsort(intervals[:, 0])]
        middle = times + width / 2
        latest = np.searchsorted(intervals[:, 0], middle, side="right") - 1
        inside = latest >= 0
        inside[inside] = middle[inside] <= intervals[latest[inside], 1]
        counts[~inside, cell] = np.nan
    return counts


def _whole_counts(counted: xr.DataArray, rate: xr.DataArray, frame_rate: float) -> Floats | None:
    """Return counts per bin (time, cell), NaN where missing; None where nobody counted.

    Counts that are no whole numbers are smoothed rates, and so are counts that are nothing but a
    smoothed rate, rounded.
    """
    counts: Floats = counted.to_numpy().astype(np.float64)
    whole = np.round(counts)
    if not _close(counts, whole) or np.nanmin(whole, initial=0) < 0:
        return None
    smooth = rate.to_numpy().astype(np.float64) / frame_rate
    rounded = np.round(smooth)
    if not _close(smooth, rounded) and np.array_equal(rounded, whole, equal_nan=True):
        return None
    return np.where(np.isfinite(smooth), whole, np.nan)


def _close(values: Floats, others: Floats) -> bool:
    return bool(np.nanmax(np.abs(values - others), initial=0.0) <= TOLERANCE)


def _binned(
    spikes: Sequence[Floats],
    times: Floats,
    frame_rate: float,
    counts: Floats | None,
    rate: xr.DataArray,
    split: str,
) -> Floats:
    """Count the spikes of one presentation and compare them with what was counted before."""
    found = bin_spikes(spikes, None, times, frame_rate)
    seen = np.isfinite(rate.to_numpy() if counts is None else counts)
    expected = found if counts is None else counts
    wrong = np.where(seen, found != expected, found > 0)
    if wrong.any():
        bin_, cell = np.argwhere(wrong)[0]
        told = f"{expected[bin_, cell]:g}" if seen[bin_, cell] else "not recorded (NaN)"
        raise RetinaCodecError(
            f"/spikes must give the counts of the {split} split; {int(wrong.sum())} bins differ, "
            f"the first at {times[bin_]:.6g} s: cell {rate['cell'].to_numpy()[cell].item()!r} has "
            f"{found[bin_, cell]:g} spikes and a count of {told}. Correct one of them, or leave "
            "the spike times out: recording.drop_nodes('spikes')."
        )
    return np.where(seen, found, np.nan)
