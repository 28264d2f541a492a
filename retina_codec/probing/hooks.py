"""Run any module with its layers in view, by hooks that live only during a call.

One forward and one backward pass, no deeper than the lowest layer, give activations and gradients.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from retina_codec.errors import RetinaCodecError
from retina_codec.networks.adapter import Adapter, adapt, place_of_tensor, put, take
from retina_codec.networks.embeddings import embedded, find_embedding
from retina_codec.probing.batches import Batch, batch_length, map_tensors, tensors_of
from retina_codec.probing.points import Bound, Evaluation, Layers, checked_value, differentiate
from retina_codec.probing.survey import Layer, survey

__all__ = ["HeadsInView", "HookedFunction", "fused_projections"]

See = Callable[[str, torch.Tensor], torch.Tensor | None]


class HookedFunction:
    """Any module as a function of its inputs with its layers in view; made by `open`.

    Parameters
    ----------
    network : Adapter
        In evaluation mode.
    survey : mapping of str to Layer
        Its layers, see `retina_codec.probing.survey.survey`.
    embedding : str
        The module whose output stands for inputs that are words by number; empty if none.
    """

    whole = True

    def __init__(self, network: Adapter, survey: Mapping[str, Layer], embedding: str = "") -> None:
        self.network, self.survey, self.embedding = network, dict(survey), embedding

    @classmethod
    def open(
        cls, network: Adapter | nn.Module, first: Batch, layers: Sequence[str] | None = None
    ) -> "HookedFunction":
        """Survey a network with one input, and return it as a function.

        Parameters
        ----------
        network : Adapter or torch.nn.Module
            In evaluation mode.
        first : Batch
            Inputs on the network's device; the first of them is run.
        layers : sequence of str, optional
            Names or patterns of submodules; those of the adapter when left out.

        Returns
        -------
        HookedFunction

        Raises
        ------
        RetinaCodecError
            If a layer is unknown, is never called or gives no tensor.
        """
        network = network if isinstance(network, Adapter) else adapt(network, layers)
        module = network.module
        one = map_tensors(lambda values: values[:1], first)
        name = None
        if not any(values.is_floating_point() for values in tensors_of(one)):
            name = find_embedding(module, one, network.call)
            one = embedded(module, name, one) if name else one
        found = survey(network, one, partial(_watched, network, frozenset()))
        return cls(network, found, name or "")

    def enter(self, inputs: Batch) -> Batch:
        """Return inputs that a path can lead to: embeddings are put beside numbers of words.

        Inputs with a floating part, and numbers that no embedding of the network takes, are
        returned as they are.
        """
        if not self.embedding or any(part.is_floating_point() for part in tensors_of(inputs)):
            return inputs
        return embedded(self.network.module, self.embedding, inputs)

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers, in the order asked for: one per call of a submodule."""
        return tuple(self.survey)

    @property
    def complete(self) -> Mapping[str, bool]:
        """Whether every path from input to output crosses each layer."""
        return {name: layer.cuts for name, layer in self.survey.items()}

    def start(self, inputs: Batch) -> Batch:
        """Return the inputs: nothing is known to be affine."""
        return inputs

    def outputs(self, point: Batch) -> torch.Tensor:
        """Return the network's output, ``(b, n)``, without a graph."""
        with torch.no_grad():
            return self.network.call(point)

    def activations(self, point: Batch) -> Layers:
        """Return the values of every layer, ``(b, ...)``, without a graph."""
        seen: Layers = {}

        def see(name: str, values: torch.Tensor) -> None:
            kept = values.detach()
            seen[name] = kept.clone() if self._overwritten(name) else kept

        with torch.no_grad(), self.watched(see):
            self.network.call(point)
        return self._ordered(seen)

    def __call__(self, point: Batch, target: Bound) -> Evaluation:
        """Evaluate target, activations and gradients; the lowest layers begin the graph."""
        with torch.enable_grad():
            point = map_tensors(torch.Tensor.detach, point)
            output, seen = self._run(point)
            return differentiate(output, target, self._ordered(seen))

    def _run(self, point: Batch) -> tuple[torch.Tensor, Layers]:
        """Run with a graph from the lowest layers, or from the point if it has one."""
        seen: Layers = {}

        def see(name: str, values: torch.Tensor) -> torch.Tensor:
            copied = self._overwritten(name)
            if not values.requires_grad:
                values = (values.clone() if copied else values).detach().requires_grad_()
            else:
                # A node of its own: the same tensor may also go round the layer.
                values = values.clone() if copied else values.view_as(values)
            seen[name] = values
            return values.clone() if copied else values

        with self.watched(see):
            output = self.network.call(point)
        rows = batch_length(point)
        odd = [name for name, values in seen.items() if len(values) != rows]
        if odd:
            raise RetinaCodecError(
                f"layers {odd} must have one row for every input; for {rows} inputs they do not. "
                "Explain other layers."
            )
        return output, seen

    def _overwritten(self, name: str) -> bool:
        """Whether the network overwrites a layer's values in place later on."""
        return self.survey[name].overwritten

    def run_from(self, point: Batch) -> tuple[torch.Tensor, Layers]:
        """Run with the graph that begins at ``point``; return output and layers, attached."""
        with torch.enable_grad():
            output, seen = self._run(map_tensors(torch.clone, point))
        return output, self._ordered(seen)

    def along(self, point: Batch, direction: Batch, target: Bound) -> Evaluation:
        """Evaluate, with the derivatives along a direction in forward mode."""
        tangents: Layers = {}

        def see(name: str, values: torch.Tensor) -> torch.Tensor:
            primal, tangent = _unpack(values)
            tangents[name] = torch.zeros_like(primal) if tangent is None else tangent.detach()
            return values.clone() if self._overwritten(name) else values

        here = self(point, target)
        with torch.no_grad(), forward_ad.dual_level():
            with _forward_mode(), self.watched(see):
                output = self.network.call(_dual(point, direction))
            slope = _unpack(checked_value(target, output))[1]
        slope = torch.zeros_like(here.value) if slope is None else slope
        return Evaluation(
            here.value, here.output, here.activation, here.gradient, self._ordered(tangents), slope
        )

    def tangent(self, name: str, point: Batch, direction: Batch) -> torch.Tensor:
        """Return the derivative of one layer along a direction; runs no further than that layer."""
        found: Layers = {}

        class Reached(Exception):
            pass

        def see(seen: str, values: torch.Tensor) -> None:
            if seen == name:
                primal, tangent = _unpack(values)
                found[name] = torch.zeros_like(primal) if tangent is None else tangent.detach()
                raise Reached

        with torch.no_grad(), forward_ad.dual_level(), suppress(Reached), self.watched(see):
            with _forward_mode():
                self.network.call(_dual(point, direction))
        return found[name]

    def above(
        self, name: str, units: torch.Tensor, point: Batch, target: Bound
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Put ``units`` in place of a layer; return target ``(b,)`` and gradient there."""
        leaf = units.detach().requires_grad_()

        def see(seen: str, values: torch.Tensor) -> torch.Tensor | None:
            del values
            return leaf.clone() if seen == name else None

        with torch.enable_grad(), self.watched(see):
            output = self.network.call(map_tensors(torch.Tensor.detach, point))
            value = checked_value(target, output)
            gradient = torch.autograd.grad(value.sum(), leaf)[0]
        return value.detach(), gradient

    def watched(self, see: See) -> AbstractContextManager[None]:
        """Call ``see(name, values)`` for every layer; what it returns goes on in its place."""
        return _watched(self.network, frozenset(self.survey), see)

    def _ordered(self, seen: Layers) -> Layers:
        """Return layers in the order asked for; raise an error if some were not called."""
        missing = [name for name in self.layers if name not in seen]
        if missing:
            raise RetinaCodecError(
                f"layers {missing} were not called in the forward pass (some modules use the "
                "weights of others without calling them). Explain other layers."
            )
        return {name: seen[name] for name in self.layers}


@contextmanager
def _watched(network: Adapter, known: frozenset[str], see: See) -> Iterator[None]:
    """Call ``see(name, values)`` for every layer; what it returns goes on in its place.

    The name is ``layer@call`` unless the layer is among those ``known`` to be called once.
    """
    counts: dict[str, int] = {}
    element, handles = network.element, []

    def meet(layer: str, values: torch.Tensor) -> torch.Tensor | None:
        counts[layer] = counts.get(layer, 0) + 1
        call = f"{layer}@{counts[layer]}"
        return see(layer if layer in known else call, values)

    def after(layer: str, module: nn.Module, inputs: Any, output: Any) -> Any:
        del module, inputs
        changed = meet(layer, checked_layer(take(output, element, f"layer {layer!r}"), layer))
        return None if changed is None else put(output, element, changed)

    def before(layer: str, module: nn.Module, inputs: Any, named: Any) -> Any:
        del module
        by_name = isinstance(element, str) or place_of_tensor(inputs) is None
        where = named if by_name else inputs
        changed = meet(layer, checked_layer(take(where, element, f"layer {layer!r}"), layer))
        if changed is None:
            return None
        whole = put(where, element, changed)
        return (inputs, whole) if by_name else (whole, named)

    def join(layer: str, values: torch.Tensor) -> torch.Tensor | None:
        return meet(layer, checked_layer(values, layer))

    modules = dict(network.module.named_modules(remove_duplicate=False))
    inputs_of = [n for n in network.layers if network.hook_of(n) == "input"]
    fused = fused_projections(modules, inputs_of)
    try:
        for layer in network.layers:
            module = modules[layer]
            if layer in fused:
                continue
            if network.hook_of(layer) == "output":
                handles.append(module.register_forward_hook(partial(after, layer)))
            else:
                handles.append(
                    module.register_forward_pre_hook(partial(before, layer), with_kwargs=True)
                )
        with _module_by_module(), HeadsInView(fused, join) if fused else nullcontext():
            yield
    finally:
        for handle in handles:
            handle.remove()


def checked_layer(values: torch.Tensor, layer: str) -> torch.Tensor:
    """Return a layer's values if they are floating, ``(batch, ...)``."""
    if values.ndim < 2 or not values.is_floating_point():
        raise RetinaCodecError(
            f"layer {layer!r} must give floating values (batch, channel, ...); got "
            f"{values.dtype} {tuple(values.shape)}. Explain another layer."
        )
    return values


@contextmanager
def _module_by_module() -> Iterator[None]:
    """Prevent torch from computing a whole transformer block in one step without its modules."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


@contextmanager
def _forward_mode() -> Iterator[None]:
    """Use steps that have a forward-mode derivative; raise an error where there is none."""
    try:
        # Fused attention has none; its plain form does, with the same values.
        with _module_by_module(), sdpa_kernel(SDPBackend.MATH):
            yield
    except (NotImplementedError, RuntimeError) as error:
        if "forward AD" not in str(error) and "forward mode" not in str(error):
            raise
        raise RetinaCodecError(
            "this network has a step without a forward-mode derivative "
            f"({str(error).splitlines()[0]}). Use IntegratedGradients() or ActGrad(), or another "
            "implementation of that step (attention: 'eager')."
        ) from error


def _dual(point: Batch, direction: Batch) -> Batch:
    """Return a point with a direction as its tangent."""

    def one(values: torch.Tensor, way: torch.Tensor) -> torch.Tensor:
        if not values.is_floating_point():
            return values
        way = way.detach().expand_as(values).contiguous()
        dual: torch.Tensor = forward_ad.make_dual(values.detach(), way)  # type: ignore[no-untyped-call]
        return dual

    both: Batch = map_tensors(one, point, direction)
    return both


def _unpack(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return value and derivative of a dual tensor."""
    primal, tangent = forward_ad.unpack_dual(values)  # type: ignore[no-untyped-call]
    return primal, tangent


Meet = Callable[[str, torch.Tensor], torch.Tensor | None]


FUSED = functional.multi_head_attention_forward


SIGNATURE = inspect.signature(FUSED)


class HeadsInView(TorchFunctionMode):
    """Call ``meet(layer, heads)`` for the fused attentions named; what it returns goes on.

    Parameters
    ----------
    projections : mapping of str to torch.nn.Module
        Output projections by the name of the layer.
    meet : callable
        Gets ``(b, token, heads × dimensions)``, heads side by side, whether the attention takes
        the batch first or not.
    """

    def __init__(self, projections: Mapping[str, nn.Module], meet: Meet) -> None:
        super().__init__()
        self.names = {id(module.weight): name for name, module in projections.items()}
        self.meet = meet

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Split the fused step if its projection is among the layers."""
        del types
        kwargs = kwargs or {}
        if function is not FUSED:
            return function(*args, **kwargs)
        given = SIGNATURE.bind(*args, **kwargs).arguments
        weight, bias = given["out_proj_weight"], given["out_proj_bias"]
        name = self.names.get(id(weight))
        if name is None:
            return function(*args, **kwargs)
        if given["query"].ndim != 3:
            raise RetinaCodecError(
                f"the attention of layer {name!r} must be given a batch (batch, token, dimension); "
                f"got {tuple(given['query'].shape)}."
            )
        one = torch.eye(weight.shape[1], dtype=weight.dtype, device=weight.device)
        given |= {"out_proj_weight": one, "out_proj_bias": None}
        heads, shares = function(**given)  # (token, b, heads × dimensions)
        changed = self.meet(name, heads.transpose(0, 1))
        heads = heads if changed is None else changed.transpose(0, 1)
        return functional.linear(heads, weight, bias), shares


def fused_projections(
    modules: Mapping[str, nn.Module], layers: Iterable[str]
) -> dict[str, nn.Module]:
    """Return those layers that are output projections of torch's own attention, by name."""
    found = {}
    for layer in layers:
        above, _, last = layer.rpartition(".")
        if last == "out_proj" and isinstance(modules.get(above), nn.MultiheadAttention):
            found[layer] = modules[layer]
    return found
