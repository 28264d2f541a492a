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
from retina_codec.report.page.checks import checks_of, verdict_of
from retina_codec.report.page.downloads import downloads
from retina_codec.report.page.numbers import numbers_of
from retina_codec.report.page.text import count, listed, number, percent, plural, signed
from retina_codec.storage.trees import check_output, new_output

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["write_report"]

DOTS_PER_INCH = 170  # 1.7 pixels per pixel of the page: sharp on dense screens too


PAPER = "https://arxiv.org/abs/2603.06557"
BIBTEX = """@inproceedings{melander2026contribution,
  title = {Causal Interpretation of Neural Network Computations with Contribution Decomposition},
  author = {Melander, Joshua Brendan and Alaoui, Zaki and Liu, Shenghua and Ganguli, Surya and
            Baccus, Stephen A.},
  booktitle = {International Conference on Learning Representations (ICLR)},
  year = {2026},
  note = {arXiv:2603.06557}
}"""
GLOSSARY = {  # the words of docs/glossary.md
    "channel": "all units of a layer that share their weights, one at each place",
    "activation": "the value of a unit for one input",
    "target, F": "the one number that is explained at every moment, such as the surprisal",
    "nats": "unit of information and of surprisal; 1 nat is 1.44 bits",
    "contribution": "how much a channel moved F from its value at mean grey; in the unit of F",
    "completeness error": "what the contributions of a layer miss of the change of F",
    "mode": "a group of channels with fixed weights that act together",
    "dictionary": "all modes of a layer",
    "loading": "how strongly a mode acts at a moment; the mode is active where it is above 0",
    "R²": "share of the variance of contributions that the modes rebuild; 1 is all of it",
    "held out": "times at the end of the movie that the modes were not fitted to",
    "pathway": "a group of cells that the same modes drive",
    "adjusted Rand index": "agreement of two groupings: 1 the same, about 0 by chance",
    "receptive field": "the gradient of a cell's rate with respect to the stimulus at one moment",
    "event": "a stretch of time in which a mode is among its largest values",
    "noise ceiling": "the largest Pearson r that any prediction can have with so many repeats",
    "null": "the same computation on data without the relation in question, such as series shifted "
    "in time; p is the share of nulls that reach the value found",
    "q": "false discovery rate: share of false findings among all with this value or a smaller one",
}

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
    "no_pathways": "why there are no pathways",
    "no_receptive_fields": "why there are no receptive fields",
    "no_halves": "why the two halves were not compared",
    "no_scores": "why the modes were not scored",
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

    from retina_codec.figures.style import RED_MEANS, layer_name

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
        "plural": plural,
    }
    environment.filters |= filters
    numbers = numbers_of(results)
    checks = checks_of(numbers)
    sections = SECTIONS | {name for name in ("pathways", "fields") if numbers[name]}
    return environment.get_template("template.html").render(
        **numbers,
        figures=_figures(results, sections, failed),
        undrawn=failed or {},
        provenance=_provenance(results),
        checks=checks,
        verdict=verdict_of(numbers, checks),
        red_means=RED_MEANS,
        paper=PAPER,
        bibtex=BIBTEX,
        glossary=GLOSSARY,
        downloads=downloads(results, numbers),
    )


def _part(name: str) -> str:
    return (files("retina_codec.report.page") / name).read_text(encoding="utf-8")


def _provenance(results: xr.DataTree) -> list[tuple[str, str]]:
    """List where the numbers come from, known attributes first, empty ones left out."""
    rest = {n: str(n).replace("_", " ") for n in results.attrs if n not in PROVENANCE}
    return [
        (words, str(results.attrs[name]).replace("nan", "not known"))
        if name == "pixel_size"
        else (words, str(results.attrs[name]))
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
