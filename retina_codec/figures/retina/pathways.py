"""Panel C of Figure 8: correlation of modes with cells, and the pathways found from it."""

import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from retina_codec.figures import base
from retina_codec.figures.style import (
    SIGNED,
    Area,
    cell_groups,
    cell_order,
    color_bar,
    draw_title,
    grid,
    layer_name,
    new_figure,
    size_of,
    styled,
    type_colors,
    type_strip,
)
from retina_codec.storage.results import layers_of, layers_with, table

__all__ = ["Pathways", "draw_pathways", "mode_order", "plot_pathways"]

SIGNIFICANT = 0.05  # false discovery rate of a dot
LETTER, SPACE = 0.067, 0.03  # inches, of a tick label and between two
TICKS = 24  # cell ids under a matrix; with more cells, every second, third, ...


class Pathways(base.Figure):
    """Modes by cells, ordered by pathway."""

    name = "mode_matrices"
    title = "Matrices of modes by cells for two layers, ordered by pathway"
    section = "pathways"
    look_for = "red blocks: cells side by side that share their modes."
    caption = (
        "Red: the mode is strong when the cell fires. Cells and modes are ordered by pathway; the "
        "strip above gives the number of the pathway and, in colour, the type of each cell (its "
        "pathway in the first layer, where no type is known). "
        "Dots: significant correlations. In brackets after an agreement: the middle 95 % over "
        "stretches of time drawn again. Right: the silhouette for each number of pathways; a ring "
        "marks the chosen one."
    )

    def needs(self, results: xr.DataTree) -> bool:
        """Return whether a layer has pathways."""
        return bool(layers_with(results, "pathways"))

    def draw(self, results: xr.DataTree) -> Figure:
        """Draw `plot_pathways`."""
        return plot_pathways(results)


@styled
def plot_pathways(results: xr.DataTree) -> Figure:
    """Draw mode × cell correlations of the first two layers, cells ordered by pathway.

    Parameters
    ----------
    results : xr.DataTree
        Results with ``/layers/<name>/pathways`` and ``/pathways``.

    Returns
    -------
    matplotlib.figure.Figure
        Per layer a matrix of Pearson r (modes × cells), lines between pathways, the recorded
        type of every cell as a coloured strip; the silhouette by number of pathways.
    """
    figure = new_figure(4.4)
    draw_pathways(figure, results)
    return figure


def mode_order(
    correlation: npt.NDArray[np.floating], pathway: npt.NDArray[np.integer]
) -> npt.NDArray[np.intp]:
    """Order modes by the pathway that they go with most, then by how strongly.

    Parameters
    ----------
    correlation : array, (cell, mode)
        Cells in the order in which they are drawn.
    pathway : array of int, (cell,)

    Returns
    -------
    array of int, (mode,)
    """
    numbers = list(dict.fromkeys(pathway.tolist()))
    means = np.stack([correlation[pathway == number].mean(axis=0) for number in numbers])
    best = means.argmax(axis=0)
    return np.lexsort((-means.max(axis=0), best)).astype(np.intp)


def draw_pathways(area: Area, results: xr.DataTree, letter: str = "") -> None:
    """Draw panel C into a figure or a part of one."""
    draw_title(area, letter, "Modes that drive the same cells: pathways")
    layers = layers_of(results, part="pathways")[:2]
    spec = grid(
        area,
        [0.055, 1],
        [*[3.8] * len(layers), 0.15, 0.6, 1.9],
        left=0.62,
        right=0.2,
        top=0.66,
        bottom=0.98,
        gap_y=0.05,
        gap_x=0.3,
    )
    groups = cell_groups(results)
    types = groups.values
    every = [table(results, f"layers/{name}/pathways")["correlation"].values for name in layers]
    limit = max(0.1, float(np.ceil(10 * max(np.abs(values).max() for values in every)) / 10))
    image = None
    for column, name in enumerate(layers):
        order = cell_order(results, name)
        strip = area.add_subplot(spec[0, column])
        type_strip(strip, types[order])
        _number_pathways(strip, table(results, f"layers/{name}/pathways")["pathway"].values[order])
        strip.set_title(_headline(results, name), size=9, pad=5)
        axes = area.add_subplot(spec[1, column])
        wide = axes.get_position().width * size_of(area)[0]
        image = _matrix(axes, table(results, f"layers/{name}/pathways"), order, limit, wide)
        if column == 0:
            axes.set_ylabel("mode")
    if image is not None:
        ticks = [-limit, -limit / 2, 0, limit / 2, limit]
        color_bar(
            area, area.add_subplot(spec[1, -3]), image, "Pearson r of loading and rate", ticks
        )
    _silhouettes(area.add_subplot(spec[1, -1]), results, layers)
    names = [name for name in type_colors(types) if name in set(types)]
    handles = [Patch(color=type_colors(types)[name], label=name) for name in names]
    width, height = size_of(area)
    area.legend(
        handles=handles,
        title="type of the cell (not used to find pathways)"
        if groups.attrs["of"] == "type"
        else f"no types are known: {groups.attrs['of']}",
        title_fontsize=8,
        loc="lower left",
        bbox_to_anchor=(0.5 / width, 0.02 / height),
        ncols=min(6, len(handles)),
        handlelength=1.0,
        columnspacing=1.6,
        alignment="left",
    )


def _number_pathways(strip: Axes, pathway: npt.NDArray[np.integer]) -> None:
    """Write its number on the strip over the middle of each pathway."""
    for number in np.unique(pathway):
        strip.text(
            float(np.flatnonzero(pathway == number).mean()),
            0,
            str(number),
            ha="center",
            va="center_baseline",
            size=8,
            weight="bold",
            color="white",
            path_effects=[withStroke(linewidth=2, foreground="#1f2733")],
        )


def _headline(results: xr.DataTree, name: str) -> str:
    """Say how many pathways there are and how well they agree with known types."""
    pathway = table(results, f"layers/{name}/pathways")["pathway"].values
    words = f"{layer_name(name)}: {len(np.unique(pathway))} pathways"
    if "pathways" in results.children and "type_agreement" in results["pathways"].data_vars:
        agreement = float(table(results, "pathways")["type_agreement"].sel(layer=name))
        if np.isfinite(agreement):
            words += f"\nagreement with types {agreement:.2f}"
            node = table(results, "pathways")
            if "type_agreement_interval" in node:
                low, high = node["type_agreement_interval"].sel(layer=name).values.ravel()[:2]
                words += f" [{low:.2f}, {high:.2f}]"
    return words


def _matrix(  # type: ignore[no-untyped-def]
    axes: Axes, node: xr.Dataset, cells: npt.NDArray[np.intp], limit: float, width: float
):
    """Draw one matrix, modes × cells, ``width`` inches wide; return the image.

    Lines between pathways; names of as many cells as fit side by side.
    """
    correlation = node["correlation"].transpose("cell", "mode").values[cells]
    pathway = node["pathway"].values[cells]
    modes = mode_order(correlation, pathway)
    image = axes.imshow(
        correlation[:, modes].T, aspect="auto", cmap=SIGNED, vmin=-limit, vmax=limit
    )
    if "q_value" in node:
        sure = node["q_value"].transpose("cell", "mode").values[cells][:, modes] < SIGNIFICANT
        at_cell, at_mode = np.nonzero(sure)
        axes.plot(at_cell, at_mode, ".", ms=3.5, color="black", mec="white", mew=0.3)
    for edge in np.flatnonzero(np.diff(pathway)):
        axes.axvline(edge + 0.5, color="black", lw=1.0)
    names = [str(name) for name in node["cell"].values[cells]]
    fit = int(width / (LETTER * max(map(len, names)) + SPACE))
    step = -(-len(cells) // max(1, min(TICKS, fit)))
    axes.set_xticks(np.arange(0, len(cells), step), names[::step])
    step = -(-len(modes) // TICKS)
    axes.set_yticks(np.arange(0, len(modes), step), node["mode"].values[modes][::step])
    axes.tick_params(length=0, labelsize=7.5)
    words = "; dots: q < 0.05" if "q_value" in node else ""
    axes.set_xlabel(f"cell, lines between pathways{words}", labelpad=2)
    axes.spines[:].set_visible(False)
    return image


def _silhouettes(axes: Axes, results: xr.DataTree, layers: list[str]) -> None:
    """Silhouette by number of pathways; a ring marks the number that was chosen."""
    for name, style, color in zip(layers, ("o-", "s--"), ("#5b3f8c", "#b0762a"), strict=False):
        node = table(results, f"layers/{name}/pathways")
        k, score = node["k"].values, node["silhouette"].values
        axes.plot(k, score, style, color=color, ms=3.5, lw=1.1, label=layer_name(name))
        if np.isfinite(score).any():
            chosen = np.flatnonzero(k == node.attrs.get("k", k[int(np.nanargmax(score))]))
            best = int(chosen[0]) if chosen.size else int(np.nanargmax(score))
            axes.plot(k[best], score[best], "o", ms=9, mfc="none", mec=color, mew=1.2)
    axes.set_xlabel("number of pathways")
    axes.set_ylabel("silhouette")
    axes.set_xticks(k[:: -(-len(k) // 8)])
    axes.set_ylim(min(0.0, axes.get_ylim()[0]), 1.0)
    axes.legend(loc="upper right", borderaxespad=0.1)
