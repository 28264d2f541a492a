"""Check before long work that a network treats every input on its own, and always the same.

The first input is run again, and once between others.
"""

import random
import warnings
from typing import Any

import numpy as np
import torch

from retina_codec.errors import RecordingWarning, RetinaCodecError
from retina_codec.probing.batches import Batch, batch_length, map_tensors, tensors_of, to_point
from retina_codec.probing.hooks import HookedFunction
from retina_codec.probing.inputs import Source
from retina_codec.probing.survey import find_class_axis

__all__ = ["check_network"]

RARE = 16  # evaluations that must agree, where random numbers are drawn


# Relative to the largest output: rounding differs between batch sizes and kernels.
ROUNDING = {torch.float64: 1e-7, torch.float32: 1e-3}


def check_network(
    function: HookedFunction,
    source: Source,
    device: torch.device,
    dtype: torch.dtype,
    *,
    batch_size: int,
    classes: bool = False,
    follows_path: bool = True,
) -> None:
    """Check that a network can be explained on its inputs.

    Parameters
    ----------
    function : HookedFunction
    source : Source
    device, dtype
        Of the inputs when they are run.
    batch_size : int
        With 1, inputs are never beside each other.
    classes : bool
        Whether the target takes the last axis of outputs ``(b, token, n)`` for classes.
    follows_path : bool
        Whether a path, a baseline or noise is needed, so that it must be known where it leads.

    Raises
    ------
    RetinaCodecError
        If two evaluations of one input differ; if its output depends on the input beside it; if
        classes are not the last axis, or that is not known; if it is not known which inputs a path
        leads through.

    Warns
    -----
    RecordingWarning
        If random numbers are drawn without being seen in the output, or padding that depends on
        the batch is.
    """
    if follows_path and function.entry.doubt:
        raise RetinaCodecError(function.entry.doubt)
    first = to_point(next(source.part(0, 1).batches(1)), device, dtype)
    point = function.enter(first)
    before = _random_state(device)
    alone = function.outputs(point)
    drawn = _random_state(device) != before
    _check_rows(alone, 1)
    for _ in range(RARE if drawn else 1):
        _check_same(alone, function.outputs(point), drawn)
    if drawn:
        warnings.warn(
            "the network draws random numbers in evaluation mode. Evaluations of the first input "
            "agree; where others do not, results are those of chance. Look for F.dropout(...) "
            "without training=self.training.",
            RecordingWarning,
            stacklevel=4,
        )
    if batch_size > 1:
        _check_beside(function, source, first, alone, batch_size)
    if classes and alone.ndim == 3:
        _check_classes(function, point, alone)


def _check_rows(outputs: torch.Tensor, count: int) -> None:
    if len(outputs) != count:
        only = "" if count == 1 else " Use batch_size=1, or one output per input."
        raise RetinaCodecError(
            "the network must return one row for every input, (batch, ...); for "
            f"{count} input{'s' if count > 1 else ''} it returned {tuple(outputs.shape)}.{only}"
        )


def _check_same(alone: torch.Tensor, again: torch.Tensor, drawn: bool) -> None:
    """Compare two evaluations of one input."""
    apart = _difference(alone, again)
    if not apart:
        return
    reason = (
        "It draws random numbers in evaluation mode: F.dropout(...) without "
        "training=self.training, say. Switch them off in its forward()"
        if drawn
        else "It keeps something from call to call, or draws random numbers of its own. Reset that "
        "at the start of its forward()"
    )
    raise RetinaCodecError(
        f"the network must give the same output for the same input; two evaluations of the first "
        f"input differ by {apart}. {reason}."
    )


def _check_beside(
    function: HookedFunction, source: Source, first: Batch, alone: torch.Tensor, batch_size: int
) -> None:
    """Compare the first input alone and between others."""
    device, dtype = tensors_of(first)[0].device, None
    for values in tensors_of(first):
        dtype = values.dtype if values.is_floating_point() else dtype
    other, padded = map_tensors(_other, first), False
    if len(source) > 1:
        two = to_point(next(source.part(0, 2).batches(2)), device, dtype or torch.float32)
        if batch_length(two) == 2:
            padded = not _equal(map_tensors(lambda v: v[:1], two), first)
            second = map_tensors(lambda v: v[1:], two)
            other = second if padded or not _equal(second, first) else other
            first = map_tensors(lambda v: v[:1], two)
    # In the middle: outputs may depend on the inputs before or after them.
    batch = map_tensors(lambda a, b: torch.cat([a, b, a]), other, first)
    try:
        together = function.outputs(function.enter(batch))
    except RetinaCodecError:
        raise
    except (RuntimeError, ValueError, IndexError, TypeError, AssertionError) as error:
        raise RetinaCodecError(
            f"the network runs on one input, but not on several ({type(error).__name__}: "
            f"{(str(error).splitlines() or [''])[0]}). Use batch_size=1."
        ) from error
    _check_rows(together, 3)
    if padded:
        _warn_of_padding(alone, together[1:2])
        return
    if together.shape[1:] != alone.shape[1:]:
        raise RetinaCodecError(
            "the output of an input must not depend on the inputs beside it; of the first it has "
            f"the shape {tuple(alone.shape[1:])} alone and {tuple(together.shape[1:])} beside "
            "another (products across the batch?). Use batch_size=1, or an output per input."
        )
    apart = _difference(alone, together[1:2])
    if apart:
        raise RetinaCodecError(
            "the output of an input must not depend on the inputs beside it; of the first it "
            f"changes by {apart} when another stands beside it (normalisation by the batch, such "
            "as BatchNorm with track_running_stats=False, or attention across it). Use "
            f"batch_size=1 instead of {batch_size}, or layers that treat every input on its own."
        )


def _warn_of_padding(alone: torch.Tensor, together: torch.Tensor) -> None:
    """Say that padding, which differs from batch to batch, changes the output."""
    same_shape = alone.shape == together.shape
    apart = _difference(alone, together) if same_shape else ""
    if apart:
        warnings.warn(
            "the loader changes the first input with the inputs beside it (padding to the longest "
            f"of a batch?), and the network's output with it, by {apart}: results depend on "
            "batch_size. Pad all inputs to one length, or give the network a mask.",
            RecordingWarning,
            stacklevel=5,
        )


def _check_classes(function: HookedFunction, point: Batch, outputs: torch.Tensor) -> None:
    """Refuse outputs whose last axis are no classes, or may be none."""
    if function.network.class_axis is not None:
        return
    axis = find_class_axis(function.network, point)
    if axis == 2:
        return
    shape = ("batch", *outputs.shape[1:])
    found = (
        "the network does not tell which axis are its classes"
        if axis is None
        else f"the network puts its classes on axis {axis}, as convolutions do"
    )
    raise RetinaCodecError(
        "this target needs outputs (batch, class) or (batch, token, class); got "
        f"{shape}, and {found}. Say which axis of the outputs they are: adapt(network, ..., "
        f"class_axis={axis or 2}) (the target is then that of the last place of the other axis), "
        "or give a function of the outputs as target."
    )


def _difference(one: torch.Tensor, other: torch.Tensor) -> str:
    """Say how far apart outputs are; empty if no further than rounding."""
    if one.shape != other.shape:
        return f"their shape, {tuple(one.shape)} and {tuple(other.shape)}"
    known = torch.isfinite(one) & torch.isfinite(other)
    if not bool((known | (one.isnan() & other.isnan()) | (one == other)).all()):
        return "numbers that are not finite"
    if not bool(known.any()):
        return ""
    largest = float(one[known].abs().max())
    most = float((one - other)[known].abs().max())
    if most <= ROUNDING.get(one.dtype, 5e-2) * largest:
        return ""
    return f"{most:.2g} (the largest output is {largest:.2g})"


def _other(values: torch.Tensor) -> torch.Tensor:
    """Return another input, in the same range: half as bright, or in another order of words."""
    if values.is_floating_point():
        return torch.where(values == 0, torch.ones_like(values), values / 2)
    return values.roll(1, -1) if values.ndim > 1 else values


def _equal(one: Batch, other: Batch) -> bool:
    parts = zip(tensors_of(one), tensors_of(other), strict=True)
    return all(a.shape == b.shape and torch.equal(a, b) for a, b in parts)


def _random_state(device: torch.device) -> tuple[Any, ...]:
    """Return the state of the generators that networks draw from."""
    found = [torch.get_rng_state()]
    if device.type == "cuda":
        found.append(torch.cuda.get_rng_state(device))
    _, words, place, *_ = np.random.get_state()  # noqa: NPY002
    state = (tuple(part.numpy().tobytes() for part in found), words.tobytes(), place)
    return (*state, random.getstate())
