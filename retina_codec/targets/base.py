"""Targets: the one number per input that contributions explain.

Notation: b inputs, n outputs (cells), y (b, n) the network's output.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.probing.points import Bound
from retina_codec.registry import Registry

__all__ = ["Sum", "Target", "Unit", "as_target", "bind_at_input", "registry", "target_of"]


class Target(ABC):
    """A scalar of the network's output, one per input.

    Must
    ----
    - implement `__call__`, ``(b, n) -> (b,)``, in torch and differentiable;
    - give an input the same number alone and in a batch;
    - have a ``repr`` that shows its parameters (a dataclass has one).

    Should
    ------
    - set `units`;
    - set `classes`, if the last axis of outputs ``(b, token, n)`` must be classes;
    - override `incomplete` and `prepare`, if it is fitted to the network's responses over all
      inputs; then also `unfitted`;
    - override `statistics`, if results must hold more than the description to compute it again,
      and then also `from_results`;
    - override `bind` and `decides`, if it holds a choice made at the input (such as the winning
      class) along a path.

    Any instance can be passed as ``target=``. To add a target by name, register its class
    (`registry`) or name it as an entry point of the group ``retina_codec.targets``.
    """

    units: ClassVar[str] = "1"
    classes: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return F, ``(b,)``, for outputs ``(b, n)``."""

    def units_for(self, outputs: str) -> str:
        """Return its unit for a network with outputs in a unit: "Hz" stands for theirs."""
        return outputs if self.units == "Hz" else self.units

    @property
    def incomplete(self) -> bool:
        """Whether `prepare` needs the network's responses over all inputs."""
        return False

    def prepare(
        self, *, responses: np.ndarray | None = None, cells: Sequence[Any] | None = None
    ) -> "Target":
        """Return a copy ready for these cells, fitted to these responses where it needs them.

        Parameters
        ----------
        responses : np.ndarray, (time, cell), Hz, optional
        cells : sequence, optional
            Ids of the outputs, where the network names them.
        """
        del responses, cells
        return self

    def unfitted(self) -> "Target":
        """Return the target as it is before a fit, for the responses of another network."""
        return self

    def statistics(self) -> dict[str, xr.Variable]:
        """Return what results hold of the target in ``/responses``, beside the prediction.

        Returns
        -------
        dict of xr.Variable
            By name, with ``units`` in attrs. Dims ``cell`` and ``other_cell`` are labelled with
            the ids of the outputs. Asked for when the target is prepared, and only then.
        """
        return {}

    @classmethod
    def from_results(cls, responses: xr.Dataset) -> "Target | None":
        """Return the target whose `statistics` are in ``/responses``; None if it is not known."""
        del responses
        return None

    def bind(self, outputs: torch.Tensor) -> Bound:
        """Return F for one batch, given the outputs at the inputs themselves."""
        del outputs
        return self

    @property
    def decides(self) -> bool:
        """Whether the target is fixed at the input (for example the winning class)."""
        return False

    def describe(self) -> str:
        """Return the readable form that results hold."""
        return repr(self)


def target_of(tree: xr.DataTree) -> Target | None:
    """Return the target that results explain; None if they do not hold enough to know it.

    Parameters
    ----------
    tree : xr.DataTree
        Results of `contribute`; the attribute ``target`` begins with the name of the class.
    """
    name, bracket, _ = str(tree.attrs.get("target", "")).partition("(")
    if not bracket or name not in registry.list() or "responses" not in tree.children:
        return None
    return registry.get(name).from_results(tree["responses"].to_dataset())


def _check(name: str, target: Any) -> None:
    if not (isinstance(target, type) and issubclass(target, Target)):
        raise RetinaCodecError(f"a target must be a subclass of Target; {name!r} is {target!r}.")


registry: Registry[type[Target]] = Registry(
    "target",
    "retina_codec.targets",
    {
        "Surprisal": "retina_codec.targets.surprisal:Surprisal",
        "TopK": "retina_codec.targets.classification:TopK",
        "Probability": "retina_codec.targets.classification:Probability",
        "Entropy": "retina_codec.targets.classification:Entropy",
        "Contrast": "retina_codec.targets.classification:Contrast",
        "Unit": "retina_codec.targets.base:Unit",
        "Sum": "retina_codec.targets.base:Sum",
    },
    _check,
)


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
    """Return the index of a cell among the network's outputs."""
    if wanted not in cells:
        raise RetinaCodecError(
            f"the network has no cell {wanted!r}. Its cells are {list(cells)}. Give one of these."
        )
    return list(cells).index(wanted)


def checked_index(index: Any, outputs: torch.Tensor, name: str) -> int:
    """Validate an index of the outputs ``(b, n)``."""
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
        """Find the cell among the network's cells by its id."""
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
            f"target must be an instance of a target ({', '.join(registry.list())}, or of your "
            f"own Target) or a callable outputs -> (batch,); got {target!r}. Use Sum(), for "
            "example."
        )
    return target if isinstance(target, Target) else _Function(target)
