"""The published networks from their formulas: arrays and loops, no torch modules.

Every layout is written out as the steps of its forward pass, each with the position that its
weights have in the file, and the shapes of these weights.
"""

import numpy as np

from tests.reference.networks import convolution, normalise

# The small networks: 4 frames of 14 × 14 px, 3 and 2 channels, kernels 5, 5, 3, three cells.
MAPS = ((10, 10), (6, 6), (4, 4))


def small_stack(place, inputs, outputs, *, step=2):
    """Two kernels of 3 × 3; between them stands a dropout when ``step`` is 2."""
    return {
        f"{place}.convs.0.weight": (outputs, inputs, 3, 3),
        f"{place}.convs.{step}.weight": (outputs, outputs, 3, 3),
        f"{place}.convs.{step}.bias": (outputs,),
    }


def conv(place, inputs, outputs, size, *, bias=True):
    found = {f"{place}.weight": (outputs, inputs, size, size)}
    return found | ({f"{place}.bias": (outputs,)} if bias else {})


def linear(place, inputs, outputs):
    return {f"{place}.weight": (outputs, inputs)}


def scaled(place, channels):
    names = ("running_mean", "running_var", "scale", "shift")
    return {f"{place}.{name}": (channels,) for name in names}


def batch(place, channels):
    names = ("running_mean", "running_var", "weight", "bias")
    found = {f"{place}.{name}": (channels,) for name in names}
    return found | {f"{place}.num_batches_tracked": ()}


def noise(place):
    return {f"{place}.sigma": (1,)}


# name: model_type, settings, shapes of the weights, steps of the forward pass
_STACKS = small_stack(0, 4, 3) | scaled(1, 3) | noise(2) | small_stack(4, 3, 2) | scaled(5, 2)
_STACKS |= noise(6)
_FIRST = [("stack", 0), ("scaled", 1), "relu", ("stack", 4), ("scaled", 5), "relu"]
_PLAIN = conv(0, 4, 3, 5) | scaled(1, 3) | noise(2) | conv(4, 3, 2, 5) | scaled(5, 2) | noise(6)
_PLAIN_FIRST = [("conv", 0), ("scaled", 1), "relu", ("conv", 4), ("scaled", 5), "relu"]
_CELLS = conv(8, 2, 3, 3, bias=False) | scaled(10, 3)
_READ = [("conv", 8), "read", ("scaled", 10)]
_FLAT = (
    *(conv(0, 4, 3, 5), scaled(2, 300), noise(4)),
    *(conv(6, 3, 2, 5), scaled(8, 72), noise(10)),
)
_FLAT_SHAPES = {key: shape for part in _FLAT for key, shape in part.items()}
_FLAT_STEPS = [
    *(("conv", 0), "flat", ("scaled", 2), ("maps", 3), "relu"),
    *(("conv", 6), "flat", ("scaled", 8), ("maps", 2), "relu"),
]
_D2 = {"bnorm_d": 2, "convgc": True, "stackconvs": True, "drop_p": 0.05}

LAYOUTS = {
    "published": ("VaryModel", _D2, _STACKS | _CELLS, [*_FIRST, *_READ, "softplus"]),
    "no dropout": (
        "LinearStackedBNCNN",
        _D2 | {"drop_p": 0},
        small_stack(0, 4, 3, step=1)
        | scaled(1, 3)
        | noise(2)
        | small_stack(4, 3, 2, step=1)
        | scaled(5, 2)
        | noise(6)
        | _CELLS,
        [*_FIRST, *_READ, "softplus"],
    ),
    "plain": (
        "VaryModel",
        _D2 | {"stackconvs": False},
        _PLAIN | _CELLS,
        [*_PLAIN_FIRST, *_READ, "softplus"],
    ),
    "bias of the cells": (
        "VaryModel",
        _D2 | {"gc_bias": True},
        _STACKS | conv(8, 2, 3, 3) | scaled(10, 3),
        [*_FIRST, *_READ, "softplus"],
    ),
    "linear": (
        "VaryModel",
        _D2 | {"convgc": False},
        _STACKS | linear(9, 72, 3) | scaled(10, 3),
        [*_FIRST, "flat", ("linear", 9), ("scaled", 10), "softplus"],
    ),
    "norm per unit": (
        "VaryModel",
        {"bnorm_d": 1, "convgc": False, "stackconvs": False},
        _FLAT_SHAPES | linear(13, 72, 3) | scaled(14, 3),
        [*_FLAT_STEPS, "flat", ("linear", 13), ("scaled", 14), "softplus"],
    ),
    "norm per unit, readout": (
        "VaryModel",
        {"bnorm_d": 1, "convgc": True, "stackconvs": False},
        _FLAT_SHAPES | conv(12, 2, 3, 3, bias=False) | scaled(14, 3),
        [*_FLAT_STEPS, ("conv", 12), "read", ("scaled", 14), "softplus"],
    ),
    "norm after the activation": (
        "VaryModel",
        _D2 | {"bnaftrelu": True},
        small_stack(0, 4, 3)
        | noise(1)
        | scaled(3, 3)
        | small_stack(4, 3, 2)
        | noise(5)
        | scaled(7, 2)
        | _CELLS,
        [
            *(("stack", 0), "relu", ("scaled", 3), ("stack", 4), "relu", ("scaled", 7)),
            *(*_READ, "softplus"),
        ],
    ),
    "norm per unit after the activation": (
        "VaryModel",
        {"bnorm_d": 1, "convgc": False, "stackconvs": False, "bnaftrelu": True},
        conv(0, 4, 3, 5)
        | noise(1)
        | scaled(4, 300)
        | conv(6, 3, 2, 5)
        | noise(7)
        | scaled(10, 72)
        | linear(13, 72, 3)
        | scaled(14, 3),
        [
            *(("conv", 0), "relu", "flat", ("scaled", 4), ("maps", 3)),
            *(("conv", 6), "relu", "flat", ("scaled", 10), ("maps", 2)),
            *("flat", ("linear", 13), ("scaled", 14), "softplus"),
        ],
    ),
    "last layer stacked": (
        "VaryModel",
        _D2 | {"finalstack": True, "ksizes": [5, 3, 5], "stackconvs": False},
        conv(0, 4, 3, 5)
        | scaled(1, 3)
        | noise(2)
        | conv(4, 3, 2, 3)
        | scaled(5, 2)
        | noise(6)
        | {"8.convs.0.weight": (3, 2, 3, 3), "8.convs.1.weight": (3, 3, 3, 3)}
        | scaled(10, 3),
        [*_PLAIN_FIRST, ("stack", 8), "read", ("scaled", 10), "softplus"],
    ),
    "last kernel of another size": (
        "VaryModel",
        _D2 | {"stack_ksizes": [5, 3, 3], "ksizes": [7, 3, 3], "stackconvs": True},
        {"0.convs.0.weight": (3, 4, 5, 5), "0.convs.2.weight": (3, 3, 3, 3)}
        | {"0.convs.2.bias": (3,)}
        | scaled(1, 3)
        | noise(2)
        | {"4.convs.0.weight": (2, 3, 3, 3), "4.convs.0.bias": (2,)}
        | scaled(5, 2)
        | noise(6)
        | _CELLS,
        [*_FIRST, *_READ, "softplus"],
    ),
    "wide stack": (
        "VaryModel",
        _D2 | {"stack_chans": [6, 5]},
        {"0.convs.0.weight": (6, 4, 3, 3), "0.convs.2.weight": (3, 6, 3, 3)}
        | {"0.convs.2.bias": (3,)}
        | scaled(1, 3)
        | noise(2)
        | {"4.convs.0.weight": (5, 3, 3, 3), "4.convs.2.weight": (2, 5, 3, 3)}
        | {"4.convs.2.bias": (2,)}
        | scaled(5, 2)
        | noise(6)
        | _CELLS,
        [*_FIRST, *_READ, "softplus"],
    ),
    "exponential": (
        "VaryModel",
        _D2 | {"softplus": False},
        _STACKS | _CELLS,
        [*_FIRST, *_READ, "exp"],
    ),
    "exponential in evaluation": (
        "VaryModel",
        _D2 | {"inference_exp": True},
        _STACKS | _CELLS,
        [*_FIRST, *_READ, "softplus", "exp"],
    ),
    "tanh": (
        "VaryModel",
        _D2 | {"activ_fxn": "Tanh"},
        _STACKS | _CELLS,
        [*["tanh" if step == "relu" else step for step in _FIRST], *_READ, "softplus"],
    ),
    "bncnn": (
        "BNCNN",
        {"bnorm_d": 1},
        conv(0, 4, 3, 5)
        | batch(2, 300)
        | noise(4)
        | conv(6, 3, 2, 5)
        | batch(8, 72)
        | noise(10)
        | linear(13, 72, 3)
        | batch(14, 3),
        [
            *(("conv", 0), "flat", ("batch", 2), ("maps", 3), "relu"),
            *(("conv", 6), "flat", ("batch", 8), "relu", ("linear", 13), ("batch", 14)),
            "softplus",
        ],
    ),
    "older bncnn": (
        "BNCNN",
        {"bnorm_d": 1},
        conv(0, 4, 3, 5)
        | batch(2, 300)
        | noise(3)
        | conv(6, 3, 2, 5)
        | batch(8, 72)
        | noise(9)
        | linear(11, 72, 3)
        | batch(12, 3),
        [
            *(("conv", 0), "flat", ("batch", 2), "relu", ("maps", 3)),
            *(("conv", 6), "flat", ("batch", 8), "relu", ("linear", 11), ("batch", 12)),
            "softplus",
        ],
    ),
    "bncnn, norm per channel": (
        "BNCNN",
        {"bnorm_d": 2},
        conv(0, 4, 3, 5)
        | batch(1, 3)
        | noise(2)
        | conv(4, 3, 2, 5)
        | batch(5, 2)
        | noise(6)
        | linear(9, 72, 3)
        | batch(10, 3),
        [
            *(("conv", 0), ("batch", 1), "relu", ("conv", 4), ("batch", 5), "relu"),
            *("flat", ("linear", 9), ("batch", 10), "softplus"),
        ],
    ),
    "retinotopic": (
        "RetinotopicModel",
        _D2,
        _STACKS | conv(8, 2, 3, 3) | scaled(9, 3) | {"11.w": (3, 16)},
        [*_FIRST, ("conv", 8), ("scaled", 9), "softplus", ("places", 11)],
    ),
}


def locations(centers, kernel_sizes, last):
    """Row and column where each cell is read: one less than its centre's, within the map."""
    margin = sum(size // 2 for size in kernel_sizes) + 1
    return [[max(0, min(place - margin, last - 1)) for place in center] for center in centers]


def collapse(kernels):
    """(out, in, k, k) kernels applied one after the other, as one kernel, by its definition."""
    whole = kernels[0].astype(float)
    for step in kernels[1:]:
        size = whole.shape[-1] + step.shape[-1] - 1
        found = np.zeros((len(step), whole.shape[1], size, size))
        for row in range(step.shape[-1]):
            for column in range(step.shape[-1]):
                part = np.einsum("oq,qiuv->oiuv", step[:, :, row, column], whole)
                rows = slice(row, row + whole.shape[-1])
                found[:, :, rows, column : column + whole.shape[-1]] += part
        whole = found
    return whole


def forward(window, state, steps, places=None):
    """One window (lag, y, x) through the steps; state of float64 arrays without the prefix."""
    values = window
    for step in steps:
        what, place = step if isinstance(step, tuple) else (step, None)
        values = _STEPS[what](values, state, place, places)
    return values


def _stack(values, state, place, _):
    keys = [key for key in state if key.startswith(f"{place}.convs.")]
    for number in sorted({int(key.split(".")[2]) for key in keys}):
        name = f"{place}.convs.{number}"
        values = convolution(values, state[f"{name}.weight"], state.get(f"{name}.bias"))
    return values


def _batch(values, state, place, _):
    shape = (-1,) + (1,) * (values.ndim - 1)
    mean, variance, weight, bias = (
        state[f"{place}.{name}"].reshape(shape)
        for name in ("running_mean", "running_var", "weight", "bias")
    )
    return (values - mean) / np.sqrt(variance + 1e-3) * weight + bias


def _places(values, state, place, _):
    weights = state[f"{place}.w"]
    weights = weights - weights.min(1, keepdims=True)
    found = []
    for cell, own in zip(values, weights, strict=True):
        found.append(sum(x * p * own.sum() for x, p in zip(cell.ravel(), own, strict=True)))
    return np.array(found)


_STEPS = {
    "stack": _stack,
    "conv": lambda v, s, p, _: convolution(v, s[f"{p}.weight"], s.get(f"{p}.bias")),
    "scaled": lambda v, s, p, _: normalise(v, s, str(p)),
    "batch": _batch,
    "linear": lambda v, s, p, _: s[f"{p}.weight"] @ v,
    "flat": lambda v, *_: v.ravel(),
    "maps": lambda v, _, channels, __: v.reshape(channels, *MAPS[3 - channels]),
    "relu": lambda v, *_: np.maximum(v, 0),
    "tanh": lambda v, *_: np.tanh(v),
    "softplus": lambda v, *_: np.log1p(np.exp(v)),
    "exp": lambda v, *_: np.exp(v),
    "read": lambda v, _, __, places: np.array([v[c, y, x] for c, (y, x) in enumerate(places)]),
    "places": _places,
}
