"""What a network predicts for a recording, streamed over time.

Why this file exists: a network must be judged on a recording before it is explained. How well the
prediction agrees with the responses is measured in analysis/statistics.py.
"""

from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import nn

from retina_codec.networks.matching import open_windows
from retina_codec.progress import progress_bar

__all__ = ["predict_rates"]


def predict_rates(
    network: nn.Module,
    split: xr.Dataset | xr.DataTree,
    *,
    batch_size: int = 256,
    device: str | torch.device | None = None,
    progress: bool | None = None,
) -> xr.DataArray:
    """Predict the rate of every cell at every time that has a whole history before it.

    Parameters
    ----------
    network : torch.nn.Module
        A `RetinaCNN`, or another `RecordingNetwork`. Used in evaluation mode, left in the mode
        and on the device it had.
    split : xr.Dataset or node of a recording
        With ``stimulus`` (time, y, x), read in chunks.
    batch_size : int
        Windows at a time.
    device : str or torch.device, optional
        Where to compute; where the network lies when left out.
    progress : bool, optional
        See `retina_codec.progress.progress_bar`.

    Returns
    -------
    xr.DataArray, dims (time, cell), Hz
        ``time`` starts ``network.history`` bins after the split.

    Raises
    ------
    RetinaCodecError
        If the split does not fit the network or holds NaN.
    """
    _, windows = open_windows(network, split)
    cells: Any = network.cells
    types: Any = getattr(network, "cell_types", None) or ("unknown",) * len(cells)
    first = next(network.parameters(), None)
    home = torch.device("cpu") if first is None else first.device
    training = network.training
    place = torch.device(device) if device is not None else home
    rates = np.empty((len(windows), len(cells)), dtype=np.float32)
    steps = progress_bar(
        windows.batches(batch_size, place),
        description="predictions",
        total=-(-len(windows) // batch_size),
        progress=progress,
    )
    try:
        network.to(place).eval()
        with torch.no_grad():
            for part, batch in steps:
                rates[part] = network(batch).cpu().numpy()
    finally:
        network.to(home).train(training)
    return xr.DataArray(
        rates,
        dims=("time", "cell"),
        coords={
            "time": windows.time,
            "cell": list(cells),
            "type": ("cell", list(types)),
        },
        name="prediction",
        attrs={"units": "Hz", "long_name": "predicted rate"},
    )
