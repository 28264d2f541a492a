"""Control of a network through modes: take a concept's channels away, or leave only these.

Why this file exists: modes are read off contributions; whether their channels carry one class and
not others is seen only by intervening. It asks the network once per channel set and image; trials
and intervals come from the same answers (`control_trials`).

Notation: c channels, k the number that is taken, N images.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

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
from retina_codec.analysis.control.layer import Asking
from retina_codec.analysis.control.trials import draw_images, draw_trials
from retina_codec.analysis.results import chosen_layers, layer_sites
from retina_codec.errors import RetinaCodecError
from retina_codec.modes.base import decomposition_of
from retina_codec.modes.decompose import decompose
from retina_codec.networks.adapter import Adapter
from retina_codec.probing.interventions import Fill, open_perturbed

__all__ = ["PERCENTAGES", "control_curves"]

PERCENTAGES = (1, 2, 5, 10, 18, 25, 50, 80, 99)


SELECTIONS = ("contribution modes", "activation modes", "random channels")


STYLES = ("ablate", "preserve")


SIGNS = ("excitatory", "inhibitory", "net")


def control_curves(
    network: nn.Module | Adapter,
    images: Any,
    labels: Any,
    modes: xr.DataTree,
    *,
    activation_modes: xr.DataTree | None = None,
    mode_labels: Any = None,
    layers: str | Sequence[str] | None = None,
    by: str | Sequence[str] = SELECTIONS,
    style: str | Sequence[str] = STYLES,
    percentages: Sequence[float] = PERCENTAGES,
    trials: int = 20,
    images_per_trial: int = 10,
    off_classes: int | None = None,
    superclasses: Mapping[str, str | Sequence[str]] | None = None,
    concepts: Sequence[str] | None = None,
    modes_per_concept: int = 1,
    sign: str = "excitatory",
    heads: int | Mapping[str, int] | Literal["network"] | None = None,
    classes: Sequence[str] | None = None,
    top: int = 1,
    fill: Fill = 0.0,
    bootstraps: int = 1000,
    seed: int = 0,
    batch_size: int | None = None,
    device: str | torch.device | None = None,
    progress: bool | None = None,
) -> xr.Dataset:
    """Ablate or preserve the leading channels of a concept's modes; measure who loses accuracy.

    For every concept (class or superclass) its mode is the one whose loading has the largest
    Pearson r with the mask "the image belongs to it". The first k of the channels in order of the
    mode's weight are held at ``fill`` (ablate), or all others are (preserve), in one layer at a
    time. ``ratio = accuracy with channels held back / accuracy as it is``, of each class; on
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
    by : str or sequence of str
        Of "contribution modes", "activation modes", "random channels".
    style : str or sequence of str
        Of "ablate", "preserve".
    percentages : sequence of float
        Of the layer's channels, between 0 and 100: the nearest number, at least 1, never all.
    trials : int
        At least 2. One trial is a draw of images of every class, of off-target classes, and of
        an order of random channels for every concept (of ``trials`` such orders, each asked
        once); network, modes and the pool of images are the same in all.
    images_per_trial : int
        Of each class, without replacement.
    off_classes : int, optional
        How many classes outside the concept are drawn; all when left out. The paper draws 1.
    superclasses : mapping of str to str (or several), optional
        Superclass of a class; given, the concepts are superclasses.
    concepts : sequence of str, optional
        Which; all when left out.
    modes_per_concept : int
        Best correlated modes whose weights are summed.
    sign : {"excitatory", "inhibitory", "net"}
        Of the weights that order channels. Channels of equal weight stand in random order.
    heads : int, dict of str to int, or "network", optional
        Whole runs of neighbouring channels are taken together, so many in a layer; their weight
        is the sum. "network": the attention heads that `adapt` found, single channels elsewhere.
    classes : sequence of str, optional
        Names of the outputs in order; the network's ``classes`` when left out, else numbers.
    top : int
        Right: the label is among so many largest outputs.
    fill : float or "mean"
        See `perturb`.
    bootstraps : int
        Resamples of images (within class) and of random orders, for intervals and p.
    seed : int
    batch_size : int, optional
        See `perturb`.
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
    Trials share their images, so ``trial_sem`` shrinks with the number of trials and says nothing
    about other images; the interval does. It holds network, modes and concepts fixed.
    Resamples draw one image less than a class has (`draw_images`). In simulations with ten classes
    of ten images, in which an image loses nearly all answers or none, the interval of ``estimate``
    held the truth 94 to 95 times in 100. That of a single concept does so about 90 times where
    many answers change and far less often where few do (no width if none did): ask more images.
    Random channels know no concept: over all classes, with all others off target, their
    ``estimate`` is 0 by symmetry, and what counts is the width of its interval.
    Departs from the paper in the ends of the area (0 and 1, not 1 and 99 %), in counting channels
    that are there (k / c), and in taking all off-target classes unless told.

    References
    ----------
    Melander et al. 2026, CODEC, Fig. 6, S10 and section 10.5.3.
    """
    selections, styles = _several(by, SELECTIONS, "by"), _several(style, STYLES, "style")
    _check(percentages, trials, images_per_trial, bootstraps, top, modes_per_concept, sign)
    shown = [float(value) for value in sorted(percentages)]
    names = _layers_with_modes(modes, layers)
    trees = _trees(modes, activation_modes, selections, names)
    random = np.random.default_rng(seed)
    with open_perturbed(network, images, names, batch_size=batch_size, device=device) as opened:
        outputs = classes or getattr(opened.function.network.module, "classes", None)
        asked = concepts_of(opened.source, labels, outputs, superclasses, concepts, off_classes)
        trial = draw_trials(
            asked.code, asked.member, trials=trials, per_class=images_per_trial,
            off_classes=off_classes, draws=trials, random=random,
        )  # fmt: skip
        resampled = draw_images(
            asked.code, asked.member, resamples=bootstraps, draws=trials, random=random
        )
        found = []
        for name in names:
            chosen = {}
            for selection in selections:
                tree = trees.get(selection)
                groups = _groups(heads, name, opened.function.network)
                count = opened.layers[name].channels
                chosen[selection] = (
                    _by_chance(groups or count, trials, random)
                    if tree is None
                    else _by_modes(
                        tree, name, asked, mode_labels, modes_per_concept, sign, groups, random
                    )
                )
            asking = Asking(opened, name, chosen, styles, shown, asked, top, fill, progress)
            found.append(asking.curves(trial, resampled).expand_dims(layer=[name]))
    result = xr.concat(found, "layer", join="exact", combine_attrs="drop_conflicts")
    result = result.assign_coords(site=("layer", layer_sites(modes, names)))
    whole = np.array([asking.original[asked.code == n].mean() for n in range(len(asked.classes))])
    return result.assign(
        original_accuracy=("class", whole, {"units": "1"}),
        undefined_trials=("concept", asking.undefined(trial), {"units": "count"}),
    ).assign_attrs(
        trials=trials,
        images_per_trial=images_per_trial,
        off_classes="all" if off_classes is None else off_classes,
        images=len(asked.code),
        modes_per_concept=modes_per_concept,
        sign=sign,
        top=top,
        fill=fill,
        bootstraps=bootstraps,
        seed=seed,
        area="ratio against share of the layer's channels, trapezoid rule from 0 to 1",
        level="class" if superclasses is None else "superclass",
        **({"heads": str(heads)} if heads is not None else {}),
    )


def _by_modes(
    tree: xr.DataTree,
    name: str,
    asked: Concepts,
    mode_labels: Any,
    count: int,
    sign: str,
    groups: int | None,
    random: np.random.Generator,
) -> Choice:
    """Order channels (or groups of them) for every concept by its modes' weights."""
    found = tree[f"layers/{name}/modes"].to_dataset()
    loading = found["loading"].transpose(..., "mode").values.astype(np.float64)
    if count > loading.shape[1]:
        raise RetinaCodecError(
            f"modes_per_concept must be at most the {loading.shape[1]} modes of layer {name!r}; "
            f"got {count}."
        )
    member = samples_of(tree, name, mode_labels, len(loading), asked)
    mode, correlation = best_modes(loading, member, count)
    weight = channel_weights(found["dictionary"], mode, sign)
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
    if found is not None and (not isinstance(found, int) or found < 1):
        raise RetinaCodecError(
            f"heads must be a whole number of at least 1, or 'network'; got {found!r}."
        )
    return found


def _by_chance(groups: int, draws: int, random: np.random.Generator) -> Choice:
    return Choice(draw_orders(np.zeros((draws, groups)), random))


def _several(value: str | Sequence[str], valid: Sequence[str], name: str) -> list[str]:
    found = [value] if isinstance(value, str) else list(value)
    if not found or not set(found) <= set(valid) or len(set(found)) < len(found):
        raise RetinaCodecError(
            f"{name} must be among {', '.join(map(repr, valid))}, each once; got {found}."
        )
    return found


def _check(
    percentages: Sequence[float],
    trials: int,
    images_per_trial: int,
    bootstraps: int,
    top: int,
    modes_per_concept: int,
    sign: str,
) -> None:
    if not len(percentages) or not all(0 < value < 100 for value in percentages):
        raise RetinaCodecError(
            f"percentages must lie between 0 and 100, which are always measured; got {percentages}."
        )
    least = {
        "trials": (trials, 2),
        "images_per_trial": (images_per_trial, 1),
        "bootstraps": (bootstraps, 1),
        "top": (top, 1),
        "modes_per_concept": (modes_per_concept, 1),
    }
    for name, (value, lowest) in least.items():
        if value < lowest:
            raise RetinaCodecError(f"{name} must be at least {lowest}; got {name}={value}.")
    if sign not in SIGNS:
        raise RetinaCodecError(f"sign must be one of {', '.join(SIGNS)}; got {sign!r}.")


def _layers_with_modes(modes: xr.DataTree, layers: str | Sequence[str] | None) -> list[str]:
    known = chosen_layers(modes)
    found = [name for name in known if "modes" in modes["layers"].children[name].children]
    wanted = [layers] if isinstance(layers, str) else layers
    chosen = found if wanted is None else list(wanted)
    if not chosen or not set(chosen) <= set(found):
        raise RetinaCodecError(
            f"layers must name layers with modes; got {chosen or 'none'}, the results have modes "
            f"of {found or 'none'}. Run decompose() for these layers first."
        )
    return chosen


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
        _layers_with_modes(activation_modes, names)
        found["activation modes"] = activation_modes
    return found
