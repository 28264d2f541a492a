"""Open a network as a chain of stages whose units are grouped to nodes.

Notation: b inputs, g groups (nodes), c channels, P[g, c] share of a channel that a group takes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr
from torch import Tensor, nn

from retina_codec.errors import RetinaCodecError
from retina_codec.networks.adapter import Adapter, adapt, as_adapter
from retina_codec.networks.borrowed import borrow, open_device, reference_parameter
from retina_codec.networks.retina.model import RetinaCNN
from retina_codec.probing.batches import Batch, to_point
from retina_codec.probing.checks import check_network
from retina_codec.probing.hooks import HookedFunction
from retina_codec.probing.inputs import Source, open_inputs
from retina_codec.targets.base import Target, as_target

__all__ = ["INPUT", "OUTPUT", "REST", "Groups", "Opened", "Stage", "mode_shares", "open_stages"]

INPUT, OUTPUT, REST = "input", "output", "rest"

Groups = Mapping[str, xr.DataArray | npt.ArrayLike] | None


@dataclass(frozen=True)
class Stage:
    """Input, one layer, or the output; its channels are shared out among nodes."""

    name: str
    nodes: tuple[str, ...]
    shares: Tensor  # P (g, c), columns sum to one
    axis: int  # of channels, counted with the batch axis 0
    cuts: bool  # whether every path from input to output crosses the stage

    def weights(self, ndim: int) -> Tensor:
        """Return P as (g, 1, ..., c, ..., 1), to be multiplied with values (b, ...)."""
        shape = [len(self.nodes)] + [1] * ndim
        shape[self.axis + 1] = self.shares.shape[1]
        return self.shares.view(shape)

    def sum_up(self, units: Tensor) -> Tensor:
        """Sum values of units (b, ...) to nodes, (b, g)."""
        flat = units.movedim(self.axis, 1).flatten(2) if units.ndim > 2 else units.unsqueeze(2)
        return flat.sum(2) @ self.shares.T


@dataclass(frozen=True)
class Opened:
    """A network, its inputs and stages from the input to the output."""

    function: HookedFunction
    start: Callable[[Any], Any]
    source: Source
    target: Target
    stages: tuple[Stage, ...]
    output_units: str
    device: torch.device
    dtype: torch.dtype

    def batches(self, size: int) -> Iterator[Batch]:
        """Yield the inputs on the device."""
        for batch in self.source.batches(size):
            yield to_point(batch, self.device, self.dtype)


class _AboveFirst(nn.Module):
    """A retina network from the output of its affine first layer on."""

    def __init__(self, network: RetinaCNN) -> None:
        super().__init__()
        self.conv1 = nn.Identity()
        for name, part in network.named_children():
            if name != "conv1":
                self.add_module(name, part)

    def forward(self, first: Tensor) -> Tensor:
        """Return the rates, Hz."""
        return RetinaCNN.above_first_layer(self, self.conv1(first))  # type: ignore[arg-type]


@contextmanager
def open_stages(
    network: nn.Module | Adapter,
    inputs: Any,
    target: Target | Callable[[Tensor], Tensor],
    layers: Sequence[str] | None,
    groups: Groups,
    *,
    lags: int,
    dtype: torch.dtype | None,
    device: str | torch.device | None,
    batch_size: int,
) -> Iterator[Opened]:
    """Borrow a network for a circuit; see `circuit`."""
    if layers is None and isinstance(network, RetinaCNN):
        layers = ("conv1", "conv2")
    adapter = as_adapter(network, layers)
    if isinstance(batch_size, bool) or batch_size < 1:
        raise RetinaCodecError(f"batch_size must be at least 1; got {batch_size=}.")
    if len(adapter.layers) < 2 or len(set(adapter.layers)) < len(adapter.layers):
        raise RetinaCodecError(
            "a circuit needs two or more distinct layers, from the input to the output; got "
            f"{list(adapter.layers)}. Give layers=['conv1', 'conv2'], for example."
        )
    here = reference_parameter(adapter.module)
    place, kind = open_device(device) if device else here.device, dtype or here.dtype
    source = open_inputs(adapter, inputs, kind)
    with borrow(adapter.module, place, kind) as module:
        first: Any = to_point(next(source.part(0, 1).batches(1)), place, kind)
        whole = HookedFunction.open(replace(adapter, module=module), first)
        check_network(whole, source, place, kind, batch_size=batch_size, follows_path=False)
        ready = _prepared(as_target(target), whole, source, adapter, batch_size, place, kind)
        function: HookedFunction = whole
        start: Callable[[Any], Any] = whole.enter
        if isinstance(module, RetinaCNN) and adapter.layers[0] == "conv1":
            above = adapt(_AboveFirst(module), list(adapter.layers)).module.eval()
            start = module.first_layer
            function = HookedFunction.open(adapt(above, list(adapter.layers)), start(first))
        stages = _stages(whole, adapter, groups or {}, first, lags, kind, place)
        yield Opened(function, start, source, ready, stages, adapter.output_units, place, kind)


def _prepared(
    target: Target,
    function: HookedFunction,
    source: Source,
    adapter: Adapter,
    size: int,
    device: torch.device,
    dtype: torch.dtype,
) -> Target:
    """Fit the target to the responses to all inputs where it needs them."""
    responses = None
    if target.incomplete:
        found = [function.outputs(to_point(b, device, dtype)) for b in source.batches(size)]
        responses = np.asarray(torch.cat(found).cpu(), np.float64)
    return target.prepare(responses=responses, cells=adapter.cells)


def _stages(
    function: HookedFunction,
    adapter: Adapter,
    groups: Mapping[str, Any],
    first: Batch,
    lags: int,
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[Stage, ...]:
    unknown = sorted(set(groups) - set(function.survey))
    if unknown:
        raise RetinaCodecError(
            f"groups must be of layers of the circuit, {', '.join(function.survey)}; got "
            f"{', '.join(unknown)}."
        )
    stages: list[Stage] = []
    if isinstance(adapter.module, RetinaCNN) and adapter.layers[0] == "conv1":
        stages.append(_lag_stage(adapter.module, lags, dtype, device))
    for name, layer in function.survey.items():
        nodes, shares = _shares(groups.get(name), name, layer.channels)
        own = torch.as_tensor(shares, dtype=dtype, device=device)
        stages.append(Stage(name, nodes, own, layer.channel_axis, layer.cuts))
    outputs = function.outputs(first)
    if outputs.ndim == 2:
        count = outputs.shape[1]
        names = tuple(map(str, adapter.cells or range(count)))
        eye = torch.eye(count, dtype=dtype, device=device)
        stages.append(Stage(OUTPUT, names, eye, 1, True))
    return tuple(stages)


def _lag_stage(network: RetinaCNN, lags: int, dtype: torch.dtype, device: torch.device) -> Stage:
    """Group the frames of a window in successive lags of equal length."""
    if isinstance(lags, bool) or not 1 <= lags <= network.history:
        raise RetinaCodecError(f"lags must lie in 1..{network.history}; got {lags!r}. Use 4.")
    edges = np.linspace(0, network.history, lags + 1).round().astype(int)
    shares = torch.zeros(lags, network.history, dtype=dtype, device=device)
    names = []
    for row, (begin, end) in enumerate(pairwise(edges)):
        shares[row, begin:end] = 1
        step = 1000 / network.frame_rate
        names.append(f"{(network.history - end) * step:g}-{(network.history - begin) * step:g} ms")
    return Stage(INPUT, tuple(names), shares, 1, True)


def _shares(
    groups: Any, layer: str, channels: int
) -> tuple[tuple[str, ...], npt.NDArray[np.float64]]:
    """Return names of nodes and P (g, c); what no group takes is the node "rest"."""
    if groups is None:
        return tuple(map(str, range(channels))), np.eye(channels)
    names: list[str] | None = None
    if isinstance(groups, xr.DataArray):
        other = [dim for dim in groups.dims if dim != "channel"]
        if len(other) == 1 and "channel" in groups.dims:
            groups = groups.transpose(other[0], "channel")
            names = [str(one) for one in groups[other[0]].values]
        groups = groups.values
    shares = np.asarray(groups, np.float64)
    good = shares.ndim == 2 and shares.shape[1] == channels and len(shares) > 0
    if not good or not ((shares >= 0).all() and (shares.sum(0) <= 1 + 1e-9).all()):
        raise RetinaCodecError(
            f"groups of layer {layer!r} must be shares (group, channel) of its {channels} "
            "channels, not negative, at most 1 in sum over groups; got shape "
            f"{shares.shape}. See mode_shares."
        )
    names = names or [str(number) for number in range(len(shares))]
    left = 1 - shares.sum(0)
    if (left > 1e-9).any():
        shares, names = np.vstack([shares, left.clip(0)]), [*names, REST]
    return tuple(names), shares


def mode_shares(modes: xr.DataTree, layer: str) -> xr.DataArray:
    """Return the share of every channel that each mode of a layer takes.

    ``P[m, c] = Σ_sign |D[m, sign, c]| / Σ_m′ Σ_sign |D[m′, sign, c]|``: the weights of the
    dictionary, each channel's divided by their sum. A channel in no mode has no share; a circuit
    shows such channels as the node "rest".

    Parameters
    ----------
    modes : xr.DataTree
        From `decompose`.
    layer : str

    Returns
    -------
    xr.DataArray (mode, channel)
        Without unit, 0 to 1; sums over modes to 1, or to 0 for a channel in no mode.

    Raises
    ------
    RetinaCodecError
        If the layer has no modes.
    """
    from retina_codec.storage.results import layers_of, modes_at

    layers_of(modes, layer, part="modes")
    dictionary = abs(modes_at(modes, layer)["dictionary"])
    weight = dictionary.sum([dim for dim in dictionary.dims if dim not in ("mode", "channel")])
    weight = weight.transpose("mode", "channel")
    total = weight.sum("mode")
    found: xr.DataArray = (weight / total.where(total > 0, 1)).rename("share")
    found = found.assign_coords(
        mode=[f"mode {one}" for one in modes_at(modes, layer)["mode"].values]
    )
    found.attrs = {"units": "1", "long_name": "share of the channel"}
    return found
