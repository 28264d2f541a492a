"""Baselines x′: the inputs without a signal, at which paths start."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from typing import Any

import numpy as np
import torch
import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.networks.embeddings import PREFIX, Entry, input_name, mean_embedding
from retina_codec.probing.batches import Batch, map_tensors, tensors_of
from retina_codec.probing.hooks import HookedFunction
from retina_codec.probing.points import Evaluation, LayeredFunction
from retina_codec.targets.base import Target, bind_at_input

__all__ = [
    "WORDS",
    "Baseline",
    "check_baseline",
    "count_baselines",
    "differ_by_input",
    "names_inputs",
    "not_finite",
    "prepare_baseline",
    "resolve_baselines",
    "settle_baseline",
]

Baseline = Any
"""A number; one input ``(...)`` as tensor, array or DataArray (of embeddings of words also one row,
for every word); a function of one input, an array, that returns its baseline, an array of the same
shape; a dict of these by name; a list of several of these, over which contributions are averaged;
or a word: "mean" (mean of the inputs explained), "mean embedding" (mean over the vocabulary, for
every word of a text), "mean embedding after first word" (the first word of every text stands), or
"auto" (the last for words by number, 0 for other inputs)."""


AUTO, MEAN, MEAN_EMBEDDING = "auto", "mean", "mean embedding"


AFTER_FIRST = f"{MEAN_EMBEDDING} after first word"


WORDS = (AUTO, MEAN, MEAN_EMBEDDING, AFTER_FIRST)


KINDS = (
    f"a number, one input, a function of one input, {', '.join(map(repr, WORDS[:-1]))} or "
    f"{WORDS[-1]!r}, or a list of these"
)


@dataclass(frozen=True)
class _AfterFirst:
    """One embedding for all words of a text but the first, which stands."""

    row: torch.Tensor  # (d,)


def check_baseline(baseline: Baseline) -> None:
    """Validate a baseline, as far as possible before the inputs are known."""
    for one in _several(baseline):
        if isinstance(one, str):
            if one not in WORDS:
                close = get_close_matches(one, WORDS, n=1, cutoff=0.5)
                hint = f"Did you mean {close[0]!r}?" if close else "Use 0.0, for example."
                raise RetinaCodecError(f"a baseline must be {KINDS}; got {one!r}. {hint}")
            continue
        for part in one.values() if isinstance(one, Mapping) else [one]:
            if callable(part) or isinstance(part, _AfterFirst):
                continue
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


def differ_by_input(baseline: Baseline) -> bool:
    """Return whether a baseline is a function, so that every input has its own."""
    parts = [
        part
        for one in _several(baseline)
        for part in (one.values() if isinstance(one, Mapping) else [one])
    ]
    return any(map(callable, parts))


def settle_baseline(baseline: Baseline, entry: Entry) -> Baseline:
    """Replace "auto": by a mean embedding where paths lead through those of words, else by 0.

    Parameters
    ----------
    baseline : Baseline
    entry : Entry
        Where paths lead.

    Returns
    -------
    Baseline
        What results name; the same object where nothing is to be chosen.
    """
    chosen = AFTER_FIRST if entry.places else 0.0
    if isinstance(baseline, list | tuple):
        several = [chosen if _is(one, AUTO) else one for one in baseline]
        return several if any(_is(one, AUTO) for one in baseline) else baseline
    return chosen if _is(baseline, AUTO) else baseline


def prepare_baseline(
    baseline: Baseline, mean: Callable[[], Batch], function: HookedFunction | None = None
) -> Baseline:
    """Replace words by what they stand for.

    Parameters
    ----------
    baseline : Baseline
    mean : callable
        Returns the mean of the inputs.
    function : HookedFunction, optional
        The network, whose embeddings are averaged over their vocabulary; without it only "mean" is
        replaced.

    Returns
    -------
    Baseline
        The same object where it holds no such word.

    Raises
    ------
    RetinaCodecError
        If a mean embedding is asked for where paths lead through no embedding.
    """
    known: dict[str, Callable[[], Baseline]] = {MEAN: mean}
    if function is not None:
        baseline = settle_baseline(baseline, function.entry)
        known[MEAN_EMBEDDING] = partial(_mean_embedding, function, MEAN_EMBEDDING)
        known[AFTER_FIRST] = partial(_mean_embedding, function, AFTER_FIRST)
    several = _several(baseline)
    asked = {one for one in several if isinstance(one, str) and one in known}
    if not asked:
        return baseline
    found = {word: known[word]() for word in asked}
    return [found[one] if isinstance(one, str) and one in found else one for one in several]


def _mean_embedding(function: HookedFunction, word: str) -> dict[str, Any]:
    if not function.entry.places:
        raise RetinaCodecError(
            f"the baseline {word!r} is of words by number, which an embedding "
            "(torch.nn.Embedding) takes; paths lead through the inputs themselves here. Use 0.0 or "
            f"{MEAN!r}."
        )
    rows = mean_embedding(function.network.module, function.entry.places)
    return {key: _AfterFirst(row) if word == AFTER_FIRST else row for key, row in rows.items()}


def resolve_baselines(baseline: Baseline, inputs: Batch) -> list[Batch]:
    """Return every baseline as a batch of one input, which all inputs share.

    A function gives every input its own, as does a first word that stands, and where some inputs
    are whole numbers (tokens, masks), each input goes with its own: then a baseline is a batch like
    ``inputs``.

    Parameters
    ----------
    baseline : Baseline
        Prepared: without words for means.
    inputs : Batch
        ``(b, ...)``.

    Raises
    ------
    RetinaCodecError
        If a baseline has another shape than one input, or a function returns one.
    """
    if not any(values.is_floating_point() for values in tensors_of(inputs)):
        raise RetinaCodecError(
            "a baseline needs floating inputs; all of these are whole numbers, and the network "
            "has no embedding (torch.nn.Embedding) that takes them. Convert pixels to float as in "
            "its training (inputs.float() / 255, say), pass embeddings for words, or use ActGrad()."
        )
    found: list[Batch] = []
    for one in _several(baseline):
        one = _unprepared(one, inputs)
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
        each: dict[str, torch.Tensor] = {}
        for name, part in inputs.items():
            value = by_name.get(name, 0.0)
            first = isinstance(value, _AfterFirst)
            each[name] = _like(value.row if first else value, part, name)
            if first:
                each[name] = _with_first(each[name], part, inputs)
        found.append(each)
    if all(values.is_floating_point() for values in tensors_of(inputs)):
        return found
    return [map_tensors(_with_each, one, inputs) for one in found]


def not_finite(function: LayeredFunction, target: Target, inputs: Batch, baseline: Baseline) -> str:
    """Say where the gradient of an input is not finite, and the way out.

    Parameters
    ----------
    function : LayeredFunction
    target : Target
    inputs : Batch
        One, ``(1, ...)``.
    baseline : Baseline
        Prepared; None for a method without.

    Returns
    -------
    str
        To stand behind "its gradient is not".
    """
    bound = bind_at_input(target)
    if baseline is None or not _finite(function(function.start(inputs), bound)):
        return "its gradient is not. Look at this input, or use dtype=torch.float64."
    words = isinstance(inputs, dict) and any(key.startswith(PREFIX) for key in inputs)
    other = f"{AFTER_FIRST!r} or the embedding of a word" if words else f"{MEAN!r} or an input"
    for number, begin in enumerate(resolve_baselines(baseline, inputs)):
        if not _finite(function(function.start(begin), bound)):
            which = f"baseline {number}" if count_baselines(baseline) > 1 else "the baseline"
            zero = not any(v.any() for v in tensors_of(begin) if v.is_floating_point())
            reason = " (zeros, where norms divide by nothing)" if zero else ""
            return (
                f"its gradient is finite at the input, but not at {which} where the path begins"
                f"{reason}. Use another, baseline={other}, or norms with a larger eps."
            )
    return (
        "its gradient is finite at both ends of the path, but not between them. Use another "
        f"baseline, {other}, or dtype=torch.float64."
    )


def _finite(here: Evaluation) -> bool:
    values = [*here.activation.values(), *here.gradient.values()]
    return all(bool(torch.isfinite(one).all()) for one in values)


def _is(one: Any, word: str) -> bool:
    return isinstance(one, str) and one == word


def _unprepared(one: Any, inputs: Batch) -> Any:
    """Return 0 for "auto" where there are no embeddings; refuse other words."""
    embeddings = isinstance(inputs, dict) and any(key.startswith(PREFIX) for key in inputs)
    if _is(one, AUTO) and not embeddings:
        return 0.0
    if isinstance(one, str):
        raise RetinaCodecError(
            f"the baseline {one!r} is known only within contribute() and input_map(). Give an "
            "input instead."
        )
    return one


def _floating(inputs: Mapping[str, torch.Tensor]) -> list[str]:
    return [name for name, values in inputs.items() if values.is_floating_point()]


def _with_each(baseline: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    """Return the shared baseline for every input, or the input's own whole numbers."""
    return baseline.expand_as(inputs) if inputs.is_floating_point() else inputs


def _with_first(
    baseline: torch.Tensor, words: torch.Tensor, inputs: Mapping[str, torch.Tensor]
) -> torch.Tensor:
    """Put the first of several words that is not padding in its place, (b, ..., token, d)."""
    if words.ndim < 3 or words.shape[-2] < 2:
        return baseline
    stands = torch.zeros(words.shape[:-1], dtype=torch.bool, device=words.device)
    stands[..., 0] = True
    for key, mask in inputs.items():  # one that stands still comes as its bits, of which 0 has none
        if input_name(key) == "attention_mask" and mask.shape == stands.shape:
            seen = (mask != 0).cumsum(-1)
            stands = (seen == 1) & (mask != 0)
    return torch.where(stands[..., None], words, baseline)


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
            f"a baseline must be {KINDS}; got {type(value).__name__}. Use 0.0, for example."
        ) from None


def _like(value: Any, inputs: torch.Tensor, name: str) -> torch.Tensor:
    """Return one input ``(1, ...)`` in the dtype and on the device of ``inputs``."""
    if not inputs.is_floating_point():
        return inputs[:1]
    if isinstance(value, int | float):  # never through another precision
        return inputs.new_full(inputs.shape[1:], value).unsqueeze(0)
    if callable(value):
        return _of_each(value, inputs, name)
    baseline = _tensor(value).to(dtype=inputs.dtype).to(inputs.device)
    row = name.startswith(PREFIX) and baseline.shape == inputs.shape[-1:]
    if baseline.ndim and not row and baseline.shape != inputs.shape[1:]:
        raise RetinaCodecError(
            f"the baseline{' of ' + name if name else ''} must be a number or one input of shape "
            f"{tuple(inputs.shape[1:])}; got {tuple(baseline.shape)}."
        )
    return baseline.expand(inputs.shape[1:]).unsqueeze(0)


def _of_each(function: Callable[[Any], Any], inputs: torch.Tensor, name: str) -> torch.Tensor:
    """Call a function for every input ``(b, ...)`` on its own."""
    found = torch.empty_like(inputs)
    for number, one in enumerate(inputs.detach()):
        wide = one if one.dtype in (torch.float32, torch.float64) else one.float()
        values = _tensor(function(wide.cpu().numpy().copy()))
        if values.shape != one.shape or not bool(torch.isfinite(values).all()):
            raise RetinaCodecError(
                f"the baseline{' of ' + name if name else ''} that a function returns must be "
                f"finite and of the shape of its input, {tuple(one.shape)}; got "
                f"{tuple(values.shape)}{', not finite' if values.shape == one.shape else ''}."
            )
        found[number] = values
    return found
