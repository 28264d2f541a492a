"""Read datasets back from the tables and series of a module that `tables` wrote."""

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.storage.hdf5 import child, read_array

__all__ = ["notes_of", "read_node"]


def notes_of(module: Any, path: str) -> dict[str, Any]:
    """Read the notes that end a module's description.

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
        The description ends in no such notes.
    """
    description = module.attrs.get("description", "")
    text = description.decode() if isinstance(description, bytes) else str(description)
    try:
        notes: dict[str, Any] = json.loads(text.partition("\n")[2])
        if isinstance(notes["nodes"], dict):
            return notes
    except (json.JSONDecodeError, KeyError, TypeError):
        pass
    raise RetinaCodecError(
        f"{path}: the description of {module.name} must end in the notes of the export; it does "
        "not. Export the results again."
    )


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
