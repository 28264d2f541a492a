"""The part of scoring that needs the network: it is opened once for all layers.

Why this file exists: results hold labels, not inputs. Here the network and the inputs are checked
against them, the target is found again, and each layer's channels are silenced.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import xarray as xr

from retina_codec.contributions.batches import to_point
from retina_codec.contributions.engine import as_adapter, contribute, open_device
from retina_codec.contributions.hooked import HookedFunction
from retina_codec.contributions.integrated_gradients import IntegratedGradients
from retina_codec.contributions.lending import reference_parameter, working_network
from retina_codec.contributions.running import first_input
from retina_codec.contributions.sources import Source, open_inputs
from retina_codec.contributions.surprisal import Surprisal
from retina_codec.contributions.targets import Target, as_target
from retina_codec.errors import RetinaCodecError
from retina_codec.modes.causes import channel_scores, shuffled_network
from retina_codec.modes.stability import agreement, cosine
from retina_codec.networks.adapter import Adapter
from retina_codec.progress import progress_bar

__all__ = ["ask_network"]

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
