"""Measure what a fit needs of a recording: counts, normalisation, centres of receptive fields."""

import numpy as np
import numpy.typing as npt
import xarray as xr
from scipy.ndimage import gaussian_filter

from retina_codec.errors import RetinaCodecError, in_words, option
from retina_codec.networks.retina.model import Normalisation

__all__ = ["centers", "check_cells_fire", "estimate_centers", "measure", "spike_counts"]


def spike_counts(train: xr.Dataset) -> npt.NDArray[np.float64]:
    """Return spike counts (time, cell), all finite."""
    counts = train["spike_count"].transpose("time", "cell").values.astype(np.float64)
    if not np.isfinite(counts).all():
        raise RetinaCodecError(
            "spike counts of the train split must be finite; some are NaN. Cut these times out."
        )
    return np.asarray(counts)


def check_cells_fire(train: xr.Dataset, counts: npt.NDArray[np.float64]) -> None:
    """Raise an error if a cell has no spike."""
    silent = train["cell"].values[counts.sum(axis=0) == 0].tolist()
    if silent:
        raise RetinaCodecError(
            f"every cell must fire in the train split; cells {silent} never do. Leave them out: "
            + in_words("recording.sel(cell=[...])", f"{option('cells', 'LIST')} with the others")
            + "."
        )


def measure(stimulus: xr.DataArray) -> Normalisation:
    """One mean and one std over all pixels and times, in float64, chunk by chunk."""
    total, square, count = 0.0, 0.0, 0
    for start in range(0, stimulus.sizes["time"], 2000):
        block = np.asarray(stimulus[start : start + 2000].values, dtype=np.float64)
        total, square, count = total + block.sum(), square + (block**2).sum(), count + block.size
    mean = total / count
    return Normalisation(float(mean), float(np.sqrt(max(square / count - mean**2, 0.0))))


def centers(train: xr.Dataset, history: int) -> tuple[npt.NDArray[np.float64], str]:
    """Return receptive field centres (cell, 2) in px, and where they come from."""
    if "center_y" in train.coords and "center_x" in train.coords:
        given = np.stack([train["center_y"].values, train["center_x"].values], axis=1)
        if np.isfinite(given).all():
            return given, "given in the recording"
    found = estimate_centers(train, history=history)
    return np.stack([found["center_y"].values, found["center_x"].values], axis=1), "estimated"


def estimate_centers(
    split: xr.Dataset, *, history: int = 40, width: float = 1.5, chunk: int = 2000
) -> xr.Dataset:
    """Estimate receptive field centres by correlating spikes with local change.

    For every lag the spike count is correlated with the signed and with the squared change of every
    pixel from frame to frame (the change of a natural movie is far less correlated in space than
    the movie itself; the square also finds cells that respond to both signs). The summed squared
    correlation over lags, blurred by a Gaussian of ``width`` px, peaks at the centre.

    From ``split`` with stimulus (time, y, x) and spike_count (time, cell), ``chunk`` frames at a
    time; ``center_y``, ``center_x`` (cell) in px, ``strength`` the peak of the map over its median
    (1 = nothing found).
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
    """Return, per cell, the peak of the blurred map (of two features) that stands out most."""
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
