# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Figure 5: modes and classes
#
# After Figures 4B, 5 and S9 of Melander et al. (ICLR 2026), section 4. Modes are fitted without
# labels; then each loading is correlated with the mask of each class. Two pictures:
#
# - `figure_5_classes.png`: by block, the largest Pearson r of any feature with a class, mean over
#   classes; features with r > 0.2; classes that have one; for contribution modes, activation
#   modes, contributions and activations of single channels, beside shuffled labels;
# - `figure_5_classes_matrix.png`: Pearson r of modes with classes in one block (Fig. 4B).
#
# The same code serves the small networks of this repository and ImageNet:
#
#     python analyses/figure_5_classes.py --out out
#     python analyses/figure_5_classes.py --out out_r --data ILSVRC --model resnet50 --count 50000
#
# Limits of digits: ten classes only, so intervals over classes are wide; and a layer of 16 channels
# has at most 16 modes. The largest of many r is large by chance; contribution and activation
# modes are equally many, single channels at least as many as modes, which favours channels.

# %%
"""Compute and draw how well modes and channels go with classes, by layer."""

import argparse
from pathlib import Path

import numpy as np
import xarray as xr

import retina_codec as rc
from retina_codec.analysis import concept_table, correlate_concepts
from retina_codec.paper import contrast, thirds
from retina_codec.paper.claims import Claim, judge
from retina_codec.paper.script import run_figure, run_script
from retina_codec.paper.study import study_arguments, study_of

NAME = "figure_5_classes"


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    study_arguments(parser)
    parser.add_argument("--steps", type=int, default=10, help="of the path integral")
    parser.add_argument("--late", help="block of the matrix; the last one if left out")
    parser.add_argument("--permutations", type=int, default=200, help="shuffles of labels")
    parser.add_argument("--bootstraps", type=int, default=500, help="draws for intervals")
    return parser.parse_args(words)


# %% [markdown]
# ## Step 1: compute and save


# %%
def compute(options: argparse.Namespace, path: Path) -> None:
    """Decompose contributions and activations of all blocks, correlate, and save."""
    study = study_of(options)
    shared = {
        "method": study.path_integral(options.steps),
        "layers": study.layers_of("blocks"),
    }
    found = correlate_concepts(
        study.modes("contributions", **shared),
        concept_table(study.labels),
        activation_modes=study.modes("activations", **shared),
        permutations=options.permutations,
        bootstraps=options.bootstraps,
        seed=options.seed,
    )
    rc.save_tree(found, path, overwrite=True)


# %% [markdown]
# ## Step 2: compare with what the paper says
#
# The number is the difference, within each class, of the largest r of two kinds of features; its
# interval is Student's over classes. A claim about all blocks holds if every interval is above 0;
# one about intermediate blocks, if that of their mean is ("intermediate": the middle third).


# %%
def best_by_layer(tree: xr.DataTree, kind: str) -> xr.DataArray:
    """Gather the largest r of any feature of a kind, (concept, layer)."""
    layers = [str(name) for name in tree["summary"]["layer"].values]
    each = [tree[f"layers/{name}/{kind}"]["best_correlation"] for name in layers]
    return xr.concat(each, "layer", coords="minimal", compat="override").transpose("concept", ...)


def claims_in_the_middle(gap: np.ndarray, source: str) -> list[Claim]:
    """Judge the difference (class, layer) in the middle third of blocks, alone and to others."""
    middle = thirds(gap.shape[1])[1]
    inside = gap[:, middle].mean(axis=1)
    rest = np.delete(gap, np.arange(gap.shape[1])[middle], axis=1).mean(axis=1)
    rows = (
        (
            "intermediate",
            "They are so at intermediate layers.",
            contrast(inside[:, None], [1.0]),
            "middle third",
        ),
        (
            "intermediate most",
            "In particular there, more than in early and late ones.",
            contrast(np.stack([inside, rest], 1), [1.0, -1.0]),
            "middle third less others",
        ),
    )
    return [
        judge(
            name,
            source,
            says,
            number.found,
            number.interval,
            low=0,
            measure=f"the same difference, {what} of blocks",
        )
        for name, says, number, what in rows
    ]


def claims_of(tree: xr.DataTree) -> list[Claim]:
    """Judge what was measured."""
    summary = tree["summary"].to_dataset()
    layers = [str(name) for name in summary["layer"].values]
    modes = best_by_layer(tree, "modes").values
    claims = []
    for kind, source, says in (
        ("activation_modes", "section 4, Fig. 5A–C, S9", "modes of activations"),
        ("contributions", "section 4, Fig. 5D", "contributions of single channels"),
        ("activations", "section 4, Fig. 5D", "activations of single channels"),
    ):
        gap = modes - best_by_layer(tree, kind).values  # (class, layer)
        each = [contrast(column[:, None], [1.0]) for column in gap.T]
        claims.append(
            judge(
                f"more than {kind}",
                source,
                f"Contribution modes are more correlated with classes than {says}.",
                [one.found for one in each],
                [one.interval for one in each],
                low=0,
                measure="largest r, difference by class",
                places=layers,
            )
        )
        mean = contrast(gap, np.full(len(layers), 1 / len(layers)))
        claims.append(
            judge(
                f"more than {kind}, mean",
                source,
                f"The same, mean over blocks: more than {says}.",
                mean.found,
                mean.interval,
                low=0,
                measure="largest r, difference by class, mean over blocks",
            )
        )
        if kind == "activation_modes" and len(layers) >= 3:
            claims += claims_in_the_middle(gap, source)
    return claims


# %% [markdown]
# ## Step 3: draw what was saved


# %%
def draw(options: argparse.Namespace, tree: xr.DataTree) -> list[Path]:
    """Draw both pictures; return their paths."""
    by_layer: Path = options.out / f"{NAME}.png"
    matrix: Path = options.out / f"{NAME}_matrix.png"
    rc.figures.plot_concepts(tree).savefig(by_layer, dpi=150)
    rc.figures.plot_class_matrix(tree, options.late).savefig(matrix, dpi=150)
    return [by_layer, matrix]


# %%
def main(words: list[str] | None = None) -> None:
    """Run all steps."""
    print(run_figure(NAME, arguments(words), compute, claims_of, draw))


if __name__ == "__main__":
    run_script(main)
