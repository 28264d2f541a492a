"""The text of the page of a recording: session, times, clock and flags."""

from collections.abc import Mapping
from textwrap import wrap
from typing import Any

import numpy as np
import xarray as xr

from retina_codec.storage.results import table

__all__ = ["describe"]

LINE = 68  # letters that fit beside the other column
FLAGGED = 9  # cells that are named one by one


def describe(recording: xr.DataTree) -> tuple[list[str], list[str]]:
    """Tell where a recording comes from, how good its clock is, and which cells are flagged.

    Parameters
    ----------
    recording : xr.DataTree
        With ``/quality``; ``/clock`` may hold the scalars ``offset`` (s), ``drift`` (ppm,
        or a ratio without unit), ``jitter`` (s), ``dropped_frames``, ``duplicated_frames``,
        ``pauses``, and ``spikes_outside`` (cell).

    Returns
    -------
    session : list of str
        Lines about session and clock.
    flags : list of str
        Lines about leakage and cells.
    """
    return _wrapped([*_session(recording), *_clock(recording)]), _wrapped(_flags(recording))


def _session(recording: xr.DataTree) -> list[str]:
    attrs, rate = recording.attrs, float(recording.attrs["frame_rate"])
    size = attrs["pixel_size"]
    pixel = f"{size:g} µm" if np.isfinite(size) else "not known"
    lines = [
        f"session: {attrs['session'] or 'not known'}",
        f"species: {attrs['species'] or 'not known'}; source: {attrs['source'] or 'not known'}",
        f"frames: {rate:g} Hz, pixel {pixel}",
    ]
    lengths = []
    for split in ("train", "test"):
        if split in recording.children:
            seconds = recording[split].sizes["time"] / rate
            lengths.append(f"{split} {_duration(seconds)}")
    if "train" not in recording.children:
        lengths.append("no train split")
    if "repeats" in recording["test"].children:
        lengths[-1 if "train" in recording.children else 0] += (
            f" × {recording['test/repeats'].sizes['repeat']}"
        )
    lines.append("length: " + ", ".join(lengths))
    rates = table(recording, "test")["rate"].attrs
    if "kernel" in rates:
        lines.append(f"rates are smoothed: {rates['kernel']}, {1000 * rates['width']:g} ms")
    return lines


def _clock(recording: xr.DataTree) -> list[str]:
    if "clock" not in recording.children:
        return ["clock: no report"]
    clock = table(recording, "clock")
    words = []
    for name in ("offset", "drift", "jitter"):
        if name in clock and clock[name].ndim == 0:
            words.append(f"{name} {_value(float(clock[name]), clock[name].attrs, name)}")
    for name in ("dropped_frames", "duplicated_frames", "pauses"):
        if name in clock and clock[name].ndim == 0:
            value = float(clock[name])
            words.append(f"{value:g} {name.replace('_', ' ')}" if np.isfinite(value) else "")
    words = [word for word in words if word]
    lines = ["clock: " + (", ".join(words) or "nothing measured")]
    if "spikes_outside" in clock:
        outside = clock["spikes_outside"].values.astype(np.float64)
        lines.append(f"spikes outside of the frames: {np.nansum(outside):g}")
    return lines


def _flags(recording: xr.DataTree) -> list[str]:
    quality = table(recording, "quality")
    lines = []
    if "leaked_fraction" in quality:
        share = 100 * float(quality["leaked_fraction"])
        lines.append(f"test frames in runs that training shows too: {share:.1f} %")
    missing = float(quality["missing"].mean())
    if missing > 0:
        lines.append(f"bins without a recording: {_percent(missing)}, mean over cells")
    flags = quality["flag"].values.astype(str)
    marked = np.flatnonzero(flags != "")
    cells = f"{len(flags)} cell{'s' if len(flags) > 1 else ''}"
    lines.append(f"flagged: {marked.size or 'none'} of {cells}")
    room = FLAGGED if marked.size <= FLAGGED else FLAGGED - 1
    lines += [f"cell {quality['cell'].values[i]}: {flags[i]}" for i in marked[:room]]
    if marked.size > room:
        lines.append(f"and {marked.size - room} more, see flag in /quality")
    unknown = [
        words
        for name, words in (
            ("reliability", "reliability (no repeats)"),
            ("refractory_violations", "refractory violations (no exact times)"),
        )
        if quality[name].isnull().all()
    ]
    return [*lines, f"not measured: {', '.join(unknown)}"] if unknown else lines


def _value(value: float, attrs: Mapping[Any, Any], name: str) -> str:
    """Say a time in s or ms, a drift in parts per million."""
    if not np.isfinite(value):
        return "not known"
    if name == "drift":
        return f"{value if attrs.get('units') == 'ppm' else 1e6 * value:.3g} ppm"
    return f"{value:.4g} s" if abs(value) >= 1 else f"{1000 * value:.3g} ms"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 0.0005 else "below 0.1 %"


def _duration(seconds: float) -> str:
    return f"{seconds:.4g} s" if seconds < 300 else f"{seconds / 60:.4g} min"


def _wrapped(lines: list[str]) -> list[str]:
    """Break what is too long; nothing is cut."""
    return [part for line in lines for part in wrap(line, LINE, subsequent_indent="    ")]
