"""Ablate or preserve the channels of a concept's modes, and measure which classes lose accuracy.

Notation: c channels, k the number that is taken, N images.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import nn

from retina_codec.analysis.concepts.correlate import activation_tree
from retina_codec.analysis.control.channels import (
    Choice,
    Concepts,
    best_modes,
    channel_weights,
    concepts_of,
    draw_orders,
    samples_of,
)
from retina_codec.analysis.control.layer import run_layer
from retina_codec.analysis.control.settings import ControlSettings
from retina_codec.analysis.control.trials import draw_images, draw_trials
from retina_codec.errors import RecordingWarning, RetinaCodecError
from retina_codec.modes.base import decomposition_of
from retina_codec.modes.decompose import decompose
from retina_codec.networks.adapter import Adapter, own_names
from retina_codec.probing.interventions import open_perturbed
from retina_codec.storage.results import layer_sites, layers_of

__all__ = ["control_curves"]


def control_curves(
    network: nn.Module | Adapter,
    images: Any,
    labels: Any,
    modes: xr.DataTree,
    *,
    activation_modes: xr.DataTree | None = None,
    mode_labels: Any = None,
    layers: str | Sequence[str] | None = None,
    superclasses: Mapping[str, str | Sequence[str]] | None = None,
    settings: ControlSettings | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: bool | None = None,
) -> xr.Dataset:
    """Ablate or preserve the channels of a concept's modes; measure which classes lose accuracy.

    For every concept (class or superclass) its mode is the one whose loading has the largest
    Pearson r with the mask "the image belongs to it". The first k of the channels in order of the
    mode's weight are held at ``held_at`` (ablate), or all others are (preserve), in one layer at
    a time. ``ratio = accuracy with channels held back / accuracy as it is``, of each class; on
    target: mean over the classes of the concept; off target: mean over other classes. The area
    is that under ratio against share of channels, k / c from 0 to 1 (both ends measured),
    trapezoid rule. ``specificity = area off target − area on target`` for ablate, and on − off
    for preserve: above 0 where the channels serve the concept more than others.

    Parameters
    ----------
    network : torch.nn.Module or Adapter
        A classifier, outputs (batch, class); the adapter that was explained, with its sites.
    images : xr.DataArray, array, torch.Tensor, data set or DataLoader
        As `contribute` takes them. Best not those whose loadings choose the modes.
    labels : array-like of str or int, (sample,), or None
        Class of every image: a name of ``classes``, or the number of an output. None: the
        coordinate ``label`` of the images.
    modes : xr.DataTree
        Results of `decompose` for the same sites.
    activation_modes : xr.DataTree, optional
        ``decompose(activation_tree(modes), method)``; made so, with the settings of ``modes``,
        when left out and asked for.
    mode_labels : array-like of str or int, optional
        Class of every sample of ``modes``; its coordinate ``label`` when left out.
    layers : str or sequence of str, optional
        All that have modes when left out.
    superclasses : mapping of str to str (or several), optional
        Superclass of a class; given, the concepts are superclasses.
    settings : ControlSettings, optional
        ``ControlSettings()`` when left out.
    seed : int
    device : str or torch.device, optional
    progress : bool, optional
        See `retina_codec.progress.progress_bar`.

    Returns
    -------
    xr.Dataset
        Dimensionless. ``ratio`` (layer, style, selection, concept, side, percentage, trial), with
        percentages 0 and 100 added; ``area`` (…, side, trial); ``specificity`` (…, concept,
        trial); ``trial_mean`` and ``trial_sem`` (layer, style, selection): the mean over
        concepts, then mean and standard error over trials, as the paper plots it.
        ``estimate`` (layer, style, selection): specificity from all images and random orders;
        ``estimate_interval`` 95 %, ``p_value`` two-sided against 0; ``concept_estimate`` and
        ``concept_interval`` by concept. ``difference`` (layer, style, pair) of estimates of two
        selections on the same resampled images, ``difference_interval``, ``difference_p``.
        Intervals and p are NaN, with a warning, where a class has a single image.
        ``mode`` and ``correlation`` (layer, selection, concept, rank); ``channels`` and ``share``
        (layer, percentage); ``original_accuracy`` (class); ``undefined_trials`` (concept): trials
        in which no image on target is answered rightly to begin with (NaN, left out of means);
        ``resumed``, ``different_sets`` (layer), see `perturb`.

    Raises
    ------
    RetinaCodecError
        If labels, modes, layers and network do not fit together, or a choice is not valid.

    Notes
    -----
    Trials share their images, so ``trial_sem`` shrinks with the number of trials and does not
    generalise to other images; the interval does. It holds network, modes and concepts fixed.
    Resamples draw one image less than a class has (`draw_images`). In simulations with ten classes
    of ten images, in which an image loses nearly all answers or none, the interval of ``estimate``
    held the truth 94 to 95 times in 100. That of a single concept does so about 90 times where
    many answers change and far less often where few do (no width if none did): use more images.
    Random channels know no concept: over all classes, with all others off target, their
    ``estimate`` is 0 by symmetry, and what counts is the width of its interval.
    Departs from the paper in the ends of the area (0 and 1, not 1 and 99 %), in counting channels
    that are there (k / c), and in taking all off-target classes by default.

    References
    ----------
    Melander et al. 2026, CODEC, Fig. 6, S10 and section 10.5.3.
    """
    settings = ControlSettings() if settings is None else settings
    names = layers_of(modes, layers, part="modes")
    trees = _trees(modes, activation_modes, settings.selections, names)
    random = np.random.default_rng(seed)
    with open_perturbed(
        network, images, names, batch_size=settings.batch_size, device=device
    ) as opened:
        outputs = settings.classes or own_names(opened.function.network.module, "classes")
        concepts = concepts_of(opened.source, labels, outputs, superclasses, settings)
        if concepts.single:
            has = "has" if concepts.single == 1 else "have"
            warnings.warn(
                f"{concepts.single} of {len(concepts.classes)} classes {has} a single image, so "
                "that intervals and p are not known (NaN). Give at least two images of each class.",
                RecordingWarning,
                stacklevel=2,
            )
        trial = draw_trials(
            concepts.code, concepts.member, trials=settings.trials,
            per_class=settings.images_per_trial, off_classes=settings.off_classes,
            draws=settings.trials, random=random,
        )  # fmt: skip
        resampled = draw_images(
            concepts.code, concepts.member, resamples=settings.bootstraps,
            draws=settings.trials, random=random,
        )  # fmt: skip
        found = []
        for name in names:
            groups = _groups(settings.heads, name, opened.function.network)
            by_chance = np.zeros((settings.trials, groups or opened.layers[name].channels))
            chosen = {
                kind: _by_modes(trees[kind], name, concepts, mode_labels, settings, groups, random)
                if kind in trees
                else Choice(draw_orders(by_chance, random))
                for kind in settings.selections
            }
            answers = run_layer(opened, name, chosen, concepts, settings, progress)
            found.append(answers.curves(trial, resampled).expand_dims(layer=[name]))
    result = xr.concat(found, "layer", join="exact", combine_attrs="drop_conflicts")
    return (
        result.assign_coords(site=("layer", layer_sites(modes, names)))
        .assign(
            original_accuracy=("class", answers.original_accuracy(), {"units": "1"}),
            undefined_trials=("concept", answers.undefined(trial), {"units": "count"}),
        )
        .assign_attrs(
            settings.describe(),
            images=len(concepts.code),
            seed=seed,
            level="class" if superclasses is None else "superclass",
        )
    )


def _by_modes(
    tree: xr.DataTree,
    name: str,
    concepts: Concepts,
    mode_labels: Any,
    settings: ControlSettings,
    groups: int | None,
    random: np.random.Generator,
) -> Choice:
    """Order channels (or groups of them) for every concept by its modes' weights."""
    found = tree[f"layers/{name}/modes"].to_dataset()
    loading = found["loading"].transpose(..., "mode").values.astype(np.float64)
    count = settings.modes_per_concept
    if count > loading.shape[1]:
        raise RetinaCodecError(
            f"modes_per_concept must be at most the {loading.shape[1]} modes of layer {name!r}; "
            f"got {count}."
        )
    member = samples_of(tree, name, mode_labels, len(loading), concepts)
    mode, correlation = best_modes(loading, member, count)
    weight = channel_weights(found["dictionary"], mode, settings.sign)
    if groups is not None and weight.shape[1] != groups:
        if weight.shape[1] % groups:
            raise RetinaCodecError(
                f"{groups} heads cannot share the {weight.shape[1]} channels of layer {name!r} "
                "evenly. Give the number of heads of this layer."
            )
        weight = weight.reshape(len(weight), groups, -1).sum(2)
    return Choice(draw_orders(weight, random), found["mode"].values[mode], correlation)


def _groups(heads: Any, name: str, network: Adapter) -> int | None:
    """Return how many groups of channels a layer has; None: each channel is one."""
    if heads == "network":
        return network.heads(name)
    found: int | None = heads.get(name) if isinstance(heads, Mapping) else heads
    return found


def _trees(
    modes: xr.DataTree,
    activation_modes: xr.DataTree | None,
    selections: list[str],
    names: list[str],
) -> dict[str, xr.DataTree]:
    """Return the results whose modes each selection goes by."""
    found = {"contribution modes": modes}
    if "activation modes" in selections:
        if activation_modes is None:
            attrs = modes[f"layers/{names[0]}/modes"].to_dataset().attrs
            activation_modes = decompose(
                activation_tree(modes, names),
                decomposition_of(attrs),
                signs=attrs["signs"].split(",") if "signs" in attrs else None,
                held_out=float(attrs["held_out"]),
                gap=int(attrs["gap"]),
                progress=False,
            )
        layers_of(activation_modes, names, part="modes")
        found["activation modes"] = activation_modes
    return found
