"""Numbers per mode: how much it explains, how often it acts, how it is composed.

Why this file exists: a table of modes needs one number per mode and statistic. Everything follows
from the modes and, where they are at hand, the contributions; nothing is fitted.
"""

import numpy as np
import xarray as xr

__all__ = ["mode_statistics"]


def mode_statistics(modes: xr.Dataset, contribution: xr.DataArray | None = None) -> xr.Dataset:
    """Describe every mode of a layer by a few numbers.

    With loadings l[t, m] and the dictionary d[m, f] (f: sign × channel):
    contribution share = Σ_t l Σ_f |d| over its sum over modes; loading share = Σ_t l² over its sum
    over modes; effective features = (Σ_f |d|)² / Σ_f d², 1 for a single feature, the number of
    features where all weigh the same; R² lost = R² of all modes − R² without this one, on the
    held-out part.

    Parameters
    ----------
    modes : xr.Dataset
        ``dictionary`` (mode, sign, channel), ``loading`` (time, mode), ``active`` (time, mode) and
        the coordinate ``split`` along time.
    contribution : xr.DataArray, dims (time, sign, channel), optional
        What was decomposed; without it there is no ``r2_lost``.

    Returns
    -------
    xr.Dataset
        Along ``mode``: ``contribution_share``, ``loading_share``, ``active_share`` (of held-out
        times), ``inhibitory_share`` (of Σ_f |d|), ``effective_features``, ``r2_lost``,
        dimensionless; ``peak_loading``, unit of the loadings. NaN where a sum to divide by is 0.
    """
    weight = abs(modes["dictionary"]).astype(np.float64)
    loading = modes["loading"].astype(np.float64)
    dim = next(str(dim) for dim in loading.dims if dim != "mode")
    held = np.flatnonzero(modes["split"].values == "held_out")
    size = weight.sum(("sign", "channel"))
    explained = loading.sum(dim) * size
    power = (loading**2).sum(dim)
    inhibitory = weight.where(weight["sign"] == "inhibitory", 0.0).sum(("sign", "channel"))
    found = {
        "contribution_share": (_share(explained), "share of the summed contributions of all modes"),
        "loading_share": (_share(power), "share of the summed squared loadings of all modes"),
        "active_share": (
            modes["active"].isel({dim: held}).mean(dim),
            "share of held-out times at which the mode is active",
        ),
        "peak_loading": (loading.max(dim), "largest loading"),
        "inhibitory_share": (
            inhibitory / size.where(size > 0),
            "share of the mode's weights that are inhibitory",
        ),
        "effective_features": (
            size**2 / (weight**2).sum(("sign", "channel")).where(size > 0),
            "effective number of features, squared sum over sum of squares of the weights",
        ),
    }
    if contribution is not None:
        found["r2_lost"] = (
            _r2_lost(contribution.isel({dim: held}), loading.isel({dim: held}), modes, dim),
            "R² on the held-out part that is lost without this mode",
        )
    units = {"peak_loading": str(modes["loading"].attrs.get("units", "1"))}
    return xr.Dataset(
        {
            name: (
                "mode",
                values.transpose("mode").values,
                {"units": units.get(name, "1"), "long_name": words},
            )
            for name, (values, words) in found.items()
        },
        coords={"mode": modes["mode"].values},
    )


def _share(values: xr.DataArray) -> xr.DataArray:
    total = values.sum()
    return values / total.where(total > 0)


def _r2_lost(
    contribution: xr.DataArray, loading: xr.DataArray, modes: xr.Dataset, dim: str
) -> xr.DataArray:
    """Leave one mode out: the residual e becomes e + l d, so Σ (e + l d)² − Σ e² in closed form."""
    dictionary = modes["dictionary"].astype(np.float64)
    values = contribution.astype(np.float64)
    residual = values - xr.dot(loading, dictionary, dim="mode")
    spread = ((values - values.mean(dim)) ** 2).sum()
    cross = xr.dot(xr.dot(residual, loading, dim=dim), dictionary, dim=("sign", "channel"))
    power = (loading**2).sum(dim) * (dictionary**2).sum(("sign", "channel"))
    lost: xr.DataArray = (2 * cross + power) / spread.where(spread > 0)
    return lost
