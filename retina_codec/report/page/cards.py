"""Hypotheses as cards: every word and number that the template places."""

import math
from typing import Any

import numpy as np
import xarray as xr

from retina_codec.report.page.drawings import change_bars, colors_of, kernel_drawing
from retina_codec.report.page.text import (
    NOT_MEASURED,
    headline,
    layer_words,
    listed,
    measured,
    plural,
    signed,
    supporters,
    text_of,
    timed,
)

__all__ = ["hypothesis_cards"]

SHOWN = 10  # cards; the others stand in a table
USUAL_SHIFTS = 24  # of the null of a match, where the results do not say


def hypothesis_cards(
    hypotheses: xr.Dataset,
    channels: xr.Dataset | None = None,
) -> dict[str, Any]:
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
        (name and colour of every cell type); ``timed`` whether changes are claimed for events,
        and not for the whole movie; ``named`` whether any interneuron is named;
        ``threshold``, ``significance``, ``power``, ``split``, ``duration`` (s) of the prediction,
        None where not known.

    Cells are coloured by the coordinate ``group`` where there is one, else by type.
    """
    count = hypotheses.sizes["hypothesis"]
    rows = [hypotheses.isel(hypothesis=i) for i in range(count)]
    attrs = hypotheses.attrs
    groups = hypotheses["group" if "group" in hypotheses.coords else "type"].values.astype(str)
    above = [_alike_above(rows, number) for number in range(count)]
    return {
        "cards": [_card(row, i, above[i], channels) for i, row in enumerate(rows[:SHOWN])],
        "rest": [_short(row, i, above[i]) for i, row in enumerate(rows[SHOWN:], SHOWN)],
        "types": sorted(colors_of(groups).items()),
        "timed": any(timed(row) for row in rows),
        "shifts": int(attrs.get("shifts", USUAL_SHIFTS)),
        "named": any(str(row["interneuron"].item()) for row in rows),
        "split": str(attrs.get("split", "")),
        **{
            name: _number(attrs.get(name))
            for name in ("threshold", "significance", "power", "duration")
        },
    }


def _alike_above(rows: list[xr.Dataset], number: int) -> int:
    """Count the rows of better rank in which the same channels are silenced."""
    own = text_of(rows[number], "silenced")
    return sum(text_of(row, "silenced") == own for row in rows[:number]) if own else 0


def _card(row: xr.Dataset, number: int, above: int, channels: xr.Dataset | None) -> dict[str, Any]:
    layer = str(row["layer"].item())
    named = str(row["channels"].item())
    return _short(row, number, above) | {
        "statement": str(row["statement"].item()),
        "layer": layer_words(layer),
        "channels": named,
        "silenced": _silenced_words(text_of(row, "silenced")),
        "named_by": supporters(row),
        "events": _events(row),
        "elsewhere": _elsewhere(row),
        "p_value": _p_words(_value(row, "match_p_value"), _shifts(row)),
        "matched": math.isfinite(_value(row, "match")),
        "second": _second(row),
        "sees": _sees(row),
        "segment": _segment(row),
        "stimulus": text_of(row, "best_stimulus"),
        "bars": change_bars(row),
        "kernel": kernel_drawing(channels, f"{layer}/{named.split(', ')[0]}"),
        "kernel_channel": named.split(", ")[0],
    }


def _short(row: xr.Dataset, number: int, above: int) -> dict[str, Any]:
    """Return what both the card and the line in the table hold."""
    information = _value(row, "information")
    return {
        "rank": number + 1,
        "above": above,
        "ranked_as": measured(information / (1 + above), 1),
        "headline": headline(row),
        "interneuron": str(row["interneuron"].item()),
        "match": measured(_value(row, "match")),
        "information": measured(information, 1),
        "event_repeats": _repeats(_value(row, "event_repeats")) if timed(row) else "",
        "segment_repeats": _repeats(_value(row, "segment_repeats")),
        "stimulus_repeats": _repeats(_value(row, "stimulus_repeats")),
    }


def _events(row: xr.Dataset) -> str:
    """Say when: how much time in how many events, and the longest of them."""
    if not timed(row):
        return ""
    start, stop = (row[name].values.astype(np.float64) for name in ("event_start", "event_stop"))
    length = stop - start
    if not np.isfinite(length).any():
        return NOT_MEASURED
    longest = int(np.nanargmax(length))
    return (
        f"{np.nansum(length):.1f} s in {plural(int(np.isfinite(length).sum()), 'event')}, the "
        f"longest from {start[longest]:.2f} to {stop[longest]:.2f} s"
    )


def _elsewhere(row: xr.Dataset) -> str:
    """Mean change of the affected cells at all other times, less and more apart."""
    if not timed(row) or "change_elsewhere" not in row:
        return ""
    change = row["change"].values.astype(np.float64)
    other = row["change_elsewhere"].values.astype(np.float64)
    affected = row["affected"].values.astype(bool)
    means = [
        other[affected & chosen].mean()
        for chosen in (change < 0, change > 0)
        if (affected & chosen).any()
    ]
    rounded = [
        round(float(mean), 1) + 0.0 for mean in means if np.isfinite(mean)
    ]  # + 0.0: no zero has a minus
    return " and ".join(f"{'+' if value > 0 else ''}{signed(value, 1)} Hz" for value in rounded)


def _second(row: xr.Dataset) -> str:
    name, match = text_of(row, "second_interneuron"), _value(row, "second_match")
    return f"{name} (r = {measured(match)})" if name and math.isfinite(match) else ""


def _sees(row: xr.Dataset) -> str:
    """Say what the leading channel sees: "OFF, strongest 80 ms before, biphasic, 3.2 px wide"."""
    polarity, lag = text_of(row, "polarity"), _value(row, "peak_lag")
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
    return f"{noun} {listed(words)} of {layer_words(layer)}"


def _repeats(value: float) -> str:
    """Say how often to show: "once", "12 times"; no number is enough where nothing changes."""
    if math.isnan(value):
        return f"how often was {NOT_MEASURED}"
    if not math.isfinite(value):
        return "no number of times is enough"
    return {1.0: "once", 2.0: "twice"}.get(value, f"{value:,.0f} times")


def _shifts(row: xr.Dataset) -> int:
    """Return the number of shifts of the null of matches."""
    return int(row.attrs.get("shifts", USUAL_SHIFTS))


def _p_words(value: float, shifts: int) -> str:
    """Say a p of a match: "= 0.120", or "≤ 0.040" at the smallest value that the null can give."""
    if not math.isfinite(value):
        return NOT_MEASURED
    words = f"{value:.3f}" if value >= 0.001 else f"{value:.1g}"
    return f"{'≤' if value <= 1.000001 / (1 + shifts) else '='} {words}"


def _value(row: xr.Dataset, name: str) -> float:
    """Return a number of a row; NaN where the results do not hold it."""
    return float(row[name].item()) if name in row else float("nan")


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
