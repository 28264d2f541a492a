"""Train, test and repeats of an NWB session: intervals in s, and the bins of the movie in them.

Intervals come from a table with a column ``split``, or from the option ``splits``.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from retina_codec.errors import RetinaCodecError, option
from retina_codec.recordings.binning import EDGE_SLACK, Floats
from retina_codec.recordings.nwb.clock import LATEST, FrameClock
from retina_codec.recordings.nwb.options import SPLITS, NwbOptions, Reading
from retina_codec.recordings.nwb.stimulus import Stimulus, find_stimulus
from retina_codec.recordings.nwb.tree import Node, Table

__all__ = ["Run", "Split", "find_splits", "periods_of"]

OVERHANG = 1.0  # s that an interval may reach beyond its frames, with a doubt: labs round up
OVERHANG_SHARE = 0.05  # and of the interval
LISTED_VALUES = 6
RATES_DIFFER = 1e-4  # relative, between train and test


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


@dataclass(frozen=True)
class Split:
    """The train or the test split: its movie, and the runs of bins in which it was shown.

    Attributes
    ----------
    movie : Stimulus
    runs : list of Run
        Blocks of train, or presentations of the test movie, in order of time.
    edges : list of numpy.ndarray, (time + 1,)
        s, of each run: onset of every bin and the end of the last.
    whole : bool
        Whether no interval was stated, so that the whole session is the test split.
    """

    movie: Stimulus
    runs: list[Run]
    edges: list[Floats]
    whole: bool


def find_splits(root: Node, notes: Mapping[str, Any], reading: Reading) -> dict[str, Split]:
    """Find train and test: the stimulus of each, and the bins in which it was shown.

    Parameters
    ----------
    root : Node
    notes : mapping
        From `read_notes`: a file of `write_nwb` states its rate, and repeats its test movie.
    reading : Reading
        Options: ``stimulus``, ``splits``, ``table``, ``join_blocks`` and those of the stimulus.

    Returns
    -------
    dict of str to Split
        "train", where there is one, and "test".

    Raises
    ------
    RetinaCodecError
        Unknown tables, columns or values; train and test at different rates; an interval without
        frames or with a gap; intervals that overlap; several train blocks without ``join_blocks``;
        test intervals that show different movies.
    """
    tables = _interval_tables(root, reading)
    intervals = _read_intervals(tables, reading)
    movies = _find_movies(root, tables, intervals, reading)
    whole = intervals is None and not isinstance(reading.options.stimulus, Mapping)
    rate = float(notes.get("frame_rate", movies["test"].clock.rate))
    join = reading.options.join_blocks or bool(notes.get("joined_blocks"))
    splits = {}
    for split in SPLITS:
        if split not in movies:
            continue
        movie = movies[split]  # the notes state the rate to the last digit
        movie = replace(movie, clock=replace(movie.clock, rate=rate))
        mine = [entry for entry in intervals or [] if entry.split == split]
        if not mine:
            spans = movie.plays or [(float(movie.clock.onsets[0]), movie.clock.stop)]
            mine = [Interval(split, -1, start, stop) for start, stop in spans]
        runs = _find_runs(_joined_frames(mine, movie.period), movie.clock, reading)
        if split == "test":
            runs = _presentations(movie, runs, reading)
        else:
            runs = _blocks(movie.clock, runs, reading.path, join)
        edges = [_edges(movie.clock, run) for run in runs]
        splits[split] = Split(movie, runs, edges, whole)
    if "train" in splits and movies["train"] is movies["test"]:
        both = [*splits["train"].runs, *splits["test"].runs]
        _refuse_overlap(sorted(both, key=lambda run: run.first), "train and test", reading.path)
    return splits


def _refuse_overlap(runs: Sequence[Run], what: str, path: str) -> None:
    """Refuse runs, in order of time, that share bins: a frame is shown once."""
    for before, after in itertools.pairwise(runs):
        shared = min(before.last, after.last) - after.first
        if shared > 1 or (shared == 1 and shared == min(before.bins, after.bins)):
            raise RetinaCodecError(
                f"{path}: {what} intervals must not overlap; the one from {after.start:.6g} s "
                f"begins in the one from {before.start:.6g} s ({shared} bins are in both). Leave "
                f"one out: pass {option('splits', {'test': [['START', 'STOP']]})}."
            )


def _edges(clock: FrameClock, run: Run) -> Floats:
    """Return onsets of the bins of a run and the end of the last, s."""
    edges = np.append(clock.onsets[run.first : run.last], clock.ends[run.last - 1])
    edges[0] = run.start
    return edges


def _interval_tables(root: Node, reading: Reading) -> dict[str, Table]:
    """Tables with start and stop times by name, trials first."""
    nodes = [*root.groups("intervals"), root.get("trials"), root.get("epochs")]
    tables = [Table(node) for node in nodes if node is not None and not node.is_array]
    tables.sort(key=lambda table: table.name != "trials")
    found = {}
    for table in tables:
        try:
            if "start_time" in table and "stop_time" in table:
                found[table.name] = table
            elif "split" in table:
                reading.doubt(f"{table.path} has the column split and no start_time and stop_time")
        except RetinaCodecError as error:
            reading.doubt(f"the table {table.path} was left out: {error}")
    return found


def _read_intervals(tables: Mapping[str, Table], reading: Reading) -> list[Interval] | None:
    """Intervals of train and test in order of time; None where neither file nor user says any."""
    options, path = reading.options, reading.path
    if options.table is not None and options.table not in tables:
        raise RetinaCodecError(
            f"{path} must have a table of intervals {options.table!r}; it has "
            f"{', '.join(sorted(tables)) or 'none'}. Pass {option('table', 'NAME')} with one of "
            f"these, or {option('splits', {'test': ['START', 'STOP']})}."
        )
    if options.splits is not None:
        return _given(options.splits, tables, path, options)
    table = next((table for table in tables.values() if "split" in table), None)
    if table is None:
        return None
    reading.say(f"train and test: the column split of {table.path}")
    return _by_column(table, path)


def _by_column(table: Table, path: str) -> list[Interval]:
    splits, (starts, stops) = table.words("split"), table.spans()
    repeats: Any = table["repeat"] if "repeat" in table else np.full(len(splits), -1)
    found = [
        Interval(split, _repeat_number(repeats[row], table), float(starts[row]), float(stops[row]))
        for row, split in enumerate(splits)
        if split in SPLITS
    ]
    if not found:
        raise RetinaCodecError(
            f"{path}: split must say 'train' or 'test'; no interval of {table.path} does, they say "
            f"{sorted(set(splits))[:LISTED_VALUES]}. Pass "
            f"{option('splits', {'test': {'split': 'VALUE'}})}."
        )
    return sorted(found, key=lambda entry: entry.start)


def _given(
    splits: Mapping[str, Any], tables: Mapping[str, Table], path: str, options: NwbOptions
) -> list[Interval]:
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
                    f"{path}: a {split} interval must end after it starts; got {start} to {stop} s."
                    f" Pass {option('splits', {split: ['START', 'STOP']})} in this order, in s."
                )
            found.append(Interval(split, -1, float(start), float(stop)))
    return sorted(found, key=lambda entry: entry.start)


def _by_values(
    wanted: Mapping[str, Any], tables: Mapping[str, Table], path: str, options: NwbOptions
) -> list[tuple[float, float]]:
    """Spans of the rows that have these values."""
    fitting = [table for table in tables.values() if all(name in table for name in wanted)]
    if options.table is not None:
        fitting = [tables[options.table]]
    if len(fitting) != 1:
        listed = {name: list(table) for name, table in tables.items()}
        raise RetinaCodecError(
            f"{path}: one table of intervals must have the columns {sorted(wanted)}; "
            f"{len(fitting)} have. Tables and columns: {listed or 'none'}. Pass "
            f"{option('table', 'NAME')}, or times: {option('splits', {'test': ['START', 'STOP']})}."
        )
    table = fitting[0]
    starts, stops = table.spans()
    keep = np.ones(starts.size, dtype=bool)
    for name, value in wanted.items():
        values = table[name]
        keep &= np.array([_matches(entry, value) for entry in values], dtype=bool)
        if not keep.any():
            seen = sorted({str(entry) for entry in values})[:LISTED_VALUES]
            raise RetinaCodecError(
                f"{path}: no interval of {table.path} has {name} = {value!r}; it has {seen}. "
                "Choose one of these."
            )
    return sorted(zip(starts[keep].tolist(), stops[keep].tolist(), strict=True))


def _matches(entry: Any, wanted: Any) -> bool:
    """Compare as text or number; an entry with several values matches by any of them."""
    accepted = [wanted] if isinstance(wanted, str | int | float | bool) else list(wanted)
    held = np.atleast_1d(np.asarray(entry, dtype=object)).tolist()
    for value in held:
        for other in accepted:
            if isinstance(other, str):
                if str(value) == other:
                    return True
            elif not isinstance(value, str) and value == other:
                return True
    return False


def _repeat_number(value: Any, table: Table) -> int:
    """Read the number of a presentation; −1 for no repeat, which others write as NaN."""
    try:
        if np.iscomplexobj(value):
            raise TypeError
        return -1 if np.isnan(float(value)) else int(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise RetinaCodecError(
            f"{table.where}: repeat must be a number in every row; got {str(value)[:40]!r}. "
            "Correct the column, or take it out."
        ) from error


def _find_movies(
    root: Node, tables: Mapping[str, Table], intervals: list[Interval] | None, reading: Reading
) -> dict[str, Stimulus]:
    """Stimulus of every split; the same object where one series holds both."""
    wanted, path = reading.options.stimulus, reading.path
    if isinstance(wanted, Mapping):
        movies = {
            split: find_stimulus(root, tables, name, reading) for split, name in wanted.items()
        }
        rates = {split: movie.clock.rate for split, movie in movies.items()}
        if max(rates.values()) / min(rates.values()) - 1 > RATES_DIFFER:
            raise RetinaCodecError(
                f"{path}: train and test must have one rate of bins; they have {rates} Hz. Pass "
                f"{option('frame_rate', 'HZ')} (pictures), or open them apart, each with "
                f"{option('bins_per_frame', 'NUMBER')}."
            )
        return movies
    movie = find_stimulus(root, tables, wanted, reading)
    named = {"test"} if intervals is None else {entry.split for entry in intervals}
    if "test" not in named:
        raise RetinaCodecError(
            f"{path} must have a test interval; it has only train intervals. Pass "
            f"{option('splits', {'test': ['START', 'STOP']})}."
        )
    return dict.fromkeys(named, movie)


def _find_runs(intervals: Sequence[Interval], clock: FrameClock, reading: Reading) -> list[Run]:
    """Bins of intervals, in order of time.

    An onset that is within rounding of the start of an interval becomes that start.
    """
    runs, path = [], reading.path
    for entry in sorted(intervals, key=lambda entry: entry.start):
        onsets, rate = clock.onsets, clock.rate
        first, last = (
            int(np.searchsorted(onsets, t - 0.5 / rate)) for t in (entry.start, entry.stop)
        )
        what = f"the {entry.split} interval {entry.start:.6g} to {entry.stop:.6g} s"
        span = f"they span {onsets[0]:.6g} to {clock.stop:.6g} s"
        if last <= first or not np.isfinite(entry.stop - entry.start):
            raise RetinaCodecError(
                f"{path}: {what} must be covered by frames without gaps; {span}. Choose another "
                f"with {option('splits', {entry.split: ['START', 'STOP']})}."
            )
        early = float(onsets[first]) - entry.start
        late = entry.stop - float(onsets[last - 1]) - 1 / rate
        if max(early, late) * rate >= 0.5:
            allowed = min(OVERHANG + 0.5 / rate, OVERHANG_SHARE * (entry.stop - entry.start))
            if max(early, late) > allowed:
                raise RetinaCodecError(
                    f"{path}: {what} must be covered by frames without gaps; {span}. Cut it with "
                    f"{option('splits', {entry.split: ['START', 'STOP']})}."
                )
            reading.doubt(
                f"{what} reaches {max(early, late):.3g} s beyond its frames; the frames count"
            )
        _check_steps(clock, first, last, path)
        same = abs(early) * rate < EDGE_SLACK
        runs.append(Run(entry.repeat, first, last, entry.start if same else float(onsets[first])))
    return runs


def _check_steps(clock: FrameClock, first: int, last: int, path: str) -> None:
    """Refuse a dropped, doubled or late frame within a run."""
    step = np.diff(clock.onsets[first:last]) * clock.rate
    off = np.abs(step - 1)
    if off.size and off.max() > LATEST:
        where = int(np.argmax(off > LATEST))
        raise RetinaCodecError(
            f"{path}: frames must follow each other at {clock.rate:.6g} Hz within a split; the "
            f"frame at {clock.onsets[first + where + 1]:.6g} s is off by "
            f"{step[where] - 1:+.3g} frames. Pass {option('repair_clock', True)} (dropped frames "
            f"show the one before), or cut the session there "
            f"({option('splits', {'test': ['START', 'STOP']})})."
        )


def _joined_frames(intervals: Sequence[Interval], period: float) -> list[Interval]:
    """Join intervals of single frames (``period`` in s) that touch: one row per frame or picture.

    Longer intervals stay apart: they are presentations.
    """
    joined: list[Interval] = []
    for entry in intervals:
        single = entry.stop - entry.start < 1.5 * period
        if joined and single and abs(entry.start - joined[-1].stop) < 0.5 * period:
            joined[-1] = replace(joined[-1], stop=entry.stop)
        else:
            joined.append(entry)
    return joined


def _blocks(clock: FrameClock, runs: list[Run], path: str, join: bool) -> list[Run]:
    """Blocks of train: runs that follow each other without a bin between are one."""
    _refuse_overlap(runs, "train", path)
    first, *others = (replace(run, repeat=-1) for run in runs)
    blocks = [first]
    for run in others:
        before = blocks[-1]
        if run.first == before.last and (run.start - before.start) * clock.rate < before.bins + 0.5:
            blocks[-1] = replace(before, last=run.last)
        else:
            blocks.append(run)
    if len(blocks) > 1 and not join:
        spans = "; ".join(
            f"{run.start:.6g} to {clock.onsets[run.last - 1] + 1 / clock.rate:.6g} s"
            for run in blocks[:8]
        )
        raise RetinaCodecError(
            f"{path} must have one train interval without gaps; it has {len(blocks)}: {spans}. "
            f"Pass {option('join_blocks', True)} to put them one after the other, or choose with "
            f"{option('splits', {'train': ['START', 'STOP'], 'test': ['START', 'STOP']})}."
        )
    return blocks


def _presentations(movie: Stimulus, runs: list[Run], reading: Reading) -> list[Run]:
    """Give the presentations of the test movie numbers; divide a run that repeats itself."""
    if len(runs) > 1:
        _refuse_overlap(runs, "test", reading.path)
        return [
            replace(run, repeat=number if run.repeat < 0 else run.repeat)
            for number, run in enumerate(runs)
        ]
    run = runs[0]
    times = 1 if movie.numbers is None else periods_of(movie.numbers[run.first : run.last])
    if times == 1:
        return runs
    each = run.bins // times
    reading.say(f"repeats: the frame numbers of the test movie repeat {times} times")
    return [
        Run(n, run.first + n * each, run.first + (n + 1) * each, float(start))
        for n, start in enumerate(movie.clock.onsets[run.first : run.last : each])
    ]


def periods_of(index: npt.NDArray[np.int64]) -> int:
    """Count how often a sequence of frame numbers repeats itself, whole.

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
    if (index == index[0]).all():
        return 1
    for period in range(2, total // 2 + 1):
        if total % period == 0 and (index[period:] == index[:-period]).all():
            return total // period
    return 1
