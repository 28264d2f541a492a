# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Figure 3: contributions from the first layer to the last
#
# After Figure 3 of Melander et al. (ICLR 2026), section 3:
#
# - **A** contributions of channels to images sorted by class, in an early and a late block. One
#   half of the images orders the channels, the other half is shown;
# - **B** Hoyer sparsity over channels, contributions and activations; beside it the same after the
#   mean over images is taken away from each;
# - **C** excitation C⁺ and inhibition |C⁻| of a channel in an image, early and late;
# - **D** their correlation over channels, block by block;
# - **E** principal components that reach 95 % of the variance of class averages.
#
# The same code serves the small networks of this repository and ImageNet:
#
#     python analyses/figure_3_layers.py --out out
#     python analyses/figure_3_layers.py --out out_r --data ILSVRC --model resnet50 --count 50000
#
# It tests all findings of section 3. Two limits of digits: ten classes differ in at most nine
# directions, where those of ImageNet can differ in 999; and eight blocks leave less room for trends
# than sixteen. A trend is the change from first to last block along the fitted line.
#
# A vector that is the same for every image (a bias, an outlier channel) can make activations look
# sparse, although it says nothing about any image. So we ask a second time, of the deviations from
# the mean over images, whether contributions are sparser; this control is ours, not the paper's.

# %%
"""Compute and draw sparsity, balance of signs and dimensionality of contributions by layer."""

import argparse
from pathlib import Path

import xarray as xr

import retina_codec as rc
from retina_codec.analysis import channel_matrix, depth_trends, measure_contributions, sign_pairs
from retina_codec.paper.claims import Claim, judge
from retina_codec.paper.script import run_figure, run_script
from retina_codec.paper.study import study_arguments, study_of

NAME = "figure_3_layers"
HIGH = 0.5  # Pearson r above which signs are said to be highly correlated


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    study_arguments(parser)
    parser.add_argument("--steps", type=int, default=10, help="of the path integral")
    parser.add_argument("--early", help="block of panels A and C; the first one if left out")
    parser.add_argument("--late", help="block of panels A and C; the last one if left out")
    parser.add_argument("--bootstraps", type=int, default=1000, help="draws of images")
    return parser.parse_args(words)


# %% [markdown]
# ## Step 1: compute and save


# %%
def compute(options: argparse.Namespace, path: Path) -> None:
    """Explain all images, gather the statistics of all blocks, and save them."""
    study = study_of(options)
    tree = study.contributions(method=study.path_integral(options.steps))
    blocks = list(study.layers_of("blocks"))
    shared = {"layers": blocks, "bootstraps": options.bootstraps, "seed": options.seed}
    nodes = {
        "/": xr.Dataset(attrs=dict(tree.attrs)),
        "/statistics": measure_contributions(tree, **shared),
        "/trends": depth_trends(tree, **shared),
    }
    chosen = {"early": options.early or blocks[0], "late": options.late or blocks[-1]}
    for place, layer in chosen.items():
        nodes[f"/matrix/{place}"] = channel_matrix(tree, layer)
        nodes[f"/pairs/{place}"] = sign_pairs(tree, layer, seed=options.seed)
    rc.save_tree(xr.DataTree.from_dict(nodes), path, overwrite=True)


# %% [markdown]
# ## Step 2: compare with what the paper says
#
# A claim about all layers holds if the 95 % interval of every layer lies on its side; a trend, if
# its interval does.


# %%
def change_of(
    trend: xr.Dataset, name: str, says: str, key: str, measure: str, **rule: float
) -> Claim:
    """Judge the change of a number from first to last block."""
    about = (name, "section 3, Fig. 3", says)
    if key not in trend:
        return judge(*about, low=0, measure="no labels")
    words = f"change of {measure} from first to last block"
    return judge(*about, trend[key], trend[f"{key}_interval"], measure=words, **rule)


def excess_of(
    found: xr.Dataset,
    name: str,
    says: str,
    key: str,
    measure: str,
    source: str = "section 3, Fig. 3",
) -> Claim:
    """Judge the difference of contributions to activations in every block."""
    if key not in found:
        return judge(name, source, says, low=0, measure="no labels")
    here = found.sel(quantity="contribution")
    words = f"{measure} of contributions less activations"
    places = [str(layer) for layer in found["layer"].values]
    ends = here[f"{key}_interval"]
    return judge(name, source, says, here[key], ends, low=0, measure=words, places=places)


def claims_of(tree: xr.DataTree) -> list[Claim]:
    """Judge what was measured."""
    found = tree["statistics"].to_dataset()
    trend = tree["trends"].to_dataset().isel(site=0)
    own = {name: trend.sel(quantity=name) for name in ("contribution", "activation")}
    rises = (
        ("dimensions", "Dimensionality of {}s increases through the network.", "components",
         "components to 95 % of variance"),
        ("participation ratio", "The same of {}s, by a measure that is not a whole number.",
         "participation_ratio", "participation ratio"),
    )  # fmt: skip
    return [
        excess_of(
            found,
            "sparser",
            "At all layers contributions are sparser over channels than activations.",
            "difference",
            "Hoyer sparsity",
        ),
        excess_of(
            found,
            "varying part sparser",
            "So is what varies with the image: contributions less their mean over images are "
            "sparser than activations less theirs.",
            "varying_difference",
            "Hoyer sparsity less the mean",
            "control of ours",
        ),
        change_of(
            own["contribution"],
            "sparsity rises",
            "Contributions increase in sparsity throughout the network.",
            "sparsity",
            "Hoyer sparsity",
            low=0,
        ),
        judge(
            "signs agree early",
            "section 3, Fig. 3C",
            "In early layers the signs of a channel's contributions are highly correlated.",
            found["sign_correlation"][0],
            found["sign_correlation_interval"][0],
            low=HIGH,
            measure=f"Pearson r of C⁺ and |C⁻| in {found['layer'].values[0]}",
        ),
        change_of(
            trend,
            "signs decorrelate",
            "Through the network they become progressively decorrelated.",
            "sign_correlation",
            "Pearson r of C⁺ and |C⁻|",
            high=0,
        ),
        excess_of(
            found,
            "more dimensions",
            "Class averages of contributions have more dimensions than those of activations.",
            "components_difference",
            "components to 95 % of variance",
        ),
        *(
            change_of(here, f"{what} of {name}s rise{'s' if 'ratio' in what else ''}",
                      says.format(name), key, measure, low=0)
            for what, says, key, measure in rises
            for name, here in own.items()
        ),
    ]  # fmt: skip


# %% [markdown]
# ## Step 3: draw what was saved


# %%
def draw(options: argparse.Namespace, tree: xr.DataTree) -> Path:
    """Draw the five panels; return the picture's path."""
    from retina_codec.paper.figures.layers import plot_figure_3

    matrices, pairs = (
        [tree[f"{node}/{place}"].to_dataset() for place in ("early", "late")]
        for node in ("matrix", "pairs")
    )
    picture: Path = options.out / f"{NAME}.png"
    plot_figure_3(matrices, pairs, tree["statistics"].to_dataset()).savefig(picture, dpi=150)
    return picture


# %%
def main(words: list[str] | None = None) -> None:
    """Run all steps."""
    print(run_figure(NAME, arguments(words), compute, claims_of, draw))


if __name__ == "__main__":
    run_script(main)
