"""What a training run needs to know of a recording: counts, normalisation, centres.

Why this file exists: these are the checks and measurements before the first step; the loop stands
in training.py.
"""

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.networks.locations import estimate_centers
from retina_codec.networks.maheswaranathan import Normalisation

__all__ = ["centers", "check_cells_fire", "measure", "spike_counts"]


def spike_counts(train: xr.Dataset) -> npt.NDArray[np.float64]:
    """Return spike counts (time, cell), all finite."""
    counts = train["spike_count"].transpose("time", "cell").values.astype(np.float64)
    if not np.isfinite(counts).all():
        raise RetinaCodecError(
            "spike counts of the train split must be finite; some are NaN. Cut these times out."
        )
    return np.asarray(counts)


def check_cells_fire(train: xr.Dataset, counts: npt.NDArray[np.float64]) -> None:
    """Refuse cells without a spike."""
    silent = train["cell"].values[counts.sum(axis=0) == 0].tolist()
    if silent:
        raise RetinaCodecError(
            f"every cell must fire in the train split; cells {silent} never do. Leave them out "
            "(recording.sel(cell=...))."
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
