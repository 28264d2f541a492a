"""Check before long work that a network treats every input on its own, and always the same.

The first input is run alone and between others; where it differs it is run again, to say why.
"""

import pickle
import random
import warnings

import numpy as np
import torch

from retina_codec.errors import RecordingWarning, RetinaCodecError
from retina_codec.probing.batches import Batch, batch_length, map_tensors, tensors_of, to_point
from retina_codec.probing.hooks import HookedFunction
from retina_codec.probing.points import Layers
from retina_codec.probing.sources import Source

__all__ = ["check_network"]

RARE = 16  # evaluations that must agree, where random numbers are drawn


# Relative to the largest value: rounding differs between batch sizes and kernels.
ROUNDING = {torch.float64: 1e-8, torch.float32: 1e-4}


COARSE = 2e-3  # on GPUs, which round factors of single precision to 10 bits


OUTPUT = "output"


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
    alone = _look(function, point)
    drawn = _random_state(device) != before
    _check_rows(alone[OUTPUT], 1)
    beside = batch_size > 1
    # Between others the first input is run a second time: where both agree, a third says no more.
    for _ in range(RARE if drawn else 0 if beside else 1):
        _check_same(alone, _look(function, point), drawn)
    if drawn:
        warnings.warn(
            "the network draws random numbers in evaluation mode. Evaluations of the first input "
            "agree; where others do not, results are those of chance. Look for F.dropout(...) "
            "without training=self.training.",
            RecordingWarning,
            stacklevel=4,
        )
    if beside:
        _check_beside(function, source, first, alone, drawn, batch_size)
    if classes and alone[OUTPUT].ndim == 3:
        _check_classes(function, alone[OUTPUT])


def _look(function: HookedFunction, point: Batch) -> Layers:
    """Return the output and all layers of one run."""
    seen: Layers = {}

    def see(name: str, values: torch.Tensor) -> None:
        seen[f"layer {name!r}"] = values.detach().clone()

    with torch.no_grad(), function.watched(see):
        output = function.network.call(point)
    return {OUTPUT: output, **seen}


def _check_rows(outputs: torch.Tensor, count: int) -> None:
    if len(outputs) != count:
        only = "" if count == 1 else " Use batch_size=1, or one output per input."
        raise RetinaCodecError(
            "the network must return one row for every input, (batch, ...); for "
            f"{count} input{'s' if count > 1 else ''} it returned {tuple(outputs.shape)}.{only}"
        )


def _check_same(alone: Layers, again: Layers, drawn: bool) -> None:
    """Compare two evaluations of one input."""
    apart = _differences(alone, again)
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
        "the network must give the same numbers for the same input; two evaluations of the first "
        f"input differ: {apart}. {reason}."
    )


def _check_beside(
    function: HookedFunction,
    source: Source,
    first: Batch,
    alone: Layers,
    drawn: bool,
    batch_size: int,
) -> None:
    """Compare the first input alone and between others."""

    def check_same() -> None:
        if not drawn:  # else it was run often enough
            _check_same(alone, _look(function, function.enter(whole)), drawn)

    whole = first
    device, dtype = tensors_of(first)[0].device, None
    for values in tensors_of(first):
        dtype = values.dtype if values.is_floating_point() else dtype
    other, padded = map_tensors(_other, first), False
    if len(source) > 1:
        last = next(source.part(len(source) - 1, len(source)).batches(1))
        last = to_point(last, device, dtype or torch.float32)
        other = last if _differ(last, first) else other
        two = to_point(next(source.part(0, 2).batches(2)), device, dtype or torch.float32)
        if batch_length(two) == 2:
            one, second = (map_tensors(lambda v, k=k: v[k : k + 1], two) for k in (0, 1))
            padded = not _equal(one, first)
            other, first = (second if padded or _differ(second, first) else other), one
    # In the middle: what an input gives may depend on the inputs before or after it.
    batch = map_tensors(lambda a, b: torch.cat([a, b, a]), other, first)
    try:
        together = _look(function, function.enter(batch))
    except RetinaCodecError:
        raise
    except (RuntimeError, ValueError, IndexError, TypeError, AssertionError) as error:
        raise RetinaCodecError(
            f"the network runs on one input, but not on several ({type(error).__name__}: "
            f"{(str(error).splitlines() or [''])[0]}). Use batch_size=1."
        ) from error
    _check_rows(together[OUTPUT], 3)
    shapes = [tuple(values[OUTPUT].shape[1:]) for values in (alone, together)]
    if padded:
        check_same()
        _warn_of_padding(_differences(alone, _row(together, 1)) if shapes[0] == shapes[1] else "")
        return
    if shapes[0] != shapes[1]:
        check_same()
        raise RetinaCodecError(
            "the output of an input must not depend on the inputs beside it; of the first it has "
            f"the shape {shapes[0]} alone and {shapes[1]} beside another (products across the "
            "batch?). Use batch_size=1, or an output per input."
        )
    apart = _differences(alone, _row(together, 1))
    if apart:
        check_same()
    # One input may be blind to what changes the other.
    apart = apart or _differences(_look(function, function.enter(other)), _row(together, 0))
    if apart:
        raise RetinaCodecError(
            "what an input gives must not depend on the inputs beside it; when another stands "
            f"beside it, it changes: {apart} (normalisation by the batch, such as BatchNorm with "
            "track_running_stats=False, or attention across it). Use batch_size=1 instead of "
            f"{batch_size}, or layers that treat every input on its own."
        )


def _row(seen: Layers, number: int) -> Layers:
    """Return one of three inputs, of layers that have a row for each."""
    return {name: v[number : number + 1] for name, v in seen.items() if len(v) == 3}


def _warn_of_padding(apart: str) -> None:
    """Say that padding, which differs from batch to batch, changes the output."""
    if apart:
        warnings.warn(
            "the loader changes the first input with the inputs beside it (padding to the longest "
            f"of a batch?), and what the network makes of it: {apart}. Results depend on "
            "batch_size. Pad all inputs to one length, or give the network a mask.",
            RecordingWarning,
            stacklevel=5,
        )


def _check_classes(function: HookedFunction, outputs: torch.Tensor) -> None:
    """Refuse outputs whose last axis are no classes, or may be none."""
    if function.network.class_axis is not None:
        return
    axis = function.class_axis
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


def _differences(one: Layers, other: Layers) -> str:
    """Say where two runs are further apart than rounding; empty if nowhere."""
    for name, values in one.items():
        if name in other and other[name].shape == values.shape:
            apart = _difference(values, other[name])
            if apart:
                return f"the {name} by {apart}"
    return ""


def _difference(one: torch.Tensor, other: torch.Tensor) -> str:
    """Say how far apart values are; empty if no further than rounding."""
    known = torch.isfinite(one) & torch.isfinite(other)
    if not bool((known | (one.isnan() & other.isnan()) | (one == other)).all()):
        return "numbers that are not finite"
    if not bool(known.any()):
        return ""
    largest = float(one[known].abs().max())
    most = float((one - other)[known].abs().max())
    share = ROUNDING.get(one.dtype, 5e-2)
    if one.device.type != "cpu":
        share = max(share, COARSE)
    if most <= share * largest:
        return ""
    return f"{most:.2g} (the largest is {largest:.2g})"


def _other(values: torch.Tensor) -> torch.Tensor:
    """Return another input in the same range, half as bright; words stay, for all fit them."""
    if not values.is_floating_point():
        return values
    return torch.where(values == 0, torch.ones_like(values), values / 2)


def _differ(one: Batch, other: Batch) -> bool:
    """Whether inputs of one shape are not the same."""
    parts = zip(tensors_of(one), tensors_of(other), strict=True)
    return all(a.shape == b.shape for a, b in parts) and not _equal(one, other)


def _equal(one: Batch, other: Batch) -> bool:
    parts = zip(tensors_of(one), tensors_of(other), strict=True)
    return all(a.shape == b.shape and torch.equal(a, b) for a, b in parts)


def _random_state(device: torch.device) -> tuple[bytes, ...]:
    """Return the state of the generators that networks draw from."""
    found = [torch.get_rng_state()]
    if device.type == "cuda":
        found.append(torch.cuda.get_rng_state(device))
    others = pickle.dumps((np.random.get_state(), random.getstate()))  # noqa: NPY002
    return *(part.numpy().tobytes() for part in found), others
