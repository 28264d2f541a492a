"""Describe what maps mark in images: edges by direction, light, dark, colour, and the object.

Notation: f_k (y, x) >= 0 the strength of feature k, m (y, x) >= 0 a map.
"""

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.errors import RetinaCodecError

__all__ = ["digit_squares", "features_under", "likeness", "local_features", "object_gain"]

Floats = npt.NDArray[np.float64]

DIRECTIONS = 8  # of edges, over a full turn
SMOOTHED = 64  # edges are those of the image smoothed by so small a part of its side
COLORS = ("reddish", "greenish", "bluish", "yellowish")


def local_features(images: xr.DataArray) -> xr.DataArray:
    """Compute the strength of simple features at every pixel, (sample, feature, y, x).

    Edges, per pixel: ``|g| max(0, cos(θ − θ_k))²``, g the gradient of luminance L smoothed by a
    Gaussian of side / 64, θ its direction, from dark to light (0° to the right, 90° downwards),
    θ_k = 45° k. L is the mean over color of images (sample[, color], y, x). Light and dark:
    ``max(0, ±(L − mean L))``. Colours, in images of three: the same of red − green and of
    blue − (red + green) / 2.
    """
    from scipy.ndimage import gaussian_filter

    if not {"sample", "y", "x"} <= set(images.dims) <= {"sample", "color", "y", "x"}:
        raise RetinaCodecError(
            f"images must be (sample, color, y, x) or (sample, y, x); got {images.dims}."
        )
    colored = images if "color" in images.dims else images.expand_dims("color")
    values = colored.transpose("sample", "color", "y", "x").values.astype(np.float64)
    light = values.mean(1)
    smooth = gaussian_filter(light, (0, *(side / SMOOTHED for side in light.shape[1:])))
    gy, gx = np.gradient(smooth, axis=(1, 2))
    angle, size = np.arctan2(gy, gx), np.hypot(gy, gx)
    found, names = [], []
    for k in range(DIRECTIONS):
        aligned = np.cos(angle - 2 * np.pi * k / DIRECTIONS).clip(min=0)
        found.append(size * aligned**2)
        names.append(f"edges at {360 * k // DIRECTIONS}°")
    pairs = [(light, ("light", "dark"))]
    if values.shape[1] == 3:
        red, green, blue = np.moveaxis(values, 1, 0)
        pairs += [(red - green, COLORS[:2]), (blue - (red + green) / 2, COLORS[2:])]
    for one, words in pairs:
        around = one - one.mean((1, 2), keepdims=True)
        found += [around.clip(min=0), (-around).clip(min=0)]
        names += words
    return xr.DataArray(
        np.stack(found, 1),
        dims=("sample", "feature", "y", "x"),
        coords={"feature": names},
        attrs={"units": str(images.attrs.get("units", "1"))},
    )


def features_under(features: xr.DataArray, maps: xr.DataArray) -> xr.DataArray:
    """Compare each feature (sample, feature, y, x) under a map with the whole image.

    ``d_k = (Σ m f_k / Σ m − mean f_k) / sd f_k``, over the pixels of an image, m what is positive
    of the map (sample[, color], y, x) summed over color; (sample, feature) in standard deviations.
    NaN where the map has no positive value or the feature does not vary.
    """
    f = features.transpose("sample", "feature", "y", "x").values
    m = _positive(maps)
    if m.shape != (f.shape[0], *f.shape[2:]):
        raise RetinaCodecError(
            f"maps and features must be of the same images; got {m.shape} and {f.shape}."
        )
    total = m.sum((1, 2))
    weighted = np.einsum("syx,skyx->sk", m, f)
    spread = f.std((2, 3))
    with np.errstate(divide="ignore", invalid="ignore"):
        found = (weighted / total[:, None] - f.mean((2, 3))) / np.where(spread > 0, spread, np.nan)
    return xr.DataArray(
        found,
        dims=("sample", "feature"),
        coords={"feature": features["feature"].values},
        attrs={"units": "1", "long_name": "feature under the map less in the image, in sd"},
    )


def likeness(one: Floats, other: Floats) -> Floats:
    """Correlate rows (n, feature) with rows (m, feature) over the features that both have: (n, m).

    NaN with fewer than three common features, or a row that does not vary.
    """
    a, b = np.asarray(one, np.float64)[:, None], np.asarray(other, np.float64)[None]
    both = np.isfinite(a) & np.isfinite(b)
    count = both.sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = []
        for values in (a, b):
            here = np.where(both, values, 0.0)
            parts.append(np.where(both, here - (here.sum(-1) / count)[..., None], 0.0))
        size = np.sqrt(np.square(parts[0]).sum(-1) * np.square(parts[1]).sum(-1))
        r = (parts[0] * parts[1]).sum(-1) / size
    return np.where((count >= 3) & (size > 0), r, np.nan)


def object_gain(maps: xr.DataArray, inside: npt.NDArray[np.bool_]) -> Floats:
    """Divide the share of a map that lies on the object by the object's share of the image.

    ``(Σ_inside m / Σ m) / mean(inside)`` (sample,), m what is positive of the map (sample[, color],
    y, x) summed over color; 1 for a map that is independent of the object. NaN of a map without a
    positive value or an image without an object.
    """
    m = _positive(maps)
    if m.shape != np.shape(inside):
        raise RetinaCodecError(
            f"maps and objects must have the same shape; got {m.shape} and {np.shape(inside)}."
        )
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (m * inside).sum((1, 2)) / m.sum((1, 2))
        gain: Floats = share / np.mean(inside, axis=(1, 2))
    return np.where(np.isfinite(gain), gain, np.nan)


def digit_squares(scenes: xr.DataArray | xr.Dataset) -> npt.NDArray[np.bool_]:
    """Find the pixels of `digit_scenes` that lie in the digit's square, (sample, y, x)."""
    missing = {"digit_size", "digit_y", "digit_x"} - set(scenes.coords)
    if missing:
        raise RetinaCodecError(
            f"images must carry the coordinates of digit_scenes; these lack {sorted(missing)}."
        )
    half = scenes["digit_size"].values[:, None] / 2
    y, x = (np.arange(scenes.sizes[dim]) for dim in ("y", "x"))
    rows = np.abs(y - scenes["digit_y"].values[:, None]) <= half
    columns = np.abs(x - scenes["digit_x"].values[:, None]) <= half
    return np.asarray(rows[:, :, None] & columns[:, None])


def _positive(maps: xr.DataArray) -> Floats:
    """Sum over color and leave what is positive, (sample, y, x)."""
    summed = maps.sum("color", skipna=False) if "color" in maps.dims else maps
    found: Floats = summed.transpose("sample", "y", "x").values.astype(np.float64).clip(min=0)
    return found
