"""Checks of an analysis: prediction, completeness, reconstruction and sparsity."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from retina_codec.figures import base
from retina_codec.figures.style import (
    MUTED,
    Area,
    cell_groups,
    draw_title,
    grid,
    layer_name,
    new_figure,
    styled,
    type_colors,
)
from retina_codec.storage.results import layers_of, table

__all__ = ["Quality", "draw_quality", "plot_quality", "relative_error"]

LOWEST = -0.5  # R²; worse features are drawn here
LAYER_COLORS = ("#5b3f8c", "#b0762a", "#2f7f86", "#8c3f5b")


class Quality(base.Figure):
    """Four checks, side by side."""

    name = "quality_checks"
    title = "Prediction per cell, completeness error, R² per feature, active modes per time"
    section = "checks"
    look_for = (
        "bars that nearly reach their black line, curves far left of the dotted line, and dots "
        "close to 1."
    )
    caption = (
        "From left: r of predicted and recorded rate per cell{lowest}, line: the noise ceiling; "
        "share of times whose contributions miss the change of F by less than the given "
        "percentage, dotted at 1 %; R² on held-out times for every sign and channel (worse than "
        "−0.5 drawn at −0.5); number of modes active at once."
    )

    def caption_of(self, results: xr.DataTree) -> str:
        """Name the cell that is predicted worst, where rates were recorded."""
        responses, lowest = table(results, "responses"), ""
        if "pearson" in responses and responses["pearson"].notnull().any():
            worst = responses.isel(cell=int(responses["pearson"].argmin("cell")))
            lowest = f" (lowest {worst['pearson'].item():.2f}, cell {worst['cell'].item()})"
        return self.caption.format(lowest=lowest)

    def draw(self, results: xr.DataTree) -> Figure:
        """Draw `plot_quality`."""
        return plot_quality(results)


@styled
def plot_quality(results: xr.DataTree) -> Figure:
    """Draw four checks of an analysis.

    Parameters
    ----------
    results : xr.DataTree
        Results of ``analyze``.

    Returns
    -------
    matplotlib.figure.Figure
        Pearson r of predicted and recorded rate per cell beside the noise ceiling (where
        known); distribution over time of the relative completeness error; R² of every
        contribution feature on held-out times; active modes per held-out time.
    """
    figure = new_figure(3.1)
    draw_quality(figure, results)
    return figure


def relative_error(layer: xr.Dataset) -> xr.DataArray:
    """Return |completeness error| / |change of the target| at every time, dimensionless.

    Parameters
    ----------
    layer : xr.Dataset
        ``completeness_error`` and ``target_change`` (time), nats.
    """
    error, change = abs(layer["completeness_error"]), abs(layer["target_change"])
    # An input at the baseline has neither change nor error: nothing is missing there.
    ratio: xr.DataArray = (error / change.where(change > 0)).where(error > 0, 0.0)
    return ratio


def draw_quality(area: Area, results: xr.DataTree, letter: str = "") -> None:
    """Draw the four checks into a figure or a part of one."""
    draw_title(area, letter, "Four checks")
    spec = grid(area, [1], [1.2, 1, 1, 1], left=0.6, right=0.15, top=0.62, bottom=0.5, gap_x=0.66)
    _prediction(area.add_subplot(spec[0]), results)
    _completeness(area.add_subplot(spec[1]), results)
    _reconstruction(area.add_subplot(spec[2]), results)
    _sparsity(area.add_subplot(spec[3]), results)


def _prediction(axes: Axes, results: xr.DataTree) -> None:
    """Prediction r per cell, in the colour of its type, and the ceiling as a short line."""
    responses = table(results, "responses")
    axes.set_title("the network predicts the cells", size=9)
    groups = cell_groups(results)
    axes.set_xlabel(f"cell, coloured by {groups.attrs['of']}")
    axes.set_ylabel("Pearson r")
    axes.set_ylim(0, 1.2)
    axes.set_yticks([0, 0.5, 1])
    if "pearson" not in responses:
        axes.text(0.5, 0.5, "no recorded rates", transform=axes.transAxes, ha="center")
        return
    types = groups.values
    colors = type_colors(types)
    order = np.argsort(types, kind="stable")
    position = np.arange(len(order))
    pearson = responses["pearson"].values[order]
    axes.bar(position, pearson, width=0.75, color=[colors[types[i]] for i in order])
    if "noise_ceiling" in responses:
        ceiling = responses["noise_ceiling"].values[order]
        axes.hlines(ceiling, position - 0.45, position + 0.45, color="black", lw=1.2)
        axes.text(
            0.98,
            1.12,
            "line: noise ceiling",
            ha="right",
            va="center",
            size=7.5,
            transform=axes.get_yaxis_transform(),
        )
    axes.set_xticks([])


def _completeness(axes: Axes, results: xr.DataTree) -> None:
    """Share of times whose relative completeness error stays below a value."""
    axes.set_title("contributions add up", size=9)
    layers = layers_of(results)
    for name, color in zip(layers, LAYER_COLORS * len(layers), strict=False):
        error = np.sort(relative_error(table(results, f"layers/{name}")).values)
        share = np.arange(1, len(error) + 1) / len(error)
        axes.plot(100 * error.clip(1e-7), 100 * share, color=color, lw=1.3, label=layer_name(name))
    axes.axvline(1.0, color=MUTED, lw=0.8, ls=":")
    axes.set_xscale("log")
    axes.set_ylim(0, 102)
    axes.set_xlim(1e-3, 1e2)
    axes.set_xticks([1e-2, 1e0, 1e2], ["0.01", "1", "100"])
    axes.minorticks_off()
    axes.set_xlabel("error (% of the change in F)")
    axes.set_ylabel("times below (%)")
    axes.legend(loc="upper left", borderaxespad=0.1, handlelength=1.2)


def _reconstruction(axes: Axes, results: xr.DataTree) -> None:
    """R² on held-out times: one dot per feature, a line for the whole layer."""
    axes.set_title("modes rebuild unseen times", size=9)
    layers = layers_of(results, part="modes")
    low = 0.0
    for number, (name, color) in enumerate(zip(layers, LAYER_COLORS * len(layers), strict=False)):
        modes = table(results, f"layers/{name}/modes")
        feature = modes["r2_feature"].values.ravel()
        feature = feature[np.isfinite(feature)]
        spread = np.linspace(-0.22, 0.22, len(feature))
        low = min(low, float(feature.min(initial=0.0)))
        shown = np.sort(feature).clip(min=LOWEST)
        axes.plot(number + spread, shown, "o", ms=3, color=color, alpha=0.55, mew=0)
        whole = float(modes["r2"])
        axes.hlines(whole, number - 0.36, number + 0.36, color=color, lw=2.2)
        axes.text(number, 1.03, f"{whole:.2f}", ha="center", va="bottom", size=8, color=color)
    axes.set_xticks(range(len(layers)), [layer_name(name) for name in layers])
    axes.set_xlim(-0.6, len(layers) - 0.4)
    axes.set_ylim(max(low - 0.05, LOWEST - 0.05), 1.15)
    axes.set_yticks([0, 0.5, 1])
    axes.set_xlabel("dot: sign × channel, line: all")
    axes.set_ylabel("R² on held-out times")


def _sparsity(axes: Axes, results: xr.DataTree) -> None:
    """How many modes are active at a time, on held-out times."""
    axes.set_title("few modes at a time", size=9)
    layers = layers_of(results, part="modes")
    width = 0.8 / len(layers)
    top = 1
    for number, (name, color) in enumerate(zip(layers, LAYER_COLORS * len(layers), strict=False)):
        modes = table(results, f"layers/{name}/modes")
        held = modes["active"].values[modes["split"].values == "held_out"]
        count = np.bincount(held.sum(axis=1).astype(int))
        top = max(top, len(count) - 1)
        place = np.arange(len(count)) - 0.4 + (number + 0.5) * width
        label = f"{layer_name(name)}: {int(modes['live_modes'])} modes"
        axes.bar(place, 100 * count / count.sum(), width=width, color=color, label=label)
    axes.set_xticks(range(0, top + 1, -(-(top + 1) // 8)))
    axes.set_xlabel("active modes per time (count)")
    axes.set_ylabel("held-out times (%)")
    axes.set_ylim(0, 1.5 * axes.get_ylim()[1])
    axes.set_yticks([tick for tick in axes.get_yticks() if tick <= 100])
    axes.legend(loc="upper right", borderaxespad=0.1, handlelength=0.8, handleheight=0.8)
