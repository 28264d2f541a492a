"""Figure S7: sparsity, correlation with classes and ablation at three sites of a transformer."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr

from retina_codec.analysis.concepts.correlate import correlate_concepts
from retina_codec.analysis.concepts.table import concept_table
from retina_codec.analysis.control.curves import control_curves
from retina_codec.analysis.control.settings import ControlSettings
from retina_codec.analysis.layers.sparsity import hoyer_sparsity
from retina_codec.analysis.layers.statistics import measure_contributions
from retina_codec.errors import RetinaCodecError
from retina_codec.paper.claims import Claim, judge
from retina_codec.paper.study import ImageStudy
from retina_codec.statistics.differences import contrast, depth_weights, thirds

__all__ = ["KINDS", "SELECTIONS", "SITES", "site_layers", "transformer_claims", "transformer_study"]

SITES = {"blocks": "token features", "mlp": "MLP", "attention": "attention"}


QUANTITIES = ("contribution", "activation")


SELECTIONS = {"contribution modes": "modes", "activation modes": "activation_modes"}


KINDS = {
    "modes": "contribution modes",
    "contributions": "channels, contributions",
    "activation_modes": "activation modes",
    "activations": "channels, activations",
}


TARGETS = 10  # classes whose modes are ablated


def transformer_study(
    study: ImageStudy,
    *,
    image: int = 0,
    asked: int = 12,
    percentages: Sequence[float] = (5, 20, 50, 80),
    trials: int = 6,
    permutations: int = 50,
) -> xr.DataTree:
    """Measure sparsity, correlation with classes and specificity of ablation at every site.

    Parameters
    ----------
    study : ImageStudy
        A transformer with the sites blocks, mlp and attention.
    image : int
        The image shown as an example, in the block at three quarters of the depth.
    asked : int
        Images per class that are ablated; at most half of a class, and none of them helps to
        choose its mode.
    percentages, trials
        See `control_curves`; ten images per trial and one other class, as in the paper.
    permutations : int
        Shuffles of the labels.

    Returns
    -------
    xr.DataTree
        ``/statistics``, see `contribution_statistics`. ``/images``: ``sparsity`` (layer, quantity,
        sample), Hoyer over channels. ``/summary``, see `correlate_concepts`; ``/best``:
        ``correlation`` (layer, kind, concept), the largest of every class. ``/ablation``, see
        `control_curves`, of ten classes. ``/example/<site>``: ``contribution`` and ``activation``
        (channel) of one image.

    Raises
    ------
    RetinaCodecError
        If the network has other sites, or a class has one image only.

    References
    ----------
    Melander et al. 2026, CODEC, 10.5.1 to 10.5.3, Fig. S7.
    """
    if set(study.sites) != set(SITES):
        raise RetinaCodecError(
            f"this study needs a transformer with the sites {', '.join(SITES)}; {study.name!r} has "
            f"{', '.join(study.sites)}. Take digits_vit."
        )
    found = study.contributions()
    modes = study.modes("contributions")
    activation_modes = study.modes("activations")
    nodes = {
        "/": xr.Dataset(attrs={"model": study.name, "images": len(study.labels)}),
        "/statistics": measure_contributions(found, seed=study.seed),
        "/images": _by_image(found, study.network.layers),
        "/ablation": _ablation(study, modes, activation_modes, asked, percentages, trials),
        **_concepts(study, modes, activation_modes, permutations),
    }
    for site in SITES:
        layers = study.layers_of(site)
        name = layers[3 * len(layers) // 4]
        one = found[f"layers/{name}"].to_dataset().isel(sample=image)
        nodes[f"/example/{site}"] = xr.Dataset(
            {
                "contribution": ("channel", one["contribution"].sum("sign").values),
                "activation": ("channel", one["activation"].values),
            },
            attrs={"layer": name},
        )
    return xr.DataTree.from_dict(nodes)


def site_layers(saved: xr.DataTree) -> dict[str, list[str]]:
    """Return the layers of each site, from input to output."""
    found = saved["statistics"].to_dataset()
    return {site: found["layer"].values[found["site"].values == site].tolist() for site in SITES}


def _by_image(found: xr.DataTree, layers: tuple[str, ...]) -> xr.Dataset:
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


def _concepts(
    study: ImageStudy, modes: xr.DataTree, activation_modes: xr.DataTree, permutations: int
) -> dict[str, xr.Dataset]:
    """Correlate four kinds of units with classes; keep the best of every class."""
    found = correlate_concepts(
        modes,
        concept_table(xr.DataArray(study.labels, dims="sample")),
        activation_modes=activation_modes,
        permutations=permutations,
        seed=study.seed,
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


def _ablation(
    study: ImageStudy,
    modes: xr.DataTree,
    activation_modes: xr.DataTree,
    asked: int,
    percentages: Sequence[float],
    trials: int,
) -> xr.Dataset:
    """Ablate the modes of classes in every layer, on images that did not choose the modes."""
    names = np.unique(study.labels)
    targets = np.random.default_rng(study.seed).permutation(names)[:TARGETS]
    own = [np.flatnonzero(study.labels == name) for name in np.sort(targets)]
    few = min(len(one) // 2 for one in own)
    if not few:
        raise RetinaCodecError(
            "every class needs two images or more, one to be asked and one to choose the mode; "
            f"got {dict(zip(*np.unique(study.labels, return_counts=True), strict=True))}."
        )
    chosen = np.concatenate([one[: min(asked, few)] for one in own])
    rest = np.setdiff1d(np.arange(len(study.labels)), chosen)
    images = study.images
    some = (
        images.isel(sample=chosen)
        if isinstance(images, xr.DataArray)
        else torch.utils.data.Subset(images, chosen.tolist())
    )
    found = control_curves(
        study.network,
        some,
        study.labels[chosen],
        modes.isel(sample=rest),
        activation_modes=activation_modes.isel(sample=rest),
        mode_labels=study.labels[rest],
        settings=ControlSettings(
            by=list(SELECTIONS),
            style="ablate",
            percentages=percentages,
            trials=trials,
            off_classes=1,
            classes=study.classes or None,
        ),
        seed=study.seed,
        device=study.device,
    )
    return found.sel(style="ablate", layer=list(study.network.layers))


PAIR = "contribution modes − activation modes"


def transformer_claims(saved: xr.DataTree) -> list[Claim]:
    """Judge the sentences of sections 10.5.1 to 10.5.3, and what is ours.

    Early, middle and late: thirds of the blocks. Differences are paired: within images for
    sparsity, within classes for correlations, and for specificity where layers are compared.

    Parameters
    ----------
    saved : xr.DataTree
        From `transformer_study`.

    Returns
    -------
    list of Claim
        That what varies with the image is sparser in contributions than in activations is a
        control of ours.

    References
    ----------
    Melander et al. 2026, CODEC, 10.5.1 to 10.5.3, Fig. S7.
    """
    layers = site_layers(saved)
    return [
        *_sparsity_claims(saved, layers),
        *_correlation_claims(saved, layers),
        *_ablation_claims(saved, layers),
    ]


def _several(values: xr.DataArray, weights: dict[str, npt.NDArray[np.float64]]) -> dict[str, Any]:
    """Contrasts of values (unit, place) by name, as `judge` takes them."""
    found = [contrast(values.values, weight) for weight in weights.values()]
    ends = [one.interval for one in found]
    return {"found": [one.found for one in found], "interval": ends, "places": list(weights)}


def _sparsity_claims(saved: xr.DataTree, layers: dict[str, list[str]]) -> list[Claim]:
    """Section 10.5.1."""
    source, claims = "10.5.1, Fig. S7D–F", []
    statistics = saved["statistics"].to_dataset().sel(quantity="contribution")
    values = saved["images"].to_dataset()["sparsity"].sel(quantity="contribution")
    ours = (
        "So is what varies with the image: contributions less their mean over images are sparser "
        "than activations less theirs"
    )
    for name, where, says, key, measure in (
        ("sparser", source, "Contributions are sparser than activations", "difference", "Hoyer"),
        ("varying", "control of ours", ours, "varying_difference", "Hoyer less the mean"),
    ):
        for site, names in layers.items():
            here = statistics.sel(layer=names)
            claims.append(
                judge(
                    f"{name}_{site}",
                    where,
                    f"{says}: {SITES[site]}.",
                    here[key].values,
                    here[f"{key}_interval"].values,
                    low=0,
                    measure=f"{measure}, contributions − activations",
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
                **_several(own, shape),
                low=0,
                measure="Hoyer",
            )
        )
    own = values.sel(layer=layers["mlp"]).transpose("sample", "layer")
    drop = contrast(own.values, _last_step(len(layers["mlp"])))
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


def _last_step(count: int) -> npt.NDArray[np.float64]:
    """Weights of "last but one less last"."""
    return np.array([0.0] * (count - 2) + [1.0, -1.0])


def _correlation_claims(saved: xr.DataTree, layers: dict[str, list[str]]) -> list[Claim]:
    """Section 10.5.2."""
    source, claims = "10.5.2, Fig. S7G–I", []
    best = saved["best"].to_dataset()["correlation"]
    for site, names in layers.items():
        rise = depth_weights(len(names), "late", "early")
        own = best.sel(layer=names).transpose("concept", "kind", "layer")
        table = own.dot(xr.DataArray(rise, dims="layer"), dim="layer")
        each = dict(zip((KINDS[kind] for kind in KINDS), np.eye(len(KINDS)), strict=True))
        claims.append(
            judge(
                f"rise_{site}",
                source,
                f"Correlations with classes increase with depth: {SITES[site]}.",
                **_several(table, each),
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
                **_several(mean[site], both),
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


def _ablation_claims(saved: xr.DataTree, layers: dict[str, list[str]]) -> list[Claim]:
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
    drop = contrast(by_class["mlp"], _last_step(len(layers["mlp"])))
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
