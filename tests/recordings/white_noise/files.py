"""Small files in the layouts of published recordings of white noise."""

from pathlib import Path

import numpy as np
from scipy.io import savemat

from retina_codec.recordings.frames.seeded import SeededFrames


def write_liu(path: Path, trials: int = 48, length: int = 30) -> None:
    """Write counts of one cell that follows a square of the running noise, two frames later."""
    count = trials * length
    noise = SeededFrames(
        "ran1",
        seed=-10000,
        shape=(count, 5, 5),
        order="columns",
        screen=(150, 200),
        corner=(60, 120),
    ).read(np.arange(count))
    drive = np.concatenate([[0, 0], noise.mean((1, 2))[:-2] / 127.5 - 1])
    spikes = np.random.default_rng(0).poisson(np.exp(6 * drive)).reshape(trials, length)
    frozen = np.ones((1, 4, trials), np.uint8)
    savemat(path, {"spk1": spikes.T[None].astype(np.uint8), "spk2": frozen})


def write_ret1(path: Path) -> None:
    """Write a run of stripes of 20 minutes and one of checks, two cells, one frame a second."""
    spikes = np.empty((2, 2), dtype=object)
    for cell in range(2):
        for run in range(2):
            spikes[cell, run] = np.random.default_rng(cell).uniform(0, 1200, 200)
    runs = [
        {
            "type": "binarywhitenoise",
            "onset": 1.0,
            "frame": 1.0,
            "Nframes": 1200,
            "pixelsize": 8.3,
            "param": {"x": 16, "y": 12, "dx": 4, "dy": height, "seed": -10000},
        }
        for height in (12, 4)
    ]
    savemat(path, {"datainfo": {"animal": "none"}, "stimulus": runs, "spikes": spikes})
