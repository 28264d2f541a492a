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
# Ablations: ten classes (or all, if there are fewer). Some images of each class are asked; the mode
# of a class is chosen by the others. A trial draws ten of the images and one other class, as in the
# paper; off target are the other classes that are asked.

# %%
"""Sparsity, correlation with classes and ablation at three sites of a transformer, by depth."""

import argparse
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import retina_codec as rc
from retina_codec.analysis.claims import Claim, claims_table, judge, save_claims
from retina_codec.analysis.concepts import concept_table, correlate_concepts
from retina_codec.analysis.contrasts import contrast, depth_weights, thirds
from retina_codec.analysis.contribution_statistics import contribution_statistics
from retina_codec.analysis.control import control_curves
from retina_codec.analysis.image_study import ImageStudy, study_arguments, study_of
from retina_codec.analysis.sparsity import hoyer_sparsity
from retina_codec.figures.by_layer import COLORS, band, layer_axis, line
from retina_codec.figures.style import MUTED, draw_title, grid, new_figure, styled

NAME = "figure_s7_transformer"
SITES = {"blocks": "token features", "mlp": "MLP", "attention": "attention"}
QUANTITIES = ("contribution", "activation")
SELECTIONS = {"contribution modes": "modes", "activation modes": "activation_modes"}
PAIR = "contribution modes − activation modes"
WORDS = {
    "modes": "contribution modes",
    "contributions": "channels, contributions",
    "activation_modes": "activation modes",
    "activations": "channels, activations",
}
KINDS = tuple(WORDS)
TARGETS = 10  # classes whose modes are ablated


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    study_arguments(parser)
    parser.set_defaults(model="models/digits_vit")
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
    study = study_of(options)
    if set(study.sites) != set(SITES):
        raise rc.RetinaCodecError(
            f"this figure needs a transformer with the sites {', '.join(SITES)}; "
            f"{options.model!r} has {', '.join(study.sites)}. Take models/digits_vit."
        )
    found = study.contributions()
    nodes = {
        "/statistics": contribution_statistics(found, seed=options.seed),
        "/images": by_image(found, study.network.layers),
        "/ablation": ablation(study, options),
        **concepts(study, options),
    }
    for site in SITES:
        layers = study.layers_of(site)
        layer = found[f"layers/{layers[3 * len(layers) // 4]}"].to_dataset()
        one = layer.isel(sample=options.image)
        nodes[f"/example/{site}"] = xr.Dataset(
            {
                "contribution": ("channel", one["contribution"].sum("sign").values),
                "activation": ("channel", one["activation"].values),
            },
            attrs={"layer": layers[3 * len(layers) // 4]},
        )
    tree = xr.DataTree.from_dict(nodes)
    tree.attrs = {"model": options.model, "images": len(study.labels)}
    rc.save_tree(tree, path, overwrite=True)


def by_image(found: xr.DataTree, layers: tuple[str, ...]) -> xr.Dataset:
    """Hoyer sparsity of every image over channels (layer, quantity, sample)."""
    rows = []
    for name in layers:
        layer = found[f"layers/{name}"].to_dataset()
        values = (layer["contribution"].sum("sign"), layer["activation"])
        rows.append([hoyer_sparsity(one).values for one in values])
    return xr.Dataset(
        {"sparsity": (("layer", "quantity", "sample"), np.array(rows), {"units": "1"})},
        coords={"layer": list(layers), "quantity": list(QUANTITIES)},
    )


def concepts(study: ImageStudy, options: argparse.Namespace) -> dict[str, xr.Dataset]:
    """Correlate four kinds of units with classes; keep the best of every class."""
    found = correlate_concepts(
        study.modes("contributions"),
        concept_table(xr.DataArray(study.labels, dims="sample")),
        activation_modes=study.modes("activations"),
        permutations=options.permutations,
        seed=options.seed,
    )
    best = [
        [found[f"layers/{name}/{kind}"]["best_correlation"].values for kind in KINDS]
        for name in study.network.layers
    ]
    concept = found[f"layers/{study.network.layers[0]}/modes"]["concept"].values
    table = xr.Dataset(
        {"correlation": (("layer", "kind", "concept"), np.array(best), {"units": "1"})},
        coords={"layer": list(study.network.layers), "kind": list(KINDS), "concept": concept},
    )
    return {"/summary": found["summary"].to_dataset(), "/best": table}


def ablation(study: ImageStudy, options: argparse.Namespace) -> xr.Dataset:
    """Ablate the modes of classes in every layer, on images that did not choose the modes."""
    names = np.unique(study.labels)
    targets = np.random.default_rng(options.seed).permutation(names)[:TARGETS]
    own = [np.flatnonzero(study.labels == name) for name in np.sort(targets)]
    few = min(len(one) // 2 for one in own)
    if not few:
        raise rc.RetinaCodecError(
            "every class needs two images or more, one to be asked and one to choose the mode; "
            f"got {dict(zip(*np.unique(study.labels, return_counts=True), strict=True))}."
        )
    asked = np.concatenate([one[: min(options.asked, few)] for one in own])
    rest = np.setdiff1d(np.arange(len(study.labels)), asked)
    trees = [study.modes(of).isel(sample=rest) for of in ("contributions", "activations")]
    images = study.images
    some = (
        images.isel(sample=asked)
        if isinstance(images, xr.DataArray)
        else torch.utils.data.Subset(images, asked.tolist())
    )
    found = control_curves(
        study.network,
        some,
        study.labels[asked],
        trees[0],
        activation_modes=trees[1],
        mode_labels=study.labels[rest],
        by=list(SELECTIONS),
        style="ablate",
        percentages=options.percentages,
        trials=options.trials,
        images_per_trial=10,
        off_classes=1,
        classes=study.classes or None,
        seed=options.seed,
        batch_size=64 if study.device in (None, "cpu") else None,  # fits a processor's cache
        device=study.device,
    )
    return found.sel(style="ablate", layer=list(study.network.layers))


# %% [markdown]
# ## Step 2: what the paper says, judged by intervals
#
# Early, middle and late: thirds of the blocks. Differences are paired: within images for sparsity,
# within classes for correlations and for specificity (area off target less area on target; above 0
# where a mode's channels serve its class more than others) where layers are compared.


# %%
def claims_of(saved: xr.DataTree) -> list[Claim]:
    """Judge the paper's sentences."""
    layers = site_layers(saved)
    return [
        *sparsity_claims(saved, layers),
        *correlation_claims(saved, layers),
        *ablation_claims(saved, layers),
    ]


def site_layers(saved: xr.DataTree) -> dict[str, list[str]]:
    """Return the layers of each site, from input to output."""
    found = saved["statistics"].to_dataset()
    return {site: found["layer"].values[found["site"].values == site].tolist() for site in SITES}


def several(values: xr.DataArray, weights: dict[str, np.ndarray]) -> dict[str, object]:
    """Contrasts of values (unit, place) by name, as `judge` takes them."""
    found = [contrast(values.values, weight) for weight in weights.values()]
    ends = [one.interval for one in found]
    return {"found": [one.found for one in found], "interval": ends, "places": list(weights)}


def sparsity_claims(saved: xr.DataTree, layers: dict[str, list[str]]) -> list[Claim]:
    """Section 10.5.1."""
    source, claims = "10.5.1, Fig. S7D–F", []
    statistics = saved["statistics"].to_dataset().sel(quantity="contribution")
    values = saved["images"].to_dataset()["sparsity"].sel(quantity="contribution")
    for site, names in layers.items():
        here = statistics.sel(layer=names)
        claims.append(
            judge(
                f"sparser_{site}",
                source,
                f"Contributions are sparser than activations: {SITES[site]}.",
                here["difference"].values,
                here["difference_interval"].values,
                low=0,
                measure="Hoyer, contributions − activations",
                places=names,
            )
        )
    for site, names in layers.items():
        own, count = values.sel(layer=names).transpose("sample", "layer"), len(names)
        shape = {
            f"{part} − middle": depth_weights(count, part, "middle") for part in ("early", "late")
        }
        claims.append(
            judge(
                f"dip_{site}",
                source,
                "Sparsity goes down at the beginning and increases towards the "
                f"end: {SITES[site]}.",
                **several(own, shape),
                low=0,
                measure="Hoyer",
            )
        )
    own = values.sel(layer=layers["mlp"]).transpose("sample", "layer")
    drop = contrast(own.values, last_step(len(layers["mlp"])))
    claims.append(
        judge(
            "drop_mlp",
            source,
            "In the MLP sparsity drops at the final layer.",
            *drop[:2],
            low=0,
            measure="Hoyer, last block but one − last",
        )
    )
    return claims


def last_step(count: int) -> np.ndarray:
    """Weights of "last but one less last"."""
    return np.array([0.0] * (count - 2) + [1.0, -1.0])


def correlation_claims(saved: xr.DataTree, layers: dict[str, list[str]]) -> list[Claim]:
    """Section 10.5.2."""
    source, claims = "10.5.2, Fig. S7G–I", []
    best = saved["best"].to_dataset()["correlation"]
    for site, names in layers.items():
        rise = depth_weights(len(names), "late", "early")
        own = best.sel(layer=names).transpose("concept", "kind", "layer")
        table = own.dot(xr.DataArray(rise, dims="layer"), dim="layer")
        each = dict(zip((WORDS[kind] for kind in KINDS), np.eye(len(KINDS)), strict=True))
        claims.append(
            judge(
                f"rise_{site}",
                source,
                f"Correlations with classes increase with depth: {SITES[site]}.",
                **several(table, each),
                low=0,
                measure="r, late − early",
            )
        )
    mean = {
        site: best.sel(layer=names).mean("layer").transpose("concept", "kind")
        for site, names in layers.items()
    }
    both = {"contributions": np.array([1, -1, 0, 0]), "activations": np.array([0, 0, 1, -1])}
    for site in ("blocks", "attention"):
        claims.append(
            judge(
                f"modes_{site}",
                source,
                f"Modes are more correlated with classes than single channels: {SITES[site]}.",
                **several(mean[site], both),
                low=0,
                measure="r, modes − channels, mean of layers",
            )
        )
    for site in ("blocks", "attention"):
        found = contrast(mean[site].values, [-1, 0, 1, 0])
        claims.append(
            judge(
                f"activation_modes_{site}",
                source,
                f"Activation modes are more correlated than contribution modes: {SITES[site]}.",
                *found[:2],
                low=0,
                measure="r, activation − contribution modes, mean of layers",
            )
        )
    return claims


def ablation_claims(saved: xr.DataTree, layers: dict[str, list[str]]) -> list[Claim]:
    """Section 10.5.3."""
    source, found = "10.5.3, Fig. S7J–L", saved["ablation"].to_dataset()
    late = {site: names[thirds(len(names))[2]] for site, names in layers.items()}
    own = found["concept_estimate"].sel(selection="contribution modes")
    by_class = {site: own.sel(layer=names).transpose("concept", "layer").values
                for site, names in layers.items()}  # fmt: skip

    def specific(name: str, says: str, places: list[str], kind: str, **rule: float) -> Claim:
        here = found.sel(selection=kind, layer=places)
        return judge(name, source, says, here["estimate"].values, here["estimate_interval"].values,
                     measure=f"specificity, {kind}", places=places, **rule)  # fmt: skip

    def better(site: str) -> Claim:
        here = found.sel(pair=PAIR, layer=late[site])
        says = f"Contribution modes ablate more specifically than activation modes: {SITES[site]}."
        return judge(f"better_{site}", source, says, here["difference"].values,
                     here["difference_interval"].values, low=0, places=late[site],
                     measure="specificity, contribution − activation modes, late")  # fmt: skip

    def weaker(site: str, than: str) -> Claim:
        both = np.stack([by_class[than].mean(1), by_class[site].mean(1)], 1)
        says = f"Ablation acts less in {SITES[site]} than in {SITES[than]}."
        return judge(f"weaker_{site}", source, says, *contrast(both, [1, -1])[:2], low=0,
                     measure=f"specificity, {SITES[than]} − {SITES[site]}")  # fmt: skip

    blocks = layers["blocks"]
    rise = contrast(by_class["blocks"], depth_weights(len(blocks), "late", "early"))
    drop = contrast(by_class["mlp"], last_step(len(layers["mlp"])))
    kinds = list(SELECTIONS)
    return [
        specific("specific_blocks", "Ablating contribution modes of token features hurts their "
                 "class more than others.", blocks, kinds[0], low=0),
        better("blocks"),
        judge("rise_blocks_ablation", source, "Contribution modes of token features grow more "
              "effective with depth.", *rise[:2], low=0, measure="specificity, late − early"),
        specific("opposed", "Ablating activation modes in the deeper half hurts other classes more "
                 "than their own: token features.", blocks[len(blocks) // 2 :], kinds[1], high=0),
        weaker("mlp", "blocks"),
        specific("specific_mlp", "Contribution modes are specific in later layers: MLP.",
                 late["mlp"], kinds[0], low=0),
        better("mlp"),
        judge("drop_mlp_ablation", source, "The effect in the MLP drops at the last layer.",
              *drop[:2], low=0, measure="specificity, last block but one − last"),
        weaker("attention", "mlp"),
        specific("specific_attention", "Contribution modes are specific in the deepest layers: "
                 "attention.", late["attention"], kinds[0], low=0),
        better("attention"),
    ]  # fmt: skip


# %% [markdown]
# ## Step 3: draw what was saved


# %%
@styled
def draw(saved: xr.DataTree) -> Figure:
    """Draw four rows (one image, sparsity, correlation, ablation) of three sites."""
    layers = site_layers(saved)
    figure = new_figure(9.6)
    draw_title(figure, "", f"Contributions in a transformer: {saved.attrs['images']} images")
    spec = grid(figure, [1, 1, 1, 1], [1, 1, 1], left=0.75, right=0.15, top=0.62, bottom=0.5,
                gap_x=0.35, gap_y=0.72)  # fmt: skip
    rows = (_example, _sparsity, _correlation, _ablation)
    shared: dict[int, Axes] = {}
    for row, panel in enumerate(rows):
        for column, site in enumerate(SITES):
            axes = figure.add_subplot(spec[row, column], sharey=shared.get(row))
            shared.setdefault(row, axes)
            panel(axes, saved, site, layers[site])
            letter = "ABCDEFGHIJKL"[3 * row + column]
            axes.set_title(f"{letter}  {SITES[site]}", size=9, loc="left")
            if column:
                axes.set_ylabel("")
                axes.tick_params(labelleft=False)
            if row:
                layer_axis(axes, [str(n + 1) for n in range(len(layers[site]))])
                axes.set_xlabel("block", labelpad=2)
    first = [shared[row] for row in range(len(rows))]
    first[3] = _beside(figure, first[3])
    corners = ("upper right", "lower right", "upper left", "upper left")
    for axes, corner, row in zip(first, corners, range(len(rows)), strict=True):
        handles, words = shared[row].get_legend_handles_labels()
        axes.legend(handles, words, loc=corner, handlelength=1.2, fontsize=7.5, borderaxespad=0.1)
    notes = {
        2: "boxes: shuffled labels, middle 95 %",
        3: "large: all images, 95 %\nsmall: trials, their mean ± SEM",
    }
    for row, note in notes.items():
        last = _beside(figure, shared[row], 2)
        last.text(0.02, 0.99, note, size=7.5, va="top", transform=last.transAxes)
    return figure


def _beside(figure: Figure, axes: Axes, step: int = 1) -> Axes:
    """Return the panel to the right; panels stand in the order they were made."""
    return figure.axes[figure.axes.index(axes) + step]


def _example(axes: Axes, saved: xr.DataTree, site: str, _: list[str]) -> None:
    """Sizes of one image's channels, the largest first."""
    here = saved[f"example/{site}"].to_dataset()
    for quantity in QUANTITIES:
        size = np.sort(np.abs(here[quantity].values))[::-1]
        share = 100 * (np.arange(len(size)) + 0.5) / len(size)
        axes.plot(share, size / size[0], color=COLORS[quantity], lw=1.4, label=f"{quantity}s")
    axes.set_xlabel(f"channels of {here.attrs['layer']}, largest first (%)", labelpad=2)
    axes.set_ylabel("size / largest, one image")
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 1.02)


def _sparsity(axes: Axes, saved: xr.DataTree, _: str, names: list[str]) -> None:
    for quantity in QUANTITIES:
        here = saved["statistics"].to_dataset().sel(layer=names, quantity=quantity)
        ends = here["sparsity_interval"].values
        line(axes, here["sparsity"].values, ends, COLORS[quantity], label=f"{quantity}s")
    axes.set_ylabel("Hoyer sparsity over channels")
    axes.set_ylim(0, 1)


def _correlation(axes: Axes, saved: xr.DataTree, _: str, names: list[str]) -> None:
    summary = saved["summary"].to_dataset().sel(layer=names, level="class")
    for number, kind in enumerate(KINDS):
        here, shift = summary.sel(kind=kind), 0.16 * (number - 1.5)
        band(axes, here["concept_correlation_null_interval"].values, COLORS[kind], shift=shift)
        ends = here["concept_correlation_interval"].values
        line(axes, here["concept_correlation"].values, ends, COLORS[kind], shift=shift,
             label=WORDS[kind])  # fmt: skip
    axes.set_ylabel("largest r with a class, mean")
    axes.set_ylim(0, 1)


def _ablation(axes: Axes, saved: xr.DataTree, _: str, names: list[str]) -> None:
    found = saved["ablation"].to_dataset().sel(layer=names)
    axes.axhline(0, color=MUTED, lw=0.8, ls=":")
    for number, (selection, kind) in enumerate(SELECTIONS.items()):
        here, shift = found.sel(selection=selection), 0.3 * (number - 0.5)
        trials = here["specificity"].mean("concept").transpose("layer", "trial").values
        place = np.repeat(np.arange(len(names)) + shift + 0.09, trials.shape[1])
        axes.plot(place, trials.ravel(), ".", ms=3, color=COLORS[kind], alpha=0.5)
        mean, error = here["trial_mean"].values, here["trial_sem"].values
        ends = np.stack([mean - error, mean + error], -1)
        line(axes, mean, ends, COLORS[kind], shift=shift + 0.09, marker="_", ls="none", ms=7)
        line(axes, here["estimate"].values, here["estimate_interval"].values, COLORS[kind],
             shift=shift - 0.05, label=selection)  # fmt: skip
    axes.set_ylabel("area off target − on target")


# %%
def main(words: list[str] | None = None) -> None:
    """Run all steps."""
    options = arguments(words)
    options.out.mkdir(parents=True, exist_ok=True)
    path, picture = options.out / f"{NAME}.nc", options.out / f"{NAME}.png"
    if not (options.reuse and path.exists()):
        compute(options, path)
    saved = rc.open_tree(path, lazy=False)
    draw(saved).savefig(picture, dpi=150)
    claims = claims_of(saved)
    save_claims(claims, options.out / f"{NAME}_claims.csv")
    print(claims_table(claims))
    print(picture)


if __name__ == "__main__":
    main()
