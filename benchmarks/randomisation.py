"""Do modes, pathways and circuits belong to the trained weights? Shuffled from last layer to first.

For every seed the weights of conv3, then conv2 too, then conv1 too are shuffled within their layer,
and the same movie is explained. Likeness to the trained network: modes by loadings, cells by
pairs of cells, circuits by r of the mean edges; beside the null of `rc.analysis.reproducibility`.

    python benchmarks/randomisation.py --network insilico --seeds 5
"""

import argparse
import copy
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from measure import report

import retina_codec as rc
from retina_codec.analysis import circuit, reproducibility
from retina_codec.modes.scores.network import shuffled_network

ORDER = ("conv3", "conv2", "conv1")  # from the last layer to the first
EXPLAINED = ("conv1", "conv2")
CIRCUIT_SECONDS = 2.0


def shuffled(network: Any, count: int, seed: int) -> Any:
    """Copy a network; the kernels of its last layers are dealt anew within each layer."""
    other = copy.deepcopy(network)
    for place, name in enumerate(ORDER[:count]):
        own = other.get_submodule(name)
        setattr(other, name, shuffled_network(own, None, len(ORDER) * seed + place))
    return other


def explain(network: Any, split: Any, seed: int) -> xr.DataTree:
    """Contributions, modes and pathways of both hidden layers, and the mean edges between them."""
    explained = rc.contribute(
        network,
        split,
        target=rc.targets.Surprisal(shrinkage="ledoit-wolf"),
        method=rc.methods.IntegratedGradients(8),
        layers=list(EXPLAINED),
        progress=False,
    )
    method = rc.modes.SparseAutoencoder(modes=32, active=3, restarts=1, seed=seed)
    found = rc.decompose(explained, method, progress=False)
    return rc.find_pathways(found, description="correlation", seed=seed, progress=False)


def edges(network: Any, split: Any) -> np.ndarray:
    """Mean size of the edges from conv1 to conv2, (source, target)."""
    bins = network.history + round(CIRCUIT_SECONDS * network.frame_rate)
    part = split.to_dataset().isel(time=slice(0, bins))
    target = rc.targets.Surprisal(shrinkage="ledoit-wolf")
    tree = circuit(network, part, target=target, steps=4, progress=False)
    values = tree["edges/conv2/contribution"].transpose("time", "source", "target").values
    return np.abs(values).mean(axis=0)


def summary(values: list[float]) -> list[float]:
    """Mean over seeds with the smallest and the largest."""
    return [float(np.mean(values)), float(np.min(values)), float(np.max(values))]


def main() -> None:
    """Run from the command line."""
    options = argparse.ArgumentParser(description="modes and circuits of shuffled networks")
    options.add_argument("--network", default="insilico", help="its folder ends in _SEED, if any")
    options.add_argument("--movie", type=int, default=2)
    options.add_argument("--seconds", type=float, default=20.0)
    options.add_argument("--seeds", type=int, default=5, help="shuffles")
    chosen = options.parse_args()
    network = rc.load_network(chosen.network)
    name = Path(chosen.network).name
    recording, _ = rc.simulate_retina(
        int(name.split("_")[-1]) if "_" in name else 0,
        stimulus_seed=chosen.movie,
        train_duration=0,
        test_duration=chosen.seconds,
        progress=False,
    )
    split = recording["test"]
    trained, mean_edges = explain(network, split, 0), edges(network, split)
    rows = []
    for count in range(len(ORDER) + 1):
        found: dict[str, list[float]] = {}
        for seed in range(chosen.seeds):
            other = shuffled(network, count, seed)
            table = reproducibility(trained, explain(other, split, seed + 1), seed=seed)
            for layer in EXPLAINED:
                for what in ("modes", "similarity"):
                    one = table.sel(layer=layer, quantity=what)
                    found.setdefault(f"{what}, {layer}", []).append(float(one["agreement"]))
                    found.setdefault(f"{what}, {layer}, chance", []).append(float(one["null_high"]))
            r = np.corrcoef(mean_edges.ravel(), edges(other, split).ravel())[0, 1]
            found.setdefault("edges", []).append(float(r))
        rows.append(
            {"shuffled": list(ORDER[:count])} | {key: summary(v) for key, v in found.items()}
        )
    report({"benchmark": "randomisation", "network": name, "movie": chosen.movie, "rows": rows})


if __name__ == "__main__":
    main()
