"""Variance that modes explain in samples their fit never saw, and the number of active modes."""

import numpy as np
import xarray as xr

from retina_codec.errors import RetinaCodecError

__all__ = ["explained_variance", "scorecard"]


def explained_variance(values: xr.DataArray, rebuilt: xr.DataArray, dim: str) -> xr.Dataset:
    """Compute R², the explained share of variance, of each feature and of all together.

    R²_f = 1 − Σ_t (x − x̂)² / Σ_t (x − x̄_f)², each feature with its own mean x̄_f; together
    R² = 1 − Σ_f Σ_t (x − x̂)² / Σ_f Σ_t (x − x̄_f)², the same weighted by variance. With one mean for
    all features, a model that returns the mean of each feature would already have R² > 0.

    Parameters
    ----------
    values : xr.DataArray, dims (dim, feature dims ...)
    rebuilt : xr.DataArray, same dims and labels
    dim : str
        Dim of the samples (time).

    Returns
    -------
    xr.Dataset
        ``r2_feature`` (feature dims), NaN where a feature does not vary; ``r2`` ().

    Raises
    ------
    RetinaCodecError
        If no feature varies, a value is not finite, or the labels differ.
    """
    try:
        values, rebuilt = xr.align(values.astype(np.float64), rebuilt, join="exact")
    except ValueError as error:
        reason = " ".join(str(error).split())[:160]
        raise RetinaCodecError(f"R² needs the same labels on both sides; {reason}.") from error
    if not (np.isfinite(values).all() and np.isfinite(rebuilt).all()):
        raise RetinaCodecError("R² needs finite values on both sides. Leave the other ones out.")
    left = ((values - rebuilt) ** 2).sum(dim)
    spread = ((values - values.mean(dim)) ** 2).sum(dim)
    spread = spread.where(values.max(dim) > values.min(dim), 0.0)  # the mean is rounded
    if not float(spread.sum()) > 0:
        raise RetinaCodecError(
            f"R² needs values that vary along {dim!r}; these {values.sizes[dim]} samples are all "
            "alike. Choose another part of the data (held_out)."
        )
    attrs = {"units": "1", "long_name": "explained share of variance"}
    feature = (1 - left / spread.where(spread > 0)).assign_attrs(attrs)
    return xr.Dataset({"r2_feature": feature, "r2": (1 - left.sum() / spread.sum())}).assign(
        r2=lambda found: found["r2"].assign_attrs(attrs)
    )


def scorecard(
    contribution: xr.DataArray, modes: xr.Dataset, *, unpolished: xr.DataArray | None = None
) -> xr.Dataset:
    """Score modes on the samples that their fit never saw.

    Parameters
    ----------
    contribution : xr.DataArray, dims (time or sample, sign, channel)
    modes : xr.Dataset
        ``dictionary`` (mode, sign, channel), ``loading`` and ``active`` (time, mode), with the
        coordinate ``split`` along time ("fit", "gap", "held_out").
    unpolished : xr.DataArray, dims (time, mode), optional
        Loadings straight from the encoder network, to score it on its own.

    Returns
    -------
    xr.Dataset
        ``r2`` () and ``r2_feature`` (sign, channel) on the held-out part; ``r2_fit`` () on the
        fitted part; ``r2_encoder`` () on the held-out part, if ``unpolished`` is given;
        ``mean_active`` (), modes active at a held-out time on average, count; ``live_modes`` (),
        modes active at least once in the fitted part, count.
    """
    dim = str(contribution.dims[0])
    split = modes["split"].values
    held, fitted = np.flatnonzero(split == "held_out"), np.flatnonzero(split == "fit")

    def score(loading: xr.DataArray, part: np.ndarray) -> xr.Dataset:
        rebuilt = xr.dot(loading.isel({dim: part}), modes["dictionary"], dim="mode")
        return explained_variance(contribution.isel({dim: part}), rebuilt, dim)

    scores = score(modes["loading"], held)
    scores["r2_fit"] = score(modes["loading"], fitted)["r2"]
    if unpolished is not None:
        scores["r2_encoder"] = score(unpolished, held)["r2"]
        scores["r2_encoder"].attrs["long_name"] = "explained share of variance, encoder alone"
    active = modes["active"]
    count = {"units": "count"}
    scores["mean_active"] = ((), float(active.isel({dim: held}).sum("mode").mean()), count)
    scores["live_modes"] = ((), int(active.isel({dim: fitted}).any(dim).sum()), count)
    return scores.drop_vars([dim, "split"], errors="ignore")
