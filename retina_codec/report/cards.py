"""Hypotheses as cards: words and numbers, ready for the template.

Why this file exists: a card is read by someone who plans an experiment. Every word and number of it
is made here, where a test can compare it with the results; the template only places them. Nothing
is predicted here.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.report.card_drawings import change_bars, colors_of, kernel_drawing
from retina_codec.report.words import NOT_MEASURED, listed, measured, plural

__all__ = ["headline", "hypothesis_cards"]

SHOWN = 10  # cards; the others stand in a table


def hypothesis_cards(hypotheses: xr.Dataset, channels: xr.Dataset | None = None) -> dict[str, Any]:
    """Prepare the section on hypotheses.

    Parameters
    ----------
    hypotheses : xr.Dataset
        From `hypothesize`: rows in order of rank.
    channels : xr.Dataset, optional
        From `separable_kernels`; without it cards have no drawing of a kernel.

    Returns
    -------
    dict
        ``cards`` (the first ten) and ``rest``: lists of dicts of words and numbers; ``types``
        (name and colour of every cell type); ``named`` whether any interneuron is named;
        ``threshold``, ``significance``, ``power``, ``split``, ``duration`` (s) of the prediction,
        None where not known.
    """
    count = hypotheses.sizes["hypothesis"]
    rows = [hypotheses.isel(hypothesis=i) for i in range(count)]
    attrs = hypotheses.attrs
    kinds = hypotheses["type"].values.astype(str)
    return {
        "cards": [_card(row, number, channels) for number, row in enumerate(rows[:SHOWN], 1)],
        "rest": [_short(row, number) for number, row in enumerate(rows[SHOWN:], SHOWN + 1)],
        "types": sorted(colors_of(kinds).items()),
        "named": any(str(row["interneuron"].item()) for row in rows),
        "split": str(attrs.get("split", "")),
        **{
            name: _number(attrs.get(name))
            for name in ("threshold", "significance", "power", "duration")
        },
    }


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
    place = _layer_words(str(row["layer"].item()))
    names = name if name.endswith("s") else f"{name}s"
    who = names if name else f"the neurons that are like {noun} {listed(channels)} of {place}"
    change = row["change"].values.astype(np.float64)
    affected = row["affected"].values.astype(bool)
    parts = []
    for word, chosen in (("less", affected & (change < 0)), ("more", affected & (change > 0))):
        if chosen.any():
            amount = f"{_hertz(abs(float(change[chosen].mean())))} Hz {word}"
            parts.append(f"{_who(row, chosen)}{'' if parts else ' would fire'} {amount}")
    if not parts:
        return f"Without {who}, no cell would change by much."
    rest = int((~affected).sum())
    end = f"; the other {plural(rest, 'cell')} would hardly change" if rest else ""
    return f"Without {who}, {' and '.join(parts)}{end}."


def _card(row: xr.Dataset, number: int, channels: xr.Dataset | None) -> dict[str, Any]:
    layer = str(row["layer"].item())
    named = str(row["channels"].item())
    return _short(row, number) | {
        "statement": str(row["statement"].item()),
        "layer": _layer_words(layer),
        "channels": named,
        "silenced": _silenced_words(_text(row, "silenced")),
        "modes": _text(row, "modes"),
        "pathways": _text(row, "pathways"),
        "p_value": _p_words(_value(row, "match_p_value")),
        "matched": math.isfinite(_value(row, "match")),
        "second": _second(row),
        "sees": _sees(row),
        "segment": _segment(row),
        "stimulus": _text(row, "best_stimulus"),
        "bars": change_bars(row),
        "kernel": kernel_drawing(channels, f"{layer}/{named.split(', ')[0]}"),
        "kernel_channel": named.split(", ")[0],
    }


def _short(row: xr.Dataset, number: int) -> dict[str, Any]:
    """Return what both the card and the line in the table hold."""
    return {
        "rank": number,
        "headline": headline(row),
        "interneuron": str(row["interneuron"].item()),
        "match": measured(_value(row, "match")),
        "information": measured(_value(row, "information"), 1),
        "segment_repeats": _repeats(_value(row, "segment_repeats")),
        "stimulus_repeats": _repeats(_value(row, "stimulus_repeats")),
    }


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


def _second(row: xr.Dataset) -> str:
    name, match = _text(row, "second_interneuron"), _value(row, "second_match")
    return f"{name} (r = {measured(match)})" if name and math.isfinite(match) else ""


def _sees(row: xr.Dataset) -> str:
    """Say what the leading channel sees: "OFF, strongest 80 ms before, biphasic, 3.2 px wide"."""
    polarity, lag = _text(row, "polarity"), _value(row, "peak_lag")
    if polarity in ("", "none") or not math.isfinite(lag):
        return NOT_MEASURED
    words = [polarity, f"strongest {1000 * lag:.0f} ms before the response"]
    biphasic, width = _value(row, "biphasic_index"), _value(row, "width")
    if math.isfinite(biphasic):
        words.append("biphasic" if biphasic > 0.5 else "mostly monophasic")
    if math.isfinite(width):
        words.append(f"{width:.0f} px wide")
    return ", ".join(words)


def _segment(row: xr.Dataset) -> str:
    start, length = _value(row, "segment_start"), _value(row, "segment_duration")
    if not (math.isfinite(start) and math.isfinite(length)):
        return NOT_MEASURED
    return f"{start:.1f} to {start + length:.1f} s of the recording"


def _silenced_words(text: str) -> str:
    """Turn "conv1: 0, 2" into "channels 0 and 2 of layer 1"."""
    layer, _, channels = text.partition(": ")
    if not channels:
        return NOT_MEASURED
    words = channels.split(", ")
    noun = "channel" if len(words) == 1 else "channels"
    return f"{noun} {listed(words)} of {_layer_words(layer)}"


def _repeats(value: float) -> str:
    """Say how often to show: "once", "12 times"; no number is enough where nothing changes."""
    if math.isnan(value):
        return f"how often was {NOT_MEASURED}"
    if not math.isfinite(value):
        return "no number of times is enough"
    return {1.0: "once", 2.0: "twice"}.get(value, f"{value:,.0f} times")


def _p_words(value: float) -> str:
    if not math.isfinite(value):
        return NOT_MEASURED
    return f"{value:.3f}" if value >= 0.001 else f"{value:.1g}"


def _value(row: xr.Dataset, name: str) -> float:
    """Return a number of a row; NaN where the results do not hold it."""
    return float(row[name].item()) if name in row else float("nan")


def _text(row: xr.Dataset, name: str) -> str:
    return str(row[name].item()) if name in row else ""


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _layer_words(name: str) -> str:
    from retina_codec.figures.style import layer_name

    return layer_name(name)


def _hertz(value: float) -> str:
    return f"{value:.1f}" if value >= 0.1 else f"{value:.1g}"
