"""A small network and a small recording whose responses it can learn."""

import numpy as np
import pytest
import torch
import xarray as xr

import retina_codec as rc


@pytest.fixture
def small_network():
    torch.manual_seed(0)
    network = rc.networks.RetinaCNN(
        [3, 7, 9],
        [[0, 1], [2, 3], [4, 4]],
        cell_types=["a", "b", "a"],
        history=5,
        frame_shape=(13, 14),
        channels=(3, 2),
        kernel_sizes=(5, 3, 3),
        normalisation=rc.networks.Normalisation(100.0, 50.0),
        stacked=True,
    )
    for norm in (network.norm1, network.norm2, network.norm3):
        norm.running_mean.copy_(torch.randn_like(norm.running_mean) / 10)
        norm.running_var.copy_(torch.rand_like(norm.running_var) + 0.5)
        with torch.no_grad():
            norm.scale.copy_(torch.randn_like(norm.scale))
            norm.shift.copy_(torch.rand_like(norm.shift) + 0.5)
    return network.eval()


@pytest.fixture(scope="module")
def noise_recording():
    """Two cells driven by one pixel each of white noise, 3 bins later; 60 s at 100 Hz."""
    random = np.random.default_rng(0)
    frames, centers = 6000, np.array([[5, 6], [7, 8]])
    stimulus = random.integers(0, 256, (frames, 13, 14)).astype(np.uint8)
    contrast = stimulus / 128.0 - 1.0
    drive = np.stack([contrast[:, y, x] for y, x in centers], axis=1) * [1.0, -1.0]
    rate = 200.0 * np.maximum(np.roll(drive, 3, axis=0), 0.0)
    counts = random.poisson(rate / 100.0)
    time = np.arange(frames) / 100.0
    split = xr.Dataset(
        {
            "stimulus": (("time", "y", "x"), stimulus, {"units": "grey level"}),
            "spike_count": (("time", "cell"), counts, {"units": "count"}),
        },
        coords={
            "time": ("time", time, {"units": "s"}),
            "y": ("y", np.arange(13), {"units": "px"}),
            "x": ("x", np.arange(14), {"units": "px"}),
            "cell": [4, 8],
            "type": ("cell", ["ON", "OFF"]),
        },
    )
    test = split.isel(time=slice(0, 500)).assign_coords(time=time[:500] + 60)
    test["time"].attrs["units"] = "s"
    return rc.recordings.make_recording(
        train=split,
        test=test,
        frame_rate=100.0,
        pixel_size=50.0,
        session="noise",
        species="none",
        source="test",
    )
