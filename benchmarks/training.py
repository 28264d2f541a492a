"""What a step of the training costs on a CPU: through Fourier transforms, and the plain way.

One step is windows, loss, gradients and AdamW for a batch of the published geometry (40 frames of
50 × 50 px, 8 and 8 channels, kernels 15, 11, 11 in stacks, 16 cells), as `fit_network` does it.
``held`` keeps the transforms of all frames, ``anew`` makes those of every batch, ``plain`` is the
network itself with kernels in channels-last order. Seconds per step; ``ratio`` is plain over held
and anew. Prints one JSON line.

    python benchmarks/training.py
"""

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import xarray as xr
from measure import measure, report

from retina_codec.networks.retina.fitting import poisson_loss
from retina_codec.networks.retina.fourier_fitting import rates_of_windows
from retina_codec.networks.retina.model import RetinaCNN
from retina_codec.recordings.windows import StimulusWindows

WAYS = {"held": 2**32, "anew": 0, "plain": None}
FRAMES, CELLS = 4000, 16


def steps(way: str, batch: int, count: int) -> Callable[[], dict[str, Any]]:
    """Prepare a network and frames; the work is ``count`` steps."""
    random = np.random.default_rng(0)
    torch.manual_seed(0)
    frames = random.integers(0, 256, (FRAMES, 50, 50)).astype(np.uint8)
    stimulus = xr.DataArray(
        frames, dims=("time", "y", "x"), coords={"time": np.arange(FRAMES) / 100}
    )
    windows = StimulusWindows(stimulus, 40, mean=127.5, std=73.9)
    places = random.integers(0, 16, (CELLS, 2))
    network = RetinaCNN(list(range(CELLS)), places, stacked=True, noise=0.0).train()
    if way == "plain":
        network.to(memory_format=torch.channels_last)
    rates = rates_of_windows(network, windows, WAYS[way], torch.device("cpu"))
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    counts = torch.from_numpy(random.poisson(0.15, (len(windows), CELLS)).astype(np.float32))

    def work() -> dict[str, Any]:
        for _ in range(count):
            indices = random.integers(0, len(windows), batch)
            loss = poisson_loss(rates(indices), counts[indices], 0.01)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        return {}

    return work


def main() -> None:
    """Run from the command line."""
    options = argparse.ArgumentParser(description="a training step, three ways")
    options.add_argument("--batch", type=int, default=256)
    options.add_argument("--steps", type=int, default=4, help="per measurement")
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--threads", type=int, default=1)
    chosen = options.parse_args()
    found: dict[str, Any] = {}
    for way in WAYS:
        arguments = {"way": way, "batch": chosen.batch, "count": chosen.steps}
        row, _ = measure(
            __file__, "steps", arguments, repeats=chosen.repeats, threads=chosen.threads
        )
        found[way] = {
            "seconds": row["seconds"] / chosen.steps,
            "cpu_seconds": row["cpu_seconds"] / chosen.steps,
            "peak_bytes": row["peak_bytes"],
        }
    for way in ("held", "anew"):
        for clock in ("seconds", "cpu_seconds"):
            found[way][f"{clock}_ratio"] = found["plain"][clock] / found[way][clock]
    report(
        {
            "benchmark": "training",
            "batch": chosen.batch,
            "threads": chosen.threads or torch.get_num_threads(),
            **found,
        }
    )


if __name__ == "__main__":
    main()
