"""Pearson r: of labelled series, of pairs of arrays, and of all pairs of columns."""

from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.errors import RetinaCodecError

__all__ = ["column_correlations", "paired_correlations", "pearson"]

Floats = npt.NDArray[np.float64]

CONSTANT = 1e-12  # a range this small relative to the largest value is rounding of a constant


def pearson(one: xr.DataArray, other: xr.DataArray, dim: str = "time") -> xr.DataArray:
    """Pearson correlation along one dim, separately for everything else.

    ``r = mean((a - mean a) (b - mean b)) / (std a std b)``, in [-1, 1]; NaN where one of the two is
    constant or holds a NaN. Labels along shared dims must be the same.
    """
    try:
        one, other = xr.align(one, other, join="exact")
    except ValueError as error:
        reason = " ".join(str(error).split())[:160]
        raise RetinaCodecError(
            f"correlation needs the same labels on both sides; {reason}. Select common labels."
        ) from error
    options: dict[str, Any] = {
        "input_core_dims": [[dim]],
        "output_core_dims": [[dim]],
        "dask": "parallelized",
        "output_dtypes": [np.float64],
        "dask_gufunc_kwargs": {"allow_rechunk": True},
    }
    first, second = (xr.apply_ufunc(_standardised, values, **options) for values in (one, other))
    found: xr.DataArray = xr.dot(first, second, dim=dim)
    return found.assign_attrs(units="1", long_name="Pearson r")


def paired_correlations(one: npt.ArrayLike, other: npt.ArrayLike) -> Floats:
    """Pearson r (...) along the last axis of two (..., n); NaN where one is constant or has NaN."""
    return np.asarray((_standardised(one) * _standardised(other)).sum(-1))


def column_correlations(one: npt.ArrayLike, other: npt.ArrayLike) -> Floats:
    """Pearson r (p, q) of columns of (n, p) and (n, q); NaN where one is constant or has NaN."""
    first, second = (_standardised(np.asarray(values).T) for values in (one, other))
    return np.asarray(first @ second.T)


def _standardised(values: npt.ArrayLike) -> Floats:
    """Centre along the last axis and scale to unit length; NaN where constant."""
    table = np.asarray(values, dtype=np.float64)
    centered = table - table.mean(axis=-1, keepdims=True)
    size = np.sqrt(np.square(centered).sum(axis=-1, keepdims=True))
    largest, smallest = table.max(axis=-1, keepdims=True), table.min(axis=-1, keepdims=True)
    varies = largest - smallest > CONSTANT * np.maximum(abs(largest), abs(smallest))
    found: Floats = np.full_like(table, np.nan)
    np.divide(centered, size, out=found, where=varies & (size > 0))
    return found
