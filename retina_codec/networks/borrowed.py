"""Borrow a network for a while: evaluation mode, no weight gradients, another device or dtype.

Notation: b inputs, c channels.
"""

import copy
import functools
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import torch
import torch.utils.checkpoint
from torch import nn

from retina_codec.errors import RetinaCodecError
from retina_codec.networks.kept import KeptState

__all__ = [
    "borrow",
    "check_module",
    "copied",
    "open_device",
    "reference_parameter",
    "settled",
    "when_free",
]


Module = TypeVar("Module", bound=nn.Module)


Value = TypeVar("Value")


@contextmanager
def borrow(
    network: Module,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> Iterator[Module]:
    """Lend a network in evaluation mode, without gradients of its weights.

    Afterwards it is as before, also if the work fails: modes, ``requires_grad``, gradients,
    weights, buffers and attributes of every submodule, see `KeptState`. A second thread waits until
    the network, or what it shares with another, is free. Meanwhile the contexts of `settled` hold.

    Parameters
    ----------
    network : torch.nn.Module
        Used where it lies; copied if device or dtype differ or its weights were made in inference
        mode.
    device : str or torch.device, optional
        Where to compute; where the network lies when left out.
    dtype : torch.dtype, optional
        Of floating weights; the network's own when left out. Complex weights get the complex type
        of the same precision.

    Yields
    ------
    torch.nn.Module

    Raises
    ------
    RetinaCodecError
        If this machine has no such device; if the network is scripted, has no weights yet, or must
        be copied and cannot.
    """
    check_module(network)
    place = None if device is None else open_device(device)
    tensors = [*network.parameters(), *network.buffers()]
    moves = place is not None and any(p.device != place for p in tensors)
    casts = any(p.dtype != _dtype_like(p, dtype) for p in tensors)
    with settled({p.device.type for p in tensors}), ExitStack() as stack:
        outer = stack.enter_context(_alone(network))
        working = network
        if moves or casts or any(p.is_inference() for p in tensors):
            working = copied(network, place, dtype)
            stack.enter_context(_alone(working))
        else:
            stack.callback(KeptState(network, values=outer).restore)
        _evaluation_mode(working)
        for parameter in working.parameters():
            if parameter.is_leaf:
                parameter.requires_grad_(False)
        for module in working.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and _is_fixed_norm(module):
                module.__dict__["forward"] = functools.partial(_normalise, module)
        yield working


def check_module(network: nn.Module) -> None:
    """Refuse a network that cannot be run module by module, or has no weights yet.

    Raises
    ------
    RetinaCodecError
    """
    if isinstance(network, torch.jit.ScriptModule):
        raise RetinaCodecError(
            "network must be a module of Python, whose submodules can be watched; got a scripted "
            f"or traced one ({type(network).__name__}). Give the module that it was made from."
        )
    for name, values in [*network.named_parameters(), *network.named_buffers()]:
        if nn.parameter.is_lazy(values):
            raise RetinaCodecError(
                f"the network must have all its weights; {name!r} is lazy and has none yet. Run "
                "the network once on one input first: network(inputs[:1])."
            )
        if values.is_meta:
            raise RetinaCodecError(
                f"the network must have all its weights; {name!r} is on the device 'meta', without "
                "numbers. Load the weights first: network.to_empty(device='cpu'), then "
                "network.load_state_dict(...)."
            )


@contextmanager
def settled(devices: set[str] | frozenset[str] = frozenset()) -> Iterator[None]:
    """Switch off what the caller's thread may have on, and what it would change in the work.

    That is: inference mode, `torch.no_grad`, autocast (results have the dtype that is recorded),
    activation checkpointing of `torch.utils.checkpoint`, which would run blocks again without their
    hooks, and compiled code, which misses hooks and derivatives carried forward: it runs as it was
    written. It is also a decorator, of what fits weights or decomposes: ``@settled()``.

    Parameters
    ----------
    devices : set of str
        Types of the devices in use, such as "cuda".
    """
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for kind in sorted({"cpu", *devices} - {"meta"}):
            if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        stack.enter_context(_without_checkpoints())
        if "torch._dynamo" in sys.modules:  # else nothing is compiled, and importing it takes long
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield


def when_free(network: nn.Module, function: Callable[[nn.Module], Value]) -> Value:
    """Return ``function(network)``, called while no other thread has borrowed the network."""
    with _alone(network):
        return function(network)


def reference_parameter(network: nn.Module) -> torch.Tensor:
    """Return the first floating tensor of a network, which has its device and dtype."""
    for parameter in [*network.parameters(), *network.buffers()]:
        if parameter.is_floating_point():
            return parameter
    return torch.empty(0)


_FREED = threading.Condition()


_OWNERS: dict[int, int] = {}  # threads that have borrowed, by the id of every module and tensor


@contextmanager
def _alone(network: nn.Module) -> Iterator[bool]:
    """Wait until no other thread has the network; yield whether this one did not have it either.

    Networks may share submodules or weights, so that each of these has its owner.
    """
    whole = [*network.modules(), *network.parameters(), *network.buffers()]
    parts, here = {id(part) for part in whole}, threading.get_ident()
    with _FREED:
        _FREED.wait_for(lambda: all(_OWNERS.get(part, here) == here for part in parts))
        taken = parts - _OWNERS.keys()
        _OWNERS.update(dict.fromkeys(taken, here))
    try:
        yield bool(taken)
    finally:
        with _FREED:
            for part in taken:
                del _OWNERS[part]
            _FREED.notify_all()


class _Settled(threading.local):
    """How many `settled` contexts a thread is in."""

    depth = 0


_SETTLED = _Settled()


@contextmanager
def _without_checkpoints() -> Iterator[None]:
    """Let checkpointed blocks run as plain ones in this thread."""
    _heed_settled()
    _SETTLED.depth += 1
    try:
        yield
    finally:
        _SETTLED.depth -= 1


@functools.cache
def _heed_settled() -> None:
    """Make the two forms of torch's checkpointing heed `settled`; other threads keep theirs."""
    module: Any = torch.utils.checkpoint
    reentrant = module.CheckpointFunction
    saving = reentrant.apply

    @functools.wraps(saving)
    def apply(function: Callable[..., Any], preserve: bool, *inputs: Any) -> Any:
        return function(*inputs) if _SETTLED.depth else saving(function, preserve, *inputs)

    reentrant.apply = staticmethod(apply)
    again = getattr(module, "_checkpoint_without_reentrant_generator", None)
    if again is None:
        return

    @functools.wraps(again)
    def generator(*inputs: Any, **named: Any) -> Generator[Any, Any, Any]:
        if _SETTLED.depth:
            yield
            return None
        return (yield from again(*inputs, **named))

    module._checkpoint_without_reentrant_generator = generator


def _evaluation_mode(network: nn.Module) -> None:
    """Switch a network to evaluation mode."""
    try:
        network.eval()
    except NotImplementedError as error:
        raise RetinaCodecError(
            f"the network must have an evaluation mode; {type(network).__name__} has none "
            f"({str(error).splitlines()[0]}). Give the module that it was exported from."
        ) from error


def _dtype_like(values: torch.Tensor, dtype: torch.dtype | None) -> torch.dtype:
    """Return the dtype that a tensor gets where floating ones get ``dtype``."""
    if dtype is not None and values.is_complex():
        return dtype.to_complex()
    return dtype if dtype is not None and values.is_floating_point() else values.dtype


def copied(
    network: Module, device: torch.device | None = None, dtype: torch.dtype | None = None
) -> Module:
    """Copy a network to a device and dtype, without its gradients, which would cost memory.

    Weights that are made from others (weight_norm) are copied too, and plain tensors come along.

    Raises
    ------
    RetinaCodecError
        If it cannot be copied, because it holds a lock, say.
    """

    def moved(values: torch.Tensor) -> torch.Tensor:
        return values.to(device=device, dtype=_dtype_like(values, dtype))

    kept = [(parameter, parameter.grad) for parameter in network.parameters()]
    made: dict[int, Any] = {}  # weights that are computed from others: torch does not copy them
    for module in network.modules():
        for values in module.__dict__.values():
            if isinstance(values, torch.Tensor) and not values.is_leaf:
                made[id(values)] = values.detach().clone()
    try:
        for parameter, gradient in kept:
            if gradient is not None:
                parameter.grad = None
        with torch.no_grad():  # copies of scripted parts have a graph else
            working: Module = copy.deepcopy(network, made)._apply(moved)  # type: ignore[no-untyped-call]
    except Exception as error:
        raise RetinaCodecError(
            "the network must be copied (for another device or dtype, or for noise), and cannot be "
            f"({type(error).__name__}: {(str(error).splitlines() or [''])[0]}). Convert it "
            "yourself with network.to(...), and leave out dtype and device."
        ) from error
    finally:
        for parameter, gradient in kept:
            if gradient is not None:
                parameter.grad = gradient
    for module in working.modules():
        for name, values in module.__dict__.items():
            if isinstance(values, torch.Tensor):
                module.__dict__[name] = moved(values)
    return working


class _FixedNorm(torch.autograd.Function):
    """Batch normalisation with fixed statistics: one scale and one shift per channel.

    Torch keeps the input for gradients of the weights. They are not needed here, and the derivative
    needs only the scale, which halves the memory of the graph of a convolutional network.
    """

    generate_vmap_rule = True

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
    transformed = torch._C._functorch.is_functorch_wrapped_tensor(values)  # within vmap, say
    if variance is None or transformed:  # None: set so during the loan
        mean = norm.running_mean if transformed else None
        return nn.functional.batch_norm(
            values, mean, variance, norm.weight, norm.bias, variance is None, eps=norm.eps
        )
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
