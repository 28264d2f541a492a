"""The clock of a session: presentations one after another, counts to spikes and back.

Shared by the NWB reader and writer, so that what one places the other finds. No file is touched
here.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

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


def presentations_of(recording: xr.DataTree) -> list[Presentation]:
    """List what was shown, in order of time.

    Parameters
    ----------
    recording : xr.DataTree
        A valid recording.

    Returns
    -------
    list of Presentation

    Raises
    ------
    RetinaCodecError
        Two presentations overlap, or a rate is not a whole number of spikes per bin.
    """
    frame_rate = float(recording.attrs["frame_rate"])
    parts: list[tuple[str, int, float, xr.DataArray]] = []
    for split in ("train", "test"):
        if split not in recording.children:
            continue
        node = recording[split].to_dataset()
        start = float(node["time"][0])
        if split == "test" and "repeats" in recording["test"].children:
            repeats = recording["test/repeats"].to_dataset()
            rates, starts = repeats["rate"], repeats["start_time"].to_numpy()
            parts += [(split, i, float(starts[i]), rates[i]) for i in range(len(rates))]
        else:
            parts.append((split, -1, start, node["rate"]))
    shown = [
        Presentation(split, repeat, start, frame_rate, _whole_counts(rate, frame_rate))
        for split, repeat, start, rate in parts
    ]
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
) -> Floats:
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
        Count per bin, NaN where missing.
    """
    width = 1.0 / frame_rate
    edges = np.append(times, times[-1] + width) - EDGE_SLACK * width
    counts = np.empty((times.size, len(spikes)))
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


def _whole_counts(rate: xr.DataArray, frame_rate: float) -> Floats:
    counts: Floats = rate.to_numpy().astype(np.float64) / frame_rate
    whole = np.round(counts)
    if (
        np.nanmax(np.abs(counts - whole), initial=0.0) > TOLERANCE
        or np.nanmin(whole, initial=0) < 0
    ):
        raise RetinaCodecError(
            "rates must be whole numbers of spikes per bin to be written as spikes; they are not. "
            "Save smoothed rates as .nc or .zarr."
        )
    return whole
