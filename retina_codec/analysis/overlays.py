"""From a map to a picture: an image seen through what a mode used of it, one named step at a time.

Why this file exists: every step changes what a reader believes to see, so each has a name and a
test. Nothing here is used by any number.
"""

import numpy as np
import xarray as xr

from retina_codec.errors import RetinaCodecError

__all__ = ["as_mask", "mean_over_color", "median_filtered", "overlay", "scaled_to_one"]


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
    """Show of each image what its map marks.

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
