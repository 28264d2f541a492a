"""Sparsity after the mean over inputs is subtracted, and the share of this mean.

Notation: n inputs, v_i (d,) channels of input i, v̄ their mean over inputs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp, lgamma, pi, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.analysis.layers.sparsity import hoyer
from retina_codec.storage.results import input_dim, layer_dataset, read_quantities

__all__ = ["VaryingPart", "constant_shares", "gather_varying", "normal_sparsity"]

Floats = npt.NDArray[np.float64]

ROUNDING = 1e-12  # smaller deviations, as a share of the mean, are rounding errors


@dataclass
class VaryingPart:
    """What `gather_varying` found in a layer."""

    sparsity: Floats  # (input, quantity): Hoyer of v_i − v̄
    along: Floats  # (input, quantity): v_i · v̄; its mean over inputs is ‖v̄‖²
    size: Floats  # (input, quantity): ‖v_i‖²


def gather_varying(tree: xr.DataTree, name: str, means: Mapping[str, Floats]) -> VaryingPart:
    """Subtract the mean over inputs from every input of a layer, and measure the rest.

    Hoyer of ``v_i − v̄``, v̄ (channel,) in ``means`` by quantity; NaN for inputs that equal the
    mean in every channel (within rounding), or hold NaN. That v̄ includes input i does not matter:
    ``v_i − v̄`` is ``(n − 1) / n`` times the deviation from the mean of the others, and Hoyer is
    scale-invariant.

    v̄ has an error, a share of 1 / n of the variance, and few inputs of which each drives other
    channels leave many means at exactly 0. Sparsity then comes out too high: 64 channels of which
    each input drives 3 % (10 %) have 0.58 (0.56), and with 40 inputs 0.69 (0.58), with 100 0.64
    (0.57), with 1000 0.58 (0.56).
    """
    layer = layer_dataset(tree, name)
    inputs = int(layer.sizes[input_dim(layer["contribution"])])
    sparsity, along, size = (np.empty((inputs, len(means))) for _ in range(3))
    for part, chunk in read_quantities(layer):
        for number, (quantity, mean) in enumerate(means.items()):
            values = chunk[quantity]
            rest = values - mean
            rest[np.abs(rest) <= ROUNDING * np.abs(mean)] = 0.0
            sparsity[part, number] = hoyer(rest)
            along[part, number] = values @ mean
            size[part, number] = np.square(values).sum(axis=1)
    return VaryingPart(sparsity, along, size)


def constant_shares(found: list[VaryingPart], block: int = 1) -> dict[str, Any]:
    """Return the share of the mean over inputs in the squared size, ``‖v̄‖² / mean_i ‖v_i‖²``.

    With its error and interval (± 1.96 errors), as variables (layer, quantity[, bound]). 0: v̄ is
    zero; 1: all inputs are the same. n inputs without any common part have about 1 / n. NaN where
    all inputs are zero. Errors are those of the ratio's first order, over blocks of ``block``
    inputs: input i moves it by ``(2 (v_i·v̄ − ‖v̄‖²) − share (‖v_i‖² − mean ‖v‖²)) / (n mean
    ‖v‖²)``.
    """
    along, size = (
        np.stack([getattr(one, name) for one in found], 1) for name in ("along", "size")
    )  # (input, layer, quantity)
    fine = np.isfinite(along) & np.isfinite(size)
    along, size = np.where(fine, along, 0.0), np.where(fine, size, 0.0)
    count = fine.sum(axis=0)
    blocks = -(-len(along) // block)
    with np.errstate(divide="ignore", invalid="ignore"):  # 0 / 0 is NaN, as it should be
        middle, whole = along.sum(axis=0) / count, size.sum(axis=0) / count
        share = middle / whole
        moved = (2 * (along - middle) - share * (size - whole)) / (count * whole)
        sums = np.add.reduceat(np.where(fine, moved, 0.0), np.arange(0, len(along), block), axis=0)
        error = np.sqrt(np.square(sums).sum(axis=0) * blocks / (blocks - 1))
    error = np.where(np.isfinite(share), error, np.nan)
    units = {"units": "1"}
    dims = ("layer", "quantity")
    ends = np.stack([share - 1.96 * error, share + 1.96 * error], -1)
    about = units | {"long_name": "share of the squared size that is the same for every input"}
    return {
        "constant_share": (dims, share, about),
        "constant_share_sem": (dims, error, units),
        "constant_share_interval": ((*dims, "bound"), ends, units),
    }


def normal_sparsity(channels: int) -> float:
    """Return the mean Hoyer sparsity of d independent normal numbers of one variance.

    ``(√d − E) / (√d − 1)`` with ``E = d Γ(d/2) / (√π Γ((d + 1)/2))``, the mean of ‖v‖₁/‖v‖₂;
    about 0.2 for many channels. NaN for one.
    """
    if channels < 2:
        return float("nan")
    ratio = channels * exp(lgamma(channels / 2) - lgamma((channels + 1) / 2)) / sqrt(pi)
    return (sqrt(channels) - ratio) / (sqrt(channels) - 1)
