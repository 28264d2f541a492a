# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Figure S1: other methods, other targets
#
# After Figure S1 and section 2 of Melander et al. (ICLR 2026): contributions of the same images by
# six methods and to five targets. One method is changed at the standard target, one target at the
# standard method, and all pairs are measured:
#
# - **A** Hoyer sparsity of maps over places, by layer, for every method and target, and that of
#   activations;
# - **B** the same over channels, of contributions summed over places;
# - **C** agreement: correlation over channels with the standard (integrated gradients of the
#   top logit), image by image;
# - **D** how far contributions are from adding up, for methods whose sum is known.
#
# The same code serves the small networks of this repository and ImageNet:
#
#     python analyses/figure_s1_methods.py --out out
#     python analyses/figure_s1_methods.py --out out_resnet --data ILSVRC --model resnet50
#
# Fewer images are explained than for the other figures, and only the results are kept.
#
# One thing to know before looking at the last block: where a network averages over places before
# its last linear layer, the gradient of a logit is the same at all places of a channel. There
# activation × gradient has the map of the activation itself, and cannot be sparser over places.

# %%
"""Compute and draw what methods and targets have in common."""

import argparse
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import retina_codec as rc
from retina_codec.analysis import (
    completeness_share,
    measure_contributions,
    method_agreement,
    spatial_sparsity,
)
from retina_codec.paper import progress_bar, some_inputs
from retina_codec.paper.claims import Claim, judge
from retina_codec.paper.script import run_figure, run_script
from retina_codec.paper.study import study_arguments, study_of

NAME = "figure_s1_methods"
STANDARD = "integrated gradients"
TARGETS: dict[str, Any] = {
    "top logit": rc.targets.TopK(1),
    "top 5 logits": rc.targets.TopK(5),
    "entropy": rc.targets.Entropy(),
    "contrast": rc.targets.Contrast(),
    "probability": rc.targets.Probability(),
}


def methods_of(steps: int, grey: float = 0.0) -> dict[str, Any]:
    """Name the methods, path integrals with so many steps from grey."""
    return {
        "integrated gradients": rc.methods.IntegratedGradients(steps, baseline=grey),
        "hidden path": rc.methods.IntegratedGradients(steps, path="hidden", baseline=grey),
        "activation × gradient": rc.methods.ActGrad(),
        "normalised": rc.methods.ActNormGrad(),
        "input × gradient": rc.methods.InputGrad(grey),
        "smooth gradient": rc.methods.SmoothGrad(),
    }


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    study_arguments(parser, count=40)
    parser.add_argument("--steps", type=int, default=10, help="of the path integrals")
    parser.add_argument("--spatial", type=int, default=16, help="images for sparsity over places")
    parser.add_argument("--methods", nargs="+", choices=list(methods_of(1)), help="all if left out")
    parser.add_argument("--targets", nargs="+", choices=list(TARGETS), help="all if left out")
    return parser.parse_args(words)


# %% [markdown]
# ## Step 1: compute and save


# %%
def compute(options: argparse.Namespace, path: Path) -> None:
    """Explain the images in every way, measure, and save one table by run and layer."""
    study = study_of(options)
    methods, targets = methods_of(options.steps, study.grey), TARGETS
    usual = next(name for name, target in TARGETS.items() if target == study.target)
    if options.methods:
        methods = {name: methods[name] for name in dict.fromkeys([STANDARD, *options.methods])}
    if options.targets:
        targets = {name: targets[name] for name in dict.fromkeys([usual, *options.targets])}
    layers = list(study.layers_of("blocks"))
    spread = np.linspace(0, len(study.labels) - 1, min(options.spatial, len(study.labels)))
    some = some_inputs(study.images, spread.round().astype(int).tolist())
    pairs = list(product(methods, targets))
    runs: dict[str, xr.DataTree] = {}
    tables = []
    for method, target in progress_bar(pairs, description="methods and targets"):
        chosen = {"target": targets[target], "method": methods[method]}
        tree = runs[name_of(method, target)] = rc.contribute(
            study.network, study.images, layers=layers, device=study.device, progress=False,
            **chosen,
        )  # fmt: skip
        spatial = spatial_sparsity(
            study.network,
            some,
            layers=layers,
            seed=options.seed,
            device=study.device,
            progress=False,
            **chosen,
        ).sel(scope="places", drop=True)
        channels = measure_contributions(
            tree, layers=layers, class_draws=1, seed=options.seed, progress=False
        )
        share = completeness_share(tree, seed=options.seed)
        keep = ["sparsity", "sparsity_interval", "difference", "difference_interval"]
        flat = channels[keep].sel(quantity=["contribution", "activation"])
        flat = flat.assign({k: flat[k].sel(quantity="contribution", drop=True) for k in keep[2:]})
        tables.append(
            xr.merge(
                [
                    spatial[keep].rename({key: f"map_{key}" for key in keep}),
                    flat.rename({key: f"channel_{key}" for key in keep}),
                    share,
                ],
                compat="equals",
            )
        )
    names = [name_of(*pair) for pair in pairs]
    table = xr.concat(tables, xr.DataArray(names, dims="run", name="run"))
    table = table.assign_coords(
        method=("run", [m for m, _ in pairs]), target=("run", [t for _, t in pairs])
    )
    agreement = method_agreement(runs, layers=layers, seed=options.seed)
    about = {"images": len(study.labels), "images_of_maps": len(spread), "steps": options.steps}
    about |= {"method": STANDARD, "target": usual}
    tree = xr.DataTree.from_dict(
        {"/": xr.Dataset(attrs=about), "/runs": table, "/agreement": agreement}
    )
    rc.save_tree(tree, path, overwrite=True)


def name_of(method: str, target: str) -> str:
    """Name a run."""
    return f"{method}, {target}"


# %% [markdown]
# ## Step 2: compare with what the paper says
#
# A claim holds if the 95 % interval of every method, target and block lies above 0.


# %%
def claims_of(tree: xr.DataTree) -> list[Claim]:
    """Judge what was measured."""
    runs = tree["runs"].to_dataset()
    places = [f"{run}, {layer}" for run in runs["run"].values for layer in runs["layer"].values]
    says = {
        "map": "Whatever the method and target, contributions are spatially sparse compared with "
        "activations.",
        "channel": "The same over channels, of contributions summed over places.",
    }
    return [
        judge(
            f"sparse {kind}s",
            "section 2, Fig. S1A",
            text,
            runs[f"{kind}_difference"].values.ravel(),
            runs[f"{kind}_difference_interval"].values.reshape(-1, 2),
            low=0,
            measure="Hoyer sparsity of contributions less activations",
            places=places,
        )
        for kind, text in says.items()
    ]


# %% [markdown]
# ## Step 3: draw what was saved


# %%
def draw(options: argparse.Namespace, tree: xr.DataTree) -> Path:
    """Draw the five panels; return the picture's path."""
    from retina_codec.paper.figures.methods import plot_methods

    tables = [tree[node].to_dataset() for node in ("runs", "agreement")]
    figure = plot_methods(*tables, tree.attrs["method"], tree.attrs["target"])
    picture: Path = options.out / f"{NAME}.png"
    figure.savefig(picture, dpi=150)
    return picture


# %%
def main(words: list[str] | None = None) -> None:
    """Run all steps."""
    print(run_figure(NAME, arguments(words), compute, claims_of, draw))


if __name__ == "__main__":
    run_script(main)
