"""Panel A of Figure 8: the network that is explained, and its target F."""

from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, FancyArrowPatch, Rectangle

from retina_codec.figures import base
from retina_codec.figures.style import (
    MUTED,
    Area,
    cell_groups,
    color_bar,
    draw_title,
    grid,
    layer_name,
    new_figure,
    styled,
    target_name,
    type_colors,
    units_of,
)
from retina_codec.storage.results import layers_of, table

__all__ = ["NetworkAndTarget", "draw_network_and_target", "plot_network_and_target"]

LAYER_COLORS = ("#c9d7ea", "#b3c6e0", "#9cb4d5")
SHOWN_TIMES = 1500  # dots in the scatter: more hide each other


class NetworkAndTarget(base.Figure):
    """What is explained, at the top of the page."""

    name = "network_and_target"
    title = (
        "The network from stimulus to surprisal; rates of two cells coloured by surprisal; "
        "histogram of surprisal"
    )
    section = "read"
    look_for = "bright dots far from the ellipses: unusual pairs of rates have a large F."
    caption = (
        "Left: the explained network. Middle: predicted rates of two cells, one dot per time, "
        "coloured by F of the whole population; ellipses at one and two standard deviations. "
        "Right: F over all times; note the logarithmic count."
    )

    def draw(self, results: xr.DataTree) -> Figure:
        """Draw `plot_network_and_target`."""
        return plot_network_and_target(results)


@styled
def plot_network_and_target(results: xr.DataTree) -> Figure:
    """Draw the network as it was explained, and what surprisal measures.

    Parameters
    ----------
    results : xr.DataTree
        Results with ``/responses`` and ``/layers``; the scene comes from ``/receptive_fields``.

    Returns
    -------
    matplotlib.figure.Figure
        Schematic; the model rates (Hz) of two cells coloured by surprisal (nats), with the
        ellipses at 1 and 2 standard deviations; histogram of surprisal (nats).
    """
    figure = new_figure(3.2)
    draw_network_and_target(figure, results)
    return figure


def draw_network_and_target(area: Area, results: xr.DataTree, letter: str = "") -> None:
    """Draw panel A into a figure or a part of one."""
    draw_title(area, letter, "The network, and the number that is explained")
    spec = grid(
        area, [1], [5.4, 0.3, 1.8, 0.07, 1.1, 1.4], left=0.25, right=0.2, top=0.78, bottom=0.5
    )
    _schematic(area.add_subplot(spec[0]), results)
    responses = table(results, "responses")
    target, units = responses["target"].values, units_of(responses["target"])
    cloud = area.add_subplot(spec[2])
    dots = _two_cells(cloud, responses, cell_groups(results).values)
    low, high = dots.get_clim()
    ticks = [low + 0.03 * (high - low), (low + high) / 2, high] if low > 0 else [low, 0, high]
    color_bar(area, area.add_subplot(spec[3]), dots, f"F ({units})", ticks)
    if target_name(results) == "surprisal":
        formula = r"$F=\frac{1}{2}\,(y-\mu)^{\top}\,\Sigma^{-1}\,(y-\mu)$ + constant"
        cloud.set_title(formula, size=9.5, pad=10, loc="left")
    axes = area.add_subplot(spec[5])
    axes.hist(target, bins=40, color="#8a6fae")
    axes.set_yscale("log")
    axes.minorticks_off()
    axes.set_xlabel(f"F, {target_name(results)} ({units})")
    axes.set_ylabel("times (count)")
    marks = ((np.median(target), "median", "right"), (np.quantile(target, 0.99), "99 %", "left"))
    for value, words, side in marks:
        axes.axvline(value, color="black", lw=0.8, ls=":")
        place = axes.get_xaxis_transform()
        axes.text(value, 1.02, words, transform=place, size=7.5, ha=side)


def _schematic(axes: Axes, results: xr.DataTree) -> None:
    """Frames, convolution layers, cells, target; sizes and counts come from the results."""
    axes.set_xlim(0, 11)
    axes.set_ylim(0, 4.6)
    axes.axis("off")
    y = 2.65
    if "receptive_fields" in results.children:
        fields = table(results, "receptive_fields")
        scene = fields["scene"].values[0]
        limit = float(np.abs(scene).max()) or 1.0
        for step in (2, 1, 0):
            left, low = 0.15 + 0.13 * step, y - 0.8 + 0.13 * step
            box = (left, left + 1.45, low, low + 1.45)
            axes.imshow(scene, cmap="gray", extent=box, vmin=-limit, vmax=limit, zorder=3 - step)
            axes.add_patch(
                Rectangle(
                    (left, low), 1.45, 1.45, fill=False, ec="white", lw=1.0, zorder=3.5 - step
                )
            )
        words = f"last {fields.sizes['lag']} frames\n{fields.sizes['y']} × {fields.sizes['x']} px"
        axes.text(1.0, 1.45, words, ha="center", va="top", size=8)
    axes.set_xlim(0, 11)
    axes.set_ylim(0, 4.6)
    axes.set_aspect("auto")

    layers = layers_of(results)
    starts = np.linspace(2.5, 5.7, len(layers)) if len(layers) > 1 else np.array([4.1])
    for number, (name, left) in enumerate(zip(layers, starts, strict=True)):
        channels = results[f"layers/{name}"].sizes["channel"]
        _arrow(axes, left - 0.5 if number else 1.95, left - 0.1, y)
        drawn = min(channels, 8)
        for step in range(drawn - 1, -1, -1):
            axes.add_patch(
                Rectangle(
                    (left + 0.065 * step, y - 0.75 + 0.085 * step),
                    0.5,
                    1.0 - 0.12 * number,
                    fc=LAYER_COLORS[min(number, 2)],
                    ec="#41597c",
                    lw=0.6,
                )
            )
        words = f"{layer_name(name)}\n{channels} channels"
        axes.text(left + 0.42, 1.45, words, ha="center", va="top", size=8)
    responses = table(results, "responses")
    types, units = cell_groups(results).values, units_of(responses["target"])
    colors = type_colors(types)
    _arrow(axes, 6.85, 7.4, y)
    heights = np.linspace(y + 1.25, y - 0.95, len(types))
    for number, (name, height) in enumerate(zip(types, heights, strict=True)):
        column = 7.75 + 0.24 * (number % 2)
        axes.plot(column, height, "o", ms=5.5, mfc=colors[name], mec="white", mew=0.5)
    axes.text(
        7.87, 1.45, f"{len(types)} ganglion cells\nrates y (Hz)", ha="center", va="top", size=8
    )
    _arrow(axes, 8.35, 9.4, y)
    axes.text(10.05, y, "F", ha="center", va="center", size=20, style="italic")
    words = f"{target_name(results)}\n({units})"
    axes.text(10.05, 1.45, words, ha="center", va="top", size=8)
    words = "Contribution of a channel: how far it moved F from the value at mean grey."
    axes.text(0.15, 0.1, words, size=8, color=MUTED, va="bottom")


def _arrow(axes: Axes, start: float, stop: float, height: float) -> None:
    axes.add_patch(
        FancyArrowPatch(
            (start, height), (stop, height), arrowstyle="-|>", mutation_scale=8, lw=1, color=MUTED
        )
    )


def _two_cells(axes: Axes, responses: xr.Dataset, groups: npt.NDArray[Any]) -> PathCollection:
    """Scatter two cells that are correlated, coloured by the target; return the dots."""
    rates = responses["prediction"].transpose("time", "cell").values.astype(np.float64)
    first, second = _related_pair(rates)
    step = max(1, len(rates) // SHOWN_TIMES)
    target = responses["target"].values
    order = np.argsort(target[::step])
    x, y = rates[::step, first][order], rates[::step, second][order]
    dots = axes.scatter(
        x, y, c=target[::step][order], s=5, cmap="viridis", vmax=np.quantile(target, 0.99), lw=0
    )
    center = rates[:, [first, second]].mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov(rates[:, [first, second]].T))
    angle = float(np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1])))
    for deviations in (1, 2):
        across, along = 2 * deviations * np.sqrt(values.clip(min=0))
        axes.add_patch(
            Ellipse((center[0], center[1]), along, across, angle=angle, fill=False, lw=1.0)
        )
    cells, types = responses["cell"].values, groups
    axes.set_xlabel(f"cell {cells[first]}, {types[first]} (Hz)")
    axes.set_ylabel(f"cell {cells[second]}, {types[second]} (Hz)")
    limit = 1.05 * max(x.max(), y.max())
    axes.set_xlim(-0.02 * limit, limit)
    axes.set_ylim(-0.02 * limit, limit)
    return dots


def _related_pair(rates: npt.NDArray[Any]) -> tuple[int, int]:
    """Return two cells whose rates correlate by about 0.6; (0, 0) for a single cell."""
    if rates.shape[1] == 1:
        return 0, 0
    distance = np.abs(np.corrcoef(rates.T) - 0.6) + 2 * np.eye(rates.shape[1])
    first, second = np.unravel_index(np.nanargmin(distance), distance.shape)
    return int(min(first, second)), int(max(first, second))
