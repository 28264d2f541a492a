"""The movie of an NWB file: which one is meant, how its frames are stored, when each was shown.

NWB keeps a stimulus as an image series with the frames inside or in other files, as a series of
indices into pictures or into an older series, as a table of presentations that points to a
template, or as a seed. All end as the same two things: frames by number and a clock. Nothing is
read here but names, shapes and times.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from retina_codec.errors import RetinaCodecError
from retina_codec.recordings.frames.lazy import Frames, IndexedFrames
from retina_codec.recordings.nwb.clock import (
    FrameClock,
    clock_from_intervals,
    clock_from_rate,
    clock_from_times,
)
from retina_codec.recordings.nwb.options import NwbOptions, Reading
from retina_codec.recordings.nwb.pictures import (
    Presentations,
    find_presentations,
    is_movie,
    is_template,
    series_frames,
    template_frames,
)
from retina_codec.recordings.nwb.session import Floats
from retina_codec.recordings.nwb.tree import Node

__all__ = ["Stimulus", "find_stimulus"]

OURS = "stimulus"  # what our writer calls it


@dataclass
class Stimulus:
    """What was shown.

    Attributes
    ----------
    name : str
    frames : Frames
        One per bin of the clock.
    clock : FrameClock
    unit : str
        Of intensity.
    pixel_size : float
        µm, NaN where unknown.
    period : float
        s, how long one frame or picture was shown, as a rule.
    """

    name: str
    frames: Frames
    clock: FrameClock
    unit: str
    pixel_size: float
    period: float


def find_stimulus(
    root: Node, path: str, name: str | None, options: NwbOptions, reading: Reading
) -> Stimulus:
    """Find the stimulus that was shown, or the one asked for by name.

    Parameters
    ----------
    root : Node
    path : str
        For messages and for files beside it.
    name : str, optional
        Of a series or a table of presentations.
    options : NwbOptions
    reading : Reading

    Returns
    -------
    Stimulus

    Raises
    ------
    RetinaCodecError
        None, several without a name, or one that cannot be read without a guess.
    """
    found, others = _candidates(root, options.frames is not None)
    name = _choose(found, others, name, path)
    node = found[name]
    where = f"{path}: stimulus {name!r}"
    if isinstance(node, Presentations):
        stimulus = _from_presentations(node, where, options, reading)
    elif options.frames is None and _is_index(node):
        stimulus = _from_index(root, node, where, options, reading)
    else:
        frames = series_frames(node, path, where, options, reading)
        clock = _series_clock(node, frames.shape[0], where, root, options)
        shown = frames if clock.index is None else IndexedFrames(frames, clock.index)
        pixels = _pixel_size(node, frames.shape)
        unit = "n/a" if options.frames is not None else _unit(node)
        stimulus = Stimulus(name, shown, clock, unit, pixels, 1 / clock.rate)
    clock = stimulus.clock.divided(options.bins_per_frame)
    if clock is not stimulus.clock:
        repeated = np.repeat(np.arange(stimulus.frames.shape[0]), options.bins_per_frame)
        stimulus.frames, stimulus.clock = IndexedFrames(stimulus.frames, repeated), clock
        reading.say(f"bins: {options.bins_per_frame} per frame, {clock.rate:.9g} Hz")
    reading.say(f"stimulus: {name!r}, {stimulus.frames.encoding}")
    left = sorted({*found, *others} - {name})
    if left:
        reading.say(f"stimuli that were not read: {', '.join(left)}")
    _tell_clock(clock, where, options, reading)
    return stimulus


def _candidates(root: Node, timed: bool) -> tuple[dict[str, Node | Presentations], list[str]]:
    """List what may be the movie, by name; and what stands there and is none.

    Where the user gives the frames (``timed``), anything with times may be.
    """
    found: dict[str, Node | Presentations] = {}
    others: list[str] = []
    shown = root.get("stimulus/presentation")
    for node in shown.members() if shown is not None and not shown.is_array else ():
        has_times = node.get("timestamps") is not None or node.get("starting_time") is not None
        if (timed and has_times) or _is_index(node) or is_movie(node):
            found[node.name] = node
        else:
            others.append(node.name)
    sources = [_source(node) for node in found.values() if isinstance(node, Node)]
    indexed = {source.path for source in sources if source is not None}
    for table in find_presentations(root):
        if table.template.path not in indexed:  # an index series is the better account
            found.setdefault(table.name, table)
    return found, others


def _source(node: Node) -> Node | None:
    """Return what an index series points to."""
    return node.get("indexed_images") or node.get("indexed_timeseries")


def _is_index(node: Node) -> bool:
    if node.is_array:
        return False
    return node.kind == "IndexSeries" or any(
        node.get(name) is not None for name in ("indexed_images", "indexed_timeseries")
    )


def _choose(found: dict[str, Any], others: list[str], name: str | None, path: str) -> str:
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


def _series_clock(
    node: Node, count: int, where: str, root: Node, options: NwbOptions
) -> FrameClock:
    start = node.get("starting_time")
    stated = None if start is None else float(start.attribute("rate", np.nan))
    if options.frame_times is not None:
        given = _given_times(options.frame_times, root, where)
        nominal = options.frame_rate or stated
        return clock_from_times(given, count, where, nominal=nominal, repair=options.repair_clock)
    if start is not None and stated is not None:
        return clock_from_rate(count, float(start.read().ravel()[0]), stated, where)
    times = node.get("timestamps")
    if times is None:
        raise RetinaCodecError(
            f"{where} must have a rate or timestamps; it has neither. Pass frame_times=ONSETS."
        )
    return clock_from_times(
        times.read(), count, where, nominal=options.frame_rate, repair=options.repair_clock
    )


def _given_times(given: Any, root: Node, where: str) -> Floats:
    """Onsets that the user gives, or the path in the file where they stand."""
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


def _from_index(
    root: Node, node: Node, where: str, options: NwbOptions, reading: Reading
) -> Stimulus:
    source, data = _source(node), node.get("data")
    if source is None or data is None or not is_template(source):
        raise RetinaCodecError(f"{where} must point to pictures that are in the file")
    base = template_frames(source, where, options, reading)
    index = data.read().ravel().astype(np.int64)
    start, times = node.get("starting_time"), node.get("timestamps")
    if options.frame_times is not None:
        given = _given_times(options.frame_times, root, where)
        clock = clock_from_times(given, index.size, where, repair=options.repair_clock)
    elif start is not None:
        rate = float(start.attribute("rate", np.nan))
        clock = clock_from_rate(index.size, float(start.read().ravel()[0]), rate, where)
    elif times is None:
        raise RetinaCodecError(f"{where} must have a rate or timestamps; it has neither")
    else:
        onsets = times.read().ravel().astype(np.float64)
        clock = _index_clock(root, onsets, index.size, where, options, reading)
    shown = index if clock.index is None else np.where(clock.index < 0, -1, index[clock.index])
    frames = IndexedFrames(base, shown, blank=options.blank)
    frames.encoding = f"indices into {source.path} ({base.encoding})"
    pixels = _pixel_size(source, base.shape)
    return Stimulus(node.name, frames, clock, _unit(source), pixels, 1 / clock.rate)


def _index_clock(
    root: Node,
    onsets: Floats,
    count: int,
    where: str,
    options: NwbOptions,
    reading: Reading,
) -> FrameClock:
    """Give every picture an end: from intervals that start with it, else the next onset."""
    if onsets.size != count:
        raise RetinaCodecError(
            f"{where}: there must be one timestamp per index; {onsets.size} for {count}"
        )
    stops, table = _stops_of(root, onsets)
    if stops is not None:
        reading.say(f"ends of pictures: stop_time of {table}")
    else:
        last = options.last_duration
        if last is None:
            raise RetinaCodecError(
                f"{where} has the onset of every picture and the end of none: the last one, "
                f"shown from {onsets[-1]:.6g} s, has no known end. Pass last_duration=SECONDS, or "
                "add intervals with these start times."
            )
        stops = np.append(onsets[1:], onsets[-1] + last)
        reading.say(f"ends of pictures: the next onset; the last one after {last:g} s, as given")
    return clock_from_intervals(onsets, stops, where, rate=options.frame_rate)


def _stops_of(root: Node, onsets: Floats) -> tuple[npt.NDArray[np.float64] | None, str]:
    """Look for intervals that start when the pictures do."""
    tables = root.get("intervals")
    for table in tables.members() if tables is not None and not tables.is_array else ():
        first, last = table.get("start_time"), table.get("stop_time")
        if first is None or last is None or first.shape != last.shape:
            continue
        starts, stops = first.read().astype(np.float64), last.read().astype(np.float64)
        if starts.size < onsets.size:
            continue
        order = np.argsort(starts, kind="stable")
        starts, stops = starts[order], stops[order]
        place = np.minimum(np.searchsorted(starts, onsets - 1e-6), starts.size - 1)
        if np.abs(starts[place] - onsets).max() < 1e-3 and np.isfinite(stops[place]).all():
            return stops[place], table.path
    return None, ""


def _from_presentations(
    table: Presentations, where: str, options: NwbOptions, reading: Reading
) -> Stimulus:
    base = template_frames(table.template, where, options, reading)
    clock = clock_from_intervals(table.starts, table.stops, where, rate=options.frame_rate)
    number = np.arange(table.index.size) if clock.index is None else clock.index
    shown = np.where(number < 0, -1, table.index[number])
    frames = IndexedFrames(base, shown, blank=options.blank)
    frames.encoding = (
        f"presentations of {table.template.path} by the column {table.column!r} ({base.encoding})"
    )
    pixels = _pixel_size(table.template, base.shape)
    period = float(np.median(table.stops - table.starts))
    return Stimulus(table.name, frames, clock, _unit(table.template), pixels, period)


def _unit(node: Node) -> str:
    data = node.get("data") if not node.is_array else None
    return str(data.attribute("unit", "n/a")) if data is not None else "n/a"


def _pixel_size(node: Node, shape: tuple[int, int, int]) -> float:
    """µm per pixel from the field of view (width first) in m; NaN for unknown."""
    view = node.get("field_of_view") if not node.is_array else None
    if view is None:
        return float("nan")
    return float(view.read().ravel()[0] / shape[2] * 1e6)


def _tell_clock(clock: FrameClock, where: str, options: NwbOptions, reading: Reading) -> None:
    report = clock.report
    dropped, doubled = int(report["dropped_frames"]), int(report["duplicated_frames"])
    if (dropped or doubled) and options.repair_clock:
        reading.doubt(
            f"{where}: {dropped} dropped frames show the frame before once more, {doubled} frames "
            "that were replaced at once are left out"
        )
    elif dropped or doubled:
        reading.doubt(f"{where}: {dropped} dropped and {doubled} duplicated frames")
