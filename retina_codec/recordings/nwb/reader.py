"""Read an NWB file as a recording; frames stay on disk, all else is read.

What a file leaves open must be given as an option: times are never guessed, gaps never filled.
"""

import os
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import PurePath
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.errors import RetinaCodecError, option
from retina_codec.recordings.binning import EDGE_SLACK, Floats
from retina_codec.recordings.doubts import frame_doubts
from retina_codec.recordings.frames.lazy import lazy_frames, read_few
from retina_codec.recordings.nwb.extras import (
    read_notes,
    read_repeats_rate,
    with_further_values,
    with_nodes,
)
from retina_codec.recordings.nwb.interneurons import read_interneurons
from retina_codec.recordings.nwb.open import open_nwb
from retina_codec.recordings.nwb.options import NwbOptions, Reading
from retina_codec.recordings.nwb.splits import Split, find_splits
from retina_codec.recordings.nwb.tree import Node
from retina_codec.recordings.nwb.units import (
    Cells,
    check_overlap,
    count_spikes,
    leave_unobserved,
    read_cells,
)
from retina_codec.recordings.schema import make_recording
from retina_codec.storage.hdf5 import naming_file

__all__ = ["read_nwb"]

WHOLE_SESSION = "no split intervals in the file: the whole session is the test split"


def read_nwb(
    path: str | os.PathLike[str], options: NwbOptions | None = None, **further: Any
) -> xr.DataTree:
    """Open an NWB file as a recording, without reading its frames.

    Spikes are counted in the bins of the frames, from onset to onset, on the session clock. A table
    of intervals with a ``split`` column ("train", "test"; other words are passed over) cuts the
    session; ``repeat`` numbers the presentations of the test movie. Without such a table and
    without ``splits`` the whole session becomes the test split, and the attribute ``split`` says
    so. Outside a unit's observation intervals its rate is NaN. The attribute ``reading`` reports
    how everything was read; what looks wrong is also a warning.

    Parameters
    ----------
    path : path
        An NWB file (HDF5, or a Zarr folder as hdmf-zarr writes), or its address.
    options : NwbOptions, optional
        What the file does not say itself.
    **further
        Fields of `NwbOptions` by name, which take precedence: ``stimulus="movie"``.

    Returns
    -------
    xr.DataTree
        Dims and units as in `make_recording`; ``stimulus`` is a dask array that opens the file
        for each block it reads, so the tree can go to other processes. ``/spikes`` holds the exact
        spike times (s), ``/clock`` offset, jitter and drift of the frame clock.

    Raises
    ------
    RetinaCodecError
        An unknown option, or a value that it cannot have, before the file is opened; not an NWB
        file; no units; no stimulus, or one whose frames or times are not fully known; stimulus and
        spikes that do not overlap in time; intervals that do not fit the stimulus.
    """
    valid = [field.name for field in fields(NwbOptions)]
    for name in further:
        if name not in valid:
            raise RetinaCodecError(
                f"the options of NWB are {', '.join(valid)}; got {name!r}. Correct its name."
            )
    reading = Reading(os.fspath(path), replace(options or NwbOptions(), **further))
    with naming_file(path), open_nwb(path) as root:
        recording = _interpret(root, reading)
    reading.warn()
    return recording


def _interpret(root: Node, reading: Reading) -> xr.DataTree:
    notes = read_notes(root)
    cells = read_cells(root, reading)
    splits = find_splits(root, notes, reading)
    if not notes:
        _check_same_movie(splits["test"], reading.path)
    for doubt in frame_doubts(_samples(splits)):
        reading.doubt(doubt)
    check_overlap(cells, [split.movie.clock for split in splits.values()], reading)
    leave_unobserved(cells, reading)
    counted = {
        name: [count_spikes(cells, edges) for edges in split.edges]
        for name, split in splits.items()
    }
    parts, repeats = {}, None
    for name, split in splits.items():
        part, counts = _frames(split, cells, notes), counted[name]
        if split.runs[0].repeat < 0:
            joined = counts[0] if len(counts) == 1 else np.concatenate(counts)
            if joined.dtype.kind == "f" and np.isfinite(joined).all():
                joined = joined.astype(np.int32)
            part["spike_count"] = (("time", "cell"), joined, {"units": "count"})
        else:
            repeats = _repeats(root, split, counts)
        parts[name] = with_further_values(root, part, name)
    test, first = splits["test"], splits["test"].runs[0]
    onsets = test.movie.clock.onsets[first.first : first.last]
    subject = root.get("general/subject")
    species = "" if subject is None else subject.text("species")
    recording = make_recording(
        train=parts.get("train"),
        test=parts["test"],
        repeats=repeats,
        interneurons=read_interneurons(root, onsets, test.movie.clock.rate, reading),
        frame_rate=test.movie.clock.rate,
        pixel_size=float(notes.get("pixel_size", test.movie.pixel_size)),
        session=notes.get("session", root.text("session_description")),
        species=notes.get("species", species or "unknown"),
        source=notes.get("source", PurePath(reading.path.rstrip("/")).name),
        source_sha256=notes.get("source_sha256", ""),
    )
    if test.whole:
        recording.attrs["split"] = WHOLE_SESSION
        parts_of = option("splits", {"train": ["START", "STOP"], "test": ["START", "STOP"]})
        reading.doubt(f"{WHOLE_SESSION}; {parts_of} says otherwise", apart=True)
    return with_nodes(recording, cells, splits, notes, reading)


def _samples(splits: Mapping[str, Split]) -> dict[str, npt.NDArray[Any]]:
    """Three frames of each split where they may be on different scales, or not finite."""
    movies = [split.movie.frames for split in splits.values()]
    if movies[0] is movies[-1] and movies[0].dtype.kind != "f":
        return {}
    found = {}
    for name, split in splits.items():
        run = split.runs[0]
        numbers = np.unique([run.first, run.first + run.bins // 2, run.last - 1])
        found[name] = read_few(split.movie.frames, numbers)
    return found


def _check_same_movie(split: Split, path: str) -> None:
    """Compare presentations: numbers of pictures, else the first, middle and last frame."""
    movie, runs = split.movie, split.runs
    if len(runs) == 1:
        return
    shortest = min(run.bins for run in runs)
    places = np.unique([0, shortest // 2, shortest - 1])
    expected, few = None, np.empty(0)
    if movie.numbers is None:
        few = read_few(movie.frames, np.concatenate([run.first + places for run in runs]))
    for number, run in enumerate(runs):
        if movie.numbers is None:
            shown: Any = few[number * places.size : (number + 1) * places.size]
        else:
            shown = movie.numbers[run.first : run.first + shortest]
        expected = shown if expected is None else expected
        if not np.array_equal(shown, expected):
            raise RetinaCodecError(
                f"{path}: all test intervals must show the same frames; number {number}, from "
                f"{run.start:.6g} s, shows others than the first. Choose those of one movie with "
                f"{option('splits', {'test': ['START', 'STOP']})}."
            )


def _frames(split: Split, cells: Cells, notes: Mapping[str, Any]) -> xr.Dataset:
    """Movie of one split with its coordinates: the longest presentation, or all blocks."""
    lazy, runs, rate = lazy_frames(split.movie.frames), split.runs, split.movie.clock.rate
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
    stimulus = (("time", "y", "x"), shown, {"units": split.movie.unit})
    part = xr.Dataset({"stimulus": stimulus}, coords)
    if len(blocks) > 1:
        number = np.repeat(np.arange(len(blocks)), [run.bins for run in blocks])
        part = part.assign_coords(block=("time", number))
    if runs[0].repeat < 0:
        times = np.concatenate([edges[:-1] for edges in split.edges])
        if len(blocks) > 1 or not _equal_steps(times, rate):
            part = part.assign_coords(session_time=("time", times, {"units": "s"}))
    if cells.members is not None and "cell_types" in notes:
        part = part.assign_coords(cell_type=np.array(notes["cell_types"], dtype=str))
        part["type_membership"] = (("cell", "cell_type"), cells.members, {"units": "1"})
    return part


def _equal_steps(times: Floats, rate: float) -> bool:
    even = times[0] + np.arange(times.size) / rate
    return bool(np.abs(times - even).max() * rate < EDGE_SLACK)


def _repeats(root: Node, split: Split, counts: list[npt.NDArray[Any]]) -> xr.Dataset:
    """Rates of all presentations; one that was cut short ends in NaN."""
    rate, longest = split.movie.clock.rate, max(map(len, counts))
    rates = np.full((len(counts), longest, counts[0].shape[1]), np.nan, dtype=np.float32)
    for index, count in enumerate(counts):
        rates[index, : len(count)] = count.astype(np.float64) * rate
    kept = read_repeats_rate(root, rates.shape)
    values, attrs = (rates, {"units": "Hz"}) if kept is None else kept
    coords: dict[str, Any] = {"start_time": ("repeat", [run.start for run in split.runs])}
    onsets = [edges[:-1] for edges in split.edges]
    if not all(_equal_steps(each, rate) for each in onsets):
        times = np.full(rates.shape[:2], np.nan)
        for index, each in enumerate(onsets):
            times[index, : each.size] = each
        coords["session_time"] = (("repeat", "time"), times, {"units": "s"})
    return xr.Dataset({"rate": (("repeat", "time", "cell"), values, attrs)}, coords=coords)
