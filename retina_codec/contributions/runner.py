"""Run batches through a network and reduce their contributions, the same in every process.

A `Plan` decides the numbers, apart from the inputs; a `Runner` is a plan with its network ready.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from retina_codec.errors import RetinaCodecError
from retina_codec.methods.base import Method, UnitContributions
from retina_codec.methods.baselines import differ_by_input, not_finite
from retina_codec.networks.adapter import Adapter
from retina_codec.networks.blocks import Site
from retina_codec.networks.borrowed import borrow, settled, when_free
from retina_codec.networks.embeddings import Entry
from retina_codec.networks.retina.model import RetinaCNN
from retina_codec.probing.batches import Batch, batch_length, map_tensors, to_point
from retina_codec.probing.hooks import HookedFunction
from retina_codec.probing.inputs import Source
from retina_codec.probing.points import LayeredFunction
from retina_codec.probing.retina.forward import RetinaFunction
from retina_codec.probing.survey import Layer
from retina_codec.reductions import Reduction
from retina_codec.storage.context import Context
from retina_codec.storage.identity import describe_network, mark_written, object_text
from retina_codec.targets.base import Target

__all__ = ["Array", "Plan", "Runner", "make_function", "open_runner"]


@dataclass(frozen=True)
class Array:
    """What is kept of one quantity: dims and shape without the inputs' dim."""

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str


def _context_of_work() -> Context:
    """Return the settings of torch that hold during the work: `borrow` switches autocast off."""
    with settled():
        return Context.here()


@dataclass(frozen=True)
class Plan:
    """Everything that decides the numbers, apart from the inputs."""

    network: Adapter
    target: Target
    method: Method
    reduction: Reduction
    batch_size: int
    device: torch.device
    dtype: torch.dtype
    consecutive: bool
    context: Context = field(default_factory=_context_of_work)

    def describe(self) -> dict[str, str]:
        """Describe all that decides the numbers and is not named among the settings."""
        parts = {"target": self.target, "method": self.method, "reduction": self.reduction}
        return {
            **{f"values of {name}": object_text(part) for name, part in parts.items()},
            **self.context.describe(),
            **describe_network(self.network.module),
        }


@contextmanager
def open_runner(plan: Plan, first: Batch, *, stored: bool = False) -> Iterator["Runner"]:
    """Prepare the network of a plan; ``first`` is one input, for a look at the layers.

    With ``stored`` the runner knows its description, by which a store is recognised.
    """
    found = when_free(plan.network.module, lambda _: plan.describe()) if stored else {}
    with borrow(plan.network.module, plan.device, plan.dtype) as module:
        before = describe_network(module, weights=False) if stored else {}
        with plan.context.entered():
            runner = Runner(replace(plan, network=replace(plan.network, module=module)), first)
        if stored:
            after = describe_network(module, weights=False)
            found |= {"values of method": object_text(runner.plan.method)}  # which baseline
            runner.description = mark_written(found, before, after)
        yield runner


def make_function(plan: Plan, plain: HookedFunction) -> LayeredFunction:
    """Return the fastest exact way to evaluate this network at these layers.

    A retina network that carries hooks of its own (an ablation, say) is evaluated module by
    module, so that they act.
    """
    network = plan.network
    if (
        isinstance(network.module, RetinaCNN)
        and set(network.layers) <= set(RetinaCNN.layers)
        and all(network.hook_of(layer) == "output" for layer in network.layers)
        and (plan.method.fused or not plan.reduction.needs_whole_layer)
        and not any(m._forward_hooks or m._forward_pre_hooks for m in network.module.modules())
    ):
        fast: Any = RetinaFunction(  # takes one tensor, never several by name
            network.module,
            network.layers,
            consecutive=plan.consecutive
            and not differ_by_input(getattr(plan.method, "baseline", None)),
            chords=plan.method.chords,
            all_units=plan.reduction.needs_whole_layer,
        )
        made: LayeredFunction = fast
        return made
    if plan.method.chords:
        raise RetinaCodecError(
            "the quadrature 'chords' needs a network that says which nonlinearity follows a "
            "layer: the convolutions of a RetinaCNN without hooks of its own. "
            "Elsewhere use 'trapezoid'."
        )
    return plain


class Runner:
    """A plan whose network is ready; goes through sources and gives reduced arrays.

    Attributes
    ----------
    plain : HookedFunction
        The network, module by module.
    """

    description: Mapping[str, str] = MappingProxyType({})

    def __init__(self, plan: Plan, first: Batch) -> None:
        self.plan = plan
        first = to_point(first, plan.device, plan.dtype)
        self.plain = HookedFunction.open(plan.network, first)
        self.plan = plan = replace(plan, method=plan.method.settle(self.plain.entry))
        self.function = make_function(plan, self.plain)
        self.layers: dict[str, Layer] = self.plain.survey
        odd = {name: layer.shape for name, layer in self.layers.items() if not layer.row_for_each}
        if odd:
            raise RetinaCodecError(
                "layers must have one row for every input; these have others, of shape "
                f"{odd} (windows of attention, or the tokens of all inputs in one row). Explain "
                "the blocks instead."
            )
        self.output_shape = self.plain.output_shape
        self.leading = {name: self._leading(name) for name in self.layers}
        if plan.network.tokens == "patches" and not any(self.leading.values()):
            raise RetinaCodecError(
                "tokens='patches' leaves class tokens and registers out, but none are known of "
                f"the layers {list(self.layers)}. Use tokens='all', or explain the blocks."
            )

    @property
    def entry(self) -> Entry:
        """Where paths between inputs lead: through which embeddings, and what stands still."""
        return self.plain.entry

    def dtype_text(self) -> str:
        """Return the number type of the run, and that of layers that the network casts itself."""
        wanted = str(self.plan.dtype).removeprefix("torch.")
        cast: dict[str, list[str]] = {}
        for name, layer in self.layers.items():
            if layer.dtype != self.plan.dtype:
                cast.setdefault(str(layer.dtype).removeprefix("torch."), []).append(name)
        parts = [f"{', '.join(names)} in {kind}" for kind, names in cast.items()]
        return f"{wanted}, but the network computes {' and '.join(parts)}" if parts else wanted

    def site(self, name: str) -> Site | None:
        """Return what is known of the place of a layer within its block."""
        sites = self.plan.network.sites
        return sites.get(name) or sites.get(name.rpartition("@")[0])

    def _leading(self, name: str) -> int:
        """Return how many tokens of a layer are no patches; none where space is not tokens."""
        site, space = self.site(name), self.layers[name].space_axes
        if site is None or len(space) != 1:
            return 0
        tokens = self.layers[name].shape[space[0] - 1]
        return site.leading_tokens if site.leading_tokens < tokens else 0

    def _left_out(self, name: str) -> int:
        """Return how many leading tokens are left out of what is kept."""
        return self.leading[name] if self.plan.network.tokens == "patches" else 0

    def _space(self, name: str) -> list[int]:
        """Return the sizes of the axes of space of what is kept."""
        layer = self.layers[name]
        return [layer.shape[axis - 1] - self._left_out(name) for axis in layer.space_axes]

    def prepare(self, source: Source) -> None:
        """Take the mean of the inputs, or of the vocabulary, as baseline, if asked for."""
        plan = self.plan

        def mean() -> Batch:
            return mean_input(self.plain, source, plan.device, plan.dtype)

        self.plan = replace(plan, method=plan.method.prepare(mean, self.plain))

    def explain_to(self, target: Target) -> None:
        """Take another target, fitted to the responses, say."""
        self.plan = replace(self.plan, target=target)

    def arrays(self) -> dict[str, Array]:
        """Say what `explain` gives for every input, by name; those of layers as ``name/what``."""
        number = "float64" if self.plan.dtype == torch.float64 else "float32"
        found: dict[str, Array] = {}
        if len(self.output_shape) == 1:
            found["prediction"] = Array(("cell",), self.output_shape, number)
        found["target"] = Array((), (), number)
        if self.plan.method.tolerance is not None:
            found["steps"] = Array((), (), "int32")
        for name, layer in self.layers.items():
            units = torch.zeros(1, layer.channels, *self._space(name))
            reduction = self.plan.reduction
            dims, activation_dims = reduction.dims(tuple(units.shape[1:]))
            kept = tuple(reduction.contribution(units).shape[1:])
            found[f"{name}/contribution"] = Array(dims, kept, number)
            kept = tuple(reduction.activation(units).shape[1:])
            found[f"{name}/activation"] = Array(activation_dims, kept, number)
            if self.plan.method.sums_to:
                found[f"{name}/target_change"] = Array((), (), number)
                found[f"{name}/completeness_error"] = Array((), (), number)
            if self.plan.method.sampled:
                found[f"{name}/standard_error"] = Array((), (), number)
        return found

    def coords(self, name: str) -> dict[str, Any]:
        """Return coordinates of the dims that a layer's arrays have."""
        coords = self.plan.reduction.coords((self.layers[name].channels, *self._space(name)))
        if self._left_out(name) and "token" in coords:
            coords["token"] = coords["token"] + self._left_out(name)
        return coords

    def predict(self, source: Source) -> Iterator[dict[str, np.ndarray]]:
        """Run the network alone, batch by batch."""
        number = source.offset
        for batch in source.batches(self.plan.batch_size):
            point = self.function.start(to_point(batch, self.plan.device, self.plan.dtype))
            outputs = self.function.outputs(point)
            if not bool(torch.isfinite(outputs).all()):
                self._refuse(self.function.activations(point), number)
                where = number + _first_bad(outputs)
                raise RetinaCodecError(f"the network's output is not finite for input {where}.")
            yield self._checked({"prediction": _to_numpy(outputs)}, number)
            number += batch_length(batch)

    def explain(self, source: Source) -> Iterator[dict[str, np.ndarray]]:
        """Explain batch by batch; arrays as `arrays` says, with the inputs first."""
        plan, number = self.plan, source.offset
        for batch in source.batches(plan.batch_size):
            point = self.plain.enter(to_point(batch, plan.device, plan.dtype))
            units = plan.method.explain(self.function, plan.target, point)
            activation = units.activation
            if not (units.whole or self.function.whole):
                activation = self.function.activations(self.function.start(point))
            self._refuse(activation, number)
            if not bool(torch.isfinite(units.value).all()):
                raise RetinaCodecError(
                    f"the target is not finite for input {number + _first_bad(units.value)}. "
                    "Check the network's outputs there."
                )
            yield self._checked(self._reduce(units, activation, number, point), number)
            number += batch_length(batch)

    def _checked(self, found: dict[str, np.ndarray], number: int) -> dict[str, np.ndarray]:
        """Return arrays that have the shapes of those of the first input."""
        arrays = self.arrays()
        for key, values in found.items():
            if values.shape[1:] == arrays[key].shape:
                continue
            layer, _, what = key.rpartition("/")
            origin = f"the {what} of layer {layer!r}" if layer else f"the network's {what}"
            raise RetinaCodecError(
                "all inputs must give the same shape, to stand in one array; "
                f"{origin} has {values.shape[1:]} for input {number}, {arrays[key].shape} for the "
                "first. Pad all inputs to one length, or keep the sums over space alone: "
                "reduction=ChannelSums()."
            )
        return found

    def _reduce(
        self,
        units: UnitContributions,
        activation: dict[str, torch.Tensor],
        number: int,
        point: Batch,
    ) -> dict[str, np.ndarray]:
        found: dict[str, torch.Tensor] = {"target": units.value}
        if len(self.output_shape) == 1:
            found["prediction"] = units.output
        if units.steps is not None:
            found["steps"] = units.steps
        for name, layer in self.layers.items():
            values = self._channels_second(units.contribution[name], layer)
            left_out = self._left_out(name)
            kept = self.plan.reduction.contribution(values[:, :, left_out:] if left_out else values)
            if not bool(torch.isfinite(kept).all()):
                bad = _first_bad(kept)
                one = map_tensors(lambda v, k=bad: v[k : k + 1], point)
                baseline = getattr(self.plan.method, "baseline", None)
                raise RetinaCodecError(
                    f"contributions of layer {name!r} are not finite for input {number + bad}: "
                    f"{not_finite(self.function, self.plan.target, one, baseline)}"
                )
            found[f"{name}/contribution"] = kept
            whole = self._channels_second(activation[name], layer)
            whole = whole[:, :, left_out:] if left_out else whole
            found[f"{name}/activation"] = self.plan.reduction.activation(
                whole.float() if whole.dtype in (torch.float16, torch.bfloat16) else whole
            )
            if units.expected is not None:
                total = (values if left_out else kept).flatten(1).sum(1)
                found[f"{name}/target_change"] = units.expected
                found[f"{name}/completeness_error"] = total - units.expected
            if name in units.standard_error:
                found[f"{name}/standard_error"] = units.standard_error[name]
        return {key: _to_numpy(values) for key, values in found.items()}

    def _channels_second(self, values: torch.Tensor, layer: Layer) -> torch.Tensor:
        if values.ndim == 2:  # the retina's last layer holds only the units that are read
            return values
        return values.movedim(layer.channel_axis, 1)

    def _refuse(self, activation: dict[str, torch.Tensor], number: int) -> None:
        """Say which layer is not finite, for which input."""
        for name, values in activation.items():
            if not bool(torch.isfinite(values).all()):
                raise RetinaCodecError(
                    f"activations of layer {name!r} are not finite for input "
                    f"{number + _first_bad(values)}. Look at this input and at the weights."
                )


def mean_input(
    function: HookedFunction, source: Source, device: torch.device, dtype: torch.dtype
) -> Batch:
    """Return the mean of all inputs as one input; of their embeddings, where they are words."""
    first = to_point(first_input(source), device, dtype)
    total: Batch | None = None
    try:
        if function.enter(first) is first:
            return source.mean()
        for batch in source.batches(64):
            entered = function.enter(to_point(batch, device, dtype))
            one: Batch = map_tensors(lambda x: x.cpu().double().sum(0), entered)
            total = one if total is None else map_tensors(torch.add, total, one)
    except RuntimeError as error:
        raise RetinaCodecError(
            "the mean input needs inputs of one shape; these differ "
            f"({(str(error).splitlines() or [''])[0]}). Pad all to one length, or use another "
            "baseline, such as 0.0."
        ) from error
    mean: Batch = map_tensors(lambda x: x / len(source), total or first)
    return mean


def first_input(source: Source) -> Batch:
    """Return the first input of a source as a batch of one."""
    return next(source.part(0, 1).batches(1))


def _first_bad(values: torch.Tensor) -> int:
    return int(
        (~torch.isfinite(values.flatten(1) if values.ndim > 1 else values[:, None]))
        .any(1)
        .int()
        .argmax()
    )


def _to_numpy(values: torch.Tensor) -> np.ndarray:
    if values.dtype in (torch.float16, torch.bfloat16):
        values = values.float()
    array: np.ndarray = values.detach().cpu().numpy()
    return array
