"""Read datasets back from the tables and series of a module that `tables` wrote."""

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.report.nwb.tables import NOTES
from retina_codec.storage.hdf5 import child, read_array

__all__ = ["notes_of", "read_node"]


def notes_of(module: Any, path: str) -> dict[str, Any]:
    """Read the notes of a module: the table of notes, in older files the end of its description.

    Parameters
    ----------
    module : h5py.Group
    path : str
        Of the file, for messages.

    Returns
    -------
    dict

    Raises
    ------
    RetinaCodecError
        It has no such notes.
    """
    table = child(module, NOTES)
    try:
        if table is not None:
            notes = _joined(
                *(map(json.loads, _read(module, f"{NOTES}/{name}")) for name in ("place", "value"))
            )
        else:  # files of older versions
            description = module.attrs.get("description", "")
            text = description.decode() if isinstance(description, bytes) else str(description)
            notes = json.loads(text.partition("\n")[2])
        if isinstance(notes["nodes"], dict):
            return notes
    except (json.JSONDecodeError, KeyError, TypeError, IndexError):
        pass
    raise RetinaCodecError(
        f"{path}: {module.name} must hold the table of notes of the export; it does not. Export "
        "the results again."
    )


def _joined(places: Iterable[list[str]], values: Iterable[Any]) -> dict[str, Any]:
    """Build nested dicts of values and the keys that lead to each."""
    found: dict[str, Any] = {}
    for place, value in zip(places, values, strict=True):
        inside = found
        for key in place[:-1]:
            inside = inside.setdefault(key, {})
        inside[place[-1]] = value
    return found


def read_node(module: Any, node: dict[str, Any]) -> xr.Dataset:
    """Build one node of the tree.

    Parameters
    ----------
    module : h5py.Group
    node : dict
        Its notes.

    Returns
    -------
    xr.Dataset
        Dims, coordinates, types and attributes as they were.

    Raises
    ------
    RetinaCodecError
        A table or series is missing, or has another size.
    """
    coords: dict[str, xr.Variable] = {}
    variables: dict[str, xr.Variable] = {}
    for name, entry in node["variables"].items():
        array = xr.DataArray(_values(module, name, entry), dims=entry["dims"], attrs=entry["attrs"])
        array = array.transpose(*entry.get("order", entry["dims"]))
        (coords if entry.get("coord") else variables)[name] = array.variable
    return xr.Dataset(variables, coords=coords, attrs=node["attrs"])


def _values(module: Any, name: str, entry: dict[str, Any]) -> npt.NDArray[Any]:
    """Values of one variable, wherever they stand."""
    values: npt.NDArray[Any]
    if "clock" in entry:
        clock = entry["clock"]
        values = clock["start"] + np.arange(entry["shape"][0]) / clock["rate"]
        if "rounding" in clock:
            values = values + _read(module, clock["rounding"])
    elif "runs" in entry:
        labels = _read(module, f"{entry['runs']}/label")
        values = np.repeat(labels, _read(module, f"{entry['runs']}/bins"))
    elif "nan" in entry:
        values = np.full(entry["shape"], np.nan)
    elif "values" in entry:
        values = np.array(entry["values"], dtype=entry["dtype"])
    else:
        values = _read(module, entry["at"])
        values = values[entry["row"]] if "row" in entry else values
    if values.size != np.prod(entry["shape"], dtype=int):
        raise RetinaCodecError(
            f"{module.file.filename}: {module.name} must hold {entry['shape']} values of {name}; "
            f"it holds {values.size}. The file was changed: export the results again."
        )
    return values.reshape(entry["shape"]).astype(entry["dtype"])


def _read(module: Any, place: str) -> npt.NDArray[Any]:
    dataset = child(module, place)
    if dataset is None:
        raise RetinaCodecError(
            f"{module.file.filename}: {module.name} must hold {place}; it does not. The file was "
            "changed: export the results again."
        )
    values = read_array(dataset)
    if values.dtype.kind in "OS":
        text = [v.decode() if isinstance(v, bytes) else str(v) for v in values.ravel()]
        values = np.array(text, dtype=str).reshape(values.shape)
    return values
