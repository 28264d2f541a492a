"""Small datasets as plain words and numbers, to be kept as JSON where a format has no place.

Why this file exists: the clock of a recording (scalars, counts per cell) has no place in NWB. What
is turned into notes here comes back the same. Nothing large belongs here.
"""

import json
from typing import Any

import numpy as np
import xarray as xr

__all__ = ["dataset_from_notes", "dataset_to_notes"]


def dataset_to_notes(dataset: xr.Dataset) -> dict[str, Any]:
    """Turn a small dataset into dicts, lists, text and numbers.

    Parameters
    ----------
    dataset : xr.Dataset
        Numbers, booleans and text; any dims and units.

    Returns
    -------
    dict
        Fit for `json.dumps`; read it with `dataset_from_notes`.
    """
    groups = {"coords": dataset.coords, "data_vars": dataset.data_vars}
    return {"attrs": _plain(dataset.attrs)} | {
        group: {
            str(name): {
                "dims": [str(dim) for dim in variable.dims],
                "dtype": "str" if variable.dtype.kind in "OTU" else str(variable.dtype),
                "data": variable.to_numpy().tolist(),
                "attrs": _plain(variable.attrs),
            }
            for name, variable in variables.items()
        }
        for group, variables in groups.items()
    }


def dataset_from_notes(notes: dict[str, Any]) -> xr.Dataset:
    """Build the dataset that `dataset_to_notes` wrote down.

    Parameters
    ----------
    notes : dict
        As written, JSON in between or not.

    Returns
    -------
    xr.Dataset
        Same dims, coordinates, values, types and attributes.
    """
    parts = {
        group: {
            name: (entry["dims"], np.asarray(entry["data"], dtype=entry["dtype"]), entry["attrs"])
            for name, entry in notes[group].items()
        }
        for group in ("coords", "data_vars")
    }
    return xr.Dataset(**parts, attrs=notes["attrs"])


def _plain(attributes: dict[Any, Any]) -> dict[str, Any]:
    """Attributes without numpy's types."""
    plain: dict[str, Any] = json.loads(
        json.dumps({str(name): value for name, value in attributes.items()}, default=_number)
    )
    return plain


def _number(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else str(value)
