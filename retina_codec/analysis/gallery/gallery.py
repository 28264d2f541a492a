"""Find the images with the largest loadings of a mode, and mask them by what the mode uses."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import nn

from retina_codec.analysis.gallery.maps import (
    few,
    image_rows,
    mode_maps,
    mode_of,
    recorded,
    take_images,
)
from retina_codec.errors import RetinaCodecError
from retina_codec.networks.adapter import Adapter, as_adapter
from retina_codec.probing.inputs import open_inputs
from retina_codec.storage.results import class_codes, modes_at, sample_labels

__all__ = [
    "as_mask",
    "mean_over_color",
    "median_filtered",
    "mode_gallery",
    "overlay",
    "scaled_to_one",
    "top_images",
]


def top_images(
    modes: xr.DataTree,
    layer: str,
    mode: Any,
    *,
    labels: Any = None,
    classes: int | Sequence[str] = 4,
    per_class: int = 4,
) -> xr.Dataset:
    """Find the images that load a mode most, class by class.

    Parameters
    ----------
    modes : xr.DataTree
        Results of `decompose`.
    layer : str
    mode : label of a mode
    labels : array-like of str, (sample,), optional
        The coordinate ``label`` of the results when left out. Where neither is there, the samples
        make one concept, "all", of ``classes`` · ``per_class`` images.
    classes : int or sequence of str
        How many, those with the largest mean loading; or which.
    per_class : int
        Images of each.

    Returns
    -------
    xr.Dataset, dims (concept, rank)
        ``position`` of the image among the samples, −1 where a class has fewer; ``loading``, NaN
        there; ``mean_loading`` (concept), over all images of the class.

    Raises
    ------
    RetinaCodecError
        No such mode or class; classes by name where there are no labels.
    """
    loading = modes_at(modes, layer)["loading"]
    values = mode_of(loading, layer, mode).values.astype(np.float64)
    known = sample_labels(modes, labels, layer, len(values))
    if known is None:
        if not isinstance(classes, int):
            raise RetinaCodecError(
                "classes by name need labels, and the results carry none; give labels=, one per "
                "sample, or a number of classes."
            )
        known = np.full(len(values), "all")
        per_class, classes = max(1, classes) * per_class, 1
    codes, names = class_codes(known)
    fine = codes >= 0
    mean = np.bincount(codes[fine], values[fine], len(names)) / np.bincount(codes[fine])
    if isinstance(classes, int):
        chosen = np.argsort(-mean, kind="stable")[: max(1, classes)].tolist()
    else:
        if missing := [one for one in classes if str(one) not in names]:
            raise RetinaCodecError(
                f"classes must be among {few(names)}; got {missing[0]!r}, which has no sample."
            )
        chosen = [names.index(str(one)) for one in classes]
    position = np.full((len(chosen), per_class), -1)
    largest = np.full((len(chosen), per_class), np.nan)
    for row, code in enumerate(chosen):
        members = np.flatnonzero(codes == code)
        best = members[np.argsort(-values[members], kind="stable")[:per_class]]
        position[row, : len(best)], largest[row, : len(best)] = best, values[best]
    units = {"units": str(loading.attrs.get("units", "1"))}
    return xr.Dataset(
        {
            "position": (("concept", "rank"), position, {"units": "count"}),
            "loading": (("concept", "rank"), largest, units),
            "mean_loading": ("concept", mean[chosen], units),
        },
        coords={"concept": [names[code] for code in chosen], "rank": np.arange(per_class)},
        attrs={"layer": layer, "mode": recorded(mode)},
    )


def mode_gallery(
    network: nn.Module | Adapter,
    images: Any,
    modes: xr.DataTree,
    layer: str,
    mode: Any,
    *,
    labels: Any = None,
    classes: int | Sequence[str] = 4,
    per_class: int = 4,
    filter_size: int = 4,
    contrast: float = 7.0,
    **options: Any,
) -> xr.Dataset:
    """Collect a mode's top images by class with their maps and overlays.

    Parameters
    ----------
    network, images, modes, layer, mode
        As for `mode_maps`; images (sample, color, y, x) or (sample, y, x), those the results were
        made of, in the same order.
    labels, classes, per_class
        As for `top_images`.
    filter_size, contrast
        As for `overlay`.
    **options
        For `mode_maps`: ``target``, ``method``, ``settings``, ``device``, ``progress``.

    Returns
    -------
    xr.Dataset, dims (concept, rank, ...)
        ``image`` and ``overlay`` (..., color, y, x), ``mask`` (..., y, x), ``map``, ``loading`` and
        ``position``; NaN where a class has too few images.

    Raises
    ------
    RetinaCodecError
        As `mode_maps`, `top_images` and `overlay`.
    """
    table = top_images(
        modes, layer, mode, labels=labels, classes=classes, per_class=per_class
    )  # (concept, rank)
    count = modes_at(modes, layer)["loading"].sizes["sample"]
    images = image_rows(images)
    source = open_inputs(as_adapter(network, [layer.partition("@")[0]]), images)
    if len(source) != count:
        raise RetinaCodecError(
            f"images must be those of the results, {count} of them; got {len(source)}. Give those "
            "that were explained, in the same order."
        )
    place = table["position"].values.ravel()
    there = place >= 0
    maps = mode_maps(network, images, modes, layer, mode, samples=place[there], **options)
    shown = take_images(images, source, place[there])
    if isinstance(shown, torch.Tensor):
        shown = xr.DataArray(shown.cpu().numpy(), maps["map"].coords, maps["map"].dims)
    masked = overlay(shown, maps["map"], filter_size=filter_size, contrast=contrast)
    data: dict[str, Any] = {str(key): value for key, value in table.data_vars.items()}
    for name, values in (
        ("image", shown),
        ("map", maps["map"]),
        ("mask", masked["mask"]),
        ("overlay", masked["overlay"]),
    ):
        full = np.full((len(place), *values.shape[1:]), np.nan, np.float32)
        full[there] = values.values
        shape = (*table["position"].shape, *values.shape[1:])
        dims = ("concept", "rank", *values.dims[1:])
        data[name] = (dims, full.reshape(shape), dict(values.attrs))
    return xr.Dataset(data, coords=table.coords, attrs=maps.attrs | masked.attrs | table.attrs)


def mean_over_color(maps: xr.DataArray) -> xr.DataArray:
    """Average maps (sample, color, y, x) over color; (sample, y, x) stay as they are."""
    return maps.mean("color", skipna=False) if "color" in maps.dims else maps


def median_filtered(maps: xr.DataArray, size: int) -> xr.DataArray:
    """Replace every pixel by the median of size × size around it, mirrored at the edge.

    With an even size the window reaches one pixel further to the top and left.
    """
    from scipy.ndimage import median_filter

    ordered = maps.transpose("sample", "y", "x")
    return ordered.copy(data=median_filter(ordered.values, size=(1, size, size), mode="reflect"))


def scaled_to_one(maps: xr.DataArray) -> xr.DataArray:
    """Divide each map by its largest value; NaN for a map without a positive value.

    Zero stays zero, so what was not used stays dark.
    """
    largest = maps.max(("y", "x"))
    return maps / largest.where(largest > 0)


def as_mask(maps: xr.DataArray, contrast: float) -> xr.DataArray:
    """Multiply by a contrast and clip to [0, 1]: all above 1 / contrast is fully visible."""
    return (maps * contrast).clip(0, 1)


def overlay(
    images: xr.DataArray, maps: xr.DataArray, *, filter_size: int = 4, contrast: float = 7.0
) -> xr.Dataset:
    """Multiply each image by the mask of its map.

    ``image · clip(contrast · s(median(mean over color of the map)))``, s the scaling to a largest
    value of 1.

    Parameters
    ----------
    images : xr.DataArray, (sample, color, y, x) or (sample, y, x)
        In the range in which they are shown, usually [0, 1].
    maps : xr.DataArray, (sample, color, y, x) or (sample, y, x)
        Of the same samples, from `mode_maps`.
    filter_size : int
        Pixels of the median filter; 1 leaves maps as they are.
    contrast : float

    Returns
    -------
    xr.Dataset
        ``mask`` (sample, y, x) in [0, 1] and ``overlay``, dims of the images; NaN for an image
        whose map has no positive value, of which there is nothing to show.

    Raises
    ------
    RetinaCodecError
        If samples or sizes differ, or a setting is not positive.

    Notes
    -----
    The authors' code takes sizes of map values and subtracts the smallest; here negative values
    are dark and zero is dark.

    References
    ----------
    Melander et al. 2026, CODEC, section 10.8: filter size 4, contrast 7.
    """
    if isinstance(filter_size, bool) or filter_size < 1 or not contrast > 0:
        raise RetinaCodecError(
            f"filter_size must be at least 1 and contrast positive; got {filter_size=}, "
            f"{contrast=}. 4 and 7 are the paper's."
        )
    wanted = {"sample", "y", "x"}
    for name, values in (("images", images), ("maps", maps)):
        if not wanted <= set(values.dims) <= wanted | {"color"}:
            raise RetinaCodecError(
                f"{name} must be (sample, color, y, x) or (sample, y, x); got {values.dims}."
            )
    if any(images.sizes[dim] != maps.sizes[dim] for dim in wanted) or (
        "sample" in images.coords
        and "sample" in maps.coords
        and not np.array_equal(images["sample"].values, maps["sample"].values)
    ):
        raise RetinaCodecError(
            f"images and maps must be of the same samples and size; got {dict(images.sizes)} and "
            f"{dict(maps.sizes)}. Select common samples."
        )
    mask = as_mask(scaled_to_one(median_filtered(mean_over_color(maps), filter_size)), contrast)
    ordered = images.transpose("sample", *(("color",) if "color" in images.dims else ()), "y", "x")
    shown = ordered.copy(
        data=ordered.values * (mask.values[:, None] if "color" in images.dims else mask.values)
    )
    return xr.Dataset(
        {
            "mask": (("sample", "y", "x"), mask.values, {"units": "1"}),
            "overlay": (shown.dims, shown.values, dict(images.attrs)),
        },
        coords={"sample": images["sample"]} if "sample" in images.coords else None,
        attrs={"filter_size": filter_size, "contrast": float(contrast)},
    )
