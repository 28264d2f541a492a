"""From an NWB file to a recording: everything is read but the frames.

The frames stay on disk behind a dask array. A file that leaves something open is refused with the
question and the option that answers it; this reader never guesses a missing time, never fills a
gap, never truncates in silence. How the parts are found stands in the other nwb_ files.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePath
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.recordings.frames.lazy import IndexedFrames, lazy_frames
from retina_codec.recordings.nwb.extras import (
    REPEATS_RATE,
    read_notes,
    series_attributes,
    with_further_values,
    with_nodes,
)
from retina_codec.recordings.nwb.interneurons import read_interneurons
from retina_codec.recordings.nwb.open import open_nwb
from retina_codec.recordings.nwb.options import NwbOptions, Reading
from retina_codec.recordings.nwb.session import EDGE_SLACK, Floats, bin_spikes
from retina_codec.recordings.nwb.splits import (
    Interval,
    Run,
    find_runs,
    joined_frames,
    periods_of,
    read_intervals,
)
from retina_codec.recordings.nwb.stimulus import Stimulus, find_stimulus
from retina_codec.recordings.nwb.tree import Node
from retina_codec.recordings.nwb.units import (
    LATER,
    Cells,
    leave_missing_bins,
    leave_unobserved,
    read_cells,
)
from retina_codec.recordings.schema import make_recording

__all__ = ["read_nwb"]

WHOLE_SESSION = "no split intervals in the file: the whole session is the test split"


def read_nwb(
    path: str | os.PathLike[str],
    *,
    stimulus: str | Mapping[str, str] | None = None,
    frames: Any = None,
    splits: Mapping[str, Any] | None = None,
    table: str | None = None,
    cells: Any = None,
    cell_types: Any = None,
    interneuron_types: Any = None,
    axis_order: str | None = None,
    color: str | None = None,
    frame_times: Any = None,
    frame_rate: float | None = None,
    bins_per_frame: int = 1,
    last_duration: float | None = None,
    blank: float | None = None,
    repair_clock: bool = False,
    join_blocks: bool = False,
    spike_time_unit: str | float = "s",
    trust_paths: bool = False,
) -> xr.DataTree:
    """Open an NWB file as a recording, without reading its frames.

    Spikes are counted in the bins of the frames, from onset to onset, on the session clock. A table
    of intervals with a ``split`` column ("train", "test"; other words are passed over) cuts the
    session; ``repeat`` numbers the presentations of the test movie. Without such a table and
    without ``splits`` the whole session becomes the test split, and the attribute ``split`` says
    so. Outside a unit's observation intervals its rate is NaN. How everything was read, and what
    deserves a look, stands in the attribute ``reading``; doubts are also warned of.

    Parameters
    ----------
    path : path
        An NWB file (HDF5, or a Zarr folder as hdmf-zarr writes), or its address.
    stimulus : str or mapping, optional
        Name of the series or table of presentations that was shown, where the file has several;
        or one per split: ``{"train": "noise", "test": "movie"}``.
    frames : array (time, y, x) or SeededFrames, optional
        The frames, where the file does not hold them; the file still gives their times.
    splits : mapping, optional
        ``{"train": …, "test": …}``: an interval (start, stop) in s, a list of them, or a mapping
        from column to value(s) that picks rows of a table of intervals. Several test intervals are
        presentations of one movie.
    table : str, optional
        Name of that table, where several have the columns.
    cells : list or mapping, optional
        Ids of the units to keep, or column and value(s), such as ``{"quality": "good"}``.
    cell_types : str, path or mapping, optional
        Column of the units, CSV or JSON file keyed by unit id, or mapping. Default: the column
        ``cell_type``, else "unknown".
    interneuron_types : path or mapping, optional
        From the name of an intracellular series to its type.
    axis_order : str, optional
        ``tyx`` or ``txy`` (also ``xyt``, ``yxt``), as stored. Default: (time, y, x), checked
        against ``dimension``.
    color : str, optional
        What stands for a color: ``luminance``, ``mean``, ``red``, ``green``, ``blue``.
    frame_times : array or str, optional
        Onset of every frame, s (photodiode), in place of the times in the file; or the path in
        the file where these onsets stand.
    frame_rate : float, optional
        Hz. For pictures shown for a while: of the bins. For timestamps: the stated rate, against
        which drift is reported.
    bins_per_frame : int
        Cut every frame into so many bins.
    last_duration : float, optional
        s, how long the last picture of an index series was shown, where nothing says it.
    blank : float, optional
        Intensity while no picture was shown.
    repair_clock : bool
        Show the frame before once more where frames were dropped; leave out frames that were
        replaced at once.
    join_blocks : bool
        Join several train intervals into one train split, one after the other; ``block`` and
        ``session_time`` along time say where each bin comes from. A window of stimulus history
        then reaches into the block before.
    spike_time_unit : str or float
        ``s``, ``ms``, ``us``, or the sampling rate in Hz of spike times in samples.
    trust_paths : bool
        Follow external files that are not in the folder of the file or below.

    Returns
    -------
    xr.DataTree
        Dims and units as in `make_recording`; ``stimulus`` is a dask array that opens the file
        for each block it reads, so the tree can go to other processes. ``/spikes`` holds the exact
        spike times (s), ``/clock`` what is known of the frame clock.

    Raises
    ------
    RetinaCodecError
        Not an NWB file; no units; no stimulus, or one that cannot be read without a guess;
        stimulus and spikes that do not overlap in time; intervals that do not fit the stimulus.
    """
    options = NwbOptions(
        **{name: value for name, value in locals().items() if name != "path"}  # all of the above
    )
    reading = Reading(os.fspath(path))
    with open_nwb(path) as root:
        recording = _interpret(root, os.fspath(path), options, reading)
    reading.warn()
    return recording


def _interpret(root: Node, path: str, options: NwbOptions, reading: Reading) -> xr.DataTree:
    notes = read_notes(root)
    cells = read_cells(root, path, options, reading)
    intervals = read_intervals(root, path, options, reading)
    movies = _movies(root, path, intervals, options, reading)
    _check_overlap(cells, movies, path)
    leave_unobserved(cells, reading)
    splits = [name for name in ("train", "test") if name in movies]
    rate = float(notes.get("frame_rate", movies["test"].clock.rate))
    for movie in movies.values():  # our own files know the rate to the last digit
        movie.clock = replace(movie.clock, rate=rate)
    join_blocks = options.join_blocks or bool(notes.get("joined_blocks"))
    runs = _runs(movies, intervals, path, join_blocks, reading)
    _check_same_movie(movies["test"], runs["test"], path, bool(notes))
    parts: dict[str, xr.Dataset | None] = {"train": None, "test": None, "repeats": None}
    for split in splits:
        movie, found = movies[split], runs[split]
        part = _frames(movie, found, cells, rate, notes)
        counts = [_counts(cells, movie, run) for run in found]
        for run, counted in zip(found, counts, strict=True):
            leave_missing_bins(cells, _onsets(movie, run), movie.clock.stop_of(run.last), counted)
        if split == "train" or (len(found) == 1 and found[0].repeat < 0):
            joined = counts[0] if len(counts) == 1 else np.concatenate(counts)
            if joined.dtype.kind == "f" and np.isfinite(joined).all():
                joined = joined.astype(np.int32)
            part["spike_count"] = (("time", "cell"), joined, {"units": "count"})
        else:
            parts["repeats"] = _repeats(root, movie, found, counts, rate)
        parts[split] = with_further_values(root, part, split)
    pixels = float(notes.get("pixel_size", movies["test"].pixel_size))
    first = movies["test"].clock.onsets[runs["test"][0].first : runs["test"][0].last]
    subject = root.get("general/subject")
    species = subject.text("species") if subject is not None and not subject.is_array else ""
    recording = make_recording(
        train=parts["train"],
        test=parts["test"] if parts["test"] is not None else xr.Dataset(),
        repeats=parts["repeats"],
        interneurons=read_interneurons(root, path, first, rate, options, reading),
        frame_rate=rate,
        pixel_size=pixels,
        session=notes.get("session", root.text("session_description")),
        species=notes.get("species", species or "unknown"),
        source=notes.get("source", PurePath(path.rstrip("/")).name),
        source_sha256=notes.get("source_sha256", ""),
    )
    if intervals is None and not isinstance(options.stimulus, Mapping):
        recording.attrs["split"] = WHOLE_SESSION
    return with_nodes(recording, cells, movies, runs, notes, reading)


def _movies(
    root: Node,
    path: str,
    intervals: list[Interval] | None,
    options: NwbOptions,
    reading: Reading,
) -> dict[str, Stimulus]:
    """Stimulus of every split; the same object where one series holds both."""
    if isinstance(options.stimulus, Mapping):
        unknown = sorted(set(options.stimulus) - {"train", "test"})
        if unknown or "test" not in options.stimulus:
            raise RetinaCodecError(
                f"stimulus must name one for 'test', and may for 'train'; got "
                f"{sorted(options.stimulus)}"
            )
        movies = {
            split: find_stimulus(root, path, name, options, reading)
            for split, name in options.stimulus.items()
        }
        rates = {split: movie.clock.rate for split, movie in movies.items()}
        if max(rates.values()) / min(rates.values()) - 1 > 1e-4:
            raise RetinaCodecError(
                f"{path}: train and test must have one rate of bins; they have {rates} Hz. Pass "
                "frame_rate= (pictures) or open them apart with bins_per_frame=."
            )
        return movies
    movie = find_stimulus(root, path, options.stimulus, options, reading)
    named = {"test"} if intervals is None else {entry.split for entry in intervals}
    if "test" not in named:
        raise RetinaCodecError(f"{path} must have a test interval; it has only train intervals")
    return {split: movie for split in ("train", "test") if split in named}


def _runs(
    movies: dict[str, Stimulus],
    intervals: list[Interval] | None,
    path: str,
    join_blocks: bool,
    reading: Reading,
) -> dict[str, list[Run]]:
    """Bins of every split, presentations of the test movie apart."""
    runs: dict[str, list[Run]] = {}
    for split, movie in movies.items():
        clock = movie.clock
        mine = [entry for entry in intervals or [] if entry.split == split]
        if not mine:
            mine = [Interval(split, -1, float(clock.onsets[0]), clock.stop)]
        found = find_runs(joined_frames(mine, movie.period), clock, path, reading)
        if split == "test" and len(found) == 1 and isinstance(movie.frames, IndexedFrames):
            found = _presentations(movie, found[0], reading)
        if split == "test" and len(found) > 1:
            found = [
                Run(number if run.repeat < 0 else run.repeat, run.first, run.last, run.start)
                for number, run in enumerate(found)
            ]
        if split == "train" and len(found) > 1:
            found = _joined(found, clock.rate)
        if split == "train" and len(found) > 1 and not join_blocks:
            spans = "; ".join(
                f"{run.start:.6g} to {clock.onsets[run.last - 1] + 1 / clock.rate:.6g} s"
                for run in found[:8]
            )
            raise RetinaCodecError(
                f"{path} must have one train interval without gaps; it has {len(found)}: {spans}. "
                "Pass join_blocks=True to put them one after the other, or choose with splits=."
            )
        runs[split] = found
    return runs


def _joined(runs: list[Run], rate: float) -> list[Run]:
    """Join runs that follow each other without a bin between."""
    joined = [runs[0]]
    for run in runs[1:]:
        before = joined[-1]
        if run.first == before.last and (run.start - before.start) * rate < before.bins + 0.5:
            joined[-1] = Run(before.repeat, before.first, run.last, before.start)
        else:
            joined.append(run)
    return joined


def _presentations(movie: Stimulus, run: Run, reading: Reading) -> list[Run]:
    """Cut a run whose frame numbers repeat themselves into presentations."""
    frames = movie.frames
    if not isinstance(frames, IndexedFrames):
        return [run]
    times = periods_of(frames.index[run.first : run.last])
    if times == 1:
        return [run]
    each = run.bins // times
    reading.say(f"repeats: the frame numbers of the test movie repeat {times} times")
    return [
        Run(n, run.first + n * each, run.first + (n + 1) * each, float(start))
        for n, start in enumerate(movie.clock.onsets[run.first : run.last : each])
    ]


def _check_same_movie(movie: Stimulus, runs: list[Run], path: str, ours: bool) -> None:
    """Compare presentations: frame numbers where there are, else first, middle and last frame."""
    shortest = min(run.bins for run in runs)
    if len(runs) == 1 or ours:  # our writer repeats the movie itself
        return
    frames = movie.frames
    places = np.unique([0, shortest // 2, shortest - 1])
    expected = None
    for number, run in enumerate(runs):
        if isinstance(frames, IndexedFrames):
            shown: Any = frames.index[run.first : run.first + shortest]
        else:
            shown = frames.read(run.first + places)
        expected = shown if expected is None else expected
        if not np.array_equal(shown, expected):
            raise RetinaCodecError(
                f"{path}: all test intervals must show the same frames; number {number}, from "
                f"{run.start:.6g} s, shows others than the first. Choose those of one movie with "
                "splits=."
            )


def _frames(
    movie: Stimulus, runs: list[Run], cells: Cells, rate: float, notes: dict[str, Any]
) -> xr.Dataset:
    """Movie of one split with its coordinates: the longest presentation, or all blocks."""
    lazy = lazy_frames(movie.frames)
    blocks = runs if runs[0].repeat < 0 else [max(runs, key=lambda run: run.bins)]
    if len(blocks) == 1:
        shown = lazy[blocks[0].first : blocks[0].last]
    else:
        from dask.array import concatenate

        pieces = [lazy[run.first : run.last] for run in blocks]
        shown = concatenate(pieces)  # type: ignore[no-untyped-call]
    coords: dict[str, Any] = {
        "time": runs[0].start + np.arange(shown.shape[0]) / rate,
        "cell": cells.names,
        "type": ("cell", cells.types),
    }
    coords |= {name: ("cell", values) for name, values in cells.centers.items()}
    coords |= {dim: (dim, np.asarray(notes[dim])) for dim in ("y", "x") if dim in notes}
    part = xr.Dataset({"stimulus": (("time", "y", "x"), shown, {"units": movie.unit})}, coords)
    if len(blocks) > 1:
        number = np.repeat(np.arange(len(blocks)), [run.bins for run in blocks])
        part = part.assign_coords(block=("time", number))
    if runs[0].repeat < 0:
        times = np.concatenate([_onsets(movie, run) for run in blocks])
        if len(blocks) > 1 or not _equal_steps(times, rate):
            part = part.assign_coords(session_time=("time", times, {"units": "s"}))
    if cells.members is not None and "cell_types" in notes:
        part = part.assign_coords(cell_type=np.array(notes["cell_types"], dtype=str))
        part["type_membership"] = (("cell", "cell_type"), cells.members, {"units": "1"})
    return part


def _counts(cells: Cells, movie: Stimulus, run: Run) -> npt.NDArray[Any]:
    """Spikes in the bins of a run, (time, cell)."""
    edges = np.append(_onsets(movie, run), movie.clock.stop_of(run.last))
    return bin_spikes(cells.trains, cells.observed, edges)


def _onsets(movie: Stimulus, run: Run) -> Floats:
    """Left edges of the bins of a run, s."""
    onsets = movie.clock.onsets[run.first : run.last].copy()
    onsets[0] = run.start
    return onsets


def _equal_steps(times: Floats, rate: float) -> bool:
    even = times[0] + np.arange(times.size) / rate
    return bool(np.abs(times - even).max() * rate < EDGE_SLACK)


def _repeats(
    root: Node, movie: Stimulus, runs: list[Run], counts: list[npt.NDArray[Any]], rate: float
) -> xr.Dataset:
    """Rates of all presentations; one that was cut short ends in NaN."""
    longest = max(map(len, counts))
    rates = np.full((len(counts), longest, counts[0].shape[1]), np.nan, dtype=np.float32)
    for index, count in enumerate(counts):
        rates[index, : len(count)] = count.astype(np.float64) * rate
    attrs: dict[str, Any] = {"units": "Hz"}
    kept = root.get(f"processing/misc/{REPEATS_RATE}/data")
    if kept is not None and kept.shape == (rates.shape[0] * longest, rates.shape[2]):
        rates = kept.read().reshape(rates.shape)
        attrs = series_attributes(root, REPEATS_RATE)
    coords: dict[str, Any] = {"start_time": ("repeat", [run.start for run in runs])}
    if not all(_equal_steps(_onsets(movie, run), rate) for run in runs):
        times = np.full(rates.shape[:2], np.nan)
        for index, run in enumerate(runs):
            times[index, : run.bins] = _onsets(movie, run)
        coords["session_time"] = (("repeat", "time"), times, {"units": "s"})
    return xr.Dataset({"rate": (("repeat", "time", "cell"), rates, attrs)}, coords=coords)


def _check_overlap(cells: Cells, movies: dict[str, Stimulus], path: str) -> None:
    """Refuse spikes that cannot be on the clock of the frames."""
    every = np.concatenate(cells.trains)
    if every.size == 0:
        raise RetinaCodecError(f"{path} must have spikes; all {len(cells.trains)} units are empty")
    starts = [float(movie.clock.onsets[0]) for movie in movies.values()]
    stops = [movie.clock.stop for movie in movies.values()]
    inside = any(
        ((every >= start) & (every < stop)).any() for start, stop in zip(starts, stops, strict=True)
    )
    span = f"frames span {min(starts):.6g} to {max(stops):.6g} s"
    found = f"spikes {every.min():.6g} to {every.max():.6g} s"
    session = max(abs(stop) for stop in [*stops, *starts])
    if not inside:
        raise RetinaCodecError(
            f"{path}: stimulus and spikes must overlap in time; {span}, {found}. Put both on the "
            "session clock, in seconds (spike_time_unit=, frame_times=)."
        )
    if float(np.median(every)) > LATER * session:
        raise RetinaCodecError(
            f"{path}: spike times must be in seconds; {span}, {found}, half of them after "
            f"{np.median(every):.6g} s. If they are in ms or samples, pass spike_time_unit='ms' or "
            "the sampling rate in Hz."
        )
