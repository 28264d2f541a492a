"""Cells of an NWB file: spike times (s), observation intervals, types, and counts in bins.

Ids are labels, never positions; only the columns that are needed are read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from retina_codec.errors import RetinaCodecError, option
from retina_codec.recordings.binning import Floats, bin_spikes
from retina_codec.recordings.nwb.cell_types import MAYBE_TYPES, TYPE_COLUMNS, types_from, types_of
from retina_codec.recordings.nwb.clock import FrameClock
from retina_codec.recordings.nwb.options import Reading, seconds_per
from retina_codec.recordings.nwb.tree import Node, Table, as_numbers

__all__ = [
    "Cells",
    "check_overlap",
    "count_spikes",
    "leave_unobserved",
    "read_cells",
]

LATER = 20.0  # times the session: spikes, or frames, that late are not in s
SLOW = 1.0  # Hz: the rate of 1000 frames per s whose times are in ms
RESTART = 1.0  # s: a larger jump back in time is no disorder of neighbouring spikes
LISTED = 8


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
    options, table = reading.options, _units_table(root, reading)
    if table is None:
        cells = _old_units(root, reading)
        reading.say(f"cells: {len(cells.names)} units of an old UnitTimes module")
    else:
        cells = _from_table(table, reading)
        reading.say(f"cells: {len(cells.names)} units of {table.path}")
    if options.cell_types is not None:
        cells.types = types_from(options.cell_types, cells.names, table, reading, "cell")
    elif table is not None:
        found = [name for name in table if name.lower() in MAYBE_TYPES]
        if found and (cells.types == "unknown").all():
            reading.say(
                f"cell types: unknown; the units have the column{'s' * (len(found) > 1)} "
                f"{', '.join(found)} ({option('cell_types', 'NAME')} takes one)"
            )
    if options.cells is not None:
        cells = cells.chosen(_chosen(options.cells, cells.names, table, reading.path))
    _mend_trains(cells, reading)
    return cells


def check_overlap(cells: Cells, clocks: Sequence[FrameClock], reading: Reading) -> None:
    """Refuse spikes that cannot be on the clock of the frames.

    Parameters
    ----------
    cells : Cells
    clocks : sequence of FrameClock
        Of each movie.
    reading : Reading

    Raises
    ------
    RetinaCodecError
        No spikes, none within the movies, or half of them far behind the session; frames that lie
        seconds apart, and most of them far behind the spikes.
    """
    spans = [(float(clock.onsets[0]), clock.stop) for clock in clocks]
    every, path = np.concatenate(cells.trains), reading.path
    if every.size == 0:
        raise RetinaCodecError(
            f"{path} must have spikes; all {len(cells.trains)} units are empty. Open the file that "
            "holds them, or choose other units."
        )
    inside = any(((every >= start) & (every < stop)).any() for start, stop in spans)
    first, last = min(start for start, _ in spans), max(stop for _, stop in spans)
    span = f"frames span {first:.6g} to {last:.6g} s"
    found = f"spikes {every.min():.6g} to {every.max():.6g} s"
    if not inside:
        raise RetinaCodecError(
            f"{path}: stimulus and spikes must overlap in time; {span}, {found}. Put both on the "
            f"session clock, in seconds: pass {option('spike_time_unit', 'UNIT')}, "
            f"{option('frame_time_unit', 'UNIT')} or {option('frame_times', 'ONSETS')}."
        )
    if float(np.median(every)) > LATER * max(abs(time) for each in spans for time in each):
        raise RetinaCodecError(
            f"{path}: spike times must be in seconds; {span}, {found}, half of them after "
            f"{np.median(every):.6g} s. If they are in ms or samples, pass "
            f"{option('spike_time_unit', 'ms')} or the sampling rate in Hz."
        )
    slow = min(clock.rate for clock in clocks) <= SLOW
    if slow and reading.options.frame_time_unit is None and last > LATER * np.abs(every).max():
        raise RetinaCodecError(
            f"{path}: times of frames must be in seconds; {span}, {found}. If they are in ms or "
            f"samples, pass {option('frame_time_unit', 'ms')} or the sampling rate in Hz; if they "
            f"are right, {option('frame_time_unit', 's')}."
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
    return _inside(root.groups("processing"))


def _inside(groups: Sequence[Node]) -> list[Node]:
    return [node for group in groups for node in group.members()]


def _units_table(root: Node, reading: Reading) -> Table | None:
    """Find the table of units: the one that the user names, the standard one, or the only one."""
    wanted, lost = reading.options.units, {}
    units = root.get("units")
    found: dict[str, Node] = {}
    for node in [*([] if units is None else [units]), *_modules(root)]:
        try:
            if node.stored("spike_times") is not None:
                found[node.path.lstrip("/")] = node
        except RetinaCodecError as error:
            lost[node.path.lstrip("/")] = str(error)
    known = [*found, *lost]
    chosen = "units" if "units" in known else known[0] if len(known) == 1 else None
    if wanted is not None:
        fitting = [p for p in known if f"/{p}".endswith(f"/{wanted.strip('/')}")]
        chosen = fitting[0] if len(fitting) == 1 else None
    if chosen is None and (len(known) > 1 or (wanted is not None and known)):
        asked = "it has" if wanted is None else f"{wanted!r} is not one of them:"
        raise RetinaCodecError(
            f"{reading.path} must have one table of units with spike times; {asked} "
            f"{', '.join(known[:LISTED])}. Pass {option('units', known[0])} or another of these."
        )
    if chosen in lost:
        raise RetinaCodecError(lost[chosen])
    others = [path for path in known if path != chosen]
    if chosen is not None and others:
        reading.say(f"tables of units that were not read: {', '.join(others[:LISTED])}")
    return None if chosen is None else Table(found[chosen])


def _from_table(table: Table, reading: Reading) -> Cells:
    trains, path = table["spike_times"], reading.path
    if not isinstance(trains, list):
        trains = [np.atleast_1d(train) for train in trains]
    if not trains:
        raise RetinaCodecError(
            f"{path} must have units with spike times; the table {table.path} is empty. Open the "
            "file that holds the sorted units."
        )
    where = f"{table.where}/spike_times"
    trains = [as_numbers(train, where).ravel() for train in trains]
    names = _names(table, len(trains), reading)
    observed = None
    if "obs_intervals" in table:
        observed = [_intervals(entry, table) for entry in table["obs_intervals"]]
    named = next((name for name in table if name.lower() in TYPE_COLUMNS), None)
    types = np.full(len(trains), "unknown")
    if named is not None:
        types = types_of(table, named, len(trains), reading)
    cells = Cells(names, trains, observed, types)
    for center in ("center_y", "center_x"):
        if center in table:
            cells.centers[center] = table.numbers(center)
    if "type_membership" in table:
        members = as_numbers(table["type_membership"], f"{table.where}/type_membership")
        cells.members = members.astype(np.float32)
    return cells


def _intervals(entry: Any, table: Table) -> Floats:
    """Observation intervals of one unit, (interval, 2), s."""
    values = as_numbers(entry, f"{table.where}/obs_intervals")
    if values.size % 2 or (values.ndim == 2 and values.shape[1] != 2):
        raise RetinaCodecError(
            f"{table.where}/obs_intervals must hold pairs of start and stop in s; a unit has "
            f"values of shape {values.shape}. Write the column again."
        )
    pairs = values.reshape(-1, 2)
    if not (pairs[:, 1] >= pairs[:, 0]).all():
        raise RetinaCodecError(
            f"{table.where}/obs_intervals must end after they start; some do not. Correct the "
            "column, or take it out."
        )
    return pairs


def _names(table: Table, count: int, reading: Reading) -> npt.NDArray[Any]:
    """Names of the cells: ids, ``cell_name``, or what the option ``cell_names`` says."""
    wanted = reading.options.cell_names
    names: npt.NDArray[Any] = np.arange(count)
    if "id" in table:
        names = np.asarray(table["id"])
        if names.dtype.kind not in "iu":
            names = np.array([str(entry) for entry in names], dtype=str)
    if names.shape != (count,):
        raise RetinaCodecError(
            f"{table.where}: units must have one spike train per id; {len(names)} ids, {count} "
            "trains. The file is damaged: write the column id again."
        )
    if wanted == "row" and "row" not in table:
        return np.arange(count)
    if wanted is not None:
        words = table.words(wanted)
        alone = len(set(words)) == count
        pairs = zip(words, names.tolist(), strict=True)
        names = np.array(words if alone else [f"{w} {n}" for w, n in pairs], dtype=str)
    elif "cell_name" in table:
        names = np.array(table.words("cell_name"), dtype=str)
    unique, counts = np.unique(names, return_counts=True)
    if (counts > 1).any():
        repeated = unique[counts > 1]
        more = f" and {repeated.size - LISTED} more" if repeated.size > LISTED else ""
        columns = [name for name in table if name not in ("id", "spike_times", "obs_intervals")]
        raise RetinaCodecError(
            f"{table.where}: units must have different ids; repeated: "
            f"{repeated[:LISTED].tolist()}{more}. Pass {option('cell_names', 'COLUMN')} with what "
            f"tells them apart, such as the probe ({', '.join(columns[:LISTED]) or 'none here'}), "
            f"or {option('cell_names', 'row')}."
        )
    return names


def _old_units(root: Node, reading: Reading) -> Cells:
    """Spike trains of NWB before version 2: a module with one group per unit."""
    found = {
        group.path.lstrip("/"): group
        for group in _modules(root)
        if "UnitTimes" in (group.kind, group.name)
    }
    wanted = reading.options.units
    if wanted is not None:
        found = {path: node for path, node in found.items() if wanted.strip("/") in path}
    if len(found) > 1:
        raise RetinaCodecError(
            f"{reading.path} must have one table of units with spike times; it has "
            f"{', '.join(found)}. Pass {option('units', next(iter(found)))} or another of these."
        )
    for group in found.values():
        times = {unit.name: unit.stored("times") for unit in _inside([group])}
        trains = {name: t.numbers().ravel() for name, t in times.items() if t is not None}
        if trains:
            names = np.array(list(trains), dtype=str)
            return Cells(names, list(trains.values()), None, np.full(len(names), "unknown"))
    raise RetinaCodecError(
        f"{reading.path} must have units with spike times; it has none. Sort the recording first, "
        "or open the file that holds the sorted units."
    )


def _mend_trains(cells: Cells, reading: Reading) -> None:
    """Convert trains to seconds and put them in order; report which were not."""
    factor = seconds_per(reading.options.spike_time_unit)
    unsorted, doubled = [], []
    for number, train in enumerate(cells.trains):
        if not np.isfinite(train).all():
            raise RetinaCodecError(
                f"{reading.path}: spike times of unit {cells.names[number]} must be finite; some "
                f"are not. Write them again, or leave the unit out ({option('cells', 'IDS')})."
            )
        if factor != 1.0:
            train = train * factor
        if (np.diff(train) < 0).any():
            train, sorted_now = _in_order(train, str(cells.names[number]), reading)
            if sorted_now:
                unsorted.append(str(cells.names[number]))
        elif _restarts(reading) is not None:
            _check_jumps(0, str(cells.names[number]), train, reading)
        if (np.diff(train) == 0).any():
            doubled.append(str(cells.names[number]))
        cells.trains[number] = train
    if unsorted:
        reading.doubt(f"spike times of units {', '.join(unsorted[:10])} were unsorted; sorted now")
    if doubled:
        reading.doubt(f"units {', '.join(doubled[:10])} have spikes at the same instant; all kept")


def _restarts(reading: Reading) -> Floats | None:
    """Where the clock of the spikes began again, s; None where nobody says so."""
    given = reading.options.spike_restarts
    return None if given is None or isinstance(given, str) else np.asarray(given, np.float64)


def _in_order(train: Floats, name: str, reading: Reading) -> tuple[Floats, bool]:
    """Put one train in order, and say whether it was sorted; a restart must be given."""
    back = np.flatnonzero(np.diff(train) < -RESTART)
    restarts = _restarts(reading)
    if back.size and reading.options.spike_restarts is None:
        at = int(back[0])
        raise RetinaCodecError(
            f"{reading.path}: spike times of a unit must rise; those of unit {name} jump back from "
            f"{train[at]:.6g} to {train[at + 1]:.6g} s (spike {at + 1}), and {back.size - 1} times "
            "more. If their clock began again, pass the session times at which it did: "
            f"{option('spike_restarts', [600.0])}; if only their order is wrong, "
            f"{option('spike_restarts', 'none')}."
        )
    if restarts is not None:
        _check_jumps(back.size, name, train, reading)
        parts = np.split(train, back + 1)
        starts = [0.0, *restarts.tolist()]
        train = np.concatenate([part + start for part, start in zip(parts, starts, strict=True)])
    return np.sort(train), bool((np.diff(train) < 0).any())


def _check_jumps(found: int, name: str, train: Floats, reading: Reading) -> None:
    """Refuse a unit whose times do not say which spikes came after a restart."""
    restarts = _restarts(reading)
    expected = 0 if restarts is None else restarts.size
    if train.size and found != expected:
        raise RetinaCodecError(
            f"{reading.path}: spike times of unit {name} must jump back once for each of the "
            f"{expected} restarts of spike_restarts; they do {found} times, so nothing says which "
            f"came after. Leave the unit out ({option('cells', 'IDS')}), or write its times on the "
            "session clock."
        )


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
                raise RetinaCodecError(
                    f"{path} must have a table of units with a column {name!r}; its units are no "
                    f"table. Pass {option('cells', 'IDS')}."
                )
            accepted = [wanted] if isinstance(wanted, str | int | float) else list(wanted)
            texts = {str(entry) for entry in accepted}
            words = table.words(name)
            keep &= np.array([word in texts for word in words], dtype=bool)
            if not keep.any():
                raise RetinaCodecError(
                    f"{path}: no unit has {dict(cells)}; {name} is one of "
                    f"{sorted(set(words))[:LISTED]}. Choose one of these."
                )
        return np.flatnonzero(keep).tolist()
    place = {str(name): number for number, name in enumerate(names)}
    missing = [entry for entry in cells if str(entry) not in place]
    if missing or not len(cells):
        raise RetinaCodecError(
            f"{path}: cells must be ids of its units, {[str(n) for n in names[:20]]}; "
            f"it lacks {missing[:LISTED]}. Pass {option('cells', [names[0].item()])} or others of "
            "these."
        )
    return [place[str(entry)] for entry in cells]
