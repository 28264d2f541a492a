"""A recording and its network, small enough to analyze whole in seconds."""

import numpy as np
import torch
import xarray as xr

from retina_codec.networks.retina.model import Normalisation, RetinaCNN
from retina_codec.recordings.schema import make_recording

CELLS = ("a", "b", "c", "d", "e", "f")
TYPES = ("off", "off", "off", "on", "on", "on")
RATE = 100.0  # Hz
HISTORY = 8


def small_network(seed: int = 0, *, surround: bool = False) -> RetinaCNN:
    """Random weights, six cells, frames of 16 × 16 px; rates vary by tens of Hz."""
    torch.manual_seed(seed)
    network = RetinaCNN(
        CELLS,
        [(1, 1), (5, 3), (8, 8), (2, 7), (6, 6), (4, 2)],
        cell_types=TYPES,
        history=HISTORY,
        frame_shape=(16, 16),
        channels=(4, 4),
        kernel_sizes=(3, 3, 3),
        normalisation=Normalisation(mean=127.5, std=60.0),
        frame_rate=RATE,
        surround=surround,
    )
    with torch.no_grad():
        if surround:
            network.conv2.surround.normal_()
        network.norm3.scale.fill_(40.0)
        network.norm3.shift.fill_(5.0)
        for norm in (network.norm1, network.norm2, network.norm3):
            norm.momentum = 1.0
        network(torch.randn(500, HISTORY, 16, 16))  # measures what the norms divide by
    return network.eval()


def small_recording(
    network: RetinaCNN | None = None,
    *,
    bins: int = 600,
    repeats: int = 4,
    train_bins: int = 0,
    seed: int = 1,
) -> xr.DataTree:
    """Poisson spikes of the network itself, so prediction and recording go together."""
    network = network or small_network()
    random = np.random.default_rng(seed)
    train = None
    if train_bins:
        train, _ = _split(network, train_bins, 1, 0.0, random)
    start = train_bins / RATE
    test, counts = _split(network, bins, repeats, start, random)
    each = xr.Dataset(
        {"rate": (("repeat", "time", "cell"), (counts * RATE).astype("f4"), {"units": "Hz"})},
        coords={
            "repeat": np.arange(repeats),
            "start_time": ("repeat", start + np.arange(repeats) * bins / RATE, {"units": "s"}),
            "time": test["time"],
            "cell": test["cell"],
            "type": test["type"],
        },
    )
    return make_recording(
        train=train,
        test=test,
        repeats=each,
        frame_rate=RATE,
        pixel_size=50.0,
        session="small",
        species="none",
        source="tests",
    )


def _split(
    network: RetinaCNN, bins: int, repeats: int, start: float, random: np.random.Generator
) -> tuple[xr.Dataset, np.ndarray]:
    """One movie and the spikes to it: the split, and counts of every repeat."""
    noise = random.normal(size=(bins, 16, 16))
    for lag in range(1, 3):  # a little smooth in time, so that frames resemble their neighbours
        noise[lag:] += noise[:-lag] / lag
    stimulus = np.clip(127.5 + 40 * noise, 0, 255).astype(np.uint8)
    rate = _rates(network, stimulus)  # (time, cell) Hz
    counts = random.poisson(np.repeat(rate[None] / RATE, repeats, axis=0))  # (repeat, time, cell)
    split = xr.Dataset(
        {
            "stimulus": (("time", "y", "x"), stimulus),
            "spike_count": (("time", "cell"), counts.sum(0), {"units": "count"}),
            "rate": (("time", "cell"), (counts.mean(0) * RATE).astype("f4"), {"units": "Hz"}),
        },
        coords={
            "time": ("time", start + np.arange(bins) / RATE, {"units": "s"}),
            "y": ("y", np.arange(16), {"units": "px"}),
            "x": ("x", np.arange(16), {"units": "px"}),
            "cell": list(CELLS),
            "type": ("cell", list(TYPES)),
        },
    )
    return split, counts


def _rates(network: RetinaCNN, stimulus: np.ndarray) -> np.ndarray:
    """Rate of every bin in Hz; the first bins, without a full history, get the mean."""
    mean, std = network.normalisation.mean, network.normalisation.std
    frames = torch.as_tensor((stimulus.astype("f4") - mean) / std)
    windows = torch.stack([frames[t - HISTORY : t] for t in range(HISTORY, len(frames))])
    with torch.no_grad():
        rates = network(windows).numpy()
    return np.concatenate([np.repeat(rates.mean(0)[None], HISTORY, axis=0), rates])
