"""Put embeddings in place of inputs that are words by number, so that paths between inputs exist.

Notation: b inputs, d dimensions.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

__all__ = ["PREFIX", "embedded", "find_embedding", "place_embeddings"]

PREFIX = "embedding of "  # then the name of the module; no argument of a function is called so


UNNAMED = ""  # a single tensor, among inputs by name


Inputs = torch.Tensor | dict[str, torch.Tensor]


def find_embedding(module: nn.Module, inputs: Inputs, run: Callable[[Inputs], Any]) -> str | None:
    """Return the name of the largest `torch.nn.Embedding` that is given one of the inputs.

    Parameters
    ----------
    module : torch.nn.Module
    inputs : torch.Tensor or dict of torch.Tensor
        All whole numbers; one input is enough.
    run : callable
        Runs the module on them.

    Returns
    -------
    str or None
        None if no embedding is called with any of them.
    """
    numbers = _numbers(inputs)
    found: list[tuple[int, str]] = []

    def note(name: str) -> Callable[..., None]:
        def called(embedding: nn.Module, given: Any, named: Any, output: Any) -> None:
            del output
            if isinstance(embedding, nn.Embedding) and _is_one_of(_given(given, named), numbers):
                found.append((embedding.num_embeddings, name))

        return called

    handles = [
        inner.register_forward_hook(note(name), with_kwargs=True)
        for name, inner in module.named_modules()
        if isinstance(inner, nn.Embedding)
    ]
    try:
        with torch.no_grad():
            run(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return max(found)[1] if found else None


def embedded(module: nn.Module, name: str, inputs: Inputs) -> dict[str, torch.Tensor]:
    """Return whole numbers with their embeddings ``(b, token, d)`` beside them.

    Parameters
    ----------
    module : torch.nn.Module
    name : str
        Of the embedding, as `find_embedding` returns it.
    inputs : torch.Tensor or dict of torch.Tensor

    Returns
    -------
    dict of torch.Tensor
        The inputs, and ``"embedding of <name>"``.
    """
    named = {UNNAMED: inputs} if isinstance(inputs, torch.Tensor) else dict(inputs)
    embedding, kept = module.get_submodule(name), []

    def keep(inner: nn.Module, given: Any, named_too: Any, output: torch.Tensor) -> None:
        del inner
        if _is_one_of(_given(given, named_too), _numbers(named)):
            kept.append(output)
            raise _Reached

    handle = embedding.register_forward_hook(keep, with_kwargs=True)
    try:
        with torch.no_grad():
            _call(module, named)
    except _Reached:
        pass
    finally:
        handle.remove()
    return {**named, PREFIX + name: kept[0]}


@contextmanager
def place_embeddings(module: nn.Module, inputs: Inputs) -> Iterator[Inputs]:
    """Yield the inputs without embeddings, which their module returns within the context.

    Parameters
    ----------
    module : torch.nn.Module
    inputs : torch.Tensor or dict of torch.Tensor
        As `embedded` returns them, or without embeddings, which changes nothing.

    Yields
    ------
    torch.Tensor or dict of torch.Tensor
        What the module takes.
    """
    if isinstance(inputs, torch.Tensor):
        yield inputs
        return
    rest = {key: values for key, values in inputs.items() if not key.startswith(PREFIX)}
    numbers = _numbers(rest)

    def give(values: torch.Tensor) -> Callable[..., torch.Tensor | None]:
        def called(
            embedding: nn.Module, given: Any, named: Any, output: torch.Tensor
        ) -> torch.Tensor | None:
            del embedding
            if not _is_one_of(_given(given, named), numbers):
                return None
            return values.clone().view_as(output)  # the network may overwrite it

        return called

    handles = [
        # Before other hooks, so that who watches the embedding sees what goes on.
        module.get_submodule(key.removeprefix(PREFIX)).register_forward_hook(
            give(values), with_kwargs=True, prepend=True
        )
        for key, values in inputs.items()
        if key.startswith(PREFIX)
    ]
    try:
        yield rest[UNNAMED] if UNNAMED in rest else rest
    finally:
        for handle in handles:
            handle.remove()


class _Reached(Exception):
    """The embedding has been called; nothing above it is needed."""


def _call(module: nn.Module, named: Mapping[str, torch.Tensor]) -> Any:
    return module(named[UNNAMED]) if UNNAMED in named else module(**named)


def _numbers(inputs: Inputs) -> list[torch.Tensor]:
    parts = [inputs] if isinstance(inputs, torch.Tensor) else list(inputs.values())
    return [values for values in parts if not values.is_floating_point()]


def _given(given: Any, named: Mapping[str, Any]) -> Any:
    """Return what an embedding was called with."""
    return given[0] if given else next(iter(named.values()), None)


def _is_one_of(given: Any, numbers: list[torch.Tensor]) -> bool:
    """Return whether an embedding was given one of the inputs, in whatever shape."""
    return isinstance(given, torch.Tensor) and any(
        given.numel() == values.numel() and torch.equal(given.reshape(values.shape), values)
        for values in numbers
    )
