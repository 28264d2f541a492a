"""Any torch module as a network that can be explained.

Why this file exists: which layers, where they are hooked, which axis holds channels and which part
of the output counts are facts about a network, told once, here, by its user. It runs nothing and
knows no contributions.
"""

import difflib
import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from retina_codec.errors import RetinaCodecError

__all__ = ["Adapter", "adapt", "find_layers"]

Kind = Literal["auto", "cnn", "transformer"]
Hook = Literal["output", "input"]


@dataclass(frozen=True, eq=False)
class Adapter:
    """A module with what must be known of it; made by `adapt`."""

    module: nn.Module
    layers: tuple[str, ...]
    kind: Kind = "auto"
    hook: Hook = "output"
    channel_axis: int | Mapping[str, int] | None = None
    element: int | str | None = None
    output: int | str | None = None

    @property
    def cells(self) -> Sequence[Any] | None:
        """Ids of the outputs, where the module names them."""
        cells: Sequence[Any] | None = getattr(self.module, "cells", None)
        return cells

    def declared_axis(self, layer: str) -> int | None:
        """Return the channel axis that was declared for a layer, if any."""
        if isinstance(self.channel_axis, Mapping):
            return self.channel_axis.get(layer)
        if self.channel_axis is not None:
            return self.channel_axis
        return {"auto": None, "cnn": 1, "transformer": -1}[self.kind]

    def answer(self, outcome: Any) -> torch.Tensor:
        """Return the tensor ``(b, n)`` that targets are computed from."""
        if self.output is not None:
            found = take(outcome, self.output, "the network")
        elif isinstance(getattr(outcome, "logits", None), torch.Tensor):
            found = outcome.logits
        elif isinstance(outcome, tuple | list) and outcome:
            found = outcome[0]
        else:
            found = outcome
        if not isinstance(found, torch.Tensor) or found.ndim < 2:
            came = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
            raise RetinaCodecError(
                f"the network must return one tensor (batch, output); got {came}. "
                "Name the part that counts: adapt(..., output='logits') or output=0."
            )
        return found

    def call(self, inputs: torch.Tensor | dict[str, torch.Tensor]) -> torch.Tensor:
        """Run the module on one tensor, or on several by name."""
        outcome = self.module(**inputs) if isinstance(inputs, dict) else self.module(inputs)
        return self.answer(outcome)

    def describe(self) -> dict[str, str | int]:
        """Return what was declared, for the provenance."""
        return {
            "network": type(self.module).__name__,
            "kind": self.kind,
            "hook": self.hook,
            "channel_axis": str(self.channel_axis),
            "element": str(self.element),
            "output": str(self.output),
        }


def adapt(
    module: nn.Module,
    layers: str | Sequence[str] | None = None,
    *,
    kind: Kind = "auto",
    hook: Hook = "output",
    channel_axis: int | Mapping[str, int] | None = None,
    element: int | str | None = None,
    output: int | str | None = None,
) -> Adapter:
    """Say what must be known of a torch module to explain it.

    Parameters
    ----------
    module : torch.nn.Module
        Takes one tensor ``(b, ...)``, or several by name, and treats every input on its own. It is
        not changed and not copied.
    layers : str or sequence of str, optional
        Names of submodules, or patterns (``"layer?.*"``, as in file names); the module's own
        ``layers`` when left out. A module that is called several times in one pass gives several
        layers, ``name@1``, ``name@2``, in order of the calls.
    kind : {"auto", "cnn", "transformer"}
        Which axis of a layer holds channels: the second (cnn), the last (transformer), or told by
        the module that made the values (auto). All other axes but the first are space.
    hook : {"output", "input"}
        Explain what the submodules put out, or what they are given.
    channel_axis : int or dict of str to int, optional
        The channel axis, counted with the batch axis 0, of all layers or by layer name; it
        overrides ``kind``.
    element : int or str, optional
        Which part of a layer's output counts when that is a tuple or a dict; the first tensor
        when left out.
    output : int or str, optional
        Which part of the module's output counts; ``logits``, or the first, when left out.

    Returns
    -------
    Adapter
        Goes into `contribute` and `input_map` as the network.

    Raises
    ------
    RetinaCodecError
        If a layer or pattern fits no submodule (the closest names are listed), or a choice is not
        among the valid ones.

    Examples
    --------
    >>> network = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1))
    >>> adapt(network, "*").layers
    ('0', '1', '2')
    """
    if not isinstance(module, nn.Module):
        raise RetinaCodecError(
            f"network must be a torch module; got {type(module).__name__}. "
            "Load one with load_network(folder)."
        )
    for name, value, valid in (
        ("kind", kind, ("auto", "cnn", "transformer")),
        ("hook", hook, ("output", "input")),
    ):
        if value not in valid:
            raise RetinaCodecError(f"{name} must be one of {valid}; got {value!r}.")
    return Adapter(module, find_layers(module, layers), kind, hook, channel_axis, element, output)


def find_layers(module: nn.Module, layers: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of submodules that are named or fit a pattern, in the order given."""
    names = [name for name, _ in module.named_modules(remove_duplicate=False) if name]
    chosen = getattr(module, "layers", None) if layers is None else layers
    if isinstance(chosen, str):
        chosen = (chosen,)
    if chosen is None or isinstance(chosen, nn.Module) or not tuple(chosen):
        raise RetinaCodecError(
            f"layers must name the submodules to explain; got none. They are: {_list(names)}."
        )
    found: dict[str, None] = {}
    for wanted in chosen:
        if wanted in names:
            found[wanted] = None
            continue
        fitting = fnmatch.filter(names, str(wanted)) if wanted else []
        if not fitting:
            close = difflib.get_close_matches(str(wanted), names, 3, 0.4)
            nearest = f"The closest are: {', '.join(close)}. " if close else ""
            raise RetinaCodecError(
                f"the network has no layer {wanted!r}. {nearest}Its layers are: {_list(names)}."
            )
        found |= dict.fromkeys(fitting)
    return tuple(found)


def take(outcome: Any, element: int | str | None, origin: str) -> torch.Tensor:
    """Return the tensor in what a module gave: itself, a named part, or the first."""
    if isinstance(outcome, torch.Tensor):
        return outcome
    key = element if element is not None else place_of_tensor(outcome)
    try:
        found = outcome[key]
    except (LookupError, TypeError):
        found = None
    if not isinstance(found, torch.Tensor):
        parts = list(outcome) if isinstance(outcome, Mapping) else type(outcome).__name__
        raise RetinaCodecError(
            f"{origin} must give a tensor (batch, ...); part {key!r} of {parts} is "
            f"{type(found).__name__}. Choose another with element= or output=."
        )
    return found


def put(outcome: Any, element: int | str | None, values: torch.Tensor) -> Any:
    """Return what a module gave with other values in the place that `take` reads."""
    if isinstance(outcome, torch.Tensor):
        return values
    key = element if element is not None else place_of_tensor(outcome)
    if isinstance(outcome, Mapping):
        changed = outcome.copy() if hasattr(outcome, "copy") else dict(outcome)
        changed[key] = values
        return changed
    place = range(len(outcome))[key]  # type: ignore[index]  # take() has read this place
    parts = [*outcome[:place], values, *outcome[place + 1 :]]
    return type(outcome)(*parts) if hasattr(outcome, "_fields") else type(outcome)(parts)


def place_of_tensor(outcome: Any) -> int | str | None:
    """Return the place of the first tensor among the parts of an outcome, if there is one."""
    if isinstance(outcome, Mapping):
        parts: Any = outcome.items()
    elif isinstance(outcome, tuple | list):
        parts = enumerate(outcome)
    else:
        return None
    return next((key for key, part in parts if isinstance(part, torch.Tensor)), None)


def _list(names: Sequence[str]) -> str:
    """List names in one line, the first fifty of them."""
    return ", ".join(names[:50]) + (f" and {len(names) - 50} more" if len(names) > 50 else "")
