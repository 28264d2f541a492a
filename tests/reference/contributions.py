"""Contributions a second time, slowly: straight from the formulas, one unit at a time."""

from collections.abc import Callable

import numpy as np
import torch


def surprisal(response: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> float:
    """½ Σ_ij (y_i − μ_i) Σ⁻¹_ij (y_j − μ_j) + ½ ln det(2πΣ), for one response (cell,)."""
    inverse = np.linalg.inv(covariance)
    total = 0.5 * np.log(np.linalg.det(2 * np.pi * covariance))
    for i in range(len(mean)):
        for j in range(len(mean)):
            deviation_i, deviation_j = response[i] - mean[i], response[j] - mean[j]
            total += 0.5 * deviation_i * inverse[i, j] * deviation_j
    return float(total)


def integrated_gradients(
    below: Callable[[torch.Tensor], torch.Tensor],
    above: Callable[[torch.Tensor], float],
    x: torch.Tensor,
    baseline: torch.Tensor,
    steps: int,
    epsilon: float = 1e-6,
) -> np.ndarray:
    """Integrated gradients of one input in float64, gradients by central differences.

    ``below`` takes an input (...) to the layer's units (channel, ...), ``above`` takes those to F.
    """
    activations, gradients = [], []
    for step in range(steps + 1):
        units = below(baseline + (x - baseline) * step / steps).detach()
        gradient = np.zeros(units.numel())
        for j in range(units.numel()):
            up, down = units.clone().view(-1), units.clone().view(-1)
            up[j] += epsilon
            down[j] -= epsilon
            gradient[j] = (above(up.view_as(units)) - above(down.view_as(units))) / (2 * epsilon)
        activations.append(units.numpy().ravel())
        gradients.append(gradient)
    total = np.zeros_like(gradients[0])
    for step in range(1, steps + 1):
        for j in range(len(total)):
            mean_gradient = (gradients[step - 1][j] + gradients[step][j]) / 2
            total[j] += mean_gradient * (activations[step][j] - activations[step - 1][j])
    return total.reshape(units.shape)


def gradient_by_differences(
    above: Callable[[torch.Tensor], float], units: torch.Tensor, epsilon: float = 1e-6
) -> np.ndarray:
    """∂F/∂h of one input, one unit at a time."""
    gradient = np.zeros(units.numel())
    for j in range(units.numel()):
        up, down = units.clone().view(-1), units.clone().view(-1)
        up[j] += epsilon
        down[j] -= epsilon
        gradient[j] = (above(up.view_as(units)) - above(down.view_as(units))) / (2 * epsilon)
    return gradient.reshape(units.shape)


def act_grad(
    below: Callable[[torch.Tensor], torch.Tensor],
    above: Callable[[torch.Tensor], float],
    x: torch.Tensor,
    baseline: torch.Tensor | None,
) -> np.ndarray:
    """(h − h⁰) g of one input, h⁰ = 0 or h(x′)."""
    units = below(x).detach()
    change = units.numpy() if baseline is None else (units - below(baseline)).numpy()
    return change * gradient_by_differences(above, units)


def input_grad(
    below: Callable[[torch.Tensor], torch.Tensor],
    above: Callable[[torch.Tensor], float],
    x: torch.Tensor,
    baseline: torch.Tensor,
    epsilon: float = 1e-6,
) -> np.ndarray:
    """g Σ_i J_ji (x_i − x′_i) of one input, the derivative along x − x′ by differences."""
    way = x - baseline
    slope = (below(x + epsilon * way) - below(x - epsilon * way)) / (2 * epsilon)
    return slope.numpy() * gradient_by_differences(above, below(x).detach())


def split_by_sign(contributions: np.ndarray) -> np.ndarray:
    """(channel, ...) to (2, channel): negative parts summed over space, then positive ones."""
    result = np.zeros((2, len(contributions)))
    for channel, values in enumerate(contributions):
        for value in np.ravel(values):
            result[1 if value > 0 else 0, channel] += value
    return result
