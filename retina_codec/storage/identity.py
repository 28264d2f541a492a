"""Describe networks, functions and objects by what they hold, so that a store answers one question.

Descriptions are texts, the same in every process; places in memory are no part of them.
"""

import builtins
import enum
import functools
import hashlib
import inspect
import re
import sys
import weakref
import zlib
from collections import deque
from collections.abc import Mapping, Set
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import nn

from retina_codec.storage.code import (
    cells_of,
    code_text,
    escapes,
    functions_of,
    global_names,
    is_users,
    mentioned,
    package_of,
    version_of,
)
from retina_codec.storage.provenance import ADDRESS, WRITTEN, array_text, tensor_bytes

__all__ = ["describe_network", "function_text", "mark_written", "object_text"]

SHORT = 100  # letters of a value that are shown; of a longer one a hash follows

MOST = 20_000  # objects that are looked into; some networks hold a trainer and all it holds

OF_MODULES = set(nn.Module().__dict__)  # attributes of every module; hooks are described apart

ARRAYS = ("builtins", "numpy", "xarray", "pandas", "scipy")

OF_TORCH = ("torch", "builtins")  # packages whose version is described anyway

HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")

NO_NUMBERS = {  # methods that decide no number
    *("__init__", "__new__", "__post_init__", "__repr__", "__str__", "__eq__", "__hash__"),
    *("__setattr__", "__delattr__", "__reduce__", "__getstate__", "__setstate__", "__del__"),
}

MANGLED = re.compile(r"\.?___torch_mangle_\d+| # \S+:\d+:\d+")

Functions: Any = FunctionType | MethodType | property | staticmethod | classmethod


def describe_network(network: nn.Module, *, weights: bool = True) -> dict[str, str]:
    """Describe everything that decides what a network computes.

    These are the class and the attributes of every module (also of modules in lists), buffers
    outside the state dict, hooks, the code of ``forward`` and what it reaches in the user's own
    files, and the versions of the packages that other classes come from. Attributes that no code
    reached from ``forward`` mentions (a name, a date, a trainer) are left out.

    Parameters
    ----------
    network : torch.nn.Module
    weights : bool
        Describe every entry of the state dict too.

    Returns
    -------
    dict of str to str
        By name: ``network.f.heads``, ``code of Net.forward``, ``hooks of network.f``.
    """
    found = _Describer(network)
    found.add_network("network", network, weights=weights)
    return found.texts


def mark_written(
    texts: Mapping[str, str], before: Mapping[str, str], after: Mapping[str, str]
) -> dict[str, str]:
    """Replace what a run of the network changed (counters, caches) by `WRITTEN`.

    Parameters
    ----------
    texts : mapping of str to str
        Of the network as it was given.
    before, after : mapping of str to str
        Before and after the run.

    Returns
    -------
    dict of str to str
    """
    changed = {key for key in {**before, **after} if before.get(key) != after.get(key)}
    return dict(texts) | dict.fromkeys(sorted(changed), WRITTEN)


def object_text(value: Any) -> str:
    """Describe any object by its class and the values it holds."""
    return _Describer().whole_text(value)


def function_text(function: Any) -> str:
    """Describe a callable by its code, what it carries, and what it calls in the user's files."""
    return _Describer().whole_text(function)


class _Describer:
    """Texts of objects; those of functions, global values and modules are collected by name."""

    def __init__(self, network: nn.Module | None = None) -> None:
        self.texts: dict[str, str] = {}
        self._known: dict[int, str] = {}  # modules and tensors of the network by their name
        self._kept: list[Any] = []  # so that no id is used twice
        self._memory: dict[int, str] = {}
        self._inside: set[int] = set()
        self._noted: set[int] = set()  # code and classes
        self._left = MOST
        self._classes: list[type] = []  # of the user's modules
        self._names: set[str] = set()  # that their code mentions
        self._open: set[type] = set()  # classes whose objects other code may read as a whole
        self._waiting: list[tuple[type, str, str, Any]] = []  # attributes not mentioned so far
        if network is not None:
            self._know("network", network)

    def _know(self, name: str, network: nn.Module) -> None:
        for path, module in network.named_modules():
            where = f"{name}.{path}" if path else name
            self._known.setdefault(id(module), f"<{where}>")
            for key, tensor in [*module._parameters.items(), *module._buffers.items()]:
                if tensor is not None:
                    self._known.setdefault(id(tensor), f"<{where}.{key}>")

    # Networks

    def add_network(self, name: str, network: nn.Module, *, weights: bool) -> None:
        """Describe all modules of a network."""
        for path, module in network.named_modules():
            self._add_module(f"{name}.{path}" if path else name, module, weights=weights)
        if name == "network":
            self._add_hooks("every module", torch.nn.modules.module, "_global")
        self._follow_names()

    def _add_module(self, where: str, module: nn.Module, *, weights: bool) -> None:
        kind = type(module)
        self.texts[where] = self._class_name(kind)
        if isinstance(module, torch.jit.ScriptModule):
            self.texts[f"code of {where}"] = _hash(_script_text(module))
        elif isinstance(module, torch.fx.GraphModule):
            self.texts[f"code of {where}"] = _hash(str(module.code))
        elif is_users(kind):
            self._add_class(kind)
        elif package_of(kind) not in OF_TORCH:
            self._open.add(kind)
            self._add_class(kind)
        hidden = module._non_persistent_buffers_set
        for key, tensor in [*module._parameters.items(), *module._buffers.items()]:
            if tensor is None:
                self.texts[f"{where}.{key}"] = "None"
            elif key in hidden:
                self.texts[f"{where}.{key}"] = self._tensor(tensor)
            elif weights:
                self.texts[f"{where}.{key}"] = _short_tensor_text(tensor)
        for key, child in module._modules.items():
            if child is None:
                self.texts[f"{where}.{key}"] = "None"
        for key, value in self._attributes(module, OF_MODULES):
            # A package's module may read what its code does not mention; but no strange object.
            if key != "forward" and (is_users(kind) or _is_strange(value)):
                self._waiting.append((kind, f"{where}.{key}", key, value))
            else:
                self.texts.setdefault(f"{where}.{key}", self.text(value))
        self._add_hooks(where, module)

    def _add_hooks(self, where: str, owner: Any, prefix: str = "") -> None:
        for kind in HOOKS:
            hooks = [self.text(hook) for hook in getattr(owner, prefix + kind, {}).values()]
            if hooks:
                self.texts[f"hooks of {where} ({kind.strip('_')})"] = _shorten(", ".join(hooks))

    def _attributes(self, value: Any, without: Set[str] = frozenset()) -> list[tuple[str, Any]]:
        """Return attributes of an object, without values that a property keeps."""
        held = dict(getattr(value, "__dict__", {}))
        for kind in type(value).__mro__:
            slots = kind.__dict__.get("__slots__", ())
            for name in (slots,) if isinstance(slots, str) else slots:
                if hasattr(value, name) and name not in ("__dict__", "__weakref__"):
                    held.setdefault(name, getattr(value, name))
        if isinstance(value, torch.jit.ScriptModule):
            return []
        return [
            (name, one)
            for name, one in held.items()
            if name not in without
            and not isinstance(
                inspect.getattr_static(type(value), name, None), functools.cached_property
            )
        ]

    # Code

    def _add_class(self, kind: type) -> None:
        """Note a class: what its forward reaches, its plain values and the versions behind it."""
        if kind in self._classes:
            return
        self._classes.append(kind)
        self._names |= {"forward", "__call__", "__getattr__"}
        for base in kind.__mro__:
            if is_users(base):
                self._note_values(base)
            elif (package := package_of(base)) not in OF_TORCH:
                self.texts[f"version of {package}"] = version_of(package)

    def _follow_names(self) -> None:
        """Note methods and attributes that code mentions, until there are no more."""
        done: set[tuple[type, str]] = set()
        while True:
            pairs = {(kind, name) for kind in self._classes for name in self._names} - done
            ready = [one for one in self._waiting if self._counts(one[0], *one[2:])]
            self._waiting = [one for one in self._waiting if not self._counts(one[0], *one[2:])]
            if not pairs and not ready:
                return
            done |= pairs
            for kind, name in sorted(pairs, key=lambda pair: (pair[0].__qualname__, pair[1])):
                self._note_method(kind, name)
            for _, where, _, value in ready:
                self.texts.setdefault(where, self.text(value))

    def _counts(self, kind: type, name: str, value: Any) -> bool:
        return name in self._names or (kind in self._open and not _is_strange(value))

    def _note_method(self, kind: type, name: str) -> None:
        """Note what a name stands for in a class, up to the class that does not ask the next."""
        for base in kind.__mro__:
            if name not in base.__dict__:
                continue
            parts = functions_of(base.__dict__[name])
            if parts and not is_users(base) and base is not nn.Module:
                self._open.add(kind)  # it may read every attribute
            if package_of(base) in OF_TORCH:
                return
            self._note_function(base.__dict__[name])
            if any(escapes(part) for part in parts):
                self._open.add(kind)
            if not any("super" in mentioned(part.__code__) for part in parts):
                return

    def _note_values(self, kind: type) -> None:
        for name, value in vars(kind).items():
            inner = isinstance(value, Functions | type) or inspect.isdatadescriptor(value)
            if not (name.startswith("__") or name.startswith("_abc_") or inner or callable(value)):
                self.texts[f"{kind.__qualname__}.{name}"] = self.text(value)

    def _note_class(self, kind: type) -> None:
        """Note all methods of a class that is no module."""
        if id(kind) in self._noted:
            return
        self._noted.add(id(kind))
        for base in filter(is_users, kind.__mro__):
            self._note_values(base)
            for name, value in vars(base).items():
                if name not in NO_NUMBERS:
                    self._note_function(value)

    def _note_function(self, function: Any) -> None:
        """Note the code of a function, and that of others which it names."""
        for part in functions_of(function):
            if id(part) in self._noted:
                continue
            self._noted.add(id(part))
            self._kept.append(part)
            code, carried = part.__code__, self._carried(part)
            text = _hash(code_text(code)) + (f" with {carried}" if carried else "")
            key = f"code of {part.__qualname__}"
            there = self.texts.get(key)
            self.texts[key] = text if there in (None, text) else f"{there}, {text}"
            self._names |= mentioned(code)
            if is_users(part):
                self._note_globals(part)

    def _note_globals(self, function: FunctionType) -> None:
        space = function.__globals__
        for name in sorted(global_names(function.__code__)):
            if name not in space:
                continue
            value = space[name]
            if isinstance(value, ModuleType) or getattr(builtins, name, None) is value:
                continue
            if isinstance(value, type) or callable(value):
                self.text(value)
            else:
                self.texts[f"global {name}"] = self.text(value)

    # Objects

    def whole_text(self, value: Any) -> str:
        """Return the text of one object with a hash of the code behind it."""
        found = self.text(value)
        self._follow_names()
        if not self.texts:
            return found
        lines = [f"{key}: {text}" for key, text in sorted(self.texts.items())]
        return f"{found}, code {_hash(' '.join(lines))}"

    def text(self, value: Any) -> str:
        """Return the text of an object; a long one is cut, and its hash follows."""
        if id(value) in self._known:
            return self._known[id(value)]
        plain = _plain_text(value)
        if plain is not None:
            return _shorten(plain)
        key = id(value)
        if key in self._memory:
            return self._memory[key]
        if key in self._inside or self._left <= 0:
            return f"<{type(value).__name__}>"
        self._left -= 1
        self._inside.add(key)
        try:
            found = _shorten(self._text(value))
        finally:
            self._inside.discard(key)
        self._kept.append(value)
        self._memory[key] = found
        return found

    def _text(self, value: Any) -> str:
        name = type(value).__name__
        if isinstance(value, torch.Tensor):
            return self._tensor(value)
        if isinstance(value, nn.Module):
            return self._foreign_module(value)
        if isinstance(value, np.ndarray | np.generic):
            return self._array(np.asarray(value))
        if isinstance(value, xr.DataArray | xr.Variable):
            return f"{value.dims} {self._array(np.asarray(value.values))}"
        if isinstance(value, Mapping):
            items = value.items()
            held = ", ".join(f"{self.text(key)}: {self.text(one)}" for key, one in items)
            return f"{'' if type(value) is dict else name}{{{held}}}"
        if isinstance(value, Set):
            return f"{name}({', '.join(sorted(self.text(one) for one in value))})"
        if isinstance(value, list | tuple | deque):
            held = ", ".join(self.text(one) for one in value)
            return f"{'' if type(value) is list else name}[{held}]"
        if isinstance(value, type):
            if is_users(value):
                self._note_class(value)
            return self._class_name(value)
        if isinstance(value, functools.partial):
            given = [value.args, value.keywords]
            return f"partial({self.text(value.func)}, {self.text(given)})"
        if isinstance(value, Functions) or hasattr(value, "__wrapped__"):
            return self._function(value)
        return self._object(value)

    def _function(self, function: Any) -> str:
        """Return name, and what the function carries along; its code is noted."""
        if isinstance(function, property | staticmethod | classmethod):
            self._note_function(function)
            return type(function).__name__
        bound = getattr(function, "__self__", None)
        inner = getattr(function, "__wrapped__", None)
        if not hasattr(function, "__code__"):  # functools.lru_cache, say
            return f"{type(function).__name__}({self.text(inner)})"
        self._note_function(function)
        held = "" if bound is None else self.text(bound)
        inner = function.__func__ if isinstance(function, MethodType) else function
        return f"{function.__qualname__}({', '.join(filter(None, [held, self._carried(inner)]))})"

    def _carried(self, function: Any) -> str:
        """Return defaults and closure of a function."""
        given = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
        return _shorten(", ".join(self.text(one) for one in [*given, *cells_of(function)]))

    def _object(self, value: Any) -> str:
        """Return class and attributes; of an object of Python, torch or in C, what it shows."""
        kind = type(value)
        if isinstance(value, BuiltinFunctionType):
            owner = getattr(value, "__self__", None)
            named = isinstance(owner, type | ModuleType) or owner is None
            return f"{value.__qualname__}({'' if named else self.text(owner)})"
        if isinstance(value, torch.jit.ScriptFunction):
            return _hash(MANGLED.sub("", str(value.inlined_graph)))
        if package_of(kind) in _OPAQUE:
            if not ADDRESS.search(text := _shown(value)):
                return text
            shows: Any = kind.__repr__
            if package_of(kind) != "torch" and shows is object.__repr__:  # a pool, a thread's local
                return f"<{kind.__qualname__}>"
        if is_users(kind):
            self._note_class(kind)
        held = [f"{name}={self.text(one)}" for name, one in self._attributes(value)]
        if not held and not is_users(kind) and not ADDRESS.search(text := _shown(value)):
            return text
        return f"{self._class_name(kind)}({', '.join(held)})"

    def _foreign_module(self, module: nn.Module) -> str:
        """Return the text of a module that torch does not know as part of the network."""
        inner = _Describer()
        inner._known, inner._left = dict(self._known), self._left
        inner._inside = self._inside  # a module may hold the one that holds it
        inner._know("part", module)
        inner.add_network("part", module, weights=True)
        self._left = inner._left
        return f"{self._class_name(type(module))} {_hash(repr(sorted(inner.texts.items())))}"

    def _tensor(self, values: torch.Tensor) -> str:
        digest = hashlib.sha256()
        for part in tensor_bytes(values):
            digest.update(part)
        return f"{_tensor_kind(values)} {digest.hexdigest()[:16]}"

    def _array(self, values: np.ndarray) -> str:
        if values.dtype.kind == "O":
            return f"array {values.shape} {self.text(values.ravel().tolist())}"
        return array_text(values)

    def _class_name(self, kind: type) -> str:
        return kind.__qualname__ if is_users(kind) else f"{kind.__module__}.{kind.__qualname__}"


_OPAQUE = {"torch", *sys.stdlib_module_names}


def _is_strange(value: Any) -> bool:
    """Return whether an object is of a class of a package that has nothing to do with arrays."""
    kind = type(value)
    return not (is_users(kind) or callable(value) or package_of(kind) in (*_OPAQUE, *ARRAYS))


def _plain_text(value: Any) -> str | None:
    """Return the text of a value that holds no other, or None."""
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | range):
        kind = type(value)
        if isinstance(value, enum.Enum):
            return f"{kind.__qualname__}.{value.name}"
        return repr(value) if kind.__module__ == "builtins" else f"{kind.__name__} {value!r}"
    if isinstance(value, torch.dtype | torch.device | torch.Size | torch.layout | slice):
        return repr(value)
    if isinstance(value, np.generic) and value.dtype.kind in "biufcSU":
        return repr(value)
    if isinstance(value, torch.memory_format):
        return str(value)
    if isinstance(value, torch.Generator | ModuleType):
        return getattr(value, "__name__", "<generator>")
    if isinstance(value, enum.Enum):
        return f"{type(value).__qualname__}.{value.name}"
    if isinstance(value, weakref.ReferenceType | weakref.ProxyType):
        return "<reference>"
    return None


def _script_text(module: Any) -> str:
    """Return code and attributes of a scripted module."""
    text = module._c.dump_to_str(True, True, False)
    return ADDRESS.sub("", MANGLED.sub("", str(text)))


def _tensor_kind(values: torch.Tensor) -> str:
    layout = "" if values.layout == torch.strided else f" {_name(values.layout)}"
    shape = "nested" if values.is_nested else tuple(values.shape)
    return f"tensor {shape} {_name(values.dtype)}{layout}"


def _short_tensor_text(values: torch.Tensor) -> str:
    """Return what names a weight that differs; the hash of all weights tells that one does."""
    total = 0
    for part in tensor_bytes(values):
        total = zlib.crc32(part, total)
    return f"{_tensor_kind(values)} {total:08x}"


def _name(value: Any) -> str:
    return str(value).removeprefix("torch.")


def _shown(value: Any) -> str:
    try:
        return repr(value)
    except Exception:  # of any class; it is then known by its name
        return f"<{type(value).__name__}>"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _shorten(text: str) -> str:
    return text if len(text) <= SHORT else f"{text[: SHORT // 2]}… {_hash(text)}"
