"""From a network and a recording to labelled contributions of every explained layer.

Why this file exists: it goes once (twice when the target is estimated from the responses) through
the inputs in batches and keeps per channel and sign what methods.py gives per unit. It is not where
contributions are defined, where networks are run, or where results get their labels.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import nn

from retina_codec.contributions.evaluation import (
    HookedFunction,
    RetinaFunction,
    make_function,
    working_network,
)
from retina_codec.contributions.methods import Method
from retina_codec.contributions.reduction import mean_over_space, sum_by_sign
from retina_codec.contributions.results import completeness, label, state_hash, versions
from retina_codec.contributions.sources import Source, open_inputs
from retina_codec.contributions.targets import Target, as_target
from retina_codec.errors import RetinaCodecError

__all__ = ["completeness", "contribute"]


def contribute(
    network: nn.Module,
    inputs: xr.DataTree | xr.Dataset | xr.DataArray | torch.Tensor,
    *,
    target: Target | Callable[[torch.Tensor], torch.Tensor],
    method: Method,
    layers: Sequence[str] | None = None,
    batch_size: int | None = None,
    device: str | torch.device | None = None,
    progress: bool | None = None,
    dtype: torch.dtype | None = None,
) -> xr.DataTree:
    """Compute how much every channel acted to make the target what it is, for every input.

    Contributions of hidden units, ``C_j``, are split by sign and then summed over space:
    ``C⁺ = Σ_space max(C_j, 0)``, ``C⁻ = Σ_space min(C_j, 0)``. All layers come from one pass.

    Parameters
    ----------
    network : torch.nn.Module
        A `RetinaCNN`, or any module that maps a batch to ``(batch, output)``; explained in
        evaluation mode and left as it was.
    inputs : xr.DataTree, xr.Dataset, xr.DataArray or torch.Tensor
        A split of a recording with raw ``stimulus`` (time, y, x), read in chunks and normalised
        as the network asks (`RetinaCNN` only); or ready inputs, ``time`` or ``sample`` first.
    target : Target or callable
        `Surprisal`, `Unit`, `Sum`, or a function of outputs ``(batch, output) -> (batch,)``.
    method : Method
        `IntegratedGradients`.
    layers : sequence of str, optional
        Names of submodules; the network's ``layers`` when left out.
    batch_size : int, optional
        Inputs per batch: 64 on the CPU, 256 on a GPU. Changes speed and memory, not the result
        (beyond rounding).
    device : str or torch.device, optional
        Where to compute; where the network lies when left out.
    progress : bool, optional
        None shows bars after 2 s, False never, True at once.
    dtype : torch.dtype, optional
        torch.float32 or torch.float64; the network's own when left out.

    Returns
    -------
    xr.DataTree
        Root: provenance in attrs. ``/responses``: ``prediction`` (time, cell) Hz, ``rate`` (as
        recorded, if given), ``target`` (time) and the ``mean``, ``covariance`` and
        ``condition_number`` of a Surprisal. ``/layers/<name>``: ``contribution`` (time, sign,
        channel), ``activation`` (time, channel) mean over space, ``target_change`` (time)
        = F(x) − F(x′), ``completeness_error`` (time) = sum of contributions − target_change,
        in the target's unit (nats for Surprisal). ``time`` is the time of the response.

    Raises
    ------
    RetinaCodecError
        If network, inputs, layers and target do not fit together; before long work where
        possible.

    References
    ----------
    Melander et al. 2026, CODEC, "contribution algorithms" and "retina".

    Examples
    --------
    >>> import torch
    >>> from retina_codec.contributions import IntegratedGradients, Sum, contribute
    >>> network = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 1))
    >>> explained = contribute(network, torch.ones(5, 3), target=Sum(), layers=["0"],
    ...                        method=IntegratedGradients(steps=1))
    >>> dict(explained["layers/0"].sizes)
    {'sample': 5, 'sign': 2, 'channel': 2}
    """
    target = as_target(target)
    _check_arguments(network, method, batch_size, dtype)
    names = _layer_names(network, layers)
    source = open_inputs(network, inputs)
    here = _reference_parameter(network)
    device = here.device if device is None else _open_device(device)
    size = batch_size or (64 if device.type == "cpu" else 256)
    cells = getattr(network, "cells", None)
    with working_network(network, device, dtype) as working:
        function = make_function(working, names, consecutive=source.consecutive)
        dtype = dtype or here.dtype
        responses = None
        if target.incomplete:
            responses = _predict(function, source, size, device, dtype, progress)
        target = target.prepare(responses=responses, cells=cells)
        found = _explain(function, source, target, method, size, device, dtype, progress)
    settings = {
        **method.describe(),
        "target": target.describe(),
        "network": type(network).__name__,
        "network_sha256": state_hash(network),
        "dtype": str(dtype).removeprefix("torch."),
        "versions": versions(),
    }
    return label(found, names, source, target, cells, settings)


Function = HookedFunction | RetinaFunction


def _predict(
    function: Function,
    source: Source,
    size: int,
    device: torch.device,
    dtype: torch.dtype,
    progress: bool | None,
) -> np.ndarray:
    """Return the network's outputs for all inputs, (time, cell)."""
    bar = source.bar(size, device, dtype, "predictions", progress)
    return np.concatenate(
        [function.outputs(function.start(batch)).cpu().numpy() for _, batch in bar]
    )


def _explain(
    function: Function,
    source: Source,
    target: Target,
    method: Method,
    size: int,
    device: torch.device,
    dtype: torch.dtype,
    progress: bool | None,
) -> dict[str, np.ndarray]:
    """Go through all inputs; returns arrays (time, ...), those of layers as ``name/what``."""
    parts: dict[str, list[np.ndarray]] = {}

    def keep(key: str, values: torch.Tensor) -> None:
        parts.setdefault(key, []).append(values.cpu().numpy())

    for place, batch in source.bar(size, device, dtype, "contributions", progress):
        units = method.explain(function, target, batch)
        if not bool(torch.isfinite(units.value).all()):
            raise RetinaCodecError(
                f"the target is not finite among inputs {place.start} to {place.stop - 1}. "
                "Check the network's outputs there."
            )
        change = units.value - units.baseline_value
        keep("prediction", units.output)
        keep("target", units.value)
        keep("target_change", change)
        for name, activation in function.activations(function.start(batch)).items():
            contribution = sum_by_sign(units.contribution[name])
            keep(f"{name}/contribution", contribution)
            keep(f"{name}/completeness_error", contribution.sum((1, 2)) - change)
            keep(f"{name}/activation", mean_over_space(activation))
    return {key: np.concatenate(values) for key, values in parts.items()}


def _check_arguments(network: Any, method: Any, batch_size: Any, dtype: Any) -> None:
    if not isinstance(network, nn.Module):
        raise RetinaCodecError(
            f"network must be a torch module; got {type(network).__name__}. "
            "Load one with load_network(folder)."
        )
    if not isinstance(method, Method):
        raise RetinaCodecError(f"method must be IntegratedGradients(); got {method!r}.")
    if batch_size is not None and batch_size < 1:
        raise RetinaCodecError(f"batch_size must be at least 1; got {batch_size=}.")
    if dtype not in (None, torch.float32, torch.float64):
        raise RetinaCodecError(f"dtype must be torch.float32 or torch.float64; got {dtype}.")


def _open_device(device: str | torch.device) -> torch.device:
    """Return the device, or say that this machine has none such."""
    try:
        found = torch.device(device)
    except RuntimeError:
        raise RetinaCodecError(
            f"device must be 'cpu', 'cuda' or 'cuda:0', say; got {device!r}."
        ) from None
    if found.type == "cuda" and not torch.cuda.is_available():
        raise RetinaCodecError(
            f"device {device!r} was asked for, but torch sees no CUDA device here. Use 'cpu'."
        )
    # "cuda" is the current GPU; with its number it compares equal to where tensors lie.
    return torch.empty(0, device=found).device


def _layer_names(network: nn.Module, layers: Sequence[str] | None) -> tuple[str, ...]:
    """Return the layers to explain; unknown ones are refused by `HookedFunction`."""
    chosen = getattr(network, "layers", None) if layers is None else layers
    if isinstance(chosen, str):
        chosen = (chosen,)
    if chosen is None or isinstance(chosen, nn.Module) or not tuple(chosen):
        raise RetinaCodecError(
            "layers must name the submodules to explain; got none. They are: "
            f"{', '.join(name for name, _ in network.named_modules() if name)}."
        )
    return tuple(dict.fromkeys(chosen))


def _reference_parameter(network: nn.Module) -> torch.Tensor:
    """Return a tensor that tells device and dtype of the network."""
    for parameter in [*network.parameters(), *network.buffers()]:
        if parameter.is_floating_point():
            return parameter
    return torch.empty(0)
