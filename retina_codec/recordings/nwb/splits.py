"""Which part of an NWB session is train, which is test, and which presentation of it.

The file says it in a table of intervals with a column ``split`` (as our writer makes), or the user
does: by times, or by what stands in a column. Intervals become runs of bins here; a run without a
frame, or with frames missing, is refused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from retina_codec.errors import RetinaCodecError
from retina_codec.recordings.nwb.clock import LATEST, FrameClock
from retina_codec.recordings.nwb.options import NwbOptions, Reading
from retina_codec.recordings.nwb.session import EDGE_SLACK
from retina_codec.recordings.nwb.tree import Node, column, texts

__all__ = ["Interval", "Run", "find_runs", "joined_frames", "periods_of", "read_intervals"]

SPLITS = ("train", "test")


OVERHANG = 1.0  # s that an interval may reach beyond its frames, with a doubt: labs round up


OVERHANG_SHARE = 0.05  # and of the interval


LISTED_VALUES = 6


@dataclass(frozen=True)
class Interval:
    """A part of the session, s; ``repeat`` is −1 where it is not one of several presentations."""

    split: str
    repeat: int
    start: float
    stop: float


@dataclass(frozen=True)
class Run:
    """Bins ``first`` to ``last`` (excluded) of a clock, from ``start`` (s) on."""

    repeat: int
    first: int
    last: int
    start: float

    @property
    def bins(self) -> int:
        """Number of bins."""
        return self.last - self.first


def read_intervals(
    root: Node, path: str, options: NwbOptions, reading: Reading
) -> list[Interval] | None:
    """Read the intervals of train and test, in order of time.

    Parameters
    ----------
    root : Node
    path : str
        For messages.
    options : NwbOptions
        ``splits``, ``table``.
    reading : Reading

    Returns
    -------
    list of Interval, or None
        None where neither file nor user says anything.

    Raises
    ------
    RetinaCodecError
        An unknown split, table, column or value; times that cannot be.
    """
    tables = {
        table.name: table
        for table in _tables(root)
        if table.get("start_time") is not None and table.get("stop_time") is not None
    }
    if options.table is not None and options.table not in tables:
        raise RetinaCodecError(
            f"{path} must have a table of intervals {options.table!r}; it has "
            f"{', '.join(sorted(tables)) or 'none'}"
        )
    if options.splits is not None:
        return _given(options.splits, tables, path, options)
    table = next((table for table in tables.values() if table.get("split") is not None), None)
    if table is None:
        return None
    reading.say(f"train and test: the column split of {table.path}")
    return _by_column(table, path)


def find_runs(
    intervals: Sequence[Interval], clock: FrameClock, path: str, reading: Reading
) -> list[Run]:
    """Find the bins of intervals.

    Parameters
    ----------
    intervals : sequence of Interval
        Of one split.
    clock : FrameClock
        ``onsets`` that are within rounding of an interval's start become that start.
    path : str
        For messages.
    reading : Reading

    Returns
    -------
    list of Run
        In order of time.

    Raises
    ------
    RetinaCodecError
        An interval without frames, with too few of them, or with a gap.
    """
    runs = []
    for entry in sorted(intervals, key=lambda entry: entry.start):
        onsets, rate = clock.onsets, clock.rate
        first, last = (
            int(np.searchsorted(onsets, t - 0.5 / rate)) for t in (entry.start, entry.stop)
        )
        span = f"they span {onsets[0]:.6g} to {clock.stop:.6g} s"
        if last <= first or not np.isfinite(entry.stop - entry.start):
            raise RetinaCodecError(
                f"{path}: the {entry.split} interval {entry.start:.6g} to {entry.stop:.6g} s must "
                f"be covered by frames without gaps; {span}"
            )
        early = float(onsets[first]) - entry.start
        late = entry.stop - float(onsets[last - 1]) - 1 / rate
        if max(early, late) * rate >= 0.5:
            allowed = min(OVERHANG + 0.5 / rate, OVERHANG_SHARE * (entry.stop - entry.start))
            if max(early, late) > allowed:
                raise RetinaCodecError(
                    f"{path}: the {entry.split} interval {entry.start:.6g} to {entry.stop:.6g} s "
                    f"must be covered by frames without gaps; {span}. Cut it with splits=."
                )
            reading.doubt(
                f"the {entry.split} interval {entry.start:.6g} to {entry.stop:.6g} s reaches "
                f"{max(early, late):.3g} s beyond its frames; the frames count"
            )
        _check_steps(clock, first, last, path)
        same = abs(early) * rate < EDGE_SLACK
        runs.append(Run(entry.repeat, first, last, entry.start if same else float(onsets[first])))
    return runs


def joined_frames(intervals: Sequence[Interval], period: float) -> list[Interval]:
    """Join intervals of single frames that touch: tables with one row per frame or picture.

    Parameters
    ----------
    intervals : sequence of Interval
        Of one split, in order of time.
    period : float
        s, how long one frame or picture was shown.

    Returns
    -------
    list of Interval
        Longer intervals stay apart: they are presentations.
    """
    joined: list[Interval] = []
    for entry in intervals:
        single = entry.stop - entry.start < 1.5 * period
        if joined and single and abs(entry.start - joined[-1].stop) < 0.5 * period:
            joined[-1] = Interval(entry.split, entry.repeat, joined[-1].start, entry.stop)
        else:
            joined.append(entry)
    return joined


def _check_steps(clock: FrameClock, first: int, last: int, path: str) -> None:
    """Refuse a dropped, doubled or late frame within a run."""
    step = np.diff(clock.onsets[first:last]) * clock.rate
    off = np.abs(step - 1)
    if off.size and off.max() > LATEST:
        where = int(np.argmax(off > LATEST))
        raise RetinaCodecError(
            f"{path}: frames must follow each other at {clock.rate:.6g} Hz within a split; the "
            f"frame at {clock.onsets[first + where + 1]:.6g} s is off by "
            f"{step[where] - 1:+.3g} frames. Pass repair_clock=True (dropped frames show the one "
            "before), or cut the session there (splits=)."
        )


def periods_of(index: npt.NDArray[np.int64]) -> int:
    """Say how often a sequence of frame numbers repeats itself, whole.

    Parameters
    ----------
    index : numpy.ndarray
        Frame numbers of consecutive bins.

    Returns
    -------
    int
        The largest k such that the sequence is k times the same, 1 if none; a still picture (a
        period of one bin) does not count.
    """
    total = index.size
    for period in range(2, total // 2 + 1):
        if total % period == 0 and index[period] == index[0] and _same_after(index, period):
            still = (index == index[0]).all()
            return 1 if still else total // period
    return 1


def _same_after(index: npt.NDArray[np.int64], period: int) -> bool:
    return bool((index[period:] == index[:-period]).all())


def _tables(root: Node) -> list[Node]:
    found = []
    for place in ("intervals", ""):
        group = root.get(place) if place else root
        if group is None or group.is_array:
            continue
        names = group.names() if place else ["trials", "epochs"]
        tables = [group.get(name) for name in names]
        found += [table for table in tables if table is not None and not table.is_array]
    return sorted(found, key=lambda table: table.name != "trials")  # trials first


def _by_column(table: Node, path: str) -> list[Interval]:
    splits = [str(word) for word in texts(column(table, "split", path))]
    starts, stops = column(table, "start_time", path), column(table, "stop_time", path)
    repeats: Any = np.full(len(splits), -1)
    if table.get("repeat") is not None:
        repeats = column(table, "repeat", path)
    found = [
        Interval(split, _repeat_number(repeats[row], path), float(starts[row]), float(stops[row]))
        for row, split in enumerate(splits)
        if split in SPLITS
    ]
    if not found:
        raise RetinaCodecError(
            f"{path}: split must say 'train' or 'test'; no interval does, they say "
            f"{sorted(set(splits))[:LISTED_VALUES]}"
        )
    return sorted(found, key=lambda entry: entry.start)


def _given(
    splits: Mapping[str, Any], tables: dict[str, Node], path: str, options: NwbOptions
) -> list[Interval]:
    unknown = sorted(set(splits) - set(SPLITS))
    if unknown or "test" not in splits:
        raise RetinaCodecError(
            f"splits must name 'test', and may name 'train'; got {sorted(splits)}"
        )
    found: list[Interval] = []
    for split, wanted in splits.items():
        if isinstance(wanted, Mapping):
            spans = _by_values(wanted, tables, path, options)
        else:
            pairs = np.asarray(wanted, dtype=np.float64).reshape(-1, 2)
            spans = [(float(start), float(stop)) for start, stop in pairs]
        for start, stop in spans:
            if not (np.isfinite(stop) and stop > start):
                raise RetinaCodecError(
                    f"{path}: a {split} interval must end after it starts; got {start} to {stop} s"
                )
            found.append(Interval(split, -1, float(start), float(stop)))
    return sorted(found, key=lambda entry: entry.start)


def _by_values(
    wanted: Mapping[str, Any], tables: dict[str, Node], path: str, options: NwbOptions
) -> list[tuple[float, float]]:
    """Spans of the rows that have these values."""
    fitting = [table for table in tables.values() if all(table.get(n) is not None for n in wanted)]
    if options.table is not None:
        fitting = [tables[options.table]]
    if len(fitting) != 1:
        listed = {name: table.names() for name, table in tables.items()}
        raise RetinaCodecError(
            f"{path}: one table of intervals must have the columns {sorted(wanted)}; "
            f"{len(fitting)} have. Tables and columns: {listed}. Pass table=NAME."
        )
    table = fitting[0]
    starts, stops = (np.asarray(column(table, n, path), float) for n in ("start_time", "stop_time"))
    keep = np.ones(starts.size, dtype=bool)
    for name, value in wanted.items():
        values = column(table, name, path)
        keep &= np.array([_matches(entry, value) for entry in values], dtype=bool)
        if not keep.any():
            seen = sorted({str(entry) for entry in values})[:LISTED_VALUES]
            raise RetinaCodecError(
                f"{path}: no interval of {table.path} has {name} = {value!r}; it has {seen}"
            )
    return sorted(zip(starts[keep].tolist(), stops[keep].tolist(), strict=True))


def _matches(entry: Any, wanted: Any) -> bool:
    """Compare as text or number; a cell that holds several values matches with one of them."""
    accepted = [wanted] if isinstance(wanted, str | int | float | bool) else list(wanted)
    held = np.atleast_1d(np.asarray(entry, dtype=object)).tolist()
    for value in held:
        word = value.decode() if isinstance(value, bytes) else value
        for other in accepted:
            if isinstance(other, str):
                if str(word) == other:
                    return True
            elif not isinstance(word, str) and word == other:
                return True
    return False


def _repeat_number(value: Any, path: str) -> int:
    """Read the number of a presentation; −1 for no repeat, which others write as NaN."""
    try:
        return -1 if np.isnan(float(value)) else int(value)
    except ValueError as error:
        raise RetinaCodecError(f"{path}: repeat must be a number; got {value!r}") from error
