"""Write docs/api.md: every public name with the first line of its docstring."""

import inspect
import sys
from pathlib import Path

import retina_codec as rc

HEAD = """# Public names

Written by `make api` from the stubs (`__init__.pyi`) and docstrings; `help(rc.contribute)` shows
the whole text. Names that are not on this page are internal and may change without notice.
"""


def first_line(item: object) -> str:
    """Return the first sentence of a docstring, fit for the cell of a table."""
    text = (inspect.getdoc(item) or "").split("\n\n")[0]
    return " ".join(text.split()).replace("|", "\\|")


def table(title: str, package: object, prefix: str, names: list[str]) -> str:
    """Return one section: a heading, what the submodule holds, and a row for each name."""
    rows = [f"| `{prefix}{name}` | {first_line(getattr(package, name))} |" for name in names]
    return "\n".join(
        [f"## {title}\n", f"{first_line(package)}\n", "| name | |", "|---|---|", *rows]
    )


def page() -> str:
    """Return the text of docs/api.md."""
    names = [name for name in dir(rc) if not name.startswith("_")]
    modules = [name for name in names if inspect.ismodule(getattr(rc, name))]
    verbs = [name for name in names if name not in modules]
    parts = [HEAD, table("rc", rc, "rc.", verbs)]
    for module in modules:
        package = getattr(rc, module)
        # a module without a stub names its public objects in __all__
        public = sorted(name for name in package.__all__ if not name.startswith("_"))
        objects = [
            name for name in public if callable(getattr(package, name)) or name == "registry"
        ]
        parts.append(table(f"rc.{module}", package, f"rc.{module}.", objects))
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


if __name__ == "__main__":
    Path(__file__).with_name("api.md").write_text(page(), encoding="utf-8")
    sys.exit(0)
