"""Drawings on the cards of hypotheses: bars of changes, and what a channel sees."""

import base64
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.report.page.text import NOT_MEASURED

__all__ = ["change_bars", "colors_of", "kernel_drawing"]

HEIGHT = 120.0  # of the bars, in units of the drawing


MARGIN = 8.0


APART = 10.0  # ticks nearer to 0 would overlap its label


CELL = 20.0  # width of one cell


NAMED_CELLS = 24  # more ids under the bars cannot be read


def change_bars(row: xr.Dataset) -> dict[str, Any]:
    """Lay out the predicted change of every cell as bars with intervals.

    Cells stand in order of their types (of ``group``, where the row has it), within one as they
    came.

    Parameters
    ----------
    row : xr.Dataset
        One row of `hypothesize`.

    Returns
    -------
    dict
        ``width``, ``height`` and ``zero`` (height of 0 Hz) in units of the drawing; ``bars``, one
        dict per cell: ``x``, ``y``, ``w``, ``h``, ``middle``, ``low``, ``high`` and
        ``elsewhere`` (places; the last of the change outside the events, None where not known),
        ``color``, ``affected``, ``words``, ``label``; ``ticks``: pairs of place and words. A cell
        whose change is NaN has no bar (``h`` is None).
    """
    change, low, high = (
        row[name].values.astype(np.float64) for name in ("change", "change_low", "change_high")
    )
    kinds = row["type"].values.astype(str)
    groups = row["group"].values.astype(str) if "group" in row.coords else kinds
    colors = colors_of(groups)
    affected = row["affected"].values.astype(bool)
    other = np.full(len(change), np.nan)
    if "change_elsewhere" in row:
        other = row["change_elsewhere"].values.astype(np.float64)
    known = np.concatenate([change, low, high, other, [0.0]])
    known = known[np.isfinite(known)]
    top, bottom = _nice(known.max()), -_nice(-known.min())
    span = max(top - bottom, 1e-12)

    def place(value: float) -> float:
        return round(MARGIN + (top - value) / span * (HEIGHT - 2 * MARGIN), 2)

    zero, bars = place(0.0), []
    order = sorted(range(len(change)), key=lambda i: (groups[i], i))
    for slot, i in enumerate(order):
        seen = bool(np.isfinite(change[i]))
        level = place(change[i]) if seen else zero
        bars.append(
            {
                "x": round(slot * CELL + 0.15 * CELL, 2),
                "y": min(level, zero),
                "w": 0.7 * CELL,
                "h": round(abs(level - zero), 2) if seen else None,
                "middle": round((slot + 0.5) * CELL, 2),
                "low": place(low[i]) if np.isfinite(low[i]) else None,
                "high": place(high[i]) if np.isfinite(high[i]) else None,
                "elsewhere": place(other[i]) if np.isfinite(other[i]) else None,
                "color": colors[groups[i]],
                "affected": bool(affected[i]),
                "words": f"cell {row['cell'].values[i]}, {kinds[i]}: {_interval(row, i)}",
                "label": str(row["cell"].values[i]) if len(order) <= NAMED_CELLS else "",
            }
        )
    ticks = [(zero, "0")]
    ticks += [(place(v), _signed(v)) for v in (top, bottom) if abs(place(v) - zero) > APART]
    return {
        "width": CELL * len(order),
        "height": HEIGHT,
        "zero": zero,
        "bars": bars,
        "ticks": ticks,
    }


def kernel_drawing(channels: xr.Dataset | None, label: str) -> dict[str, Any] | None:
    """Draw what a channel sees: its field as a PNG, its time course as the points of a line.

    Both have the sign with which the time course is positive at its largest size, as in the figures
    of receptive fields: red where more light then raises the activation.

    Parameters
    ----------
    channels : xr.Dataset or None
        From `separable_kernels`.
    label : str
        Such as "conv1/3".

    Returns
    -------
    dict or None
        ``field`` (PNG as text), ``points`` (in a frame of 100 × 60, zero at 30, time from left to
        right), ``seconds`` (length of the course, s); None if the channel is not there.
    """
    if channels is None or label not in channels["channel"].values:
        return None
    one = channels.sel(channel=label)
    lag = one["lag"].values.astype(np.float64)
    course = one["time_course"].values.astype(np.float64)[np.argsort(-lag, kind="stable")]
    sign = -1.0 if course[np.abs(course).argmax()] < 0 else 1.0
    if not (np.isfinite(course).all() and np.isfinite(one["field"].values).all()):
        return None
    x = np.linspace(2, 98, len(course))
    points = " ".join(f"{a:.1f},{30 - 26 * b:.1f}" for a, b in zip(x, sign * course, strict=True))
    return {
        "field": _png(sign * one["field"].transpose("field_y", "field_x").values),
        "points": points,
        "seconds": float(lag.max()),
    }


def colors_of(kinds: Sequence[str] | npt.NDArray[Any]) -> dict[str, str]:
    """Return the colour of every type that is there, as the figures have it: #rrggbb."""
    from matplotlib.colors import to_hex

    from retina_codec.figures.style import type_colors

    return {name: to_hex(color) for name, color in type_colors(kinds).items() if name in set(kinds)}


def _interval(row: xr.Dataset, i: int) -> str:
    change, low, high = (
        float(row[name].values[i]) for name in ("change", "change_low", "change_high")
    )
    if not math.isfinite(change):
        return NOT_MEASURED
    if not (math.isfinite(low) and math.isfinite(high)):
        return f"{_signed(change)} Hz, interval {NOT_MEASURED}"
    return f"{_signed(change)} Hz (from {_signed(low)} to {_signed(high)})"


def _png(field: npt.NDArray[Any]) -> str:
    import matplotlib.image as image

    from retina_codec.figures.style import SIGNED

    buffer = io.BytesIO()
    largest = float(np.abs(field).max()) or 1.0
    image.imsave(buffer, field, cmap=SIGNED, vmin=-largest, vmax=largest, format="png")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _nice(value: float) -> float:
    """Round a size up to a short number; 0 for what is not above 0."""
    if not value > 0:
        return 0.0
    unit = 10.0 ** math.floor(math.log10(value))
    return next(
        (float(f"{m * unit:.6g}") for m in (1, 1.5, 2, 3, 4, 5, 6, 8) if m * unit >= value),
        10 * unit,
    )


def _signed(value: float) -> str:
    words = f"{value:.3g}" if abs(value) >= 0.01 or value == 0 else f"{value:.1g}"
    return ("+" if value > 0 else "") + words.replace("-", "−")
