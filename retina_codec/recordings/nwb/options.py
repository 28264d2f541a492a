"""Options of reading an NWB file, and the report of how it was read."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from retina_codec.errors import RecordingWarning

__all__ = ["NwbOptions", "Reading"]


@dataclass(frozen=True)
class NwbOptions:
    """What an NWB file does not say itself; every option may be left out.

    Parameters
    ----------
    stimulus : str or mapping, optional
        Name of the series or table of presentations that was shown, where the file has several;
        or one per split: ``{"train": "noise", "test": "movie"}``.
    frames : array (time, y, x) or SeededFrames, optional
        The frames, where the file does not hold them; the file still gives their times.
    splits : mapping, optional
        ``{"train": …, "test": …}``: an interval (start, stop) in s, a list of them, or a mapping
        from column to value(s) that selects rows of a table of intervals. Several test intervals
        are presentations of one movie.
    table : str, optional
        Name of that table, where several have the columns.
    cells : list or mapping, optional
        Ids of the units to keep, or column and value(s), such as ``{"quality": "good"}``.
    cell_types : str, path or mapping, optional
        Column of the units, CSV or JSON file keyed by unit id, or mapping. Default: the column
        ``cell_type``, else "unknown".
    interneuron_types : path or mapping, optional
        From the name of an intracellular series to its type.
    axis_order : str, optional
        ``tyx`` or ``txy`` (also ``xyt``, ``yxt``), as stored. Default: (time, y, x), checked
        against ``dimension``.
    color : str, optional
        Which grey value stands for a color: ``luminance``, ``mean``, ``red``, ``green``, ``blue``.
    frame_times : array or str, optional
        Onset of every frame, s (photodiode), in place of the times in the file; or the path in
        the file where these onsets are stored.
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
    trust_paths : bool
        Follow external files that are not in the folder of the file or below.
    """

    stimulus: str | Mapping[str, str] | None = None
    frames: Any = None
    splits: Mapping[str, Any] | None = None
    table: str | None = None
    cells: Sequence[Any] | Mapping[str, Any] | None = None
    cell_types: Any = None
    interneuron_types: Any = None
    axis_order: str | None = None
    color: str | None = None
    frame_times: Any = None
    frame_rate: float | None = None
    bins_per_frame: int = 1
    last_duration: float | None = None
    blank: float | None = None
    repair_clock: bool = False
    join_blocks: bool = False
    spike_time_unit: str | float = "s"
    trust_paths: bool = False


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
    """

    path: str
    options: NwbOptions = field(default_factory=NwbOptions)
    facts: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        """Note how something was read."""
        if text not in self.facts:
            self.facts.append(text)

    def doubt(self, text: str) -> None:
        """Note what was assumed, or what looks wrong."""
        if text not in self.doubts:
            self.doubts.append(text)

    @property
    def text(self) -> str:
        """The report, one line for each note; doubts are marked."""
        return "\n".join([*self.facts, *(f"doubt: {doubt}" for doubt in self.doubts)])

    def warn(self) -> None:
        """Warn once, of all doubts."""
        if self.doubts:
            warnings.warn(f"{self.path}: {'; '.join(self.doubts)}", RecordingWarning, stacklevel=5)
