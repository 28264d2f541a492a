"""The stimulus of an NWB file: its frames on the clock of their onsets.

Image series, indices into pictures, presentations of a template and seeds become one type.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from retina_codec.errors import option
from retina_codec.recordings.frames.lazy import BLANK, Frames, IndexedFrames
from retina_codec.recordings.nwb.clock import (
    FrameClock,
    clock_from_intervals,
    clock_of_plays,
    clock_of_series,
    given_clock,
    report_clock,
)
from retina_codec.recordings.nwb.options import Reading
from retina_codec.recordings.nwb.pictures import Shown, find_pictures
from retina_codec.recordings.nwb.tree import Node, Tables

__all__ = ["Stimulus", "find_stimulus"]

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
    options, shown = reading.options, find_pictures(root, tables, name, reading)
    chosen, base, index = shown.chosen, shown.frames, shown.index
    where = f"{reading.path}: " + (f"stimulus {shown.name!r}" if chosen else "the frames given")
    plays: list[tuple[float, float]] = []
    if chosen is None:
        clock = given_clock(root, base.shape[0], where, reading, options.frame_rate)
    elif chosen.whole:
        clock, index, plays = clock_of_plays(
            chosen.pictures, (chosen.starts, chosen.stops), base.shape[0], where, reading
        )
    elif chosen.series is None:
        clock = clock_from_intervals(chosen.starts, chosen.stops, where, rate=options.frame_rate)
        clock = clock.divided(options.bins_per_frame)
    else:
        movie, count = chosen.series is chosen.pictures, base.shape[0]
        count = count if index is None else index.size
        clock = clock_of_series(chosen.series, movie, count, where, root, tables, reading)
    if not plays:
        report_clock(clock, where, reading)
    numbers = clock.index
    if index is not None:
        numbers = index if numbers is None else np.where(numbers < 0, BLANK, index[numbers])
    blank = None if index is None or plays else options.blank
    frames = base if numbers is None else IndexedFrames(base, numbers, blank=blank)
    period = _report(shown, clock, where, reading, plays)
    unit, pixels = "n/a", float("nan")
    if chosen is not None:
        pixels = _pixel_size(chosen.pictures, base.shape)
        if index is not None or options.frames is None:
            unit = _unit(chosen.pictures)
    return Stimulus(frames, None if index is None else numbers, clock, unit, pixels, period, plays)


def _report(
    shown: Shown,
    clock: FrameClock,
    where: str,
    reading: Reading,
    plays: list[tuple[float, float]],
) -> float:
    """Say what was read and on which clock; return how long a frame or picture was shown, s."""
    options, chosen = reading.options, shown.chosen
    period = options.bins_per_frame / clock.rate
    if chosen is not None and options.bins_per_frame > 1 and not plays:
        reading.say(f"bins: {options.bins_per_frame} per frame, {clock.rate:.9g} Hz")
    what = f"{shown.name!r}, {chosen.words(shown.frames)}" if chosen else None
    reading.say(f"stimulus: {what or 'frames and frame_times as given'}")
    if shown.others:
        reading.say(f"stimuli that were not read: {', '.join(shown.others)}")
    if chosen is None or plays:
        return period
    if chosen.series is None:
        return float(np.median(chosen.stops - chosen.starts))
    if shown.index is None and 1 / period < SLOWEST and options.frame_time_unit is None:
        reading.doubt(
            f"{where}: its frames follow each other every {period:.3g} s; if their times are in ms "
            f"or samples, pass {option('frame_time_unit', 'ms')} or the sampling rate in Hz"
        )
    return period


def _unit(node: Node) -> str:
    data = node.stored("data")
    return "n/a" if data is None else str(data.attribute("unit", "n/a"))


def _pixel_size(node: Node, shape: tuple[int, int, int]) -> float:
    """Divide the field of view (width first, m) by the pixels of a row, µm; NaN where unknown."""
    view = node.stored("field_of_view")
    width = float("nan") if view is None else view.number()
    return width / shape[2] * 1e6 if np.isfinite(width) and width > 0 else float("nan")
