"""The part of scoring that needs the network: it is opened once for all layers.

Why this file exists: results hold labels, not inputs. Here the network and the inputs are checked
against them, the target is found again, and each layer's channels are silenced.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import nn

from retina_codec.contributions.contribute import contribute
from retina_codec.contributions.runner import first_input
from retina_codec.errors import RetinaCodecError
from retina_codec.methods.integrated_gradients import IntegratedGradients
from retina_codec.modes.scores.stability import agreement, cosine
from retina_codec.networks.adapter import Adapter, as_adapter
from retina_codec.probing.batches import Batch, map_tensors, to_point
from retina_codec.probing.borrowed import open_device, reference_parameter, working_network
from retina_codec.probing.hooks import HookedFunction
from retina_codec.probing.inputs import Source, open_inputs
from retina_codec.probing.interventions import (
    Silencer,
    insertion_and_deletion,
    levels,
    single_effects,
)
from retina_codec.progress import progress_bar
from retina_codec.targets.base import Target, as_target
from retina_codec.targets.surprisal import Surprisal

__all__ = ["ask_network", "channel_scores", "shuffled_network", "strong_times"]

STATISTICS = 256  # inputs that set the norms of the network of noise


def ask_network(
    tree: xr.DataTree,
    layers: Sequence[str],
    network: Any,
    inputs: Any,
    *,
    again_of: Mapping[str, Any],
    target: Any,
    attribution: Any,
    number: int,
    times: int,
    seed: int,
    device: str | torch.device | None,
    progress: bool | None,
) -> dict[str, xr.Dataset]:
    """Silence channels of every layer, and decompose a network of noise; see `score_modes`.

    Parameters
    ----------
    again_of : mapping of layer to object
        ``modes``, ``method`` and a call (contribution, method) that decomposes once more.
    number : int
        Modes of each layer.

    Returns
    -------
    dict of xr.Dataset
        By layer.
    """
    adapter = as_adapter(network, list(layers))
    here = reference_parameter(adapter.module)
    place = here.device if device is None else open_device(device)
    source = open_inputs(adapter, inputs, here.dtype)
    _check_inputs(tree, layers, source)
    goal = _target(tree, adapter, target)
    found: dict[str, xr.Dataset] = {}
    sizes = {name: min(number, again_of[name].modes.sizes["mode"]) for name in layers}
    bar = progress_bar(
        range(sum(sizes.values())), description="silenced channels", progress=progress
    )
    with working_network(adapter.module, place, None) as module, bar:
        function = HookedFunction(adapt_like(adapter, module))
        function.look(to_point(first_input(source), place, here.dtype))
        for name in layers:
            found[name] = channel_scores(
                function,
                source,
                goal,
                name,
                again_of[name].modes,
                number=number,
                times=times,
                seed=seed,
                device=place,
                dtype=here.dtype,
                step=bar.update,
            )
    first = next(source.part(0, min(STATISTICS, len(source))).batches(STATISTICS))
    noise = shuffled_network(adapter.module, to_point(first, here.device, here.dtype), seed)
    surprised = isinstance(goal, Surprisal)
    explained = contribute(
        adapt_like(adapter, noise),
        inputs,
        target=Surprisal(shrinkage="ledoit-wolf") if surprised else goal,
        method=attribution or IntegratedGradients(steps=int(tree.attrs.get("steps", 20))),
        device=device,
        progress=progress,
    )
    for name in layers:
        again = again_of[name]
        noisy = _ordered(explained[f"layers/{name}/contribution"])
        modes = again(noisy.sel(sign=again.modes["sign"].values), again.method)
        found[name] = found[name].assign(_compare(again.modes, modes))
    return found


def adapt_like(adapter: Adapter, module: torch.nn.Module) -> Adapter:
    """Return an adapter of another module of the same kind."""
    return replace(adapter, module=module)


def _ordered(contribution: Any) -> xr.DataArray:
    """Return contributions (sample, sign, channel)."""
    ordered: xr.DataArray = contribution.transpose(..., "sign", "channel")
    return ordered


def _compare(modes: xr.Dataset, noise: xr.Dataset) -> dict[str, Any]:
    """Say how well the network of noise is decomposed, and how like the network its modes are."""
    flat = [one["dictionary"].values.reshape(one.sizes["mode"], -1) for one in (modes, noise)]
    share = [
        (
            abs(one["loading"]).sum(str(one["loading"].dims[0]))
            * abs(one["dictionary"]).sum(("sign", "channel"))
        ).values
        for one in (modes, noise)
    ]
    match = agreement(cosine(flat[0].astype(float), flat[1].astype(float)), *share).leading
    return {
        "noise_r2": ((), float(noise["r2"]), {"units": "1"}),
        "noise_active": ((), float(noise["mean_active"]), {"units": "count"}),
        "noise_match": ((), match, {"units": "1"}),
    }


def _check_inputs(tree: xr.DataTree, layers: Sequence[str], source: Source) -> None:
    """Refuse inputs that are not those of the results."""
    for name in layers:
        contribution = tree["layers"].children[name].to_dataset()["contribution"]
        dim = str(contribution.dims[0])
        labels = source.coords.get(dim)
        same = len(source) == contribution.sizes[dim] and (
            labels is None
            or np.array_equal(
                np.asarray(getattr(labels, "values", labels)), contribution[dim].values
            )
        )
        if not same:
            raise RetinaCodecError(
                f"inputs must be those that were explained, in the same order; got {len(source)}, "
                f"the results hold {contribution.sizes[dim]} along {dim!r}, or their labels "
                "differ. Give the same split."
            )


def _target(tree: xr.DataTree, adapter: Adapter, target: Any) -> Target:
    """Return the target that was explained."""
    if target is not None:
        return as_target(target).prepare(responses=_predictions(tree, target), cells=adapter.cells)
    responses = tree["responses"].to_dataset() if "responses" in tree.children else xr.Dataset()
    if not {"mean", "covariance"} <= set(responses.data_vars):
        raise RetinaCodecError(
            "target must be given: the results hold no surprisal (mean and covariance of the "
            f"responses), they explain {tree.attrs.get('target', 'something else')}. Give "
            "target=, the one that was explained."
        )
    return Surprisal(responses["mean"].values, responses["covariance"].values)


def _predictions(tree: xr.DataTree, target: Any) -> np.ndarray | None:
    if not getattr(target, "incomplete", False):
        return None
    predicted = tree["responses"].to_dataset()["prediction"].values
    return np.asarray(predicted, np.float64)


SPACING = 10  # samples between two times of a mode, so that they are different events


CONTROLS = 3  # random orders of channels


RESAMPLES = 1000


SINGLE = 16  # channels silenced alone, the heaviest of the mode


def strong_times(loading: np.ndarray, number: int) -> np.ndarray:
    """Return up to ``number`` samples where a mode loads most, at least 10 apart, in order."""
    chosen: list[int] = []
    for place in np.argsort(-loading, kind="stable"):
        if len(chosen) == number or loading[place] <= 0:
            break
        if all(abs(int(place) - other) >= SPACING for other in chosen):
            chosen.append(int(place))
    return np.array(sorted(chosen), dtype=np.intp)


def channel_scores(
    function: HookedFunction,
    source: Source,
    target: Target,
    layer: str,
    modes: xr.Dataset,
    *,
    number: int,
    times: int,
    seed: int,
    device: torch.device,
    dtype: torch.dtype,
    step: Callable[[], object],
) -> xr.Dataset:
    """Insert and delete the channels of the leading modes in the network.

    At the held-out times where a mode is strongest, channels go (deletion) or come (insertion) in
    the order of w, largest first; share = (F − F_none) / (F_all − F_none), of means over times. A
    random mode is w dealt out anew over channels. Gain: area between the two curves, positive
    where the mode is better than random modes. Effects: Pearson r over times and channels between
    the mode's share z w_c and the fall of F when channel c alone is silenced.

    Parameters
    ----------
    function : HookedFunction
        Knows its layers.
    source : Source
        The inputs, in the order of the modes' samples.
    target : Target
    layer : str
    modes : xr.Dataset
        ``dictionary``, ``loading``, ``split``.
    number : int
        Modes, the leading ones.
    times : int
        Per mode.
    seed : int
        Of random modes and resampling.
    device, dtype
        Of the network.
    step : callable
        Called after each mode.

    Returns
    -------
    xr.Dataset
        ``insertion``, ``deletion``, ``insertion_control``, ``deletion_control`` (mode, step);
        ``insertion_gain``, ``deletion_gain``, ``effect``, ``effect_control`` (mode) and the 95 %
        intervals ``..._interval`` (mode, bound) over resampled times; ``silenced`` (step), share
        of channels. NaN where a mode has fewer than 3 such times or F does not depend on them.
    """
    generator = np.random.default_rng(seed)
    held = np.flatnonzero(modes["split"].values == "held_out")
    weights = modes["dictionary"].sum("sign").values.astype(float)  # (mode, c)
    loading = modes["loading"].values.astype(float)
    number = min(number, len(weights))
    places = levels(weights.shape[1])
    rows: list[dict[str, np.ndarray]] = []
    for mode in range(number):
        chosen = held[strong_times(loading[held, mode], times)]
        if len(chosen) < 3:
            rows.append(_nothing(len(places)))
        else:
            point = to_point(_inputs_at(source, chosen), device, dtype)
            bound = target.bind(function.outputs(point))
            value = Silencer(function, layer, point, bound)
            share = np.outer(loading[chosen, mode], weights[mode])  # (b, c), expected effects
            rows.append(_one_mode(value, share, weights[mode], places, generator))
        step()
    interval = ("insertion_gain", "deletion_gain", "effect")
    dims = {name: ("mode", "step") for name in ("insertion", "deletion")}
    dims |= {f"{name}_control": ("mode", "step") for name in ("insertion", "deletion")}
    dims |= {f"{name}_interval": ("mode", "bound") for name in interval}
    return xr.Dataset(
        {
            name: (dims.get(name, ("mode",)), np.stack([row[name] for row in rows]), {"units": "1"})
            for name in rows[0]
        },
        coords={
            "mode": modes["mode"].values[:number],
            "silenced": ("step", places / weights.shape[1], {"units": "1"}),
            "bound": ["lower", "upper"],
        },
    )


def _one_mode(
    value: Any,
    share: np.ndarray,
    weight: np.ndarray,
    places: np.ndarray,
    generator: np.random.Generator,
) -> dict[str, np.ndarray]:
    """Score one mode; curves are kept per time until the end, for resampling."""
    curves = np.array(insertion_and_deletion(value, np.argsort(-weight, kind="stable")))
    orders = [generator.permutation(len(weight)) for _ in range(CONTROLS)]
    control = np.mean([insertion_and_deletion(value, order) for order in orders], 0)
    single = np.sort(np.argsort(-np.abs(weight), kind="stable")[:SINGLE])
    effects = single_effects(value, single, len(weight))  # (b, channel)
    dealt = share[:, generator.permutation(share.shape[1])]

    def summary(times: np.ndarray) -> dict[str, np.ndarray]:
        whole, none = curves[1, 0, times].mean(), curves[0, 0, times].mean()
        span = whole - none if whole > none else np.nan
        (insert, delete), (insert_c, delete_c) = (
            (some[..., times].mean(-1) - none) / span for some in (curves, control)
        )
        x = places / places[-1]
        found = {
            "insertion": insert,
            "deletion": delete,
            "insertion_control": insert_c,
            "deletion_control": delete_c,
            "insertion_gain": np.trapezoid(insert - insert_c, x),
            "deletion_gain": np.trapezoid(delete_c - delete, x),
            "effect": _pearson(share[times][:, single], effects[times]),
            "effect_control": _pearson(dealt[times][:, single], effects[times]),
        }
        return {name: np.asarray(numbers) for name, numbers in found.items()}

    count = effects.shape[0]
    found = summary(np.arange(count))
    draws = generator.integers(0, count, (RESAMPLES, count))
    again = [summary(draw) for draw in draws]
    for name in ("insertion_gain", "deletion_gain", "effect"):
        drawn = np.array([row[name] for row in again])
        drawn = drawn[np.isfinite(drawn)]
        bounds = np.quantile(drawn, [0.025, 0.975]) if len(drawn) else np.full(2, np.nan)
        found[f"{name}_interval"] = bounds
    return found


def _nothing(steps: int) -> dict[str, np.ndarray]:
    """Return NaN for a mode that cannot be scored."""
    curves = ("insertion", "deletion", "insertion_control", "deletion_control")
    single = ("insertion_gain", "deletion_gain", "effect", "effect_control")
    found = {name: np.full(steps, np.nan) for name in curves}
    found |= {name: np.asarray(np.nan) for name in single}
    return found | {f"{name}_interval": np.full(2, np.nan) for name in single[:3]}


def _pearson(one: np.ndarray, other: np.ndarray) -> float:
    """Return Pearson r of all entries; NaN where one does not vary."""
    a, b = one.ravel() - one.mean(), other.ravel() - other.mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size > 0 else float("nan")


def _inputs_at(source: Source, places: np.ndarray) -> Batch:
    """Read single inputs of a source into one batch."""
    each = [next(source.part(int(place), int(place) + 1).batches(1)) for place in places]
    joined: Batch = map_tensors(lambda *some: torch.cat(some), each[0], *each[1:])
    return joined


def shuffled_network(network: nn.Module, inputs: Batch | None, seed: int) -> nn.Module:
    """Return a copy whose weights are dealt out anew within each kernel or matrix.

    Tensors of one dim (offsets, scales) stay. Norms that keep running statistics are set to those
    of ``inputs`` in the new network, so that activations stay in their range.

    Parameters
    ----------
    network : torch.nn.Module
        Not changed.
    inputs : Batch, optional
        To measure statistics with; None leaves those of the network.
    seed : int

    References
    ----------
    Adebayo et al. 2018, Sanity checks for saliency maps (randomised weights).
    """
    generator = torch.Generator().manual_seed(seed)
    shuffled = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in shuffled.parameters():
            if parameter.ndim > 1:
                order = torch.randperm(parameter.numel(), generator=generator)
                flat = parameter.detach().flatten()[order.to(parameter.device)]
                parameter.copy_(flat.view_as(parameter))
        norms: list[Any] = [m for m in shuffled.modules() if hasattr(m, "running_mean")]
        if inputs is not None and norms:
            shuffled.eval()
            kept = [norm.momentum for norm in norms]
            for norm in norms:
                norm.train()
                norm.momentum = 1.0
            shuffled(**inputs) if isinstance(inputs, dict) else shuffled(inputs)
            for norm, momentum in zip(norms, kept, strict=True):
                norm.momentum = momentum
            shuffled.eval()
    if not any(parameter.ndim > 1 for parameter in shuffled.parameters()):
        raise RetinaCodecError(
            "a network of noise needs weights to shuffle; this one has no kernel or matrix. "
            "Leave the network out."
        )
    return shuffled
