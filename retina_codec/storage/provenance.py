"""Describe what a result comes from: settings, weights, arrays, functions and versions.

Descriptions are texts and hashes that are the same in every process.
"""

import functools
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from types import CodeType
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import nn

from retina_codec.errors import RetinaCodecError

__all__ = [
    "array_text",
    "check_describable",
    "check_same",
    "function_text",
    "modules_text",
    "readable",
    "state_hash",
    "versions",
]

ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")  # of an object in memory

SHOWN = 70  # letters of a value in a message


def array_text(values: Any) -> str:
    """Describe an array by shape, dtype and the start of the SHA256 of its bytes."""
    if isinstance(values, torch.Tensor):
        raw = values.detach().cpu()
        array = (raw.float() if raw.dtype == torch.bfloat16 else raw).numpy()
    else:
        array = np.asarray(values)
    digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]
    return f"array {tuple(array.shape)} {array.dtype} {digest}"


def readable(value: Any) -> str | int | float:
    """Return a setting in a form that every file format can hold."""
    if value is None or isinstance(value, bool):
        return str(value)
    if isinstance(value, str | int | float):
        return value
    if isinstance(value, torch.Tensor | np.ndarray | xr.DataArray):
        return array_text(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(str(readable(item)) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {readable(item)}" for key, item in value.items()) + "}"
    return repr(value)


def state_hash(network: nn.Module) -> str:
    """Return a SHA256 of all weights and buffers with their names, on whatever device."""
    digest = hashlib.sha256()
    for name, values in network.state_dict().items():
        digest.update(name.encode())
        if isinstance(values, torch.Tensor):
            raw = values.detach().cpu().contiguous()
            digest.update(raw.view(-1).view(torch.uint8).numpy().tobytes())
        else:
            digest.update(repr(values).encode())
    return digest.hexdigest()


@cache
def versions() -> str:
    """Return the versions of the package and of what computed the numbers."""
    found = []
    for name in ("retina-codec", "torch", "numpy", "xarray"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} (not installed)")
    return ", ".join(found)


def check_describable(identity: Mapping[str, str]) -> None:
    """Refuse a run that holds an object known only by its place in memory.

    Parameters
    ----------
    identity : mapping of str to str
        The description of the run.

    Raises
    ------
    RetinaCodecError
        If a value holds a memory address, which is another one in the next process.
    """
    for key, value in identity.items():
        if held := ADDRESS.search(value):
            raise RetinaCodecError(
                "a store must tell this run from others, so everything must be described by its "
                f"values; {key} holds {_around(value, held.start())}. "
                "Give its class a __repr__ that shows its values (a dataclass has one), use a "
                "plain function, or leave store out."
            )


def check_same(found: Any, identity: Mapping[str, str], path: Any) -> None:
    """Check that a store belongs to this run.

    Parameters
    ----------
    found : str or None
        The identity that the store holds, as JSON.
    identity : mapping of str to str
        The identity of this run.
    path : path
        Of the store, for the message.

    Raises
    ------
    RetinaCodecError
        If the store holds no run, or another one: then every difference is named.
    """
    way_out = "Choose another name for store, or remove it."
    try:
        other = dict(json.loads(found))
    except (TypeError, ValueError):
        raise RetinaCodecError(
            f"store must be new or hold this run; {path} does not say which run it is. {way_out}"
        ) from None
    differing = [key for key in {**identity, **other} if identity.get(key) != other.get(key)]
    if differing:
        listed = "; ".join(_difference(key, other.get(key), identity.get(key)) for key in differing)
        raise RetinaCodecError(
            f"store must be new or hold this run; {path} belongs to another ({listed}). {way_out}"
        )


def function_text(function: Any) -> str:
    """Describe a callable by name, code, defaults and closure; not by the functions it calls."""
    if isinstance(function, nn.Module):
        return f"{modules_text(function)} {state_hash(function)}"
    if isinstance(function, functools.partial):
        inner, given = function_text(function.func), [*function.args, function.keywords]
        return f"partial({inner}, {readable(given)})"
    code = getattr(function, "__code__", None)
    if code is None:
        return str(readable(function))
    bound = getattr(function, "__self__", None)
    carried = [
        *(() if bound is None else (bound,)),
        *(function.__defaults__ or ()),
        *(function.__kwdefaults__ or {}).values(),
        *(cell.cell_contents for cell in function.__closure__ or ()),
    ]
    held = ", ".join(function_text(v) if callable(v) else str(readable(v)) for v in carried)
    return f"{function.__qualname__}({held}), code {_digest(_code_text(code))}"


def modules_text(module: nn.Module) -> str:
    """Describe what a state dict does not hold: structure, code of `forward`, hooks."""
    found = [ADDRESS.sub("", repr(module))]
    own = {type(part) for part in module.modules() if not type(part).__module__.startswith("torch")}
    found += sorted(_method_text(kind.forward) for kind in own)
    for name, part in module.named_modules():
        for hook in [*part._forward_pre_hooks.values(), *part._forward_hooks.values()]:
            found.append(f"{name}: {function_text(hook)}")
    hooks = len(found) - 1 - len(own)
    text = f"{_digest(' '.join(found))}{f', {hooks} hooks' if hooks else ''}"
    held = ADDRESS.search(" ".join(found))
    return text if held is None else f"{text}, a hook <object{held.group()}>"


def _method_text(method: Callable[..., Any]) -> str:
    code = getattr(method, "__code__", None)
    return f"{method.__qualname__} {'' if code is None else _code_text(code)}"


def _code_text(code: CodeType) -> str:
    """Return the code of a function, of those inside it too, without places in files."""
    inside = [_code_text(c) if isinstance(c, CodeType) else repr(c) for c in code.co_consts]
    return " ".join([code.co_code.hex(), *code.co_names, *inside])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _difference(key: str, there: str | None, here: str | None) -> str:
    """Show two values where they begin to differ."""
    if there is None or here is None:
        shown = [("nothing" if value is None else _around(value, 0)) for value in (there, here)]
    else:
        pairs = enumerate(zip(there, here, strict=False))
        place = next((n for n, (a, b) in pairs if a != b), min(len(there), len(here)))
        shown = [_around(there, place), _around(here, place)]
    return f"{key}: {shown[0]} there, {shown[1]} here"


def _around(text: str, place: int) -> str:
    """Cut a text to a few words before and after a place."""
    start = 0 if place < SHOWN // 2 or len(text) <= SHOWN else place - SHOWN // 2
    cut = text[start : start + SHOWN]
    return f"{'…' if start else ''}{cut}{'…' if start + SHOWN < len(text) else ''}"
