"""How well a network predicts a cell, and how well it could: Pearson r and the noise ceiling."""

import numpy as np
import xarray as xr

from retina_codec.errors import RetinaCodecError

__all__ = ["noise_ceiling", "pearson"]


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


def noise_ceiling(repeats: xr.DataArray) -> xr.DataArray:
    """Highest correlation with the mean over repeats that any prediction can have.

    With the mean over R repeats, signal power
    ``S = (R var_t(mean_r) - mean_r var_t) / (R - 1)`` and
    ``ceiling = sqrt(S / var_t(mean_r))``: the correlation of the noise-free rate with the mean of
    R noisy repeats.

    Parameters
    ----------
    repeats : xr.DataArray, dims (repeat, time, cell)
        Rates, any unit. Repeats with a NaN are left out for that cell.

    Returns
    -------
    xr.DataArray, dims (cell)
        In [0, 1]; NaN with fewer than two whole repeats or a silent cell. A cell without
        measurable signal power (S <= 0) has 0.

    References
    ----------
    Sahani and Linden 2003, NIPS 15; Schoppe et al. 2016, Front. Comput. Neurosci. 10:10
    (CC_max).
    """
    values = repeats.transpose("cell", "repeat", "time").values.astype(np.float64)
    ceiling = np.full(len(values), np.nan)
    for cell, rates in enumerate(values):
        whole = rates[np.isfinite(rates).all(axis=1)]
        count = len(whole)
        if count < 2 or np.ptp(whole.mean(axis=0)) == 0:
            continue
        total = whole.mean(axis=0).var(ddof=1)
        signal = (count * total - whole.var(axis=1, ddof=1).mean()) / (count - 1)
        ceiling[cell] = np.sqrt(np.clip(signal / total, 0.0, 1.0))
    labels = {name: value for name, value in repeats["cell"].coords.items() if name != "repeat"}
    attrs = {"units": "1", "long_name": "noise ceiling of Pearson r"}
    return xr.DataArray(ceiling, dims="cell", coords=labels, attrs=attrs)
