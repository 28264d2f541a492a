# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Figure S11: contributions to the lead of the winning class
#
# After Figure S11 of Melander et al. (ICLR 2026): the contrastive target is the largest logit minus
# the second largest. It is compared with the standard target, the top logit (for transformers the
# top probability):
#
# - **A** Hoyer sparsity over channels of contributions to both targets, and of activations;
# - **B** its difference between the targets, image by image, with the range in which they count
#   as similar;
# - **C** explained variance of held-out images by modes of four blocks, for both targets.
#
# The same code serves the small networks of this repository and ImageNet:
#
#     python analyses/figure_s11_contrast.py --out out
#     python analyses/figure_s11_contrast.py --out out_resnet --data ILSVRC --model resnet50
#
# The published modes are those of a gated autoencoder with three modes per channel, here of the
# default of this package: as many modes as channels but at most 64, 5 of them active at a time.

# %%
"""Compare contributions to the contrastive and to the standard target."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import retina_codec as rc
from retina_codec.analysis import rebuilt_variance
from retina_codec.paper import gather_layer, mean_and_error, percentiles, resampled_means
from retina_codec.paper.claims import Claim, judge
from retina_codec.paper.script import run_figure, run_script
from retina_codec.paper.study import study_arguments, study_of

NAME = "figure_s11_contrast"
TARGETS = ("standard", "contrast")
SIMILAR = 0.05  # Hoyer sparsity; below this difference two are said to be alike
REBUILT = 0.85  # R², section 10.6


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    study_arguments(parser)
    parser.add_argument("--steps", type=int, default=10, help="of the path integral")
    parser.add_argument("--layers", nargs="+", help="with modes; four blocks if left out")
    parser.add_argument("--epochs", type=int, help="of the search for modes")
    return parser.parse_args(words)


# %% [markdown]
# ## Step 1: compute and save


# %%
def compute(options: argparse.Namespace, path: Path) -> None:
    """Explain all images for both targets, find modes of four blocks, save what was measured."""
    study = study_of(options)
    method = study.path_integral(options.steps)
    blocks = list(study.layers_of("blocks"))
    quarters = [blocks[-(-part * len(blocks) // 4) - 1] for part in (1, 2, 3, 4)]
    chosen = options.layers or list(dict.fromkeys(quarters))
    targets = dict(zip(TARGETS, (study.target, rc.targets.Contrast()), strict=True))
    trees = {name: study.contributions(target, method) for name, target in targets.items()}
    fits = []
    for target in targets.values():
        modes = study.modes(target=target, method=method, layers=chosen, **fit_of(study, options))
        fits.append([rebuilt_variance(modes, layer, seed=options.seed) for layer in chosen])
    rebuilt = xr.concat(
        [xr.concat(one, xr.DataArray(chosen, dims="layer", name="layer")) for one in fits],
        xr.DataArray(list(targets), dims="target", name="target"),
    )
    about = {"target": type(study.target).__name__, "images": len(study.labels)}
    nodes = {
        "/": xr.Dataset(attrs=about),
        "/sparsity": sparsity_of(trees, blocks, options.seed),
        "/rebuilt": rebuilt,
    }
    rc.save_tree(xr.DataTree.from_dict(nodes), path, overwrite=True)


def fit_of(study: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Return the decomposition with other epochs, if they are asked for."""
    if options.epochs is None:
        return {}
    return {
        "decomposition": rc.modes.SparseAutoencoder(modes=8, epochs=options.epochs, seed=study.seed)
    }


def sparsity_of(trees: dict[str, xr.DataTree], layers: list[str], seed: int) -> xr.Dataset:
    """Mean sparsity over images of both targets and activations, and the paired difference."""
    columns = []
    for layer in layers:
        found = [gather_layer(trees[name], layer, None).values for name in TARGETS]
        columns.append(
            [found[0][:, 0], found[1][:, 0], found[0][:, 3], found[1][:, 0] - found[0][:, 0]]
        )
    flat = np.moveaxis(np.array(columns), 2, 0)  # (image, layer, four)
    shape = flat.shape[1:]
    flat = flat.reshape(len(flat), -1)
    mean = mean_and_error(flat)[0].reshape(shape)
    ends = percentiles(resampled_means(flat, 1000, seed)).reshape(*shape, 2)
    dims = ("layer", "quantity")
    units = {"units": "1"}
    return xr.Dataset(
        {
            "sparsity": (dims, mean[:, :3], units),
            "sparsity_interval": ((*dims, "bound"), ends[:, :3], units),
            "difference": ("layer", mean[:, 3], units),
            "difference_interval": (("layer", "bound"), ends[:, 3], units),
        },
        coords={
            "layer": layers,
            "quantity": [*TARGETS, "activation"],
            "bound": ["low", "high"],
        },
    )


# %% [markdown]
# ## Step 2: compare with what the paper says
#
# Sparsity is similar if the 95 % interval of the difference lies within ± 0.05 in every block;
# modes rebuild enough if the interval of R² lies above 0.85 in all four.


# %%
def claims_of(tree: xr.DataTree) -> list[Claim]:
    """Judge what was measured."""
    sparsity, rebuilt = tree["sparsity"].to_dataset(), tree["rebuilt"].to_dataset()
    contrast = rebuilt.sel(target="contrast")
    return [
        judge(
            "similarly sparse",
            "section 10.6, Fig. S11",
            "Contributions to the contrastive target are as sparse as those to the top output, in "
            "all layers.",
            sparsity["difference"],
            sparsity["difference_interval"],
            low=-SIMILAR,
            high=SIMILAR,
            measure="Hoyer sparsity, contrastive less standard target",
            places=[str(name) for name in sparsity["layer"].values],
        ),
        judge(
            "rebuilt",
            "section 10.6, Fig. S11",
            "Contrastive contributions of four layers are decomposed with R² above 0.85.",
            contrast["r2"],
            contrast["r2_interval"],
            low=REBUILT,
            measure="R² of held-out images",
            places=[str(name) for name in contrast["layer"].values],
        ),
    ]


# %% [markdown]
# ## Step 3: draw what was saved


# %%
def draw(options: argparse.Namespace, tree: xr.DataTree) -> Path:
    """Draw the three panels; return the picture's path."""
    from retina_codec.paper import styled

    picture: Path = options.out / f"{NAME}.png"
    styled(panels)(tree).savefig(picture, dpi=150)
    return picture


def panels(tree: xr.DataTree) -> Any:
    """Lay out and draw the figure."""
    from retina_codec.paper import (
        COLORS,
        MUTED,
        draw_title,
        grid,
        layer_axis,
        layer_name,
        line,
        new_figure,
        room_below,
    )

    sparsity, rebuilt = tree["sparsity"].to_dataset(), tree["rebuilt"].to_dataset()
    names = [layer_name(str(name)) for name in sparsity["layer"].values]
    below = room_below(names)
    colors = {"standard": COLORS["contribution"], "contrast": "#009E73"}
    colors["activation"] = COLORS["activation"]
    standard = {"TopK": "to the top logit", "Probability": "to the top probability"}
    words = {"standard": standard[tree.attrs["target"]], "contrast": "to the lead (contrast)"}
    words["activation"] = "activations"
    figure = new_figure(3.0 + below)
    areas = figure.subfigures(1, 3)
    boxes = []
    for area, letter, title in zip(areas, "ABC", ("Sparsity", "Difference", "Modes"), strict=True):
        draw_title(area, letter, title)
        spec = grid(area, [1], [1], left=0.65, right=0.12, top=0.6, bottom=below)
        boxes.append(area.add_subplot(spec[0]))
    for number, key in enumerate(colors):
        here = sparsity.sel(quantity=key)
        line(boxes[0], here["sparsity"].values, here["sparsity_interval"].values, colors[key],
             shift=0.08 * (number - 1), label=words[key])  # fmt: skip
    boxes[0].set_ylim(0, 1)
    boxes[0].set_ylabel("Hoyer sparsity over channels")
    boxes[0].legend(loc="upper left", borderaxespad=0.1)
    boxes[1].axhspan(-SIMILAR, SIMILAR, color=MUTED, alpha=0.15, lw=0)
    boxes[1].axhline(0, color=MUTED, lw=0.8, ls=":")
    line(boxes[1], sparsity["difference"].values, sparsity["difference_interval"].values, "#1f2733")
    limit = 1.3 * max(SIMILAR, float(np.abs(sparsity["difference_interval"]).max()))
    boxes[1].set_ylim(-limit, limit)
    boxes[1].set_ylabel("sparsity, contrast less standard")
    boxes[1].set_title("grey: similar", size=9)
    for number, key in enumerate(TARGETS):
        here = rebuilt.sel(target=key)
        line(boxes[2], here["r2"].values, here["r2_interval"].values, colors[key],
             shift=0.12 * (number - 0.5), ls="none")  # fmt: skip
    boxes[2].axhline(REBUILT, color=MUTED, lw=0.8, ls=":")
    boxes[2].set_ylim(min(0.0, float(rebuilt["r2_interval"].min())), 1)
    boxes[2].set_ylabel("R² of held-out images")
    boxes[2].set_title(f"dotted: R² = {REBUILT}", size=9)
    for axes in boxes[:2]:
        layer_axis(axes, names)
    layer_axis(boxes[2], [layer_name(str(name)) for name in rebuilt["layer"].values])
    return figure


# %%
def main(words: list[str] | None = None) -> None:
    """Run all steps."""
    print(run_figure(NAME, arguments(words), compute, claims_of, draw))


if __name__ == "__main__":
    run_script(main)
