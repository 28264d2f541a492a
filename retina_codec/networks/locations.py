"""Where each cell looks: receptive field centres from the responses alone."""

import numpy as np
import numpy.typing as npt
import xarray as xr
from scipy.ndimage import gaussian_filter

from retina_codec.errors import RetinaCodecError

__all__ = ["estimate_centers"]


def estimate_centers(
    split: xr.Dataset, *, history: int = 40, width: float = 1.5, chunk: int = 2000
) -> xr.Dataset:
    """Estimate receptive field centres by correlating spikes with local change.

    For every lag the spike count is correlated with the signed and with the squared change of
    every pixel from frame to frame (the change of a natural movie is far less correlated in
    space than the movie itself; the square also finds cells that respond to both signs). The
    summed squared correlation over lags, blurred, peaks at the centre.

    Parameters
    ----------
    split : xr.Dataset
        stimulus (time, y, x), spike_count (time, cell).
    history : int
        Lags, frames.
    width : float
        px, Gaussian blur of the map.
    chunk : int
        Frames in memory at a time.

    Returns
    -------
    xr.Dataset, dims (cell)
        ``center_y``, ``center_x`` px; ``strength``: peak of the map over its median (1 = nothing
        found).

    Raises
    ------
    RetinaCodecError
        If the split is not longer than the history, or a count is NaN.
    """
    stimulus = split["stimulus"].transpose("time", "y", "x")
    counts = split["spike_count"].transpose("time", "cell").values.astype(np.float32)
    frames, height, breadth = stimulus.shape
    if frames <= history + 1:
        raise RetinaCodecError(
            f"estimating centres needs more than {history + 1} frames; got {frames}."
        )
    if not np.isfinite(counts).all():
        raise RetinaCodecError(
            "spike counts must be finite to estimate centers; some are NaN. Cut these times out."
        )
    counts = counts - counts.mean(axis=0)
    lags = range(1, history + 1)
    # (feature, lag, cell, pixel)
    products = np.zeros((2, history, counts.shape[1], height * breadth), dtype=np.float64)
    moments = np.zeros((2, 2, height * breadth))
    for start in range(1, frames, chunk):
        block = np.asarray(stimulus[start - 1 : start + chunk].values, dtype=np.float32)
        change = np.diff(block, axis=0).reshape(len(block) - 1, -1)
        for feature, values in enumerate((change, change**2)):
            moments[feature, 0] += values.sum(axis=0)
            moments[feature, 1] += (values**2).sum(axis=0)
            for lag in lags:
                later = counts[start + lag : start + lag + len(values)]
                products[feature, lag - 1] += later.T @ values[: len(later)]
    mean = moments[:, 0] / (frames - 1)
    variance = np.maximum(moments[:, 1] / (frames - 1) - mean**2, 1e-12)
    spread = np.maximum(counts.std(axis=0), 1e-12)
    correlation = products / (frames * np.sqrt(variance)[:, None, None] * spread[:, None])
    maps = (correlation**2).sum(axis=1).reshape(2, -1, height, breadth)  # (feature, cell, y, x)
    return _peaks(maps, width, split["cell"])


def _peaks(maps: npt.NDArray[np.float64], width: float, cell: xr.DataArray) -> xr.Dataset:
    """Take the feature whose blurred map stands out most, and the place of its peak, per cell."""
    blurred = np.stack([[gaussian_filter(one, width) for one in feature] for feature in maps])
    median = np.median(blurred, axis=(2, 3))
    strength = blurred.max(axis=(2, 3)) / np.maximum(median, 1e-12)
    best = strength.argmax(axis=0)
    chosen = blurred[best, np.arange(len(best))]
    rows, columns = np.unravel_index(
        chosen.reshape(len(chosen), -1).argmax(axis=1), chosen.shape[1:]
    )
    return xr.Dataset(
        {
            "center_y": ("cell", rows.astype(float), {"units": "px"}),
            "center_x": ("cell", columns.astype(float), {"units": "px"}),
            "strength": ("cell", strength.max(axis=0), {"units": "1"}),
        },
        coords={"cell": cell.values},
    )
