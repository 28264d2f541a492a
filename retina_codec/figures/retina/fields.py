"""Panel D of Figure 8: receptive fields by the set of active modes."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from retina_codec.errors import RetinaCodecError
from retina_codec.figures import base
from retina_codec.figures.style import (
    MUTED,
    RED_MEANS,
    SIGNED,
    Area,
    cell_groups,
    draw_title,
    grid,
    layer_name,
    new_figure,
    size_of,
    styled,
    type_colors,
)
from retina_codec.storage.results import table

__all__ = [
    "Fields",
    "crop_around",
    "draw_field",
    "draw_field_parts",
    "draw_fields",
    "has_parts",
    "parts_height",
    "plot_fields",
    "shown_cells",
    "shown_parts",
]

CROP = 20  # px, side of the square that is shown
COLUMNS, ROWS = 6, 8  # cells and combinations that are shown
MOST_MODES, ROWS_OF_PARTS = 3, 4  # of fields split by mode


class Fields(base.Figure):
    """Receptive fields of several cells, one row per set of active modes."""

    name = "irf_combinations"
    title = "Spatial receptive fields of six cells for each combination of active modes"
    section = "fields"
    look_for = (
        "a cell whose pattern changes from row to row: what it was sensitive to depended on the "
        "active modes."
    )
    caption = (
        "One row per set of active modes, at its moment with the highest population rate. Left: "
        "the scene, mean of the last 400 ms, squares where the fields are shown. Middle: spatial "
        "parts with the predicted rate, each tile on its own scale: the gradient behind a pattern "
        "at a few Hz is small. Right: time courses of the cells that respond, in the colour of "
        "their type (of their pathway, where no type is known). Below, if drawn: single fields as "
        "the sum of the parts that pass through each active mode and a remainder."
    )

    def needs(self, results: xr.DataTree) -> bool:
        """Return whether there are receptive fields."""
        return "receptive_fields" in results.children

    def draw(self, results: xr.DataTree) -> Figure:
        """Draw `plot_fields`."""
        return plot_fields(results)


@styled
def plot_fields(results: xr.DataTree) -> Figure:
    """Draw receptive fields of several cells for each set of active modes.

    Parameters
    ----------
    results : xr.DataTree
        Results with ``/receptive_fields``.

    Returns
    -------
    matplotlib.figure.Figure
        One row per combination, at its event with the highest population rate: the scene,
        spatial fields of up to six cells (20 × 20 px around the cell's peak, each scaled to its
        own largest value, predicted rate in Hz), and their time courses (ms before the response).
        Where fields are split by mode, a few of them below, part by part.

    Raises
    ------
    RetinaCodecError
        If the results hold no receptive fields.
    """
    fields, height = _fields(results), height_needed(results)
    if not has_parts(fields):
        figure = new_figure(height)
        draw_fields(figure, results)
        return figure
    heights = [height, parts_height(fields)]
    figure = new_figure(sum(heights))
    parts = figure.subfigures(2, 1, height_ratios=heights, hspace=0, squeeze=False)
    top, bottom = parts[:, 0]
    draw_fields(top, results)
    draw_field_parts(bottom, fields, _windows(fields, [cell for _, cell in shown_parts(fields)]))
    return figure


def height_needed(results: xr.DataTree) -> float:
    """Inches that the panel needs for its rows."""
    return 1.32 + 1.12 * len(first_events(_fields(results)))


def _fields(results: xr.DataTree) -> xr.Dataset:
    if "receptive_fields" not in results.children:
        raise RetinaCodecError(
            "this figure needs /receptive_fields; these results have "
            f"{sorted(results.children)}. Run analyze, or receptive_fields."
        )
    return table(results, "receptive_fields")


def first_events(fields: xr.Dataset) -> list[int]:
    """Return the first event of each combination, at most eight, in the order they stand."""
    labels = [str(label) for label in fields["combination"].values]
    return [labels.index(label) for label in dict.fromkeys(labels)][:ROWS]


def shown_cells(
    fields: xr.Dataset, events: list[int], groups: npt.NDArray[np.str_] | None = None
) -> list[int]:
    """Choose up to six cells: groups (types) in turn, in each those that answer most events."""
    here = fields.isel(event=events)
    score = (here["responding"].sum("event") + here["prediction"].mean("event") / 1e4).values
    types = fields["type"].values.astype(str) if groups is None else groups
    by_type = [
        sorted(np.flatnonzero(types == name), key=lambda i: -score[i]) for name in np.unique(types)
    ]
    turns = [cells[i] for i in range(len(types)) for cells in by_type if i < len(cells)]
    return sorted((int(i) for i in turns[:COLUMNS]), key=lambda i: (types[i], i))


def crop_around(size: npt.NDArray[Any], side: int = CROP) -> tuple[slice, slice]:
    """Return the square of ``side`` px around the largest value of an image (y, x)."""
    peak = np.unravel_index(int(size.argmax()), size.shape)
    starts = [
        int(np.clip(p - side // 2, 0, max(0, n - side)))
        for p, n in zip(peak, size.shape, strict=True)
    ]
    return slice(starts[0], starts[0] + side), slice(starts[1], starts[1] + side)


def draw_field(axes: Axes, field: npt.NDArray[Any], limit: float | None = None) -> None:
    """Draw one spatial field, zero white, scaled to ``limit`` or to its own largest size."""
    limit = limit or float(np.abs(field).max()) or 1.0
    axes.imshow(field, cmap=SIGNED, vmin=-limit, vmax=limit)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(True)
    axes.spines[:].set_color("#b9c0c8")


def draw_fields(area: Area, results: xr.DataTree, letter: str = "") -> None:
    """Draw panel D into a figure or a part of one."""
    fields = _fields(results)
    events = first_events(fields)
    types = cell_groups(results).values
    cells = shown_cells(fields, events, types)
    layer = layer_name(str(fields.attrs.get("layer", "")))
    draw_title(area, letter, f"What drove each cell, by the active modes of {layer}")
    spec = grid(
        area,
        [1] * len(events),
        [1.05, *[1.0] * len(cells), 1.9],
        left=1.35,
        right=0.2,
        top=0.78,
        bottom=0.52,
        gap_y=0.12,
        gap_x=0.2,
    )
    colors = [type_colors(types)[name] for name in types]
    windows = _windows(fields, cells)
    shown = fields.isel(event=events)
    scene_limit = float(np.abs(shown["scene"]).max()) or 1.0
    course_limit = 1.1 * float(np.nanmax(np.abs(shown["temporal"].isel(cell=cells))))
    for row in range(len(events)):
        here = shown.isel(event=row)
        scene, courses = (area.add_subplot(spec[row, column]) for column in (0, -1))
        _scene(scene, here, scene_limit)
        for column, cell in enumerate(cells, start=1):
            one = here.isel(cell=cell)
            axes = area.add_subplot(spec[row, column])
            _tile(axes, one, windows[cell], float(fields.attrs.get("minimum_rate", 0.0)))
            if bool(one["responding"]):
                courses.plot(-1000 * fields["lag"], one["temporal"], color=colors[cell], lw=1.1)
            if row == 0:
                words = f"cell {one['cell'].item()}\n{_in_two(types[cell])}"
                axes.set_title(words, size=8, color=colors[cell], weight="bold", pad=4)
            scene.add_patch(_outline(windows[cell], colors[cell]))
        courses.axhline(0, color=MUTED, lw=0.5)
        courses.set_ylim(-course_limit, course_limit)
        courses.set_xlim(-1000 * float(fields["lag"].max()), 0)
        courses.set_yticks([0])
        courses.tick_params(labelbottom=row == len(events) - 1)
        if row == 0:
            scene.set_title("scene", size=8.5, pad=4)
            courses.set_title("time courses (unit length)", size=8.5, pad=4)
    courses.set_xlabel("time before the response (ms)")
    _scale_bar(area, fields, results.attrs.get("pixel_size"))


def _in_two(words: str) -> str:
    """Break long words at the first space."""
    return words.replace(" ", "\n", 1) if len(words) > 10 else words


def _windows(fields: xr.Dataset, cells: Iterable[int]) -> dict[int, tuple[slice, slice]]:
    """Return the square of the frame that is shown of each cell, around its mean field's peak."""
    size = abs(fields["spatial"]).mean("event")
    return {cell: crop_around(size.isel(cell=cell).values) for cell in cells}


def _scene(axes: Axes, here: xr.Dataset, limit: float) -> None:
    """Draw the scene of one event; beside it the active modes and the time."""
    axes.imshow(here["scene"], cmap="gray", vmin=-limit, vmax=limit)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_ylabel(
        f"{_modes(str(here['combination'].item()))}\n{here['time'].item():.2f} s",
        rotation=0,
        ha="right",
        va="center",
        labelpad=6,
        size=8.5,
    )


def _modes(label: str) -> str:
    """Name active modes, five in a line."""
    numbers = label.split("+")
    word = "modes" if len(numbers) > 1 else "mode"
    lines = ["+".join(numbers[first : first + 5]) for first in range(0, len(numbers), 5)]
    return f"{word} {lines[0]}" if len(numbers) < 4 else f"{word}\n" + "+\n".join(lines)


def _outline(window: tuple[slice, slice], color: Any) -> Rectangle:
    """Where in the scene a field is shown."""
    rows, columns = window
    return Rectangle(
        (columns.start - 0.5, rows.start - 0.5),
        columns.stop - columns.start,
        rows.stop - rows.start,
        fill=False,
        ec=color,
        lw=0.7,
    )


def _tile(axes: Axes, one: xr.Dataset, window: tuple[slice, slice], minimum: float) -> None:
    """Draw one cell's field at one event; grey with a word where the cell is silent."""
    rate = one["prediction"].item()
    if bool(one["responding"]):
        draw_field(axes, one["spatial"].values[window])
        axes.text(
            0.96,
            0.04,
            f"{rate:.0f} Hz",
            transform=axes.transAxes,
            ha="right",
            va="bottom",
            size=7,
            color="#333b45",
        )
        return
    axes.imshow(np.full((CROP, CROP, 3), 0.945))
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_color("#d5dade")
    axes.text(
        0.5,
        0.5,
        f"below\n{minimum:g} Hz",
        transform=axes.transAxes,
        ha="center",
        va="center",
        size=7.5,
        color=MUTED,
    )


def _scale_bar(area: Area, fields: xr.Dataset, pixel_size: Any) -> None:
    """Say the size of a tile and what its colours mean, under the panel."""
    width, height = size_of(area)
    side = min(CROP, fields.sizes["y"], fields.sizes["x"])
    known = isinstance(pixel_size, int | float) and np.isfinite(pixel_size) and pixel_size > 0
    size = f" = {side * float(pixel_size):.0f} µm" if known else ""
    area.text(
        1.25 / width,
        0.06 / height,
        f"Tiles: {side} px{size} wide, each scaled to its own largest value.\n{RED_MEANS}",
        size=8,
        color=MUTED,
        va="bottom",
    )


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
    return chosen[:ROWS_OF_PARTS]


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
            draw_field(axes, image[windows[cell]], limit)
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


def _tiles(one: xr.Dataset) -> list[tuple[str, npt.NDArray[Any], float | None]]:
    """Name, image and share of the active modes, the remainder and the whole field."""
    active = {name for name in str(one["combination"].item()).split("+") if name}
    found: list[tuple[str, npt.NDArray[Any], float | None]] = [
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


def _sign(axes: Axes, text: str) -> None:
    """Write + or = to the left of a tile."""
    axes.text(
        -0.27, 0.5, text, transform=axes.transAxes, ha="center", va="center", size=13, color=MUTED
    )
