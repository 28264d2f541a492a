"""Numbers, lists and hypotheses as text: what is not known is never written like a number."""

import re
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

__all__ = [
    "NOT_MEASURED",
    "count",
    "headline",
    "layer_words",
    "listed",
    "measured",
    "number",
    "percent",
    "plural",
    "signed",
    "supporters",
    "text_of",
    "timed",
]

NOT_MEASURED = "not measured"
NAMED = re.compile(r"(\S+) (mode|pathway)s? (\d+(?:, \d+)*)")


def number(value: float | None, digits: int = 2) -> str:
    """Format with fixed decimals; a dash where nothing is known."""
    return "–" if value is None or value != value else f"{value:.{digits}f}"


def measured(value: float | None, digits: int = 2) -> str:
    """Format with fixed decimals and a true minus sign; words where nothing is known."""
    if value is None or value != value:
        return NOT_MEASURED
    return signed(value, digits)


def percent(value: float | None, digits: int = 0) -> str:
    """Format a share as percent with a space that does not break; small ones keep two figures."""
    if value is None or value != value:
        return "–"
    if value != 0 and abs(value) < 0.0005:
        return f"{100 * value:.1g}\u00a0%"
    if digits == 0 and abs(value) < 0.0995 and value != 0:
        digits = 1 if abs(value) >= 0.00995 else 2
    return f"{100 * value:.{digits}f}\u00a0%"


def listed(items: list[Any]) -> str:
    """Join as in a sentence: ``a, b and c``."""
    words = [str(item) for item in items]
    if len(words) < 2:
        return words[0] if words else "none"
    return f"{', '.join(words[:-1])} and {words[-1]}"


def plural(value: int, noun: str) -> str:
    """Count a noun: ``1 cell``, ``2 cells``."""
    return f"{value} {noun}" if value == 1 else f"{value} {noun}s"


def signed(value: float | None, digits: int = 2) -> str:
    """Format with a true minus sign."""
    return number(value, digits).replace("-", "−")


def count(value: float) -> str:
    """Format a large number with commas, a very large one with an exponent."""
    return f"{value:,.0f}" if value < 1e7 else f"{value:.1e}"


def headline(row: xr.Dataset) -> str:
    """Say one hypothesis in plain words, cells by their types.

    Parameters
    ----------
    row : xr.Dataset
        One row of `hypothesize`.

    Returns
    -------
    str
        Such as "Without OFF fast bipolars, all 4 OFF transient cells would fire 3.2 Hz less; the
        other 12 cells would hardly change." Rates are means over the cells named.
    """
    name = str(row["interneuron"].item())
    channels = [word for word in str(row["channels"].item()).split(", ") if word]
    noun = "channel" if len(channels) == 1 else "channels"
    place = layer_words(str(row["layer"].item()))
    names = name if name.endswith("s") else f"{name}s"
    who = names if name else f"the neurons that are like {noun} {listed(channels)} of {place}"
    when = f", while {_source(row)} acts" if timed(row) else ""
    change = row["change"].values.astype(np.float64)
    affected = row["affected"].values.astype(bool)
    parts: list[str] = []
    for word, chosen in (("less", affected & (change < 0)), ("more", affected & (change > 0))):
        if chosen.any():
            amount = f"{_hertz(abs(float(change[chosen].mean())))} Hz {word}"
            parts.append(f"{_who(row, chosen)}{'' if parts else ' would fire'} {amount}")
    unsure = row["undecided"].values.astype(bool) if "undecided" in row else affected & False
    end = _others(int((~affected & ~unsure).sum()), int((unsure & ~affected).sum()))
    if not parts:
        return f"Without {who}{when}, no cell would change by much{_others(0, unsure.sum())}."
    return f"Without {who}{when}, {' and '.join(parts)}{end}."


def _others(rest: int, unsure: int) -> str:
    """Say what becomes of the cells that are not affected."""
    if not unsure:
        others = "cell" if rest == 1 else f"{rest} cells"
        return f"; the other {others} would hardly change" if rest else ""
    if not rest:
        return f"; {unsure} cannot be decided"
    return f"; {plural(rest, 'other')} would hardly change, {unsure} cannot be decided"


def timed(row: xr.Dataset) -> bool:
    """Tell whether the row claims changes for the events of a mode, not for the whole movie."""
    return str(row.attrs.get("when", "always")) == "active" and "event_start" in row


def supporters(row: xr.Dataset) -> list[str]:
    """Name what a row rests on: "mode 3 of layer 1", "pathways 1 and 2 of layer 2"."""
    layer = str(row["layer"].item())
    text = text_of(row, "support") or "; ".join(
        f"{layer} {word} {text_of(row, word)}"
        for word in ("modes", "pathways")
        if text_of(row, word)
    )
    return _in_words(text)


def _in_words(text: str) -> list[str]:
    """Turn "conv1 modes 2; conv2 pathways 0, 1" into words."""
    words = []
    for place, noun, numbers in NAMED.findall(text):
        shown = sorted(int(number) for number in numbers.split(", "))
        plural_s = "s" if len(shown) > 1 else ""
        words.append(f"{noun}{plural_s} {listed(shown)} of {layer_words(place)}")
    return words


def _source(row: xr.Dataset) -> str:
    """Name the mode or pathway whose events they are; "its mode" where the results do not."""
    return (_in_words(text_of(row, "event_source")) or ["its mode"])[0]


def _who(row: xr.Dataset, chosen: npt.NDArray[np.bool_]) -> str:
    """Name cells by type: "all 4 ON sustained and 2 of 4 OFF transient cells"."""
    kinds = row["type"].values.astype(str)
    parts, only = [], int(chosen.sum())
    for kind in sorted(set(kinds[chosen])):
        inside, whole = int((chosen & (kinds == kind)).sum()), int((kinds == kind).sum())
        name = "cells of unknown type" if kind == "unknown" else kind
        if inside == whole:
            amount = f"all {whole}" if whole > 1 else "the one"
        else:
            amount = f"{inside} of {whole}"
        parts.append(f"{amount} {name}")
    if parts[-1].endswith("type"):
        return listed(parts)
    noun = "cell" if only == 1 and parts[-1].startswith("the one") else "cells"
    return f"{listed(parts)} {noun}"


def text_of(row: xr.Dataset, name: str) -> str:
    """Return a text of a row; "" where the results do not hold it."""
    return str(row[name].item()) if name in row else ""


def layer_words(name: str) -> str:
    """Say a layer's name as the figures do: ``conv1`` is layer 1."""
    from retina_codec.figures.style import layer_name

    return layer_name(name)


def _hertz(value: float) -> str:
    return f"{value:.1f}" if value >= 0.1 else f"{value:.1g}"
