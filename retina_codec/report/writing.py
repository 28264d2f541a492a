"""Write the report: numbers and figures into one page that needs nothing else.

Why this file exists: the page is what a person reads. It computes nothing itself; numbers come from
`numbers`, pictures from the figures, words from the template.
"""

import base64
import io
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.report.numbers import summarize
from retina_codec.storage import new_output

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["write_report"]

DOTS_PER_INCH = 170  # 1.7 pixels per pixel of the page: sharp on dense screens too

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
    "dtype": "number type",
    "versions": "versions",
    "command": "command",
}


def write_report(results: xr.DataTree, path: str | Path, *, overwrite: bool = False) -> None:
    """Write the results as one self-contained HTML page.

    Parameters
    ----------
    results : xr.DataTree
        Results of ``analyze``.
    path : str or Path
        The file to write, ``.html``.
    overwrite : bool
        Replace the file if it exists.

    Raises
    ------
    RetinaCodecError
        If the suffix is not ``.html``, the file exists, or the results lack a part.
    """
    if Path(path).suffix.lower() not in (".html", ".htm"):
        raise RetinaCodecError(f"the report is an HTML page; got {str(path)!r}. Name it *.html.")
    page = render(results)
    with new_output(path, overwrite=overwrite) as partial:
        partial.write_text(page, encoding="utf-8")


def render(results: xr.DataTree) -> str:
    """Return the page as text; no request leaves it and nothing outside it is needed."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined)
    filters: dict[str, Callable[..., str]] = {
        "number": number,
        "count": _count,
        "percent": percent,
        "layer": _layer_name,
        "listed": listed,
        "signed": _signed,
    }
    environment.filters |= filters
    template = environment.from_string(
        (files("retina_codec.report") / "template.html").read_text(encoding="utf-8")
    )
    numbers = summarize(results)
    return template.render(
        **numbers,
        figures=_figures(results),
        provenance=_provenance(results),
        checks=_checks(numbers),
    )


def number(value: float | None, digits: int = 2) -> str:
    """Format with fixed decimals; a dash where nothing is known."""
    return "–" if value is None or value != value else f"{value:.{digits}f}"


def percent(value: float | None, digits: int = 0) -> str:
    """Format a share as percent with a space that does not break; small ones keep two figures."""
    if value is None or value != value:
        return "–"
    if value != 0 and abs(value) < 0.0005:
        return f"{100 * value:.1g}\u00a0%"
    if digits == 0 and abs(value) < 0.0995 and value != 0:
        digits = 1 if abs(value) >= 0.00995 else 2
    return f"{100 * value:.{digits}f}\u00a0%"


def listed(items: list[Any]) -> str:
    """Join as in a sentence: ``a, b and c``."""
    words = [str(item) for item in items]
    if len(words) < 2:
        return words[0] if words else "none"
    return f"{', '.join(words[:-1])} and {words[-1]}"


def _signed(value: float | None, digits: int = 2) -> str:
    """Format with a true minus sign."""
    return number(value, digits).replace("-", "−")


def _count(value: float) -> str:
    """Format a large number with commas, a very large one with an exponent."""
    return f"{value:,.0f}" if value < 1e7 else f"{value:.1e}"


def _layer_name(name: str) -> str:
    from retina_codec.figures.style import layer_name

    return layer_name(name)


def _checks(numbers: dict[str, Any]) -> list[dict[str, Any]]:
    """State each check with its value, its bar, and whether the bar is reached."""
    checks = []
    prediction = numbers["prediction"]
    if prediction and prediction["share"] is not None:
        checks.append(
            {
                "what": "Does the network predict the cells?",
                "value": f"r = {number(prediction['mean'])} of a possible "
                f"{number(prediction['ceiling'])} ({percent(prediction['share'])})",
                "means": "An explanation of the network speaks about the retina only as far as "
                "the network predicts it. The possible r follows from repeats.",
                "bar": "≥ 90 % of the noise ceiling",
                "passed": prediction["share"] >= 0.9,
            }
        )
    worst = max(numbers["layers"], key=lambda layer: layer["completeness_median"])
    checks.append(
        {
            "what": "Do contributions add up?",
            "value": f"median error at most {percent(worst['completeness_median'], 2)} "
            f"of the change ({_layer_name(worst['name'])})",
            "means": "All contributions of a layer together must equal the change of the target; "
            "what is missing is error of the path integral.",
            "bar": "median < 1 % in every layer",
            "passed": worst["completeness_median"] < 0.01,
        }
    )
    for layer in numbers["layers"][:2]:
        checks.append(
            {
                "what": f"Do the modes of {_layer_name(layer['name'])} rebuild contributions?",
                "value": f"R² = {number(layer['r2'])} with {layer['live']} modes, "
                f"{number(layer['mean_active'], 1)} active at a time",
                "means": f"On {layer['held_out']} times that the modes were not fitted to "
                f"(on the fitted ones R² = {number(layer['r2_fit'])}).",
                "bar": "R² ≥ 0.85 with at least 8 modes",
                "passed": layer["r2"] >= 0.85 and layer["live"] >= 8,
            }
        )
    agreement = numbers["agreement"]
    for name, value in (agreement["types"] if agreement else {}).items():
        if name in [layer["name"] for layer in numbers["layers"][:2]]:
            checks.append(
                {
                    "what": f"Do pathways of {_layer_name(name)} match the cell types?",
                    "value": f"adjusted Rand index {number(value)}",
                    "means": "1 is the same grouping, 0 is chance. The types were not used to "
                    "find the pathways.",
                    "bar": "≥ 0.80",
                    "passed": value >= 0.8,
                }
            )
    return checks


def _provenance(results: xr.DataTree) -> list[tuple[str, str]]:
    """List where the numbers come from, known attributes first, empty ones left out."""
    rest = {n: str(n).replace("_", " ") for n in results.attrs if n not in PROVENANCE}
    return [
        (words, str(results.attrs[name]))
        for name, words in (PROVENANCE | rest).items()
        if str(results.attrs.get(name, "")) != ""
    ]


def _figures(results: xr.DataTree) -> dict[str, str]:
    """Draw every figure that the results can fill; PNGs as text."""
    from retina_codec import figures

    drawn = {
        "quality": figures.quality_checks(results),
        "target": figures.network_and_target(results),
        "contributions": figures.contribution_heat_maps(results),
    }
    layers = [node for node in results["layers"].children.values()]
    if any("pathways" in node.children for node in layers):
        drawn["pathways"] = figures.mode_matrices(results)
    if "receptive_fields" in results.children:
        drawn["fields"] = figures.irf_combinations(results)
    return {name: _as_text(figure) for name, figure in drawn.items()}


def _as_text(figure: "Figure") -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
