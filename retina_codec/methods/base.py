"""Contribution methods: how much each hidden unit acted to make the target what it is.

Why this file exists: a method is arithmetic on activations and gradients at points of the input
space, and stands here free of networks, hooks and arrays with labels. It is not the code that runs
a network (hooked.py, retina.py) or goes through a recording (engine.py). A new method is one
subclass of `Method`; path integrals stand in integrated_gradients.py.

Notation: b inputs, x input, x′ baseline, h activations of a layer, g = ∂F/∂h, F target, J = ∂h/∂x.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import ClassVar

import torch

from retina_codec.methods.baselines import (
    prepare_baseline,
)
from retina_codec.probing.batches import Batch
from retina_codec.probing.points import LayeredFunction, Layers
from retina_codec.storage.provenance import readable
from retina_codec.targets.base import Target

__all__ = ["Method", "UnitContributions"]


@dataclass(frozen=True)
class UnitContributions:
    """Contributions of every hidden unit to the target, for a batch of inputs."""

    contribution: Layers  # each (b, ...), in the unit of the target, at least float32
    value: torch.Tensor  # F(x), (b,)
    output: torch.Tensor  # y(x), (b, n)
    activation: Layers  # h(x), each (b, ...)
    expected: torch.Tensor | None = None  # what contributions of a layer should sum to, (b,)
    steps: torch.Tensor | None = None  # steps used per input, (b,), where they may differ
    standard_error: Layers = field(default_factory=dict)  # of the sum over a layer, each (b,)
    whole: bool = False  # whether activation holds whole layers although the function does not


class Method(ABC):
    """One way to compute contributions.

    A subclass must implement `explain`, treat every input on its own, and keep every parameter
    as a dataclass field, so that the provenance names it. It should say in `sums_to` what the
    contributions of a layer that cuts the network add up to.
    """

    sums_to: ClassVar[str] = ""
    sampled: ClassVar[bool] = False  # whether it gives a standard error
    chords: ClassVar[bool] = False

    @abstractmethod
    def explain(
        self, function: LayeredFunction, target: Target, inputs: Batch
    ) -> UnitContributions:
        """Return the contributions of every unit for inputs ``(b, ...)``."""

    def prepare(self, mean: Callable[[], Batch]) -> "Method":
        """Return the method with the mean of the inputs in place of a baseline "mean"."""
        named = {item.name for item in fields(self)}  # type: ignore[arg-type]  # every method is a dataclass
        if "baseline" not in named:
            return self
        baseline = self.baseline  # type: ignore[attr-defined]
        prepared = prepare_baseline(baseline, mean)
        return self if prepared is baseline else replace(self, baseline=prepared)  # type: ignore[type-var]

    def describe(self) -> dict[str, str | int | float]:
        """Return name and parameters in a form that files can hold."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}  # type: ignore[arg-type]
        return {"method": type(self).__name__} | {k: readable(v) for k, v in values.items()}


def at_least_float(values: torch.Tensor) -> torch.Tensor:
    """Return half precision as float32, other values as they are."""
    return values if values.dtype in (torch.float32, torch.float64) else values.float()
