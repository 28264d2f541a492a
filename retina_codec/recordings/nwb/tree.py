"""Groups, arrays and tables of an NWB file, read by path whatever extensions it uses.

Links never lead out of the folder of the file unnoticed.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retina_codec.errors import RetinaCodecError
from retina_codec.recordings.binning import Floats
from retina_codec.recordings.frames.places import Place, file_state
from retina_codec.storage.hdf5 import (
    DAMAGE,
    check_stored,
    child,
    is_address,
    naming_place,
    one_line,
    read_array,
    written_share,
)

__all__ = ["HDF5Node", "Node", "Table", "Tables", "as_numbers", "joined_words"]

MOST_MEMBERS = 200_000  # of one group; a recording has fewer
ROW_COLUMNS = ("spike_times_index", "spike_times", "start_time")  # one value for every row


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
    def chunks(self) -> tuple[int, ...] | None:
        """Lengths of the chunks of an array; None where it is stored as a whole."""

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

    @abstractmethod
    def target(self, name: str) -> "Node | None":
        """Return the node that an attribute refers to, or None."""

    @abstractmethod
    def written(self) -> float:
        """Return which share of an array was written; the rest reads as its fill value."""

    def regions(self) -> "list[npt.NDArray[Any]] | None":
        """Return the values that each region reference of an array selects; None for others."""
        return None

    @property
    def where(self) -> str:
        """File and path, for messages."""
        return f"{self.source}: {self.path}"

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
        try:
            found = self.get(name) if not self.is_array and name in self.names() else None
        except RetinaCodecError:  # words that nothing depends on
            return default
        if found is not None and found.is_array:
            values = found.read().ravel()
            return str(values[0]) if values.size else default
        value = self.attribute(name, default)
        return default if value is None else str(value)

    def members(self, lost: dict[str, str] | None = None) -> Iterator["Node"]:
        """Yield every member that can be reached; an array has none.

        Parameters
        ----------
        lost : dict, optional
            Gets the name of every member that cannot be reached, and why: a link to a file that is
            not there, for example of raw data that nobody needs.
        """
        for name in self.names():
            try:
                found = self.get(name)
            except RetinaCodecError as error:
                if lost is not None:
                    lost[name] = str(error)
                continue
            if found is not None:
                yield found

    def groups(self, place: str, lost: dict[str, str] | None = None) -> "list[Node]":
        """Return the groups in the group at a path below; none where nothing is there."""
        parent = self.get(place)
        found = [] if parent is None else parent.members(lost)
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
        return start.number(), start.setting("rate", np.nan), self.stored("timestamps")

    def numbers(self) -> Floats:
        """Return all values of an array; text is refused."""
        return as_numbers(self.read(), self.where)

    def number(self) -> float:
        """Return the first value of an array; NaN where it has none."""
        values = self.numbers().ravel()
        return float(values[0]) if values.size else np.nan

    def setting(self, name: str, default: float) -> float:
        """Return an attribute that is a number; NaN where it is something else."""
        value = self.attribute(name, default)
        while isinstance(value, list) and len(value) == 1:
            value = value[0]
        try:
            return float(value)
        except (TypeError, ValueError):
            return float("nan")

    def factor(self, name: str, usual: float, doubt: Callable[[str], None]) -> float:
        """Return ``conversion`` or ``offset`` of an array.

        Where the file holds NaN, text or a conversion of 0, ``usual`` is taken, and the doubt told.
        """
        value = self.setting(name, usual)
        if np.isfinite(value) and (value != 0 or usual == 0):
            return value
        doubt(
            f"{name} of {self.path} is {self.attribute(name)!r}, as some write for unknown; "
            f"{usual:g} is taken"
        )
        return usual


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
    def chunks(self) -> tuple[int, ...] | None:
        """See `Node`."""
        found: tuple[int, ...] | None = self._item.chunks
        return found

    @property
    def place(self) -> Place:
        """See `Node`; of the file that really holds the values."""
        check_stored(self._item, self._item.file.filename)
        other = self._item.file.filename
        if is_address(self.source) or Path(other).resolve() == Path(self.source).resolve():
            return Place(self.source, self.path, self._state)
        return Place(str(Path(other).resolve()), self.path, file_state(other))

    def names(self) -> list[str]:
        """See `Node`."""
        if self.is_array:
            return []
        if len(self._item) > MOST_MEMBERS:
            raise RetinaCodecError(
                f"{self.where} must have at most {MOST_MEMBERS} members; it has "
                f"{len(self._item)}. Take out what is no recording."
            )
        with naming_place(self._item):
            return list(self._item)

    def get(self, name: str) -> Node | None:
        """See `Node`."""
        found = None if self.is_array else child(self._item, name)
        return None if found is None else HDF5Node(found, self.source, self._state)

    def attribute(self, name: str, default: Any = None) -> Any:
        """See `Node`."""
        with naming_place(self._item):
            if name not in self._item.attrs:
                return default
            return plain(self._item.attrs[name])

    def read(self) -> npt.NDArray[Any]:
        """See `Node`; codes of an enumeration and references by their names."""
        import h5py

        values = read_array(self._item)
        names = h5py.check_enum_dtype(self.dtype)
        if names is not None:
            words = {number: word for word, number in names.items()}
            return np.array([words.get(code, code) for code in values.flat], dtype=object).reshape(
                values.shape
            )
        if h5py.check_ref_dtype(self.dtype) is h5py.Reference:
            return np.array([self._named(entry) for entry in values.flat], dtype=object).reshape(
                values.shape
            )
        return texts(values)

    def _target(self, reference: Any) -> Any:
        """Return what a reference points to."""
        try:
            return self._item.file[reference]
        except DAMAGE as error:
            raise RetinaCodecError(
                f"{self.where} must refer to places in this file; one of them is not there "
                f"({one_line(error)}). Write the references again."
            ) from error

    def _named(self, reference: Any) -> str:
        """Return the name of what a reference points to."""
        return str(self._target(reference).name).rsplit("/", 1)[-1] if reference else ""

    def references(self) -> list[str]:
        """See `Node`."""
        import h5py

        if h5py.check_ref_dtype(self.dtype) is not h5py.Reference:
            raise RetinaCodecError(
                f"{self.where} must hold references; it holds {self.dtype}. Write them again."
            )
        return [str(self._target(e).name) for e in read_array(self._item).ravel() if e]

    def target(self, name: str) -> Node | None:
        """See `Node`."""
        import h5py

        with naming_place(self._item):
            reference = self._item.attrs.get(name)
        if not isinstance(reference, h5py.Reference) or not reference:
            return None
        return HDF5Node(self._target(reference), self.source, self._state)

    def written(self) -> float:
        """See `Node`."""
        return 1.0 if is_address(self.source) else written_share(self._item)

    def regions(self) -> list[npt.NDArray[Any]] | None:
        """See `Node`."""
        import h5py

        if h5py.check_ref_dtype(self.dtype) is not h5py.RegionReference:
            return None
        with naming_place(self._item):
            file, found = self._item.file, read_array(self._item).ravel()
            return [texts(file[entry][entry]) if entry else np.empty(0) for entry in found]


def as_numbers(values: Any, where: str) -> Floats:
    """Return values as numbers; refuse text, records and references.

    Parameters
    ----------
    values : array
    where : str
        File and place, for the message.
    """
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        found = "text or objects" if array.dtype.kind in "OSU" else f"{array.dtype}"
        raise RetinaCodecError(f"{where} must hold numbers; it holds {found}. Write numbers there.")
    return array.astype(np.float64)


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
    if array.dtype.kind in "UT":
        return array.astype(object)
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

    A column is an array (text as Python strings; codes of an enumeration by their names), or a list
    of arrays where it is ragged.

    Parameters
    ----------
    node : Node
        The group of the table.

    Raises
    ------
    RetinaCodecError
        On access: no such column, an index that does not fit its values, or not one value per row.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self.path = node.path
        self.name = node.name
        self.where = node.where

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._node.names() if not name.endswith(("_index", "_elements")))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return self._node.stored(str(name)) is not None

    def __getitem__(self, name: str) -> npt.NDArray[Any] | list[npt.NDArray[Any]]:
        values = self._column(name)
        stored = (self._node.stored(column) for column in ROW_COLUMNS)
        first = next((column for column in stored if column is not None), None)
        rows = len(values) if first is None or name == "id" else sum(first.shape[:1] or (1,))
        if name not in ROW_COLUMNS and len(values) != rows:
            raise RetinaCodecError(
                f"{self.where} must have one {name} per row; it has {len(values)} for {rows} rows. "
                "Write the column again."
            )
        return values

    def _column(self, name: str) -> npt.NDArray[Any] | list[npt.NDArray[Any]]:
        data = self._node.stored(name)
        if data is None:
            raise RetinaCodecError(
                f"{self.where} must have the column {name!r}; it has {', '.join(self) or 'none'}. "
                "Choose one of these."
            )
        index = self._node.stored(f"{name}_index")
        if index is not None and (regions := index.regions()) is not None:
            return regions
        values = _named_codes(data)
        if index is None:
            return np.atleast_1d(values)
        ends = index.numbers().ravel()
        finite = ends[np.isfinite(ends)]
        rising = finite.size == ends.size and (np.diff(np.append(0.0, finite)) >= 0).all()
        if not (values.ndim and rising) or (ends.size and ends[-1] != len(values)):
            raise RetinaCodecError(
                f"{self.where}: the index of {name} must rise to the number of values, "
                f"{len(values) if values.ndim else 'one'}; it ends at "
                f"{ends[-1] if ends.size else 'nothing':.12g}. The file is damaged: write the "
                "column and its index again."
            )
        return np.split(values, ends[:-1].astype(np.int64)) if ends.size else []

    def rows_of(self, name: str) -> "Table | None":
        """Return the table whose rows a column refers to, or None."""
        data = self._node.stored(name)
        target = None if data is None else data.target("table")
        return None if target is None or target.is_array else Table(target)

    def numbers(self, name: str) -> Floats:
        """Return a column of one number per row."""
        values, where = self[name], f"{self.where}/{name}"
        if isinstance(values, list) or values.ndim != 1:
            raise RetinaCodecError(
                f"{where} must hold one number per row; it holds several. Write one column each."
            )
        return as_numbers(values, where)

    def words(self, name: str) -> list[str]:
        """Return a column as text; several values of one row are joined by commas."""
        return [joined_words(entry) for entry in self[name]]

    def spans(self) -> tuple[Floats, Floats]:
        """Return the start and stop of every row, s."""
        return self.numbers("start_time"), self.numbers("stop_time")


Tables = Mapping[str, Table]  # by name


def _named_codes(data: Node) -> npt.NDArray[Any]:
    """Return the values of a column; codes by the names that its ``elements`` give them."""
    values, elements = data.read(), data.target("elements")
    if elements is None or not elements.is_array or values.dtype.kind not in "iu":
        return values
    names = elements.read().ravel()
    if values.size and (values.min() < 0 or values.max() >= names.size):
        raise RetinaCodecError(
            f"{data.where} must hold numbers of {elements.path}, 0 to {names.size - 1}; it holds "
            f"{values.min()} to {values.max()}. Write the column again."
        )
    return np.asarray(names[values], dtype=object)


def joined_words(entry: Any) -> str:
    """Return one value, or several joined by commas, as text."""
    values = np.atleast_1d(np.asarray(entry, dtype=object)).ravel()
    return ", ".join(dict.fromkeys(str(value).strip() for value in values))
