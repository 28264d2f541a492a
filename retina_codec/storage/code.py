"""Read what functions are made of: code, names that they mention, values that they carry."""

import dis
import functools
import inspect
import sys
from collections.abc import Iterator
from types import CodeType, FunctionType, MethodType
from typing import Any

__all__ = [
    "cells_of",
    "code_text",
    "escapes",
    "functions_of",
    "global_names",
    "is_users",
    "mentioned",
    "package_of",
    "version_of",
]


def functions_of(value: Any) -> list[FunctionType]:
    """Return the functions of Python that a method, a property or a decorated function holds."""
    if isinstance(value, FunctionType):
        inner = getattr(value, "__wrapped__", None)
        return [value, *(functions_of(inner) if isinstance(inner, FunctionType) else ())]
    if isinstance(value, property):
        return [part for getter in (value.fget,) for part in functions_of(getter)]
    for name in ("__func__", "func", "__wrapped__"):
        inner = inspect.getattr_static(value, name, None)
        if isinstance(inner, FunctionType):
            return functions_of(inner)
    if isinstance(value, MethodType | staticmethod | classmethod):
        return functions_of(value.__func__)
    return []


def cells_of(function: Any) -> list[Any]:
    """Return the values of a closure; one that is not filled yet is left out."""
    found = []
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        if name == "__class__":  # of methods with super()
            continue
        try:
            found.append(cell.cell_contents)
        except ValueError:
            continue
    return found


def package_of(value: Any) -> str:
    """Return the name of the package that a class comes from."""
    return (getattr(value, "__module__", None) or "builtins").partition(".")[0]


@functools.cache
def _is_library(module: str) -> bool:
    """Return whether a module belongs to Python or to an installed package, which has a version."""
    top = module.partition(".")[0]
    if top in ("torch", "builtins", "retina_codec") or top in sys.stdlib_module_names:
        return top != "__main__"
    file = getattr(sys.modules.get(module), "__file__", None) or ""
    return "site-packages" in file or "dist-packages" in file


def is_users(value: Any) -> bool:
    """Return whether a class or function was written by the user."""
    module = getattr(value, "__module__", None)
    if value is object or not isinstance(module, str):
        return False
    return module == "__main__" or not _is_library(module)


def version_of(package: str) -> str:
    """Return the version that an imported package tells."""
    return str(getattr(sys.modules.get(package), "__version__", "unknown"))


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _codes(inner)


def mentioned(code: CodeType) -> set[str]:
    """Return the names in a function, also those in quotes, which getattr may ask for."""
    found: set[str] = set()
    for part in _codes(code):
        quoted = [one for one in part.co_consts if isinstance(one, str) and one.isidentifier()]
        found |= {*part.co_names, *quoted}
    return found


def global_names(code: CodeType) -> set[str]:
    """Return the names that a function looks up outside itself."""
    return {
        str(step.argval)
        for part in _codes(code)
        for step in dis.get_instructions(part)
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")
    }


def code_text(code: CodeType) -> str:
    """Return the code of a function, of those inside it too, without places in files."""
    inside = [code_text(c) if isinstance(c, CodeType) else _constant(c) for c in code.co_consts]
    return " ".join([code.co_code.hex(), *code.co_names, *inside])


def _constant(value: Any) -> str:
    """Return a constant; a set in an order that is the same in every process."""
    if isinstance(value, frozenset):
        return f"frozenset({sorted(map(_constant, value))})"
    if isinstance(value, tuple):
        return f"({', '.join(map(_constant, value))})"
    return repr(value)


def escapes(function: FunctionType) -> bool:
    """Return whether a method hands its object on as a whole, so that others may read it."""
    own = function.__code__.co_varnames[:1]
    if not own:
        return False
    for part in _codes(function.__code__):
        steps = list(dis.get_instructions(part))
        for step, after in zip(steps, [*steps[1:], None], strict=True):
            loaded = step.argval if isinstance(step.argval, tuple) else (step.argval,)
            if not step.opname.startswith(("LOAD_FAST", "LOAD_DEREF")) or own[0] not in loaded:
                continue
            if after is None or after.opname not in ("LOAD_ATTR", "LOAD_METHOD", "STORE_ATTR"):
                return True
    return False
