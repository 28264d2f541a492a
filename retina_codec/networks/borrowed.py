"""Borrow a network for a while: evaluation mode, no weight gradients, another device or dtype.

Notation: b inputs, c channels.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import torch
from torch import nn

from retina_codec.errors import RetinaCodecError

__all__ = ["borrow", "open_device", "reference_parameter"]


Module = TypeVar("Module", bound=nn.Module)


@contextmanager
def borrow(
    network: Module,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> Iterator[Module]:
    """Lend a network in evaluation mode, without gradients of its weights.

    Afterwards the mode of every submodule and ``requires_grad`` of every parameter are as before,
    also if the work fails. Gradients that the network holds are not touched.
    `torch.inference_mode` is switched off meanwhile.

    Parameters
    ----------
    network : torch.nn.Module
        Used where it lies; copied if device or dtype differ or its weights were made in inference
        mode.
    device : str or torch.device, optional
        Where to compute; where the network lies when left out.
    dtype : torch.dtype, optional
        Of floating weights; the network's own when left out.

    Yields
    ------
    torch.nn.Module

    Raises
    ------
    RetinaCodecError
        If this machine has no such device.
    """
    place = None if device is None else open_device(device)
    tensors = [*network.parameters(), *network.buffers()]
    moves = place is not None and any(p.device != place for p in tensors)
    casts = dtype is not None and any(p.is_floating_point() and p.dtype != dtype for p in tensors)
    with torch.inference_mode(False):
        working = network
        if moves or casts or any(p.is_inference() for p in tensors):
            working = _copied(network, place, dtype)
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
    """Return the first floating tensor of a network, which has its device and dtype."""
    for parameter in [*network.parameters(), *network.buffers()]:
        if parameter.is_floating_point():
            return parameter
    return torch.empty(0)


def _copied(network: Module, device: torch.device | None, dtype: torch.dtype | None) -> Module:
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
    """Batch normalisation with fixed statistics: one scale and one shift per channel.

    Torch keeps the input for gradients of the weights. They are not needed here, and the derivative
    needs only the scale, which halves the memory of the graph of a convolutional network.
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
    """Return whether a module is torch's own batch normalisation with running statistics."""
    return (
        type(module) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
        and module.running_mean is not None
        and module.running_var is not None
        and "forward" not in module.__dict__
    )


def _normalise(norm: nn.modules.batchnorm._BatchNorm, values: torch.Tensor) -> torch.Tensor:
    """Normalise as ``norm.forward`` does in evaluation mode."""
    norm._check_input_dim(values)  # type: ignore[no-untyped-call]
    variance = norm.running_var
    if variance is None:  # set to None during the loan
        return nn.functional.batch_norm(values, None, None, norm.weight, norm.bias, eps=norm.eps)
    scale = (variance + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * norm.weight
    scale = scale.to(values.dtype).view(-1, *(1,) * (values.ndim - 2))
    out: torch.Tensor = _FixedNorm.apply(values, scale, norm)  # type: ignore[no-untyped-call]
    return out


def open_device(device: str | torch.device) -> torch.device:
    """Return a device of this machine.

    Raises
    ------
    RetinaCodecError
        If it has no such device.
    """
    try:
        found = torch.device(device)
    except RuntimeError:
        raise RetinaCodecError(
            f"device must be 'cpu', 'cuda' or 'cuda:0', say; got {device!r}."
        ) from None
    if found.type == "cuda" and not torch.cuda.is_available():
        raise RetinaCodecError(
            f"device must exist on this machine; got {device!r}, but torch sees no "
            "CUDA device here. Use 'cpu'."
        )
    try:
        # "cuda" is the current GPU; with its number it compares equal to where tensors lie.
        return torch.empty(0, device=found).device
    except (RuntimeError, NotImplementedError, AssertionError) as error:
        raise RetinaCodecError(
            f"device must exist on this machine; got {device!r} "
            f"({str(error).splitlines()[0]}). Use 'cpu'."
        ) from error
