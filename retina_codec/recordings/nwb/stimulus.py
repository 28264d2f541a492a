"""The stimulus of an NWB file: which one was shown, its frames, and the onset of each frame.

Image series, indices into pictures, presentations of a template and seeds become one type.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from retina_codec.errors import RetinaCodecError, option
from retina_codec.recordings.binning import Floats
from retina_codec.recordings.frames.lazy import BLANK, Frames, IndexedFrames
from retina_codec.recordings.nwb.clock import (
    FrameClock,
    Tables,
    clock_from_intervals,
    clock_from_times,
    clock_of_series,
    given_clock,
    report_clock,
)
from retina_codec.recordings.nwb.options import Reading
from retina_codec.recordings.nwb.pictures import (
    frame_array,
    given_frames,
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
LISTED = 8
RECORDED = ("TwoPhotonSeries", "OnePhotonSeries")  # movies of cells, which nobody saw
LENGTHS_DIFFER = 0.05  # of a movie and of its presentations
SLOWEST = 0.5  # Hz: movies with fewer frames are a doubt
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
    plays : list of (float, float)
        s, start and stop of each presentation, where a table states them and nothing else; else
        empty.
    """

    frames: Frames
    numbers: Numbers | None
    clock: FrameClock
    unit: str
    pixel_size: float
    period: float
    plays: list[tuple[float, float]] = field(default_factory=list)


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
        Where the numbers of a table came from; empty where every row plays the whole template.
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
            raise RetinaCodecError(
                f"{where} must hold numbers of pictures; it has no data. Write them there."
            )
        numbers = data.numbers().ravel()
        if not (np.isfinite(numbers).all() and (numbers == np.round(numbers)).all()):
            raise RetinaCodecError(
                f"{where} must hold whole numbers of pictures in {data.path}; some are not. Write "
                "them again."
            )
        return numbers.astype(np.int64)

    def words(self, frames: Frames) -> str:
        """Say how the frames are stored."""
        if self.series is self.pictures:
            return frames.encoding
        what = f"presentations of {self.pictures.path} by the column {self.column!r}"
        if not self.column:
            what = f"{self.starts.size} presentations of the whole of {self.pictures.path}"
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
    found, others, lost = _candidates(root, tables, options.frames is not None)
    timed = options.frames is not None and options.frame_times is not None
    if name is None and timed and len(found) != 1:
        return _given(root, reading)
    name = _choose(root, found, [*others, *lost], lost, name, reading)
    chosen, where = found[name], f"{reading.path}: stimulus {name!r}"
    if chosen.series is None and not chosen.column:
        return _plays(chosen, name, reading)
    index = chosen.numbers(where)
    if index is None:
        base = series_frames(chosen.pictures, where, reading)
    else:
        base = template_frames(chosen.pictures, where, reading)
    count = base.shape[0] if index is None else index.size
    if index is not None and index.size and not BLANK <= index.min() <= index.max() < base.shape[0]:
        raise RetinaCodecError(
            f"{where} must refer to pictures of {chosen.pictures.path} by numbers below "
            f"{base.shape[0]}, their count; they are {index.min()} to {index.max()}. Correct them, "
            f"or pass {option('axis_order', 'xyt')} if the pictures are its last axis."
        )
    if chosen.series is None:
        clock = clock_from_intervals(chosen.starts, chosen.stops, where, rate=options.frame_rate)
        clock = clock.divided(options.bins_per_frame)
    else:
        movie = chosen.series is chosen.pictures
        clock = clock_of_series(chosen.series, movie, count, where, root, tables, reading)
    shown, blank = clock.index, None
    if index is not None:
        shown = index if shown is None else np.where(shown < 0, BLANK, index[shown])
        blank = options.blank
    frames = base if shown is None else IndexedFrames(base, shown, blank=blank)
    if options.bins_per_frame > 1:
        reading.say(f"bins: {options.bins_per_frame} per frame, {clock.rate:.9g} Hz")
    reading.say(f"stimulus: {name!r}, {chosen.words(base)}")
    left = sorted({*found, *others, *lost} - {name})
    if left:
        reading.say(f"stimuli that were not read: {', '.join(left)}")
    report_clock(clock, where, reading)
    period = options.bins_per_frame / clock.rate
    if chosen.series is None:
        period = float(np.median(chosen.stops - chosen.starts))
    elif index is None and 1 / period < SLOWEST and options.frame_time_unit is None:
        reading.doubt(
            f"{where}: its frames follow each other every {period:.3g} s; if their times are in ms "
            f"or samples, pass {option('frame_time_unit', 'ms')} or the sampling rate in Hz"
        )
    given = index is None and options.frames is not None
    unit = "n/a" if given else _unit(chosen.pictures)
    pixels = _pixel_size(chosen.pictures, base.shape)
    return Stimulus(frames, None if index is None else shown, clock, unit, pixels, period)


def _given(root: Node, reading: Reading) -> Stimulus:
    """Frames and their times as the user gives them; the file needs no stimulus."""
    options, where = reading.options, f"{reading.path}: the frames given"
    frames = given_frames(options.frames)
    clock = given_clock(root, frames.shape[0], where, reading, options.frame_rate)
    reading.say("stimulus: frames and frame_times as given")
    report_clock(clock, where, reading)
    shown = frames if clock.index is None else IndexedFrames(frames, clock.index)
    period = options.bins_per_frame / clock.rate
    return Stimulus(shown, None, clock, "n/a", float("nan"), period)


def _plays(chosen: Candidate, name: str, reading: Reading) -> Stimulus:
    """Whole presentations of a template, one per row of a table; its rate says when frames came.

    Without a rate the frames share the duration of the rows.
    """
    options, where = reading.options, f"{reading.path}: stimulus {name!r}"
    base = template_frames(chosen.pictures, where, reading)
    _, rate, _ = chosen.pictures.timing()
    length = chosen.stops - chosen.starts
    if not (np.isfinite(length).all() and (length > 0).all()):
        raise RetinaCodecError(
            f"{where}: every presentation must end after it starts; some do not. Correct the table."
        )
    if not (np.isfinite(rate) and rate > 0):
        rate = options.frame_rate or base.shape[0] / float(np.median(length))
        reading.doubt(
            f"{chosen.pictures.path} states no rate; {rate:.6g} Hz is taken, its frames over the "
            f"duration of a row (or {option('frame_rate', 60)})"
        )
    counts = np.minimum(base.shape[0], np.maximum(1, np.round(length * rate))).astype(int)
    if abs(np.median(length) * rate / base.shape[0] - 1) > LENGTHS_DIFFER:
        reading.doubt(
            f"{where}: its presentations last {np.median(length):.4g} s and the "
            f"{base.shape[0]} frames of {chosen.pictures.path} at {rate:.6g} Hz "
            f"{base.shape[0] / rate:.4g} s; the first frames of it are taken"
        )
    numbers = np.concatenate([np.arange(count) for count in counts])
    starts = np.repeat(chosen.starts, counts)
    clock = clock_from_times(starts + numbers / rate, numbers.size, where, nominal=rate)
    clock = clock.divided(options.bins_per_frame)
    shown = numbers if clock.index is None else numbers[clock.index]
    reading.say(f"stimulus: {name!r}, {chosen.words(base)}")
    plays = list(zip(chosen.starts.tolist(), (chosen.starts + counts / rate).tolist(), strict=True))
    unit, pixels = _unit(chosen.pictures), _pixel_size(chosen.pictures, base.shape)
    frames = IndexedFrames(base, shown)
    return Stimulus(frames, shown, clock, unit, pixels, 1 / rate, plays)


def _candidates(
    root: Node, tables: Tables, timed: bool
) -> tuple[dict[str, Candidate], list[str], dict[str, str]]:
    """List what may be the movie, by name; the names of other stimuli; those that cannot be read.

    Where the user gives the frames (``timed``), any series with times may be the movie.
    """
    found: dict[str, Candidate] = {}
    others: list[str] = []
    indexed: set[str] = set()
    lost: dict[str, str] = {}
    shown = root.get("stimulus/presentation")
    for node in () if shown is None else shown.members(lost):
        try:
            source = node.get("indexed_images") or node.get("indexed_timeseries")
            if source is not None:
                indexed.add(source.path)
            if source is not None and not timed:
                found[node.name] = Candidate(source, node)
            elif source is not None or _may_be(node, timed):
                found[node.name] = Candidate(node, node)
            else:
                others.append(node.name)
        except RetinaCodecError as error:
            lost[node.name] = str(error)
    hidden: dict[str, str] = {}
    nodes = root.groups("stimulus/templates", hidden)
    templates = {node.name: node for node in nodes if is_template(node)}
    tabled = list(_presentations(tables, templates))
    numbered = [entry for entry in tabled if entry[1].column]
    for name, table in numbered if found or numbered else tabled:
        if table.pictures.path not in indexed:  # an index series says more
            found.setdefault(name, table)
    return found, others, lost if found else lost | hidden


def _may_be(node: Node, timed: bool) -> bool:
    """Say whether a node may be the movie: it has frames, or times for the frames given."""
    times = node.stored("timestamps") or node.stored("starting_time")
    return (timed and times is not None) or is_movie(node)


def _elsewhere(root: Node, timed: bool) -> dict[str, Candidate]:
    """Find series that the file does not call a stimulus, by path; read only if they are named."""
    modules = [f"processing/{module.name}" for module in root.groups("processing")]
    found = {}
    for place in ("acquisition", *modules, "stimulus/templates"):
        for node in root.groups(place):
            try:
                if _may_be(node, timed):
                    found[f"{place}/{node.name}"] = Candidate(node, node)
            except RetinaCodecError:  # of a series that nobody may need
                continue
    return found


def _presentations(
    tables: Tables, templates: Mapping[str, Node]
) -> Iterator[tuple[str, Candidate]]:
    """Yield every table of intervals that refers to a template, once per template.

    A row refers to a template by its name in a column such as ``stimulus_name``; without one the
    table's own name must begin with the template's (``movie_presentations``), or there must be
    only one. It refers to a picture by number (``frame``, ``image_index``, …) or by its name; where
    it does not, it plays the whole template.
    """
    for table in tables.values() if templates else ():
        starts, stops = table.spans()
        owner = _owner(table, templates, starts.size)
        for name in sorted({each for each in owner if each}):
            rows = np.flatnonzero(owner == name)
            found = _numbers(table, templates[name], rows)
            if found is None and frame_array(templates[name]) is not None:
                found = rows, np.zeros(rows.size, dtype=np.int64), ""
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
        words = table.words(column) if column in table else []
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


def _choose(
    root: Node,
    found: dict[str, Candidate],
    others: list[str],
    lost: Mapping[str, str],
    name: str | None,
    reading: Reading,
) -> str:
    """Choose the stimulus: the one that is named, or the only one; adds it to ``found``."""
    path, timed = reading.path, reading.options.frames is not None
    if name is not None and name not in found and name not in lost:
        further = _elsewhere(root, timed)
        fitting = [p for p in further if name.strip("/") in (p, p.rsplit("/", 1)[-1])]
        if len(fitting) == 1:
            found[name] = further[fitting[0]]
            reading.say(f"{fitting[0]} is no stimulus of the file; taken as named")
        elif found or fitting:
            raise RetinaCodecError(
                f"{path} must have the stimulus {name!r}, once; it has "
                f"{', '.join(fitting or sorted({*found, *others}))}. Pass "
                f"{option('stimulus', (fitting or sorted(found))[0])} or another of these."
            )
    if name is not None and name in lost:
        raise RetinaCodecError(lost[name])
    if not found and len(lost) == 1:
        raise RetinaCodecError(next(iter(lost.values())))
    if not found:
        has = f"it has {', '.join(sorted(others))}" if others else "it has none"
        every = _elsewhere(root, timed)
        near = sorted(p for p, each in every.items() if each.pictures.kind not in RECORDED)
        if near:
            has += f", and {', '.join(near[:LISTED])} elsewhere"
            way = f"Pass {option('stimulus', near[0])} or another of these."
        else:
            frames, times = option("frames", "ARRAY"), option("frame_times", "ONSETS")
            way = f"Pass {frames} and {times}; frames of a seed: frames=SeededFrames(…) in Python."
        raise RetinaCodecError(
            f"{path} must have a stimulus that is an image series, an index series, or a table of "
            f"presentations that names a template; {has}. {way}"
        )
    if name is None:
        if len(found) + len(lost) > 1 and OURS not in found:
            raise RetinaCodecError(
                f"{path} must have one stimulus; it has {', '.join(sorted({*found, *lost}))}. Pass "
                f"{option('stimulus', 'NAME')} (or one per split: "
                f"{option('stimulus', {'train': 'NAME', 'test': 'NAME'})})."
            )
        return OURS if OURS in found else next(iter(found))
    return name


def _unit(node: Node) -> str:
    data = node.stored("data")
    return "n/a" if data is None else str(data.attribute("unit", "n/a"))


def _pixel_size(node: Node, shape: tuple[int, int, int]) -> float:
    """Divide the field of view (width first, m) by the pixels of a row, µm; NaN where unknown."""
    view = node.stored("field_of_view")
    width = float("nan") if view is None else view.number()
    return width / shape[2] * 1e6 if np.isfinite(width) and width > 0 else float("nan")
