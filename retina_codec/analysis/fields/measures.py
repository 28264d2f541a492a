"""Measure receptive fields: place, size, orientation, polarity, latency and surround.

Notation: v image (y, x) with the sign that is positive at its largest value, u time course (lag).
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.errors import RetinaCodecError

__all__ = ["measure_fields"]

LEVEL = 0.5  # of the peak: the region around it above this is the centre

# What a Gaussian holds above a level L of its peak has this share of its variance along each axis:
# by radius² up to −2 ln L, its moment over its mass.
_RADIUS2 = -2 * np.log(LEVEL)
KEPT = (2 - LEVEL * (2 + _RADIUS2 + _RADIUS2**2 / 4)) / (2 - LEVEL * (2 + _RADIUS2))

Floats = npt.NDArray[np.float64]

IMAGE = ("y", "x", "diameter", "orientation", "eccentricity", "surround_ratio")
COURSE = ("latency", "biphasic_index")


def measure_fields(fields: xr.Dataset, *, pixel_size: float | None = None) -> xr.Dataset:
    """Measure every field's image and time course.

    Parameters
    ----------
    fields : xr.Dataset
        ``spatial`` (..., y, x) and ``temporal`` (..., lag), with lag in s; ``mean`` (...), if
        there, is the mean that was removed from the field (`receptive_fields`, `all_fields`), and
        is put back first: ``v = spatial + mean · Σ temporal``.
    pixel_size : float, optional
        µm per pixel; lengths are in px when left out.

    Returns
    -------
    xr.Dataset
        With the leading dims of the fields:

        ``polarity``
            +1 (ON) or −1 (OFF): the sign of image times time course where both are largest.
        ``field_y``, ``field_x``
            Centre, px or µm: the mean place of what exceeds half the largest value of v, in the
            connected region around it.
        ``diameter``
            px or µm, ``2 √(σ₁ σ₂)``: σ₁ ≥ σ₂ are the standard deviations of the Gaussian that has
            the same second moments above half its peak.
        ``orientation``
            Degrees in [0, 180), long axis, from x towards y; meaningless where
            ``eccentricity`` is near 0.
        ``eccentricity``
            ``√(1 − σ₂²/σ₁²)``, 0 for a circle.
        ``surround_ratio``
            ``−Σ min(v, 0) / Σ max(v, 0)`` over the frame: 0 without antagonism, 1 where centre and
            surround cancel under uniform light.
        ``latency``
            s before the response: place of the largest absolute value of u, by a parabola through
            it and its neighbours.
        ``biphasic_index``
            ``max(0, max(−u σ)) / max(u σ)`` with σ the sign of u there: 0 monophasic, 1 when the
            opposite lobe is as high.

        NaN where the image or the time course is constant or NaN.

    Raises
    ------
    RetinaCodecError
        If spatial or temporal parts are missing, or the pixel size is not positive.

    Notes
    -----
    The product of image and time course decides the polarity, so a common change of their signs
    changes nothing. The threshold at half the peak makes the centre robust against noise further
    out; a centre of fewer than about 4 px has no reliable axes.
    """
    missing = {"spatial", "temporal"} - set(fields.data_vars)
    if missing:
        raise RetinaCodecError(
            "measures need spatial (..., y, x) and temporal (..., lag); there is no "
            f"{sorted(missing)}. Pass what receptive_fields or all_fields returned."
        )
    if pixel_size is not None and not pixel_size > 0:
        raise RetinaCodecError(f"pixel_size must be positive, in µm; got {pixel_size}.")
    temporal = fields["temporal"].transpose(..., "lag")
    image = fields["spatial"]
    if "mean" in fields:
        image = image + fields["mean"] * temporal.sum("lag", skipna=False)
    lead = [str(dim) for dim in temporal.dims[:-1]]
    values = image.transpose(*lead, "y", "x").values.astype(np.float64)
    courses = temporal.values.astype(np.float64)
    lag = fields["lag"].values.astype(np.float64)
    found = {name: np.full(courses.shape[:-1], np.nan) for name in (*IMAGE, *COURSE, "polarity")}
    for index in np.ndindex(*courses.shape[:-1]):
        v, u = values[index], courses[index]
        if not (np.isfinite(v).all() and np.isfinite(u).all() and np.ptp(v) > 0 and np.ptp(u) > 0):
            continue
        sign_v, *measures = _measure_image(v)
        sign_u, *of_course = _measure_course(u, lag)
        found["polarity"][index] = sign_v * sign_u
        for name, value in zip((*IMAGE, *COURSE), (*measures, *of_course), strict=True):
            found[name][index] = value
    return _label(found, fields, lead, pixel_size)


def _measure_image(image: Floats) -> tuple[float, ...]:
    """Sign, then the measures `IMAGE` in px from the first pixel."""
    from scipy.ndimage import label

    peak = np.unravel_index(int(np.abs(image).argmax()), image.shape)
    sign = float(np.sign(image[peak]))
    v = image * sign
    regions, _ = label(v > LEVEL * v[peak])
    rows, columns = np.nonzero(regions == regions[peak])
    above = v[rows, columns] - LEVEL * v[peak]  # 0 at the edge, which whole pixels hit or miss
    weight = above / above.sum()
    y, x = float(weight @ rows), float(weight @ columns)
    dy, dx = rows - y, columns - x
    cross = float(weight @ (dx * dy))
    moments = np.array([[weight @ dx**2, cross], [cross, weight @ dy**2]]) / KEPT
    variances, axes = np.linalg.eigh(moments)
    small, large = np.sqrt(np.maximum(variances, 0))
    angle = float(np.degrees(np.arctan2(axes[1, 1], axes[0, 1])) % 180)
    eccentricity = float(np.sqrt(1 - small**2 / large**2)) if large > 0 else 0.0
    surround = -v[v < 0].sum() / v[v > 0].sum()
    return sign, y, x, 2 * float(np.sqrt(small * large)), angle, eccentricity, float(surround)


def _measure_course(course: Floats, lag: Floats) -> tuple[float, float, float]:
    """Return sign, latency (s) and biphasic index."""
    peak = int(np.abs(course).argmax())
    sign = float(np.sign(course[peak]))
    u = course * sign
    place = float(peak)
    if 0 < peak < len(u) - 1:
        below, top, above = u[peak - 1 : peak + 2]
        bend = below - 2 * top + above
        place += 0.5 * (below - above) / bend if bend < 0 else 0.0
    latency = float(np.interp(place, np.arange(len(lag)), lag))
    return sign, latency, float(max(0.0, (-u).max()) / u[peak])


def _label(
    found: dict[str, Floats], fields: xr.Dataset, lead: list[str], pixel_size: float | None
) -> xr.Dataset:
    """Put dims and units on measures; add the place of the first pixel."""
    scale, length = (1.0, "px") if pixel_size is None else (pixel_size, "µm")
    names = {"y": "field_y", "x": "field_x"}
    about = {
        "y": (length, "centre of the receptive field along y"),
        "x": (length, "centre of the receptive field along x"),
        "diameter": (length, "diameter of the centre at one standard deviation"),
        "orientation": ("degree", "long axis of the centre, from x towards y"),
        "eccentricity": ("1", "eccentricity of the centre"),
        "surround_ratio": ("1", "surround over centre"),
        "latency": ("s", "time from the peak of the time course to the response"),
        "biphasic_index": ("1", "opposite lobe over main lobe of the time course"),
        "polarity": ("1", "+1: ON, −1: OFF"),
    }
    result = xr.Dataset(
        {
            names.get(key, key): (
                lead,
                values * scale if key in ("y", "x", "diameter") else values,
                {"units": about[key][0], "long_name": about[key][1]},
            )
            for key, values in found.items()
        },
        coords={
            name: value for name, value in fields.coords.items() if set(value.dims) <= set(lead)
        },
    )
    for axis in ("y", "x"):
        first: Any = 0.0
        if f"first_{axis}" in fields.coords:
            first = fields[f"first_{axis}"].reset_coords(drop=True)
        elif axis in fields.coords:
            first = float(fields[axis].values[0])
        attrs = dict(result[f"field_{axis}"].attrs)
        moved = (result[f"field_{axis}"] + first * scale).transpose(*lead)
        result[f"field_{axis}"] = moved.assign_attrs(attrs)
    return result
