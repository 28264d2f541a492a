"""The table of hypotheses: names, dims and units of what `hypothesize` returns.

Why this file exists: reports, exports and notebooks read these names. Nothing is computed here.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.analysis.hypotheses.cells import ClaimedCells
from retina_codec.analysis.hypotheses.effects import EventEffects, overlap

__all__ = ["cells_of", "make_table", "order_and_join"]

Floats = npt.NDArray[np.floating]


KERNEL = ("polarity", "peak_lag", "biphasic_index", "width")


HERTZ = (
    *("event_rate", "change", "change_low", "change_high", "change_elsewhere"),
    *("contrast", "contrast_low", "contrast_high", "match_error"),
)


SECONDS = ("event_time", "segment_start", "segment_duration", "peak_lag")


UNITS = {
    **dict.fromkeys(HERTZ, "Hz"),
    **dict.fromkeys(SECONDS, "s"),
    **dict.fromkeys(("width", "place_y", "place_x"), "px"),
    **dict.fromkeys(("event_detectability", "elsewhere_detectability"), "1/s"),
    "information": "nats",
}


def cells_of(effects: EventEffects, claimed: ClaimedCells) -> dict[str, npt.NDArray[Any]]:
    """Collect what is said of each cell, (hypothesis, cell), by the names of the table."""
    return {
        "event_rate": effects.rate,
        "change": effects.change,
        "change_low": effects.low,
        "change_high": effects.high,
        "change_elsewhere": effects.elsewhere,
        "contrast": effects.contrast,
        "contrast_low": effects.contrast_low,
        "contrast_high": effects.contrast_high,
        "affected": claimed.affected,
        "undecided": claimed.undecided,
        "timed": claimed.timed,
    }


def make_table(
    rows: Mapping[str, Any],
    cells: Mapping[str, npt.NDArray[Any]],
    events: tuple[Floats, Floats],
    shown: xr.DataArray,
    rate: xr.DataArray,
    attrs: Mapping[str, Any],
) -> xr.Dataset:
    """Label what is known of each hypothesis.

    Parameters
    ----------
    rows : mapping of str to sequence (hypothesis,)
    cells : mapping of str to array (hypothesis, cell)
    events : two arrays (hypothesis, event), s
        Start and stop.
    shown : xr.DataArray, dims (hypothesis, stimulus)
        d² of simple stimuli.
    rate : xr.DataArray, dims (cell), Hz
        Predicted mean over the split.
    attrs : mapping

    Returns
    -------
    xr.Dataset
    """
    start, stop = events
    return xr.Dataset(
        {
            **{k: ("hypothesis", v, _attrs(k)) for k, v in rows.items()},
            **{k: (("hypothesis", "cell"), v, _attrs(k)) for k, v in cells.items()},
            "event_start": (("hypothesis", "event"), start, {"units": "s"}),
            "event_stop": (("hypothesis", "event"), stop, {"units": "s"}),
            "stimulus_detectability": (("hypothesis", "stimulus"), shown.values, {"units": "1"}),
            "rate": ("cell", rate.values, {"units": "Hz", "long_name": "predicted mean rate"}),
        },
        coords={
            "hypothesis": np.arange(len(start)),
            "cell": rate["cell"],
            "type": rate["type"],
            "stimulus": shown["stimulus"],
        },
        attrs=dict(attrs),
    )


def _attrs(name: str) -> dict[str, str]:
    return {"units": UNITS[name]} if name in UNITS else {}


def order_and_join(
    information: npt.NDArray[np.floating],
    experiment: Sequence[object],
    masks: npt.NDArray[np.bool_],
    *,
    alike: float = 0.5,
) -> list[list[int]]:
    """Put rows in order and join those that ask for the same experiment.

    Step by step the row with the largest ``I / (1 + n)`` is taken, n the number of rows taken
    before about the same silencing. It joins an earlier row of the same silencing whose events
    share at least ``alike`` of their times (the first such row), or else opens a row of its own.
    Of equal rows the earlier comes first.

    Parameters
    ----------
    information : array (row,), nats
        At least 0.
    experiment : sequence (row,)
        What is silenced, comparable by ==.
    masks : array of bool (row, time)
        Events.
    alike : float
        Part of the times of two rows, see `overlap`.

    Returns
    -------
    list of list of int
        One list per experiment, in order: the leading row, then those that join it.
    """
    left = list(range(len(information)))
    found: list[list[int]] = []
    while left:
        taken = [experiment[rows[0]] for rows in found]
        worth = [information[row] / (1 + taken.count(experiment[row])) for row in left]
        row = left.pop(int(np.argmax(worth)))
        for rows in found:
            lead = rows[0]
            if experiment[lead] == experiment[row] and overlap(masks[lead], masks[row]) >= alike:
                rows.append(row)
                break
        else:
            found.append([row])
    return found
