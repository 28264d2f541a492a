"""Stimulus windows, bin by bin, straight from the definition."""

import numpy as np
import numpy.typing as npt


def windows(
    frames: npt.NDArray[np.generic], history: int, mean: float, std: float
) -> npt.NDArray[np.float64]:
    """The response at bin t goes with the ``history`` frames that end at t − 1, oldest first."""
    result = []
    for t in range(history, len(frames)):
        window = [
            (frames[t - age].astype(np.float64) - mean) / std for age in range(history, 0, -1)
        ]
        result.append(np.stack(window))
    return np.stack(result)
