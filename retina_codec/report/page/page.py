"""Write the results as one HTML page that holds all its figures and needs no other file."""

import base64
import io
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.figures.base import drawn_figures
from retina_codec.report.page.checks import checks_of
from retina_codec.report.page.numbers import numbers_of
from retina_codec.report.page.text import count, listed, number, percent, signed
from retina_codec.storage.trees import check_output, new_output

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["write_report"]

DOTS_PER_INCH = 170  # 1.7 pixels per pixel of the page: sharp on dense screens too


SECTIONS = {"read", "checks", "contributions", "trust"}  # of every page


# Attributes of the results that the provenance table explains; others are listed by their name.
PROVENANCE = {
    "session": "session",
    "species": "species",
    "source": "source",
    "source_sha256": "source, SHA-256",
    "recording_file": "recording file",
    "recording_sha256": "recording file, SHA-256",
    "split": "part of the recording",
    "frame_rate": "frame rate (Hz)",
    "pixel_size": "pixel size (µm)",
    "network": "network",
    "network_folder": "network folder",
    "network_sha256": "network weights, SHA-256",
    "target": "target",
    "method": "contribution method",
    "steps": "steps of the path integral",
    "path": "path",
    "baseline": "baseline (standard deviations from mean grey)",
    "seed": "seed",
    "no_hypotheses": "why there are no hypotheses",
    "dtype": "number type",
    "versions": "versions",
    "command": "command",
}


def write_report(
    results: xr.DataTree, path: str | Path, *, overwrite: bool = False
) -> dict[str, str]:
    """Write the results as one self-contained HTML page.

    Parameters
    ----------
    results : xr.DataTree
        Results of ``analyze``.
    path : str or Path
        The file to write, ``.html``.
    overwrite : bool
        Replace the file if it exists.

    Returns
    -------
    dict of str to str
        Figures that could not be drawn, and why; the page says so too. Empty where all went well.

    Raises
    ------
    RetinaCodecError
        If the suffix is not ``.html``, the file exists, or the results lack a part.
    """
    if Path(path).suffix.lower() not in (".html", ".htm"):
        raise RetinaCodecError(f"the report is an HTML page; got {str(path)!r}. Name it *.html.")
    check_output(path, overwrite=overwrite)
    failed: dict[str, str] = {}
    page = render(results, failed)
    with new_output(path, overwrite=overwrite) as partial:
        partial.write_text(page, encoding="utf-8")
    return failed


def render(results: xr.DataTree, failed: dict[str, str] | None = None) -> str:
    """Return the page as text; no request leaves it and nothing outside it is needed.

    ``failed`` gets why figures could not be drawn; without it such a figure is an error.
    """
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    from retina_codec.figures.style import layer_name

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, loader=FunctionLoader(_part)
    )
    filters: dict[str, Callable[..., str]] = {
        "number": number,
        "count": count,
        "percent": percent,
        "layer": layer_name,
        "listed": listed,
        "signed": signed,
    }
    environment.filters |= filters
    numbers = numbers_of(results)
    sections = SECTIONS | {name for name in ("pathways", "fields") if numbers[name]}
    return environment.get_template("template.html").render(
        **numbers,
        figures=_figures(results, sections, failed),
        undrawn=failed or {},
        provenance=_provenance(results),
        checks=checks_of(numbers),
    )


def _part(name: str) -> str:
    return (files("retina_codec.report.page") / name).read_text(encoding="utf-8")


def _provenance(results: xr.DataTree) -> list[tuple[str, str]]:
    """List where the numbers come from, known attributes first, empty ones left out."""
    rest = {n: str(n).replace("_", " ") for n in results.attrs if n not in PROVENANCE}
    return [
        (words, str(results.attrs[name]))
        for name, words in (PROVENANCE | rest).items()
        if str(results.attrs.get(name, "")) != ""
    ]


def _figures(
    results: xr.DataTree, sections: set[str], failed: dict[str, str] | None
) -> dict[str, list[dict[str, str]]]:
    """Draw every figure that the results can fill, by section of the page; PNGs as text."""
    found: dict[str, list[dict[str, str]]] = {}
    for figure, drawn in drawn_figures(results, page=True, failed=failed):
        place = figure.section if figure.section in sections else "further"
        found.setdefault(place, []).append(
            {
                "title": figure.title,
                "look_for": figure.look_for,
                "caption": figure.caption_of(results),
                "png": _as_text(drawn),
            }
        )
    return found


def _as_text(figure: "Figure") -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
