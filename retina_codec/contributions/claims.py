"""What results say of completeness: a claim is retracted where the measured error is against it.

An error that falls with the steps of the path is one of quadrature, and retracts nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass, is_dataclass, replace

import numpy as np
import torch

from retina_codec.contributions.runner import Runner
from retina_codec.errors import RetinaCodecError
from retina_codec.methods.base import Method
from retina_codec.probing.batches import to_point
from retina_codec.probing.inputs import Source

__all__ = ["claim", "retracted_claims"]

LARGE = 0.05  # of the change of the target: an error that is looked into


MOST = 0.5  # of the change of the target: more is no sum at all, for whatever reason


ROUNDING = 1e-3  # of the target


KINKS = 5e-4  # of the summed size of contributions


MOST_INPUTS = 3  # that are looked into


FINER, FINEST = 4, 16  # times the steps, at a first look and at a second, of one input


FEW_STEPS = 50  # of which there is a second look


def claim(runner: Runner, name: str) -> str:
    """Return what the graph of the network says of the completeness of a layer."""
    layer, sums_to = runner.layers[name], runner.plan.method.sums_to
    if not sums_to:
        return f"not defined for {type(runner.plan.method).__name__}"
    if not layer.attached:
        return (
            "not known: no derivatives lead from this layer back to the input (torch.no_grad, "
            "detach or a step without a derivative below it)"
        )
    if layer.cuts:
        return f"holds: contributions sum to {sums_to}"
    return "cannot hold: some path from input to output does not cross this layer"


def retracted_claims(
    runner: Runner, source: Source, read: Callable[[str], np.ndarray]
) -> dict[str, str]:
    """Return claims that replace those that do not hold.

    A sum that is missed by more than half is not reached, whatever the reason. The input with the
    largest error is explained again with more steps; where the error does not fall, and is more
    than rounding, the claim does not hold.

    Parameters
    ----------
    runner : Runner
    source : Source
        All inputs.
    read : callable
        Name of an array to its values over all inputs.

    Returns
    -------
    dict of str to str
        By layer.
    """
    doubts: dict[int, list[str]] = {}
    errors: dict[str, np.ndarray] = {}
    found: dict[str, str] = {}
    for name, layer in runner.layers.items():
        if not (runner.plan.method.sums_to and layer.cuts):
            continue
        error = np.abs(read(f"{name}/completeness_error").astype(float))
        change = np.abs(read(f"{name}/target_change").astype(float))
        share = error.sum() / change.sum() if change.any() else 0.0
        if share > MOST and error.max() > ROUNDING * np.abs(read("target")).max():
            found[name] = _not_reached(runner, share)
        if (error > LARGE * change).any():
            # An input that hardly changes the target has a large share of nothing.
            worst = int((error / (change + np.median(change) / 10 + 1e-30)).argmax())
            doubts.setdefault(worst, []).append(name)
            errors[name] = error
    looked = False
    for number in sorted(doubts, key=lambda n: -len(doubts[n]))[:MOST_INPUTS]:
        steps = int(read("steps")[number]) if runner.plan.method.tolerance is not None else None
        again = _explained_again(runner, source, number, steps)
        left = {name: again.verdict(name, float(errors[name][number])) for name in doubts[number]}
        left = {name: text for name, text in left.items() if text}
        few: int = steps or getattr(runner.plan.method, "steps", None) or FEW_STEPS + 1
        if left and again.finer is not None and few <= FEW_STEPS and not looked:
            looked = True
            # a bend that is narrower than these steps too would look the same
            finest = _explained_again(runner, source, number, steps, times=FINEST)
            left = {name: finest.verdict(name, again.miss[name]) for name in left}
            bent = [name for name, text in left.items() if not text and name not in found]
            shares = {name: errors[name][number] / (again.change or np.inf) for name in bent}
            found |= {name: _not_reached(runner, share) for name, share in shares.items()}
        for name, text in left.items():
            if text:
                sums_to = runner.plan.method.sums_to
                found[name] = f"does not hold: contributions miss {sums_to} {text}"
    return found


def _not_reached(runner: Runner, share: float) -> str:
    """Say that contributions are far from their sum, although more steps may reach it."""
    steps = getattr(runner.plan.method, "steps", None)
    way_out = f"with {steps} steps. Use more, or another baseline" if steps else "here"
    return (
        f"not reached: contributions miss {runner.plan.method.sums_to} by {100 * share:.0f} % "
        f"{way_out}"
    )


@dataclass(frozen=True)
class _Again:
    """The sums of one input, explained again."""

    number: int
    finer: Method | None
    falls_to: float  # share of an error that quadrature may leave
    miss: dict[str, float]
    change: float
    rounding: dict[str, float]

    def verdict(self, name: str, before: float) -> str:
        """Say by how much contributions miss their sum; empty if that is quadrature or rounding."""
        miss = self.miss[name]
        least = max(LARGE / 2 * self.change, self.rounding[name])
        if miss <= least or (self.finer is not None and miss <= self.falls_to * before):
            return ""
        share = f"{100 * miss / self.change:.0f} %" if self.change else "more than its size"
        with_steps = f" with {self.finer.steps} steps" if self.finer is not None else ""  # type: ignore[attr-defined]
        return (
            f"by {share} for input {self.number}{with_steps}: a part of the network has no "
            "derivative, or leads around this layer without one"
        )


def _explained_again(
    runner: Runner, source: Source, number: int, steps: int | None, times: int = FINER
) -> _Again:
    """Explain one input with more steps, or as it was where a method has none."""
    plan = runner.plan
    finer, falls_to = _finer(plan.method, steps, times)
    batch = next(source.part(number, number + 1).batches(1))
    point = runner.plain.enter(to_point(batch, plan.device, plan.dtype))
    units = (finer or plan.method).explain(runner.function, plan.target, point)
    change = float(units.expected[0]) if units.expected is not None else 0.0
    miss, rounding = {}, {}
    for name, values in units.contribution.items():
        wide = values[0].cpu().double()
        miss[name] = abs(float(wide.sum()) - change)
        size = float(wide.abs().sum()) + abs(float(units.value[0]))
        # kinks leave errors that do not fall evenly, of a small share of what the units do
        rounding[name] = max(32 * torch.finfo(plan.dtype).eps, KINKS) * size
        if name in units.standard_error:
            rounding[name] += 4 * float(units.standard_error[name][0])
    return _Again(number, finer, falls_to, miss, abs(change), rounding)


def _finer(method: Method, used: int | None, times: int) -> tuple[Method | None, float]:
    """Return the method with more steps, and to which share an error of quadrature falls then."""
    steps = getattr(method, "steps", None) if used is None else used
    if not is_dataclass(method) or isinstance(steps, bool) or not isinstance(steps, int):
        return None, 1.0
    times = times if steps <= 250 else 2
    changes: dict[str, int | None] = {"steps": times * steps}
    if used is not None:
        changes["tolerance"] = None
    try:
        finer: Method = replace(method, **changes)
    except (RetinaCodecError, TypeError):
        return None, 1.0
    return finer, 0.5 if times >= FINER else 0.8
