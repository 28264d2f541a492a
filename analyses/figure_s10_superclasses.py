# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Figure S10: control of superclasses, and of what the network was never told
#
# After Figure S10 of Melander et al. (ICLR 2026), section 5: as `figure_6_control.py`, for groups
# of classes. Superclasses of digits are those with and those without a loop; the network was
# trained on digits only. Two pictures:
#
# - `figure_s10_superclasses.png`: curves in one block;
# - `figure_s10_superclasses_layers.png`: specificity by block.
#
#     python analyses/figure_s10_superclasses.py --out out
#     python analyses/figure_s10_superclasses.py --out out_r --data ILSVRC --model resnet50 \
#         --hierarchy words.json --count 50000 --asked 50000
#
# Digit scenes allow a control that ImageNet does not: the photograph behind the digit (china or
# flower) says nothing about the digit. The mode that goes most with a photograph is ablated in the
# same way. If modes do what they seem to, that hurts the digits on this photograph as much as
# those on the other.

# %%
"""Compute and draw what ablating and preserving a superclass's channels does to accuracy."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import retina_codec as rc
from retina_codec.analysis import perturb
from retina_codec.paper import (
    best_modes,
    channel_counts,
    channel_weights,
    draw_orders,
    keep_sets,
    thirds,
)
from retina_codec.paper.claims import Claim, judge
from retina_codec.paper.control import (
    asked_study,
    control_claims,
    control_of,
    control_options,
    perturbed_layers,
)
from retina_codec.paper.script import run_figure, run_script
from retina_codec.paper.study import ImageStudy, study_of

NAME = "figure_s10_superclasses"
SOURCE = "section 5, Fig. S10"
EQUAL = 0.1  # of the area, 0 to 1: two photographs suffer alike if they differ by less


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    return control_options(words, __doc__)


# %% [markdown]
# ## Step 1: compute and save


# %%
def compute(options: argparse.Namespace, path: Path) -> None:
    """Control superclasses and photographs, and save the curves."""
    study, asked = study_of(options), asked_study(options)
    found, modes = control_of(study, asked, options, dict(study.hierarchy))
    nodes = {"/control": found}
    if "photograph" in getattr(study.images, "coords", {}):
        nodes["/photographs"] = photographs(study, asked, modes, options)
    rc.save_tree(xr.DataTree.from_dict(nodes), path, overwrite=True)


def photographs(
    study: ImageStudy, asked: ImageStudy, modes: xr.DataTree, options: argparse.Namespace
) -> xr.Dataset:
    """Ablate the mode that goes most with each photograph, (layer, concept, percentage, sample)."""
    of, asked_of = (np.asarray(one.images["photograph"]).astype(str) for one in (study, asked))
    names = np.unique(of)
    member = of[:, None] == names  # (sample, concept)
    classes = np.asarray(study.classes)
    random = np.random.default_rng(options.seed)
    rows, correlations, shares = [], [], []
    layers = perturbed_layers(study, options)
    for layer in layers:
        here = modes[f"layers/{layer}/modes"].to_dataset()
        loading = here["loading"].transpose(..., "mode").values.astype(float)
        mode, r = best_modes(loading, member, 1)
        order = draw_orders(channel_weights(here["dictionary"], mode, "excitatory"), random)
        channels = order.shape[1]
        counts = np.r_[0, channel_counts(sorted(options.percentages), channels), channels]
        keep = keep_sets(order, counts, "ablate", channels)
        output = perturb(
            study.network,
            asked.images,
            layer,
            keep.reshape(-1, channels),
            device=options.device,
        )["output"].values
        right = classes[output.argmax(-1)] == asked.labels  # (set, sample)
        rows.append(right.reshape(*keep.shape[:2], -1))
        correlations.append(r[:, 0])
        shares.append(counts / channels)
    return xr.Dataset(
        {
            "right": (("layer", "concept", "percentage", "sample"), np.stack(rows)),
            "correlation": (("layer", "concept"), np.stack(correlations), {"units": "1"}),
            "share": (("layer", "percentage"), np.stack(shares), {"units": "1"}),
        },
        coords={
            "layer": layers,
            "concept": names,
            "percentage": [0.0, *sorted(options.percentages), 100.0],
            "photograph": ("sample", asked_of),
        },
        attrs={"seed": options.seed, "bootstraps": options.bootstraps},
    )


# %% [markdown]
# ## Step 2: compare with what the paper says
#
# Of superclasses see `control_claims`. Of photographs: area under the accuracy ratio against the
# share of channels, of digits on the other photograph less those on the mode's own, mean over both
# modes; 95 % over resampled images. "Alike" is a difference whose interval lies within ± 0.1.


# %%
def specificity_of_photographs(found: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Return the area off less on the mode's photograph by layer, (layer,) and (layer, 2).

    NaN where no image on a photograph is answered rightly to begin with, also in one resample.
    """
    random = np.random.default_rng(found.attrs["seed"])
    right = found["right"].transpose("layer", "concept", "percentage", "sample").values
    share = found["share"].values[:, None, :, None]
    area = ((right[:, :, 1:] + right[:, :, :-1].astype(float)) / 2 * np.diff(share, axis=2)).sum(2)
    whole = right[0, 0, 0]  # nothing ablated
    own = found["photograph"].values == found["concept"].values[:, None]  # (concept, sample)

    def gap(weight: np.ndarray) -> Any:
        on, off = (
            (area * (side * weight)).sum(-1) / _or_nan((whole * side * weight).sum(-1))
            for side in (own, ~own)
        )
        return (off - on).mean(-1)  # (layer,)

    count = right.shape[-1]
    draws = [
        gap(np.bincount(random.integers(count, size=count), minlength=count))
        for _ in range(found.attrs["bootstraps"])
    ]
    return gap(np.ones(count)), np.quantile(draws, [0.025, 0.975], axis=0).T


def _or_nan(count: np.ndarray) -> np.ndarray:
    return np.where(count > 0, count, np.nan)


def photograph_claims(tree: xr.DataTree) -> list[Claim]:
    """Judge the control that is not the paper's."""
    if "photographs" not in tree.children:
        return []
    found = tree["photographs"].to_dataset()
    layers = [str(name) for name in found["layer"].values]
    late = slice(0, None) if len(layers) < 3 else thirds(len(layers))[2]
    middle, ends = specificity_of_photographs(found)
    return [
        judge(
            f"photographs alike{where}",
            "control of ours",
            "Ablating the mode of a photograph hurts digits on it and on the other alike, in "
            f"{'late' if where else 'all'} blocks.",
            middle[part],
            ends[part],
            low=-EQUAL,
            high=EQUAL,
            measure="area off less on the photograph",
            places=layers[part],
        )
        for where, part in (("", slice(0, None)), (", late", late))
    ]


def claims_of(tree: xr.DataTree) -> list[Claim]:
    """Judge what was measured."""
    found = tree["control"].to_dataset()
    return control_claims(found, SOURCE, "superclass") + photograph_claims(tree)


# %% [markdown]
# ## Step 3: draw what was saved


# %%
def draw(options: argparse.Namespace, tree: xr.DataTree) -> list[Path]:
    """Draw both pictures; return their paths."""
    from retina_codec.paper.control import save_control

    found = tree["control"].to_dataset()
    return save_control(found, options.out / f"{NAME}.png", options.late)


# %%
def main(words: list[str] | None = None) -> None:
    """Run all steps."""
    print(run_figure(NAME, arguments(words), compute, claims_of, draw))


if __name__ == "__main__":
    run_script(main)
