"""Are pathways the true cell types? Retinas and movies that no method was made on.

For each network (a folder of `models/train_insilico.py`, fitted to its own simulated retina) and
movie: contributions, modes and own contributions as `analyze` does by default, then pathways; the
number of pathways is chosen from the data. Told per layer:

- ``k``, the number found, beside ``types``, the true one;
- ``ari``, the adjusted Rand index of pathways and true types, with the middle 95 % over resampled
  time, and ``table``, cells per type (row) and pathway (column);
- the same for the other description of a cell: correlations of its rate with the modes.

``modes_r2`` is how much of each cell's own contributions the modes can tell (mean over cells), and
``r_over_ceiling`` how well the network predicts this movie. The retina is taken from the network's
training record and the order of its cells' types; the movie it was fitted to is refused. Prints one
JSON line.

    python benchmarks/pathways.py retinas/1 retinas/2 retinas/3 --movies 2
"""

import argparse
import re
from collections import Counter
from typing import Any

import numpy as np
import xarray as xr
from measure import report

import retina_codec as rc
from retina_codec.analysis.pathways.own import own_contributions
from retina_codec.analysis.pathways.prediction import agreement
from retina_codec.networks.retina.model import RetinaCNN

LAYERS = ("conv1", "conv2")
DESCRIPTIONS = ("own", "correlation")


def retina_of(network: RetinaCNN) -> tuple[int, int, dict[str, int]]:
    """Return seed of the retina, seed of the training movie, and cells per type."""
    session = str(network.training_record.get("session", ""))
    found = re.match(r"insilico retina (\d+), movie (\d+)", session)
    if not found:
        raise rc.RetinaCodecError(
            f"the network must be fitted to a simulated retina; its session is {session!r}. "
            "Make one by models/train_insilico.py."
        )
    return int(found[1]), int(found[2]), dict(Counter(network.cell_types))


def described(results: xr.DataTree, layer: str, network: RetinaCNN) -> dict[str, Any]:
    """Hold the pathways of one layer against the true types."""
    found = results[f"layers/{layer}/pathways"].to_dataset()
    judged = results["pathways"].to_dataset().sel(layer=layer)
    pathway = found["pathway"].sel(cell=list(network.cells)).values
    types = np.array(network.cell_types)
    table = {
        kind: np.bincount(pathway[types == kind], minlength=pathway.max() + 1).tolist()
        for kind in dict.fromkeys(network.cell_types)
    }
    return {
        "k": int(found.attrs["k"]),
        "ari": float(judged["type_agreement"]),
        "ari_interval": judged["type_agreement_interval"].values.tolist(),
        "table": table,
    }


def one_movie(folder: str, movie: int, duration: float, seed: int) -> dict[str, Any]:
    """Explain a network's responses to one movie and judge its pathways."""
    network = rc.load_network(folder)
    retina, shown, types = retina_of(network)
    if movie == shown:
        raise rc.RetinaCodecError(f"movie {movie} was used to fit {folder}; take another one.")
    recording, _ = rc.simulate_retina(
        retina,
        stimulus_seed=movie,
        train_duration=0,
        test_duration=duration,
        ganglion_types=types,
    )
    explained = rc.contribute(
        network,
        recording["test"],
        target=rc.targets.Surprisal(),
        method=rc.methods.IntegratedGradients(steps=20),
        layers=list(LAYERS),
    )
    modes = rc.decompose(
        explained,
        rc.modes.SparseAutoencoder(modes=32, active=3, seed=seed),
        held_out=0.25,
        gap=max(40, network.history),
    )
    modes = own_contributions(network, recording["test"], modes, windows=240, seed=seed)
    trees = {name: rc.find_pathways(modes, description=name, seed=seed) for name in DESCRIPTIONS}
    quality = agreement(explained["responses/prediction"], recording["test"])
    share = quality["pearson"] / quality["noise_ceiling"]
    return {
        "network": folder,
        "retina": retina,
        "movie": movie,
        "types": len(types),
        "cells": len(network.cells),
        "r_over_ceiling": float(share.mean()),
        "layers": {
            layer: {
                "modes_r2": float(modes[f"layers/{layer}/own/r2"].mean()),
                **{name: described(tree, layer, network) for name, tree in trees.items()},
            }
            for layer in LAYERS
        },
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and least ARI over networks and movies, and how often k is the number of types."""
    found: dict[str, Any] = {}
    for layer in LAYERS:
        for name in DESCRIPTIONS:
            each = [row["layers"][layer][name] for row in rows]
            index = [one["ari"] for one in each]
            found[f"{layer} {name}"] = {
                "mean": float(np.mean(index)),
                "least": float(np.min(index)),
                "k_right": sum(
                    one["k"] == row["types"] for one, row in zip(each, rows, strict=True)
                ),
                "of": len(rows),
            }
    return found


def main() -> None:
    """Run from the command line."""
    options = argparse.ArgumentParser(description="pathways against true cell types")
    options.add_argument("networks", nargs="+", help="folders made by models/train_insilico.py")
    options.add_argument("--movies", type=int, nargs="+", default=[2], help="stimulus seeds")
    options.add_argument("--duration", type=float, default=60.0, help="s of each movie")
    options.add_argument("--seed", type=int, default=0, help="of modes, times and k-means")
    chosen = options.parse_args()
    rows = [
        one_movie(folder, movie, chosen.duration, chosen.seed)
        for folder in chosen.networks
        for movie in chosen.movies
    ]
    report({"benchmark": "pathways", "summary": summary(rows), "rows": rows})


if __name__ == "__main__":
    main()
