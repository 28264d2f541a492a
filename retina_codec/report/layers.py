"""One row per layer of what results hold, for a notebook."""

import numpy as np
import xarray as xr

from retina_codec.contributions.results import completeness
from retina_codec.storage.results import layers_of, modes_at

__all__ = ["layer_table"]

OF_MODES = {
    "live_modes": ("count", "modes that act at all"),
    "r2": ("1", "R² of modes on held-out samples"),
    "mean_active": ("count", "modes active at a time, mean"),
}


def layer_table(results: xr.DataTree) -> xr.Dataset:
    """Say of every layer what was found: a table for a notebook, ``.to_dataframe()``.

    Parameters
    ----------
    results : xr.DataTree
        Of `contribute`, `decompose`, `find_pathways` or `analyze`, for any kind of network.

    Returns
    -------
    xr.Dataset, dims (layer)
        ``channels`` (count); ``completeness`` (what results say of it, text) and
        ``completeness_error`` (median, share of the change of the target); ``live_modes`` (count),
        ``r2`` (1), ``mean_active`` (count) of modes; ``pathways`` (count). What no layer has is
        left out, what one has not is NaN, or empty text.

    Raises
    ------
    RetinaCodecError
        If the results hold no layers.

    Examples
    --------
    >>> import torch
    >>> import retina_codec as rc
    >>> network = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 1))
    >>> explained = rc.contribute(network, torch.ones(5, 3), target=rc.targets.Sum(), layers=["0"],
    ...                           method=rc.methods.IntegratedGradients(steps=1))
    >>> rc.report.layer_table(explained)["channels"].values
    array([2.])
    """
    names = layers_of(results)
    rows = {name: _row(results, name) for name in names}
    found = xr.Dataset(coords={"layer": names})
    for key in dict.fromkeys(key for row in rows.values() for key in row):
        values = [
            rows[name].get(key, ("" if key == "completeness" else np.nan, {})) for name in names
        ]
        attrs = next(rows[name][key][1] for name in names if key in rows[name])
        found[key] = ("layer", [value for value, _ in values], attrs)
    return found.assign_attrs({k: v for k, v in results.attrs.items() if k in ("target", "method")})


def _row(results: xr.DataTree, name: str) -> dict[str, tuple[float | str, dict[str, str]]]:
    """Return name to (value, attributes) of what one layer holds."""
    node = results["layers"].children[name]
    layer = node.to_dataset()
    row: dict[str, tuple[float | str, dict[str, str]]] = {}
    if "channel" in layer.sizes:
        row["channels"] = float(layer.sizes["channel"]), {"units": "count"}
    if "completeness" in layer.attrs:
        row["completeness"] = str(layer.attrs["completeness"]), {}
    if {"completeness_error", "target_change"} <= set(layer.data_vars):
        alone = xr.DataTree.from_dict({f"/layers/{name}": layer})
        error = float(completeness(alone)["median"][0])
        row["completeness_error"] = error, {"units": "1"}
    if "modes" in node.children:
        modes = modes_at(results, name)
        for key, (unit, words) in OF_MODES.items():
            if key in modes:
                row[key] = float(modes[key]), {"units": unit, "long_name": words}
    if "pathways" in node.children and "pathway" in node.children["pathways"].data_vars:
        groups = node.children["pathways"].to_dataset()["pathway"].values
        row["pathways"] = float(len(np.unique(groups))), {"units": "count"}
    return row
