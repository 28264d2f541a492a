"""Figure 3: contributions of an early and a late layer, and statistics of all layers."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from retina_codec.errors import RetinaCodecError
from retina_codec.figures.images.layers import (
    draw_dimensionality,
    draw_signs,
    draw_sparsity,
    draw_varying,
)
from retina_codec.figures.lines import layer_axis, room_below
from retina_codec.figures.style import (
    MUTED,
    SIGNED,
    color_bar,
    draw_title,
    grid,
    high_quantile,
    layer_name,
    new_figure,
    styled,
    units_of,
)

__all__ = ["plot_figure_3"]

FEW = 20  # classes that can be named along an axis


@styled
def plot_figure_3(
    matrices: Sequence[xr.Dataset], pairs: Sequence[xr.Dataset], statistics: xr.Dataset
) -> Figure:
    """Draw contributions of an early and a late layer, and statistics of all.

    Parameters
    ----------
    matrices : two xr.Dataset
        From ``analysis.channel_matrix``: an early and a late layer.
    pairs : two xr.Dataset
        From ``analysis.sign_pairs``, same layers.
    statistics : xr.Dataset
        From ``analysis.measure_contributions``.

    Returns
    -------
    matplotlib.figure.Figure
        A, channels by images; B, Hoyer sparsity, and the same less the mean over inputs; C,
        excitation against inhibition of a channel in an image, the largest 0.5 % outside the axes;
        D, their correlation; E, dimensionality. 95 % intervals.

    Raises
    ------
    RetinaCodecError
        If it is something else.
    """
    if len(matrices) != 2 or len(pairs) != 2 or "sign_correlation" not in statistics:
        raise RetinaCodecError(
            "this figure needs two matrices, two sets of pairs and what measure_contributions() "
            f"returned; got {len(matrices)}, {len(pairs)}, {list(statistics.data_vars)}."
        )
    names = [layer_name(str(name)) for name in statistics["layer"].values]
    below = room_below(names)
    upright = _room_for_classes(matrices[0]["label"].values)
    heights = [2.9 + upright, 2.2 + below, 2.2 + below]
    figure = new_figure(sum(heights))
    parts = figure.subfigures(3, 1, height_ratios=heights, squeeze=False)
    top, middle, bottom = parts[:, 0]
    draw_title(top, "A", "Contributions of channels to images, sorted by class")
    edges = {"left": 0.6, "right": 0.6, "top": 0.6, "bottom": 0.4 + upright}
    spec = grid(top, [1], [1, 0.03, 0.14, 1, 0.03], **edges)
    for number, matrix in enumerate(matrices):
        axes = top.add_subplot(spec[3 * number])
        _matrix(top, axes, top.add_subplot(spec[3 * number + 1]), matrix)
    draw_title(middle, "B", "Sparsity")
    _letter(middle, 0.6, heights[1], "C", "Excitation and inhibition of a channel")
    spec = grid(middle, [1], [1.2, 1.2, 1, 1], left=0.6, right=0.15, top=0.65, bottom=below,
                gap_x=0.55)  # fmt: skip
    for number, draw in enumerate((draw_sparsity, draw_varying)):
        draw(one := middle.add_subplot(spec[number]), statistics)
        layer_axis(one, names)
    one.set_ylabel("")  # that of its neighbour
    for number, some in enumerate(pairs):
        correlation = float(statistics["sign_correlation"].sel(layer=some.attrs["layer"]))
        _scatter(middle.add_subplot(spec[2 + number]), some, correlation)
    draw_title(bottom, "D", "Correlation of signs")
    _letter(bottom, 0.5, heights[2], "E", "Dimensionality of class averages")
    spec = grid(bottom, [1], [1, 1], left=0.6, right=0.15, top=0.65, bottom=below, gap_x=0.75)
    for number, draw in enumerate((draw_signs, draw_dimensionality)):
        draw(one := bottom.add_subplot(spec[number]), statistics)
        layer_axis(one, names)
    return figure


def _letter(area: SubFigure, left: float, height: float, letter: str, title: str) -> None:
    """Write a panel's letter and title inside a row."""
    area.text(left, 1 - 0.06 / height, letter, va="top", size=14, weight="bold")
    area.text(left + 0.028, 1 - 0.085 / height, title, va="top", size=10.5, weight="bold")


def _matrix(area: SubFigure, axes: Axes, bar: Axes, found: xr.Dataset) -> None:
    values = found["contribution"].values
    limit = high_quantile(values)
    image = axes.imshow(values, cmap=SIGNED, vmin=-limit, vmax=limit, aspect="auto")
    shown, total = values.shape[0], int(found.attrs["channels"])
    some = f"{total} channels" if shown == total else f"{shown} of {total} channels"
    axes.set_title(f"{layer_name(str(found.attrs['layer']))}: {some}", size=9)
    label = found["label"].values
    classes, first, count = np.unique(label, return_index=True, return_counts=True)
    if len(classes) <= FEW:
        angle = 90 if _room_for_classes(label) else 0
        axes.set_xticks(first + count / 2 - 0.5, classes, rotation=angle)
        for edge in first[1:]:
            axes.axvline(edge - 0.5, color="#c9ced4", lw=0.5)
    else:
        axes.set_xticks([])
    axes.set_yticks([])
    axes.tick_params(length=0)
    axes.set_xlabel(f"{values.shape[1]} images by class", labelpad=2)
    axes.set_ylabel("channels by best class", labelpad=5)
    color_bar(area, bar, image, f"C⁺ + C⁻ ({units_of(found['contribution'])})", (-limit, 0, limit))


def _room_for_classes(label: npt.NDArray[np.str_]) -> float:
    """Inches below the matrices that names of classes need upright; 0 where they fit lying."""
    names = [str(name) for name in np.unique(label)]
    if len(names) > FEW or sum(len(name) + 2 for name in names) <= 64:
        return 0.0
    return 0.075 * max(map(len, names))


def _scatter(axes: Axes, pairs: xr.Dataset, correlation: float) -> None:
    one, other = pairs["excitatory"].values, pairs["inhibitory"].values
    limit = high_quantile(np.concatenate([one, other]))
    axes.plot(one, other, ".", ms=2.5, alpha=0.35, color="#1f2733", mew=0, rasterized=True)
    axes.plot([0, limit], [0, limit], color=MUTED, lw=0.7, ls=":")
    axes.set_xlim(-0.02 * limit, limit)
    axes.set_ylim(-0.02 * limit, limit)
    axes.set_box_aspect(1)
    axes.set_title(layer_name(str(pairs.attrs["layer"])), size=9)
    axes.text(0.04, 0.97, f"mean r = {correlation:.2f}".replace("-", "−"), va="top",
              transform=axes.transAxes, size=8)  # fmt: skip
    axes.set_xlabel("C⁺", labelpad=1)
    axes.set_ylabel("|C⁻|")
    axes.yaxis.set_label_coords(-0.26, 0.5)
    axes.locator_params(nbins=3)
