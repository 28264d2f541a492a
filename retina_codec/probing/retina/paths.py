"""Where a path through the retina network is evaluated, and its third layer along the path.

Notation: S steps, N = S·SHARES parts of steps, n cells, b windows, α share of the path; z third
layer before softplus, F target, ∂F/∂h gradient at the layer's output.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from retina_codec.networks.retina.fourier import inward, outward
from retina_codec.probing.points import Bound, Evaluation, differentiate

__all__ = [
    "Top",
    "between",
    "by_chords",
    "by_trapezoid",
    "half_changes",
    "lean_of",
    "points_of",
    "pull_of",
    "shares_of_steps",
    "weights_of_differences",
]

Floats = npt.NDArray[np.float64]

SHARES = 3  # parts of a step for chords: maps of the second layer between nodes are interpolated
FINE = 2  # parts of these for rates; their gradient is interpolated
STRETCH = 16  # steps that one matrix divides
LEAN = 1.5  # how far a window's points follow the bends of its path; 0 is even, below 2 in order


class Top(NamedTuple):
    """Results of the last layer that the layers below need."""

    contribution: torch.Tensor  # (n, b)
    pulls: torch.Tensor  # ∂F/∂h, (S + 1, n, b) at nodes or (N, n, b) in parts of steps
    at_end: Evaluation
    at_begin: Evaluation


def between(values: torch.Tensor, parts: int) -> torch.Tensor:
    """Divide steps in ``parts``: values ``(s, ...)`` on cubics through the four nearest ones."""
    steps, rest = len(values) - 1, values.shape[1:]
    found = []
    for start in range(0, steps, STRETCH):  # a matrix of all would grow with the square of steps
        matrix, low = _cubics(steps, start, min(start + STRETCH, steps), parts)
        nodes = values[low : low + matrix.shape[1]].flatten(1)
        found.append((torch.as_tensor(matrix).to(values) @ nodes).view(-1, *rest))
    return found[0] if len(found) == 1 else torch.cat(found)


@lru_cache(maxsize=512)
def _cubics(steps: int, start: int, stop: int, parts: int) -> tuple[Floats, int]:
    """Return the matrix from values at some nodes to places of some steps, and the first node."""
    width = min(3, steps)
    low, high = max(min(start - 1, steps - width), 0), min(max(stop + 1, width), steps)
    count = (stop - start) * parts + (stop == steps)  # the last place is given once
    matrix: Floats = np.zeros((count, high - low + 1))
    for row, counted in enumerate(range(start * parts, start * parts + count)):
        first = min(max(counted // parts - 1, 0), steps - width) - low
        nodes = range(first, first + width + 1)
        for node in nodes:
            factors = [
                (counted - parts * (low + k)) / (node - k) / parts for k in nodes if k != node
            ]
            matrix[row, node] = np.prod(factors)
    return matrix, low


def lean_of(first: torch.Tensor, way: torch.Tensor) -> torch.Tensor:
    """Return how far each window's points lean towards its beginning, ``(b,)``.

    A unit of the first layer, z = first + α·way, bends the path by ``|way|`` where it crosses its
    threshold, ``α = −first / way``. With β the mean of these places: ``LEAN (½ − β)``.
    """
    place = -first / way
    inside = (place > 0) & (place < 1)
    bend = torch.where(inside, way.abs(), 0).flatten(0, -2)
    place = torch.where(inside, place - 0.5, 0).flatten(0, -2)
    total = bend.sum(0).clamp_min(torch.finfo(way.dtype).tiny)
    return -LEAN * (bend * place).sum(0) / total


def points_of(steps: int, lean: torch.Tensor) -> torch.Tensor:
    """Return ``α = u − lean·u (1 − u)`` at ``u = s / steps``, ``(steps + 1, b)``."""
    u = torch.linspace(0, 1, steps + 1, dtype=lean.dtype, device=lean.device)[:, None]
    return u - lean * u * (1 - u)


def shares_of_steps(steps: int, lean: torch.Tensor) -> torch.Tensor:
    """Return which share of its step each part is, ``(N, 1, b)``."""
    lengths = points_of(steps * SHARES, lean).diff(dim=0).view(steps, SHARES, 1, -1)
    return (lengths / lengths.sum(1, keepdim=True)).flatten(0, 1)


def weights_of_differences(nodes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weights of ``ḡ_{s+1} − ḡ_s`` in ½ g′ of steps s and s + 1, ``(S − 1, b)`` each.

    g′ is a mean of both differences next to a step, in which the nearer one counts more.
    """
    middles = (nodes[1:] + nodes[:-1]) / 2
    gaps = middles.diff(dim=0)
    earlier, later = (0.5 / gaps for _ in range(2))
    share = gaps[1:] / (gaps[1:] + gaps[:-1])  # of the difference before a step
    earlier[1:] *= 1 - share
    later[:-1] *= share
    return earlier, later


def by_trapezoid(
    z: torch.Tensor,
    begins: int,
    scale: torch.Tensor,
    rates_of: Callable[[torch.Tensor], torch.Tensor],
    pull_at: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]],
) -> Top:
    """Integrate the third layer, z ``(S + 1, n, b)``, by the trapezoid."""
    rates = rates_of(z)
    pull, ends = _pulls(rates, begins, pull_at)
    gradient = pull * z.sigmoid()
    return Top((gradient * half_changes(z)).sum(0), gradient * scale, *ends)


def by_chords(
    z: torch.Tensor,
    begins: int,
    scale: torch.Tensor,
    rates_of: Callable[[torch.Tensor], torch.Tensor],
    pull_at: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]],
) -> Top:
    """Integrate the third layer, z ``(N + 1, n, b)``, behind its softplus."""
    pull, ends = _pulls(rates_of(z), begins, pull_at)
    z, pull = between(z, FINE), between(pull, FINE)
    total = (_means(pull) * rates_of(z).diff(dim=0)).sum(0)
    means = _means(pull * z.sigmoid() * scale)
    return Top(total, means.view(-1, FINE, *means.shape[1:]).mean(1), *ends)


def _pulls(
    rates: torch.Tensor,
    begins: int,
    pull_at: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]],
) -> tuple[torch.Tensor, tuple[Evaluation, Evaluation]]:
    """Return ∂F/∂rates ``(place, n, b)`` and what is known at the end and at the beginning."""
    pulls, ends = torch.empty_like(rates), []
    for place in range(len(rates) - 1, -1, -1):  # the target decides at the end
        here = outward(rates[place] if place else rates[0, :, :begins]).contiguous()
        value, pull = pull_at(here)
        pulls[place] = inward(pull)
        ends.append(Evaluation(value, here, {}, {}))
    return pulls, (ends[0], ends[-1])


def pull_of(
    rates: torch.Tensor, target: Bound, layers: Sequence[str]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return F, ``(b,)``, and its gradient with respect to rates, ``(b, cell)``."""
    with torch.enable_grad():
        leaf = rates.detach().requires_grad_()
        found = differentiate(leaf, target, dict.fromkeys(layers, leaf))
    return found.value, found.gradient[layers[0]]


def half_changes(z: torch.Tensor) -> torch.Tensor:
    """Return ``½ (z_{s+1} − z_{s−1})`` along the first axis, at the ends one-sided."""
    changes = torch.empty_like(z)
    torch.sub(z[2:], z[:-2], out=changes[1:-1])
    torch.sub(z[1], z[0], out=changes[0])
    torch.sub(z[-1], z[-2], out=changes[-1])
    return changes.mul_(0.5)


def _means(values: torch.Tensor) -> torch.Tensor:
    return (values[1:] + values[:-1]) / 2
