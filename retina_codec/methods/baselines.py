"""Baselines x′: the inputs without a signal, at which paths start."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.networks.embeddings import input_name
from retina_codec.probing.batches import Batch, map_tensors, tensors_of

__all__ = [
    "Baseline",
    "check_baseline",
    "count_baselines",
    "names_inputs",
    "prepare_baseline",
    "resolve_baselines",
]

Baseline = Any
"""A number, one input ``(...)`` as tensor, array or DataArray (or a dict of these by name), the
word "mean" (mean of the inputs explained), or a list of several of these, over which contributions
are averaged."""


def check_baseline(baseline: Baseline) -> None:
    """Validate a baseline, as far as possible before the inputs are known."""
    for one in _several(baseline):
        if isinstance(one, str):
            if one != "mean":
                raise RetinaCodecError(
                    "a baseline must be a number, one input, 'mean', or a list of these; got "
                    f"{one!r}. Use 0.0, for example."
                )
            continue
        for part in one.values() if isinstance(one, Mapping) else [one]:
            if not bool(torch.isfinite(_tensor(part)).all()):
                raise RetinaCodecError(
                    "the baseline must be finite; it holds NaN or infinity. Use 0.0, for example."
                )


def count_baselines(baseline: Baseline) -> int:
    """Return over how many baselines contributions are averaged."""
    return len(_several(baseline))


def names_inputs(baseline: Baseline) -> bool:
    """Return whether a baseline names the inputs that it is of, or is none at all."""
    return all(one is None or isinstance(one, Mapping) for one in _several(baseline))


def prepare_baseline(baseline: Baseline, mean: Callable[[], Batch]) -> Baseline:
    """Replace "mean" by the mean of the inputs."""
    several = _several(baseline)
    if not any(isinstance(one, str) for one in several):
        return baseline
    found = mean()
    return [found if isinstance(one, str) else one for one in several]


def resolve_baselines(baseline: Baseline, inputs: Batch) -> list[Batch]:
    """Return every baseline as a batch of one input, which all inputs share.

    Where some inputs are whole numbers (tokens, masks), each input goes with its own: then a
    baseline is a batch like ``inputs``.

    Parameters
    ----------
    baseline : Baseline
        Prepared: without the word "mean".
    inputs : Batch
        ``(b, ...)``.

    Raises
    ------
    RetinaCodecError
        If a baseline has another shape than one input.
    """
    if not any(values.is_floating_point() for values in tensors_of(inputs)):
        raise RetinaCodecError(
            "a baseline needs floating inputs; all of these are whole numbers, and the network "
            "has no embedding (torch.nn.Embedding) that takes them. Convert pixels to float as in "
            "its training (inputs.float() / 255, say), pass embeddings for words, or use ActGrad()."
        )
    found: list[Batch] = []
    for one in _several(baseline):
        if isinstance(one, str):
            raise RetinaCodecError(
                "the baseline 'mean' is known only within contribute() and input_map(). Give an "
                "input instead."
            )
        if isinstance(inputs, torch.Tensor):
            found.append(_like(one, inputs, ""))
            continue
        by_name = dict.fromkeys(inputs, one) if not isinstance(one, Mapping) else one
        unknown = set(by_name) - set(inputs) - set(map(input_name, inputs))
        if unknown:
            raise RetinaCodecError(
                f"a baseline by name must name inputs that paths change, {_floating(inputs)}; got "
                f"{sorted(unknown)}. Leave these out."
            )
        found.append(
            {name: _like(by_name.get(name, 0.0), part, name) for name, part in inputs.items()}
        )
    if all(values.is_floating_point() for values in tensors_of(inputs)):
        return found
    return [map_tensors(_with_each, one, inputs) for one in found]


def _floating(inputs: Mapping[str, torch.Tensor]) -> list[str]:
    return [name for name, values in inputs.items() if values.is_floating_point()]


def _with_each(baseline: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    """Return the shared baseline for every input, or the input's own whole numbers."""
    return baseline.expand_as(inputs) if inputs.is_floating_point() else inputs


def _several(baseline: Baseline) -> list[Any]:
    if isinstance(baseline, list | tuple):
        if not baseline:
            raise RetinaCodecError(
                "a list of baselines must hold at least one; it is empty. Use 0.0, for example."
            )
        return list(baseline)
    return [baseline]


def _tensor(value: Any) -> torch.Tensor:
    if isinstance(value, xr.DataArray):
        value = value.values
    try:
        return torch.as_tensor(np.array(value) if isinstance(value, np.ndarray) else value)
    except (TypeError, ValueError, RuntimeError):
        raise RetinaCodecError(
            "a baseline must be a number, one input, 'mean', or a list of these; got "
            f"{type(value).__name__}. Use 0.0, for example."
        ) from None


def _like(value: Any, inputs: torch.Tensor, name: str) -> torch.Tensor:
    """Return one input ``(1, ...)`` in the dtype and on the device of ``inputs``."""
    if not inputs.is_floating_point():
        return inputs[:1]
    if isinstance(value, int | float):  # never through another precision
        return inputs.new_full(inputs.shape[1:], value).unsqueeze(0)
    baseline = _tensor(value).to(dtype=inputs.dtype).to(inputs.device)
    if baseline.ndim and baseline.shape != inputs.shape[1:]:
        raise RetinaCodecError(
            f"the baseline{' of ' + name if name else ''} must be a number or one input of shape "
            f"{tuple(inputs.shape[1:])}; got {tuple(baseline.shape)}."
        )
    return baseline.expand(inputs.shape[1:]).unsqueeze(0)
