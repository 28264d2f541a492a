"""Options of reading an NWB file, and the report of how it was read."""

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from retina_codec.errors import RecordingWarning, RetinaCodecError, option
from retina_codec.recordings.frames.lazy import COLORS, Frames
from retina_codec.recordings.numbers import is_number, is_positive

__all__ = ["AXES", "SPLITS", "NwbOptions", "Reading", "seconds_per"]

AXES = ("tyx", "txy", "xyt", "yxt")
SPLITS = ("train", "test")
GREYS = ("luminance", "mean", *COLORS)
UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6}
SHOWN = 60  # letters of a value in a message


@dataclass(frozen=True)
class NwbOptions:
    """What an NWB file does not say itself; every option may be left out.

    Parameters
    ----------
    stimulus : str or mapping, optional
        Name of the series or table of presentations that was shown, where the file has several,
        or its path (``acquisition/movie``) where it is no stimulus for the file; or one per split:
        ``{"train": "noise", "test": "movie"}``.
    frames : array (time, y, x), SeededFrames or path of a .npy file, optional
        The frames, where the file does not hold them. Their times come from the file, or from
        ``frame_times`` where it has no stimulus.
    splits : mapping, optional
        ``{"train": …, "test": …}``: an interval (start, stop) in s, a list of them, or a mapping
        from column to value(s) that selects rows of a table of intervals. Several test intervals
        are presentations of one movie.
    table : str, optional
        Name of that table, where several have the columns.
    units : str, optional
        Path of the table of units, where several have spike times.
    cells : list or mapping, optional
        Ids of the units to keep, or column and value(s), such as ``{"quality": "good"}``.
    cell_names : str, optional
        What makes the names of cells different where ids repeat: a column of the units, such as
        the probe (names become "value id"), or ``row`` (0, 1, …).
    cell_types : str, path or mapping, optional
        Column of the units, CSV or JSON file keyed by unit id, or mapping. Default: the column
        ``cell_type``, else "unknown".
    interneuron_types : path or mapping, optional
        From the name of an intracellular series to its type.
    axis_order : str, optional
        ``tyx`` or ``txy`` (time first), ``xyt`` or ``yxt`` (time last), as stored. Default:
        (time, y, x), checked against ``dimension``.
    color : str, optional
        Which grey value stands for a color: ``luminance``, ``mean``, ``red``, ``green``, ``blue``.
    frame_times : array or str, optional
        Onset of every frame, s (photodiode), in place of the times in the file; or the path in
        the file where these onsets are stored.
    frame_time_unit : str or float, optional
        Of the times of frames: ``s``, ``ms``, ``us``, or the sampling rate in Hz of times in
        samples. Default: s, and refused where the spikes contradict.
    frame_rate : float, optional
        Hz. For pictures shown for a while: of the bins. For timestamps: the stated rate, against
        which drift is reported.
    bins_per_frame : int
        Number of bins that every frame is divided into.
    last_duration : float, optional
        s, how long the last picture of an index series was shown, where nothing says it.
    blank : float, optional
        Intensity while no picture was shown.
    repair_clock : bool
        Repeat the frame before where frames were dropped; leave out frames that were replaced at
        once.
    join_blocks : bool
        Join several train intervals into one train split, one after the other; ``block`` and
        ``session_time`` along time say where each bin comes from. A window of stimulus history
        then reaches into the block before.
    spike_time_unit : str or float
        ``s``, ``ms``, ``us``, or the sampling rate in Hz of spike times in samples.
    spike_restarts : list of float or "none", optional
        s, session clock: where the clock of the spikes began again at 0; the times of a unit after
        its k-th jump back count from the k-th of these. ``none``: only their order is wrong.
    trust_paths : bool
        Follow external files that are not in the folder of the file or below.

    Raises
    ------
    RetinaCodecError
        A value of another kind; the message names the option.
    """

    stimulus: str | Mapping[str, str] | None = None
    frames: Any = None
    splits: Mapping[str, Any] | None = None
    table: str | None = None
    units: str | None = None
    cells: Sequence[Any] | Mapping[str, Any] | None = None
    cell_names: str | None = None
    cell_types: Any = None
    interneuron_types: Any = None
    axis_order: str | None = None
    color: str | None = None
    frame_times: Any = None
    frame_time_unit: str | float | None = None
    frame_rate: float | None = None
    bins_per_frame: int = 1
    last_duration: float | None = None
    blank: float | None = None
    repair_clock: bool = False
    join_blocks: bool = False
    spike_time_unit: str | float = "s"
    spike_restarts: Sequence[float] | str | None = None
    trust_paths: bool = False

    def __post_init__(self) -> None:
        """Validate every option before the file is opened."""
        if isinstance(self.cells, str | int | np.integer) and "," not in str(self.cells):
            object.__setattr__(self, "cells", [self.cells])
        for name, (fits, what, example) in RULES.items():
            value = getattr(self, name)
            if value is not None and not fits(value):
                raise RetinaCodecError(
                    f"{name} must be {what}; got {_short(value)}. Pass {option(name, example)}."
                )


def _is_unit(value: Any) -> bool:
    return value in UNITS if isinstance(value, str) else is_positive(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool | np.bool_)


def _is_source(value: Any) -> bool:
    return isinstance(value, str | os.PathLike | Mapping)


def _names_splits(value: Any) -> bool:
    return isinstance(value, Mapping) and "test" in value and not set(value) - set(SPLITS)


def _is_stimulus(value: Any) -> bool:
    return _is_text(value) or (_names_splits(value) and all(map(_is_text, value.values())))


def _are_splits(value: Any) -> bool:
    return _names_splits(value) and all(
        isinstance(part, Mapping) or _are_numbers(part, pairs=True) for part in value.values()
    )


def _are_numbers(value: Any, *, pairs: bool = False) -> bool:
    try:
        array = np.asarray(value)
    except ValueError:
        return False
    whole = array.dtype.kind in "iuf" and array.size > 0
    return whole and (array.shape[-1:] == (2,) and array.ndim <= 2 if pairs else array.ndim == 1)


def _are_cells(value: Any) -> bool:
    if isinstance(value, Mapping):
        return True
    try:
        return not isinstance(value, str) and np.ndim(value) == 1
    except ValueError:  # lists of different lengths
        return False


def _are_frames(value: Any) -> bool:
    if isinstance(value, str | os.PathLike):
        return os.fspath(value).lower().endswith(".npy")
    return isinstance(value, Frames) or (
        len(getattr(value, "shape", ())) == 3 and 0 not in value.shape and hasattr(value, "dtype")
    )


UNIT_WORDS = "s, ms, us, or the sampling rate in Hz of {} times in samples"
RULES: dict[str, tuple[Any, str, Any]] = {  # option: test, what it must be, an example
    "stimulus": (
        _is_stimulus,
        "a name, or one for 'test' and perhaps for 'train'",
        {"train": "NAME", "test": "NAME"},
    ),
    "frames": (_are_frames, "an array (time, y, x), SeededFrames or a .npy file", "FILE.npy"),
    "splits": (
        _are_splits,
        "intervals (start, stop) in s, or columns and values, for 'test' and perhaps for 'train'",
        {"train": [0, 600], "test": [[600, 660], [660, 720]]},
    ),
    "table": (_is_text, "the name of a table of intervals", "trials"),
    "units": (_is_text, "the path of a table of units", "units"),
    "cells": (_are_cells, "a list of ids, or columns and values", [12, 4]),
    "cell_names": (_is_text, "a column of the units, or row", "row"),
    "cell_types": (_is_source, "a column, a .csv or .json file, or a mapping", "cell_type"),
    "interneuron_types": (_is_source, "a .csv or .json file, or a mapping", "types.csv"),
    "axis_order": (AXES.__contains__, f"one of {', '.join(AXES)}", "txy"),
    "color": (GREYS.__contains__, f"one of {', '.join(GREYS)}", "luminance"),
    "frame_times": (
        lambda value: _is_text(value) or _are_numbers(value),
        "onsets in s, or a path in the file to them",
        [0.0, 0.1, 0.2],
    ),
    "frame_time_unit": (_is_unit, UNIT_WORDS.format("frame"), "ms"),
    "frame_rate": (is_positive, "a positive number of Hz", 60),
    "bins_per_frame": (
        lambda value: is_number(value, 1) and value == int(value),
        "a whole number, at least 1",
        4,
    ),
    "last_duration": (is_positive, "a positive number of s", 0.25),
    "blank": (is_number, "a finite intensity", 128),
    "repair_clock": (_is_bool, "true or false", True),
    "join_blocks": (_is_bool, "true or false", True),
    "spike_time_unit": (_is_unit, UNIT_WORDS.format("spike"), "ms"),
    "spike_restarts": (
        lambda value: value == "none" if isinstance(value, str) else _are_numbers(value),
        "session times in s, or none",
        [600.0],
    ),
    "trust_paths": (_is_bool, "true or false", True),
}


def _short(value: Any) -> str:
    """Return a value for a message; an array by its shape."""
    shape = getattr(value, "shape", ())
    text = f"an array of shape {tuple(shape)}" if shape else repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]} …"


def seconds_per(unit: str | float) -> float:
    """Return the seconds of one step of ``s``, ``ms``, ``us`` or of samples at a rate in Hz."""
    return UNITS[unit] if isinstance(unit, str) else 1.0 / float(unit)


@dataclass
class Reading:
    """A reading of one file: the options, and a report of what was found, in order.

    Attributes
    ----------
    path : str
        The file, as the user gave it; for messages.
    options : NwbOptions
    facts : list of str
        How the parts were read.
    doubts : list of str
        What was assumed or looks wrong; the user is warned.
    apart : list of str
        Doubts that are warned of on their own.
    """

    path: str
    options: NwbOptions = field(default_factory=NwbOptions)
    facts: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    apart: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        """Note how something was read."""
        if text not in self.facts:
            self.facts.append(text)

    def doubt(self, text: str, *, apart: bool = False) -> None:
        """Note what was assumed, or what looks wrong; ``apart`` gives it a warning of its own."""
        if text not in self.doubts:
            self.doubts.append(text)
            self.apart += [text] if apart else []

    @property
    def text(self) -> str:
        """The report, one line for each note; doubts are marked."""
        return "\n".join([*self.facts, *(f"doubt: {doubt}" for doubt in self.doubts)])

    def warn(self) -> None:
        """Warn once of all doubts, and of those that stand apart."""
        joined = [doubt for doubt in self.doubts if doubt not in self.apart]
        for doubt in [*self.apart, *(["; ".join(joined)] if joined else [])]:
            warnings.warn(f"{self.path}: {doubt}", RecordingWarning, stacklevel=5)
