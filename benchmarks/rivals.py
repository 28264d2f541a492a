"""Published ways to place the points of a path, each as a method that `rc.contribute` takes.

Written from their papers, which define them for attributions of the input. Here each gives its
points to the trapezoid of the conductance, ``Σ_s ½ (g_{s−1} + g_s)(h_s − h_{s−1})``, so that only
the placement differs. Notation: b inputs, n steps, α place on the path, g = ∂F/∂h, h activation.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
import torch
from scipy.optimize import minimize

from retina_codec.methods.base import Method, UnitContributions, at_least_float
from retina_codec.methods.baselines import resolve_baselines
from retina_codec.probing.batches import Batch, batch_length, map_tensors
from retina_codec.probing.points import Bound, Evaluation, LayeredFunction, Layers
from retina_codec.targets.base import Target, bind_at_input

__all__ = ["ByChange", "EvenSteps", "Roughness", "SamePoints", "optimised_points", "share_out"]

BY_POWELL = 41  # points; with more, Powell's method moves nothing that matters


class _Placed(Method):
    """Trapezoid over points that may be each input's own."""

    sums_to: ClassVar[str] = "F(x) - F(baseline)"
    baseline: float = 0.0

    def _places(
        self, function: LayeredFunction, bound: Bound, begin: Batch, end: Batch, at_x: Evaluation
    ) -> np.ndarray:
        """Return α of every point, (b, n + 1), from 0 to 1."""
        raise NotImplementedError

    def explain(
        self, function: LayeredFunction, target: Target, inputs: Batch
    ) -> UnitContributions:
        """Return the contributions of every unit for inputs ``(b, ...)``."""
        begin, end = _ends(function, inputs, self.baseline)
        bound = bind_at_input(target)
        at_x = function(end, bound)
        places = self._places(function, bound, begin, end, at_x)
        total = {name: torch.zeros_like(at_least_float(h)) for name, h in at_x.activation.items()}
        after = at_x
        for place in places.T[-2::-1]:
            here = function(between(begin, end, place), bound)
            for name, part in _trapezoids(here, after).items():
                total[name] += part
            after = here
        expected = at_x.value - after.value
        return UnitContributions(total, at_x.value, at_x.output, at_x.activation, expected)


@dataclass(frozen=True)
class ByChange(_Placed):
    """Share steps out among a few intervals by how much the output changes in each.

    A first pass, forward only, at the ends of ``intervals`` equal intervals gives the probability
    of the class that is predicted at x (the target itself where there are no classes). Each
    interval gets one step, and of the others a share ``w_k / Σ w`` with ``w_k = |Δp_k|``
    ("change") or ``√|Δp_k|`` ("root"); steps within an interval are equal.

    Parameters
    ----------
    steps : int
        Of all intervals together, at least as many as intervals.
    intervals : int
    weight : {"change", "root"}
    classes : bool
        Whether outputs are logits of classes.
    baseline : float

    References
    ----------
    Bhat and Raychowdhury 2023, arXiv:2302.11107.
    """

    steps: int = 20
    intervals: int = 4
    weight: Literal["change", "root"] = "change"
    classes: bool = True
    baseline: float = 0.0

    def passes(self, layers: int) -> tuple[int, int]:
        """One forward and back for each point, one forward for each end of an interval."""
        del layers
        return self.steps + 1 + self.intervals + 1, self.steps + 1

    def _places(
        self, function: LayeredFunction, bound: Bound, begin: Batch, end: Batch, at_x: Evaluation
    ) -> np.ndarray:
        count = batch_length(end)
        seen = []
        for number in range(self.intervals + 1):
            place = np.full(count, number / self.intervals)
            outputs = function.outputs(between(begin, end, place))
            seen.append(self._height(outputs, bound, at_x))
        change = np.abs(np.diff(torch.stack(seen, 1).double().cpu().numpy()))  # (b, interval)
        weights = np.sqrt(change) if self.weight == "root" else change
        return np.stack([self._row(share_out(row, self.steps)) for row in weights])

    def _height(self, outputs: torch.Tensor, bound: Bound, at_x: Evaluation) -> torch.Tensor:
        """Return the probability of the class predicted at x, or the target, (b,)."""
        if not self.classes:
            return bound(outputs).detach()
        chosen = at_x.output.argmax(1, keepdim=True)
        return outputs.softmax(1).gather(1, chosen)[:, 0]

    def _row(self, steps: np.ndarray) -> np.ndarray:
        """Return the points of one input, given the steps of every interval."""
        parts = [(k + np.arange(n) / n) / self.intervals for k, n in enumerate(steps)]
        return np.append(np.concatenate(parts), 1.0)


@dataclass(frozen=True)
class SamePoints(_Placed):
    """The trapezoid at points that are the same for all inputs.

    Parameters
    ----------
    points : tuple of float
        In order, from 0 to 1.
    baseline : float
    """

    points: tuple[float, ...] = (0.0, 1.0)
    baseline: float = 0.0

    def passes(self, layers: int) -> tuple[int, int]:
        """One for each point."""
        del layers
        return len(self.points), len(self.points)

    def _places(
        self, function: LayeredFunction, bound: Bound, begin: Batch, end: Batch, at_x: Evaluation
    ) -> np.ndarray:
        del function, bound, begin, at_x
        return np.tile(self.points, (batch_length(end), 1))


@dataclass(frozen=True)
class EvenSteps(Method):
    """The published trapezoid with many even steps, and with fewer of them, from one pass.

    Parameters
    ----------
    steps : int
        Of the contributions returned.
    fewer : tuple of int
        Divisors of ``steps``.
    baseline : float
    found : dict
        Filled by `explain`: contributions of units, by number of steps, of the last batch.
    """

    sums_to: ClassVar[str] = "F(x) - F(baseline)"
    steps: int = 1600
    fewer: tuple[int, ...] = ()
    baseline: float = 0.0
    found: dict[int, Layers] = field(default_factory=dict, init=False, repr=False, compare=False)

    def explain(
        self, function: LayeredFunction, target: Target, inputs: Batch
    ) -> UnitContributions:
        """Return contributions by ``steps``; those by fewer are in ``found``."""
        begin, end = _ends(function, inputs, self.baseline)
        bound = bind_at_input(target)
        at_x = function(end, bound)
        counts = (self.steps, *self.fewer)
        last = dict.fromkeys(counts, at_x)
        sums: dict[int, Layers] = {
            count: {n: torch.zeros_like(at_least_float(h)) for n, h in at_x.activation.items()}
            for count in counts
        }
        for number in range(self.steps - 1, -1, -1):
            place = np.full(len(at_x.value), number / self.steps)
            here = function(between(begin, end, place), bound)
            for count in counts:
                if number % (self.steps // count) == 0:
                    for name, part in _trapezoids(here, last[count]).items():
                        sums[count][name] += part
                    last[count] = here
        self.found.clear()
        self.found.update({count: sums[count] for count in self.fewer})
        expected = at_x.value - here.value
        return UnitContributions(
            sums[self.steps], at_x.value, at_x.output, at_x.activation, expected
        )


@dataclass(frozen=True)
class Roughness(Method):
    """Measure how fast the integrand changes along the path, ``Σ_u |f′_u(α)|``.

    ``f = g dh/dα`` of a unit, from differences on an even grid, summed over the units of a layer,
    divided by the layer's ``Σ_u |C_u|`` and averaged over layers.

    Parameters
    ----------
    grid : int
        Intervals.
    baseline : float
    found : list of np.ndarray
        Filled by `explain`: one array ``(b, grid − 1)`` per batch, at the inner points of the grid.
    """

    sums_to: ClassVar[str] = "F(x) - F(baseline)"
    grid: int = 64
    baseline: float = 0.0
    found: list[np.ndarray] = field(default_factory=list, init=False, repr=False, compare=False)

    def explain(
        self, function: LayeredFunction, target: Target, inputs: Batch
    ) -> UnitContributions:
        """Return contributions by even steps; the roughness is in ``found``."""
        begin, end = _ends(function, inputs, self.baseline)
        bound = bind_at_input(target)
        at_x = function(end, bound)
        total = {name: torch.zeros_like(at_least_float(h)) for name, h in at_x.activation.items()}
        jumps: list[dict[str, np.ndarray]] = []
        after, last = at_x, None
        for number in range(self.grid - 1, -1, -1):
            here = function(
                between(begin, end, np.full(len(at_x.value), number / self.grid)), bound
            )
            part = _trapezoids(here, after)
            if last is not None:
                jumps.append({name: _size(part[name] - last[name]) for name in part})
            for name, values in part.items():
                total[name] += values
            after, last = here, part
        whole = {name: _size(values) for name, values in total.items()}
        rough = [
            np.mean([jump[name] / np.maximum(whole[name], 1e-30) for name in jump], axis=0)
            for jump in jumps[::-1]
        ]
        self.found.append(np.stack(rough, 1) * self.grid**2)
        expected = at_x.value - after.value
        return UnitContributions(total, at_x.value, at_x.output, at_x.activation, expected)


def optimised_points(roughness: np.ndarray, steps: int) -> tuple[float, ...]:
    """Return the points that make the bound of a Riemann sum's error smallest.

    The bound is ``Σ_i ∫ |f′(α)| (α_{i+1} − α) dα``, with |f′| averaged over calibration inputs.
    The paper goes on to ``½ Σ_i |f′(α_i)| (α_{i+1} − α_i)²``; with few points that lets the
    optimiser step over a peak of |f′|, to errors above those of even steps, so it is not used.
    Powell's method starts at the points that are best when there are many, ``dα ∝ 1 / √|f′|``.

    Parameters
    ----------
    roughness : np.ndarray, (input, grid − 1)
        |f′| at the inner points of an even grid, see `Roughness`.
    steps : int

    Returns
    -------
    tuple of float
        ``steps + 1`` points from 0 to 1.

    References
    ----------
    Swain and Singhi 2024, RiemannOpt, arXiv:2410.04118.
    """
    height = roughness.mean(0)
    grid = np.arange(1, len(height) + 1) / (len(height) + 1)
    fine = np.linspace(0, 1, 4001)
    root = np.sqrt(np.interp(fine, grid, height)) + 1e-3 * np.sqrt(height.max())
    rise = _integral(root, fine)
    start = np.interp(np.linspace(0, 1, steps + 1), rise / rise[-1], fine)

    def points(sizes: np.ndarray) -> np.ndarray:
        share = np.exp(sizes - sizes.max())
        return np.append(0, np.cumsum(share / share.sum()))

    rate = np.interp(fine, grid, height)
    area, moment = (_integral(values, fine) for values in (rate, rate * fine))

    def bound(sizes: np.ndarray) -> float:
        place = points(sizes)
        inside = np.diff([np.interp(place, fine, values) for values in (area, moment)])
        return float((inside[0] * place[1:] - inside[1]).sum())

    sizes = np.log(np.diff(start))
    if steps < BY_POWELL:
        sizes = minimize(bound, sizes, method="Powell", options={"maxiter": 20}).x
    found = points(sizes)
    found[-1] = 1.0
    return tuple(float(place) for place in found)


def _integral(values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Return the integral from the first place to each."""
    return np.append(0, np.cumsum((values[1:] + values[:-1]) / 2 * np.diff(at)))


def share_out(weights: np.ndarray, steps: int) -> np.ndarray:
    """Return whole steps in proportion to weights (interval,), at least one each.

    Largest remainders get what is left over; equal weights where all are zero.
    """
    free = steps - len(weights)
    if free < 0:
        raise ValueError(f"there must be a step for every interval; got {steps=}, {len(weights)=}.")
    weights = np.ones_like(weights) if weights.sum() == 0 else weights
    exact = free * weights / weights.sum()
    found = np.floor(exact).astype(int)
    most = np.argsort(found - exact, kind="stable")[: free - found.sum()]
    found[most] += 1
    return found + 1


def between(begin: Batch, end: Batch, places: np.ndarray) -> Batch:
    """Return the points at places ``(b,)`` of each input's own path."""

    def one(from_: torch.Tensor, to: torch.Tensor) -> torch.Tensor:
        if not to.is_floating_point():
            return to
        share = torch.as_tensor(places, dtype=to.dtype, device=to.device)
        share = share.view(-1, *(1,) * (to.ndim - 1))
        return from_ + share * (to - from_)

    found: Batch = map_tensors(one, begin, end)
    return found


def _ends(function: LayeredFunction, inputs: Batch, baseline: float) -> tuple[Batch, Batch]:
    """Return both ends of the path, one row for every input."""
    end = function.start(inputs)
    begin = function.start(resolve_baselines(baseline, inputs)[0])
    count = batch_length(end)
    spread = map_tensors(lambda x: x.expand(count, *x.shape[1:]) if len(x) == 1 else x, begin)
    return spread, end


def _trapezoids(here: Evaluation, after: Evaluation) -> Layers:
    """Return ``½ (g + g′)(h′ − h)`` of every layer."""
    return {
        name: (at_least_float(here.gradient[name]) + after.gradient[name])
        .mul_(at_least_float(after.activation[name]) - here.activation[name])
        .mul_(0.5)
        for name in after.gradient
    }


def _size(values: torch.Tensor) -> np.ndarray:
    """Return ``Σ_u |values|`` of every input, (b,)."""
    return values.flatten(1).abs().sum(1).double().cpu().numpy()
