"""Do maps of modes lie on the object? Share of a map on the digit over its share of the image.

    python benchmarks/mode_localisation.py --network digits_cnn

For every class the mode that goes with it best, and the images of the class that load it most; 1 is
a map that does not know where the digit is. Prints one JSON line.
"""

import argparse
import json

import numpy as np
import torch
import xarray as xr

import retina_codec as rc
from retina_codec.analysis.concepts.correlate import correlate_concepts
from retina_codec.analysis.concepts.table import concept_table
from retina_codec.analysis.gallery.gallery import top_images
from retina_codec.analysis.gallery.maps import mode_maps
from retina_codec.images.digits import digit_scenes
from retina_codec.methods.base import Method
from retina_codec.networks.checkpoints import load_network


def squares(scenes: xr.Dataset) -> np.ndarray:
    """Return where the digit of every scene may be, bool (sample, y, x)."""
    side = np.arange(scenes.sizes["y"])
    half = scenes["digit_size"].values[:, None] / 2
    y = np.abs(side - scenes["digit_y"].values[:, None]) <= half
    x = np.abs(side - scenes["digit_x"].values[:, None]) <= half
    return np.asarray(y[:, :, None] & x[:, None])


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="digits_cnn")
    parser.add_argument("--count", type=int, default=600, help="test scenes")
    parser.add_argument("--images", type=int, default=12, help="per class")
    parser.add_argument("--layers", nargs="+", default=["stage2.1", "stage4.1"])
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    network = load_network(options.network).eval()
    scenes = digit_scenes("test", count=options.count, seed=options.seed)
    images, inside = scenes["image"], squares(scenes)
    explained = rc.contribute(
        network,
        images,
        target=rc.targets.TopK(1),
        method=rc.methods.IntegratedGradients(steps=10),
        layers=options.layers,
    )
    modes = rc.decompose(explained, rc.modes.NMF(modes=32), signs="excitatory", gap=0)
    found = correlate_concepts(
        modes, concept_table(scenes["label"]), of="modes", permutations=1, bootstraps=1
    )
    mean = torch.tensor(images.values.mean((0, 2, 3)))[:, None, None].expand(images.shape[1:])
    methods: dict[str, Method] = {
        "input_grad": rc.methods.InputGrad(),
        "input_grad_from_mean": rc.methods.InputGrad(mean),
        "integrated_gradients_10": rc.methods.IntegratedGradients(10),
        "integrated_gradients_10_from_mean": rc.methods.IntegratedGradients(10, baseline=mean),
    }
    result: dict[str, object] = {"benchmark": "mode_localisation", **vars(options)}
    for layer in options.layers:
        best = found[f"layers/{layer}/modes"].to_dataset()["best_feature"]
        for name, method in methods.items():
            gain: list[float] = []
            for label in best["concept"].values:
                mode = int(best.sel(concept=label))
                top = top_images(modes, layer, mode, classes=[label], per_class=options.images)
                place = top["position"].values.ravel()
                place = place[place >= 0]
                maps = mode_maps(network, images, modes, layer, mode, samples=place, method=method)
                used = maps["map"].mean("color").values.clip(min=0)
                total = used.sum((1, 2))
                share = (used * inside[place]).sum((1, 2))[total > 0] / total[total > 0]
                gain += (share / inside[place].mean((1, 2))[total > 0]).tolist()
            error = np.std(gain, ddof=1) / np.sqrt(len(gain))
            result[f"{layer}_{name}"] = [round(float(np.mean(gain)), 3), round(float(error), 3)]
    print(json.dumps(result))


if __name__ == "__main__":
    main()
