"""Methods that use gradients at the input, or at noisy copies of it.

Notation: b inputs, x input, x′ baseline, h activations of a layer, g = ∂F/∂h, F target, J = ∂h/∂x.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from retina_codec.errors import RetinaCodecError
from retina_codec.methods.base import InputPath, Method, UnitContributions, at_least_float
from retina_codec.methods.baselines import (
    Baseline,
    check_baseline,
    count_baselines,
    resolve_baselines,
)
from retina_codec.methods.quadrature import Rule, rule
from retina_codec.probing.batches import Batch, map_tensors, tensors_of
from retina_codec.probing.points import LayeredFunction
from retina_codec.targets.base import Target, bind_at_input

__all__ = ["ActGrad", "ActNormGrad", "InputGrad", "SmoothGrad"]


@dataclass(frozen=True)
class ActGrad(Method):
    """Activation times gradient at the input, ``C_j = (h_j(x) − h_j⁰) g_j(x)``.

    Parameters
    ----------
    baseline : Baseline, optional
        None (default): h⁰ = 0. Otherwise an x′ as in `IntegratedGradients` and h⁰ = h(x′).

    Notes
    -----
    One forward and one backward pass. First order: only on a linear network does it add up to
    F(x) − F(x′), so no completeness is reported.

    References
    ----------
    Melander et al. 2026, CODEC, contribution algorithms.
    """

    baseline: Baseline = None

    def __post_init__(self) -> None:
        """Validate the baseline."""
        if self.baseline is not None:
            check_baseline(self.baseline)

    def passes(self, layers: int) -> tuple[int, int]:
        """One, and one for each baseline with its own activations."""
        del layers
        both = 1 if self.baseline is None else 1 + count_baselines(self.baseline)
        return both, both

    def input_path(self, steps: int) -> InputPath | None:
        """``C_ij = g_j(x) (x_i − x′_i) ∫ J_ji dα`` by trapezoids."""
        return InputPath(rule("trapezoid", steps), gradient_at_input=True)

    def explain(
        self, function: LayeredFunction, target: Target, inputs: Batch
    ) -> UnitContributions:
        """Return the contributions of every unit for inputs ``(b, ...)``."""
        here = function(function.start(inputs), bind_at_input(target))
        change = {name: at_least_float(h) for name, h in here.activation.items()}
        if self.baseline is not None:
            baselines = resolve_baselines(self.baseline, inputs)
            for begin in baselines:
                there = function(function.start(begin), _whole_output).activation
                for name, h in there.items():
                    change[name] = change[name] - at_least_float(h) / len(baselines)
        found = {name: self._weigh(h, here.gradient[name]) for name, h in change.items()}
        return UnitContributions(found, here.value, here.output, here.activation)

    def _weigh(self, change: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        return change * gradient


@dataclass(frozen=True)
class ActNormGrad(ActGrad):
    """Activation times normalised gradient, ``C_j = (h_j(x) − h_j⁰) g_j(x) / ‖g(x)‖₂``.

    The norm runs over all units of the layer, for every input on its own; where the gradient is
    zero everywhere, so are the contributions.

    Parameters
    ----------
    baseline : Baseline, optional
        As in `ActGrad`.

    Notes
    -----
    In the unit of the activations, not of the target.

    References
    ----------
    Melander et al. 2026, CODEC, contribution algorithms.
    """

    units: ClassVar[str] = "activation"

    def input_path(self, steps: int) -> None:
        """Return None: no map is defined."""
        del steps

    def _weigh(self, change: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        wide = at_least_float(gradient)
        norm = torch.linalg.vector_norm(wide.flatten(1), dim=1)
        norm = torch.where(norm == 0, 1.0, norm)
        return change * wide / norm.view(-1, *(1,) * (gradient.ndim - 1))


@dataclass(frozen=True)
class InputGrad(Method):
    """What the input passes through each unit: ``C_j = g_j(x) Σ_i J_ji (x_i − x′_i)``.

    One forward pass that carries the derivative along x − x′ and one backward pass.

    Parameters
    ----------
    baseline : Baseline
        x′; with 0 the direction is x itself. "auto" (default) is 0, but for words by number
        "mean embedding after first word". Others as in `IntegratedGradients`.

    Notes
    -----
    Complete to first order: over a layer that every path crosses, contributions sum to
    ``Σ_i (x_i − x′_i) ∂F/∂x_i``, up to rounding.

    References
    ----------
    Melander et al. 2026, CODEC, contribution algorithms.
    """

    baseline: Baseline = "auto"
    sums_to: ClassVar[str] = "derivative of F along x - baseline"

    def __post_init__(self) -> None:
        """Validate the baseline."""
        check_baseline(self.baseline)

    def passes(self, layers: int) -> tuple[int, int]:
        """One forward and back, and one forward that carries the derivative."""
        del layers
        return 2, 1

    def input_path(self, steps: int) -> InputPath:
        """``C_ij = g_j J_ji (x_i − x′_i)``, all at x."""
        del steps
        return InputPath(Rule((1.0,), (1.0,)))

    def explain(
        self, function: LayeredFunction, target: Target, inputs: Batch
    ) -> UnitContributions:
        """Return the contributions of every unit for inputs ``(b, ...)``."""
        end = function.start(inputs)
        starts = [function.start(one) for one in resolve_baselines(self.baseline, inputs)]
        # Linear in the direction, so the mean over baselines is that of their mean.
        direction = map_tensors(
            lambda x, *b: x - sum(b) / len(b) if x.is_floating_point() else x, end, *starts
        )
        here = function.along(end, direction, bind_at_input(target))
        found = {
            name: at_least_float(here.gradient[name]) * at_least_float(tangent)
            for name, tangent in here.tangent.items()
        }
        return UnitContributions(
            found, here.value, here.output, here.activation, here.value_tangent
        )


@dataclass(frozen=True)
class SmoothGrad(Method):
    """Activation times gradient, averaged over noisy copies of the input.

    ``C_j = 1/N Σ_n h_j(x + σ ε_n) g_j(x + σ ε_n)`` with ε standard normal.

    Parameters
    ----------
    samples : int
        N, copies of the input.
    sigma : float
        Standard deviation of the noise, in the unit of the network's input (one standard
        deviation of intensity where inputs are z-scored).
    seed : int
        Of the noise. Every input sees the same N noise images, so that it gets the same
        contributions alone and in any batch.

    Raises
    ------
    RetinaCodecError
        If samples < 2 (there would be no error bar), or sigma is not finite and >= 0.

    Notes
    -----
    The result carries the standard error of the layer's summed contribution over the N copies.

    References
    ----------
    Smilkov et al. 2017; Melander et al. 2026, CODEC, contribution algorithms.
    """

    samples: int = 10
    sigma: float = 0.2
    seed: int = 0
    sampled: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Validate the parameters."""
        if isinstance(self.samples, bool) or not isinstance(self.samples, int) or self.samples < 2:
            raise RetinaCodecError(
                f"samples must be a whole number of at least 2; got {self.samples!r}. 10 is usual."
            )
        if not 0 <= float(self.sigma) < float("inf"):
            raise RetinaCodecError(
                f"sigma must be finite and not negative; got {self.sigma!r}. 0.2 is usual."
            )

    def passes(self, layers: int) -> tuple[int, int]:
        """One for each noisy copy, and one at the input."""
        del layers
        return self.samples + 1, self.samples + 1

    def explain(
        self, function: LayeredFunction, target: Target, inputs: Batch
    ) -> UnitContributions:
        """Return the contributions of every unit for inputs ``(b, ...)``."""
        if not any(values.is_floating_point() for values in tensors_of(inputs)):
            raise RetinaCodecError(
                "noise needs floating inputs; all of these are whole numbers. Convert pixels to "
                "float as in the network's training (inputs.float() / 255, say), or use ActGrad()."
            )
        bound = bind_at_input(target)
        clean = function(function.start(inputs), bound)  # where the target decides
        total = {name: torch.zeros_like(at_least_float(h)) for name, h in clean.activation.items()}
        sums: dict[str, list[torch.Tensor]] = {name: [] for name in total}
        generator = torch.Generator().manual_seed(self.seed)

        def noisy(values: torch.Tensor) -> torch.Tensor:
            if not values.is_floating_point():
                return values
            noise = torch.randn(values.shape[1:], generator=generator)  # float32, on the CPU
            return values + self.sigma * noise.to(values.device, values.dtype)

        for _ in range(self.samples):
            there = function(function.start(map_tensors(noisy, inputs)), bound)
            for name, h in there.activation.items():
                part = at_least_float(h) * there.gradient[name]
                total[name].add_(part, alpha=1 / self.samples)
                sums[name].append(part.flatten(1).sum(1))
        errors = {
            name: torch.stack(values).std(0) / self.samples**0.5 for name, values in sums.items()
        }
        return UnitContributions(
            total, clean.value, clean.output, clean.activation, standard_error=errors
        )


def _whole_output(outputs: torch.Tensor) -> torch.Tensor:
    """Sum all outputs: a target for calls of which only the activations are used."""
    return outputs.flatten(1).sum(1)
