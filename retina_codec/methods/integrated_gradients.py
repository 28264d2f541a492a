"""Integrated gradients: contributions as an integral along a path from the baseline.

Notation: b inputs, γ(α) path, x input, x′ baseline, h activations, g = ∂F/∂h, F target.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, get_args

import torch
from torch import nn

from retina_codec.errors import RetinaCodecError
from retina_codec.methods import adaptive
from retina_codec.methods.base import InputPath, Method, UnitContributions, at_least_float
from retina_codec.methods.baselines import (
    Baseline,
    check_baseline,
    count_baselines,
    resolve_baselines,
)
from retina_codec.methods.quadrature import SIMPSON, check_rule, rule
from retina_codec.probing.batches import Batch, batch_length, lerp, map_tensors
from retina_codec.probing.points import Bound, Evaluation, LayeredFunction, Layers
from retina_codec.targets.base import Target, bind_at_input

__all__ = ["IntegratedGradients"]

Placement = Literal["adaptive", "uniform"]

ADAPTIVE = ("trapezoid", "chords")  # quadratures whose points can be each input's own

PARTS = 2  # of a batch, one after the other, as points of paths are kept: memory stays that of one


@dataclass(frozen=True)
class IntegratedGradients(Method):
    """Integrate gradient times change of activation along a path from the baseline.

    Input path: ``C_j = ∫₀¹ g_j(γ(α)) h_j′(γ(α)) dα`` with ``γ(α) = x′ + α (x − x′)``, by the
    trapezoid ``Σ_{s=1..steps} ½ (g_j^{s−1} + g_j^s)(h_j^s − h_j^{s−1})`` over points α_s, which
    are each input's own, or by the published rule ``α_s = s / steps``.
    Hidden path: ``C_j = (h_j(x) − h_j(x′)) ∫₀¹ g_j dα`` at ``h(x′) + α (h(x) − h(x′))``.

    Parameters
    ----------
    steps : int
        Intervals of the path (``steps + 1`` points); 20 for the retina, 10 for images. Points,
        for "gauss-legendre".
    path : {"input", "hidden"}
        Where the path is straight: in the input (all layers from one pass), or in each layer (one
        pass per layer; the rest of the network sees x).
    baseline : Baseline
        x′: a number, one input ``(...)``, a function of one input (that blurs it, say), a dict of
        these by name, "mean" (mean of the inputs explained), "mean embedding" (of the vocabulary,
        for every word), "mean embedding after first word" (which stands), or a list of these, over
        which contributions are averaged. "auto" is the last word for words by number, else 0;
        results name the one. In normalised intensities for a retina network; 0 is mean grey.
    quadrature : {"trapezoid", "simpson", "gauss-legendre", "chords"}
        "trapezoid" is the published rule. "simpson" and "gauss-legendre" are of higher order, for
        smooth networks; the latter also carries the derivative h′ forward. "chords" takes
        the integral behind each nonlinearity r, ``∫ g_h dh = ∫ g_r dr``, and lets ReLUs pass
        gradients on with the slope of their chord over a step, so that units that cross their
        threshold within it count with their share: 8 have half the error of 20 published steps.
        For networks that say which nonlinearity follows (`RetinaCNN`).
    placement : {"adaptive", "uniform"}, optional
        "adaptive", the default of the trapezoid on the input path: from 0, ½ and 1 on, the next
        point of every input halves the segment with the largest error (what the sum over a layer
        misses there, and how much its units may, of the layer where that is most), so that steps
        lie where the path bends; at equal evaluations of the network the error is several times
        smaller. The points depend on which layers are explained together. Chords place them by
        what the network's layers do. "uniform": the same points for all inputs, with the trapezoid
        the published rule; the default of the hidden path, which bends little, and of the other
        quadratures.
    tolerance : float, optional
        In the unit of the target: steps are added, input by input, until the completeness error
        of every layer that cuts the network is at most this ("uniform": they are doubled).
        None: ``steps`` as they are.
    most_steps : int
        Where that ends; what is left of the error is in the result.

    Raises
    ------
    RetinaCodecError
        If a parameter is not among the valid ones, or the baseline has another shape.

    Notes
    -----
    Complete: summed over a layer that every path from input to output crosses, contributions
    give F(x) − F(x′) up to the quadrature error. Memory does not grow with the steps: adaptive
    paths keep at most 16 points of an input, and explain a batch in two halves.

    References
    ----------
    Tanaka et al. 2019, NeurIPS; Dhamdhere et al. 2018 (conductance); Lucas et al. 2022 (hidden
    path); Melander et al. 2026.
    """

    steps: int = 20
    path: Literal["input", "hidden"] = "input"
    baseline: Baseline = "auto"
    quadrature: Literal["trapezoid", "simpson", "gauss-legendre", "chords"] = "trapezoid"
    tolerance: float | None = None
    most_steps: int = 1280
    placement: Placement | None = None
    sums_to: ClassVar[str] = "F(x) - F(baseline)"

    def __post_init__(self) -> None:
        """Validate the parameters."""
        check_rule(self.quadrature, self.steps)
        self._place()
        if self.path not in ("input", "hidden"):
            raise RetinaCodecError(f"path must be 'input' or 'hidden'; got {self.path!r}.")
        if self.path == "hidden" and self.quadrature == "chords":
            raise RetinaCodecError(
                "the hidden path is straight before the nonlinearity; use another quadrature "
                "than 'chords'."
            )
        if self.tolerance is not None and not 0 < self.tolerance < float("inf"):
            raise RetinaCodecError(
                f"tolerance must be positive, in the unit of the target; got {self.tolerance!r}."
            )
        if self.tolerance is not None and self.most_steps < self.steps:
            raise RetinaCodecError(
                f"most_steps must be at least steps; got {self.most_steps} and {self.steps}."
            )
        check_baseline(self.baseline)

    def _place(self) -> None:
        """Validate the placement of points, and choose one where none is named."""
        able = self.quadrature in ADAPTIVE and self.steps > 1
        if self.placement is None:
            own = able and self.path == "input"
            object.__setattr__(self, "placement", "adaptive" if own else "uniform")
        if self.placement not in get_args(Placement):
            raise RetinaCodecError(
                f"placement must be 'adaptive' or 'uniform'; got {self.placement!r}."
            )
        if self.placement == "adaptive" and not able:
            raise RetinaCodecError(
                "placement='adaptive' needs at least 2 steps of the quadrature "
                f"{' or '.join(map(repr, ADAPTIVE))}; got {self.steps} of {self.quadrature!r}. "
                "Leave out placement, or change these."
            )

    @property
    def chords(self) -> bool:  # type: ignore[override]  # a choice here, fixed elsewhere
        """Whether nonlinearities are followed by chords."""
        return self.quadrature == "chords"

    @property
    def fused(self) -> bool:  # type: ignore[override]
        """Whether a network that integrates whole paths by itself is asked to."""
        return self.path == "input" and self.quadrature in ADAPTIVE

    def passes(self, layers: int) -> tuple[int, int]:
        """One for each node, for each baseline; on the hidden path one for each layer as well."""
        several = count_baselines(self.baseline)
        if self.path == "hidden":
            both = 2 + layers * len(rule(self.quadrature, self.steps).nodes)
            return several * both, several * both
        if self.quadrature == "gauss-legendre":
            return several * (2 + 2 * self.steps), several * (2 + self.steps)
        return several * (self.steps + 1), several * (self.steps + 1)

    def input_path(self, steps: int) -> InputPath:
        """``C_ij = (x_i − x′_i) ∫ g_j J_ji dα`` by the method's own quadrature."""
        del steps
        if self.path != "input" or self.chords or self.tolerance is not None:
            raise RetinaCodecError(
                "a map follows the input path with a fixed number of steps; got "
                f"{self!r}. Use IntegratedGradients(steps, quadrature='trapezoid', 'simpson' or "
                "'gauss-legendre')."
            )
        own = self.placement == "adaptive"
        return InputPath(rule(self.quadrature, self.steps), own_points=own)

    def explain(
        self, function: LayeredFunction, target: Target, inputs: Batch
    ) -> UnitContributions:
        """Return the contributions of every unit for inputs ``(b, ...)``."""
        end = function.start(inputs)
        begins = [function.start(one) for one in resolve_baselines(self.baseline, inputs)]
        if self.tolerance is not None:
            cuts = [name for name in function.layers if function.complete[name]]
            if not cuts:
                raise RetinaCodecError(
                    "tolerance needs a layer that cuts the network, whose contributions can be "
                    f"complete; none of {list(function.layers)} does. Add one, or choose steps."
                )
        found = self._all_baselines(function, target, begins, end, self.steps)
        if self.tolerance is None or found.steps is not None:
            return found
        return self._refine(function, target, begins, end, found)

    def _refine(
        self,
        function: LayeredFunction,
        target: Target,
        begins: list[Batch],
        end: Batch,
        found: UnitContributions,
    ) -> UnitContributions:
        """Double the steps of those inputs whose error is too large."""
        cuts = [name for name in found.contribution if function.complete[name]]
        used = torch.full_like(found.value, self.steps, dtype=torch.int32)
        steps, now, where = self.steps, found, torch.arange(len(found.value), device=used.device)
        while 2 * steps <= self.most_steps:
            expected = now.expected if now.expected is not None else now.value
            errors = [(now.contribution[name].flatten(1).sum(1) - expected).abs() for name in cuts]
            open_ = torch.stack(errors).amax(0) > (self.tolerance or 0)
            where = where[open_]
            if not len(where):
                break
            steps *= 2
            part = _some(end, where)
            starts = [b if batch_length(b) == 1 else _some(b, where) for b in begins]
            now = self._all_baselines(function, target, starts, part, steps)
            for name, values in now.contribution.items():
                found.contribution[name][where] = values
            used[where] = steps
        return replace(found, steps=used)

    def _all_baselines(
        self,
        function: LayeredFunction,
        target: Target,
        begins: list[Batch],
        end: Batch,
        steps: int,
    ) -> UnitContributions:
        """Average over baselines."""
        integrate = self._along_input if self.path == "input" else self._in_layers
        if self.placement == "adaptive" and not (self.fused and hasattr(function, "integrate")):
            integrate = self._by_parts
        found = integrate(function, target, begins[0], end, steps)
        expected, used, places = [found.expected], found.steps, found.places
        for begin in begins[1:]:
            one = integrate(function, target, begin, end, steps)
            expected.append(one.expected)
            places += one.places
            used = None if used is None or one.steps is None else used.maximum(one.steps)
            for name, values in one.contribution.items():
                found.contribution[name].add_(values)
        for values in found.contribution.values():
            values.div_(len(begins))
        changes = [change for change in expected if change is not None]
        mean = torch.stack(changes).mean(0)
        return replace(found, expected=mean, steps=used, places=places)

    def _by_parts(
        self, function: LayeredFunction, target: Target, begin: Batch, end: Batch, steps: int
    ) -> UnitContributions:
        """Integrate with each input's own points, a part of the batch after the other."""
        integrate = self._own_points if self.path == "input" else self._own_points_in_layers
        count = batch_length(end)
        size = -(-count // PARTS)
        found = []
        for start in range(0, count, size):
            rows = torch.arange(start, min(start + size, count))
            own = begin if batch_length(begin) == 1 else _some(begin, rows)
            found.append(integrate(function, target, own, _some(end, rows), steps))
        return _joined(found)

    def _own_points(
        self, function: LayeredFunction, target: Target, begin: Batch, end: Batch, steps: int
    ) -> UnitContributions:
        """Integrate along the straight path in the input."""
        if target.decides:
            begin = _each(begin, batch_length(end))
        at_x = function(end, bind_at_input(target))
        at_start = function(begin, target.bind(at_x.output))

        def at(rows: torch.Tensor, place: torch.Tensor) -> Evaluation:
            some, own = end, begin
            if len(rows) < len(at_x.output):
                some = _some(end, rows)
                own = begin if batch_length(begin) == 1 else _some(begin, rows)
            return function(lerp(own, some, place), target.bind(at_x.output[rows]))

        found = self._integrate(function, at, at_start, at_x, steps)
        return UnitContributions(
            found.contribution,
            at_x.value,
            at_x.output,
            at_x.activation,
            at_x.value - at_start.value,
            None if self.tolerance is None else (found.evaluations - 1).int(),
            places=(found.places,),
        )

    def _own_points_in_layers(
        self, function: LayeredFunction, target: Target, begin: Batch, end: Batch, steps: int
    ) -> UnitContributions:
        """Integrate along the straight path in each layer, the rest of the network at the input."""
        at_x = function(end, bind_at_input(target))
        at_start = function(_each(begin, batch_length(end)), target.bind(at_x.output))
        total: Layers = {}
        used = torch.zeros_like(at_x.value, dtype=torch.int32)
        for name, h in at_x.activation.items():
            h0 = at_start.activation[name]

            def at(
                rows: torch.Tensor,
                place: torch.Tensor,
                name: str = name,
                ends: tuple[torch.Tensor, torch.Tensor] = (h0, h),
            ) -> Evaluation:
                units = lerp(ends[0][rows], ends[1][rows], place)
                bound = target.bind(at_x.output[rows])
                value, g = function.above(name, units, _some(end, rows), bound)  # type: ignore[arg-type]
                return Evaluation(value, at_x.output[rows], {name: units}, {name: g})  # type: ignore[dict-item]

            every = torch.arange(len(h), device=h.device)
            ends = [at(every, torch.full_like(at_x.value, share)) for share in (0.0, 1.0)]
            found = self._integrate(function, at, ends[0], ends[1], steps, only=name)
            total[name] = found.contribution[name]
            used = used.maximum((found.evaluations - 1).int())
        expected = at_x.value - at_start.value
        steps_used = None if self.tolerance is None else used
        return UnitContributions(
            total, at_x.value, at_x.output, at_x.activation, expected, steps_used
        )

    def _integrate(
        self,
        function: LayeredFunction,
        at: adaptive.At,
        at_start: Evaluation,
        at_x: Evaluation,
        steps: int,
        only: str | None = None,
    ) -> adaptive.Found:
        complete = tuple(name for name in function.layers if function.complete[name])
        if only is not None:
            complete = (only,) if only in complete else ()
        return adaptive.integrate(
            at,
            at_start,
            at_x,
            steps,
            tolerance=self.tolerance if complete else None,
            most_steps=self.most_steps,
            complete=complete,
        )

    def _along_input(
        self, function: LayeredFunction, target: Target, begin: Batch, end: Batch, steps: int
    ) -> UnitContributions:
        """Integrate from the input back, so that the target decides at the input."""
        bound = bind_at_input(target)
        if target.decides:
            # F differs from input to input, also at the one baseline they share.
            begin = _each(begin, batch_length(end))
        fused = getattr(function, "integrate", None)
        if fused is not None and self.fused:
            own = self.placement == "adaptive"
            total, at_x, last = fused(begin, end, steps, bound, own_points=own)
            expected = at_x.value - last.value
            return UnitContributions(
                total, at_x.value, at_x.output, at_x.activation, expected, whole=True
            )
        if self.quadrature == "gauss-legendre":
            return self._gauss(function, bound, begin, end, steps)

        def at(step: int) -> Evaluation:
            if step == steps:
                return function(end, bound)
            return function(lerp(begin, end, step / steps) if step else begin, bound)

        add = _add_parabolas if self.quadrature == "simpson" else _add_trapezoids
        total, at_x, last = add(at, steps)
        expected = at_x.value - last.value
        return UnitContributions(total, at_x.value, at_x.output, at_x.activation, expected)

    def _gauss(
        self, function: LayeredFunction, bound: Bound, begin: Batch, end: Batch, steps: int
    ) -> UnitContributions:
        at_x = function(end, bound)
        at_start = function(begin, bound)
        direction = map_tensors(lambda e, b: e - b if e.is_floating_point() else e, end, begin)
        total = {name: torch.zeros_like(at_least_float(h)) for name, h in at_x.activation.items()}
        places = rule(self.quadrature, steps)
        for node, weight in zip(places.nodes, places.weights, strict=True):
            here = function.along(lerp(begin, end, node), direction, bound)
            for name, tangent in here.tangent.items():
                wide = at_least_float(here.gradient[name])
                total[name].addcmul_(wide, at_least_float(tangent), value=weight)
        expected = at_x.value - at_start.value
        return UnitContributions(total, at_x.value, at_x.output, at_x.activation, expected)

    def _in_layers(
        self, function: LayeredFunction, target: Target, begin: Batch, end: Batch, steps: int
    ) -> UnitContributions:
        """Integrate in each layer on its own, the rest of the network at the input."""
        bound = bind_at_input(target)
        at_x = function(end, bound)
        at_start = function(_each(begin, batch_length(end)), bound)
        places = rule(self.quadrature, steps)
        total: Layers = {}
        for name, h in at_x.activation.items():
            start = at_start.activation[name]
            mean = torch.zeros_like(at_least_float(h))
            for node, weight in zip(places.nodes, places.weights, strict=True):
                units = lerp(start, h, node)
                gradient = function.above(name, units, end, bound)[1]  # type: ignore[arg-type]
                mean.add_(gradient, alpha=weight)
            total[name] = mean * (h - start)
        expected = at_x.value - at_start.value
        return UnitContributions(total, at_x.value, at_x.output, at_x.activation, expected)


def _some(batch: Batch, where: torch.Tensor) -> Batch:
    """Return some inputs of a batch."""
    some: Batch = map_tensors(lambda values: values[where.to(values.device)], batch)
    return some


def _joined(parts: list[UnitContributions]) -> UnitContributions:
    """Join successive parts of a batch."""
    if len(parts) == 1:
        return parts[0]

    def layers(name: str) -> Layers:
        every = [getattr(part, name) for part in parts]
        return {key: torch.cat([one[key] for one in every]) for key in every[0]}

    def inputs(name: str) -> torch.Tensor | None:
        every = [getattr(part, name) for part in parts]
        return None if every[0] is None else torch.cat(every)

    longest = max((p.shape[1] for part in parts for p in part.places), default=0)
    places = tuple(
        torch.cat([nn.functional.pad(p, (0, longest - p.shape[1]), value=1.0) for p in several])
        for several in zip(*(part.places for part in parts), strict=True)
    )
    return replace(
        parts[0],
        contribution=layers("contribution"),
        activation=layers("activation"),
        places=places,
        **{name: inputs(name) for name in ("value", "output", "expected", "steps")},  # type: ignore[arg-type]
    )


def _each(begin: Batch, count: int) -> Batch:
    """Give every input the baseline that they share."""
    if batch_length(begin) == count:
        return begin
    each: Batch = map_tensors(lambda x: x.expand(count, *x.shape[1:]).clone(), begin)
    return each


def _begin_sum(at: Callable[[int], Evaluation], steps: int) -> tuple[Layers, Evaluation]:
    """Return sums of zero and the evaluation at x."""
    at_x = at(steps)
    zeros = {name: torch.zeros_like(at_least_float(h)) for name, h in at_x.activation.items()}
    return zeros, at_x


def _add_trapezoids(
    at: Callable[[int], Evaluation], steps: int
) -> tuple[Layers, Evaluation, Evaluation]:
    """Add ``½ (g_{s−1} + g_s)(h_s − h_{s−1})`` for every step; also return both ends."""
    total, after = _begin_sum(at, steps)
    kept = replace(after, gradient={})  # gradients at x are not needed to the end
    # Large temporaries cost more than the sums in them, so layers of one shape share two.
    scratch = {h.shape: (torch.empty_like(h), torch.empty_like(h)) for h in total.values()}
    for step in range(steps - 1, -1, -1):
        here = at(step)
        for name, sums in total.items():
            gradient, change = scratch[sums.shape]
            torch.add(at_least_float(after.gradient[name]), here.gradient[name], out=gradient)
            torch.sub(at_least_float(after.activation[name]), here.activation[name], out=change)
            sums.addcmul_(gradient, change, value=0.5)
        after = here
    return total, kept, after


def _add_parabolas(
    at: Callable[[int], Evaluation], steps: int
) -> tuple[Layers, Evaluation, Evaluation]:
    """Add ``Σ_st g_s SIMPSON[s][t] h_t`` for every pair of steps; also return both ends."""
    total, last = _begin_sum(at, steps)
    kept = replace(last, gradient={})
    for step in range(steps - 2, -1, -2):
        three = (at(step), at(step + 1), last)
        for name, sums in total.items():
            heights = [at_least_float(point.activation[name]) for point in three]
            for point, row in zip(three, SIMPSON, strict=True):
                change = sum(weight * height for weight, height in zip(row, heights, strict=True))
                sums.addcmul_(at_least_float(point.gradient[name]), torch.as_tensor(change))
        last = three[0]
    return total, kept, last
