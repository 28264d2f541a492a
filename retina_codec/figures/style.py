"""How every figure looks: sizes, colours, layout and names of layers."""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, ParamSpec

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import FuncNorm, PowerNorm
from matplotlib.figure import Figure, SubFigure
from matplotlib.gridspec import GridSpec

from retina_codec.storage.results import layers_with, table

__all__ = [
    "LOADING",
    "MUTED",
    "RATE",
    "RED_MEANS",
    "SIGNED",
    "WIDTH",
    "Area",
    "cell_groups",
    "cell_order",
    "color_bar",
    "draw_title",
    "grid",
    "high_quantile",
    "layer_name",
    "new_figure",
    "positive_root",
    "signed_root",
    "size_of",
    "styled",
    "target_name",
    "type_colors",
    "type_strip",
    "units_of",
]

Area = Figure | SubFigure


P = ParamSpec("P")
WIDTH = 10.4  # inches


INK, MUTED = "#1f2733", "#66707d"


SIGNED = "RdBu_r"  # blue: negative, white: zero, red: positive; safe for the colour-blind
RED_MEANS = (  # of every field: the time course is drawn with its peak upwards
    "Red: more light at the peak of the time course raises the rate; blue: lowers it."
)
LOADING = "Purples"
RATE = "Greys"


# Okabe and Ito's set, told apart by all kinds of colour vision.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#8a7500", "#4a3aa7")
UNKNOWN = "#9aa3ad"
SETTINGS = {
    "font.family": ["DejaVu Sans"],
    "font.size": 9,
    "text.color": INK,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#8a929c",
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.color": "#8a929c",
    "ytick.color": "#8a929c",
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "mathtext.fontset": "dejavusans",
    "image.interpolation": "nearest",
    "figure.facecolor": "white",
    "hatch.linewidth": 0.5,
}


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Run a drawing function under the house settings and leave matplotlib's as they were."""

    @wraps(draw)
    def inside(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with mpl.rc_context(SETTINGS):  # type: ignore[arg-type]  # the keys are a Literal there
            return draw(*args, **kwargs)

    return inside


def new_figure(height: float) -> Figure:
    """Make a figure of the house width, outside pyplot, so that nothing has to be closed."""
    return Figure(figsize=(WIDTH, height), dpi=100)


def size_of(area: Area) -> tuple[float, float]:
    """Width and height of a figure or a part of one, inches."""
    dpi = area.figure.dpi if isinstance(area, SubFigure) else area.dpi
    return area.bbox.width / dpi, area.bbox.height / dpi


def grid(
    area: Area,
    heights: Sequence[float],
    widths: Sequence[float],
    *,
    left: float = 0.0,
    right: float = 0.0,
    top: float = 0.0,
    bottom: float = 0.0,
    gap_y: float = 0.1,
    gap_x: float = 0.1,
) -> GridSpec:
    """Lay out axes with margins and gaps in inches; heights and widths are shares of the rest."""
    width, height = size_of(area)
    inner_y, inner_x = height - top - bottom, width - left - right
    cell_y = (inner_y - gap_y * (len(heights) - 1)) / len(heights)
    cell_x = (inner_x - gap_x * (len(widths) - 1)) / len(widths)
    return GridSpec(
        len(heights),
        len(widths),
        figure=area,  # type: ignore[arg-type]  # a part of a figure is fine; the stubs lag
        height_ratios=heights,
        width_ratios=widths,
        left=left / width,
        right=1 - right / width,
        top=1 - top / height,
        bottom=bottom / height,
        hspace=gap_y / cell_y,
        wspace=gap_x / cell_x,
    )


def draw_title(area: Area, letter: str, title: str) -> None:
    """Write the panel's letter (may be empty) and title at its top left corner."""
    width, height = size_of(area)
    if letter:
        area.text(
            0.08 / width, 1 - 0.06 / height, letter, va="top", ha="left", size=14, weight="bold"
        )
    area.text(
        (0.36 if letter else 0.1) / width,
        1 - 0.085 / height,
        title,
        va="top",
        ha="left",
        size=10.5,
        weight="bold",
    )


def layer_name(name: str) -> str:
    """Say a layer's name as a reader would: ``conv1`` is layer 1."""
    return f"layer {name[4:]}" if name.startswith("conv") and name[4:].isdigit() else name


def target_name(results: xr.DataTree) -> str:
    """Say what the contributions add up to: ``surprisal`` for ``Surprisal(...)``."""
    return str(results.attrs.get("target", "target")).split("(")[0].lower()


def units_of(values: xr.DataArray) -> str:
    """Return the units that the array carries; "no unit" when it says none."""
    return str(values.attrs.get("units", "no unit"))


def type_colors(types: Sequence[str] | npt.NDArray[Any]) -> dict[str, Any]:
    """Give every cell type its colour, by alphabet, the same in all figures; unknown is grey."""
    known = sorted({str(name) for name in types} - {"unknown"})
    if len(known) <= len(PALETTE):
        colors: dict[str, Any] = dict(zip(known, PALETTE, strict=False))
    else:
        shades = mpl.colormaps["turbo"](np.linspace(0.05, 0.95, len(known)))
        colors = dict(zip(known, shades, strict=True))
    return colors | {"unknown": UNKNOWN}


def cell_groups(results: xr.DataTree) -> xr.DataArray:
    """Return what the colour of every cell stands for, (cell).

    Its type; where no type is known, its pathway in the first layer with pathways ("pathway 0").
    The attribute ``of`` says which: "type", or "pathway (layer 1)".
    """
    types = table(results, "responses")["type"].astype(str).drop_vars("type")
    layers = layers_with(results, "pathways")
    if not layers or bool((types != "unknown").any()):
        return types.assign_attrs(of="type")
    number = table(results, f"layers/{layers[0]}/pathways")["pathway"].values
    return types.copy(data=np.array([f"pathway {one}" for one in number])).assign_attrs(
        of=f"pathway ({layer_name(layers[0])})"
    )


def cell_order(results: xr.DataTree, layer: str) -> npt.NDArray[np.intp]:
    """Order cells by number of their pathway in a layer, within it by type, then as they came.

    Returns
    -------
    array of int, (cell,)
    """
    pathway = table(results, f"layers/{layer}/pathways")["pathway"].values
    types = table(results, "responses")["type"].values.astype(str)
    return np.lexsort((types, pathway))


def type_strip(axes: Axes, types: npt.NDArray[Any], *, vertical: bool = False) -> None:
    """Fill axes with one coloured cell per cell of the retina, its colour the cell's type."""
    colors = type_colors(types)
    values = np.array([mpl.colors.to_rgb(colors[str(name)]) for name in types])
    image = values[:, None] if vertical else values[None]
    axes.imshow(image, aspect="auto")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def signed_root(limit: float) -> FuncNorm:
    """Colour by the signed square root, so that heavy tails leave the small values visible."""
    return FuncNorm(
        (lambda v: np.sign(v) * np.sqrt(np.abs(v)), lambda v: np.sign(v) * v**2),
        vmin=-limit,
        vmax=limit,
    )


def positive_root(limit: float) -> PowerNorm:
    """Colour by the square root, from zero."""
    return PowerNorm(0.5, vmin=0.0, vmax=limit, clip=True)


def high_quantile(values: npt.NDArray[Any], share: float = 0.995) -> float:
    """Return the value that ``share`` of the sizes stay below; 1 when all are zero."""
    return float(np.quantile(np.abs(values), share)) or 1.0


def color_bar(
    area: Area, axes: Axes, image: ScalarMappable, label: str, ticks: Sequence[float]
) -> None:
    """Draw a colour bar with units into its own axes, ticks moved to round values inside."""
    places = [_toward_zero(float(tick)) for tick in ticks]
    bar = area.figure.colorbar(image, cax=axes, ticks=places)
    bar.ax.set_yticklabels([f"{place:g}".replace("-", "−") for place in places])
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=7.5, length=2, pad=2)
    bar.ax.minorticks_off()
    bar.ax.set_ylabel(label, size=7.5, labelpad=3)


def _toward_zero(value: float) -> float:
    """Cut a number to two significant digits, so that its label is exact and it stays inside."""
    if value == 0 or not np.isfinite(value):
        return 0.0
    unit = 10.0 ** (np.floor(np.log10(abs(value))) - 1)
    return float(f"{np.trunc(round(value / unit, 6)) * unit:.6g}")
