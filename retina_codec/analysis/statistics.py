"""How well a network predicts a cell, and how well it could: Pearson r and the noise ceiling.

The ceiling is a property of the recording alone, so it is measured in recordings/repeats.py.
"""

import numpy as np
import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.recordings.repeats import noise_ceiling

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
