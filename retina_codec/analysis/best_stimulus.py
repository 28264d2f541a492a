"""Which part of a recording and which simple stimulus shows a hypothesis best.

Why this file exists: an experiment should show what tells most about the statement that it tests.
Best is the largest d² of `detectability`, summed over the cells that the statement is about.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.analysis.power import detectability
from retina_codec.analysis.silencing import Silencing, silence_channels
from retina_codec.analysis.simple_stimuli import simple_stimuli
from retina_codec.networks.maheswaranathan import RetinaCNN

__all__ = ["best_segment", "show_simple_stimuli"]

Floats = npt.NDArray[np.floating]


def best_segment(
    answer: xr.Dataset, affected: npt.NDArray[np.bool_], variability: Floats, block: float
) -> tuple[npt.NDArray[np.integer], Floats]:
    """Block with the largest Σ d² over the affected cells, and that sum, per hypothesis."""
    silenced = answer["silenced_rate"].transpose("silencing", "time", "cell").values
    squared = detectability(answer["rate"].values, silenced, block, variability)
    total = (squared * _counted(affected)[:, None, :]).sum(axis=2)  # (hypothesis, block)
    best = total.argmax(axis=1)
    return best, total.max(axis=1)


def show_simple_stimuli(
    network: RetinaCNN,
    pixel_size: float,
    silencings: Sequence[Silencing],
    affected: npt.NDArray[np.bool_],
    variability: Floats,
    duration: float,
    seed: int,
    common: dict[str, Any],
) -> xr.DataArray:
    """Σ d² over the affected cells for every simple stimulus, (hypothesis, stimulus).

    Without a size of pixels (NaN, µm) no stimulus can be drawn: then there is none.
    """
    if not np.isfinite(pixel_size):
        return xr.DataArray(
            np.zeros((len(silencings), 0)),
            dims=("hypothesis", "stimulus"),
            coords={"stimulus": np.array([], "U1")},
        )
    stimuli = simple_stimuli(
        network.frame_shape,
        frame_rate=network.frame_rate,
        pixel_size=pixel_size,
        background=network.normalisation.mean,
        grey=network.history / network.frame_rate,
        duration=duration,
        seed=seed,
    )
    counted = _counted(affected)
    different = list(dict.fromkeys(silencings))
    of_row = [different.index(silencing) for silencing in silencings]
    columns = []
    for movie in stimuli.values():
        split = movie.to_dataset(name="stimulus")
        answer = silence_channels(network, split, different, block=duration, **common)
        squared = detectability(
            answer["rate"].values[0],
            answer["silenced_rate"].isel(time=0, silencing=of_row).values,
            duration,
            variability,
        )
        columns.append((squared * counted).sum(axis=1))
    return xr.DataArray(
        np.stack(columns, axis=1),
        dims=("hypothesis", "stimulus"),
        coords={"stimulus": list(stimuli)},
    )


def _counted(affected: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Cells that an experiment would look at: the affected ones, or all where there are none."""
    counted: npt.NDArray[np.bool_] = np.where(affected.any(axis=1, keepdims=True), affected, True)
    return counted
