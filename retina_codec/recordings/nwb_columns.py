"""One column of a table of an NWB file, read alone: ragged or not."""

from typing import Any

import numpy as np
import numpy.typing as npt

from retina_codec.errors import RetinaCodecError
from retina_codec.recordings.nwb_tree import Node

__all__ = ["column"]


def column(table: Node, name: str, path: str) -> npt.NDArray[Any] | list[npt.NDArray[Any]]:
    """Read one column of a table: an array, or a list of arrays where it is ragged.

    Parameters
    ----------
    table : Node
    name : str
    path : str
        For messages.

    Returns
    -------
    numpy.ndarray or list of numpy.ndarray

    Raises
    ------
    RetinaCodecError
        No such column, or an index that does not fit its values.
    """
    data = table.get(name)
    if data is None or not data.is_array:
        have = [entry for entry in table.names() if not entry.endswith("_index")]
        raise RetinaCodecError(
            f"{path}: {table.path} must have the column {name!r}; it has {', '.join(have)}"
        )
    values = data.read()
    index = table.get(f"{name}_index")
    if index is None or not index.is_array:
        return values
    ends = index.read().astype(np.int64)
    if ends.size and (ends[-1] != len(values) or (np.diff(ends) < 0).any() or ends[0] < 0):
        raise RetinaCodecError(
            f"{path}: the index of {table.path}/{name} must rise to the number of values, "
            f"{len(values)}; it ends at {ends[-1]}. The file is damaged."
        )
    return np.split(values, ends[:-1]) if ends.size else []
