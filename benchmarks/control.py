"""Control curves of an image network: how long, how specific, what running from the layer saves.

    python benchmarks/control.py --network digits_cnn

10 classes × 9 percentages × 20 trials × all layers, ablated and preserved, by contribution modes,
activation modes and random channels. The modes are found in scenes of the train part, the network
is asked about scenes of the test part. Prints one JSON line; times are those of the processor, so
that other work on the machine counts little.
"""

import argparse
import json
import time
from typing import Any

import numpy as np
import torch
import xarray as xr

import retina_codec as rc
from retina_codec.analysis.concepts.correlate import activation_tree
from retina_codec.analysis.control.curves import control_curves
from retina_codec.analysis.control.settings import ControlSettings
from retina_codec.images.digits import digit_scenes
from retina_codec.probing.from_layer import FromLayer
from retina_codec.probing.interventions import open_perturbed

SITES = ("blocks", "mlp", "attention")


def test_scenes(each: int, seed: int) -> xr.Dataset:
    """Return so many scenes of every digit."""
    scenes = digit_scenes("test", count=40 * each, seed=seed, progress=False)
    digit = scenes["label"].values.astype(str)
    chosen = [np.flatnonzero(digit == name)[:each] for name in np.unique(digit)]
    return scenes.isel(sample=np.sort(np.concatenate(chosen)))


def saving(network: Any, images: xr.DataArray, layer: str) -> float:
    """Time of a whole run over that of a run from the layer, for 8 sets of channels."""
    with open_perturbed(network, images, [layer]) as opened:
        point = torch.as_tensor(images.values[:32])
        resumed = FromLayer(opened.function, layer)
        kept, seconds = resumed.keep(point), []
        for run in (resumed.run_whole, resumed.run):
            run(kept, torch.clone, 8)
            start = time.process_time()
            for _ in range(3):
                run(kept, torch.clone, 8)
            seconds.append(time.process_time() - start)
    return seconds[0] / seconds[1]


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="digits_cnn")
    parser.add_argument("--explained", type=int, default=1000, help="train scenes")
    parser.add_argument("--each", type=int, default=20, help="test scenes of every class")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--layers", nargs="+", help="all when left out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", help="file for the curves (.nc)")
    options = parser.parse_args()
    module = rc.load_network(options.network)
    sites = SITES if type(module).__name__ == "SmallViT" else None
    network = rc.adapt(module, layers=options.layers or sites)
    scenes = digit_scenes("train", count=options.explained, seed=options.seed + 5, progress=False)
    method = rc.methods.IntegratedGradients(10, baseline=module.grey)
    explained = rc.contribute(network, scenes["image"], target=rc.targets.TopK(1), method=method)
    method = rc.modes.SparseAutoencoder(modes=32, active=3, restarts=1, seed=options.seed)
    modes = rc.decompose(explained, method, signs="excitatory", gap=0)
    active = rc.decompose(activation_tree(explained), method, signs="excitatory", gap=0)
    asked = test_scenes(options.each, options.seed + 7)
    wall, start = time.time(), time.process_time()
    found = control_curves(
        network, asked["image"], None, modes, activation_modes=active, seed=options.seed,
        settings=ControlSettings(trials=options.trials),
        mode_labels=scenes["label"].values.astype(str),
    )  # fmt: skip
    seconds, wall = time.process_time() - start, time.time() - wall
    if options.out:
        found.to_netcdf(options.out)
    layers = [str(name) for name in found["layer"].values]

    def rows(values: xr.DataArray, ends: xr.DataArray) -> dict[str, Any]:
        return {
            layer: [round(float(v), 3) for v in (values.sel(layer=layer), *ends.sel(layer=layer))]
            for layer in layers
        }

    print(json.dumps({
        "network": options.network,
        "control_processor_s": round(seconds, 1),
        "control_wall_s": round(wall, 1),
        "threads": torch.get_num_threads(),
        "images": len(asked["sample"]),
        "trials": options.trials,
        "layers": len(layers),
        "different_sets": found["different_sets"].values.tolist(),
        "resumed": found["resumed"].values.tolist(),
        "whole_over_resumed": {
            layers[k]: round(saving(network, asked["image"], layers[k]), 2)
            for k in (0, len(layers) // 2, -1)
        },
        "specificity": {
            f"{style}, {kind}": rows(one["estimate"], one["estimate_interval"])
            for style in found["style"].values
            for kind in found["selection"].values
            for one in [found.sel(style=style, selection=kind)]
        },
        "difference": {
            f"{style}, {pair}": rows(one["difference"], one["difference_interval"])
            for style in found["style"].values
            for pair in found["pair"].values
            for one in [found.sel(style=style, pair=pair)]
        },
    }, ensure_ascii=False))  # fmt: skip


if __name__ == "__main__":
    main()
