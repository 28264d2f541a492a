"""Scores that need the network: its channels held back, and a network with shuffled weights.

Results hold labels and no inputs, so network and inputs are checked against them first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import nn

from retina_codec.contributions.contribute import contribute
from retina_codec.contributions.runner import first_input, mean_input
from retina_codec.errors import RetinaCodecError
from retina_codec.methods.base import Method
from retina_codec.methods.baselines import WORDS, Baseline, names_inputs, prepare_baseline
from retina_codec.methods.integrated_gradients import IntegratedGradients
from retina_codec.modes.scores.insertion import channel_scores
from retina_codec.modes.scores.stability import agreement, cosine
from retina_codec.networks.adapter import Adapter, as_adapter
from retina_codec.networks.borrowed import (
    borrow,
    copied,
    open_device,
    reference_parameter,
    settled,
)
from retina_codec.probing.batches import Batch, to_point
from retina_codec.probing.checks import check_network
from retina_codec.probing.from_layer import FromLayer
from retina_codec.probing.hooks import HookedFunction
from retina_codec.probing.inputs import Source, open_inputs
from retina_codec.progress import progress_bar
from retina_codec.targets.base import Target, as_target, target_of

__all__ = ["baseline_of", "network_scores", "shuffled_network"]

STATISTICS = 256  # inputs that set the norms of the network of noise


def network_scores(
    tree: xr.DataTree,
    layers: Sequence[str],
    network: Any,
    inputs: Any,
    *,
    again_of: Mapping[str, Any],
    target: Any,
    method: Method | None,
    number: int,
    times: int,
    seed: int,
    device: str | torch.device | None,
    progress: bool | None,
) -> dict[str, xr.Dataset]:
    """Hold channels of every layer back, and decompose a network of noise; see `score_modes`.

    Parameters
    ----------
    again_of : mapping of layer to object
        ``modes``, ``decomposition`` and a call that decomposes contributions once more.
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
    goal, baseline = _target(tree, adapter, target), baseline_of(tree, method)
    found: dict[str, xr.Dataset] = {}
    sizes = {name: min(number, again_of[name].modes.sizes["mode"]) for name in layers}
    bar = progress_bar(
        range(sum(sizes.values())), description="channels held back", progress=progress
    )
    with borrow(adapter.module, place) as module, bar:
        first = to_point(first_input(source), place, here.dtype)
        function = HookedFunction.open(replace(adapter, module=module), first)
        check_network(
            function, source, place, here.dtype, batch_size=2, classes=goal.classes,
            follows_path=not names_inputs(baseline),
        )  # fmt: skip
        mean = partial(mean_input, function, source, place, here.dtype)
        begin = prepare_baseline(baseline, mean, function)
        for name in layers:
            found[name] = channel_scores(
                FromLayer(function, name),
                source,
                goal,
                begin,
                again_of[name].modes,
                number=number,
                times=times,
                seed=seed,
                step=bar.update,
            )
    some = next(source.part(0, min(STATISTICS, len(source))).batches(STATISTICS))
    noise = shuffled_network(adapter.module, to_point(some, here.device, here.dtype), seed)
    explained = contribute(
        replace(adapter, module=noise),
        inputs,
        target=goal.unfitted(),
        method=method or _path_of(tree, baseline),
        device=device,
        progress=progress,
    )
    for name in layers:
        again = again_of[name]
        noisy = explained[f"layers/{name}/contribution"].transpose(..., "sign", "channel")
        modes = again(noisy.sel(sign=again.modes["sign"].values), again.decomposition)
        found[name] = found[name].assign(_compare(again.modes, modes))
    return found


def _path_of(tree: xr.DataTree, baseline: Baseline) -> IntegratedGradients:
    """Return the path integral of the results, by their rule; results of 0.1 name no placement."""
    attrs = tree.attrs
    return IntegratedGradients(
        steps=int(attrs.get("steps", 20)),
        baseline=baseline,
        quadrature=attrs.get("quadrature", "trapezoid"),
        placement=attrs.get("placement", "uniform" if "quadrature" in attrs else None),
    )


def baseline_of(tree: xr.DataTree, method: Method | None) -> Baseline:
    """Return the baseline x′ that contributions were measured from.

    Parameters
    ----------
    tree : xr.DataTree
        Results of `contribute`; their attrs hold numbers and words, arrays as a hash.
    method : Method, optional
        The method that made them: needed where the baseline is an array or a function.

    Returns
    -------
    Baseline
        0 for methods that have none.

    Raises
    ------
    RetinaCodecError
        If the baseline is an array or a function and ``method`` does not hold it.
    """
    text = tree.attrs.get("baseline", "None")
    several = str(text).startswith("[")
    found: list[float | str] = []
    for part in str(text).strip("[]").split(", "):
        try:
            found.append(0.0 if part == "None" else part if part in WORDS else float(part))
        except ValueError:
            if method is not None and method.describe().get("baseline") == text:
                return method.baseline  # type: ignore[attr-defined]  # it is a parameter of it
            raise RetinaCodecError(
                "channels are held at the baseline of the contributions, which the results do not "
                f"hold: it is {text}. Give method=, the method that made them."
            ) from None
    return found if several else found[0]


def _compare(modes: xr.Dataset, noise: xr.Dataset) -> dict[str, Any]:
    """Compare modes with those of the network of noise: how well they rebuild, how alike."""
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
    """Raise an error unless the inputs are those of the results."""
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
    found = target_of(tree)
    if found is None:
        raise RetinaCodecError(
            "target must be given: the results do not hold what is needed to compute "
            f"{tree.attrs.get('target', 'their target')} again. Give target=, the one that was "
            "explained."
        )
    return found.prepare(cells=adapter.cells)


def _predictions(tree: xr.DataTree, target: Any) -> np.ndarray | None:
    if not getattr(target, "incomplete", False):
        return None
    predicted = tree["responses"].to_dataset()["prediction"].values
    return np.asarray(predicted, np.float64)


def shuffled_network(network: nn.Module, inputs: Batch | None, seed: int) -> nn.Module:
    """Return a copy whose weights are permuted within each kernel or matrix.

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
    with settled(), torch.no_grad():
        shuffled = copied(network)
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
