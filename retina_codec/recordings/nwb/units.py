"""The cells of an NWB file: spike times, when each was recorded, who it is.

Ids are labels, never positions. Spike trains may be empty; unsorted ones are sorted and said so.
Columns are read one by one, none that is not needed.
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
from retina_codec.recordings.nwb.options import NwbOptions, Reading
from retina_codec.recordings.nwb.session import Floats
from retina_codec.recordings.nwb.tree import Node, column, texts

__all__ = [
    "Cells",
    "clean_types",
    "leave_missing_bins",
    "leave_unobserved",
    "read_cells",
    "types_from",
]

TYPE_COLUMNS = ("cell_type", "celltype", "cell_class", "cell type")


MAYBE_TYPES = ("type", "group", "class", "label", "cluster_type", "functional_type")


LATER = 20.0  # times the session: spikes there are in other units


@dataclass
class Cells:
    """What is known of the recorded cells, in the order of the file.

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
        As our writer keeps them.
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


def read_cells(root: Node, path: str, options: NwbOptions, reading: Reading) -> Cells:
    """Read all cells of a file, or those asked for.

    Parameters
    ----------
    root : Node
    path : str
        For messages.
    options : NwbOptions
        ``cells``, ``cell_types``, ``spike_time_unit``.
    reading : Reading

    Returns
    -------
    Cells

    Raises
    ------
    RetinaCodecError
        No units with spike times, a broken table, unknown cells or columns.
    """
    table = _units_table(root)
    if table is None:
        cells = _old_units(root, path)
        reading.say(f"cells: {len(cells.names)} units of an old UnitTimes module")
        rows = None
    else:
        cells = _from_table(table, path)
        rows = table
        reading.say(f"cells: {len(cells.names)} units of {table.path}")
    if options.cell_types is not None:
        cells.types = types_from(options.cell_types, cells.names, rows, path, "cell")
    elif rows is not None:
        found = [name for name in rows.names() if name.lower() in MAYBE_TYPES]
        if found and (cells.types == "unknown").all():
            reading.say(
                f"cell types: unknown; the units have the column{'s' * (len(found) > 1)} "
                f"{', '.join(found)} (cell_types=NAME takes one)"
            )
    if options.cells is not None:
        cells = cells.chosen(_chosen(options.cells, cells.names, rows, path))
    _mend_trains(cells, options.spike_time_unit, path, reading)
    return cells


def leave_unobserved(cells: Cells, reading: Reading) -> None:
    """Leave out spikes at times at which their cell was, by the file, not recorded."""
    for number, (train, intervals) in enumerate(
        zip(cells.trains, cells.observed or (), strict=False)
    ):
        rows = intervals[np.argsort(intervals[:, 0])]
        latest = np.searchsorted(rows[:, 0], train, side="right") - 1
        inside = latest >= 0
        inside[inside] = train[inside] <= rows[latest[inside], 1]
        if not inside.all():
            reading.doubt(
                f"unit {cells.names[number]} has {int((~inside).sum())} spikes outside its "
                "obs_intervals; left out"
            )
            cells.trains[number] = train[inside]


def leave_missing_bins(cells: Cells, onsets: Floats, stop: float, counts: npt.NDArray[Any]) -> None:
    """Leave out spikes of bins that are missing because they were not observed to their middle.

    Parameters
    ----------
    cells : Cells
        Changed.
    onsets : numpy.ndarray, (time,)
        s.
    stop : float
        s, end of the last bin.
    counts : numpy.ndarray, (time, cell)
        NaN where missing.
    """
    if counts.dtype.kind != "f":
        return
    for number in np.flatnonzero(np.isnan(counts).any(axis=0)):
        train = cells.trains[number]
        place = np.searchsorted(onsets, train, side="right") - 1
        within = (place >= 0) & (train < stop)
        missing = np.zeros(train.size, dtype=bool)
        missing[within] = np.isnan(counts[place[within], number])
        cells.trains[number] = train[~missing]


def _units_table(root: Node) -> Node | None:
    units = root.get("units")
    if units is not None and units.get("spike_times") is not None:
        return units
    processing = root.get("processing")
    for module in processing.members() if processing is not None else ():
        for table in module.members() if not module.is_array else ():
            if not table.is_array and table.get("spike_times") is not None:
                return table
    return None


def _from_table(table: Node, path: str) -> Cells:
    ids = table.get("id")
    trains = column(table, "spike_times", path)
    if not isinstance(trains, list):
        trains = [np.atleast_1d(train) for train in trains]
    if not trains:
        raise RetinaCodecError(f"{path} must have units with spike times; the table is empty")
    names = ids.read() if ids is not None else np.arange(len(trains))
    if len(names) != len(trains):
        raise RetinaCodecError(
            f"{path}: units must have one spike train per id; {len(names)} ids, {len(trains)} "
            "trains. The file is damaged."
        )
    columns = table.names()
    if "cell_name" in columns:
        names = np.array([str(entry) for entry in column(table, "cell_name", path)], dtype=str)
    unique, counts = np.unique(names, return_counts=True)
    if (counts > 1).any():
        raise RetinaCodecError(
            f"{path}: units must have different ids; repeated: {unique[counts > 1].tolist()}"
        )
    observed = None
    if "obs_intervals" in columns:
        rows = column(table, "obs_intervals", path)
        observed = [np.asarray(entry, dtype=np.float64).reshape(-1, 2) for entry in rows]
    types = np.full(len(trains), "unknown", dtype=object)
    name = next((name for name in columns if name.lower() in TYPE_COLUMNS), None)
    if name is not None:
        types = clean_types(column(table, name, path))
    cells = Cells(
        np.asarray(names),
        [np.asarray(train, dtype=np.float64) for train in trains],
        observed,
        types.astype(str),
    )
    for center in ("center_y", "center_x"):
        if center in columns:
            cells.centers[center] = np.asarray(column(table, center, path), dtype=np.float64)
    if "type_membership" in columns:
        cells.members = np.asarray(column(table, "type_membership", path), dtype=np.float32)
    return cells


def _old_units(root: Node, path: str) -> Cells:
    """Spike trains of NWB before version 2: a module with one group per unit."""
    processing = root.get("processing")
    for module in processing.members() if processing is not None else ():
        for group in module.members() if not module.is_array else ():
            if group.kind == "UnitTimes" or group.name == "UnitTimes":
                units = [u for u in group.members() if not u.is_array and u.get("times")]
                if not units:
                    continue
                trains = [u.get("times").read().astype(np.float64) for u in units]  # type: ignore[union-attr]
                names = np.array([unit.name for unit in units], dtype=str)
                unknown = np.full(len(units), "unknown")
                return Cells(names, trains, None, unknown)
    raise RetinaCodecError(
        f"{path} must have units with spike times; it has none. Sort the recording first, or open "
        "the file that holds the sorted units."
    )


def _mend_trains(cells: Cells, unit: str | float, path: str, reading: Reading) -> None:
    """Bring trains to seconds and in order; say what was not."""
    factors = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6}
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
                f"{path}: spike times of unit {cells.names[number]} must be finite; some are not"
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
    cells: Sequence[Any] | Mapping[str, Any], names: npt.NDArray[Any], table: Node | None, path: str
) -> list[int]:
    """Positions of the cells that the user asks for."""
    if isinstance(cells, Mapping):
        keep = np.ones(len(names), dtype=bool)
        for name, wanted in cells.items():
            if table is None:
                raise RetinaCodecError(f"{path}: there is no table with a column {name!r}")
            values = column(table, name, path)
            accepted = [wanted] if isinstance(wanted, str | int | float) else list(wanted)
            keep &= np.array([str(v) in {str(entry) for entry in accepted} for v in values])
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
    source: Any, names: npt.NDArray[Any], table: Node | None, path: str, what: str
) -> npt.NDArray[Any]:
    """Give each cell its type: from a column, a CSV or JSON file, or a mapping.

    Parameters
    ----------
    source : str, path or mapping
        Name of a column of the table, a ``.csv`` (first column the id; the type in the column
        ``cell_type`` or ``type``, else the second) or ``.json`` (an object from id to type), or a
        mapping from id to type.
    names : numpy.ndarray
        Ids, as the file has them.
    table : Node or None
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
            values = column(table, text, path)
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
    """Text without blanks around it; "unknown" where nothing is said."""
    words = [str(value).strip() for value in texts(np.asarray(values))]
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
