"""Figure S1: the same images explained by several methods and for several targets."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import NullFormatter

from retina_codec.errors import RetinaCodecError
from retina_codec.figures.lines import layer_axis, line, room_below
from retina_codec.figures.style import (
    MUTED,
    PALETTE,
    SIGNED,
    draw_title,
    grid,
    layer_name,
    new_figure,
    styled,
)

__all__ = ["plot_methods"]

KINDS = {"map": "maps, over places", "channel": "sums, over channels"}


@styled
def plot_methods(runs: xr.Dataset, agreement: xr.Dataset, method: str, target: str) -> Figure:
    """Draw sparsity, agreement and completeness of all methods and targets.

    Parameters
    ----------
    runs : xr.Dataset, dims (run, layer, ...)
        ``map_sparsity``, ``channel_sparsity`` (quantity: contribution, activation) and
        ``map_difference``, ``channel_difference`` between these, each with ``..._interval``;
        ``share`` and ``share_interval`` of what does not add up; along ``run`` the coordinates
        ``method`` and ``target``.
    agreement : xr.Dataset
        From ``analysis.method_agreement``, over the same runs.
    method, target : str
        Names of the standard: left panels vary the method at this target, right ones the target
        at this method.

    Returns
    -------
    matplotlib.figure.Figure
        A and B, Hoyer sparsity; C, correlation with the standard; D, what does not add up; E, the
        smallest difference of sparsity to activations over layers, of all pairs, a star where the
        95 % intervals of all layers lie above 0.

    Raises
    ------
    RetinaCodecError
        If the standard is not among the runs.
    """
    standard = _which(runs, method, target)
    if not len(standard):
        raise RetinaCodecError(
            f"the standard must be among the runs; got {method!r}, {target!r}, there are "
            f"{runs['run'].values.tolist()}."
        )
    names = [layer_name(str(name)) for name in runs["layer"].values]
    methods = list(dict.fromkeys(runs["method"].values.tolist()))
    targets = list(dict.fromkeys(runs["target"].values.tolist()))
    below = room_below(names)
    heights = [2.5 + below, 1.9 + below, 1.9 + below, 2.0 + below, 0.75 + 0.3 * len(methods) + 0.75]
    figure = new_figure(sum(heights))
    areas = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    columns = [
        ("method", methods, runs.isel(run=np.flatnonzero(runs["target"] == target))),
        ("target", targets, runs.isel(run=np.flatnonzero(runs["method"] == method))),
    ]
    titles = ("Sparsity of maps over places", "Sparsity over channels", "Agreement over channels",
              "What does not add up")  # fmt: skip
    heads = (f"methods, target: {target}", f"targets, method: {method}")
    for row, (area, title) in enumerate(zip(areas[:4], titles, strict=True)):
        draw_title(area, "ABCD"[row], title)
        spec = grid(area, [1], [1, 1], left=0.6, right=0.15, top=0.6, bottom=below, gap_x=0.75)
        for column, (key, values, some) in enumerate(columns):
            axes = area.add_subplot(spec[column])
            axes.set_title(heads[column], size=9)
            colors = dict(zip(values, PALETTE, strict=False))
            if row < 2:
                _sparsity(axes, some, key, colors, "map" if row == 0 else "channel")
            elif row == 2:
                _agreement(axes, agreement, some, key, colors, str(runs["run"].values[standard[0]]))
            else:
                _share(axes, some, key, colors)
            if row == 0:
                axes.set_ylim(0, 1.45)
                axes.set_yticks(np.linspace(0, 1, 6))
                axes.legend(ncols=3, loc="upper left", borderaxespad=0.1, handlelength=1.2,
                            columnspacing=1.0)  # fmt: skip
            layer_axis(axes, names)
    _tables(areas[4], runs, methods, targets)
    return figure


def _which(runs: xr.Dataset, method: str, target: str) -> np.ndarray:
    return np.flatnonzero((runs["method"].values == method) & (runs["target"].values == target))


def _sparsity(axes: Axes, some: xr.Dataset, key: str, colors: dict[str, str], kind: str) -> None:
    values, ends = some[f"{kind}_sparsity"], some[f"{kind}_sparsity_interval"]
    for number in range(some.sizes["run"]):
        here = {"run": number}
        name = str(some[key].values[number])
        own = {"quantity": "contribution"}
        line(axes, values[here].sel(own).values, ends[here].sel(own).values, colors[name],
             shift=0.04 * (number - some.sizes["run"] / 2), label=name, ms=2.5)  # fmt: skip
    still = {"quantity": "activation"}
    line(axes, values[0].sel(still).values, ends[0].sel(still).values, "#1f2733", ls="--",
         label="activations", ms=2.5)  # fmt: skip
    axes.set_ylim(0, 1)
    axes.set_ylabel("Hoyer sparsity")


def _agreement(
    axes: Axes,
    agreement: xr.Dataset,
    some: xr.Dataset,
    key: str,
    colors: dict[str, str],
    standard: str,
) -> None:
    here = agreement.sel(run=standard)
    for number, run in enumerate(some["run"].values):
        if str(run) == standard:
            continue
        one = here.sel(other=run)
        line(axes, one["correlation"].values, one["correlation_interval"].values,
             colors[str(some[key].values[number])], ms=2.5,
             shift=0.04 * (number - some.sizes["run"] / 2))  # fmt: skip
    axes.axhline(0, color=MUTED, lw=0.8, ls=":")
    low = float(here["correlation"].min())
    axes.set_ylim(-1.05 if low < 0 else 0, 1.05)
    axes.set_ylabel("Pearson r with the standard")


def _share(axes: Axes, some: xr.Dataset, key: str, colors: dict[str, str]) -> None:
    for number in range(some.sizes["run"]):
        one = some.isel(run=number)
        if np.isfinite(one["share"]).any():
            line(axes, one["share"].values, one["share_interval"].values,
                 colors[str(some[key].values[number])], ms=2.5)  # fmt: skip
    axes.set_yscale("log")
    seen = some["share"].values[some["share"].values > 0]
    if len(seen):  # whole decades, so that there are labels
        axes.set_ylim(10 ** np.floor(np.log10(seen.min())), 10 ** np.ceil(np.log10(seen.max())))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_ylabel("Σ |error| / Σ |ΔF|")


def _tables(
    area: SubFigure, runs: xr.Dataset, methods: Sequence[str], targets: Sequence[str]
) -> None:
    """Draw the smallest difference over layers of every pair as a coloured table of numbers."""
    draw_title(area, "E", "Sparsity of contributions less activations, in the worst layer")
    spec = grid(area, [1], [1, 1], left=1.65, right=0.15, top=0.65, bottom=0.72, gap_x=1.75)
    for column, (kind, words) in enumerate(KINDS.items()):
        axes = area.add_subplot(spec[column])
        table = np.full((len(methods), len(targets)), np.nan)
        star = np.zeros(table.shape, bool)
        for row, method in enumerate(methods):
            for place, target in enumerate(targets):
                for run in _which(runs, method, target):
                    table[row, place] = float(runs[f"{kind}_difference"][run].min())
                    low = runs[f"{kind}_difference_interval"][run].sel(bound="low")
                    star[row, place] = bool((low > 0).all())
        limit = float(np.nanmax(np.abs(table), initial=0.0)) or 1.0
        axes.imshow(table, cmap=SIGNED, vmin=-1.5 * limit, vmax=1.5 * limit, aspect="auto")
        for (row, place), value in np.ndenumerate(table):
            if np.isfinite(value):
                text = f"{round(value, 2) + 0.0:.2f}{'*' if star[row, place] else ''}"
                axes.text(place, row, text.replace("-", "−"), ha="center", va="center", size=8)
        axes.set_title(words, size=9)
        axes.set_xticks(
            range(len(targets)), [name.replace(" logit", "\nlogit") for name in targets]
        )
        axes.set_yticks(range(len(methods)), methods)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    area.text(0.16, 0.03, "* the 95 % intervals of all layers lie above 0", size=7.5, color=MUTED)
