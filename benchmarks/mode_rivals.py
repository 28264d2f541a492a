"""Modes of contributions against other ways to take a layer apart, on the same work.

For every decomposition, fitted on contributions and on activations of the same train scenes:
specificity of the channels of a class's mode (`rc.analysis.control_curves`, on scenes of the test
part, held at 0 and at the mean), Pearson r of the class's mode with the class (train scenes, by
which it is chosen), likeness of the modes of two seeds, seconds of the fit. "channels by
class" fits nothing: channels in the order of their own correlation with the class;
"gradient-selected" chooses latents of the autoencoder of activations by activation × gradient, as
g-SAE does.

    python benchmarks/mode_rivals.py --network digits_cnn
"""

import argparse
import time
from typing import Any

import numpy as np
import xarray as xr
from control import test_scenes
from measure import report

import retina_codec as rc
from retina_codec.analysis import ControlSettings, activation_tree, control_curves
from retina_codec.images.digits import digit_scenes
from retina_codec.modes import (
    NMF,
    PCA,
    KMeans,
    RawChannels,
    SemiNMF,
    SparseAutoencoder,
    TopKAutoencoder,
)
from retina_codec.modes.scores.stability import agreement, cosine

HELD_AT = (0.0, "mean")
SEEDS = (0, 1)


def rivals(modes: int, seed: int) -> dict[str, Any]:
    """Decompositions by name."""
    return {
        "sparse autoencoder": SparseAutoencoder(modes=modes, active=3, seed=seed),
        "top-k autoencoder": TopKAutoencoder(modes=modes, active=3, seed=seed),
        "NMF": NMF(modes=modes, seed=seed),
        "semi-NMF": SemiNMF(modes=modes, seed=seed),
        "k-means": KMeans(modes=modes, seed=seed),
        "PCA": PCA(modes=modes),
        "one channel": RawChannels(),
    }


def dictionary_of(tree: xr.DataTree, layer: str) -> np.ndarray:
    """Modes of a layer, (mode, sign × channel)."""
    values = tree[f"layers/{layer}/modes/dictionary"].transpose("mode", "sign", "channel").values
    return values.reshape(len(values), -1)


def share_of(tree: xr.DataTree, layer: str) -> np.ndarray:
    """Squares that each mode rebuilds, (mode,)."""
    loading = tree[f"layers/{layer}/modes/loading"].transpose("sample", "mode").values
    return np.mean(loading**2, axis=0) * np.sum(dictionary_of(tree, layer) ** 2, axis=1)


def likeness(one: xr.DataTree, other: xr.DataTree, layer: str) -> float:
    """Mean cosine of the modes that explain 95 %, matched between two seeds."""
    found = agreement(
        cosine(dictionary_of(one, layer), dictionary_of(other, layer)),
        share_of(one, layer),
        share_of(other, layer),
    )
    return found.leading


def gradient_selected(active: xr.DataTree, gradients: xr.DataTree, layer: str) -> xr.DataTree:
    """Put activation × gradient of every latent in the place of its loading.

    A channel's gradient is its activation × gradient, summed over places, over its summed
    activation; that of a latent is the sum over its channels.
    """
    tree = active.copy()
    node = active[f"layers/{layer}/modes"].to_dataset()
    parts = gradients[f"layers/{layer}"].to_dataset()
    total = parts["contribution"].sum("sign").transpose("sample", "channel").values
    size = parts["activation"].transpose("sample", "channel").values
    slope = np.divide(total, size, out=np.zeros_like(total), where=np.abs(size) > 1e-9)
    weights = node["dictionary"].sum("sign").transpose("mode", "channel").values
    loading = node["loading"].transpose("sample", "mode")
    tree[f"layers/{layer}/modes"] = node.assign(loading=loading * (slope @ weights.T))
    return tree


def channels_by_class(tree: xr.DataTree, layer: str, labels: np.ndarray) -> xr.DataTree:
    """One "mode" per class without a fit: weight max(0, r of the channel with the class)."""
    node = tree[f"layers/{layer}"].to_dataset()
    values = node["contribution"].transpose("sample", "sign", "channel")
    flat = np.abs(values.values).reshape(len(values), -1)
    masks = np.stack([labels == name for name in np.unique(labels)])
    moving = flat.std(axis=0) > 0
    weights = np.zeros((len(masks), flat.shape[1]))
    weights[:, moving] = np.corrcoef(masks, flat[:, moving].T)[: len(masks), len(masks) :]
    weights = weights.clip(min=0)
    data = xr.Dataset(
        {
            "dictionary": (
                ("mode", "sign", "channel"),
                weights.reshape(len(masks), *values.shape[1:]),
            ),
            "loading": (("sample", "mode"), flat @ weights.T),
        },
        {"mode": np.arange(len(masks)), "sign": values["sign"], "channel": values["channel"]},
    ).assign_coords({"sample": values["sample"]})
    found = xr.DataTree.from_dict({f"layers/{layer}": tree[f"layers/{layer}"].to_dataset()})
    found[f"layers/{layer}/modes"] = xr.DataTree(data)
    found.attrs = tree.attrs
    return found


def judge(
    module: Any, modes: xr.DataTree, asked: xr.Dataset, labels: np.ndarray, seed: int
) -> dict[str, Any]:
    """Specificity of ablation and preservation of the modes' channels, with intervals."""
    row: dict[str, Any] = {}
    for held_at in HELD_AT:
        found = control_curves(
            module, asked["image"], None, modes, mode_labels=labels, seed=seed,
            settings=ControlSettings(by="contribution modes", trials=2, held_at=held_at),
            progress=False,
        )  # fmt: skip
        row["r_train"] = float(found["correlation"].isel(rank=0).mean())
        for style in found["style"].values:
            one = found.sel(style=style).squeeze()
            key = f"{style}, {'mean' if held_at == 'mean' else '0'}"
            row[key] = [float(v) for v in (one["estimate"], *one["estimate_interval"].values)]
    return row


def main() -> None:
    """Run from the command line."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--network", default="digits_cnn")
    options.add_argument("--layers", nargs="+", default=["stage3.1", "stage4.1"])
    options.add_argument("--explained", type=int, default=600, help="train scenes")
    options.add_argument("--each", type=int, default=20, help="test scenes of every class")
    options.add_argument("--modes", type=int, default=24)
    options.add_argument("--seed", type=int, default=0)
    chosen = options.parse_args()
    module = rc.load_network(chosen.network)
    scenes = digit_scenes("train", count=chosen.explained, seed=chosen.seed + 5, progress=False)
    labels = scenes["label"].values.astype(str)
    asked = test_scenes(chosen.each, chosen.seed + 7)
    path = rc.methods.IntegratedGradients(10, baseline=module.grey)

    def explain(method: Any) -> xr.DataTree:
        return rc.contribute(
            module, scenes["image"], layers=chosen.layers, target=rc.targets.TopK(1),
            method=method, progress=False,
        )  # fmt: skip

    explained, gradients = explain(path), explain(rc.methods.ActGrad())
    trees = {"contributions": explained, "activations": activation_tree(explained)}
    rows = []
    for name in rivals(chosen.modes, 0):
        for kind, tree in trees.items():
            start = time.process_time()
            fits = [
                rc.decompose(
                    tree,
                    rivals(chosen.modes, seed)[name],
                    signs="excitatory",
                    gap=0,
                    progress=False,
                )
                for seed in SEEDS
            ]
            seconds = (time.process_time() - start) / len(SEEDS)
            for layer in chosen.layers:
                kept = xr.DataTree.from_dict(
                    {f"layers/{layer}": fits[0][f"layers/{layer}"]}, name=None
                )
                kept.attrs = fits[0].attrs
                row = {"list": f"{name}, {kind}", "layer": layer, "seconds": seconds}
                row["seeds"] = likeness(*fits, layer)
                variants = {"": kept}
                if name == "sparse autoencoder" and kind == "activations":
                    variants["gradient-selected"] = gradient_selected(kept, gradients, layer)
                for variant, one in variants.items():
                    judged = judge(module, one, asked, labels, chosen.seed)
                    label = f"{row['list']}, {variant}" if variant else row["list"]
                    rows.append(row | judged | {"list": label})
    for kind, tree in trees.items():
        for layer in chosen.layers:
            start = time.process_time()
            one = channels_by_class(tree, layer, labels)
            row = {"list": f"channels by class, {kind}", "layer": layer, "seeds": 1.0}
            row["seconds"] = time.process_time() - start
            rows.append(row | judge(module, one, asked, labels, chosen.seed))
    report({"benchmark": "mode_rivals", "network": chosen.network, "rows": rows})


if __name__ == "__main__":
    main()
