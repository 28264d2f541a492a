"""Three sites of a transformer, measured by depth: sparsity, classes of units, ablation.

Why this file exists: token features, hidden units of the MLP and attention are compared by the same
three measurements, for which contributions and modes are computed once. It judges nothing.
"""

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr

from retina_codec.analysis.concepts import concept_table, correlate_concepts
from retina_codec.analysis.contribution_statistics import contribution_statistics
from retina_codec.analysis.control import control_curves
from retina_codec.analysis.image_study import ImageStudy
from retina_codec.analysis.sparsity import hoyer_sparsity
from retina_codec.errors import RetinaCodecError

__all__ = ["KINDS", "SELECTIONS", "SITES", "site_layers", "transformer_study"]

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
            f"{', '.join(study.sites)}. Take models/digits_vit."
        )
    found = study.contributions()
    modes = study.modes("contributions")
    activation_modes = study.modes("activations")
    nodes = {
        "/": xr.Dataset(attrs={"model": study.name, "images": len(study.labels)}),
        "/statistics": contribution_statistics(found, seed=study.seed),
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
        by=list(SELECTIONS),
        style="ablate",
        percentages=percentages,
        trials=trials,
        images_per_trial=10,
        off_classes=1,
        classes=study.classes or None,
        seed=study.seed,
        device=study.device,
    )
    return found.sel(style="ablate", layer=list(study.network.layers))
