"""Maps of activations and contributions of single channels, and how sparse such maps are."""

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from retina_codec.errors import RetinaCodecError
from retina_codec.figures.lines import COLORS, layer_axis, line, room_below, sites_of
from retina_codec.figures.style import (
    MUTED,
    SIGNED,
    WIDTH,
    draw_title,
    grid,
    layer_name,
    new_figure,
    styled,
)

__all__ = ["plot_units"]

ROW = 1.2  # inches
KEY = (
    "contribution: red for the answer, blue against it;\none scale for the maps of a layer\n"
    "sum: over all places of the channel"
)


SCOPES = {"places": "places of a channel's map", "units": "all units of a layer"}


@styled
def plot_units(maps: xr.DataTree, spatial: xr.Dataset, words: str = "") -> Figure:
    """Draw one image, maps and sums of its contributions, and the sparsity of many maps.

    Parameters
    ----------
    maps : xr.DataTree
        From ``analysis.unit_maps``.
    spatial : xr.Dataset
        From ``analysis.spatial_sparsity``.
    words : str
        What is written beside the image.

    Returns
    -------
    matplotlib.figure.Figure
        A, the image; B, channels that contribute most, activation left and contribution right,
        contributions of a layer on one scale; C, contributions of all channels in order, and how
        well they add up; D, Hoyer sparsity by layer with 95 % intervals over images.

    Raises
    ------
    RetinaCodecError
        If it is something else.
    """
    if "image" not in maps or "sparsity_by_input" not in spatial:
        raise RetinaCodecError(
            "this figure needs what unit_maps() and spatial_sparsity() returned; got "
            f"{list(maps.data_vars)} and {list(spatial.data_vars)}."
        )
    layers = [node.to_dataset() for node in maps["layers"].children.values()]
    names = [layer_name(str(name)) for name in spatial["layer"].values]
    below = room_below(names)
    heights = [1.75, ROW * len(layers) + 0.85, 2.4 + below]
    figure = new_figure(sum(heights))
    parts = figure.subfigures(3, 1, height_ratios=heights, squeeze=False)
    top, middle, bottom = parts[:, 0]
    draw_title(top, "A", "One image")
    _image(top, maps["image"].values, words, heights[0])
    top.text(0.62, 0.4, KEY, va="center", size=8, color=MUTED, linespacing=1.5)
    draw_title(middle, "B", "Activations and contributions of single channels")
    left = 0.695
    middle.text(left, 1 - 0.06 / heights[1], "C", va="top", size=14, weight="bold")
    middle.text(left + 0.028, 1 - 0.085 / heights[1], "Contributions of all channels", va="top",
                size=10.5, weight="bold")  # fmt: skip
    spec = grid(middle, [1] * len(layers), [6.6, 2.75], left=0.85, right=0.12, top=0.62,
                bottom=0.4, gap_x=0.72, gap_y=0.3)  # fmt: skip
    for number, layer in enumerate(layers):
        _maps(middle, spec[number, 0], layer, first=number == 0)
        _sums(middle.add_subplot(spec[number, 1]), layer, last=number == len(layers) - 1)
    draw_title(bottom, "D", f"Sparsity of maps in {spatial.sizes['sample']} images")
    lower = grid(bottom, [1], [1, 1], left=0.6, right=0.15, top=0.65, bottom=below, gap_x=0.75)
    for number, scope in enumerate(spatial["scope"].values):
        _sparsity(bottom.add_subplot(lower[number]), spatial.sel(scope=scope), str(scope), names)
    return figure


def _image(area: SubFigure, image: Any, words: str, height: float) -> None:
    """Draw the image, stretched to [0, 1] if it is normalised already."""
    side = 1.3
    axes = area.add_axes((0.75 / WIDTH, 0.05 / height, side / WIDTH, side / height))
    low, high = min(0.0, float(image.min())), max(1.0, float(image.max()))
    values = np.moveaxis((image - low) / (high - low), 0, -1)
    axes.imshow(values if values.shape[2] == 3 else values[..., 0], cmap="gray")
    axes.axis("off")
    area.text(
        (0.95 + side) / WIDTH, (0.05 + side / 2) / height, words, va="center", linespacing=1.5
    )


def _maps(area: SubFigure, place: Any, layer: xr.Dataset, *, first: bool) -> None:
    """Draw pairs of maps of a layer."""
    shown = layer.sizes["shown"]
    pairs = place.subgridspec(1, shown, wspace=0.08)
    most = float(np.abs(layer["contribution"]).max()) or 1.0
    low, high = float(layer["activation"].min()), float(layer["activation"].max())
    level = max(abs(low), abs(high)) or 1.0
    look: dict[str, Any] = {"cmap": "Greys", "vmin": 0, "vmax": level}
    if low < 0:
        look = {"cmap": "PuOr_r", "vmin": -level, "vmax": level}
    for number in range(shown):
        here = layer.isel(shown=number)
        both = pairs[number].subgridspec(1, 2, wspace=0.04)
        one, other = (area.add_subplot(both[k]) for k in (0, 1))
        one.imshow(here["activation"].values, **look)
        other.imshow(here["contribution"].values, cmap=SIGNED, vmin=-most, vmax=most)
        for axes in (one, other):
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set(visible=True, color="#c9ced4", lw=0.7)
        channel = int(here["shown"])
        net = float(layer["net"].sel(channel=channel))
        one.set_xlabel(f"channel {channel}", size=7.5, labelpad=2, color=MUTED)
        other.set_xlabel(f"sum {net:+.2g}".replace("-", "−"), size=7.5, labelpad=2, color=MUTED)
        if net and not here["contribution"].values.any():  # in the class token alone
            other.text(0.5, 0.5, "class\ntoken", transform=other.transAxes, ha="center",
                       va="center", size=7.5, color=MUTED)  # fmt: skip
        if first and number == 0:
            one.set_title("activation", size=8, loc="left", pad=3)
            other.set_title("contribution", size=8, loc="left", pad=3)
        if number == 0:
            name = _two_lines(layer_name(str(layer.attrs["layer"])))
            size = 9 if len(name) <= 9 else 8
            one.set_ylabel(name, rotation=0, ha="right", va="center", labelpad=4, size=size)


def _two_lines(name: str) -> str:
    """Keep the last four parts of a long name, two on a line."""
    parts = name.split(".")
    if len(name) <= 9:
        return name
    return "\n".join(".".join(two) for two in (parts[-4:-2], parts[-2:]) if two)


def _sums(axes: Axes, layer: xr.Dataset, *, last: bool) -> None:
    """Draw contributions of channels in order of size, and say how well they add up."""
    net = np.sort(layer["net"].values)[::-1]
    place = (np.arange(len(net)) + 0.5) / len(net)
    for part, color in ((net > 0, "#B2182B"), (net < 0, "#2166AC")):
        axes.bar(place[part], net[part], width=1 / len(net), color=color, lw=0)
    axes.axhline(0, color=MUTED, lw=0.6)
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.5, 1], ["0", "50", "100"] if last else ["", "", ""])
    axes.set_ylabel("Σ C")
    text = f"sum {layer['net'].values.sum():.3g}"
    if "target_change" in layer:
        text += f" of {float(layer['target_change']):.3g}"
    axes.text(0.98, 0.96, text.replace("-", "−"), transform=axes.transAxes, ha="right", va="top",
              size=7.5, color=MUTED)  # fmt: skip
    if last:
        axes.set_xlabel("channels in order, %", labelpad=1)


def _sparsity(axes: Axes, found: xr.Dataset, scope: str, names: list[str]) -> None:
    """Draw the sparsity by layer, both quantities."""
    axes.set_title(f"over {SCOPES.get(scope, scope)}", size=9)
    for number, (key, words) in enumerate(
        (("contribution", "contributions"), ("activation", "activations"))
    ):
        here = found.sel(quantity=key)
        line(axes, here["sparsity"].values, here["sparsity_interval"].values, COLORS[key],
             sites=sites_of(found), shift=0.08 * (2 * number - 1), label=words)  # fmt: skip
    axes.set_ylim(0, 1.18)  # room for the legend
    axes.set_yticks(np.linspace(0, 1, 6))
    axes.set_ylabel("Hoyer sparsity")
    layer_axis(axes, names)
    axes.legend(ncols=2, loc="upper left", borderaxespad=0.1, handlelength=1.2)
