"""Cells of an NWB file: spike times (s), observation intervals, types, and counts in bins.

Ids are labels, never positions; only the columns that are needed are read.
"""

import csv
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retina_codec.errors import RetinaCodecError
from retina_codec.recordings.binning import Floats, bin_spikes
from retina_codec.recordings.nwb.options import Reading
from retina_codec.recordings.nwb.tree import Node, Table

__all__ = [
    "Cells",
    "check_overlap",
    "count_spikes",
    "leave_unobserved",
    "read_cells",
    "types_from",
]

TYPE_COLUMNS = ("cell_type", "celltype", "cell_class", "cell type")
MAYBE_TYPES = ("type", "group", "class", "label", "cluster_type", "functional_type")
LATER = 20.0  # times the session: spikes that late are not in s


@dataclass
class Cells:
    """The recorded cells, in the order of the file.

    Attributes
    ----------
    names : numpy.ndarray, (cell,)
        Unit ids, or names where the file has them.
    trains : list of numpy.ndarray
        Spike times of each cell, s, ascending.
    observed : list of (interval, 2) arrays, or None
        s, when each cell was recorded; None: always.
    types : numpy.ndarray, (cell,)
        "unknown" where unknown.
    centers : dict
        ``center_y``, ``center_x`` (cell,) px, where the file has them.
    members : numpy.ndarray, (cell, cell_type), or None
        As `write_nwb` stores them.
    """

    names: npt.NDArray[Any]
    trains: list[Floats]
    observed: list[Floats] | None
    types: npt.NDArray[Any]
    centers: dict[str, Floats] = field(default_factory=dict)
    members: npt.NDArray[np.float32] | None = None

    def chosen(self, keep: Sequence[int]) -> "Cells":
        """Keep some cells, in this order."""
        return Cells(
            self.names[keep],
            [self.trains[i] for i in keep],
            None if self.observed is None else [self.observed[i] for i in keep],
            self.types[keep],
            {name: values[keep] for name, values in self.centers.items()},
            None if self.members is None else self.members[keep],
        )


def read_cells(root: Node, reading: Reading) -> Cells:
    """Read all cells of a file, or those that ``options.cells`` selects.

    Parameters
    ----------
    root : Node
    reading : Reading
        Options: ``cells``, ``cell_types``, ``spike_time_unit``.

    Returns
    -------
    Cells

    Raises
    ------
    RetinaCodecError
        No units with spike times, a broken table, unknown cells or columns.
    """
    options, table = reading.options, _units_table(root)
    if table is None:
        cells = _old_units(root, reading.path)
        reading.say(f"cells: {len(cells.names)} units of an old UnitTimes module")
    else:
        cells = _from_table(table, reading.path)
        reading.say(f"cells: {len(cells.names)} units of {table.path}")
    if options.cell_types is not None:
        cells.types = types_from(options.cell_types, cells.names, table, reading.path, "cell")
    elif table is not None:
        found = [name for name in table if name.lower() in MAYBE_TYPES]
        if found and (cells.types == "unknown").all():
            reading.say(
                f"cell types: unknown; the units have the column{'s' * (len(found) > 1)} "
                f"{', '.join(found)} (cell_types=NAME takes one)"
            )
    if options.cells is not None:
        cells = cells.chosen(_chosen(options.cells, cells.names, table, reading.path))
    _mend_trains(cells, reading)
    return cells


def check_overlap(cells: Cells, spans: Sequence[tuple[float, float]], reading: Reading) -> None:
    """Refuse spikes that cannot be on the clock of the frames.

    Parameters
    ----------
    cells : Cells
    spans : sequence of (float, float)
        s, first and last time of each movie.
    reading : Reading

    Raises
    ------
    RetinaCodecError
        No spikes, none within the movies, or half of them far behind the session.
    """
    every, path = np.concatenate(cells.trains), reading.path
    if every.size == 0:
        raise RetinaCodecError(f"{path} must have spikes; all {len(cells.trains)} units are empty")
    inside = any(((every >= start) & (every < stop)).any() for start, stop in spans)
    first, last = min(start for start, _ in spans), max(stop for _, stop in spans)
    span = f"frames span {first:.6g} to {last:.6g} s"
    found = f"spikes {every.min():.6g} to {every.max():.6g} s"
    if not inside:
        raise RetinaCodecError(
            f"{path}: stimulus and spikes must overlap in time; {span}, {found}. Put both on the "
            "session clock, in seconds (spike_time_unit=, frame_times=)."
        )
    if float(np.median(every)) > LATER * max(abs(time) for each in spans for time in each):
        raise RetinaCodecError(
            f"{path}: spike times must be in seconds; {span}, {found}, half of them after "
            f"{np.median(every):.6g} s. If they are in ms or samples, pass spike_time_unit='ms' or "
            "the sampling rate in Hz."
        )


def leave_unobserved(cells: Cells, reading: Reading) -> None:
    """Leave out spikes outside the observation intervals of their cell; report how many."""
    for number, (train, intervals) in enumerate(
        zip(cells.trains, cells.observed or (), strict=False)
    ):
        rows = intervals[np.argsort(intervals[:, 0])]
        latest = np.searchsorted(rows[:, 0], train, side="right") - 1
        seen = latest >= 0
        seen[seen] = train[seen] <= rows[latest[seen], 1]
        if not seen.all():
            reading.doubt(
                f"unit {cells.names[number]} has {int((~seen).sum())} spikes outside its "
                "obs_intervals; left out"
            )
            cells.trains[number] = train[seen]


def count_spikes(cells: Cells, edges: Floats) -> npt.NDArray[Any]:
    """Count spikes in bins; leave out spikes of bins that were not observed to their middle.

    Parameters
    ----------
    cells : Cells
        Changed: trains without the spikes that are left out.
    edges : numpy.ndarray, (time + 1,)
        s, onsets of the bins and the end of the last.

    Returns
    -------
    numpy.ndarray, (time, cell)
        See `bin_spikes`.
    """
    counts = bin_spikes(cells.trains, cells.observed, edges)
    if counts.dtype.kind != "f":
        return counts
    for number in np.flatnonzero(np.isnan(counts).any(axis=0)):
        train = cells.trains[number]
        place = np.searchsorted(edges[:-1], train, side="right") - 1
        within = (place >= 0) & (train < edges[-1])
        missing = np.zeros(train.size, dtype=bool)
        missing[within] = np.isnan(counts[place[within], number])
        cells.trains[number] = train[~missing]
    return counts


def _modules(root: Node) -> list[Node]:
    """All groups in processing modules."""
    return [node for module in root.groups("processing") for node in module.members()]


def _units_table(root: Node) -> Table | None:
    units = root.get("units")
    for node in [*([] if units is None else [units]), *_modules(root)]:
        if node.stored("spike_times") is not None:
            return Table(node)
    return None


def _from_table(table: Table, path: str) -> Cells:
    trains = table["spike_times"]
    if not isinstance(trains, list):
        trains = [np.atleast_1d(train) for train in trains]
    if not trains:
        raise RetinaCodecError(f"{path} must have units with spike times; the table is empty")
    names = np.asarray(table["id"] if "id" in table else np.arange(len(trains)))
    if len(names) != len(trains):
        raise RetinaCodecError(
            f"{path}: units must have one spike train per id; {len(names)} ids, {len(trains)} "
            "trains. The file is damaged."
        )
    if "cell_name" in table:
        names = np.array([str(entry) for entry in table["cell_name"]], dtype=str)
    unique, counts = np.unique(names, return_counts=True)
    if (counts > 1).any():
        raise RetinaCodecError(
            f"{path}: units must have different ids; repeated: {unique[counts > 1].tolist()}"
        )
    observed = None
    if "obs_intervals" in table:
        rows = table["obs_intervals"]
        observed = [np.asarray(entry, dtype=np.float64).reshape(-1, 2) for entry in rows]
    named = next((name for name in table if name.lower() in TYPE_COLUMNS), None)
    types = np.full(len(trains), "unknown") if named is None else clean_types(table[named])
    cells = Cells(names, [np.asarray(train, dtype=np.float64) for train in trains], observed, types)
    for center in ("center_y", "center_x"):
        if center in table:
            cells.centers[center] = np.asarray(table[center], dtype=np.float64)
    if "type_membership" in table:
        cells.members = np.asarray(table["type_membership"], dtype=np.float32)
    return cells


def _old_units(root: Node, path: str) -> Cells:
    """Spike trains of NWB before version 2: a module with one group per unit."""
    for group in _modules(root):
        if "UnitTimes" in (group.kind, group.name):
            found = {unit.name: unit.stored("times") for unit in group.members()}
            trains = {n: t.read().astype(np.float64) for n, t in found.items() if t is not None}
            if trains:
                names = np.array(list(trains), dtype=str)
                return Cells(names, list(trains.values()), None, np.full(len(names), "unknown"))
    raise RetinaCodecError(
        f"{path} must have units with spike times; it has none. Sort the recording first, or open "
        "the file that holds the sorted units."
    )


def _mend_trains(cells: Cells, reading: Reading) -> None:
    """Convert trains to seconds and sort them; report which were not sorted."""
    unit, factors = reading.options.spike_time_unit, {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6}
    if isinstance(unit, str) and unit not in factors:
        raise RetinaCodecError(
            f"spike_time_unit must be s, ms, us, or the sampling rate in Hz of spike times in "
            f"samples; got {unit!r}"
        )
    factor = factors[unit] if isinstance(unit, str) else 1.0 / float(unit)
    unsorted, doubled = [], []
    for number, train in enumerate(cells.trains):
        if not np.isfinite(train).all():
            raise RetinaCodecError(
                f"{reading.path}: spike times of unit {cells.names[number]} must be finite; some "
                "are not"
            )
        if factor != 1.0:
            train = train * factor
        if (np.diff(train) < 0).any():
            unsorted.append(str(cells.names[number]))
            train = np.sort(train)
        if (np.diff(train) == 0).any():
            doubled.append(str(cells.names[number]))
        cells.trains[number] = train
    if unsorted:
        reading.doubt(f"spike times of units {', '.join(unsorted[:10])} were unsorted; sorted now")
    if doubled:
        reading.doubt(f"units {', '.join(doubled[:10])} have spikes at the same instant; all kept")


def _chosen(
    cells: Sequence[Any] | Mapping[str, Any],
    names: npt.NDArray[Any],
    table: Table | None,
    path: str,
) -> list[int]:
    """Positions of the cells that the user selects."""
    if isinstance(cells, Mapping):
        keep = np.ones(len(names), dtype=bool)
        for name, wanted in cells.items():
            if table is None:
                raise RetinaCodecError(f"{path}: there is no table with a column {name!r}")
            accepted = [wanted] if isinstance(wanted, str | int | float) else list(wanted)
            texts = {str(entry) for entry in accepted}
            keep &= np.array([str(value) in texts for value in table[name]])
        if not keep.any():
            raise RetinaCodecError(f"{path}: no unit has {dict(cells)}")
        return np.flatnonzero(keep).tolist()
    place = {str(name): number for number, name in enumerate(names)}
    missing = [entry for entry in cells if str(entry) not in place]
    if missing or not len(cells):
        raise RetinaCodecError(
            f"{path}: cells must be ids of its units, {[str(n) for n in names[:20]]}; "
            f"it lacks {missing}"
        )
    return [place[str(entry)] for entry in cells]


TYPE_WORDS = ("unknown", "", "nan", "none", "n/a", "null")


def types_from(
    source: Any, names: npt.NDArray[Any], table: Table | None, path: str, what: str
) -> npt.NDArray[Any]:
    """Look up the type of each cell in a column, a CSV or JSON file, or a mapping.

    Parameters
    ----------
    source : str, path or mapping
        Name of a column of the table, a ``.csv`` (first column the id; the type in the column
        ``cell_type`` or ``type``, else the second) or ``.json`` (an object from id to type), or a
        mapping from id to type.
    names : numpy.ndarray
        Ids, as the file has them.
    table : Table or None
    path : str
        For messages.
    what : str
        "cell" or "interneuron", for messages.

    Returns
    -------
    numpy.ndarray, (cell,)
        "unknown" where the source has nothing.

    Raises
    ------
    RetinaCodecError
        No such column or file, or none of the ids is in it.
    """
    if not isinstance(source, Mapping):
        text = os.fspath(source)
        if Path(text).suffix.lower() not in (".csv", ".json"):
            if table is None:
                raise RetinaCodecError(f"{path}: there is no table with a column {text!r}")
            values = table[text]
            if isinstance(values, list) or len(values) != len(names):
                raise RetinaCodecError(f"{path}: the column {text!r} must have one value per row")
            return clean_types(values)
        source = _mapping_from(Path(text))
    known = {str(key).strip(): value for key, value in source.items()}
    found = [known.get(str(name)) for name in names]
    if all(entry is None for entry in found):
        raise RetinaCodecError(
            f"the types must be keyed by {what} id, such as {[str(n) for n in names[:5]]}; the "
            f"keys given are {sorted(known)[:5]}"
        )
    return clean_types(["unknown" if entry is None else entry for entry in found])


def clean_types(values: Any) -> npt.NDArray[Any]:
    """Strip texts; "unknown" where they are empty or say that the type is not known."""
    words = [str(value).strip() for value in values]
    return np.array(["unknown" if w.lower() in TYPE_WORDS else w for w in words], dtype=str)


def _mapping_from(file: Path) -> Mapping[str, Any]:
    if not file.is_file():
        raise RetinaCodecError(f"there must be a table of cell types at {file}; no file is there")
    text = file.read_text(encoding="utf-8-sig")
    if file.suffix.lower() == ".json":
        try:
            found = json.loads(text)
        except ValueError as error:
            raise RetinaCodecError(f"{file} must be JSON; {error}") from error
        if not isinstance(found, dict):
            raise RetinaCodecError(f"{file} must be an object from id to type")
        return found
    rows = [row for row in csv.reader(text.splitlines()) if row]
    if not rows or len(rows[0]) < 2:
        raise RetinaCodecError(f"{file} must have an id and a type in every row")
    head = [entry.strip().lower() for entry in rows[0]]
    named = [name for name in ("cell_type", "type") if name in head]
    place = head.index(named[0]) if named else 1
    return {row[0].strip(): row[place] for row in rows if len(row) > place}
