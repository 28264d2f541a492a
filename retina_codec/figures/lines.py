"""Lines from layer to layer with intervals, and bands of what chance gives."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.axes import Axes

__all__ = ["COLORS", "band", "layer_axis", "line", "room_below", "sites_of"]

COLORS = {
    "contribution": "#D55E00",
    "contributions": "#D55E00",
    "excitatory": "#E69F00",
    "inhibitory": "#8a7500",
    "activation": "#0072B2",
    "activations": "#0072B2",
    "values": "#D55E00",
    "modes": "#5b3f8c",
    "activation_modes": "#009E73",
}

NAME_HEIGHT = 0.135  # inches that an upright name needs along x

Floats = npt.NDArray[np.float64]


def layer_axis(axes: Axes, layers: Sequence[str]) -> None:
    """Name the layers along x; upright names where they would not fit side by side.

    Every second or third layer is named where upright names would lie on each other.
    """
    long, step = _long(layers), 1
    if long and axes.figure is not None:
        inches = axes.get_window_extent().width / axes.figure.dpi
        step = max(1, math.ceil(len(layers) * NAME_HEIGHT / inches))
    names = [name if place % step == 0 else "" for place, name in enumerate(layers)]
    axes.set_xticks(range(len(layers)), names, rotation=90 if long else 0)
    axes.set_xlabel("layer", labelpad=2)
    axes.set_xlim(-0.5, len(layers) - 0.5)
    axes.tick_params(axis="x", length=2)


def sites_of(found: xr.Dataset) -> list[str] | None:
    """Return the site of every layer, if the results know them."""
    return [str(site) for site in found["site"].values] if "site" in found.coords else None


def room_below(layers: Sequence[str]) -> float:
    """Inches below the axes that the names of layers need."""
    return 0.42 + 0.06 * max(map(len, layers)) if _long(layers) else 0.5


def _long(layers: Sequence[str]) -> bool:
    return sum(len(name) + 2 for name in layers) > 34


def line(
    axes: Axes,
    middle: Floats,
    interval: Floats,
    color: str,
    *,
    sites: Sequence[str] | None = None,
    shift: float = 0.0,
    **style: Any,
) -> None:
    """Draw a value per layer and a bar for its interval (layer, 2), where there is one.

    Layers of another site are not joined.
    """
    place = np.arange(len(middle)) + shift
    fine = np.isfinite(middle)
    look: dict[str, Any] = {"marker": "o", "ms": 3.5, "lw": 1.3, "color": color} | style
    changes = np.zeros(len(middle), bool)
    if sites is not None:
        changes[1:] = np.asarray(sites)[1:] != np.asarray(sites)[:-1]
    gaps = np.flatnonzero(changes[fine])
    x, y = (np.insert(values[fine], gaps, np.nan) for values in (place, middle))
    axes.plot(x, y, **look)
    sure = fine & np.isfinite(interval).all(axis=1)
    axes.vlines(place[sure], interval[sure, 0], interval[sure, 1], color=color, lw=1.3)


def band(
    axes: Axes, interval: Floats, color: str, *, shift: float = 0.0, width: float = 0.16
) -> None:
    """Draw what chance gives as a pale box per layer."""
    for place, (low, high) in enumerate(interval):
        if np.isfinite([low, high]).all():
            axes.fill_between(
                [place + shift - width / 2, place + shift + width / 2],
                low, high, color=color, alpha=0.3, lw=1.2,
            )  # fmt: skip
