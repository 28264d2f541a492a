"""The retina CNN from its formulas, with loops over cells and no torch modules."""

import numpy as np
from scipy.signal import correlate


def convolution(maps, weight, bias):
    """(in, y, x) and (out, in, k, k) to (out, y', x')."""
    result = []
    for kernel in weight:
        planes = [correlate(m, k, mode="valid") for m, k in zip(maps, kernel, strict=True)]
        result.append(np.sum(planes, axis=0))
    return np.array(result) + (0 if bias is None else bias[:, None, None])


def normalise(values, state, name):
    """Batch norm in evaluation with |scale|, eps 1e-3, over the first axis."""
    shape = (-1,) + (1,) * (values.ndim - 1)
    mean, var, scale, shift = (
        state[f"{name}.{key}"].reshape(shape)
        for key in ("running_mean", "running_var", "scale", "shift")
    )
    return (values - mean) / np.sqrt(var + 1e-3) * np.abs(scale) + shift


def stack(maps, state, name):
    """Apply every small kernel of a stack in turn, or the one large kernel."""
    if f"{name}.weight" in state:
        return convolution(maps, state[f"{name}.weight"], state.get(f"{name}.bias"))
    numbers = sorted({int(key.split(".")[1]) for key in state if key.startswith(f"{name}.")})
    for number in numbers:
        prefix = f"{name}.{number}"
        maps = convolution(maps, state[f"{prefix}.weight"], state.get(f"{prefix}.bias"))
    return maps


def retina_cnn(window, state, locations):
    """(lag, y, x) window and a state of float64 arrays to (cell,) Hz."""
    first = np.maximum(normalise(stack(window, state, "conv1"), state, "norm1"), 0)
    second = np.maximum(normalise(stack(first, state, "conv2"), state, "norm2"), 0)
    third = stack(second, state, "conv3")
    read = np.array([third[cell, row, column] for cell, (row, column) in enumerate(locations)])
    return np.log1p(np.exp(normalise(read, state, "norm3")))
