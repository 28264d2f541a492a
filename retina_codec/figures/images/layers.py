"""Sparsity, correlation of signs and dimensionality, from the first layer to the last."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from retina_codec.errors import RetinaCodecError
from retina_codec.figures.lines import COLORS, band, layer_axis, line, room_below, sites_of
from retina_codec.figures.style import MUTED, draw_title, grid, layer_name, new_figure, styled

__all__ = [
    "draw_dimensionality",
    "draw_signs",
    "draw_sparsity",
    "draw_varying",
    "plot_head_sparsity",
    "plot_layers",
]

SHOWN = (("contribution", "contributions", "-"), ("activation", "activations", "-"))
PARTS = (("excitatory", "C⁺ alone", ":"), ("inhibitory", "C⁻ alone", ":"))
SHIFT = 0.06


@styled
def plot_layers(found: xr.Dataset) -> Figure:
    """Draw sparsity, sign correlation and dimensionality by layer.

    Parameters
    ----------
    found : xr.Dataset
        From ``analysis.measure_contributions``; select layers with ``found.sel(layer=[...])``.

    Returns
    -------
    matplotlib.figure.Figure
        Means over inputs of Hoyer sparsity, of the same after the mean over inputs is taken away,
        and of the correlation of C⁺ and |C⁻| over channels, with 95 % bootstrap intervals;
        principal components of class averages, with jackknife intervals over classes, or a note
        where inputs had no labels.

    Raises
    ------
    RetinaCodecError
        If it is something else.
    """
    if not {"sparsity", "varying_sparsity", "sign_correlation"} <= set(found):
        raise RetinaCodecError(
            "this figure needs what measure_contributions() returned; got variables "
            f"{list(found.data_vars)}."
        )
    layers = [layer_name(str(name)) for name in found["layer"].values]
    below = room_below(layers)
    figure = new_figure(4.9 + 2 * below)
    draw_title(figure, "", "Contributions and activations by layer")
    spec = grid(figure, [1, 1], [1, 1], left=0.75, right=0.15, top=0.68, bottom=below,
                gap_x=0.75, gap_y=0.4 + below)  # fmt: skip
    axes = [figure.add_subplot(spec[k]) for k in range(4)]
    panels = (draw_sparsity, draw_varying, draw_signs, draw_dimensionality)
    for one, panel in zip(axes, panels, strict=True):
        panel(one, found)
    for one in axes:
        layer_axis(one, layers)
    return figure


@styled
def plot_head_sparsity(found: xr.Dataset) -> Figure:
    """Draw the sparsity of attention heads beside that of random groups of dimensions.

    Parameters
    ----------
    found : xr.Dataset
        From ``analysis.head_sparsity``.

    Returns
    -------
    matplotlib.figure.Figure
        Mean over inputs with ± 1.96 standard errors; boxes: middle 95 % of random groupings.

    Raises
    ------
    RetinaCodecError
        If it is something else.
    """
    if "null_interval" not in found or "quantity" not in found.dims:
        raise RetinaCodecError(
            f"this figure needs what head_sparsity() returned; got {list(found.data_vars)}."
        )
    layers = [layer_name(str(name)) for name in found["layer"].values]
    figure = new_figure(2.8 + room_below(layers))
    draw_title(figure, "", "Attention heads")
    spec = grid(figure, [1], [1], left=0.6, right=3.2, top=0.5, bottom=room_below(layers))
    axes = figure.add_subplot(spec[0])
    names = [str(name) for name in found["quantity"].values]
    for number, name in enumerate(names):
        here = found.sel(quantity=name)
        shift = 0.2 * (number - (len(names) - 1) / 2)
        half = 1.96 * here["sparsity_sem"].values
        middle = here["sparsity"].values
        ends = xr.concat([here["sparsity"] - half, here["sparsity"] + half], "bound")
        words = name if name == "values" else f"{name}s"
        line(axes, middle, ends.transpose("layer", "bound").values, COLORS[name], shift=shift,
             ls="none", label=words)  # fmt: skip
        band(axes, here["null_interval"].values, COLORS[name], shift=shift)
    axes.fill_between([], [], [], color=MUTED, alpha=0.3, lw=0, label="random groups, middle 95 %")
    axes.set_ylim(0, 1)
    axes.set_ylabel("Hoyer sparsity over heads")
    layer_axis(axes, layers)
    axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1.0))
    return figure


def draw_sparsity(axes: Axes, found: xr.Dataset) -> None:
    """Draw Hoyer sparsity by layer into axes."""
    axes.set_title("how few channels carry an input", size=9)
    for number, (name, words, style) in enumerate((*PARTS, *SHOWN)):
        here = found.sel(quantity=name)
        plain = {"marker": None, "lw": 0.9} if style == ":" else {}
        line(axes, here["sparsity"].values, here["sparsity_interval"].values, COLORS[name],
             sites=sites_of(found), shift=SHIFT * (number - 1.5), ls=style, label=words,
             **plain)  # fmt: skip
    axes.set_ylim(0, 1)
    axes.set_ylabel("Hoyer sparsity over channels")
    axes.legend(ncols=2, loc="upper left", handlelength=1.2, columnspacing=1.0, borderaxespad=0.1)


def draw_varying(axes: Axes, found: xr.Dataset) -> None:
    """Draw Hoyer sparsity less the mean over inputs by layer into axes."""
    axes.set_title("the same less the mean over inputs", size=9)
    for number, (name, words, _) in enumerate(SHOWN):
        here = found.sel(quantity=name)
        line(axes, here["varying_sparsity"].values, here["varying_sparsity_interval"].values,
             COLORS[name], sites=sites_of(found), shift=SHIFT * (2 * number - 1),
             label=words)  # fmt: skip
    noise = found["normal_sparsity"].values
    line(axes, noise, np.full((len(noise), 2), np.nan), MUTED, sites=sites_of(found), ls=":",
         marker=None, lw=0.8, label="normal numbers")  # fmt: skip
    axes.set_ylim(0, 1)
    axes.set_ylabel("Hoyer sparsity over channels")
    axes.legend(ncols=2, loc="upper left", handlelength=1.2, columnspacing=1.0, borderaxespad=0.1)


def draw_signs(axes: Axes, found: xr.Dataset) -> None:
    """Draw the correlation of excitation and inhibition by layer into axes."""
    axes.set_title("do the same channels excite and inhibit", size=9)
    values, ends = found["sign_correlation"].values, found["sign_correlation_interval"].values
    line(axes, values, ends, "#1f2733", sites=sites_of(found))
    axes.axhline(0, color=MUTED, lw=0.8, ls=":")
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, -0.1), max(high, 1.0))
    axes.set_ylabel("Pearson r of C⁺ and |C⁻|")


def draw_dimensionality(axes: Axes, found: xr.Dataset) -> None:
    """Draw principal components of class averages by layer into axes."""
    axes.set_title("directions in which classes differ", size=9)
    if "components" not in found:
        axes.text(
            0.5, 0.5, "not measured:\ninputs have no labels", transform=axes.transAxes, ha="center"
        )
        return
    for number, (name, words, _) in enumerate(SHOWN):
        here = found.sel(quantity=name)
        line(axes, here["components"].values, here["components_interval"].values, COLORS[name],
             sites=sites_of(found), shift=SHIFT * (2 * number - 1), label=words)  # fmt: skip
    most = int(found["classes"]) - 1
    axes.axhline(most, color=MUTED, lw=0.8, ls=":")
    axes.text(0.01, most, f"at most {most}", ha="left", va="bottom", size=7.5, color=MUTED,
              transform=axes.get_yaxis_transform())  # fmt: skip
    axes.set_ylim(0, 1.35 * max(most, 1))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    share = float(found.attrs.get("variance", 0.95))
    axes.set_ylabel(f"components to {share:.0%} of variance")
    axes.legend(loc="upper left", ncols=2, handlelength=1.2, columnspacing=1.0, borderaxespad=0.1)
