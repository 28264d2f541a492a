"""Accuracy when the channels of a concept are ablated or preserved."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from retina_codec.errors import RetinaCodecError
from retina_codec.figures.lines import COLORS, layer_axis, line, room_below, sites_of
from retina_codec.figures.style import MUTED, draw_title, grid, layer_name, new_figure, styled

__all__ = ["plot_control", "plot_control_by_layer"]

SELECTIONS = {
    "contribution modes": COLORS["modes"],
    "activation modes": COLORS["activation_modes"],
    "random channels": MUTED,
}


SIDES = (("on target", "-", "o"), ("off target", "--", "s"))
SPACE = 0.14  # between selections of a layer


@styled
def plot_control(found: xr.Dataset, layer: str | None = None) -> Figure:
    """Draw accuracy against the share of channels taken, on and off target, in one layer.

    Parameters
    ----------
    found : xr.Dataset
        From ``analysis.control_curves``.
    layer : str, optional
        The last when left out.

    Returns
    -------
    matplotlib.figure.Figure
        A row per style, a column per selection: mean over concepts, then mean over trials, with
        ± one standard error over trials; above each panel the specificity of all images, with its
        95 % interval.

    Raises
    ------
    RetinaCodecError
        If it is something else, or there is no such layer.
    """
    _check(found)
    names = [str(name) for name in found["layer"].values]
    chosen = names[-1] if layer is None else layer
    if chosen not in names:
        raise RetinaCodecError(f"layer must be one of {', '.join(names)}; got {layer!r}.")
    here = found.sel(layer=chosen)
    styles, kinds = here["style"].values, here["selection"].values
    figure = new_figure(0.95 + 2.25 * len(styles))
    draw_title(figure, "", f"Control through {layer_name(chosen)}")
    spec = grid(
        figure, [1] * len(styles), [1] * len(kinds), left=0.75, right=0.15, top=0.75, bottom=0.5,
        gap_x=0.3, gap_y=0.55,
    )  # fmt: skip
    for row, style in enumerate(styles):
        for column, kind in enumerate(kinds):
            axes = figure.add_subplot(spec[row, column])
            _curves(axes, here.sel(style=style, selection=kind), str(kind))
            if row == len(styles) - 1:
                verb = "taken" if len(styles) > 1 else f"{style}d"
                axes.set_xlabel(f"channels {verb} (%)", labelpad=2)
            if column == 0:
                axes.set_ylabel(f"{style}: accuracy / original")
            else:
                axes.set_yticklabels([])
            if row == column == 0:
                axes.legend(loc="best")
    return figure


@styled
def plot_control_by_layer(found: xr.Dataset) -> Figure:
    """Draw specificity by layer, for every selection of channels.

    Parameters
    ----------
    found : xr.Dataset
        From ``analysis.control_curves``; select layers with ``found.sel(layer=[...])``.

    Returns
    -------
    matplotlib.figure.Figure
        A panel per style: area off target minus on target (ablate), or on minus off (preserve),
        of all images, with 95 % bootstrap intervals. A star: contribution modes differ from
        activation modes (or, without these, from random channels), p < 0.05 in that layer.

    Raises
    ------
    RetinaCodecError
        If it is something else.
    """
    _check(found)
    layers = [layer_name(str(name)) for name in found["layer"].values]
    styles = [str(style) for style in found["style"].values]
    figure = new_figure(3.0 + room_below(layers))
    level = found.attrs.get("fill", 0.0)
    held = "" if level == 0 else f", held at {'the mean' if level == 'mean' else level}"
    draw_title(figure, "", f"Specific control by layer{held}")
    spec = grid(
        figure, [1], [1] * len(styles), left=0.75, right=0.15, top=0.7, bottom=room_below(layers),
        gap_x=0.75,
    )  # fmt: skip
    for column, style in enumerate(styles):
        axes = figure.add_subplot(spec[column])
        here = found.sel(style=style)
        _layers(axes, here, sites_of(found))
        _stars(axes, here)
        axes.set_title(style, size=9)
        off, on = ("off", "on") if style == "ablate" else ("on", "off")
        axes.set_ylabel(f"area {off} target − {on} target")
        layer_axis(axes, layers)
        if column == 0:
            handles, words = axes.get_legend_handles_labels()
            figure.legend(handles, words, loc="upper right", ncols=len(words))  # clear of stars
    return figure


def _curves(axes: Axes, one: xr.Dataset, kind: str) -> None:
    color = SELECTIONS.get(kind, MUTED)
    share = 100 * one["share"].values
    by_trial = one["ratio"].mean("concept")  # NaN, where no answer was right, is left out
    count = by_trial.notnull().sum("trial")
    for side, dashes, marker in SIDES:
        values = by_trial.sel(side=side)
        middle = values.mean("trial").values
        error = (values.std("trial", ddof=1) / np.sqrt(count.sel(side=side))).values
        axes.fill_between(share, middle - error, middle + error, color=color, alpha=0.25, lw=0)
        axes.plot(share, middle, dashes, marker=marker, ms=2.5, lw=1.2, color=color, label=side)
    low, high = one["estimate_interval"].values
    interval = f"[{low:.2f}, {high:.2f}]" if np.isfinite([low, high]).all() else "(no interval)"
    numbers = f"specificity {round(float(one['estimate']), 2) + 0.0:.2f} {interval}"
    axes.set_title(f"{kind}\n{numbers}".replace("-", "−"), size=8.5)
    axes.set_xlim(-2, 102)
    axes.set_ylim(-0.05, max(1.08, 1.02 * float(one["ratio"].mean(("concept", "trial")).max())))


def _layers(axes: Axes, here: xr.Dataset, sites: Sequence[str] | None) -> None:
    kinds = [str(kind) for kind in here["selection"].values]
    axes.axhline(0, color=MUTED, lw=0.8, ls=":")
    for number, kind in enumerate(kinds):
        one = here.sel(selection=kind)
        line(
            axes, one["estimate"].values, one["estimate_interval"].values,
            SELECTIONS.get(kind, MUTED), sites=sites,
            shift=SPACE * (number - (len(kinds) - 1) / 2), label=kind,
        )  # fmt: skip


def _stars(axes: Axes, here: xr.Dataset) -> None:
    first = [pair for pair in here["pair"].values if str(pair).startswith("contribution modes")]
    if not first:
        return
    p = here["difference_p"].sel(pair=first[0]).values
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.08 * (high - low))  # stars stand in a row above all lines
    for place in np.flatnonzero(p < 0.05):
        axes.annotate(
            "*", (place, 1.0), xycoords=("data", "axes fraction"), ha="center", va="top", size=11
        )


def _check(found: xr.Dataset) -> None:
    if not {"ratio", "estimate", "estimate_interval"} <= set(found.data_vars):
        raise RetinaCodecError(
            "this figure needs what control_curves() returned; got variables "
            f"{list(found.data_vars)}."
        )
