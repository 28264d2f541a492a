"""Presentations of a recording on the clock of the session; counts to spike times and back.

Shared by the NWB reader and writer.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.recordings.binning import EDGE_SLACK, LATE, Floats, bin_spikes

__all__ = [
    "Presentation",
    "join_session",
    "observed_intervals",
    "place_spikes",
    "presentations_of",
]

NOTES_KEY = "retina_codec"  # of the notes of a file
TOLERANCE = 1e-2  # of a frame, between two presentations that touch


@dataclass(frozen=True)
class Presentation:
    """One presentation of the train or the test movie.

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
    onsets : numpy.ndarray, (time,), optional
        s, of every frame; None: equal steps.
    first : int
        Number of the first frame in the movie of the split.
    end : float, optional
        s, of the last frame; None: 1/frame_rate after its onset.
    """

    split: str
    repeat: int
    start: float
    frame_rate: float
    counts: Floats
    onsets: Floats | None = None
    first: int = 0
    end: float | None = None

    @property
    def frames(self) -> int:
        """Number of frames shown."""
        return len(self.counts)

    @property
    def stop(self) -> float:
        """End of the last frame, s."""
        return float(self.edges[-1])

    @property
    def edges(self) -> Floats:
        """Onset of every frame and the end of the last, s, (time + 1,)."""
        edges: Floats = self.start + np.arange(self.frames + 1) / self.frame_rate
        if self.onsets is not None:
            edges = np.append(self.onsets, self.onsets[-1] + 1.0 / self.frame_rate)
        if self.end is not None:
            edges[-1] = self.end
        return edges


def presentations_of(
    recording: xr.DataTree, spikes: Sequence[Floats] | None = None
) -> list[Presentation]:
    """List the presentations in order of time, with their spike counts.

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
    shown = []
    parts = sorted(_parts(recording, frame_rate), key=lambda part: part[0].start)
    for number, (entry, rate, counted) in enumerate(parts):
        counts = _whole_counts(counted, rate, frame_rate)
        entry = replace(entry, counts=np.empty(rate.shape) if counts is None else counts)
        if number + 1 < len(parts):
            entry = _until(entry, parts[number + 1][0].start)
        if spikes is not None:
            counts = _binned(spikes, entry.edges, counts, rate, entry.split)
        elif counts is None:
            raise RetinaCodecError(
                "rates must be whole numbers of spikes per bin, or come with spike counts, to be "
                f"written as spikes; those of the {entry.split} split are smoothed. Add "
                "spike_count (of repeats: the node /spikes), or save the recording as .nc or .zarr."
            )
        shown.append(replace(entry, counts=counts))
    for before, after in itertools.pairwise(shown):
        if (before.stop - after.start) * frame_rate > TOLERANCE:
            raise RetinaCodecError(
                "presentations must not overlap on the session clock; "
                f"{before.split} ends at {before.stop:.6g} s and {after.split} starts at "
                f"{after.start:.6g} s. Move the time coordinate or start_time."
            )
    return shown


def _parts(
    recording: xr.DataTree, frame_rate: float
) -> Iterator[tuple[Presentation, xr.DataArray, xr.DataArray]]:
    """Yield every presentation, still without counts, with its rates and its stored counts."""
    nothing = np.empty((0, 0))
    for split in ("train", "test"):
        if split not in recording.children:
            continue
        node = recording[split].to_dataset()
        if split == "test" and "repeats" in recording["test"].children:
            repeats = recording["test/repeats"].to_dataset()
            starts = repeats["start_time"].to_numpy()
            for number, rate in enumerate(repeats["rate"]):
                onsets = None
                if "session_time" in repeats.coords:
                    onsets = _whole_clock(repeats["session_time"][number].to_numpy(), frame_rate)
                start = float(starts[number])
                entry = Presentation(split, number, start, frame_rate, nothing, onsets)
                yield entry, rate, rate / frame_rate
            continue
        times = node["session_time"].to_numpy() if "session_time" in node.coords else None
        cuts = [0, node.sizes["time"]]
        if "block" in node.coords and times is not None:
            cuts = [0, *(np.flatnonzero(np.diff(node["block"].to_numpy())) + 1), cuts[1]]
        for first, last in itertools.pairwise(map(int, cuts)):
            onsets = None if times is None else times[first:last]
            start = float(node["time"][0] if onsets is None else onsets[0])
            entry = Presentation(split, -1, start, frame_rate, nothing, onsets, first)
            yield entry, node["rate"][first:last], node["spike_count"][first:last]


def _until(entry: Presentation, start: float) -> Presentation:
    """End with the onset that follows, where it deviates by less than ``LATE``."""
    off = abs(start - entry.stop) * entry.frame_rate
    return replace(entry, end=start) if EDGE_SLACK < off < LATE else entry


def _whole_clock(onsets: Floats, frame_rate: float) -> Floats:
    """Continue in equal steps where a presentation was cut short."""
    last = int(np.flatnonzero(np.isfinite(onsets))[-1])
    further = onsets[last] + np.arange(1, onsets.size - last) / frame_rate
    return np.append(onsets[: last + 1], further)


def join_session(shown: Sequence[Presentation]) -> tuple[float, Floats | None]:
    """Join the frames of all presentations on one clock.

    Parameters
    ----------
    shown : sequence of Presentation
        In order of time.

    Returns
    -------
    start : float
        s, time of the first frame.
    timestamps : numpy.ndarray or None
        s, one per frame where there are gaps between presentations, or steps that are not equal;
        None otherwise: start and frame rate are enough.
    """
    gaps = [
        (after.start - before.stop) * before.frame_rate
        for before, after in itertools.pairwise(shown)
    ]
    equal = all(entry.onsets is None for entry in shown)
    if equal and max(gaps, default=0.0) <= TOLERANCE:
        return shown[0].start, None
    return shown[0].start, np.concatenate([entry.edges[:-1] for entry in shown])


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
    counts = np.nan_to_num(entry.counts[:, cell], nan=0.0).astype(np.int64)
    bins = np.repeat(np.arange(counts.size), counts)
    first = np.repeat(np.cumsum(counts) - counts, counts)
    within = (np.arange(bins.size) - first + 0.5) / np.repeat(counts, counts)
    if entry.onsets is None:
        spikes: Floats = entry.start + (bins + within) / entry.frame_rate
        return spikes
    edges = entry.edges
    placed: Floats = edges[bins] + within * np.diff(edges)[bins]
    return placed


def observed_intervals(shown: Sequence[Presentation], cell: int) -> Floats:
    """Find when a cell was recorded: runs of bins that are not NaN, joined where they touch.

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
        runs = np.flatnonzero(np.diff(seen.astype(np.int8))).reshape(-1, 2)
        for start, stop in entry.edges[runs]:
            if intervals and (start - intervals[-1][1]) * entry.frame_rate <= TOLERANCE:
                intervals[-1][1] = float(stop)
            else:
                intervals.append([float(start), float(stop)])
    return np.array(intervals, dtype=np.float64).reshape(-1, 2)


def _whole_counts(counted: xr.DataArray, rate: xr.DataArray, frame_rate: float) -> Floats | None:
    """Return counts per bin (time, cell), NaN where missing; None where there are none.

    Counts that are not whole numbers are smoothed rates, and so are counts that equal a smoothed
    rate, rounded.
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
    edges: Floats,
    counts: Floats | None,
    rate: xr.DataArray,
    split: str,
) -> Floats:
    """Count the spikes of one presentation and compare with its stored counts."""
    found = bin_spikes(spikes, None, edges)
    seen = np.isfinite(rate.to_numpy() if counts is None else counts)
    expected = found if counts is None else counts
    wrong = np.where(seen, found != expected, found > 0)
    if wrong.any():
        bin_, cell = np.argwhere(wrong)[0]
        told = f"{expected[bin_, cell]:g}" if seen[bin_, cell] else "not recorded (NaN)"
        raise RetinaCodecError(
            f"/spikes must give the counts of the {split} split; {int(wrong.sum())} bins differ, "
            f"the first at {edges[bin_]:.6g} s: cell {rate['cell'].to_numpy()[cell].item()!r} has "
            f"{found[bin_, cell]:g} spikes and a count of {told}. Correct one of them, or leave "
            "the spike times out: recording.drop_nodes('spikes')."
        )
    return np.where(seen, found, np.nan)
