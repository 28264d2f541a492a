"""Targets: the one number per input that contributions explain.

Why this file exists: every contribution is a contribution *to* something; here that something is
defined once, with its unit. It is not a loss (nothing is trained on it) and knows nothing about
layers. A new target is one subclass of `Target`; the surprisal of a population stands in
surprisal.py, the targets of classifiers in classification.py.

Notation: b inputs, n outputs (cells), y (b, n) the network's output.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch

from retina_codec.errors import RetinaCodecError
from retina_codec.probing.points import Bound

__all__ = ["Sum", "Target", "Unit", "as_target", "bind_at_input"]


class Target(ABC):
    """A scalar of the network's output, one per input.

    A subclass must implement `__call__`, ``(b, n) -> (b,)``, differentiable in torch and the same
    for an input whether alone or in a batch; it may set `units` and override `prepare`. One that
    holds a choice made at the input along a path overrides `bind` and `decides`.
    """

    units: ClassVar[str] = "1"

    @abstractmethod
    def __call__(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return F, ``(b,)``, for outputs ``(b, n)``."""

    @property
    def incomplete(self) -> bool:
        """Whether `prepare` needs the network's responses over all inputs."""
        return False

    def prepare(
        self, *, responses: np.ndarray | None = None, cells: Sequence[Any] | None = None
    ) -> "Target":
        """Return a copy ready for these cells, fitted to these responses where it needs them."""
        del responses, cells
        return self

    def bind(self, outputs: torch.Tensor) -> Bound:
        """Return F for one batch, whose outputs at the inputs themselves are given."""
        del outputs
        return self

    @property
    def decides(self) -> bool:
        """Whether `bind` holds a choice, so that F differs from input to input."""
        return False

    def describe(self) -> str:
        """Return the readable form that goes into the provenance."""
        return repr(self)


def bind_at_input(target: Target) -> Bound:
    """Return F for one batch, bound by its first call, which must be at the inputs."""
    bound: Bound | None = None

    def call(outputs: torch.Tensor) -> torch.Tensor:
        nonlocal bound
        if bound is None:
            bound = target.bind(outputs.detach())
        return bound(outputs)

    return call


def position(wanted: Any, cells: Sequence[Any]) -> int:
    """Return where the network puts out a cell, or say that it does not."""
    if wanted not in cells:
        raise RetinaCodecError(f"the network has no cell {wanted!r}. Its cells are {list(cells)}.")
    return list(cells).index(wanted)


def checked_index(index: Any, outputs: torch.Tensor, name: str) -> int:
    """Return an index of the outputs ``(b, n)``, or say that there is no such one."""
    count = outputs.shape[1]
    if isinstance(index, bool) or not isinstance(index, int | np.integer) or not 0 <= index < count:
        raise RetinaCodecError(
            f"{name} needs an output between 0 and {count - 1}; got {index!r}. "
            "Ids are understood only when the network names its cells."
        )
    return int(index)


@dataclass(frozen=True)
class Sum(Target):
    """The summed output of the whole population, ``F = Σ_i y_i``, in Hz for a retina."""

    units: ClassVar[str] = "Hz"

    def __call__(self, outputs: torch.Tensor) -> torch.Tensor:
        """Sum over everything but the inputs."""
        return outputs.flatten(1).sum(1)


@dataclass(frozen=True)
class Unit(Target):
    """The output of one unit, ``F = y_i``, in Hz for a retina.

    Parameters
    ----------
    cell : int or str
        The id of the cell where the network names its cells, else the index of the output.
    """

    cell: Any
    units: ClassVar[str] = "Hz"
    _index: int | None = field(default=None, repr=False, compare=False, kw_only=True)

    def __call__(self, outputs: torch.Tensor) -> torch.Tensor:
        """Pick the unit's column."""
        index = self.cell if self._index is None else self._index
        return outputs[:, checked_index(index, outputs, "Unit")]

    def prepare(
        self, *, responses: np.ndarray | None = None, cells: Sequence[Any] | None = None
    ) -> "Unit":
        """Look the cell's id up among the network's cells."""
        del responses
        return self if cells is None else replace(self, _index=position(self.cell, cells))


@dataclass(frozen=True)
class _Function(Target):
    """Any callable ``outputs -> (b,)`` as a target; its unit is not known."""

    function: Callable[[torch.Tensor], torch.Tensor]
    units: ClassVar[str] = "1"

    def __call__(self, outputs: torch.Tensor) -> torch.Tensor:
        """Call it."""
        return self.function(outputs)

    def describe(self) -> str:
        """Return the name of the callable."""
        return str(getattr(self.function, "__qualname__", type(self.function).__name__))


def as_target(target: Target | Callable[[torch.Tensor], torch.Tensor]) -> Target:
    """Return a target from a target or a callable ``outputs -> (b,)``.

    Raises
    ------
    RetinaCodecError
        If it is neither, or a target class instead of an instance.
    """
    if isinstance(target, type) or not callable(target):
        raise RetinaCodecError(
            "target must be one of Surprisal(), TopK(), Probability(), Entropy(), Contrast(), "
            "Unit(cell), Sum(), or a callable outputs -> (batch,); "
            f"got {target!r}."
        )
    return target if isinstance(target, Target) else _Function(target)
