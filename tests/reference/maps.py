"""Maps in input space a second time, slowly: one unit, one path point and one pass at a time."""

from collections.abc import Callable

import numpy as np
import torch

Below = Callable[[torch.Tensor], torch.Tensor]
Above = Callable[[torch.Tensor], torch.Tensor]


def jacobian(below: Below, x: torch.Tensor) -> torch.Tensor:
    """∂h_j/∂x_i of one input, (unit, ...input), by one backward pass per unit."""
    rows = []
    for unit in range(below(x).numel()):
        leaf = x.clone().requires_grad_()
        (row,) = torch.autograd.grad(below(leaf).reshape(-1)[unit], leaf)
        rows.append(row)
    return torch.stack(rows)


def gradient(above: Above, units: torch.Tensor) -> torch.Tensor:
    """∂F/∂h_j of one input, (unit,)."""
    leaf = units.detach().clone().requires_grad_()
    (found,) = torch.autograd.grad(above(leaf), leaf)
    return found.reshape(-1)


def input_grad(below: Below, above: Above, x: torch.Tensor, start: torch.Tensor) -> np.ndarray:
    """C_ij = (x_i − x′_i) g_j J_ji, (unit, ...input)."""
    rows, slopes = jacobian(below, x), gradient(above, below(x))
    return np.stack([((x - start) * g * row).numpy() for g, row in zip(slopes, rows, strict=True)])


def act_grad(
    below: Below, above: Above, x: torch.Tensor, start: torch.Tensor, steps: int
) -> np.ndarray:
    """C_ij = g_j(x) (x_i − x′_i) ∫ J_ji dα by the trapezoid, (unit, ...input)."""
    slopes, total = gradient(above, below(x)), None
    for step in range(steps + 1):
        weight = (0.5 if step in (0, steps) else 1.0) / steps
        rows = jacobian(below, start + (x - start) * step / steps) * weight
        total = rows if total is None else total + rows
    return np.stack([((x - start) * g * row).numpy() for g, row in zip(slopes, total, strict=True)])


def integrated_gradients(
    below: Below, above: Above, x: torch.Tensor, start: torch.Tensor, steps: int
) -> np.ndarray:
    """C_ij = (x_i − x′_i) ∫ g_j J_ji dα by the trapezoid, (unit, ...input)."""
    total = None
    for step in range(steps + 1):
        weight = (0.5 if step in (0, steps) else 1.0) / steps
        point = start + (x - start) * step / steps
        slopes = gradient(above, below(point))
        rows = [g * row * weight for g, row in zip(slopes, jacobian(below, point), strict=True)]
        total = rows if total is None else [a + b for a, b in zip(total, rows, strict=True)]
    return np.stack([((x - start) * row).numpy() for row in total])
