"""The authors' own code, loaded from a folder that the user gives.

Why this file exists: speed and error are compared with the published implementation (bscope,
baccuslab), of which nothing is kept here. The folder is a clone; it must hold the package
``bscope/``. Only what the comparison needs is imported: the package's own ``__init__`` asks for
packages of its figures.
"""

import importlib
import importlib.machinery
import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

__all__ = ["load_autoencoder", "load_scope"]


def load_scope(reference: str | Path) -> tuple[Any, Any]:
    """Return the classes ``Scope`` and ``Inspector``.

    Parameters
    ----------
    reference : path
        The folder that contains the package ``bscope/``.

    Returns
    -------
    type, type
    """
    _open_package(reference)
    scope = importlib.import_module("bscope.scope")
    inspector = importlib.import_module("bscope.inspector")
    return scope.Scope, inspector.Inspector


def load_autoencoder(reference: str | Path) -> Any:
    """Return the class ``STSAE``, the autoencoder of the retina script."""
    _open_package(reference)
    return importlib.import_module("bscope.sae").STSAE


def _open_package(reference: str | Path) -> None:
    """Make ``bscope`` known without running its own ``__init__``."""
    package = Path(reference) / "bscope"
    if not (package / "scope.py").is_file():
        raise SystemExit(
            f"--reference must name the folder that holds bscope/scope.py; got {reference}. "
            "Clone github.com/baccuslab/bscope."
        )
    if importlib.util.find_spec("IPython") is None:
        # Imported for an interactive shell that is never opened.
        stand_in = types.ModuleType("IPython")
        stand_in.__spec__ = importlib.machinery.ModuleSpec("IPython", None)
        stand_in.embed = None  # type: ignore[attr-defined]
        sys.modules["IPython"] = stand_in
    outer = types.ModuleType("bscope")
    outer.__path__ = [str(package)]
    sys.modules["bscope"] = outer
