"""Protocol of a network with its layers in view: target, activations and gradients at a point.

Notation: b inputs, n outputs.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch

from retina_codec.errors import RetinaCodecError
from retina_codec.probing.batches import Batch, batch_length

__all__ = ["Bound", "Evaluation", "LayeredFunction", "Layers", "differentiate", "gradients"]

Layers = dict[str, torch.Tensor]


Bound = Callable[[torch.Tensor], torch.Tensor]


"""A target ready for one batch: outputs ``(b, n)`` to ``(b,)``."""


@dataclass(frozen=True)
class Evaluation:
    """The network at some points: target, outputs, activations and gradients of every layer."""

    value: torch.Tensor  # (b,)
    output: torch.Tensor  # (b, n)
    activation: Layers  # each (b, ...)
    gradient: Layers  # the same shapes
    tangent: Layers = field(default_factory=dict)  # J·direction, the same shapes; only if asked for
    value_tangent: torch.Tensor | None = None  # directional derivative of the target, (b,)


class LayeredFunction(Protocol):
    """A network as a function of points, with its layers in view."""

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers in view."""
        ...

    @property
    def complete(self) -> Mapping[str, bool]:
        """Whether every path from input to output crosses each layer."""
        ...

    @property
    def whole(self) -> bool:
        """Whether evaluations hold every unit of a layer, as the network computes it."""
        ...

    def start(self, inputs: Batch) -> Batch:
        """Return the output of the first, affine part of the network: paths stay straight there."""
        ...

    def outputs(self, point: Batch) -> torch.Tensor:
        """Return the network's output, ``(b, n)``, without a graph."""
        ...

    def activations(self, point: Batch) -> Layers:
        """Return the whole output of every layer, without a graph."""
        ...

    def __call__(self, point: Batch, target: Bound) -> Evaluation:
        """Evaluate at points that `start` returned."""
        ...

    def along(self, point: Batch, direction: Batch, target: Bound) -> Evaluation:
        """Evaluate, with the derivative of layers and target along a direction of points."""
        ...

    def above(
        self, name: str, units: torch.Tensor, point: Batch, target: Bound
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Put ``units`` in place of a layer; return target ``(b,)`` and gradient there."""
        ...


def differentiate(output: torch.Tensor, target: Bound, seen: Layers) -> Evaluation:
    """Return target, activations and gradients by one backward pass down to the layers.

    Parameters
    ----------
    output : torch.Tensor, (b, n)
        With the graph down to the layers.
    target : callable
        ``(b, n) -> (b,)``.
    seen : dict of torch.Tensor
        The layers' activations, in that graph.

    Returns
    -------
    Evaluation
        Detached.

    Raises
    ------
    RetinaCodecError
        If the target is not one value per input, or does not depend on a layer.
    """
    value = checked_value(target, output)
    names = list(seen)
    found: tuple[torch.Tensor | None, ...] = (None,) * len(names)
    if value.requires_grad:
        found = gradients(value.sum(), [seen[name] for name in names])
    idle = [name for name, gradient in zip(names, found, strict=True) if gradient is None]
    if idle:
        raise RetinaCodecError(
            f"the target does not depend on layers {idle} through differentiable steps. "
            "Explain layers between input and output, with a target made of torch operations."
        )
    return Evaluation(
        value.detach(),
        output.detach(),
        {name: tensor.detach() for name, tensor in seen.items()},
        {name: grad for name, grad in zip(names, found, strict=True) if grad is not None},
    )


def gradients(
    of: torch.Tensor,
    at: Sequence[torch.Tensor],
    along: torch.Tensor | None = None,
    *,
    keep: bool = False,
) -> tuple[torch.Tensor | None, ...]:
    """Return derivatives by one backward pass; None where there is none.

    Parameters
    ----------
    of : torch.Tensor
        One number, or any shape with ``along``.
    at : sequence of torch.Tensor
    along : torch.Tensor, optional
        Cotangent, the shape of ``of``.
    keep : bool
        Keep the graph for another pass.

    Raises
    ------
    RetinaCodecError
        If the network runs blocks again in the backward pass, where no layer is watched.
    """
    try:
        return torch.autograd.grad(of, at, along, retain_graph=keep or None, allow_unused=True)
    except RuntimeError as error:
        if "checkpoint" not in f"{type(error).__name__} {error}".lower():
            raise
        raise RetinaCodecError(
            "the network must run once for its derivatives; this one runs some blocks again in "
            "the backward pass (activation checkpointing). Switch that off in the network."
        ) from error


def checked_value(target: Bound, output: torch.Tensor) -> torch.Tensor:
    """Call the target and check that it gives one value per input, ``(b,)``."""
    value = target(output)
    if not isinstance(value, torch.Tensor) or value.shape != output.shape[:1]:
        came = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
        raise RetinaCodecError(
            f"the target must return one number per input, shape ({batch_length(output)},); "
            f"got {came}."
        )
    return value
