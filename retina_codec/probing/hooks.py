"""Run any module with its layers in view, by hooks that live only during a call.

One forward and one backward pass, no deeper than the lowest layer, give activations and gradients.
"""

import inspect
import threading
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
from retina_codec.networks.embeddings import Entry
from retina_codec.probing.batches import Batch, batch_length, map_tensors, tensors_of
from retina_codec.probing.forward_mode import check_forward_mode
from retina_codec.probing.points import (
    Bound,
    Evaluation,
    Layers,
    checked_value,
    differentiate,
    gradients,
)
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
    entry : Entry
        Where paths between inputs lead: through which embeddings; nothing special when left out.
    output_shape : tuple of int
        Of the output of one input; known to `open`.
    class_axis : int, optional
        Of outputs ``(b, ..., ...)``, see `retina_codec.probing.survey.Survey`; known to `open`.
    """

    whole = True

    def __init__(
        self,
        network: Adapter,
        survey: Mapping[str, Layer],
        entry: Entry | None = None,
        output_shape: tuple[int, ...] = (),
        class_axis: int | None = None,
    ) -> None:
        self.network, self.survey, self.entry = network, dict(survey), entry or Entry()
        self.output_shape, self.class_axis = output_shape, class_axis
        self._forward_checked = False

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
            If a layer is unknown, is never called or gives no tensor; if the network cannot run on
            the input.
        """
        network = network if isinstance(network, Adapter) else adapt(network, layers)
        module = network.module
        one = map_tensors(lambda values: values[:1], first)
        with _first_look(module, one):
            found = survey(network, one, partial(_watched, network, frozenset()))
        return cls(network, found.layers, found.entry, found.output_shape, found.class_axis)

    def enter(self, inputs: Batch) -> Batch:
        """Return inputs that a path can lead to: embeddings are put beside numbers of words.

        The same object where paths lead through the inputs themselves.
        """
        return self.entry.enter(self.network.module, inputs)

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
        with _forward_mode(), torch.no_grad(), forward_ad.dual_level():
            with self.watched(see):
                output = self.network.call(_dual(point, direction))
            slope = _unpack(checked_value(target, output))[1]
        slope = torch.zeros_like(here.value) if slope is None else slope
        self._check_forward(point, direction, tangents)
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

        with _forward_mode(), torch.no_grad(), forward_ad.dual_level():
            with suppress(Reached), self.watched(see):
                self.network.call(_dual(point, direction))
        self._check_forward(point, direction, found)
        return found[name]

    def _check_forward(self, point: Batch, direction: Batch, tangents: Layers) -> None:
        """Check derivatives carried forward, the first time that there are some."""
        if not self._forward_checked:
            self._forward_checked = check_forward_mode(self, point, direction, tangents)

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
            (gradient,) = gradients(value.sum(), [leaf])
        if gradient is None:
            raise RetinaCodecError(
                f"the target does not depend on layer {name!r} through differentiable steps."
            )
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
    if torch._C._functorch.is_functorch_wrapped_tensor(values):
        raise RetinaCodecError(
            f"layer {layer!r} must see whole batches; it is called within torch.vmap or another "
            "transform of torch.func. Explain a layer outside of that."
        )
    if values.ndim < 2 or not values.is_floating_point():
        raise RetinaCodecError(
            f"layer {layer!r} must give floating values (batch, channel, ...); got "
            f"{values.dtype} {tuple(values.shape)}. Explain another layer."
        )
    return values


@contextmanager
def _first_look(module: nn.Module, one: Batch) -> Iterator[None]:
    """Say in one line that a network cannot run on its first input."""
    parts = tensors_of(one)
    if any(values.is_complex() for values in parts):
        raise RetinaCodecError(
            f"inputs must be real numbers; got {', '.join(str(v.dtype) for v in parts)}. Convert "
            "them to float: inputs.abs(), or torch.view_as_real(inputs) with the real and the "
            "imaginary part along the last axis."
        )
    try:
        yield
    except RetinaCodecError:
        raise
    except (
        ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError,
        ValueError,
    ) as error:  # fmt: skip
        shapes = ", ".join(f"{tuple(v.shape)} {v.dtype}" for v in parts)
        way = "Give inputs of the shape and kind that it takes."
        if not any(values.is_floating_point() for values in parts):
            way = (
                "Its inputs are whole numbers and no embedding takes them: convert them to float "
                "as in its training, inputs.float() / 255, say."
            )
        reason = (str(error).splitlines() or [""])[0]
        if "more than 1 value per channel" in reason:
            way = (
                "It normalises by the batch also in evaluation mode, so that inputs change each "
                "other's output: give its norms running statistics (track_running_stats=True)."
            )
        if "dtype" in reason and any(values.is_floating_point() for values in parts):
            way = "Leave out dtype=, or give the network the dtype that it makes tensors of."
        raise RetinaCodecError(
            f"the network {type(module).__name__} could not run on the first input, {shapes} "
            f"({type(error).__name__}: {reason}). {way}"
        ) from error


_MODE = threading.RLock()  # one thread at a time derives in forward mode, and sets torch's switches


_BY_MODULE: list[bool] = []  # torch's switch of fused blocks, as each user of it found it


@contextmanager
def _module_by_module() -> Iterator[None]:
    """Prevent torch from computing a whole transformer block in one step without its modules."""
    with _MODE:
        _BY_MODULE.append(torch.backends.mha.get_fastpath_enabled())
        torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        with _MODE:  # the last of several threads sets it back as the first has found it
            found = _BY_MODULE.pop()
            if not _BY_MODULE:
                torch.backends.mha.set_fastpath_enabled(found)


@contextmanager
def _forward_mode() -> Iterator[None]:
    """Use steps that have a forward-mode derivative; raise an error where there is none."""
    try:
        # Fused attention has none; its plain form does, with the same values.
        with _MODE, _module_by_module(), sdpa_kernel(SDPBackend.MATH):
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
