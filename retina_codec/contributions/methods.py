"""Contribution methods: how much each hidden unit acted to make the target what it is.

Why this file exists: a method is arithmetic on activations and gradients at points of the input
space, and stands here free of networks, hooks and arrays with labels. It is not the code that runs
a network (evaluation.py) or goes through a recording (engine.py). A new method is one subclass of
`Method`.

Notation: b inputs, x input, x′ baseline, h activations of a layer, g = ∂F/∂h, F target.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import Any, Literal, Protocol

import torch

from retina_codec.contributions.targets import Target
from retina_codec.errors import RetinaCodecError

__all__ = ["Evaluation", "IntegratedGradients", "LayeredFunction", "Method", "UnitContributions"]

Layers = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Evaluation:
    """The network at some points: target, outputs, activations and gradients of every layer."""

    value: torch.Tensor  # (b,)
    output: torch.Tensor  # (b, n)
    activation: Layers  # each (b, channel, ...)
    gradient: Layers  # the same shapes


class LayeredFunction(Protocol):
    """A network seen as target of inputs, with its layers in view."""

    def start(self, inputs: torch.Tensor) -> torch.Tensor:
        """Go through the part of the network that is affine, so that paths stay straight."""
        ...

    def __call__(self, point: torch.Tensor, target: Target) -> Evaluation:
        """Evaluate at points given as `start` gives them."""
        ...


@dataclass(frozen=True)
class UnitContributions:
    """Contributions of every hidden unit to the target, for a batch of inputs."""

    contribution: Layers  # each (b, channel, ...), in the unit of the target
    value: torch.Tensor  # F(x), (b,)
    baseline_value: torch.Tensor  # F(x′), (b,)
    output: torch.Tensor  # y(x), (b, n)


class Method(ABC):
    """One way to compute contributions.

    A subclass must implement `explain`, treat every input on its own, and keep every parameter
    as a dataclass field, so that the provenance names it.
    """

    @abstractmethod
    def explain(
        self, function: LayeredFunction, target: Target, inputs: torch.Tensor
    ) -> UnitContributions:
        """Return the contributions of every unit for inputs ``(b, ...)``."""

    def describe(self) -> dict[str, Any]:
        """Return name and parameters in a form that files can hold."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}  # type: ignore[arg-type]  # every method is a dataclass
        readable = {
            name: value if isinstance(value, str | int | float) else f"array {tuple(value.shape)}"
            for name, value in values.items()
        }
        return {"method": type(self).__name__, **readable}


@dataclass(frozen=True)
class IntegratedGradients(Method):
    """Integrate gradient times change of activation along the straight path from the baseline.

    ``C_j = ∫₀¹ g_j(γ(α)) h_j′(γ(α)) dα ≈ Σ_{s=1..steps} ½ (g_j^{s−1} + g_j^s)(h_j^s − h_j^{s−1})``
    with ``γ(α) = x′ + α (x − x′)`` and ``α_s = s / steps``: the trapezoid rule with both ends, so
    that the changes of activation add up to ``h(x) − h(x′)`` without a gap.

    Parameters
    ----------
    steps : int
        Intervals of the path (``steps + 1`` points); 20 for the retina, 10 for images.
    path : {"input"}
        Where the path is straight.
    baseline : float or torch.Tensor
        x′, one number or one input ``(...)``, in normalised intensities; 0 is mean grey.

    Raises
    ------
    RetinaCodecError
        If steps or path are not among the valid ones, or the baseline has another shape.

    Notes
    -----
    Complete: summed over a layer that every path from input to output crosses, contributions
    give F(x) − F(x′) up to the quadrature error. Nothing is kept per step.

    References
    ----------
    Tanaka et al. 2019, NeurIPS; Dhamdhere et al. 2018 (conductance); Melander et al. 2026.
    """

    steps: int = 20
    path: Literal["input"] = "input"
    baseline: float | torch.Tensor = 0.0

    def __post_init__(self) -> None:
        """Check the parameters."""
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 1:
            raise RetinaCodecError(
                f"steps must be a whole number of at least 1; got {self.steps!r}. 20 is usual."
            )
        if self.path != "input":
            raise RetinaCodecError(f"path must be 'input'; got {self.path!r}.")
        if not torch.isfinite(torch.as_tensor(self.baseline)).all():
            raise RetinaCodecError("the baseline must be finite.")

    def explain(
        self, function: LayeredFunction, target: Target, inputs: torch.Tensor
    ) -> UnitContributions:
        """Return the contributions of every unit for inputs ``(b, ...)``."""
        end = function.start(inputs)
        begin = function.start(self._baseline_like(inputs))
        before = first = function(begin, target)  # one point, shared by all inputs
        total: Layers = {}
        for step in range(1, self.steps + 1):
            here = function(torch.lerp(begin, end, step / self.steps), target)
            for name, activation in here.activation.items():
                gradient = here.gradient[name] + before.gradient[name]
                change = activation - before.activation[name]
                if name not in total:
                    total[name] = torch.zeros_like(activation)
                total[name].addcmul_(gradient, change, value=0.5)
            before = here
        value = first.value.expand_as(before.value)
        return UnitContributions(total, before.value, value, before.output)

    def _baseline_like(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the baseline as one input, ``(1, ...)``."""
        baseline = torch.as_tensor(self.baseline, dtype=inputs.dtype, device=inputs.device)
        if baseline.ndim and baseline.shape != inputs.shape[1:]:
            raise RetinaCodecError(
                f"the baseline must be a number or one input of shape {tuple(inputs.shape[1:])}; "
                f"got {tuple(baseline.shape)}."
            )
        return baseline.expand(inputs.shape[1:]).unsqueeze(0)
