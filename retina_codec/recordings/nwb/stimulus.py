"""The stimulus of an NWB file: which one was shown, its frames, and the onset of each frame.

Image series, indices into pictures, presentations of a template and seeds become one type.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from retina_codec.errors import RetinaCodecError
from retina_codec.recordings.binning import Floats
from retina_codec.recordings.frames.lazy import BLANK, Frames, IndexedFrames
from retina_codec.recordings.nwb.clock import (
    FrameClock,
    clock_from_intervals,
    clock_from_rate,
    clock_from_times,
)
from retina_codec.recordings.nwb.options import Reading
from retina_codec.recordings.nwb.pictures import (
    is_movie,
    is_template,
    picture_names,
    series_frames,
    template_frames,
)
from retina_codec.recordings.nwb.tree import Node, Table

__all__ = ["Stimulus", "find_stimulus"]

OURS = "stimulus"  # the name that `write_nwb` gives
NUMBER_COLUMNS = ("frame", "image_index", "template_index", "stimulus_index", "index")
NAME_COLUMNS = ("image_name", "image", "frame_name", "stimulus_name")
TEMPLATE_COLUMNS = ("stimulus_name", "template", "template_name", "stimulus", "movie_name")
Tables = Mapping[str, Table]
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Stimulus:
    """A movie and its clock.

    Attributes
    ----------
    frames : Frames
        One per bin of the clock.
    numbers : numpy.ndarray, (bin,), or None
        Number of the picture in each bin, −1 for a blank, where pictures were shown by number;
        None for a movie that is stored frame by frame.
    clock : FrameClock
    unit : str
        Of intensity.
    pixel_size : float
        µm, NaN where unknown.
    period : float
        s, how long one frame or picture was shown, as a rule.
    """

    frames: Frames
    numbers: Numbers | None
    clock: FrameClock
    unit: str
    pixel_size: float
    period: float


@dataclass(frozen=True)
class Candidate:
    """A series, or a table of presentations, that may be the stimulus.

    Attributes
    ----------
    pictures : Node
        The series with the frames, or the template with the pictures.
    series : Node or None
        The series with the times; None for a table of presentations.
    index : numpy.ndarray, (row,), or None
        Number of the picture in each row of a table of presentations.
    starts, stops : numpy.ndarray, (row,)
        s, of these rows; empty for a series.
    column : str
        Where the numbers of a table came from.
    """

    pictures: Node
    series: Node | None = None
    index: Numbers | None = None
    starts: Floats = field(default_factory=lambda: np.empty(0))
    stops: Floats = field(default_factory=lambda: np.empty(0))
    column: str = ""

    def numbers(self, where: str) -> Numbers | None:
        """Return the number of the picture at each time; None for a movie stored by frames."""
        if self.series is None or self.series is self.pictures:
            return self.index
        data = self.series.stored("data")
        if data is None:
            raise RetinaCodecError(f"{where} must hold numbers of pictures; it has no data")
        return data.read().ravel().astype(np.int64)

    def words(self, frames: Frames) -> str:
        """Say how the frames are stored."""
        if self.series is self.pictures:
            return frames.encoding
        what = f"presentations of {self.pictures.path} by the column {self.column!r}"
        if self.series is not None:
            what = f"indices into {self.pictures.path}"
        return f"{what} ({frames.encoding})"


def find_stimulus(root: Node, tables: Tables, name: str | None, reading: Reading) -> Stimulus:
    """Find the stimulus that was shown, or the one with a given name.

    Parameters
    ----------
    root : Node
    tables : mapping of str to Table
        Tables of intervals by name, with ``start_time`` and ``stop_time``.
    name : str, optional
        Of a series or a table of presentations.
    reading : Reading
        Options on frames and times.

    Returns
    -------
    Stimulus

    Raises
    ------
    RetinaCodecError
        None, several without a name, or one whose frames or times are not fully known.
    """
    options = reading.options
    found, others = _candidates(root, tables, options.frames is not None)
    name = _choose(found, others, name, reading.path)
    chosen, where = found[name], f"{reading.path}: stimulus {name!r}"
    index = chosen.numbers(where)
    if index is None:
        base = series_frames(chosen.pictures, where, reading)
    else:
        base = template_frames(chosen.pictures, where, reading)
    count = base.shape[0] if index is None else index.size
    clock = _find_clock(root, tables, chosen, count, where, reading)
    shown, blank = clock.index, None
    if index is not None:
        shown = index if shown is None else np.where(shown < 0, BLANK, index[shown])
        blank = options.blank
    frames = base if shown is None else IndexedFrames(base, shown, blank=blank)
    if options.bins_per_frame > 1:
        reading.say(f"bins: {options.bins_per_frame} per frame, {clock.rate:.9g} Hz")
    reading.say(f"stimulus: {name!r}, {chosen.words(base)}")
    left = sorted({*found, *others} - {name})
    if left:
        reading.say(f"stimuli that were not read: {', '.join(left)}")
    _report_clock(clock, where, reading)
    period = options.bins_per_frame / clock.rate
    if chosen.series is None:
        period = float(np.median(chosen.stops - chosen.starts))
    given = index is None and options.frames is not None
    unit = "n/a" if given else _unit(chosen.pictures)
    pixels = _pixel_size(chosen.pictures, base.shape)
    return Stimulus(frames, None if index is None else shown, clock, unit, pixels, period)


def _candidates(root: Node, tables: Tables, timed: bool) -> tuple[dict[str, Candidate], list[str]]:
    """List what may be the movie, by name; and the names of other stimuli.

    Where the user gives the frames (``timed``), any series with times may be the movie.
    """
    found: dict[str, Candidate] = {}
    others, indexed = [], set()
    shown = root.get("stimulus/presentation")
    for node in () if shown is None else shown.members():
        source = node.get("indexed_images") or node.get("indexed_timeseries")
        times = node.stored("timestamps") or node.stored("starting_time")
        if source is not None:
            indexed.add(source.path)
        if source is not None and not timed:
            found[node.name] = Candidate(source, node)
        elif source is not None or (timed and times is not None) or is_movie(node):
            found[node.name] = Candidate(node, node)
        else:
            others.append(node.name)
    nodes = root.groups("stimulus/templates")
    templates = {node.name: node for node in nodes if is_template(node)}
    for name, table in _presentations(tables, templates):
        if table.pictures.path not in indexed:  # an index series says more
            found.setdefault(name, table)
    return found, others


def _presentations(
    tables: Tables, templates: Mapping[str, Node]
) -> Iterator[tuple[str, Candidate]]:
    """Yield every table of intervals that refers to a template, once per template.

    A row refers to a template by its name in a column such as ``stimulus_name``; without one the
    table's own name must begin with the template's (``movie_presentations``), or there must be
    only one. It refers to a picture by number (``frame``, ``image_index``, …) or by its name.
    """
    for table in tables.values() if templates else ():
        starts, stops = (np.asarray(table[n], float) for n in ("start_time", "stop_time"))
        owner = _owner(table, templates, starts.size)
        for name in sorted({each for each in owner if each}):
            found = _numbers(table, templates[name], np.flatnonzero(owner == name))
            if found is None:
                continue
            rows, index, column = found
            order = np.argsort(starts[rows], kind="stable")
            rows, index = rows[order], index[order]
            several = len(set(owner.tolist())) > 1
            title = f"{table.name}/{name}" if several else table.name
            yield title, Candidate(templates[name], None, index, starts[rows], stops[rows], column)


def _owner(table: Table, templates: Mapping[str, Node], rows: int) -> npt.NDArray[np.object_]:
    """Name of the template of every row; empty where it has none."""
    for column in TEMPLATE_COLUMNS:
        words = [str(word) for word in table[column]] if column in table else []
        if len(words) == rows and set(words) & set(templates):
            return np.array([w if w in templates else "" for w in words], dtype=object)
    named = [name for name in templates if table.name.startswith(name)]
    if not named and len(templates) == 1 and "presentation" in table.name:
        named = list(templates)
    return np.full(rows, max(named, key=len) if named else "", dtype=object)


def _numbers(table: Table, template: Node, rows: Numbers) -> tuple[Numbers, Numbers, str] | None:
    """Rows that show a picture, its numbers, and the column they came from."""
    for column in NUMBER_COLUMNS:
        values = table[column] if column in table else None
        if isinstance(values, np.ndarray) and values.dtype.kind in "iuf":
            numbers = values.ravel()[rows].astype(np.float64)
            shown = np.isfinite(numbers)
            return rows[shown], numbers[shown].astype(np.int64), column
    names = {name: number for number, name in enumerate(picture_names(template))}
    for column in NAME_COLUMNS:
        values = table[column] if column in table and names else None
        if isinstance(values, np.ndarray):
            words = [str(word) for word in values.ravel()[rows]]
            known = np.array([word in names for word in words], dtype=bool)
            if known.any():
                picked = np.array([names[w] for w in words if w in names], dtype=np.int64)
                return rows[known], picked, column
    return None


def _choose(found: dict[str, Candidate], others: list[str], name: str | None, path: str) -> str:
    if not found:
        has = f"it has {', '.join(sorted(others))}" if others else "it has none"
        raise RetinaCodecError(
            f"{path} must have a stimulus that is an image series, an index series, or a table of "
            f"presentations that names a template; {has}. A seed: pass frames=SeededFrames(…)."
        )
    if name is None:
        if len(found) > 1 and OURS not in found:
            raise RetinaCodecError(
                f"{path} must have one stimulus; it has {', '.join(sorted(found))}. Pass "
                "stimulus=NAME (or one per split: stimulus={'train': NAME, 'test': NAME})."
            )
        return OURS if OURS in found else next(iter(found))
    if name not in found:
        raise RetinaCodecError(
            f"{path} must have the stimulus {name!r}; it has {', '.join(sorted(found))}"
        )
    return name


def _find_clock(
    root: Node, tables: Tables, chosen: Candidate, count: int, where: str, reading: Reading
) -> FrameClock:
    """Clock of the frames or pictures, in ``bins_per_frame`` bins each."""
    options, series = reading.options, chosen.series
    if series is None:
        clock = clock_from_intervals(chosen.starts, chosen.stops, where, rate=options.frame_rate)
        return clock.divided(options.bins_per_frame)
    start, rate, times = series.timing()
    movie, nominal = series is chosen.pictures, options.frame_rate
    if options.frame_times is not None:
        onsets = _given_times(options.frame_times, root, where)
        nominal = (nominal or (None if start is None else rate)) if movie else None
        clock = clock_from_times(onsets, count, where, nominal=nominal, repair=options.repair_clock)
    elif start is not None:
        clock = clock_from_rate(count, start, rate, where)
    elif times is None:
        raise RetinaCodecError(
            f"{where} must have a rate or timestamps; it has neither. Pass frame_times=ONSETS."
        )
    elif movie:
        onsets = times.read()
        clock = clock_from_times(onsets, count, where, nominal=nominal, repair=options.repair_clock)
    else:
        onsets = times.read().ravel().astype(np.float64)
        stops = _ends(tables, onsets, count, where, reading)
        clock = clock_from_intervals(onsets, stops, where, rate=nominal)
    return clock.divided(options.bins_per_frame)


def _given_times(given: Any, root: Node, where: str) -> Floats:
    """Onsets that the user gives, or those at a path in the file."""
    if not isinstance(given, str):
        return np.asarray(given, dtype=np.float64).ravel()
    node = root.get(given.strip("/"))
    if node is not None and not node.is_array:
        node = node.get("timestamps") or node.get("data")
    if node is None:
        raise RetinaCodecError(
            f"{where}: frame_times must be onsets in s, or a path in the file "
            f"to them; nothing is at {given!r}"
        )
    return node.read().astype(np.float64).ravel()


def _ends(tables: Tables, onsets: Floats, count: int, where: str, reading: Reading) -> Floats:
    """Find the end of every picture: from intervals that start with it, else the next onset."""
    if onsets.size != count:
        raise RetinaCodecError(
            f"{where}: there must be one timestamp per index; {onsets.size} for {count}"
        )
    for table in tables.values():
        starts, stops = (np.asarray(table[n], float) for n in ("start_time", "stop_time"))
        if starts.shape != stops.shape or starts.size < onsets.size:
            continue
        order = np.argsort(starts, kind="stable")
        starts, stops = starts[order], stops[order]
        place = np.minimum(np.searchsorted(starts, onsets - 1e-6), starts.size - 1)
        if np.abs(starts[place] - onsets).max() < 1e-3 and np.isfinite(stops[place]).all():
            reading.say(f"ends of pictures: stop_time of {table.path}")
            return stops[place]
    last = reading.options.last_duration
    if last is None:
        raise RetinaCodecError(
            f"{where} has the onset of every picture and the end of none: the last one, "
            f"shown from {onsets[-1]:.6g} s, has no known end. Pass last_duration=SECONDS, or "
            "add intervals with these start times."
        )
    reading.say(f"ends of pictures: the next onset; the last one after {last:g} s, as given")
    return np.append(onsets[1:], onsets[-1] + last)


def _unit(node: Node) -> str:
    data = node.stored("data")
    return "n/a" if data is None else str(data.attribute("unit", "n/a"))


def _pixel_size(node: Node, shape: tuple[int, int, int]) -> float:
    """Divide the field of view (width first, m) by the pixels of a row, µm; NaN where unknown."""
    view = node.stored("field_of_view")
    return float("nan") if view is None else float(view.read().ravel()[0] / shape[2] * 1e6)


def _report_clock(clock: FrameClock, where: str, reading: Reading) -> None:
    dropped, doubled = (int(clock.report[name]) for name in ("dropped_frames", "duplicated_frames"))
    if (dropped or doubled) and reading.options.repair_clock:
        reading.doubt(
            f"{where}: {dropped} dropped frames show the frame before once more, {doubled} frames "
            "that were replaced at once are left out"
        )
    elif dropped or doubled:
        reading.doubt(f"{where}: {dropped} dropped and {doubled} duplicated frames")
