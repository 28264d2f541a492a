"""Public names of a package, loaded when they are first used (PEP 562)."""

import ast
from collections.abc import Callable
from difflib import get_close_matches
from importlib import import_module
from importlib.util import resolve_name
from pathlib import Path
from typing import Any

__all__ = ["attach"]


Public = tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]


def attach(package: str, file: str) -> Public:
    """Return ``__getattr__``, ``__dir__`` and ``__all__`` of a package with a stub of its names.

    Parameters
    ----------
    package, file : str
        ``__name__`` and ``__file__`` of the package. ``__init__.pyi`` beside it holds lines
        ``from .module import name as name`` (or ``from . import module as module``).

    Returns
    -------
    load : callable
        Name to object. An unknown name raises AttributeError with the closest matches.
    names : callable
        The public names, sorted.
    public : list of str
        The same.
    """
    stub = Path(file).with_suffix(".pyi").read_text(encoding="utf-8")
    homes: dict[str, tuple[str, str]] = {}
    for node in ast.parse(stub).body:
        if isinstance(node, ast.ImportFrom):
            home = resolve_name("." * node.level + (node.module or ""), package).rstrip(".")
            homes |= {alias.asname or alias.name: (home, alias.name) for alias in node.names}

    def load(name: str) -> Any:
        if name not in homes:
            close = get_close_matches(name, homes, n=3, cutoff=0.6)
            hint = f"Did you mean {' or '.join(close)}?" if close else f"See dir({package})."
            raise AttributeError(f"module {package!r} has no {name!r}. {hint}")
        home, original = homes[name]
        if home == package:
            return import_module(f"{package}.{original}")
        return getattr(import_module(home), original)

    return load, lambda: sorted(homes), sorted(homes)
