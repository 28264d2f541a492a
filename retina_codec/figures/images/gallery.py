"""Images with the largest loadings of a mode, by class, beside what the mode uses of them."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from retina_codec.errors import RetinaCodecError
from retina_codec.figures.style import MUTED, WIDTH, draw_title, grid, new_figure, styled

__all__ = ["plot_gallery"]


@styled
def plot_gallery(gallery: xr.Dataset) -> Figure:
    """Draw top images of a mode, one row per class, each beside its overlay.

    Parameters
    ----------
    gallery : xr.Dataset
        From ``analysis.mode_gallery``; images in [0, 1] or a range that is mapped to it.

    Returns
    -------
    matplotlib.figure.Figure
        Rows are classes, ordered by mean loading, pairs of columns are images and overlays; above
        each pair its loading. A place without an image is empty; an overlay is grey where the map
        of its image has no positive value.

    Raises
    ------
    RetinaCodecError
        If it is something else.
    """
    if not {"image", "overlay", "loading"} <= set(gallery.data_vars):
        raise RetinaCodecError(
            f"this figure needs what mode_gallery() returned; got {list(gallery.data_vars)}."
        )
    rows, pairs = gallery.sizes["concept"], gallery.sizes["rank"]
    side, left, gap = 0.0, 1.0, 0.22
    side = (WIDTH - left - 0.1 - gap * (pairs - 1)) / (2 * pairs)
    side = min(side, 1.3)
    height = 0.62 + rows * (side + 0.24)
    figure = new_figure(height)
    layer, mode = gallery.attrs.get("layer", ""), gallery.attrs.get("mode", "")
    draw_title(figure, "", f"Mode {mode} of {layer}: images that load it, and what it uses of them")
    right = WIDTH - left - pairs * 2 * side - gap * (pairs - 1)
    spec = grid(
        figure, [1] * rows, [1] * pairs, left=left, right=right, top=0.6, bottom=0.05, gap_y=0.24,
        gap_x=gap,
    )  # fmt: skip
    units = str(gallery["loading"].attrs.get("units", ""))
    low, high = _range(gallery["image"])
    for row in range(rows):
        for rank in range(pairs):
            here = gallery.isel(concept=row, rank=rank)
            if not np.isfinite(here["loading"]):
                continue
            both = spec[row, rank].subgridspec(1, 2, wspace=0.02)
            one, other = (figure.add_subplot(both[k]) for k in (0, 1))
            _picture(one, (_colors_last(here["image"]) - low) / (high - low))
            _picture(other, _colors_last(here["overlay"]) / high if low >= 0 else
                     (_colors_last(here["overlay"]) - low) / (high - low))  # fmt: skip
            one.set_title(f"{float(here['loading']):.2g}", size=7.5, color=MUTED, loc="left", pad=2)
            if rank == 0:
                one.set_ylabel(str(gallery["concept"].values[row]), rotation=0, ha="right",
                               va="center", labelpad=6)  # fmt: skip
    note = "number: loading" + (f" ({units})" if units not in ("", "1") else "")
    figure.text(
        1 - 0.1 / WIDTH, 1 - 0.1 / height, note, ha="right", va="top", size=7.5, color=MUTED
    )
    return figure


def _range(images: xr.DataArray) -> tuple[float, float]:
    """Return the values shown as black and white."""
    low, high = float(images.min()), float(images.max())
    if low >= 0 and high <= 1:
        return 0.0, 1.0
    return low, high if high > low else low + 1


def _colors_last(image: xr.DataArray) -> np.ndarray:
    """Return (y, x, 3), or (y, x) for images of one color."""
    if "color" not in image.dims:
        return np.asarray(image.values)
    values = image.transpose("y", "x", "color").values
    return np.asarray(values if values.shape[2] == 3 else values[..., 0])


def _picture(axes: Axes, values: np.ndarray) -> None:
    axes.set_facecolor("#c9ced4")
    shown = values.clip(0, 1)
    if not np.isfinite(shown).all():
        shown = np.ma.masked_invalid(shown) if shown.ndim == 2 else np.full((1, 1, 4), 0.0)
    axes.imshow(shown, cmap="gray", vmin=0, vmax=1, aspect="equal", extent=(0, 1, 0, 1))
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
