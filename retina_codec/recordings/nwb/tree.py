"""The groups and arrays of an NWB file, by path: HDF5 or Zarr, here or at an address.

Why this file exists: files of real labs use extensions that are not installed, old schema versions
and links, and pynwb then refuses the whole file. NWB's layout is public and stable, so it is read
by path: every file opens the same way, fast, and no link leads out of its folder unseen. What the
groups mean is not known here; Zarr stands in nwb_zarr.py.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retina_codec.errors import RetinaCodecError
from retina_codec.recordings.frames.places import Place, file_state
from retina_codec.storage.hdf5 import check_size, child, is_address, read_array

__all__ = ["Node", "column"]

MOST_MEMBERS = 200_000  # of one group: more is no file of a recording


class Node(ABC):
    """A group or an array.

    Attributes
    ----------
    path : str
        From the root of the file.
    """

    path: str

    @property
    @abstractmethod
    def is_array(self) -> bool:
        """Whether it holds values, not members."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Of an array."""

    @property
    @abstractmethod
    def dtype(self) -> np.dtype[Any]:
        """Of an array, as stored."""

    @property
    @abstractmethod
    def place(self) -> Place:
        """Where an array can be opened again."""

    @abstractmethod
    def names(self) -> list[str]:
        """Members of a group."""

    @abstractmethod
    def get(self, name: str) -> "Node | None":
        """Return a member, links followed, or None."""

    @abstractmethod
    def attribute(self, name: str, default: Any = None) -> Any:
        """Return an attribute as plain Python; references are no plain Python and give None."""

    @abstractmethod
    def read(self) -> npt.NDArray[Any]:
        """Return all values; text as Python strings (dtype object)."""

    @abstractmethod
    def references(self) -> list[str]:
        """Return the paths that an array of references names."""

    @property
    def name(self) -> str:
        """Last part of the path."""
        return self.path.rsplit("/", 1)[-1]

    @property
    def kind(self) -> str:
        """NWB's ``neurodata_type``; empty where there is none."""
        return str(self.attribute("neurodata_type", ""))

    def text(self, name: str, default: str = "") -> str:
        """Return the text of a member or attribute."""
        found = self.get(name) if not self.is_array and name in self.names() else None
        if found is not None and found.is_array:
            values = found.read().ravel()
            return str(values[0]) if values.size else default
        value = self.attribute(name, default)
        return default if value is None else str(value)

    def members(self) -> Iterator["Node"]:
        """Give every member that is there."""
        for name in self.names():
            found = self.get(name)
            if found is not None:
                yield found


class HDF5Node(Node):
    """A node of an open HDF5 file."""

    def __init__(self, item: Any, source: str, state: str) -> None:
        self._item = item
        self._source = source
        self._state = state
        self.path = str(item.name)

    @property
    def is_array(self) -> bool:
        """See `Node`."""
        import h5py

        return isinstance(self._item, h5py.Dataset)

    @property
    def shape(self) -> tuple[int, ...]:
        """See `Node`."""
        return tuple(self._item.shape or ())

    @property
    def dtype(self) -> np.dtype[Any]:
        """See `Node`."""
        found: np.dtype[Any] = self._item.dtype
        return found

    @property
    def place(self) -> Place:
        """See `Node`; of the file that really holds the values."""
        check_size(self._item, self._item.file.filename)
        other = self._item.file.filename
        if is_address(self._source) or Path(other).resolve() == Path(self._source).resolve():
            return Place(self._source, self.path, self._state)
        return Place(str(Path(other).resolve()), self.path, file_state(other))

    def names(self) -> list[str]:
        """See `Node`."""
        if self.is_array:
            return []
        if len(self._item) > MOST_MEMBERS:
            raise RetinaCodecError(f"{self._source}: {self.path} has {len(self._item)} members")
        return list(self._item)

    def get(self, name: str) -> Node | None:
        """See `Node`."""
        found = None if self.is_array else child(self._item, name)
        return None if found is None else HDF5Node(found, self._source, self._state)

    def attribute(self, name: str, default: Any = None) -> Any:
        """See `Node`."""
        if name not in self._item.attrs:
            return default
        return plain(self._item.attrs[name])

    def read(self) -> npt.NDArray[Any]:
        """See `Node`."""
        return texts(read_array(self._item))

    def references(self) -> list[str]:
        """See `Node`."""
        file = self._item.file
        return [str(file[entry].name) for entry in read_array(self._item).ravel() if entry]


def plain(value: Any) -> Any:
    """Turn what an attribute holds into plain Python; None where it is a reference."""
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, np.ndarray):
        return [plain(entry) for entry in value.tolist()]
    if isinstance(value, np.generic):
        return plain(value.item())
    return value if isinstance(value, str | int | float | bool | list | dict) else None


def texts(values: Any) -> npt.NDArray[Any]:
    """Decode bytes to text; numbers stay as they are."""
    array: npt.NDArray[Any] = np.asarray(values)
    if array.dtype.kind not in "SO":
        return array
    decoded = np.empty(array.shape, dtype=object)
    for place in np.ndindex(array.shape):
        entry = array[place]
        decoded[place] = (
            entry.decode("utf-8", errors="replace") if isinstance(entry, bytes) else entry
        )
    return decoded


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
