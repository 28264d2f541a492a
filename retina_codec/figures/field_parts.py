"""Receptive fields taken apart: what each active mode made of a field, and what is left over.

Why this file exists: the sum must be seen, tile by tile, to be believed. Which events and cells are
shown follows a written rule. It computes no part.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.axes import Axes

from retina_codec.figures.style import MUTED, SIGNED, Area, draw_title, grid, layer_name, size_of

__all__ = ["draw_field_parts", "has_parts", "parts_height", "shown_parts"]

MOST_MODES = 3
ROWS = 4
Floats = npt.NDArray[Any]


def has_parts(fields: xr.Dataset) -> bool:
    """Whether the fields are split by mode."""
    return "part" in fields and bool(shown_parts(fields))


def parts_height(fields: xr.Dataset) -> float:
    """Inches that the panel needs."""
    return 1.15 + 1.15 * len(shown_parts(fields))


def shown_parts(fields: xr.Dataset) -> list[tuple[int, int]]:
    """Choose up to four pairs of event and cell, each of another combination.

    Combinations of most modes first (at most three); of each the cell and event at which the
    second largest mode has most of the field, so that several modes are seen at work.
    """
    share = np.sort(np.abs(fields["part_share"].transpose("event", "cell", "mode").values), -1)
    second = share[..., -2] if share.shape[-1] > 1 else share[..., -1]
    responding = fields["responding"].transpose("event", "cell").values.astype(bool)
    second = np.where(responding & np.isfinite(second), second, -1.0)
    labels = fields["combination"].values.astype(str)
    numbers = {label: len(label.split("+")) for label in dict.fromkeys(labels) if label}
    order = sorted(numbers, key=lambda label: -numbers[label])
    chosen = []
    for label in (label for label in order if numbers[label] <= MOST_MODES):
        events = np.flatnonzero(labels == label)
        event, cell = np.unravel_index(int(second[events].argmax()), second[events].shape)
        if second[events[event], cell] >= 0:
            chosen.append((int(events[event]), int(cell)))
    return chosen[:ROWS]


def draw_field_parts(
    area: Area, fields: xr.Dataset, windows: dict[int, tuple[slice, slice]], letter: str = ""
) -> None:
    """Draw rows of ``part + part + remainder = field``, all tiles of a row on one scale.

    Parameters
    ----------
    area : Figure or SubFigure
    fields : xr.Dataset
        ``/receptive_fields`` with parts.
    windows : dict of int to (slice, slice)
        The square of the frame that is shown, by cell.
    letter : str
        Of the panel.
    """
    pairs = shown_parts(fields)
    layer = layer_name(str(fields.attrs.get("layer", "")))
    draw_title(area, letter, f"Each field is the sum of its modes' parts and a remainder ({layer})")
    columns = MOST_MODES + 2
    spec = grid(
        area,
        [1] * len(pairs),
        [1] * columns,
        left=1.9,
        right=1.9,
        top=0.6,
        bottom=0.5,
        gap_y=0.2,
        gap_x=0.5,
    )
    for row, (event, cell) in enumerate(pairs):
        one = fields.isel(event=event, cell=cell)
        tiles = _tiles(one)
        limit = max(float(np.abs(image[windows[cell]]).max()) for _, image, _ in tiles) or 1.0
        places = [*range(len(tiles) - 2), columns - 2, columns - 1]
        for number, (place, (name, image, share)) in enumerate(zip(places, tiles, strict=True)):
            axes = area.add_subplot(spec[row, place])
            _draw(axes, image[windows[cell]], limit)
            axes.set_title(name if share is None else f"{name}  {share:.0%}", size=8, pad=3)
            if number:
                _sign(axes, "=" if place == columns - 1 else "+")
            if number == 0:
                axes.set_ylabel(
                    f"cell {one['cell'].item()}\n{one['type'].item()}\n"
                    f"{one['time'].item():.2f} s, {one['prediction'].item():.0f} Hz",
                    rotation=0,
                    ha="right",
                    va="center",
                    labelpad=8,
                    size=8.5,
                )
    width, height = size_of(area)
    error = float(fields["identity_error"].max())
    area.text(
        1.25 / width,
        0.06 / height,
        "All tiles of a row have one scale. Percent: share of the field (its projection; parts of "
        f"opposite sign can exceed 100 %).\nLargest gap between a field and the sum of its parts, "
        f"over all events and cells: {error:.0e} of the field's largest value.",
        size=8,
        color=MUTED,
        va="bottom",
    )


def _tiles(one: xr.Dataset) -> list[tuple[str, Floats, float | None]]:
    """Name, image and share of the active modes, the remainder and the whole field."""
    active = {name for name in str(one["combination"].item()).split("+") if name}
    found: list[tuple[str, Floats, float | None]] = [
        (
            f"mode {name}",
            one["part"].sel(mode=name).values,
            float(one["part_share"].sel(mode=name)),
        )
        for name in one["mode"].values
        if str(name) in active
    ]
    found.append(("remainder", one["remainder"].values, float(one["remainder_share"])))
    found.append(("field", one["spatial"].values, None))
    return found


def _draw(axes: Axes, image: Floats, limit: float) -> None:
    axes.imshow(image, cmap=SIGNED, vmin=-limit, vmax=limit)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(True)
    axes.spines[:].set_color("#b9c0c8")


def _sign(axes: Axes, text: str) -> None:
    """Write + or = to the left of a tile."""
    axes.text(
        -0.27, 0.5, text, transform=axes.transAxes, ha="center", va="center", size=13, color=MUTED
    )
