"""Figure S3: robustness of modes, a row per fit, columns about classes where there are classes."""

from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import blended_transform_factory

from retina_codec.figures.style import MUTED, draw_title, grid, new_figure, styled
from retina_codec.paper.robustness import METHODS, fit_words
from retina_codec.paper.study import short_name

__all__ = ["plot_robustness"]

Floats = npt.NDArray[np.float64]
LAYERS = ("#5b3f8c", "#D55E00", "#009E73", "#0072B2")
COLUMNS = {
    "r2": "R², held out",
    "live_modes": "live modes",
    "mean_active": "active at a time",
    "mode_match": "single modes\nfound again",
    "correlated": "modes with\na class (r > 0.2)",
    "coverage": "share of classes\nwith a mode",
    "similarity_mean": "sums by class,\nr with reference",
}


@styled
def plot_robustness(tree: xr.DataTree) -> Figure:
    """Draw what `analyses/figure_s3_robustness.py` saved.

    Parameters
    ----------
    tree : xr.DataTree
        ``/<layer>/<method>``: measures along ``fit``, the reference first; attributes ``layers``
        and ``model``.

    Returns
    -------
    matplotlib.figure.Figure
        A row per fit, a colour per layer; bars are 95 % intervals, pale boxes what chance gives.
        Columns about classes are left out where samples have no labels.
    """
    layers = str(tree.attrs["layers"]).split(" ")
    kinds = [kind for kind in METHODS if kind in tree[layers[0]].children]
    name = short_name(str(tree.attrs["model"]))[:32]
    some = tree[f"{layers[0]}/{kinds[0]}"].to_dataset()
    columns = [one for one in COLUMNS.items() if one[0] in some]
    places, names, heads = _rows({kind: tree[f"{layers[0]}/{kind}"].to_dataset() for kind in kinds})
    end = places[kinds[-1]][-1] + 1.4
    figure = new_figure(0.18 * end + 1.3)
    draw_title(figure, "", f"Robustness of modes, one setting changed at a time: {name}")
    spec = grid(figure, [1], [1] * len(columns), left=1.65, right=0.12, top=0.36, bottom=0.74,
                gap_x=0.14)  # fmt: skip
    first: Any = None
    for column, (key, words) in enumerate(columns):
        axes = figure.add_subplot(spec[0, column], sharey=first)
        first = first or axes
        for number, layer in enumerate(layers):
            shift, color = 0.26 * (number - (len(layers) - 1) / 2), LAYERS[number % len(LAYERS)]
            for kind in kinds:
                found = tree[f"{layer}/{kind}"].to_dataset()
                _column(axes, found, key, places[kind] + shift, color)
        _scale(axes, key)
        axes.set_xlabel(words, labelpad=3)
        axes.tick_params(axis="y", length=0, labelleft=column == 0)
    first.set_yticks(np.concatenate(list(places.values())), names)
    first.set_ylim(end - 1, -0.7)
    for at, words in heads:
        side = blended_transform_factory(figure.transFigure, first.transData)
        first.text(0.01, at + 0.2, words, weight="bold", size=8.5, va="center", transform=side)
    _legend(figure, layers, labelled="similarity" in some)
    return figure


def _rows(
    found: dict[str, xr.Dataset],
) -> tuple[dict[str, Floats], list[str], list[tuple[float, str]]]:
    """Return the heights of the fits by method, their names, and the headings with heights."""
    places: dict[str, Floats] = {}
    names, heads, place = [], [], 0.0
    for kind, one in found.items():
        heads.append((place, METHODS[kind]))
        setting = one["setting"].values
        apart = np.append(0, setting[1:] != setting[:-1])
        places[kind] = place + 1 + np.arange(len(setting)) + 0.35 * np.cumsum(apart)
        names += [fit_words(one, fit) for fit in range(one.sizes["fit"])]
        place = float(places[kind][-1]) + 1.4
    return places, names, heads


def _scale(axes: Axes, key: str) -> None:
    """Set limits and ticks: shares from 0 to 1, counts from 0."""
    axes.grid(axis="y", color="#eceef1", lw=0.6)
    axes.set_axisbelow(True)
    axes.patch.set_visible(False)  # headings may pass under
    if key in ("r2", "mode_match", "coverage", "similarity_mean"):
        least = axes.get_xlim()[0] - 0.04 if key in ("r2", "similarity_mean") else 0.0
        axes.set_xlim(min(-0.05, least), 1.05)
        axes.set_xticks([0, 0.5, 1], ["0", "½", "1"])
    else:
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(3, integer=True))


def _legend(figure: Figure, layers: list[str], *, labelled: bool) -> None:
    marks: list[Any] = [Line2D([], [], marker="o", ls="", ms=4, color=color, label=layer)
                        for layer, color in zip(layers, LAYERS, strict=False)]  # fmt: skip
    figure.legend(handles=marks, loc="upper right", ncols=len(marks), handletextpad=0.2)
    chance = "pale boxes: chance (entries of modes dealt out anew" + (
        "; shuffled labels; classes of the reference exchanged), middle 95 %"
        if labelled
        else "), middle 95 %"
    )
    small = "; small dots: classes" if labelled else "; no labels here: no sums by class"
    note = f"bars: 95 %; dotted: reference; cross: no mode alive; {chance}{small}"
    figure.text(0.01, 0.012, note, size=7.5, color=MUTED)


def _column(axes: Axes, found: xr.Dataset, key: str, place: Floats, color: str) -> None:
    """Draw one measure of one layer and method."""
    value = found[key].values
    stem = "similarity" if key == "similarity_mean" else key
    if f"{stem}_interval" in found:
        ends = found[f"{stem}_interval"].transpose("fit", "bound").values
        axes.hlines(place, ends[:, 0], ends[:, 1], color=color, lw=1.1)
    null = "null_interval" if key == "similarity_mean" else f"{key}_null_interval"
    if null in found:
        low, high = found[null].transpose("fit", "bound").values.T
        axes.barh(place, high - low, left=low, height=0.24, color=color, alpha=0.25, lw=0)
    if key == "similarity_mean":
        each = found["similarity"].transpose("fit", "concept").values
        axes.plot(each, np.repeat(place[:, None], each.shape[1], 1), ".", ms=2.2, color=color,
                  alpha=0.4, mew=0)  # fmt: skip
    axes.plot(value, place, "o", ms=3.4, color=color, mew=0)
    dead = found["live_modes"].values == 0
    axes.plot(np.zeros(dead.sum()), place[dead], "x", ms=4, color=color)
    axes.plot([value[0]] * 2, [place[0], place[-1]], color=color, lw=0.8, ls=":")
