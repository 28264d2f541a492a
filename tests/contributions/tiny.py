"""A retina network with few enough units for loops over them, and something for it to see."""

import numpy as np
import torch
import xarray as xr

from retina_codec.networks.retina.model import Normalisation, RetinaCNN

CELLS = ("a", "b", "c", "d")
HISTORY = 5


def tiny_retina(
    seed: int = 0,
    *,
    stacked: bool = False,
    frame_shape: tuple[int, int] = (9, 8),
    surround: bool = False,
) -> RetinaCNN:
    torch.manual_seed(seed)
    network = RetinaCNN(
        CELLS,
        [(0, 0), (1, 1), (2, 0), (1, 0)],
        cell_types=("off", "off", "on", "on"),
        history=HISTORY,
        frame_shape=frame_shape,
        channels=(2, 3),
        kernel_sizes=(3, 3, 3),
        normalisation=Normalisation(120.0, 50.0),
        stacked=stacked,
        surround=surround,
    )
    with torch.no_grad():
        for norm in (network.norm1, network.norm2, network.norm3):
            norm.running_mean.uniform_(-0.2, 0.2)
            norm.scale.uniform_(-2, 2)
            norm.shift.uniform_(-0.5, 0.5)
        network.norm3.scale.fill_(8.0)
        if surround:
            network.conv2.surround.uniform_(-1, 1)
    return network.eval()


def tiny_split(frames: int = 60, seed: int = 0) -> xr.Dataset:
    """A split of a recording, as raw bytes, on a session clock that does not start at 0."""
    random = np.random.default_rng(seed)
    return xr.Dataset(
        {
            "stimulus": (("time", "y", "x"), random.integers(0, 256, (frames, 9, 8), np.uint8)),
            "rate": (("time", "cell"), random.gamma(2, 5, (frames, 4)), {"units": "Hz"}),
        },
        coords={
            "time": ("time", 3 + np.arange(frames) / 100, {"units": "s"}),
            "cell": list(CELLS),
            "type": ("cell", ["off", "off", "on", "on"]),
        },
    )


def tiny_windows(count: int, seed: int = 0) -> torch.Tensor:
    """Windows of successive responses in float64, (count, lag, y, x), made by a loop."""
    stimulus = tiny_split(count + HISTORY, seed)["stimulus"].values
    windows = np.stack([stimulus[t : t + HISTORY] for t in range(count)])
    return torch.from_numpy((windows - 120.0) / 50.0)
