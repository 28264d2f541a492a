"""Which run a store belongs to, in words and hashes that another process finds again.

Why this file exists: a store may only be continued by the very run that began it, and must say
what differs if it is another. Everything that decides a number is described here, functions by
their code. It knows nothing of files.
"""

import functools
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from importlib.metadata import version
from types import CodeType
from typing import Any

from torch import nn

from retina_codec.contributions.provenance import readable, state_hash
from retina_codec.contributions.running import Runner
from retina_codec.contributions.shards import shard_length
from retina_codec.contributions.sources import Source
from retina_codec.errors import RetinaCodecError

__all__ = ["check_same", "function_text", "run_identity"]

FORMAT = "retina-codec run 1"
ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
SHOWN = 70  # letters of a value in a message


def run_identity(runner: Runner, source: Source, settings: Mapping[str, Any]) -> dict[str, str]:
    """Describe a run: settings, network, inputs and how they are cut.

    Parameters
    ----------
    runner : Runner
    source : Source
    settings : mapping
        What the result says of the run.

    Returns
    -------
    dict of str to str
        The same in every process that runs the same.

    Raises
    ------
    RetinaCodecError
        If something is only known by its place in memory, so that it cannot be recognised.
    """
    plan = runner.plan
    function = getattr(plan.target, "function", None)
    found = {
        "format": FORMAT,
        **{key: str(value) for key, value in settings.items()},
        "target": plan.target.describe() if function is None else function_text(function),
        "layers": ", ".join(f"{name} {layer.shape}" for name, layer in runner.layers.items()),
        "modules": _modules_text(plan.network.module),
        "inputs": source.text(),
        "batch_size": str(plan.batch_size),
        "shard": str(shard_length(runner)),
        "device_type": plan.device.type,
        "versions": f"{settings.get('versions', '')}, zarr {version('zarr')}",
    }
    for key, value in found.items():
        if held := ADDRESS.search(value):
            raise RetinaCodecError(
                "a store must tell this run from others, so everything must be described by its "
                f"values; {key} holds {_around(value, held.start())}. "
                "Give its class a __repr__ that shows its values (a dataclass has one), use a "
                "plain function, or leave store out."
            )
    return found


def check_same(found: Any, identity: Mapping[str, str], path: Any) -> None:
    """Check that what a store says of its run is this run.

    Parameters
    ----------
    found : str or None
        JSON, as written by an earlier run.
    identity : mapping
        See `run_identity`.
    path : path
        For the message.

    Raises
    ------
    RetinaCodecError
        If it is no run, or another one: then every difference is named.
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
    """Describe a callable by name, code and what it carries along; not by what it calls."""
    if isinstance(function, nn.Module):
        return f"{_modules_text(function)} {state_hash(function)}"
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


def _modules_text(module: nn.Module) -> str:
    """Describe what a state dict does not hold: structure, own forward code, hooks of others."""
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
