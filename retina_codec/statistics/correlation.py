"""Pearson r, whether it is more than chance, and how high it could be: the noise ceiling.

The ceiling is a property of the recording alone, so it is measured in recordings/repeats.py. What
chance looks like between slow series is the subject of nulls.py.
"""

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.nulls import LinearShift, Null
from retina_codec.recordings.quality.repeats import noise_ceiling

__all__ = ["assess_significance", "benjamini_hochberg", "noise_ceiling", "pearson"]


def pearson(one: xr.DataArray, other: xr.DataArray, dim: str = "time") -> xr.DataArray:
    """Pearson correlation along one dim, separately for everything else.

    ``r = mean((a - mean a) (b - mean b)) / (std a std b)``

    Parameters
    ----------
    one, other : xr.DataArray
        Same labels along every shared dim; units do not matter.
    dim : str
        The dim that is summed over.

    Returns
    -------
    xr.DataArray
        In [-1, 1]; NaN where one of the two is constant or holds a NaN.

    Raises
    ------
    RetinaCodecError
        If the labels differ.
    """
    try:
        one, other = xr.align(one, other, join="exact")
    except ValueError as error:
        reason = " ".join(str(error).split())[:160]
        raise RetinaCodecError(
            f"correlation needs the same labels on both sides; {reason}. Select common labels."
        ) from error
    varies = (one.max(dim) > one.min(dim)) & (other.max(dim) > other.min(dim))
    first = one.astype(np.float64)
    second = other.astype(np.float64)
    first = first - first.mean(dim, skipna=False)
    second = second - second.mean(dim, skipna=False)
    product = (first * second).mean(dim, skipna=False)
    scale = ((first**2).mean(dim, skipna=False) * (second**2).mean(dim, skipna=False)) ** 0.5
    # The mean of a constant is rounded, so that its standard deviation may be above 0.
    correlation = product / scale.where(varies & (scale > 0))
    return correlation.assign_attrs(units="1", long_name="Pearson r")


def assess_significance(
    rate: xr.DataArray,
    loading: xr.DataArray,
    *,
    null: Null | None = None,
    progress: bool | None = None,
) -> xr.Dataset:
    """Give every pair of cell and mode a p-value, and a q-value over all pairs.

    q_(i) = min over j >= i of p_(j) M / j, p sorted, M pairs: calling all pairs with q < 0.05 found
    makes on average at most 5 % false ones among them (Benjamini and Hochberg).

    Parameters
    ----------
    rate : xr.DataArray, dims (time, cell)
        Any unit; finite and nowhere constant.
    loading : xr.DataArray, dims (time, mode)
        At the same times; finite and nowhere constant.
    null : Null, optional
        `LinearShift` when left out.
    progress : bool, optional
        None shows a bar after 2 s, False never, True at once.

    Returns
    -------
    xr.Dataset
        ``p_value`` and ``q_value`` (cell, mode), dimensionless; the null, its settings and the
        number of draws in the attrs of both.

    Raises
    ------
    RetinaCodecError
        If times differ, or the recording is too short for the null.

    References
    ----------
    Benjamini, Hochberg 1995, J. R. Stat. Soc. B 57:289, eq. 1; q-values as in Yekutieli,
    Benjamini 1999.
    """
    null = LinearShift() if null is None else null
    if not isinstance(null, Null):
        raise RetinaCodecError(
            "null must be one of LinearShift(), SegmentPermutation(), OtherSessions(rates), "
            f"CircularShift(); got {null!r}."
        )
    dim = next(str(name) for name in loading.dims if name != "mode")
    try:
        rate, loading = xr.align(rate, loading, join="exact")
    except ValueError as error:
        reason = " ".join(str(error).split())[:160]
        raise RetinaCodecError(
            f"rates and loadings must have the same labels; {reason}. Select common times."
        ) from error
    p = null.p_values(
        rate.transpose(dim, "cell").values.astype(np.float64),
        loading.transpose(dim, "mode").values.astype(np.float64),
        progress,
    )
    attrs = {"units": "1"} | null.describe(rate.sizes[dim])
    coords = {"cell": rate["cell"], "mode": loading["mode"]}
    return xr.Dataset(
        {
            "p_value": (("cell", "mode"), p, attrs | {"long_name": "p of the correlation"}),
            "q_value": (
                ("cell", "mode"),
                benjamini_hochberg(p),
                attrs | {"long_name": "q, Benjamini-Hochberg over cells and modes"},
            ),
        },
        coords=coords,
    )


def benjamini_hochberg(p: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Adjust p-values so that a threshold on them bounds the share of false findings.

    q_(i) = min over j >= i of p_(j) M / j, at most 1.

    Parameters
    ----------
    p : array of any shape, in [0, 1]

    Returns
    -------
    array of the same shape
    """
    values = np.asarray(p, dtype=np.float64)
    if not ((values >= 0) & (values <= 1)).all():
        raise RetinaCodecError(
            "p-values must lie in [0, 1]; got values outside or NaN. Leave undefined pairs out."
        )
    order = np.argsort(values, axis=None)
    scaled = values.ravel()[order] * values.size / np.arange(1, values.size + 1)
    adjusted = np.empty(values.size)
    adjusted[order] = np.minimum.accumulate(scaled[::-1])[::-1]
    return np.minimum(adjusted, 1.0).reshape(values.shape)
