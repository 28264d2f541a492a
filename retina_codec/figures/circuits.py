"""Draw a circuit: units of successive layers in columns, joined by their share of the target."""

from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path

from retina_codec.analysis.circuits.decomposition import average_circuit
from retina_codec.errors import RetinaCodecError
from retina_codec.figures.style import MUTED, SIGNED, WIDTH, layer_name, new_figure, styled

__all__ = ["plot_circuit"]

POSITIVE, NEGATIVE = (mpl.colormaps[SIGNED](place) for place in (0.86, 0.14))
BOX, SIDE, ROW = 0.84, 0.42, 0.62  # inches: width and height of a node, rows of a full column
WIDEST = 9.0  # points, the largest edge
COLUMNS_BY_NAME = {"input": "stimulus", "output": "cells"}


@styled
def plot_circuit(
    found: xr.DataTree,
    active: Any = None,
    *,
    kernels: xr.Dataset | None = None,
    share: float = 0.9,
) -> Figure:
    """Draw the mean circuit, from the input on the left to the output on the right.

    Parameters
    ----------
    found : xr.DataTree
        From `circuit` or `average_circuit`.
    active : array of bool (time,), optional
        Which times count, see `average_circuit`.
    kernels : xr.Dataset, optional
        From `separable_kernels`: drawn in the nodes that are channels ("conv1/0") with a kernel:
        the field around its peak, and the time course, the latest frame on the right.
    share : float
        Between two layers the largest edges are drawn that together make this share of the sum of
        sizes; (0, 1].

    Returns
    -------
    matplotlib.figure.Figure
        Width of an edge: size of its share of F, of the largest in the picture; red raises F, blue
        lowers it. Numbers under nodes: their contribution, in the unit of F.

    Raises
    ------
    RetinaCodecError
        If the share is not in (0, 1], or nothing is active.
    """
    if not 0 < share <= 1:
        raise RetinaCodecError(f"share must lie in (0, 1]; got {share}. Use 0.9.")
    mean = average_circuit(found, active) if found["target_change"].ndim else found
    layers = list(mean["nodes"].children)
    rows = max(mean[f"nodes/{layer}"].sizes["node"] for layer in layers)
    high = rows * ROW + 1.15
    figure = new_figure(high)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, WIDTH), ylim=(0, high))
    axes.axis("off")
    columns = np.linspace(1.0, WIDTH - 1.0, len(layers))
    places: dict[tuple[str, str], tuple[float, float]] = {}
    for x, layer in zip(columns, layers, strict=True):
        names = [str(one) for one in mean[f"nodes/{layer}"].to_dataset()["node"].values]
        step = min(rows * ROW / len(names), 2 * ROW)
        top = 0.45 + (rows * ROW + len(names) * step) / 2
        for number, name in enumerate(names):
            places[layer, name] = float(x), top - (number + 0.5) * step
        title = COLUMNS_BY_NAME.get(layer, layer_name(layer))
        axes.text(x, high - 0.3, title, ha="center", va="top", weight="bold")
    _draw_edges(axes, mean, places, share)
    for layer in layers:
        _draw_nodes(axes, mean, layer, places, kernels)
    _draw_legend(axes, mean, share)
    return figure


def _draw_edges(
    axes: Axes, mean: xr.DataTree, places: dict[tuple[str, str], tuple[float, float]], share: float
) -> None:
    """Draw the largest edges between each two layers, small ones first."""
    tables = {
        layer: one.to_dataset()["contribution"] for layer, one in mean["edges"].children.items()
    }
    largest = max(float(np.abs(table).max()) for table in tables.values()) or 1.0
    for layer, table in tables.items():
        below = mean[f"edges/{layer}"].attrs["from"]
        values = table.transpose("source", "target").values
        order = np.argsort(-np.abs(values), axis=None)
        sums = np.cumsum(np.abs(values).ravel()[order])
        kept = order[: int(np.searchsorted(sums, share * sums[-1] * (1 - 1e-9))) + 1]
        for flat in kept[::-1]:
            i, j = np.unravel_index(flat, values.shape)
            value = float(values[i, j])
            if not np.isfinite(value) or value == 0:
                continue
            x0, y0 = places[below, str(table["source"].values[i])]
            x1, y1 = places[layer, str(table["target"].values[j])]
            x0, x1 = x0 + BOX / 2, x1 - BOX / 2
            bend = (x1 - x0) * 0.45
            path = Path(
                [(x0, y0), (x0 + bend, y0), (x1 - bend, y1), (x1, y1)],
                [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4],
            )
            axes.add_patch(
                PathPatch(
                    path,
                    fill=False,
                    edgecolor=POSITIVE if value > 0 else NEGATIVE,
                    linewidth=max(0.35, WIDEST * abs(value) / largest),
                    alpha=0.65,
                    capstyle="butt",
                )
            )


def _draw_nodes(
    axes: Axes,
    mean: xr.DataTree,
    layer: str,
    places: dict[tuple[str, str], tuple[float, float]],
    kernels: xr.Dataset | None,
) -> None:
    """Draw the nodes of a layer, with kernels where they are known, and their contribution."""
    table = mean[f"nodes/{layer}"].to_dataset()
    known = [] if kernels is None else kernels["channel"].values.tolist()
    for name, value in zip(table["node"].values, table["contribution"].values, strict=True):
        x, y = places[layer, str(name)]
        label = f"{layer}/{name}"
        box, size = (x - BOX / 2, y - SIDE / 2), SIDE
        if kernels is not None and label in known:
            one = kernels.sel(channel=label)
            _draw_kernel(axes, one, box, size)
        axes.add_patch(
            Rectangle(
                box,
                BOX,
                size,
                fill=label not in known,
                facecolor="white",
                edgecolor=MUTED,
                linewidth=0.7,
                zorder=4,
            )
        )
        if label in known:
            axes.text(box[0] + 0.03, box[1] + size - 0.03, str(name), size=7, va="top", zorder=5)
        else:
            axes.text(x, y, str(name), size=8, ha="center", va="center",
                      zorder=5)  # fmt: skip
        text = f"{value:.2g}".replace("-", "−")
        axes.text(x, box[1] - 0.02, text, size=7, color=MUTED, ha="center", va="top", zorder=5)


def _draw_kernel(axes: Axes, one: xr.Dataset, box: tuple[float, float], size: float) -> None:
    """Draw field around its peak and time course (the latest on the right) into a box."""
    left, bottom = box
    field: npt.NDArray[np.float64] = one["field"].transpose("field_y", "field_x").values
    field = _around_peak(field)
    axes.imshow(
        field, cmap=SIGNED, vmin=-1, vmax=1, aspect="auto", zorder=3.1, origin="upper",
        extent=(left, left + size, bottom, bottom + size),
    )  # fmt: skip
    axes.add_patch(
        Rectangle(
            (left + size, bottom), BOX - size, size, facecolor="white", edgecolor="none", zorder=3.1
        )
    )
    course = one["time_course"].sortby("lag", ascending=False).values
    x = left + size + 0.03 + np.linspace(0, BOX - size - 0.06, len(course))
    middle = bottom + size / 2
    axes.plot([x[0], x[-1]], [middle] * 2, color="#c9ced4", linewidth=0.5, zorder=3.2)
    axes.plot(x, middle + course * (size / 2 - 0.05), color="#1f2733", linewidth=0.9, zorder=3.3)


def _around_peak(field: npt.NDArray[np.float64], half: int = 8) -> npt.NDArray[np.float64]:
    """Cut a field (y, x) to the pixels around its peak; as much as there is near an edge."""
    place = np.unravel_index(np.abs(field).argmax(), field.shape)
    cut = tuple(slice(max(0, int(at) - half), int(at) + half + 1) for at in place)
    return field[cut]


def _draw_legend(axes: Axes, mean: xr.DataTree, share: float) -> None:
    units = mean["target_change"].attrs["units"]
    tables = [one.to_dataset()["contribution"] for one in mean["edges"].children.values()]
    largest = max(float(np.abs(table).max()) for table in tables)
    handles = [
        Line2D([], [], color=POSITIVE, linewidth=5, alpha=0.65, label="raises the target"),
        Line2D([], [], color=NEGATIVE, linewidth=5, alpha=0.65, label="lowers it"),
    ]
    drawn = "all edges" if share == 1 else f"largest edges, {share:.0%} of each step"
    title = (
        f"{str(mean.attrs['target']).split('(')[0]}, mean of {mean.attrs['inputs']} inputs, "
        f"{units}; {drawn}; widest edge {largest:.2g}"
    )
    axes.text(0.35, 0.12, title, size=8, va="bottom", ha="left")
    axes.legend(handles=handles, loc="lower right", ncols=2, bbox_to_anchor=(0.99, 0.0))
