"""Spike-triggered averages of all cells: fields, time courses, and where the fields lie."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from retina_codec.errors import RetinaCodecError
from retina_codec.figures.style import MUTED, SIGNED, grid, new_figure, styled

__all__ = ["plot_averages"]

COLUMNS, MOST = 10, 80  # fields in a row, cells drawn
HALF = 14  # px around the centre
POLARITY = {"ON": "#b2182b", "OFF": "#2166ac", "none": MUTED}


@styled
def plot_averages(averages: xr.Dataset, *, half: int = HALF) -> Figure:
    """Draw the field of every cell at its peak lag, all time courses, and a map of the centres.

    Parameters
    ----------
    averages : xr.Dataset
        Of `rc.recordings.spike_triggered_average`; the first 80 cells are drawn.
    half : int
        px, half side of the square around the centre.

    Returns
    -------
    matplotlib.figure.Figure
        Each field in units of its own largest |z|: red where light comes before spikes.

    Raises
    ------
    RetinaCodecError
        No cell, or not such a data set.
    """
    if "peak_z" not in averages or not averages.sizes["cell"]:
        raise RetinaCodecError(
            "averages must come from rc.recordings.spike_triggered_average and have cells; got "
            f"{list(averages.data_vars)[:8]}. Pass its result."
        )
    cells = averages.isel(cell=slice(0, MOST))
    rows = -(-cells.sizes["cell"] // COLUMNS)
    height = 3.6 + 1.12 * rows
    figure = new_figure(height)
    whole = grid(
        figure, [3.0, 1.12 * rows], [1], left=0.75, right=0.1, top=0.3, bottom=0.1, gap_y=0.7
    )
    above = whole[0, 0].subgridspec(1, 2, width_ratios=[1, 1.25], wspace=0.25)
    _courses(figure.add_subplot(above[0, 0]), averages)
    _mosaic(figure.add_subplot(above[0, 1]), averages)
    below = whole[1, 0].subgridspec(rows, COLUMNS, hspace=0.3, wspace=0.1)
    for number in range(cells.sizes["cell"]):
        axis = figure.add_subplot(below[number // COLUMNS, number % COLUMNS])
        axis.set_axis_off()
        _field(axis, cells.isel(cell=number), half)
    return figure


def _field(axis: Axes, cell: xr.Dataset, half: int) -> None:
    name, color = str(cell["cell"].values), POLARITY[str(cell["polarity"].values)]
    z = float(cell["peak_z"])
    axis.set_title(
        f"{name}   z {z:.0f}" if np.isfinite(z) else name, fontsize=7, color=color, pad=2
    )
    if not np.isfinite(z):
        return
    lag = int(np.argmin(np.abs(cell["lag"].values - float(cell["peak_lag"]))))
    field = cell["z"].isel(lag=lag)
    near = {
        dim: np.abs(cell[dim].values - float(cell[f"center_{dim}"])) <= half for dim in ("y", "x")
    }
    shown = field.isel({dim: np.flatnonzero(few) for dim, few in near.items()})
    limit = float(np.abs(shown).max())
    axis.imshow(
        shown.values,
        cmap=SIGNED,
        vmin=-limit,
        vmax=limit,
        extent=_extent(shown),
        interpolation="nearest",
    )


def _extent(field: xr.DataArray) -> tuple[float, float, float, float]:
    y, x = field["y"].values, field["x"].values
    return float(x[0]) - 0.5, float(x[-1]) + 0.5, float(y[-1]) + 0.5, float(y[0]) - 0.5


def _courses(axis: Axes, averages: xr.Dataset) -> None:
    lag = averages["lag"].values * 1e3
    for number in range(averages.sizes["cell"]):
        course = averages["time_course"].values[number]
        if not np.isfinite(course).all() or not course.any():
            continue
        color = POLARITY[str(averages["polarity"].values[number])]
        axis.plot(-lag, course / np.abs(course).max(), color=color, lw=0.7, alpha=0.6)
    axis.axhline(0, color=MUTED, lw=0.6)
    axis.set_xlabel("time before the spike (ms)")
    axis.set_ylabel("mean intensity at the centre\n(largest = 1)")
    axis.set_title("Time courses", loc="left")


def _mosaic(axis: Axes, averages: xr.Dataset) -> None:
    names = averages["polarity"].values
    for kind, color in POLARITY.items():
        few = np.flatnonzero(names == kind)
        if not len(few):
            continue
        words = "no field above chance" if kind == "none" else kind
        axis.plot([], [], "o", mfc="none", mec=color, label=f"{len(few)} {words}")
        for number in few if kind != "none" else ():
            place = (float(averages["center_x"][number]), float(averages["center_y"][number]))
            size = float(averages["size"][number]) / 2
            axis.add_patch(Circle(place, size, fill=False, ec=color, lw=0.9))
    axis.set_xlim(*_extent(averages["z"].isel(cell=0, lag=0))[:2])
    axis.set_ylim(*_extent(averages["z"].isel(cell=0, lag=0))[2:])
    axis.set_aspect("equal")
    axis.set_xlabel("x (px)")
    axis.set_ylabel("y (px)")
    axis.set_title("Receptive fields: half of the peak", loc="left")
    axis.legend(loc="upper left", frameon=False)
