"""What a user may say about an NWB file, and what the reader says about it.

Why this file exists: files leave things open (which stimulus, which axis is which, when the last
picture ended). Each is an option with a plain name; what was assumed, skipped or looks wrong is
collected and told. Nothing is read here.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from retina_codec.errors import RecordingWarning

__all__ = ["NwbOptions", "Reading"]


@dataclass(frozen=True)
class NwbOptions:
    """What the user says; see `retina_codec.recordings.nwb.reader.read_nwb` for each."""

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
    """What was found while reading, in order; `doubts` deserve a look."""

    path: str
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
        """All of it, one line each; doubts are marked."""
        return "\n".join([*self.facts, *(f"doubt: {doubt}" for doubt in self.doubts)])

    def warn(self) -> None:
        """Warn once, of all doubts."""
        if self.doubts:
            warnings.warn(f"{self.path}: {'; '.join(self.doubts)}", RecordingWarning, stacklevel=4)
