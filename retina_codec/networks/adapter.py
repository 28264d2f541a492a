"""Describe a torch module for explanation: its layers, hooks, channel axis and output."""

import difflib
import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from retina_codec.errors import RetinaCodecError
from retina_codec.networks.blocks import SITES, Hook, Site, Structure, find_structure
from retina_codec.networks.borrowed import check_module
from retina_codec.networks.embeddings import place_embeddings
from retina_codec.networks.retina.prediction import RecordingNetwork

__all__ = [
    "Adapter",
    "adapt",
    "as_adapter",
    "find_layers",
    "known_sites",
    "known_structure",
    "own_names",
    "sites_of_words",
    "words_among",
]

Kind = Literal["auto", "cnn", "transformer"]


Tokens = Literal["all", "patches"]


@dataclass(frozen=True, eq=False)
class Adapter:
    """A module and its description: layers, hooks, channel axis, output; made by `adapt`."""

    module: nn.Module
    layers: tuple[str, ...]
    kind: Kind = "auto"
    hook: Hook | Mapping[str, Hook] = "output"
    channel_axis: int | Mapping[str, int] | None = None
    element: int | str | None = None
    output: int | str | None = None
    tokens: Tokens = "all"
    sites: Mapping[str, Site] = field(default_factory=dict)
    paths: tuple[str, ...] | None = None
    class_axis: int | None = None

    @property
    def cells(self) -> Sequence[Any] | None:
        """Ids of the outputs, where the module says that it is a retina or what it puts out.

        That is: it has the attributes of a `RecordingNetwork`, or one called ``output_units``.
        """
        return own_names(self.module, "cells") if self._says_units else None

    @property
    def output_units(self) -> str:
        """Unit of the outputs: "Hz" of a retina, else what the module says, or "1"."""
        own = getattr(self.module, "output_units", None)
        if isinstance(own, str):
            return own
        return "Hz" if self._says_units else "1"

    @property
    def _says_units(self) -> bool:
        own = getattr(self.module, "output_units", None)
        return isinstance(own, str) or isinstance(self.module, RecordingNetwork)

    def hook_of(self, layer: str) -> Hook:
        """Return the side on which a layer is hooked."""
        return self.hook.get(layer, "output") if isinstance(self.hook, Mapping) else self.hook

    def declared_axis(self, layer: str) -> int | None:
        """Return the channel axis that was declared for a layer, or is known of its site."""
        if isinstance(self.channel_axis, Mapping):
            if layer in self.channel_axis:
                return self.channel_axis[layer]
        elif self.channel_axis is not None:
            return self.channel_axis
        if self.kind != "auto":
            return {"cnn": 1, "transformer": -1}[self.kind]
        site = self.sites.get(layer)
        return None if site is None else site.channel_axis

    def leading_tokens(self, layer: str) -> int:
        """Return how many class tokens and registers come before the patches of a layer."""
        site = self.sites.get(layer)
        return 0 if site is None else site.leading_tokens

    @property
    def family(self) -> str:
        """Kind of blocks of the network."""
        structure = known_structure(self.module)
        return "no repeated blocks" if structure is None else structure.family

    def heads(self, layer: str) -> int | None:
        """Return how many heads lie side by side along the channels; None where there are none."""
        site = self.sites.get(layer)
        return site.heads if site is not None and site.site == "attention" else None

    def answer(self, outcome: Any, rows: int | None = None) -> torch.Tensor:
        """Return the tensor ``(b, n)`` that targets are computed from; ``(b,)`` is ``(b, 1)``.

        ``rows`` is b, where it is known: one number per input must be as many as there are inputs.
        """
        if self.output is not None:
            found = take(outcome, self.output, "the network")
        elif isinstance(getattr(outcome, "logits", None), torch.Tensor):
            found = outcome.logits
        elif isinstance(outcome, tuple | list) and outcome:
            found = outcome[0]
        else:
            found = outcome
        if isinstance(found, torch.Tensor) and found.ndim < 2 and found.numel() == rows:
            found = found.reshape(-1, 1)
        if not isinstance(found, torch.Tensor) or found.ndim < 2:
            came = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
            way = "Name the part that counts: adapt(..., output='logits') or output=0."
            if isinstance(outcome, torch.Tensor):
                way = "Keep the axis of inputs in forward: no squeeze() or mean() over it."
            raise RetinaCodecError(
                f"the network must return one tensor (batch, output), or (batch,); got {came}"
                f"{'' if rows is None else f' for a batch of {rows}'}. {way}"
            )
        if self.class_axis is None:
            return found
        if not -found.ndim < self.class_axis < found.ndim or self.class_axis % found.ndim == 0:
            raise RetinaCodecError(
                f"class_axis must be between 1 and {found.ndim - 1} for outputs "
                f"{tuple(found.shape)}; got {self.class_axis}."
            )
        return found.movedim(self.class_axis, -1)

    def call(self, inputs: torch.Tensor | dict[str, torch.Tensor]) -> torch.Tensor:
        """Run the module on one tensor, or on several by name.

        Outputs ``(b, token, n)`` are NaN, missing, at the tokens that an ``attention_mask`` among
        the inputs calls padding. Embeddings beside token numbers stand in for them.
        """
        with place_embeddings(self.module, inputs) as given:
            outcome = self.module(**given) if isinstance(given, dict) else self.module(given)
            mask = given.get("attention_mask") if isinstance(given, dict) else None
        parts = [inputs] if isinstance(inputs, torch.Tensor) else list(inputs.values())
        answer = self.answer(outcome, len(parts[0]))
        if mask is None or answer.ndim != 3 or mask.shape != answer.shape[:2]:
            return answer
        if bool((answer.isnan().any(2) & (mask != 0)).any()):
            raise RetinaCodecError(
                "the network's output is not finite at a token that is no padding. Look at the "
                "inputs and at the weights."
            )
        return answer.masked_fill((mask == 0)[..., None], torch.nan)

    def describe(self) -> dict[str, str | int]:
        """Return what was declared, for the record of a result."""
        return {
            "network": type(self.module).__name__,
            "kind": self.kind,
            "hook": self._hooks(),
            "channel_axis": str(self.channel_axis),
            "element": str(self.element),
            "output": str(self.output),
            "tokens": self.tokens,
            **({} if self.paths is None else {"paths": ", ".join(self.paths)}),
            **({} if self.class_axis is None else {"class_axis": self.class_axis}),
        }

    def _hooks(self) -> str:
        """Return the side on which layers are hooked; by name where it differs."""
        sides = {layer: self.hook_of(layer) for layer in self.layers}
        if len(set(sides.values())) < 2:
            return next(iter(sides.values()), "output")
        return "output; input of " + ", ".join(n for n, side in sides.items() if side == "input")


def adapt(
    module: nn.Module,
    layers: str | Sequence[str] | None = None,
    *,
    kind: Kind = "auto",
    hook: Hook | Mapping[str, Hook] = "output",
    channel_axis: int | Mapping[str, int] | None = None,
    element: int | str | None = None,
    output: int | str | None = None,
    tokens: Tokens = "all",
    paths: str | Sequence[str] | None = None,
    class_axis: int | None = None,
) -> Adapter:
    """Describe a torch module so that it can be explained.

    Parameters
    ----------
    module : torch.nn.Module
        Takes one tensor ``(b, ...)``, or several by name, and treats every input on its own. It is
        not changed and not copied.
    layers : str or sequence of str, optional
        Names of submodules, or patterns (``"layer?.*"``, as in file names); the module's own
        ``layers`` when left out. A module that is called several times in one pass gives several
        layers, ``name@1``, ``name@2``, in order of the calls. The words ``"blocks"``, ``"mlp"``,
        ``"attention"``, ``"post_attention"`` and ``"post_mlp"`` stand for one site in every block
        that `find_structure` finds, with the right side and channel axis; what they mean to the
        letter is said at `Structure.sites`. (A submodule that is called ``blocks`` itself is
        reached by the pattern ``"[b]locks"``.)
    kind : {"auto", "cnn", "transformer"}
        Which axis of a layer holds channels: the second (cnn), the last (transformer), or told by
        the module that made the values (auto). All other axes but the first are space.
    hook : {"output", "input"} or dict of str to these
        Explain what the submodules put out, or what they are given; by layer name, the output for
        layers that the dict does not name. Words bring their own.
    channel_axis : int or dict of str to int, optional
        The channel axis, counted with the batch axis 0, of all layers or by layer name; it
        overrides ``kind``.
    element : int or str, optional
        Which part of a layer's output counts when that is a tuple or a dict; the first tensor
        when left out.
    output : int or str, optional
        Which part of the module's output counts; ``logits``, or the first, when left out.
    tokens : {"all", "patches"}
        Over which tokens of a vision transformer sums and means go: all (default, because only
        then contributions can add up to the change of the target), or without the class token and
        the registers that come first. Their number is the attribute ``leading_tokens`` of a layer
        in the result. The completeness error is always that of all tokens.
    paths : str or sequence of str, optional
        Names of the inputs that paths from a baseline lead through, floating ones or words; the
        others stand still. When left out: through all floating inputs but masks, or through the
        words, where all others are whole numbers, masks, positions or types.
    class_axis : int, optional
        Which axis of outputs such as (batch, class, time) holds classes, counted with the batch
        axis 0; it becomes the last, so that targets are those of the last place of the other.

    Returns
    -------
    Adapter
        Goes into `contribute` and `input_map` as the network.

    Raises
    ------
    RetinaCodecError
        If a layer or pattern fits no submodule (the closest names are listed), if a word is used
        and no block has such a site (what was looked for is listed), or a choice is not among the
        valid ones.

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
    check_module(module)
    for name, value, valid in (
        ("kind", kind, ("auto", "cnn", "transformer")),
        ("tokens", tokens, ("all", "patches")),
    ):
        if value not in valid:
            raise RetinaCodecError(f"{name} must be one of {valid}; got {value!r}.")
    for side in hook.values() if isinstance(hook, Mapping) else [hook]:
        if side not in ("output", "input"):
            raise RetinaCodecError(f"hook must be one of ('output', 'input'); got {side!r}.")
    structure = known_structure(module)
    words = words_among(module, layers, structure)
    sites = sites_of_words(module, words)
    named = find_layers(module, layers, structure)
    hooks: dict[str, Hook] = {
        layer: hook.get(layer, "output") if isinstance(hook, Mapping) else hook for layer in named
    }
    hooks |= {layer: site.hook for layer, site in sites.items()}
    sides = set(hooks.values())
    return Adapter(
        module,
        named,
        kind,
        sides.pop() if len(sides) == 1 else hooks,
        channel_axis,
        element,
        output,
        tokens,
        known_sites(structure, hooks) | sites,
        (paths,) if isinstance(paths, str) else None if paths is None else tuple(paths),
        class_axis,
    )


def find_layers(
    module: nn.Module, layers: str | Sequence[str] | None, structure: Structure | None = None
) -> tuple[str, ...]:
    """Return the names of submodules that are named or fit a pattern, in the order given.

    Words stand for the sites of ``structure``.
    """
    names = [name for name, _ in module.named_modules(remove_duplicate=False) if name]
    words = words_among(module, layers, structure)
    chosen = _own_layers(module, names) if layers is None else layers
    if isinstance(chosen, str):
        chosen = (chosen,)
    if not isinstance(chosen, Iterable) or isinstance(chosen, nn.Module) or not list(chosen):
        raise RetinaCodecError(
            f"layers must name the submodules to explain; got none. They are: {_list(names)}."
        )
    found: dict[str, None] = {}
    for wanted in chosen:
        if wanted in words:
            found |= dict.fromkeys(sites_of_words(module, [wanted]))
            continue
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
    _check_layers(module, found)
    return tuple(found)


def own_names(module: nn.Module, attribute: str) -> Sequence[Any] | None:
    """Return names of outputs that a module holds (``cells``, ``classes``); None if it has none.

    A number, a text, submodules and tensors of that name are something else.
    """
    names = getattr(module, attribute, None)
    if not isinstance(names, Sequence) or isinstance(names, str) or not names:
        return None
    return names if all(isinstance(name, str | int | np.integer) for name in names) else None


def _own_layers(module: nn.Module, names: Sequence[str]) -> Sequence[str]:
    """Return the layers that a module names itself; an attribute of another kind names none."""
    own = getattr(module, "layers", None)
    own = (own,) if isinstance(own, str) else own
    if not isinstance(own, list | tuple) or not all(isinstance(name, str) for name in own):
        return ()
    fits = all(name in names or fnmatch.filter(names, name) for name in own)
    return own if fits else ()


def _check_layers(module: nn.Module, layers: Iterable[str]) -> None:
    """Refuse layers that cannot be watched, or whose name cannot be that of a group in a file."""
    modules = dict(module.named_modules(remove_duplicate=False))
    scripted = tuple(n for n, m in modules.items() if isinstance(m, torch.jit.ScriptModule))
    for name in layers:
        if name in scripted:
            raise RetinaCodecError(
                f"layers must be modules of Python, whose calls can be watched; {name!r} is "
                "scripted or traced. Explain other layers, or use the module it was made from."
            )
        marks = [mark for mark in ("/", "\\", "@") if mark in name]
        if marks or not name.isprintable() or name != name.strip():
            wrong = repr(marks[0]) if marks else "a blank at an end or what cannot be printed"
            raise RetinaCodecError(
                f"the name of a layer must fit into results; {name!r} holds {wrong}. Give the "
                "same submodule a second name, which changes nothing else: network.add_module("
                f"'my_layer', network.get_submodule({name!r})), and explain 'my_layer'."
            )


def take(outcome: Any, element: int | str | None, origin: str) -> torch.Tensor:
    """Return the tensor in a module's output: the output itself, a named part, or the first."""
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
    """Return a module's output with other values in the place that `take` reads."""
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


def known_structure(module: nn.Module) -> Structure | None:
    """Return the repeated structure of a network; None if there is none."""
    try:
        return find_structure(module)
    except RetinaCodecError:
        return None


def words_among(
    module: nn.Module, layers: str | Sequence[str] | None, structure: Structure | None
) -> tuple[str, ...]:
    """Return which of the layers asked for are words for sites.

    A word that is also the name of a submodule is a word where blocks are found, else the name.
    """
    chosen = (layers,) if isinstance(layers, str) else layers
    if chosen is None or isinstance(chosen, nn.Module):
        return ()
    words = [word for word in chosen if word in SITES]
    if structure is None and words:
        names = {name for name, _ in module.named_modules(remove_duplicate=False)}
        words = [word for word in words if word not in names]
    return tuple(words)


def sites_of_words(module: nn.Module, words: Sequence[str]) -> dict[str, Site]:
    """Return the sites that words stand for, by the names of their modules.

    Raises
    ------
    RetinaCodecError
        If no blocks are found, none has such a site, or two words mean both sides of one module.
    """
    found: dict[str, Site] = {}
    if not words:
        return found
    structure = find_structure(module)
    for word in words:
        for site in structure.sites(word):
            other = found.setdefault(site.layer, site)
            if other.hook != site.hook:
                raise RetinaCodecError(
                    f"{other.site!r} and {word!r} are the two sides of the same module "
                    f"{site.layer!r} in this network; explain one at a time."
                )
    return found


def known_sites(structure: Structure | None, hooks: Mapping[str, Hook]) -> dict[str, Site]:
    """Return the sites of named layers that lie in the blocks of a structure."""
    if structure is None:
        return {}
    known = {name: structure.site_of(name, hook) for name, hook in hooks.items()}
    return {name: site for name, site in known.items() if site is not None}


def as_adapter(network: nn.Module | Adapter, layers: str | Sequence[str] | None) -> Adapter:
    """Return an adapter; ``layers`` replace those that it names."""
    if not isinstance(network, Adapter):
        return adapt(network, layers)
    if layers is None:
        return network
    return adapt(
        network.module,
        layers,
        kind=network.kind,
        hook=network.hook,
        channel_axis=network.channel_axis,
        element=network.element,
        output=network.output,
        tokens=network.tokens,
        paths=network.paths,
        class_axis=network.class_axis,
    )
