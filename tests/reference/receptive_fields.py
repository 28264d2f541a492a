"""Receptive fields the slow way: one pixel moved at a time, one SVD at a time."""

from collections.abc import Callable

import numpy as np
import torch


def finite_difference_fields(
    network: Callable[[torch.Tensor], torch.Tensor], window: torch.Tensor, step: float
) -> np.ndarray:
    """Central differences of every rate by every pixel: (cell, lag, y, x). Use float64."""
    shape = tuple(window.shape)
    columns = []
    with torch.no_grad():
        for index in np.ndindex(*shape):
            moved = torch.zeros_like(window)
            moved[index] = step
            high, low = network((window + moved)[None])[0], network((window - moved)[None])[0]
            columns.append(((high - low) / (2 * step)).numpy())
    return np.stack(columns, axis=-1).reshape(-1, *shape)


def rank_one_by_svd(field: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """First singular pair of one field (lag, y, x) minus its mean, in the documented sign."""
    matrix = (field - field.mean()).reshape(len(field), -1)
    left, size, right = np.linalg.svd(matrix, full_matrices=False)
    temporal, spatial = left[:, 0], size[0] * right[0]
    peak = matrix[np.unravel_index(np.abs(matrix).argmax(), matrix.shape)[0]]
    if np.corrcoef(spatial, peak)[0, 1] < 0:
        temporal, spatial = -temporal, -spatial
    return spatial.reshape(field.shape[1:]), temporal, size[0] ** 2 / (size**2).sum()


def split_field_by_units(
    below: Callable[[torch.Tensor], torch.Tensor],
    above: Callable[[torch.Tensor], torch.Tensor],
    window: torch.Tensor,
    shares: torch.Tensor,
) -> np.ndarray:
    """Sum over units, one at a time: (cell, part, lag, y, x), shares (part, unit). Use float64."""
    rows = torch.autograd.functional.jacobian(lambda w: below(w[None])[0], window)
    units = below(window[None])[0].detach()
    slopes = torch.autograd.functional.jacobian(lambda h: above(h[None])[0], units)
    total = np.zeros((len(slopes), len(shares), *window.shape))
    for unit in range(len(units)):
        for cell, part in np.ndindex(len(slopes), len(shares)):
            weight = float(shares[part, unit] * slopes[cell, unit])
            total[cell, part] += weight * rows[unit].numpy()
    return total
