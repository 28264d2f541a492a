"""Own points of a path a second time, slowly: one input, one unit, one segment at a time."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch

# activations and gradients of every layer, F
Point = tuple[list[np.ndarray], list[np.ndarray], float]


def evaluate(
    layers: Sequence[Callable[[torch.Tensor], torch.Tensor]],
    target: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
) -> Point:
    """h and ∂F/∂h of one input for every layer of a chain; ``target`` takes the last one to F."""
    values, seen = x[None], []
    for layer in layers:
        values = layer(values)
        values = values.detach().requires_grad_() if not values.requires_grad else values
        values.retain_grad()
        seen.append(values)
    value = target(values).sum()
    value.backward()
    gradients = [one.grad for one in seen]
    return (
        [one.detach().numpy().ravel() for one in seen],
        [one.numpy().ravel() for one in gradients if one is not None],
        float(value.detach()),
    )


def segment_error(one: Point, other: Point, change: float, whole: list[float]) -> float:
    """|sum over the layer − ΔF| / |whole ΔF| + 0.3 Σ ½ |Δg Δh| / Σ |C|, of the worst layer."""
    errors = []
    for layer, (h0, g0, h1, g1) in enumerate(zip(one[0], one[1], other[0], other[1], strict=True)):
        total, spread = 0.0, 0.0
        for j in range(len(h0)):
            total += 0.5 * (g0[j] + g1[j]) * (h1[j] - h0[j])
            spread += 0.5 * abs(g1[j] - g0[j]) * abs(h1[j] - h0[j])
        miss = abs(total - (other[2] - one[2]))
        errors.append(miss / abs(change) + 0.3 * spread / whole[layer])
    return max(errors)


def own_places(at: Callable[[float], Point], steps: int, kept: int) -> list[float]:
    """Places of ``steps + 1`` points of the path of one input."""
    places = [0.0, 0.5, 1.0]
    points = {place: at(place) for place in places}
    change = points[1.0][2] - points[0.0][2]
    whole = [float(np.abs(total).sum()) for total in contributions(at, places)]

    def error(a: float, b: float) -> float:
        return segment_error(points[a], points[b], change, whole)

    while len(places) < min(steps + 1, kept):
        places.sort()
        errors = [error(a, b) for a, b in pairwise(places)]
        worst = int(np.argmax(errors))
        middle = (places[worst] + places[worst + 1]) / 2
        points[middle] = at(middle)
        places.append(middle)
    places.sort()
    pairs = list(pairwise(places))
    errors = [error(a, b) for a, b in pairs]
    extra = [0] * len(pairs)
    for _ in range(steps + 1 - len(places)):
        gain = [e / (n + 1) ** 2 - e / (n + 2) ** 2 for e, n in zip(errors, extra, strict=True)]
        extra[int(np.argmax(gain))] += 1
    for (a, b), count in zip(pairs, extra, strict=True):
        places += [a + (b - a) * (k + 1) / (count + 1) for k in range(count)]
    return sorted(places)


def contributions(at: Callable[[float], Point], places: Sequence[float]) -> list[np.ndarray]:
    """``Σ_s ½ (g_{s−1} + g_s)(h_s − h_{s−1})`` of every layer over points in order."""
    before = at(places[0])
    totals = [np.zeros_like(h) for h in before[0]]
    for place in places[1:]:
        here = at(place)
        for layer, total in enumerate(totals):
            change = here[0][layer] - before[0][layer]
            total += 0.5 * (before[1][layer] + here[1][layer]) * change
        before = here
    return totals
