"""From an NWB file to a recording: everything is read but the frames.

The frames stay on disk behind a dask array. A file that this reader does not understand is refused
with the reason; it never guesses a missing time, never fills a gap, never truncates in silence.
"""

import json
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.recordings.nwb_session import EDGE_SLACK, NOTES_KEY, Floats, bin_spikes
from retina_codec.recordings.nwb_stimulus import (
    choose_series,
    frame_clock,
    lazy_frames,
    pixel_size,
)
from retina_codec.recordings.schema import make_recording

__all__ = ["read_nwb"]

JITTER = 0.1  # of a frame: more is a dropped frame or another clock, not rounding
WHOLE_SESSION = "no split intervals in the file: the whole session is the test split"


def read_nwb(path: str | os.PathLike[str], *, stimulus: str | None = None) -> xr.DataTree:
    """Open an NWB file as a recording, without reading its frames.

    Spikes are counted in the bins of the frames. Trials, or any table of intervals with a ``split``
    column ("train", "test"; other words are passed over), cut the session; ``repeat`` numbers the
    presentations of the test movie. Without such a table the whole session becomes the test split,
    and the attribute ``split`` says so. Outside a unit's observation intervals its rate is NaN.

    Parameters
    ----------
    path : path
        An NWB file (HDF5).
    stimulus : str, optional
        Name of the image series, where the file has several.

    Returns
    -------
    xr.DataTree
        Dims and units as in `make_recording`; ``stimulus`` is a dask array that opens the file
        for each block it reads, so the tree can go to other processes.

    Raises
    ------
    RetinaCodecError
        Not an NWB file; no units; no stimulus, or one of an unsupported kind; stimulus and spikes
        that do not overlap in time; intervals that do not fit the stimulus.
    """
    from pynwb import NWBHDF5IO

    if not Path(path).is_file():
        raise RetinaCodecError(f"there must be an NWB file at {path}; no file is there")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about namespaces cached in the file
            with NWBHDF5IO(path, "r", load_namespaces=True) as stream:
                return _interpret(stream.read(), Path(path), stimulus)
    except RetinaCodecError:
        raise
    except Exception as error:  # pynwb answers a foreign file with errors of many kinds
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise RetinaCodecError(
            f"{path} must be an NWB file (HDF5) that pynwb can read; it is not ({line[:120]})"
        ) from error


def _interpret(nwbfile: Any, path: Path, stimulus: str | None) -> xr.DataTree:
    units = nwbfile.units
    if units is None or "spike_times" not in units.colnames or len(units) == 0:
        raise RetinaCodecError(f"{path} must have units with spike times; it has none")
    series = choose_series(nwbfile, path, stimulus)
    times, rate = frame_clock(series, path)
    spikes = [np.sort(np.asarray(train, dtype=np.float64)) for train in units["spike_times"][:]]
    _check_overlap(spikes, times, rate, path)
    observed = None
    if "obs_intervals" in units.colnames:
        observed = [np.asarray(rows, dtype=np.float64) for rows in units["obs_intervals"][:]]
    notes = _notes(nwbfile)
    pixels = {dim: (dim, np.asarray(notes[dim])) for dim in ("y", "x") if dim in notes}
    frames = xr.Dataset(
        {"stimulus": (("time", "y", "x"), lazy_frames(series), {"units": series.unit})},
        coords=_cells(units, notes) | pixels,
    )
    frames = frames.reset_coords([name for name in ("type_membership",) if name in frames.coords])
    rate = float(notes.get("frame_rate", rate))
    shown = _intervals(nwbfile, times, rate, path)
    parts: dict[str, xr.Dataset | None] = {"train": None, "test": None, "repeats": None}
    for split in ("train", "test"):
        ranges = [
            (repeat, first, last) for name, repeat, first, last in shown or [] if name == split
        ]
        if shown is None and split == "test":
            ranges = [(-1, 0, times.size)]
        if not ranges:
            continue
        if split == "train" and len(ranges) > 1:
            raise RetinaCodecError(
                f"{path} must have one train interval without gaps; it has {len(ranges)}"
            )
        _, first, last = max(ranges, key=lambda entry: entry[2] - entry[1])
        start = times[ranges[0][1]]
        for _, a, b in ranges:
            _check_regular(times[a:b], rate, path)
        part = frames.isel(time=slice(first, last))
        part = part.assign_coords(time=start + np.arange(last - first) / rate)
        counts = [bin_spikes(spikes, observed, times[a:b], rate) for _, a, b in ranges]
        if split == "train" or (len(ranges) == 1 and ranges[0][0] < 0):
            dtype = np.int32 if np.isfinite(counts[0]).all() else np.float32
            part["spike_count"] = (("time", "cell"), counts[0].astype(dtype), {"units": "count"})
        else:
            parts["repeats"] = _repeats(ranges, counts, times, rate)
        parts[split] = _with_extras(nwbfile, part, split)
    if parts["test"] is None:
        raise RetinaCodecError(f"{path} must have a test interval; it has only train intervals")
    recording = make_recording(
        train=parts["train"],
        test=parts["test"],
        repeats=parts["repeats"],
        interneurons=_interneurons(nwbfile, rate),
        frame_rate=rate,
        pixel_size=pixel_size(series, notes),
        session=notes.get("session", nwbfile.session_description),
        species=notes.get("species", getattr(nwbfile.subject, "species", None) or "unknown"),
        source=notes.get("source", path.name),
        source_sha256=notes.get("source_sha256", ""),
    )
    if shown is None:
        recording.attrs["split"] = WHOLE_SESSION
    return recording


def _check_regular(times: Floats, rate: float, path: Path) -> None:
    late = np.abs(times - times[0] - np.arange(times.size) / rate) * rate
    if late.max() > JITTER:
        first = int(np.argmax(late > JITTER))
        raise RetinaCodecError(
            f"{path}: frames must follow each other at {rate:.6g} Hz within a split; the frame at "
            f"{times[first]:.6g} s is off by {late[first]:.3g} frames. Cut the session there."
        )


def _check_overlap(spikes: list[Floats], times: Floats, rate: float, path: Path) -> None:
    every = np.concatenate(spikes)
    if every.size == 0:
        raise RetinaCodecError(f"{path} must have spikes; all {len(spikes)} units are empty")
    stop = times[-1] + 1.0 / rate
    if not ((every >= times[0]) & (every < stop)).any():
        raise RetinaCodecError(
            f"{path}: stimulus and spikes must overlap in time; frames span "
            f"{times[0]:.6g} to {stop:.6g} s, spikes {every.min():.6g} to {every.max():.6g} s. "
            "Put both on the session clock, in seconds."
        )


def _notes(nwbfile: Any) -> dict[str, Any]:
    """Read what our writer kept in words; empty for files of others."""
    try:
        notes = json.loads(nwbfile.notes or "{}")[NOTES_KEY]
    except (json.JSONDecodeError, KeyError, TypeError):
        return {}
    return notes if isinstance(notes, dict) else {}


def _cells(units: Any, notes: dict[str, Any]) -> dict[str, Any]:
    """Coordinates along cell."""
    names = np.asarray(units.id[:])
    if "cell_name" in units.colnames:
        names = _texts(units["cell_name"][:])
    types = np.full(names.size, "unknown", dtype=object)
    if "cell_type" in units.colnames:
        for index, text in enumerate(np.char.strip(_texts(units["cell_type"][:]))):
            types[index] = "unknown" if text.lower() in ("", "nan", "none") else text
    cells: dict[str, Any] = {"cell": ("cell", names), "type": ("cell", types.astype(str))}
    for name in ("center_y", "center_x"):
        if name in units.colnames:
            cells[name] = ("cell", np.asarray(units[name][:], dtype=np.float64))
    if "type_membership" in units.colnames and "cell_types" in notes:
        cells["cell_type"] = np.array(notes["cell_types"], dtype=str)
        member = np.asarray(units["type_membership"][:], dtype=np.float32)
        cells["type_membership"] = (("cell", "cell_type"), member, {"units": "1"})
    return cells


def _texts(values: Any) -> npt.NDArray[np.str_]:
    """Plain text; HDF5 gives bytes where text has a fixed width."""
    return np.array([v.decode() if isinstance(v, bytes) else str(v) for v in values], dtype=str)


def _intervals(
    nwbfile: Any, times: Floats, rate: float, path: Path
) -> list[tuple[str, int, int, int]] | None:
    """(split, repeat, first frame, frame after the last) in order of time; None without a table."""
    tables = [nwbfile.trials] if nwbfile.trials is not None else []
    tables += list((nwbfile.intervals or {}).values())
    table = next((table for table in tables if "split" in table.colnames), None)
    if table is None:
        return None
    rows: list[tuple[str, int, int, int]] = []
    splits = _texts(table["split"][:])
    repeats = table["repeat"][:] if "repeat" in table.colnames else np.full(len(splits), -1)
    starts, stops = table["start_time"][:], table["stop_time"][:]
    for index in np.argsort(starts, kind="stable"):
        split = str(splits[index])
        if split not in ("train", "test"):
            continue
        start, stop = float(starts[index]), float(stops[index])
        first = int(np.searchsorted(times, start - 0.5 / rate))
        last = first + (round((stop - start) * rate) if np.isfinite(stop - start) else 0)
        inside = first < last <= times.size and abs(times[first] - start) * rate < 0.5
        if not inside or abs(times[last - 1] + 1 / rate - stop) * rate >= 0.5:
            raise RetinaCodecError(
                f"{path}: the {split} interval {start:.6g} to {stop:.6g} s must be covered by "
                f"frames without gaps; they span {times[0]:.6g} to {times[-1] + 1 / rate:.6g} s"
            )
        if abs(times[first] - start) * rate < EDGE_SLACK:
            times[first] = start  # the same instant; the table's digits are the exact ones
        rows.append((split, _repeat_number(repeats[index], path), first, last))
    if not rows:
        raise RetinaCodecError(f"{path}: split must say 'train' or 'test'; no interval does")
    return rows


def _repeat_number(value: Any, path: Path) -> int:
    """Read the number of a presentation; −1 for no repeat, which others write as NaN."""
    try:
        return -1 if np.isnan(float(value)) else int(value)
    except ValueError as error:
        raise RetinaCodecError(f"{path}: repeat must be a number; got {value!r}") from error


def _repeats(
    ranges: list[tuple[int, int, int]], counts: list[Floats], times: Floats, rate: float
) -> xr.Dataset:
    """Rates of all presentations; a presentation that was cut short ends in NaN."""
    longest = max(map(len, counts))
    rates = np.full((len(counts), longest, counts[0].shape[1]), np.nan, dtype=np.float32)
    for index, count in enumerate(counts):
        rates[index, : len(count)] = count * rate
    return xr.Dataset(
        {"rate": (("repeat", "time", "cell"), rates)},
        coords={"start_time": ("repeat", [times[first] for _, first, _ in ranges])},
    )


def _with_extras(nwbfile: Any, part: xr.Dataset, split: str) -> xr.Dataset:
    """Further (time, cell) values that our writer kept, such as the noise-free rate."""
    if "misc" not in nwbfile.processing:
        return part
    for name, series in nwbfile.processing["misc"].data_interfaces.items():
        shape = (part.sizes["time"], part.sizes["cell"])
        if name.startswith(f"{split}_") and tuple(series.data.shape) == shape:
            attrs = {"units": series.unit, "long_name": series.description}
            part[name.removeprefix(f"{split}_")] = (("time", "cell"), series.data[:], attrs)
    return part


def _interneurons(nwbfile: Any, rate: float) -> xr.Dataset | None:
    module = nwbfile.processing.get("icephys")
    if module is None or "interneuron_potential" not in module.data_interfaces:
        return None
    series, table = module["interneuron_potential"], module["interneurons"]
    start = float(series.starting_time or 0.0)
    coords: dict[str, Any] = {
        "time": start + np.arange(len(series.data)) / rate,
    }
    columns = {"interneuron": "label"} | {n: n for n in ("type", "center_y", "center_x")}
    for name, column in columns.items():
        if column in table.colnames:
            entries = np.asarray(table[column][:])
            numbers = entries.dtype.kind in "iuf"
            coords[name] = ("interneuron", entries if numbers else _texts(entries))
    values = {"potential": (("time", "interneuron"), series.data[:], {"units": series.unit})}
    return xr.Dataset(values, coords=coords)
