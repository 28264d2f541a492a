"""Run a network at points of a path, with the layers being explained in view.

Why this file exists: methods need activations and gradients of several layers at once, from one
forward and one backward pass that go no deeper than the lowest layer asked for and never to
weights. `HookedFunction` does so for any torch module; `RetinaFunction` does the same for the
retina network in less time, and the tests hold one against the other. Nothing here integrates or
sums anything.

Notation: b windows, l lags, y x pixels, n cells, h1 output of the first layer.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from retina_codec.contributions.methods import Evaluation
from retina_codec.contributions.targets import Target
from retina_codec.errors import RetinaCodecError
from retina_codec.networks.maheswaranathan import RetinaCNN
from retina_codec.networks.modules import StackedConv2d

__all__ = ["HookedFunction", "RetinaFunction", "make_function", "working_network"]


@contextmanager
def working_network(
    network: nn.Module, device: torch.device | None, dtype: torch.dtype | None
) -> Iterator[nn.Module]:
    """Lend a network in evaluation mode, without weight gradients, on the device asked for.

    The caller's network is used where it lies, or copied when device or dtype differ; afterwards
    its training flags and ``requires_grad`` are as before, also when the work crashed.

    Yields
    ------
    torch.nn.Module
    """
    parameters = [*network.parameters(), *network.buffers()]
    moves = device is not None and any(p.device != device for p in parameters)
    casts = dtype is not None and any(
        p.is_floating_point() and p.dtype != dtype for p in parameters
    )
    working = copy.deepcopy(network).to(device=device, dtype=dtype) if moves or casts else network
    training = [(module, module.training) for module in working.modules()]
    trainable = [(parameter, parameter.requires_grad) for parameter in working.parameters()]
    try:
        working.eval().requires_grad_(False)
        yield working
    finally:
        for module, flag in training:
            module.training = flag
        for parameter, flag in trainable:
            parameter.requires_grad_(flag)


def make_function(
    network: nn.Module, layers: Sequence[str], *, consecutive: bool = False
) -> "HookedFunction | RetinaFunction":
    """Return the fastest exact way to evaluate this network at these layers.

    Parameters
    ----------
    network : torch.nn.Module
    layers : sequence of str
        Names of submodules.
    consecutive : bool
        Whether every batch holds windows of successive times, sharing all but one frame.

    Notes
    -----
    A retina network that carries hooks of its own (an ablation, say) is evaluated module by
    module, so that they act.
    """
    if isinstance(network, RetinaCNN) and set(layers) <= set(RetinaCNN.layers):
        hooked = any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
        if not hooked:
            return RetinaFunction(network, layers, consecutive=consecutive)
    return HookedFunction(network, layers)


class HookedFunction:
    """Any module, its layers read by forward hooks that live only during a call.

    Parameters
    ----------
    network : torch.nn.Module
        In evaluation mode.
    layers : sequence of str
        Names of submodules, each called once per forward pass, returning one tensor.

    Raises
    ------
    RetinaCodecError
        If a layer is unknown, or is called never, twice or without returning one tensor.
    """

    def __init__(self, network: nn.Module, layers: Sequence[str]) -> None:
        self.network = network
        modules = dict(network.named_modules())
        unknown = [name for name in layers if not name or name not in modules]
        if unknown:
            raise RetinaCodecError(
                f"the network has no layer {', '.join(map(repr, unknown))}. "
                f"Its layers are: {', '.join(name for name in modules if name)}."
            )
        self.modules = {name: modules[name] for name in layers}

    def start(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the inputs: nothing is known to be affine."""
        return inputs

    def outputs(self, point: torch.Tensor) -> torch.Tensor:
        """Return the network's output, ``(b, n)``, without a graph."""
        with torch.no_grad():
            return _one_tensor(self.network(point), "the network")

    def activations(self, point: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the output of every layer, ``(b, channel, ...)``, without a graph."""
        with torch.no_grad(), self._watch(graph=False) as seen:
            self.network(point)
        return seen

    def __call__(self, point: torch.Tensor, target: Target) -> Evaluation:
        """Evaluate target, activations and gradients at ``point``."""
        with torch.enable_grad():
            with self._watch(graph=True) as seen:
                output = _one_tensor(self.network(point.detach()), "the network")
            missing = [name for name in self.modules if name not in seen]
            if missing:
                raise RetinaCodecError(
                    f"layers {missing} were not called in the forward pass. Explain others."
                )
            return _differentiate(output, target, seen)

    @contextmanager
    def _watch(self, *, graph: bool) -> Iterator[dict[str, torch.Tensor]]:
        """Collect layer outputs; the lowest ones become the leaves of the graph."""
        seen: dict[str, torch.Tensor] = {}

        def look(name: str, module: nn.Module, inputs: Any, output: Any) -> torch.Tensor | None:
            del module, inputs
            if name in seen:
                raise RetinaCodecError(
                    f"layer {name!r} is called more than once in a forward pass, so its "
                    "contribution is not defined. Explain another layer."
                )
            tensor = _one_tensor(output, f"layer {name!r}")
            if not graph:
                # A copy, because the next module may overwrite its input in place.
                seen[name] = tensor.detach().clone()
                return None
            if not tensor.requires_grad:
                tensor = tensor.detach().requires_grad_()
            seen[name] = tensor
            return tensor.clone()

        handles = []
        try:
            for name, module in self.modules.items():
                handles.append(module.register_forward_hook(partial(look, name)))
            yield seen
        finally:
            for handle in handles:
                handle.remove()


class RetinaFunction:
    """The retina network above its first layer, evaluated with less work and the same result.

    Three facts are used. The first layer is affine, so a straight path of stimuli is a straight
    path of its outputs. Successive windows share all but one frame, so the first layer of a batch
    is a product of Fourier transforms of frames. Of the third layer's map the rates see one
    position per cell: convolution and readout are one matrix, and the units elsewhere contribute
    exactly nothing.

    Parameters
    ----------
    network : RetinaCNN
        In evaluation mode.
    layers : sequence of str
        Among ``conv1``, ``conv2``, ``conv3``.
    consecutive : bool
        Whether every batch holds windows of successive times.
    """

    def __init__(self, network: RetinaCNN, layers: Sequence[str], *, consecutive: bool) -> None:
        self.network, self.layers = network, tuple(layers)
        weight = network.conv3.weight.detach()  # (n, channel, k, k)
        cells, (rows, columns) = len(network.cells), network.map_shape
        places = network.readout.locations
        read = weight.new_zeros(cells, cells, rows, columns)
        index = torch.arange(cells, device=weight.device)
        read[index, index, places[:, 0], places[:, 1]] = 1
        matrix = nn.functional.conv_transpose2d(read, weight)  # (n, channel, y, x)
        self._read = matrix.permute(2, 3, 1, 0).flatten(0, 2)  # (y·x·channel, n)
        self._kernel = self._kernel_spectrum() if consecutive else None

    def _kernel_spectrum(self) -> torch.Tensor:
        """Return the conjugate transform of the first kernels, ``(frequency, lag, c)``."""
        network = self.network
        first = network.conv1
        if isinstance(first, StackedConv2d):
            first = first.collapse()
        self._bias = None if first.bias is None else first.bias.detach()
        spectrum: torch.Tensor = torch.fft.rfft2(first.weight.detach(), s=network.frame_shape)
        spectrum = spectrum.conj()
        return spectrum.permute(2, 3, 1, 0).flatten(0, 1).resolve_conj().contiguous()

    def start(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the output of the first layer, ``(b, channel, row, column)``."""
        with torch.no_grad():
            if self._kernel is None or len(inputs) < 4:
                first: torch.Tensor = self.network.first_layer(inputs)
            else:
                frames = torch.cat((inputs[0], inputs[1:, -1]))  # (b + l - 1, y, x)
                first = self._first_layer_of_frames(frames, self._kernel)
            return first.contiguous(memory_format=torch.channels_last)

    def outputs(self, point: torch.Tensor) -> torch.Tensor:
        """Return the rates, ``(b, cell)`` Hz, without a graph."""
        with torch.no_grad():
            return self._rates(self._second_rectified(self._second(point)))[1]

    def activations(self, point: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the output of every layer, whole maps, without a graph."""
        with torch.no_grad():
            second = self._second(point)
            seen = {"conv1": point, "conv2": second}
            if "conv3" in self.layers:
                seen["conv3"] = self.network.conv3(self._second_rectified(second))
        return {name: seen[name] for name in self.layers}

    def __call__(self, point: torch.Tensor, target: Target) -> Evaluation:
        """Evaluate at outputs of the first layer; ``conv3`` holds ``(b, cell)`` as read."""
        with torch.enable_grad():
            first = self._leaf("conv1", point.detach())
            second = self._leaf("conv2", self._second(first))
            third, rates = self._rates(self._second_rectified(second))
            seen = {"conv1": first, "conv2": second, "conv3": third}
            return _differentiate(rates, target, {name: seen[name] for name in self.layers})

    def _second(self, first: torch.Tensor) -> torch.Tensor:
        network = self.network
        second: torch.Tensor = network.conv2(network.relu1(network.norm1(first)))
        return second

    def _second_rectified(self, second: torch.Tensor) -> torch.Tensor:
        rectified: torch.Tensor = self.network.relu2(self.network.norm2(second))
        return rectified

    def _rates(self, rectified: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return third layer as read and rates, both ``(b, cell)``."""
        third = self._leaf("conv3", rectified.permute(0, 2, 3, 1).flatten(1) @ self._read)
        return third, self.network.softplus(self.network.norm3(third))

    def _leaf(self, name: str, values: torch.Tensor) -> torch.Tensor:
        """Let the graph start at the lowest layer asked for."""
        if name in self.layers and torch.is_grad_enabled() and not values.requires_grad:
            return values.detach().requires_grad_()
        return values

    def _first_layer_of_frames(self, frames: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
        """Convolve all windows in ``frames`` (b + l - 1, y, x) through their transforms."""
        network = self.network
        spectrum = torch.fft.rfft2(frames)  # (frame, fy, fx)
        series = spectrum.flatten(1).T.contiguous()  # (frequency, frame)
        windows = series.unfold(1, network.history, 1)  # (frequency, b, l)
        product = torch.bmm(windows, kernel)  # (frequency, b, c)
        product = product.permute(1, 2, 0).reshape(len(windows[0]), -1, *spectrum.shape[1:])
        cut = network.kernel_sizes[0] - 1  # what wraps around lies outside the valid part
        maps: torch.Tensor = torch.fft.irfft2(product, s=network.frame_shape)
        maps = maps[..., : network.frame_shape[0] - cut, : network.frame_shape[1] - cut]
        return maps if self._bias is None else maps + self._bias[:, None, None]


def _differentiate(
    output: torch.Tensor, target: Target, seen: dict[str, torch.Tensor]
) -> Evaluation:
    """Return target, activations and gradients by one backward pass down to the layers."""
    value = target(output)
    if not isinstance(value, torch.Tensor) or value.shape != output.shape[:1]:
        came = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
        raise RetinaCodecError(
            f"the target must return one number per input, shape ({len(output)},); got {came}."
        )
    names = list(seen)
    gradients: tuple[torch.Tensor | None, ...] = (None,) * len(names)
    if value.requires_grad:
        gradients = torch.autograd.grad(
            value.sum(), [seen[name] for name in names], allow_unused=True
        )
    idle = [name for name, gradient in zip(names, gradients, strict=True) if gradient is None]
    if idle:
        raise RetinaCodecError(
            f"the target does not depend on layers {idle} through differentiable steps. "
            "Explain layers between input and output, with a target made of torch operations."
        )
    return Evaluation(
        value.detach(),
        output.detach(),
        {name: tensor.detach() for name, tensor in seen.items()},
        {name: grad for name, grad in zip(names, gradients, strict=True) if grad is not None},
    )


def _one_tensor(output: Any, origin: str) -> torch.Tensor:
    """Return the output if it is one tensor with a batch axis."""
    if not isinstance(output, torch.Tensor) or output.ndim < 2:
        came = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        raise RetinaCodecError(
            f"{origin} must return one tensor (batch, channel, ...); got {came}. "
            "Wrap the network in a module that does."
        )
    return output
