"""Describe layers by one forward pass: calls, shapes, channels, and whether they cut.

A layer cuts the network if every path from input to output crosses it.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from retina_codec.errors import RetinaCodecError
from retina_codec.networks.adapter import Adapter, place_of_tensor
from retina_codec.networks.embeddings import Entry, EntrySearch
from retina_codec.probing.batches import Batch, batch_length

__all__ = ["Layer", "Survey", "survey"]

Watched = Callable[
    [Callable[[str, torch.Tensor], torch.Tensor | None]], AbstractContextManager[None]
]


PROBES = 16  # units that are traced back where several axes fit


@dataclass(frozen=True)
class Layer:
    """Shape, channel axis and place of one layer in the network."""

    shape: tuple[int, ...]  # of one input's units
    channel_axis: int  # counted with the batch axis 0
    axes_are: str  # "declared", "inferred", or "guessed: ..." with the reason
    cuts: bool  # whether every path from input to output crosses the layer
    attached: bool = True  # whether derivatives lead from the layer back to the input
    overwritten: bool = False  # whether a later step of the network overwrites its values in place
    row_for_each: bool = True  # whether it has one row for every input
    dtype: torch.dtype = torch.float32  # of its values

    @property
    def space_axes(self) -> tuple[int, ...]:
        """All other axes but the batch."""
        return tuple(a for a in range(1, len(self.shape) + 1) if a != self.channel_axis)

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.shape[self.channel_axis - 1]


@dataclass(frozen=True)
class _Maker:
    """The latest module that made channels before a layer."""

    axis: int  # where it puts them, usually
    features: int
    certain: bool  # a module of torch itself: the usual place is the place
    made: torch.Tensor


@dataclass(frozen=True)
class _Seen:
    """One call of a layer during the pass."""

    values: torch.Tensor  # a view of its own in the graph
    copy: torch.Tensor  # what went on in its place
    versions: tuple[int, int]
    node: Any
    maker: _Maker | None


class Survey(NamedTuple):
    """What one run of a network showed."""

    layers: dict[str, Layer]
    """In the order asked for; ``name@call`` where a module is called several times."""
    entry: Entry
    """Where paths between inputs lead."""
    output_shape: tuple[int, ...]
    """Of the output of one input."""
    class_axis: int | None
    """Which axis of outputs ``(b, ..., ...)`` holds what the last step of weights made, counted
    with the batch axis 0; None if it cannot be told. The last axis where the network calls its
    outputs ``logits``, as language models do."""


def survey(network: Adapter, point: Batch, watched: Watched) -> Survey:
    """Run the first input through a network once and describe what it shows.

    A layer cuts the network if the input is not reached from the output in the graph of
    derivatives once the layer is taken away. Token numbers have no derivative; there the outputs
    of the embeddings stand for the input. The channel axis is the one that has as many entries as
    the latest module made channels; where several have, units are traced back to that module.

    Parameters
    ----------
    network : Adapter
    point : Batch
        One input.
    watched : callable
        ``watched(see)`` is a context in which ``see(name@call, values)`` is called for every layer.

    Returns
    -------
    Survey

    Raises
    ------
    RetinaCodecError
        If a layer is never called; if the network's ``paths`` name an input that is unknown, or
        whole numbers that no embedding takes.
    """
    modules: list[_Maker] = []  # the latest of them
    weights: list[_Maker] = []  # the latest product with weights, in a module or not
    named: list[bool] = []
    found: dict[str, _Seen] = {}

    def see(name: str, values: torch.Tensor) -> torch.Tensor:
        alias = values.view_as(values) if values.requires_grad else values.detach()
        copy = alias.requires_grad_().clone()
        versions = (alias._version, copy._version)
        found[name] = _Seen(alias, copy, versions, copy.grad_fn, modules[-1] if modules else None)
        return copy

    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        del inputs
        usual, place = _usual(module), place_of_tensor(output)
        made = output if place is None else output[place]
        if usual is not None and isinstance(made, torch.Tensor):
            certain = type(module).__module__.startswith("torch.nn.")
            modules[:] = [_Maker(*usual, certain, made)]
            weights[:] = [_Maker(usual[0], made.shape[usual[0]], True, made)]

    def end(module: nn.Module, inputs: Any, output: Any) -> None:
        del module, inputs
        named.append(isinstance(getattr(output, "logits", None), torch.Tensor))

    search = EntrySearch(network.module, point, network.paths)
    handles = [m.register_forward_hook(note) for m in network.module.modules() if _usual(m)]
    handles.append(network.module.register_forward_hook(end))
    try:
        with (
            torch.enable_grad(),
            watched(see),
            search.following() as copies,
            _WeightsInView(weights),
        ):
            output = network.call(copies)
    finally:
        for handle in handles:
            handle.remove()
    entry = search.entry()
    calls = _calls_of_layers(network, found)
    leaves, rows = search.leaves(entry), batch_length(point)
    layers = {
        name: _describe(network, layer, found[key], output, leaves, rows)
        for name, (layer, key) in calls.items()
    }
    by_name = bool(named) and named[-1] and network.output in (None, "logits")
    axis = output.ndim - 1 if by_name else _class_axis(output, weights)
    return Survey(layers, entry, tuple(output.shape[1:]), axis)


def _calls_of_layers(network: Adapter, found: dict[str, _Seen]) -> dict[str, tuple[str, str]]:
    """Return layer and call by name; the number of the call is in it where there are several."""
    calls = {
        name: [key for key in found if key.rpartition("@")[0] == name] for name in network.layers
    }
    missing = [name for name, keys in calls.items() if not keys]
    if missing:
        raise RetinaCodecError(
            f"layers {missing} were not called in the forward pass (some modules use the weights "
            "of others without calling them). Explain other layers."
        )
    return {n if len(keys) == 1 else key: (n, key) for n, keys in calls.items() for key in keys}


def _class_axis(output: torch.Tensor, weights: list[_Maker]) -> int | None:
    """Return the axis of outputs ``(b, ..., ...)`` that holds what the last weights made."""
    if not weights or output.ndim < 3:
        return None
    maker, axes = weights[-1], list(range(1, output.ndim))
    traced = _traced(_Seen(output, output, (0, 0), None, maker), maker, axes)
    if traced is not None:
        return traced
    fitting = [axis for axis in axes if output.shape[axis] == maker.features]
    return fitting[0] if len(fitting) == 1 else None


class _WeightsInView(TorchFunctionMode):
    """Note the latest product with weights that a network makes without a module."""

    LAST = (functional.linear, torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__)
    SECOND = (functional.conv1d, functional.conv2d, functional.conv_transpose1d)

    def __init__(self, latest: list[_Maker]) -> None:
        super().__init__()
        self.latest = latest

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run a step; note what it made with weights."""
        del types
        output = function(*args, **(kwargs or {}))
        if function in self.LAST + self.SECOND and output.ndim > 2:
            axis = -1 if function in self.LAST else 1
            self.latest[:] = [_Maker(axis, output.shape[axis], True, output)]
        return output


def _describe(
    network: Adapter,
    name: str,
    seen: _Seen,
    output: torch.Tensor,
    leaves: list[torch.Tensor],
    rows: int,
) -> Layer:
    """Describe one call of a layer."""
    shape = tuple(seen.values.shape)
    declared = network.declared_axis(name)
    axis, how = _infer_axis(seen) if declared is None else (declared, "declared")
    if not -len(shape) < axis < len(shape) or axis % len(shape) == 0:
        raise RetinaCodecError(
            f"the channel axis of layer {name!r} must be between 1 and {len(shape) - 1} "
            f"for values {shape}; got {axis}."
        )
    attached = _reaches(seen.values.grad_fn, leaves, None)
    return Layer(
        shape[1:],
        axis % len(shape),
        how,
        cuts=not _reaches(output.grad_fn, leaves, seen.node) and attached,
        attached=attached,
        overwritten=(seen.values._version, seen.copy._version) != seen.versions,
        row_for_each=shape[0] == rows,
        dtype=seen.values.dtype,
    )


def _usual(module: nn.Module) -> tuple[int, int] | None:
    """Return usual channel axis and number of features of a module that makes channels."""
    if isinstance(module, nn.modules.conv._ConvNd):
        return 1, module.out_channels
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        return 1, module.num_features
    if isinstance(module, nn.GroupNorm):
        return 1, module.num_channels
    if isinstance(module, nn.Linear):
        return -1, module.out_features
    if isinstance(module, nn.LayerNorm):
        return -1, module.normalized_shape[-1]
    if isinstance(module, nn.Embedding):
        return -1, module.embedding_dim
    if isinstance(module, nn.MultiheadAttention):
        return -1, module.embed_dim
    if isinstance(module, nn.RNNBase):
        size = module.proj_size or module.hidden_size
        return -1, int(size) * (1 + int(module.bidirectional))
    if type(module).__name__ == "Conv1D" and isinstance(getattr(module, "nf", None), int):
        return -1, int(module.nf)  # type: ignore[arg-type]  # GPT-2's linear layer, transformers
    return None


def _infer_axis(seen: _Seen) -> tuple[int, str]:
    """Return the channel axis of a layer and whether it is inferred or guessed."""
    shape, maker = tuple(seen.values.shape), seen.maker
    if len(shape) == 2:
        return 1, "inferred"
    if maker is None:
        return (-1 if len(shape) == 3 else 1), "guessed: no module before this layer makes channels"
    fitting = [axis for axis in range(1, len(shape)) if shape[axis] == maker.features]
    if len(fitting) == 1:
        return fitting[0], "inferred"
    if not fitting:
        reason = f"guessed: no axis has the {maker.features} channels of the module before"
        return maker.axis, reason
    traced = _traced(seen, maker, fitting) if maker.certain else None
    if traced is not None:
        return traced, "inferred"
    usual = maker.axis % len(shape)
    axes = ", ".join(map(str, fitting))
    reason = f"guessed: axes {axes} have {maker.features} entries each"
    return (usual if usual in fitting else fitting[0]), reason


def _traced(seen: _Seen, maker: _Maker, fitting: list[int]) -> int | None:
    """Return the axis along which units depend on one channel each of the module before."""
    if not maker.made.requires_grad:
        return None
    left, told = set(fitting), False
    generator = torch.Generator().manual_seed(0)
    shares = torch.rand((PROBES, seen.values.ndim), generator=generator).tolist()
    for probe in shares:
        sizes = zip(probe, seen.values.shape, strict=True)
        place = [int(share * size) for share, size in sizes]
        unit = seen.values[tuple(place)]
        (slope,) = torch.autograd.grad(unit, maker.made, retain_graph=True, allow_unused=True)
        if slope is None:
            return None
        channels = slope.movedim(maker.axis, -1).flatten(0, -2).abs().sum(0).nonzero()
        if len(channels) == 1:
            told = True
            left &= {axis for axis in fitting if place[axis] == int(channels[0])}
    return left.pop() if told and len(left) == 1 else None


def _reaches(node: Any, leaves: list[torch.Tensor], blocked: Any) -> bool:
    """Return whether a path in the graph leads from the output to a leaf around a node."""
    wanted = {id(leaf) for leaf in leaves}
    seen, waiting = {blocked}, [node]
    while waiting:
        here = waiting.pop()
        if here is None or here in seen:
            continue
        seen.add(here)
        if id(getattr(here, "variable", None)) in wanted:
            return True
        waiting.extend(parent for parent, _ in here.next_functions)
    return False
