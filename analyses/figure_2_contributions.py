# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Figure 2: contributions of the hidden units of an image network
#
# After Figure 2 of Melander et al. (ICLR 2026), section 2: what the units of a layer do for the
# answer to one image, beside how active they are.
#
# - **A** the image;
# - **B** maps of activations and of contributions in an early, a middle and a late layer, in the
#   channels that contribute most;
# - **C** contributions of all channels, summed over places, in order of size; they add up to the
#   change of the target from a grey image to this one, up to the error that is given;
# - **D** how sparse maps are over places, contributions against activations, over many images.
#
# The same code serves the small networks of this repository and ImageNet:
#
#     python analyses/figure_2_contributions.py --out out
#     python analyses/figure_2_contributions.py --out out_resnet --data ILSVRC --model resnet50
#
# It tests that contributions are sparser over places than activations, in every layer, and that
# they add up to the target. `<out>/figure_2_contributions_claims.csv` says what was found. The
# maps of one image are an example, and test nothing.

# %%
"""Compute and draw activations and contributions of single units of an image network."""

import argparse
import re
from pathlib import Path

import numpy as np
import xarray as xr

import retina_codec as rc
from retina_codec.analysis import completeness_share, spatial_sparsity, unit_maps
from retina_codec.paper import some_inputs
from retina_codec.paper.claims import Claim, judge
from retina_codec.paper.script import run_figure, run_script
from retina_codec.paper.study import study_arguments, study_of

NAME = "figure_2_contributions"
FEW = 30  # images that are explained with finer steps
MOST_ERROR = 0.05  # of the change of the target; below it contributions are said to add up


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    study_arguments(parser)
    parser.add_argument("--image", type=int, default=0, help="number of the image that is shown")
    parser.add_argument("--layers", nargs="+", help="shown; first, middle, last block if left out")
    parser.add_argument("--steps", type=int, default=10, help="of the path integral")
    parser.add_argument("--fine-steps", type=int, default=100, help="of one that adds up better")
    parser.add_argument("--spatial", type=int, default=100, help="images for sparsity over places")
    return parser.parse_args(words)


# %% [markdown]
# ## Step 1: compute and save


# %%
def compute(options: argparse.Namespace, path: Path) -> None:
    """Explain one image unit by unit, and measure the sparsity of many; save both."""
    study = study_of(options)
    count = len(study.labels)
    if not 0 <= options.image < count:
        raise rc.RetinaCodecError(
            f"--image must be a number from 0 to {count - 1}; got {options.image}."
        )
    blocks = study.layers_of("blocks")
    shared = {
        "target": study.target,
        "method": study.path_integral(options.steps),
        "device": study.device,
    }
    maps = unit_maps(
        study.network,
        some_inputs(study.images, [options.image]),
        layers=options.layers or [blocks[0], blocks[len(blocks) // 2], blocks[-1]],
        **shared,
    )
    first = int(maps["prediction"].values.argmax())
    maps.attrs |= {
        "number": options.image,
        "label": str(study.labels[options.image]),
        "predicted": study.classes[first] if study.classes else str(first),
    }
    spread = np.linspace(0, count - 1, min(options.spatial, count)).round().astype(int)
    spatial = spatial_sparsity(
        study.network,
        some_inputs(study.images, spread.tolist()),
        seed=options.seed,
        **shared,
    )
    share = completeness_share(study.contributions(method=shared["method"]), seed=options.seed)
    fine = rc.contribute(
        study.network,
        some_inputs(study.images, spread[:: max(1, len(spread) // FEW)].tolist()),
        **shared | {"method": study.path_integral(options.fine_steps)},
    )
    maps["spatial"], maps["completeness"] = xr.DataTree(spatial), xr.DataTree(share)
    maps["finer"] = xr.DataTree(completeness_share(fine, seed=options.seed))
    maps["finer"].attrs["steps"] = options.fine_steps
    rc.save_tree(maps, path, overwrite=True)


# %% [markdown]
# ## Step 2: compare with what the paper says
#
# A claim about all layers holds if the 95 % interval of every layer lies on its side. Layers that
# do not cut the network (MLPs and attention beside a skip connection) need not add up to the
# target, and take no part in the last two claims; the paper has 10 steps.


# %%
def claims_of(tree: xr.DataTree) -> list[Claim]:
    """Judge what was measured."""
    spatial = tree["spatial"].to_dataset()
    scopes = {"places": "over the places of a channel's map", "units": "over all units of a layer"}
    found = [
        judge(
            f"sparse {scope}",
            "section 2, Fig. 2B, D",
            f"Contributions are spatially sparse compared with activations: {words}.",
            spatial["difference"].sel(scope=scope),
            spatial["difference_interval"].sel(scope=scope),
            low=0,
            measure="Hoyer sparsity of contributions less activations",
            places=[str(name) for name in spatial["layer"].values],
        )
        for scope, words in scopes.items()
    ]
    steps = {"completeness": tree.attrs["steps"], "finer": tree["finer"].attrs["steps"]}
    for node, count in steps.items():
        share = tree[node].to_dataset()
        share = share.isel(layer=np.flatnonzero(np.isfinite(share["share"])))
        complete = judge(
            f"complete, {count} steps",
            "section 2",
            f"Contributions of a layer add up to the scalar target; here with {count} steps.",
            share["share"],
            share["share_interval"],
            high=MOST_ERROR,
            measure="mean |error| over mean |change of the target|",
            places=[str(name) for name in share["layer"].values],
        )
        found.append(complete)
    return found


# %% [markdown]
# ## Step 3: draw what was saved


# %%
def draw(options: argparse.Namespace, tree: xr.DataTree) -> Path:
    """Draw the four panels; return the picture's path."""
    about = tree.attrs
    target = re.sub(r",? ?\w+=(None|False)", "", about["target"])
    words = (
        f"image {about['number']}, which shows: {about['label']}\n"
        f"the network says: {about['predicted']}\n"
        f"target {target} = {float(tree['target']):.3g}\n"
        f"{about['method']}, {about['steps']} steps"
    )
    picture: Path = options.out / f"{NAME}.png"
    rc.figures.plot_units(tree, tree["spatial"].to_dataset(), words).savefig(picture, dpi=150)
    return picture


# %%
def main(words: list[str] | None = None) -> None:
    """Run all steps."""
    print(run_figure(NAME, arguments(words), compute, claims_of, draw))


if __name__ == "__main__":
    run_script(main)
