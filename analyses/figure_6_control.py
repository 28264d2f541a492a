# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Figure 6: control of a network through its modes
#
# After Figure 6 of Melander et al. (ICLR 2026), section 5. Of each class the mode whose loading
# correlates most with it is chosen; its leading channels are held at 0 (ablate), or all others are
# (preserve), in one block at a time; the accuracy that is left, over that of the whole network, is
# measured on target and off target. Three pictures:
#
# - `figure_6_control.png`: curves in one block (Fig. 6D) for channels chosen by contribution
#   modes, by activation modes and at random;
# - `figure_6_control_layers.png`: specificity by block (Fig. 6E), the area between both curves;
# - `figure_6_control_mean_layers.png`: the same by ablation with channels held at their mean.
#
# Why the mean: a contribution says what a channel does by being where it is and not where it was
# at the baseline. Taking it to 0 is another change: of channels that were silent it is none at all,
# and of activations the largest are by definition those that 0 changes most. At the mean both kinds
# of modes are asked the same question, what is special in an image of the class. The paper holds
# channels at 0; what is said of the mean is a control of ours.
#
# The same code serves the small networks of this repository and ImageNet:
#
#     python analyses/figure_6_control.py --out out
#     python analyses/figure_6_control.py --out out_r --data ILSVRC --model resnet50 \
#         --count 50000 --asked 50000
#
# Modes are chosen from `--count` images and asked of `--asked` others: digit scenes drawn with
# another seed (the same 500 digits of the test part, on other pieces of photograph, in other sizes
# and colours); of folders another random choice, which may share files. Of ten digits all others
# are off target; the paper draws one of 999.

# %%
"""Compute and draw what ablating and preserving a class's channels does to accuracy."""

import argparse
from pathlib import Path

import xarray as xr

import retina_codec as rc
from retina_codec.paper.claims import Claim
from retina_codec.paper.control import asked_study, control_claims, control_of, control_options
from retina_codec.paper.script import run_figure, run_script
from retina_codec.paper.study import study_of

NAME = "figure_6_control"
SOURCE = "section 5, Fig. 6"


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    return control_options(words, __doc__)


# %% [markdown]
# ## Step 1: compute and save


# %%
def compute(options: argparse.Namespace, path: Path) -> None:
    """Decompose all blocks, perturb the network through their modes, and save the curves."""
    study, asked = study_of(options), asked_study(options)
    found, _ = control_of(study, asked, options)
    at_mean, _ = control_of(study, asked, options, style="ablate", held_at="mean")
    nodes = {"/control": found, "/held_at_mean": at_mean}
    rc.save_tree(xr.DataTree.from_dict(nodes), path, overwrite=True)


# %% [markdown]
# ## Step 2: compare with what the paper says
#
# See `control_claims`: a claim holds if the 95 % interval of every block it speaks of is above 0.
# "Late blocks" are the last third.


# %%
def claims_of(tree: xr.DataTree) -> list[Claim]:
    """Judge what was measured."""
    return [
        *control_claims(tree["control"].to_dataset(), SOURCE),
        *control_claims(tree["held_at_mean"].to_dataset(), "control of ours"),
    ]


# %% [markdown]
# ## Step 3: draw what was saved


# %%
def draw(options: argparse.Namespace, tree: xr.DataTree) -> list[Path]:
    """Draw the pictures; return their paths."""
    from retina_codec.paper.control import save_control

    path = options.out / f"{NAME}_mean_layers.png"
    figure = rc.figures.plot_control_by_layer(tree["held_at_mean"].to_dataset())
    figure.savefig(path, dpi=150)
    found = tree["control"].to_dataset()
    return [*save_control(found, options.out / f"{NAME}.png", options.late), path]


# %%
def main(words: list[str] | None = None) -> None:
    """Run all steps."""
    print(run_figure(NAME, arguments(words), compute, claims_of, draw))


if __name__ == "__main__":
    run_script(main)
