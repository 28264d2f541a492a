"""Onset of each frame from a rate, timestamps or intervals; jitter, drift and dropped frames.

Notation: n frames, T bins; a bin is the time from one onset to the next.
"""

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from retina_codec.errors import RetinaCodecError, option
from retina_codec.recordings.binning import LATE, Floats
from retina_codec.recordings.nwb.options import NwbOptions, Reading, seconds_per
from retina_codec.recordings.nwb.tree import Node, Tables

__all__ = [
    "FrameClock",
    "clock_from_intervals",
    "clock_from_rate",
    "clock_from_times",
    "clock_of_plays",
    "clock_of_series",
    "given_clock",
    "report_clock",
]

LATEST = LATE  # of a period: largest deviation of a frame from its expected time
MOST_DROPPED = 5  # periods; a longer gap is a pause between two parts of the session
SURE = 1e-12  # relative: smallest error of a rate
MOST_FRAMES = 10**9  # of one session
LENGTHS_DIFFER = 0.05  # of a movie and of its presentations
BLANK = -1
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class FrameClock:
    """The bins of a movie.

    Attributes
    ----------
    onsets : numpy.ndarray, (T,)
        s, ascending.
    rate : float
        Hz: one over the period, the mean time between frames that follow each other.
    index : numpy.ndarray, (T,), or None
        Number of the frame in each bin, −1 for a blank; None: bin t shows frame t.
    report : dict of float
        See `clock_from_times`.
    """

    onsets: Floats
    rate: float
    index: Numbers | None = None
    report: dict[str, float] = field(default_factory=dict)

    @property
    def stop(self) -> float:
        """End of the last bin, s."""
        return float(self.onsets[-1]) + 1.0 / self.rate

    @cached_property
    def ends(self) -> Floats:
        """End of every bin, s: the next onset, where that is in time."""
        ends: Floats = self.onsets + 1.0 / self.rate
        follows = np.abs(self.onsets[1:] - ends[:-1]) * self.rate < LATEST
        ends[:-1][follows] = self.onsets[1:][follows]
        return ends

    def divided(self, parts: int) -> "FrameClock":
        """Divide every bin into equal parts, all of which show its frame.

        Parameters
        ----------
        parts : int

        Returns
        -------
        FrameClock
            With ``parts`` times the rate.
        """
        if parts < 1:
            raise RetinaCodecError(f"bins_per_frame must be at least 1; got {parts}")
        if parts == 1:
            return self
        step = np.append(np.diff(self.onsets), 1.0 / self.rate)
        pause = step * self.rate > 1 + LATEST  # is not part of the frame before it
        step = np.where(pause, 1.0 / self.rate, step)
        within = np.arange(parts) / parts
        onsets = (self.onsets[:, None] + step[:, None] * within).ravel()
        index = np.arange(self.onsets.size) if self.index is None else self.index
        return replace(self, onsets=onsets, rate=self.rate * parts, index=np.repeat(index, parts))


def clock_from_rate(count: int, start: float, rate: float, where: str) -> FrameClock:
    """Clock of frames at a stated rate.

    Parameters
    ----------
    count : int
    start : float
        s, onset of the first frame.
    rate : float
        Hz.
    where : str
        For messages.

    Returns
    -------
    FrameClock

    Raises
    ------
    RetinaCodecError
        No frames, a rate that is not positive, or a start that is not finite.
    """
    if not (np.isfinite(rate) and rate > 0):
        raise RetinaCodecError(
            f"{where}: the stimulus rate must be positive; got {rate}. Pass "
            f"{option('frame_times', 'ONSETS')}."
        )
    if count < 1 or count > MOST_FRAMES or not np.isfinite(start):
        raise RetinaCodecError(
            f"{where}: there must be frames, at most {MOST_FRAMES}, from a finite time; there are "
            f"{count} from {start} s. Pass {option('frame_times', 'ONSETS')}."
        )
    report = _report(float(start), 0.0, 0.0, np.nan, 0, 0, 0)
    return FrameClock(float(start) + np.arange(count) / rate, float(rate), None, report)


def clock_from_times(
    times: npt.ArrayLike,
    count: int,
    where: str,
    *,
    nominal: float | None = None,
    repair: bool = False,
) -> FrameClock:
    """Estimate period and jitter of timestamps; find dropped and doubled frames.

    With d the times between successive frames and p their period, k = round(d/p): 0 is a doubled
    frame, 2 ≤ k ≤ 5 means k − 1 dropped frames, more is a pause. The period is the slope of the
    straight line through times against Σk, fitted by least squares to all parts between pauses at
    once (each with its own start), which is exact also for rounded timestamps; the rate is given to
    as many digits as the fit determines. Jitter is the deviation from the line.

    Parameters
    ----------
    times : array, (n,)
        s, one per frame.
    count : int
        Number of frames.
    where : str
        For messages.
    nominal : float, optional
        Hz, the stated rate, against which drift is measured.
    repair : bool
        Show the frame before once more where frames were dropped, and leave out a frame that was
        replaced at once. Otherwise both are refused when the part is used.

    Returns
    -------
    FrameClock
        ``report``: ``offset`` (s), ``jitter`` (s, standard deviation), ``largest_jitter`` (s),
        ``drift`` (parts per million against ``nominal``, NaN without), ``dropped_frames``,
        ``duplicated_frames``, ``pauses``.

    Raises
    ------
    RetinaCodecError
        Another number of times than of frames, NaN, times that run backwards, less than two.
    """
    onsets = np.asarray(times, dtype=np.float64).ravel()
    if onsets.size != count:
        raise RetinaCodecError(
            f"{where}: the stimulus must have one timestamp per frame; it has {onsets.size} for "
            f"{count} frames. Nothing is cut: pass {option('frame_times', 'ONSETS')} with the true "
            "onsets, or mend it."
        )
    bad = int(np.count_nonzero(~np.isfinite(onsets)))
    with np.errstate(invalid="ignore"):
        back = np.flatnonzero(np.diff(onsets) < 0)
    if count < 2 or bad or back.size:
        found = f"{bad} are NaN or infinite" if bad else f"there is {count}"
        if back.size and not bad:
            found = f"number {back[0] + 1} is before number {back[0]}"
        raise RetinaCodecError(
            f"{where}: stimulus timestamps must be finite, increasing, at least two; {found}. "
            f"Pass {option('frame_times', 'ONSETS')} with the true onsets."
        )
    step = np.diff(onsets)
    if not (step > 0).any():
        raise RetinaCodecError(
            f"{where}: stimulus timestamps must increase; all are {onsets[0]}. Pass "
            f"{option('frame_times', 'ONSETS')} with the true onsets."
        )
    middle = float(np.median(step[step > 0]))
    turns = np.rint(step / middle).astype(np.int64)
    near = turns <= MOST_DROPPED
    period = float(step[near].sum() / max(1, turns[near].sum()))
    turns = np.rint(step / period).astype(np.int64)
    far = np.abs(step / period - turns) > LATEST  # not a whole number of frames
    pause = (turns > MOST_DROPPED) | (far & (turns > 1))
    period, rate, late = _line(onsets, turns, pause, period)
    report = _report(
        float(onsets[0]),
        float(late.std()),
        float(np.abs(late).max()),
        (1.0 / period / nominal - 1) * 1e6 if nominal else np.nan,
        int((turns[~pause & (turns > 1)] - 1).sum()),
        int((turns[~pause] == 0).sum()),
        int(pause.sum()),
    )
    if not repair:
        return FrameClock(onsets, rate, None, report)
    kept = np.append(~((turns == 0) & ~pause), True)  # a frame that was replaced at once
    shown = np.flatnonzero(kept)
    gaps = np.diff(onsets[shown])
    number = np.where(gaps / period > MOST_DROPPED + LATEST, 1, np.rint(gaps / period))
    number = np.append(np.maximum(1, number), 1).astype(np.int64)
    index = np.repeat(shown, number)
    first = np.repeat(onsets[shown], number)
    within = np.arange(index.size) - np.repeat(np.cumsum(number) - number, number)
    each = np.repeat(np.append(gaps, period) / number, number)
    return FrameClock(first + within * np.where(within > 0, each, 0.0), rate, index, report)


def clock_from_intervals(
    starts: npt.ArrayLike, stops: npt.ArrayLike, where: str, *, rate: float | None = None
) -> FrameClock:
    """Make a clock of equal bins for pictures that were each shown for a while.

    Pictures of equal durations without gaps are their own bins. Others need a rate: bin t shows the
    picture that was on at its middle, and a blank where none was.

    Parameters
    ----------
    starts, stops : arrays, (n,)
        s, ascending and finite.
    where : str
        For messages.
    rate : float, optional
        Hz, of the bins.

    Returns
    -------
    FrameClock
        ``index`` holds the number of the picture, −1 for a blank.

    Raises
    ------
    RetinaCodecError
        Times that run backwards, overlap, or are missing; pictures of several durations without a
        rate.
    """
    on, off = np.asarray(starts, dtype=np.float64), np.asarray(stops, dtype=np.float64)
    finite = on[np.isfinite(on)]
    if on.size == 0 or finite.size < on.size or (np.diff(finite) <= 0).any():
        twice = np.flatnonzero(np.diff(finite) == 0)
        found = f"two start at {finite[twice[0]]:.6g} s" if twice.size else "some are not"
        raise RetinaCodecError(
            f"{where}: pictures must have finite, increasing start times; {found}. Take the rows "
            "out that were not shown."
        )
    if not np.isfinite(off).all() or (off <= on).any():
        number = int(np.argmax(~(np.isfinite(off) & (off > on))))
        raise RetinaCodecError(
            f"{where}: every picture must end after it starts; picture {number} starts at "
            f"{on[number]:.6g} s and ends at {off[number]:.6g} s. Correct the table."
        )
    length = off - on
    middle = float(np.median(length))
    gaps = np.abs(np.append(on[1:], off[-1]) - off) / middle
    equal = np.abs(length / middle - 1).max() < LATEST and gaps.max() < LATEST
    if rate is None:
        if not equal:
            raise RetinaCodecError(
                f"{where}: pictures were shown for {length.min():.4g} to {length.max():.4g} s, "
                "perhaps with blanks between; they must have a clock of equal bins. Pass "
                f"{option('frame_rate', 'HZ')}."
            )
        if on.size == 1:
            return clock_from_rate(1, float(on[0]), 1 / middle, where)
        return clock_from_times(on, on.size, where)
    if not (np.isfinite(rate) and rate > 0):
        raise RetinaCodecError(
            f"frame_rate must be a positive number of Hz; got {rate}. Pass "
            f"{option('frame_rate', 60)}."
        )
    if (on[1:] < off[:-1] - LATEST / rate).any():
        number = int(np.argmax(on[1:] < off[:-1] - LATEST / rate))
        raise RetinaCodecError(
            f"{where}: pictures must not overlap; number {number} ends at {off[number]:.6g} s, the "
            f"next starts at {on[number + 1]:.6g} s. Correct the table."
        )
    bins = max(1, round((off[-1] - on[0]) * rate))
    onsets = on[0] + np.arange(bins) / rate
    middles = onsets + 0.5 / rate
    index = np.searchsorted(on, middles, side="right") - 1
    index = np.where((index >= 0) & (middles < off[index]), index, BLANK)
    report = _report(float(on[0]), 0.0, 0.0, np.nan, 0, 0, 0)
    return FrameClock(onsets, float(rate), index.astype(np.int64), report)


def clock_of_series(
    series: Node,
    movie: bool,
    count: int,
    where: str,
    root: Node,
    tables: Tables,
    reading: Reading,
) -> FrameClock:
    """Clock of a series in ``bins_per_frame`` bins for each frame or picture.

    Parameters
    ----------
    series : Node
        Has a rate or timestamps.
    movie : bool
        It holds the frames themselves; else each picture is shown until an interval of `tables`
        ends, or until the next one.
    count : int
        Number of frames or pictures.
    where : str
        Names the stimulus in messages.
    root : Node
    tables : mapping of Table
    reading : Reading

    Returns
    -------
    FrameClock

    Raises
    ------
    RetinaCodecError
        No times; whatever `clock_from_rate`, `clock_from_times` and `clock_from_intervals` refuse.
    """
    options = reading.options
    start, rate, times = series.timing()
    nominal = options.frame_rate
    if options.frame_times is not None:
        nominal = (nominal or (None if start is None else rate)) if movie else None
        return given_clock(root, count, where, reading, nominal)
    elif start is not None:
        clock = clock_from_rate(count, start, rate, where)
    elif times is None:
        raise RetinaCodecError(
            f"{where} must have a rate or timestamps; it has neither. Pass "
            f"{option('frame_times', 'ONSETS')}."
        )
    elif movie:
        onsets = times.numbers() * _step(options)
        clock = clock_from_times(onsets, count, where, nominal=nominal, repair=options.repair_clock)
    else:
        onsets = times.numbers().ravel() * _step(options)
        stops = _ends(tables, onsets, count, where, reading)
        clock = clock_from_intervals(onsets, stops, where, rate=nominal)
    return clock.divided(options.bins_per_frame)


def clock_of_plays(
    template: Node, spans: tuple[Floats, Floats], count: int, where: str, reading: Reading
) -> tuple[FrameClock, Numbers, list[tuple[float, float]]]:
    """Clock of whole presentations of a template; its rate says when its frames came.

    Without a rate the frames share the duration of a presentation.

    Parameters
    ----------
    template : Node
        The series that was played.
    spans : (array, array)
        s, start and stop of each presentation.
    count : int
        Number of frames of the template.
    where : str
        Names the stimulus in messages.
    reading : Reading

    Returns
    -------
    clock : FrameClock
        In ``bins_per_frame`` bins for each frame.
    numbers : numpy.ndarray
        Number of the frame of the template, for each frame that was shown.
    plays : list of (float, float)
        s, start of each presentation and the end of its last frame.

    Raises
    ------
    RetinaCodecError
        Presentations that do not end after they start; whatever `clock_from_times` refuses.
    """
    options, (starts, stops) = reading.options, spans
    _, rate, _ = template.timing()
    length = stops - starts
    if not (np.isfinite(length).all() and (length > 0).all()):
        raise RetinaCodecError(
            f"{where}: every presentation must end after it starts; some do not. Correct the table."
        )
    if not (np.isfinite(rate) and rate > 0):
        rate = options.frame_rate or count / float(np.median(length))
        reading.doubt(
            f"{template.path} states no rate; {rate:.6g} Hz is taken, its frames over the "
            f"duration of a row (or {option('frame_rate', 60)})"
        )
    counts = np.minimum(count, np.maximum(1, np.round(length * rate))).astype(int)
    if abs(np.median(length) * rate / count - 1) > LENGTHS_DIFFER:
        reading.doubt(
            f"{where}: its presentations last {np.median(length):.4g} s and the "
            f"{count} frames of {template.path} at {rate:.6g} Hz "
            f"{count / rate:.4g} s; the first frames of it are taken"
        )
    numbers = np.concatenate([np.arange(each) for each in counts])
    onsets = np.repeat(starts, counts) + numbers / rate
    clock = clock_from_times(onsets, numbers.size, where, nominal=rate)
    plays = list(zip(starts.tolist(), (starts + counts / rate).tolist(), strict=True))
    return clock.divided(options.bins_per_frame), numbers, plays


def given_clock(
    root: Node, count: int, where: str, reading: Reading, nominal: float | None
) -> FrameClock:
    """Clock from ``frame_times``, in ``bins_per_frame`` bins for each frame.

    Parameters
    ----------
    root : Node
        Where a path leads from.
    count : int
        Number of frames.
    where : str
        Names the stimulus in messages.
    reading : Reading
    nominal : float or None
        Hz, see `clock_from_times`.

    Returns
    -------
    FrameClock

    Raises
    ------
    RetinaCodecError
        Nothing at the path; whatever `clock_from_times` refuses.
    """
    options = reading.options
    onsets = _given_times(options, root, where)
    clock = clock_from_times(onsets, count, where, nominal=nominal, repair=options.repair_clock)
    return clock.divided(options.bins_per_frame)


def _step(options: NwbOptions) -> float:
    """Seconds of one step of the times of frames."""
    return seconds_per(options.frame_time_unit or "s")


def _given_times(options: NwbOptions, root: Node, where: str) -> Floats:
    """Onsets that the user gives, or those at a path in the file, s."""
    given = options.frame_times
    if not isinstance(given, str):
        onsets: Floats = np.asarray(given, dtype=np.float64).ravel() * _step(options)
        return onsets
    node = root.get(given.strip("/"))
    if node is not None and not node.is_array:
        node = node.get("timestamps") or node.get("data")
    if node is None or not node.is_array:
        raise RetinaCodecError(
            f"{where}: frame_times must be onsets in s, or a path in the file to them; nothing is "
            f"at {given!r}. Pass {option('frame_times', 'PATH')} with another."
        )
    return node.numbers().ravel() * _step(options)


def _ends(tables: Tables, onsets: Floats, count: int, where: str, reading: Reading) -> Floats:
    """Find the end of every picture: from intervals that start with it, else the next onset."""
    if onsets.size != count:
        raise RetinaCodecError(
            f"{where}: there must be one timestamp per index; {onsets.size} for {count}. Pass "
            f"{option('frame_times', 'ONSETS')}."
        )
    for table in tables.values():
        starts, stops = table.spans()
        if starts.size < onsets.size:
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
            f"{where} must say when its pictures ended; it has the onset of each: the last one, "
            f"shown from {onsets[-1]:.6g} s, has no known end. Pass "
            f"{option('last_duration', 'SECONDS')}, or add intervals with these start times."
        )
    reading.say(f"ends of pictures: the next onset; the last one after {last:g} s, as given")
    return np.append(onsets[1:], onsets[-1] + last)


def report_clock(clock: FrameClock, where: str, reading: Reading) -> None:
    """Say how many frames were dropped or shown twice.

    Parameters
    ----------
    clock : FrameClock
    where : str
        Names the stimulus.
    reading : Reading
        Takes the doubt.
    """
    dropped, doubled = (int(clock.report[name]) for name in ("dropped_frames", "duplicated_frames"))
    if (dropped or doubled) and reading.options.repair_clock:
        reading.doubt(
            f"{where}: {dropped} dropped frames show the frame before once more, {doubled} frames "
            "that were replaced at once are left out"
        )
    elif dropped or doubled:
        reading.doubt(f"{where}: {dropped} dropped and {doubled} duplicated frames")


def _line(
    onsets: Floats, turns: Numbers, pause: npt.NDArray[np.bool_], period: float
) -> tuple[float, float, Floats]:
    """Period (s) by least squares over the parts between pauses, its rate (Hz), deviations (s)."""
    parts = []
    for part in np.split(np.arange(onsets.size), np.flatnonzero(pause) + 1):
        number = np.concatenate([[0], np.cumsum(turns[part[:-1]])]).astype(np.float64)
        parts.append((part, number - number.mean(), onsets[part] - onsets[part].mean()))
    spread = sum(float(number @ number) for _, number, _ in parts)
    if spread > 0:
        period = sum(float(number @ time) for _, number, time in parts) / spread
    late = np.zeros(onsets.size)
    for part, number, time in parts:
        late[part] = time - number * period
    rate = 1.0 / period
    error = float(late.std()) / np.sqrt(spread) / period if spread > 0 else 0.0  # relative
    for digits in range(1, 16):
        short = float(f"{rate:.{digits}g}")
        if abs(short / rate - 1) <= max(SURE, 2 * error):
            return period, short, late
    return period, rate, late


def _report(
    offset: float,
    jitter: float,
    largest: float,
    drift: float,
    dropped: int,
    duplicated: int,
    pauses: int,
) -> dict[str, float]:
    return {
        "offset": offset,
        "jitter": jitter,
        "largest_jitter": largest,
        "drift": drift,
        "dropped_frames": dropped,
        "duplicated_frames": duplicated,
        "pauses": pauses,
    }
