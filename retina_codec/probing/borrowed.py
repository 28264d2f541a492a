"""The caller's network, lent for a while and given back as it was.

Why this file exists: explaining needs evaluation mode, no gradients of weights, sometimes another
device or precision, and the caller's module must not show any of it afterwards, crash or not.

Notation: b inputs, c channels.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from retina_codec.errors import RetinaCodecError

__all__ = ["open_device", "reference_parameter", "working_network"]


@contextmanager
def working_network(
    network: nn.Module, device: torch.device | None, dtype: torch.dtype | None
) -> Iterator[nn.Module]:
    """Lend a network in evaluation mode, without weight gradients, on the device asked for.

    The caller's network is used where it lies, or copied when device or dtype differ or its
    weights were made in inference mode; afterwards its training flags and ``requires_grad`` are as
    before, also when the work crashed. Gradients that it holds stay untouched. The caller may be
    in ``torch.inference_mode()``: it ends for the time of the loan.

    Yields
    ------
    torch.nn.Module
    """
    tensors = [*network.parameters(), *network.buffers()]
    moves = device is not None and any(p.device != device for p in tensors)
    casts = dtype is not None and any(p.is_floating_point() and p.dtype != dtype for p in tensors)
    with torch.inference_mode(False):
        working = network
        if moves or casts or any(p.is_inference() for p in tensors):
            working = _copied(network, device, dtype)
        training = [(module, module.training) for module in working.modules()]
        trainable = [(parameter, parameter.requires_grad) for parameter in working.parameters()]
        norms = [
            module
            for module in working.modules()
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and _is_fixed_norm(module)
        ]
        try:
            working.eval().requires_grad_(False)
            for norm in norms:
                norm.__dict__["forward"] = partial(_normalise, norm)
            yield working
        finally:
            for norm in norms:
                norm.__dict__.pop("forward", None)
            for module, flag in training:
                module.training = flag
            for parameter, flag in trainable:
                parameter.requires_grad_(flag)


def reference_parameter(network: nn.Module) -> torch.Tensor:
    """Return a tensor that tells device and dtype of the network."""
    for parameter in [*network.parameters(), *network.buffers()]:
        if parameter.is_floating_point():
            return parameter
    return torch.empty(0)


def _copied(
    network: nn.Module, device: torch.device | None, dtype: torch.dtype | None
) -> nn.Module:
    """Copy a network to a device and dtype, without its gradients, which would cost memory."""
    kept = [(parameter, parameter.grad) for parameter in network.parameters()]
    try:
        for parameter, gradient in kept:
            if gradient is not None:
                parameter.grad = None
        return copy.deepcopy(network).to(device=device, dtype=dtype)
    finally:
        for parameter, gradient in kept:
            if gradient is not None:
                parameter.grad = gradient


class _FixedNorm(torch.autograd.Function):
    """Batch normalisation with fixed statistics, which is a scale and a shift of channels.

    Torch keeps the input for the gradients of weights; here none are wanted, and the derivative
    needs the scale alone. For a convolutional network this halves the memory of a graph.
    """

    @staticmethod
    def forward(
        values: torch.Tensor, scale: torch.Tensor, norm: nn.modules.batchnorm._BatchNorm
    ) -> torch.Tensor:
        """Normalise as torch does, ``(b, c, ...)``."""
        del scale
        return nn.functional.batch_norm(
            values, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: torch.Tensor) -> None:
        """Keep the scale, ``(c, 1, ...)``."""
        del output
        ctx.save_for_backward(inputs[1])
        ctx.save_for_forward(inputs[1])

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        """Scale the gradient."""
        return gradient * ctx.saved_tensors[0], None, None

    @staticmethod
    def jvp(ctx: Any, tangent: torch.Tensor, *others: Any) -> Any:
        """Scale the derivative along a direction."""
        del others
        return tangent * ctx.saved_tensors[0]


def _is_fixed_norm(module: nn.modules.batchnorm._BatchNorm) -> bool:
    """Tell whether a module is torch's own batch normalisation with running statistics."""
    return (
        type(module) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
        and module.running_mean is not None
        and module.running_var is not None
        and "forward" not in module.__dict__
    )


def _normalise(norm: nn.modules.batchnorm._BatchNorm, values: torch.Tensor) -> torch.Tensor:
    """Stand in for ``norm.forward`` in evaluation mode."""
    norm._check_input_dim(values)  # type: ignore[no-untyped-call]
    variance = norm.running_var
    if variance is None:  # it was there when the loan began
        return nn.functional.batch_norm(values, None, None, norm.weight, norm.bias, eps=norm.eps)
    scale = (variance + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * norm.weight
    scale = scale.to(values.dtype).view(-1, *(1,) * (values.ndim - 2))
    out: torch.Tensor = _FixedNorm.apply(values, scale, norm)  # type: ignore[no-untyped-call]
    return out


def open_device(device: str | torch.device) -> torch.device:
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
    try:
        # "cuda" is the current GPU; with its number it compares equal to where tensors lie.
        return torch.empty(0, device=found).device
    except (RuntimeError, NotImplementedError, AssertionError) as error:
        raise RetinaCodecError(
            f"device {device!r} was asked for, but torch has none such here "
            f"({str(error).splitlines()[0]}). Use 'cpu'."
        ) from error
