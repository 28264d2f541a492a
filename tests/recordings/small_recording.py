"""A small recording whose every number is known."""

import numpy as np
import xarray as xr

RATE = 50.0  # Hz
CELLS = [3, 7, 20]
TYPES = ["ON", "OFF", "ON"]


def make_split(frames: int, start: float, seed: int, *, cells=CELLS) -> xr.Dataset:
    random = np.random.default_rng(seed)
    return xr.Dataset(
        {
            "stimulus": (
                ("time", "y", "x"),
                random.integers(0, 256, (frames, 5, 4), dtype=np.uint8),
            ),
            "spike_count": (("time", "cell"), random.poisson(0.7, (frames, 3))),
        },
        coords={
            "time": start + np.arange(frames) / RATE,
            "cell": cells,
            "type": ("cell", TYPES),
            "center_y": ("cell", [1.5, 2.0, 3.25]),
            "center_x": ("cell", [0.5, 1.0, 2.0]),
        },
    )


def make_parts(*, train_frames=37, test_frames=23, repeats=3, start=0.0, cells=CELLS) -> dict:
    """Arguments of make_recording; the session's clock has no gaps."""
    random = np.random.default_rng(9)
    test_start = start + train_frames / RATE
    test = make_split(test_frames, test_start, 2, cells=cells).drop_vars("spike_count")
    counts = random.poisson(0.7, (repeats, test_frames, 3))
    repeated = xr.Dataset({"rate": (("repeat", "time", "cell"), (counts * RATE).astype("f4"))})
    interneurons = xr.Dataset(
        {"potential": (("time", "interneuron"), random.normal(size=(test_frames, 2)).astype("f4"))},
        coords={
            "time": test["time"],
            "interneuron": ["bipolar 0", "amacrine 0"],
            "type": ("interneuron", ["bipolar", "amacrine"]),
            "center_y": ("interneuron", [1.0, 2.0]),
            "center_x": ("interneuron", [1.0, 2.0]),
        },
    )
    interneurons["potential"].attrs["units"] = "mV"
    return {
        "train": make_split(train_frames, start, 1, cells=cells),
        "test": test,
        "repeats": repeated,
        "interneurons": interneurons,
        "frame_rate": RATE,
        "pixel_size": 50.0,
        "session": "2026-01-02 retina 1",
        "species": "Ambystoma tigrinum",
        "source": "made by hand",
    }
