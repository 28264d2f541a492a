"""Tables that the page offers to save: hypotheses, cells and modes as CSV."""

import base64
import csv
import io
import logging
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import xarray as xr

from retina_codec.storage.results import layers_with, table

__all__ = ["downloads"]

log = logging.getLogger(__name__)


def downloads(results: xr.DataTree, numbers: dict[str, Any]) -> list[dict[str, str]]:
    """Write the tables behind the page.

    Parameters
    ----------
    results : xr.DataTree
    numbers : dict
        From `numbers_of`.

    Returns
    -------
    list of dict
        ``name`` of the file, ``what`` it holds, ``data`` (base64 of CSV in UTF-8).
    """
    found = [
        ("cells.csv", "one row per cell: type, prediction, pathways", _cells(results)),
        ("modes.csv", "one row per mode: how often it acts, its channels", _modes(numbers)),
    ]
    if "hypotheses" in results.children:
        try:
            words = _hypotheses(results)
            found.append(("hypotheses.csv", "one row per hypothesis, every number", words))
        except Exception:  # the page is worth more than this table
            log.warning("the page has no hypotheses.csv", exc_info=True)
    return [
        {"name": name, "what": what, "data": base64.b64encode(text.encode()).decode("ascii")}
        for name, what, text in found
    ]


def _csv(rows: list[dict[str, Any]]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]) if rows else [])
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def _cells(results: xr.DataTree) -> str:
    responses = table(results, "responses")
    named = ("pearson", "pearson_noise_free", "noise_ceiling")
    columns = {"cell": responses["cell"].values, "type": responses["type"].values}
    columns |= {name: responses[name].values for name in named if name in responses}
    for layer in layers_with(results, "pathways"):
        node = table(results, f"layers/{layer}/pathways")
        columns[f"pathway_{layer}"] = node["pathway"].sel(cell=responses["cell"].values).values
    count = len(columns["cell"])
    return _csv([{name: values[i] for name, values in columns.items()} for i in range(count)])


def _modes(numbers: dict[str, Any]) -> str:
    return _csv(
        [
            {
                "layer": layer["name"],
                "mode": mode["mode"],
                "active_share_held_out": mode["active"],
                "share_of_squared_loading": mode["share"],
                "excitatory_channels": ", ".join(mode["excitatory"]),
                "inhibitory_channels": ", ".join(mode["inhibitory"]),
            }
            for layer in numbers["layers"]
            for mode in layer["modes"]
        ]
    )


def _hypotheses(results: xr.DataTree) -> str:
    """Return what the command line writes as hypotheses.csv."""
    from retina_codec.analysis.hypotheses.table import hypotheses_to_table

    with TemporaryDirectory() as folder:
        path = Path(folder) / "hypotheses.csv"
        hypotheses_to_table(table(results, "hypotheses"), path)
        return path.read_text(encoding="utf-8")
