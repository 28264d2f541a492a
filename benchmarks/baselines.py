"""Where paths begin: how far contributions, modes and control depend on the baseline.

    python benchmarks/baselines.py --network digits_cnn

Integrated gradients of the same scenes from black, mean grey, a blurred copy of each image, and
the mean image. For every pair: Pearson r of channel contributions over channels, image by image
(median over layers), and cosine of modes matched one to one (those that explain 95 %, median over
layers), beside that of two fits from different seeds and of modes whose entries are shuffled. For
each: specificity of control on other scenes, by ablating the channels of each class's mode, held
at 0 and at their mean. Prints one JSON line.
"""

import argparse
import json
import time
from itertools import combinations
from typing import Any

import numpy as np
import xarray as xr
from scipy.ndimage import gaussian_filter

import retina_codec as rc
from retina_codec.analysis.control.curves import control_curves
from retina_codec.analysis.control.settings import ControlSettings
from retina_codec.images.digits import digit_scenes
from retina_codec.modes.scores.stability import agreement, cosine, shuffled_modes
from retina_codec.statistics.correlation import paired_correlations
from retina_codec.statistics.resampling import percentiles, resampled_means

SITES = ("blocks", "mlp", "attention")

BLUR = 4.0  # pixels, standard deviation


def blurred(image: np.ndarray) -> np.ndarray:
    """Return an image (color, y, x) without its details."""
    smooth: np.ndarray = gaussian_filter(image, (0, BLUR, BLUR), mode="nearest")
    return smooth


def net(tree: xr.DataTree, layer: str) -> np.ndarray:
    """Return channel contributions (image, channel), both signs together."""
    found: np.ndarray = tree[f"layers/{layer}/contribution"].sum("sign").values.astype(float)
    return found


def rows(tree: xr.DataTree, layer: str) -> tuple[np.ndarray, np.ndarray]:
    """Return modes (mode, feature) and how much each explains."""
    modes = tree[f"layers/{layer}/modes"].to_dataset()
    dictionary = modes["dictionary"].transpose("mode", "sign", "channel").values
    share = abs(modes["loading"]).sum("sample") * abs(modes["dictionary"]).sum(("sign", "channel"))
    return dictionary.reshape(len(dictionary), -1).astype(float), share.values


def alike(
    one: xr.DataTree,
    other: xr.DataTree,
    layers: list[str],
    random: np.random.Generator | None = None,
) -> list[float]:
    """Return the likeness of modes, matched one to one, of every layer; shuffled if asked for."""
    found = []
    for layer in layers:
        (a, share), (b, other_share) = rows(one, layer), rows(other, layer)
        b = b if random is None else shuffled_modes(b, random)
        found.append(agreement(cosine(a, b), share, other_share).leading)
    return found


def middle(values: np.ndarray | list[float]) -> float:
    """Return the median, rounded."""
    return round(float(np.median(values)), 3)


def correlated(one: xr.DataTree, other: xr.DataTree, layers: list[str], seed: int) -> list[float]:
    """Return the median r over layers, its ends (95 %, over images), the lowest and highest."""
    each = np.stack([paired_correlations(net(one, n), net(other, n)) for n in layers], 1)
    drawn = np.median(resampled_means(each, 1000, seed), 1)
    mean = np.nanmean(each, 0)
    ends = percentiles(drawn[:, None])[0]
    return [round(float(v), 3) for v in (np.median(mean), *ends, mean.min(), mean.max())]


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="digits_cnn")
    parser.add_argument("--explained", type=int, default=300, help="train scenes")
    parser.add_argument("--asked", type=int, default=200, help="test scenes")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--modes", type=int, default=32)
    parser.add_argument("--control", nargs="*", help="layers to intervene in; all when left out")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    start = time.process_time()
    module = rc.load_network(options.network)
    network = rc.adapt(module, layers=SITES if type(module).__name__ == "SmallViT" else None)
    scenes = digit_scenes("train", count=options.explained, seed=options.seed + 5, progress=False)
    asked = digit_scenes("test", count=options.asked, seed=options.seed + 7, progress=False)
    baselines: dict[str, Any] = {
        "black": 0.0, "grey": module.grey, "blurred": blurred, "mean image": "mean",
    }  # fmt: skip
    explained = {
        name: rc.contribute(
            network, scenes["image"], target=rc.targets.TopK(1), progress=False,
            method=rc.methods.IntegratedGradients(options.steps, baseline=baseline),
        )
        for name, baseline in baselines.items()
    }  # fmt: skip
    layers = list(next(iter(explained.values()))["layers"].children)

    def fitted(tree: xr.DataTree, seed: int) -> xr.DataTree:
        method = rc.modes.SparseAutoencoder(modes=options.modes, active=3, restarts=1, seed=seed)
        return rc.decompose(tree, method, signs="excitatory", gap=0, progress=False)

    modes = {name: fitted(tree, options.seed) for name, tree in explained.items()}
    again = {name: fitted(tree, options.seed + 1) for name, tree in explained.items()}

    def curves(tree: xr.DataTree, held_at: Any) -> xr.Dataset:
        settings = ControlSettings(
            by="contribution modes", style="ablate", held_at=held_at, trials=2, bootstraps=500
        )
        return control_curves(
            network, asked["image"], asked["label"].values, tree, layers=options.control or None,
            settings=settings, mode_labels=scenes["label"].values, seed=options.seed,
            progress=False,
        )  # fmt: skip

    control = {
        f"{name}, held at {held_at}": curves(tree, held_at)
        for name, tree in modes.items()
        for held_at in (0.0, "mean")
    }
    print(json.dumps({
        "network": options.network,
        "explained": len(scenes["sample"]),
        "asked": len(asked["sample"]),
        "steps": options.steps,
        "layers": layers,
        "completeness": {
            name: middle(rc.analysis.completeness_share(tree)["share"].dropna("layer").values)
            for name, tree in explained.items()
        },
        "correlation": {
            f"{a}, {b}": correlated(explained[a], explained[b], layers, options.seed)
            for a, b in combinations(baselines, 2)
        },
        "modes": {
            f"{a}, {b}": middle(alike(modes[a], modes[b], layers))
            for a, b in combinations(baselines, 2)
        },
        "modes_other_seed": {
            name: middle(alike(modes[name], again[name], layers)) for name in baselines
        },
        "modes_shuffled": {
            f"{a}, {b}": middle(
                alike(modes[a], modes[b], layers, np.random.default_rng(options.seed))
            )
            for a, b in combinations(baselines, 2)
        },
        "specificity": {
            name: {
                str(layer): [
                    round(float(v), 3)
                    for v in (one["estimate"], *one["estimate_interval"].values.ravel())
                ]
                for layer in found["layer"].values
                for one in [found.sel(layer=layer).squeeze()]
            }
            for name, found in control.items()
        },
        "processor_s": round(time.process_time() - start, 1),
    }, ensure_ascii=False))  # fmt: skip


if __name__ == "__main__":
    main()
