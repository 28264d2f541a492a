"""Groups, arrays and tables of an NWB file, read by path whatever extensions it uses.

Links never lead out of the folder of the file unnoticed.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retina_codec.errors import RetinaCodecError
from retina_codec.recordings.frames.places import Place, file_state
from retina_codec.storage.hdf5 import check_size, child, is_address, read_array

__all__ = ["HDF5Node", "Node", "Table"]

MOST_MEMBERS = 200_000  # of one group; a recording has fewer


class Node(ABC):
    """A group or an array.

    Attributes
    ----------
    path : str
        From the root of the file.
    source : str
        The file, for messages.
    """

    path: str
    source: str

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
        """Return an attribute as a plain Python value; None for a reference."""

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
        """Yield every member that is there; an array has none."""
        for name in self.names():
            found = self.get(name)
            if found is not None:
                yield found

    def groups(self, place: str) -> "list[Node]":
        """Return the groups in the group at a path below; none where nothing is there."""
        parent = self.get(place)
        found = [] if parent is None else parent.members()
        return [node for node in found if not node.is_array]

    def stored(self, name: str) -> "Node | None":
        """Return a member that is an array, or None."""
        found = self.get(name)
        return found if found is not None and found.is_array else None

    def timing(self) -> "tuple[float | None, float, Node | None]":
        """Return start (s) and rate (Hz) of a time series, and its timestamps where it has any."""
        start = self.stored("starting_time")
        if start is None:
            return None, np.nan, self.stored("timestamps")
        rate = float(start.attribute("rate", np.nan))
        return float(start.read().ravel()[0]), rate, self.stored("timestamps")


class HDF5Node(Node):
    """A node of an open HDF5 file."""

    def __init__(self, item: Any, source: str, state: str) -> None:
        self._item = item
        self.source = source
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
        if is_address(self.source) or Path(other).resolve() == Path(self.source).resolve():
            return Place(self.source, self.path, self._state)
        return Place(str(Path(other).resolve()), self.path, file_state(other))

    def names(self) -> list[str]:
        """See `Node`."""
        if self.is_array:
            return []
        if len(self._item) > MOST_MEMBERS:
            raise RetinaCodecError(f"{self.source}: {self.path} has {len(self._item)} members")
        return list(self._item)

    def get(self, name: str) -> Node | None:
        """See `Node`."""
        found = None if self.is_array else child(self._item, name)
        return None if found is None else HDF5Node(found, self.source, self._state)

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
    """Return the value of an attribute without numpy types; None for a reference."""
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


class Table(Mapping[str, Any]):
    """The columns of a table by name, each read when it is used.

    A column is an array (text as Python strings), or a list of arrays where it is ragged.

    Parameters
    ----------
    node : Node
        The group of the table.

    Raises
    ------
    RetinaCodecError
        On access: no such column, or an index that does not fit its values.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self.path = node.path
        self.name = node.name

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._node.names() if not name.endswith("_index"))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return self._node.stored(str(name)) is not None

    def __getitem__(self, name: str) -> npt.NDArray[Any] | list[npt.NDArray[Any]]:
        data, where = self._node.stored(name), f"{self._node.source}: {self.path}"
        if data is None:
            raise RetinaCodecError(
                f"{where} must have the column {name!r}; it has {', '.join(self)}"
            )
        values = data.read()
        index = self._node.stored(f"{name}_index")
        if index is None:
            return values
        ends = index.read().astype(np.int64)
        if ends.size and (ends[-1] != len(values) or (np.diff(ends) < 0).any() or ends[0] < 0):
            raise RetinaCodecError(
                f"{where}: the index of {name} must rise to the number of values, {len(values)}; "
                f"it ends at {ends[-1]}. The file is damaged."
            )
        return np.split(values, ends[:-1]) if ends.size else []
