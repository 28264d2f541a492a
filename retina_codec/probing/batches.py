"""Move, mix and count batches of inputs: one tensor, or several by name."""

from collections.abc import Callable
from typing import Any

import torch

__all__ = ["Batch", "batch_length", "lerp", "map_tensors", "tensors_of", "to_point"]

Batch = torch.Tensor | dict[str, torch.Tensor]


"""One tensor ``(b, ...)``, or several by the name of the argument they are."""


def map_tensors(function: Callable[..., Any], first: Batch, *others: Batch) -> Any:
    """Apply a function to the tensor, or to the tensors of each name."""
    if isinstance(first, torch.Tensor):
        return function(first, *others)
    named: Any = others
    return {name: function(first[name], *(other[name] for other in named)) for name in first}


def tensors_of(batch: Batch) -> list[torch.Tensor]:
    """Return the tensors of a batch."""
    return [batch] if isinstance(batch, torch.Tensor) else list(batch.values())


def batch_length(batch: Batch) -> int:
    """Return the number of inputs."""
    return len(tensors_of(batch)[0])


def lerp(begin: Batch, end: Batch, share: float | torch.Tensor) -> Batch:
    """Interpolate between two batches; tensors that are not floating are those of ``end``.

    ``begin`` may hold one input for all; ``share`` is one number, or one of each input, (b,).
    """

    def one(from_: torch.Tensor, to: torch.Tensor) -> torch.Tensor:
        if not to.is_floating_point():
            return to
        if isinstance(share, torch.Tensor):
            each = share.view(-1, *[1] * (to.ndim - 1))
            kind = to.dtype if to.dtype == torch.float64 else torch.float32
            return torch.lerp(from_.to(kind), to.to(kind), each.to(kind)).to(to.dtype)
        if to.dtype in (torch.float32, torch.float64):
            # In the memory format of the inputs: channels_last stays so along a path.
            return torch.lerp(from_.to(to.dtype), to, share, out=torch.empty_like(to))
        wide = torch.lerp(from_.float(), to.float(), share)  # a path of half precision has steps
        return wide.to(to.dtype)

    between: Batch = map_tensors(one, begin, end)
    return between


def to_point(batch: Batch, device: torch.device, dtype: torch.dtype) -> Batch:
    """Bring inputs to the network's device; floating ones to its dtype."""

    def one(values: torch.Tensor) -> torch.Tensor:
        if values.is_inference():  # such tensors take no part in derivatives
            values = values.clone()
        return values.detach().to(device, dtype if values.is_floating_point() else None)

    point: Batch = map_tensors(one, batch)
    return point
