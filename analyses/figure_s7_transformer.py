# ---
# jupytext:
#   text_representation:
#     extension: .py
#     format_name: percent
# ---

# %% [markdown]
# # Figure S7: contributions in a vision transformer
#
# Three sites of every block: token features (after the merge into the residual stream), hidden
# units of the MLP, and attention before its output projection; summed over tokens. Target: the
# probability of the predicted class (Melander et al., ICLR 2026, sections 10.5.1 to 10.5.3).
#
#     python analyses/figure_s7_transformer.py --out out/digits_vit
#     python analyses/figure_s7_transformer.py --out out/vit --data IMAGES --model vit_b_16
#
# The residual stream carries a large vector that is the same for every image, a few outlier
# dimensions, which makes token features look sparse although it says nothing about any image. So
# sparsity is compared a second time after the mean over images is taken away from contributions and
# from activations (dashed); this control is ours, not the paper's.
#
# Ablations: ten classes (or all, if there are fewer). Some images of each class are asked; the mode
# of a class is chosen by the others. A trial draws ten of the images and one other class, as in the
# paper; off target are the other classes that are asked.

# %%
"""Sparsity, correlation with classes and ablation at three sites of a transformer, by depth."""

import argparse
from pathlib import Path

import xarray as xr

import retina_codec as rc
from retina_codec.paper.script import run_figure, run_script
from retina_codec.paper.study import study_arguments, study_of
from retina_codec.paper.transformer import transformer_claims, transformer_study

NAME = "figure_s7_transformer"


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    study_arguments(parser)
    parser.set_defaults(model="digits_vit")
    parser.add_argument("--image", type=int, default=0, help="the image of panels A to C")
    parser.add_argument("--asked", type=int, default=12, help="images per class that are ablated")
    parser.add_argument("--percentages", type=float, nargs="+", default=[5, 20, 50, 80])
    parser.add_argument("--trials", type=int, default=6)
    parser.add_argument("--permutations", type=int, default=50, help="shuffles of the labels")
    return parser.parse_args(words)


# %% [markdown]
# ## Step 1: compute and save


# %%
def compute(options: argparse.Namespace, path: Path) -> None:
    """Measure sparsity, correlations and ablations."""
    found = transformer_study(
        study_of(options),
        image=options.image,
        asked=options.asked,
        percentages=options.percentages,
        trials=options.trials,
        permutations=options.permutations,
    )
    rc.save_tree(found, path, overwrite=True)


# %% [markdown]
# ## Step 2: what the paper says, judged by intervals
#
# See `transformer_claims`. Early, middle and late: thirds of the blocks. Specificity: area off
# target less area on target, above 0 where a mode's channels serve its class more than others.
#
# ## Step 3: draw what was saved


# %%
def draw(options: argparse.Namespace, saved: xr.DataTree) -> Path:
    """Draw four rows of three sites; return the picture's path."""
    from retina_codec.paper.figures.transformer import plot_transformer

    picture: Path = options.out / f"{NAME}.png"
    plot_transformer(saved).savefig(picture, dpi=150)
    return picture


# %%
def main(words: list[str] | None = None) -> None:
    """Run all steps."""
    print(run_figure(NAME, arguments(words), compute, transformer_claims, draw))


if __name__ == "__main__":
    run_script(main)
