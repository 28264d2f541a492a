"""Open an NWB file: HDF5 or a Zarr folder (format 2 or 3), on this machine or at an address.

Pickled references are read by an unpickler that accepts four names and never runs code.
"""

import io
import json
import os
import pickle
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from retina_codec.errors import RetinaCodecError
from retina_codec.recordings.frames.places import Place, file_state, open_place
from retina_codec.recordings.nwb.tree import HDF5Node, Node, plain, texts
from retina_codec.storage.hdf5 import (
    ALWAYS_READ,
    MOST_PACKED,
    hdf5_input,
    is_address,
    one_line,
)

__all__ = ["is_nwb_zarr", "open_nwb"]

ONE_FILE = "zarr.json"  # of every node of format 3
DESCRIPTIONS = (".zarray", ".zgroup", ".zattrs", ".zmetadata", ONE_FILE)
SAFE_CODECS = ("vlen-utf8", "vlen-bytes", "json2", "vlen-array")


@contextmanager
def open_nwb(path: str | os.PathLike[str]) -> Iterator[Node]:
    """Open an NWB file and yield its root.

    Parameters
    ----------
    path : path
        An HDF5 file, a Zarr folder, or the address of either.

    Yields
    ------
    Node

    Raises
    ------
    RetinaCodecError
        Nothing there, not NWB, or damaged.
    """
    if is_nwb_zarr(path):
        with open_zarr(path) as root:
            yield _checked(root, path)
        return
    with hdf5_input(path, "an NWB file (HDF5)") as file:
        source = os.fspath(path) if is_address(path) else str(Path(path).resolve())
        state = "" if is_address(path) else file_state(source)
        yield _checked(HDF5Node(file["/"], source, state), path)


def is_nwb_zarr(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is an NWB file in a Zarr folder: its root attributes say so."""
    if is_address(path):
        return os.fspath(path).rstrip("/").endswith(".zarr")
    for name in (".zattrs", "zarr.json"):
        file = Path(path) / name
        if file.is_file() and file.stat().st_size < 2**24:
            return '"NWBFile"' in file.read_text(encoding="utf-8", errors="replace")
    return False


def _checked(root: Node, path: str | os.PathLike[str]) -> Node:
    old = root.get("nwb_version") if "nwb_version" in root.names() else None
    if root.kind != "NWBFile" and root.attribute("nwb_version") is None and old is None:
        raise RetinaCodecError(
            f"{path} must be an NWB file (its root is an NWBFile); it says {root.kind or 'nothing'}"
        )
    return root


class ZarrNode(Node):
    """A node of a Zarr folder."""

    def __init__(self, folder: Any, source: str, path: str) -> None:
        self._folder = folder  # mapping of keys to bytes
        self.source = source
        self.path = path
        described = _json(folder, f"{path}/{ONE_FILE}")
        self._third = bool(described)
        if self._third:
            attributes = described.get("attributes") or {}
            self._attributes = attributes if isinstance(attributes, dict) else {}
            self._array = described if described.get("node_type") == "array" else None
        else:
            self._attributes = _json(folder, f"{path}/.zattrs")
            self._array = _json(folder, f"{path}/.zarray") or None

    @property
    def is_array(self) -> bool:
        """See `Node`."""
        return self._array is not None

    @property
    def shape(self) -> tuple[int, ...]:
        """See `Node`; hdmf-zarr stores a scalar as one value along a dim."""
        return tuple(int(n) for n in (self._array or {}).get("shape", ()))

    @property
    def dtype(self) -> np.dtype[Any]:
        """See `Node`; object for text of format 3."""
        settings = self._array or {}
        try:
            found: np.dtype[Any] = np.dtype(settings["data_type" if self._third else "dtype"])
        except (TypeError, ValueError, KeyError):
            if not self._third:
                raise
            return np.dtype(object)
        return found

    @property
    def chunks(self) -> tuple[int, ...] | None:
        """See `Node`."""
        settings = self._array or {}
        if self._third:
            return tuple(settings["chunk_grid"]["configuration"]["chunk_shape"])
        return tuple(settings["chunks"])

    @property
    def place(self) -> Place:
        """See `Node`."""
        return Place(self.source, self.path, zarr=True)

    def names(self) -> list[str]:
        """See `Node`; linked members included."""
        if self.is_array:
            return []
        linked = [str(link.get("name")) for link in self._attributes.get("zarr_link", [])]
        return sorted({*_children(self._folder, self.path), *linked})

    def get(self, name: str) -> Node | None:
        """See `Node`."""
        for link in self._attributes.get("zarr_link", []):
            if link.get("name") == name:
                return ZarrNode(self._folder, self.source, self._target(link))
        path = str(PurePosixPath(self.path) / name)
        if ".." in PurePosixPath(path).parts:
            return None
        kinds = (".zgroup", ".zarray", ONE_FILE)
        if not any(f"{path}/{kind}".lstrip("/") in self._folder for kind in kinds):
            return None
        return ZarrNode(self._folder, self.source, path)

    def attribute(self, name: str, default: Any = None) -> Any:
        """See `Node`."""
        value = self._attributes.get(name, default)
        return None if isinstance(value, dict) and "zarr_dtype" in value else plain(value)

    def read(self) -> npt.NDArray[Any]:
        """See `Node`."""
        self._check_stored()
        if self.dtype.kind == "O" and not self._third:
            return texts(self._objects())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # zarr: text of fixed length is not in its standard
            with open_place(self.place) as array:
                return texts(np.asarray(array[...]))

    def references(self) -> list[str]:
        """See `Node`."""
        self._check_stored()
        if not self._third:
            return [self._target(entry) for entry in self._objects().ravel() if entry]
        entries = [str(entry) for entry in self.read().ravel() if entry]
        return [self._target(json.loads(e) if e[0] == "{" else {"path": e}) for e in entries]

    def target(self, name: str) -> Node | None:
        """See `Node`."""
        value = self._attributes.get(name)
        link = value.get("value") if isinstance(value, dict) and "zarr_dtype" in value else value
        if not isinstance(link, dict) or "path" not in link:
            return None
        found = ZarrNode(self._folder, self.source, self._target(link))
        return found if found.is_array or found.names() else None

    def _target(self, link: Any) -> str:
        source, path = str(link.get("source", ".")), str(link.get("path", ""))
        if source not in (".", "", self.source):
            raise RetinaCodecError(
                f"{self.source}: {self.path} points to {source!r}. A Zarr folder must "
                "have no links to other folders: export it with its links resolved."
            )
        return path

    def _objects(self) -> npt.NDArray[Any]:
        """Decode chunks of objects one by one; the zarr library refuses their fill value."""
        import numcodecs

        settings = self._array or {}
        whole = np.empty(self.shape, dtype=object)
        chunks = settings["chunks"]
        filters = list(settings.get("filters") or [])
        known = [entry["id"] for entry in filters]
        if len(filters) != 1 or known[0] not in (*SAFE_CODECS, "pickle"):
            raise RetinaCodecError(
                f"{self.source}: {self.path} is stored by {known}; known are {SAFE_CODECS}"
            )
        packed = settings.get("compressor")
        for block in np.ndindex(
            *(-(-size // chunk) for size, chunk in zip(self.shape, chunks, strict=True))
        ):
            separator = settings.get("dimension_separator", ".")
            key = f"{self.path}/{separator.join(map(str, block)) or '0'}".lstrip("/")
            if key not in self._folder:
                continue
            data = self._folder[key]
            if packed:
                data = numcodecs.get_codec(packed).decode(data)
            if known[0] == "pickle":
                values = np.asarray(_unpickle(bytes(data), self.path), dtype=object)
            else:
                values = numcodecs.get_codec(filters[0]).decode(data)
            values = np.reshape(np.asarray(values, dtype=object), chunks)
            where = tuple(
                slice(n * c, min((n + 1) * c, s))
                for n, c, s in zip(block, chunks, self.shape, strict=True)
            )
            whole[where] = values[tuple(slice(0, w.stop - w.start) for w in where)]
        return whole

    def written(self) -> float:
        """See `Node`; a chunk that holds nothing but its fill value may have no file."""
        if is_address(self.source) or not self.shape or 0 in self.shape:
            return 1.0
        pairs = zip(self.shape, self.chunks or self.shape, strict=True)
        whole = int(np.prod([-(-size // chunk) for size, chunk in pairs], dtype=object))
        return len(self._files()) / whole

    def _files(self) -> list[Path]:
        """List the files of the chunks."""
        place = Path(self.source) / self.path.lstrip("/")
        return [f for f in place.rglob("*") if f.is_file() and f.name not in DESCRIPTIONS]

    def _check_stored(self) -> None:
        """As `retina_codec.storage.hdf5.check_stored`."""
        claimed = int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize
        if claimed <= ALWAYS_READ or is_address(self.source):
            return
        stored = sum(file.stat().st_size for file in self._files())
        if claimed > MOST_PACKED * stored and self.written() * MOST_PACKED < 1:
            raise RetinaCodecError(
                f"{self.where} claims {claimed} bytes and stores {stored}; its values must have "
                "been written, and hardly any were. Copy the folder again, whole, or write the "
                "values."
            )


@contextmanager
def open_zarr(path: str | os.PathLike[str]) -> Iterator[Node]:
    """Open the root of a Zarr folder; every fault in it becomes a RetinaCodecError.

    Parameters
    ----------
    path : path or address

    Yields
    ------
    Node

    Raises
    ------
    RetinaCodecError
        No Zarr folder, or damaged.
    """
    import fsspec

    source = os.fspath(path) if is_address(path) else str(Path(path).resolve())
    try:
        folder = fsspec.get_mapper(source)
        if ".zgroup" not in folder and ONE_FILE not in folder:
            raise RetinaCodecError(
                f"{path} must be a Zarr folder, with .zgroup or {ONE_FILE} in it; it has neither. "
                "Pass the folder that holds it."
            )
        yield ZarrNode(folder, source, "/")
    except RetinaCodecError:
        raise
    except (OSError, LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise RetinaCodecError(
            f"{path} must be an NWB file (Zarr) that can be read; it is not ({one_line(error)}). "
            "Copy the folder again, whole, or write that part again."
        ) from error


def _json(folder: Any, key: str) -> dict[str, Any]:
    key = key.lstrip("/")
    if key not in folder:
        return {}
    try:
        found = json.loads(bytes(folder[key]))
    except ValueError as error:
        raise RetinaCodecError(
            f"{folder.root}/{key} must be JSON; it is not ({one_line(error)}). Copy the folder "
            "again, whole."
        ) from error
    if not isinstance(found, dict):
        raise RetinaCodecError(
            f"{folder.root}/{key} must hold named values; it holds {type(found).__name__}. Copy "
            "the folder again, whole."
        )
    return found


def _children(folder: Any, path: str) -> list[str]:
    """Names below a group: from the consolidated listing where there is one, else by looking."""
    start = path.strip("/")
    prefix = f"{start}/" if start else ""
    joined = _json(folder, ONE_FILE).get("consolidated_metadata") or {}
    if named := joined.get("metadata"):
        rest = [key[len(prefix) :] for key in named if key.startswith(prefix)]
        return sorted({entry for entry in rest if entry and "/" not in entry})
    listing = _json(folder, ".zmetadata").get("metadata", {})
    if listing:
        rest = [key[len(prefix) :] for key in listing if key.startswith(prefix)]
        return sorted({entry.split("/")[0] for entry in rest if entry.count("/") == 1})
    place = f"{folder.root.rstrip('/')}/{start}".rstrip("/")
    entries = folder.fs.ls(place, detail=False)
    names = [str(entry).rstrip("/").rsplit("/", 1)[-1] for entry in entries]
    return [name for name in names if not name.startswith(".") and name != ONE_FILE]


class _Reference(dict[str, Any]):
    """Stands for hdmf-zarr's reference: named values, nothing else."""


class _Array:
    """Stands for a pickled numpy array: remembers its entries, allocates nothing."""

    entries: Any = None

    def __setstate__(self, state: Any) -> None:
        self.entries = state[-1] if isinstance(state, tuple) else None


class _Type:
    """Stands for a pickled numpy dtype."""

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


def _new_array(*_: Any) -> _Array:
    return _Array()


class _Unpickler(pickle.Unpickler):
    """Accept the four names of an array of references; refuse all others."""

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in for a name."""
        known: dict[tuple[str, str], Any] = {
            ("numpy._core.multiarray", "_reconstruct"): _new_array,
            ("numpy.core.multiarray", "_reconstruct"): _new_array,
            ("numpy", "ndarray"): object,
            ("numpy", "dtype"): _Type,
            ("hdmf_zarr.utils", "ZarrReference"): _Reference,
        }
        if (module, name) not in known:
            raise RetinaCodecError(
                f"a pickle that names {module}.{name} is refused; it could run code"
            )
        return known[module, name]


def _unpickle(data: bytes, path: str) -> list[Any]:
    try:
        found = _Unpickler(io.BytesIO(data)).load()
    except RetinaCodecError as error:
        raise RetinaCodecError(f"{path}: {error}") from error
    except Exception as error:  # a damaged pickle fails in many ways
        raise RetinaCodecError(f"{path} holds references that cannot be read") from error
    entries = found.entries if isinstance(found, _Array) else None
    if not isinstance(entries, list) or not all(isinstance(e, _Reference | None) for e in entries):
        raise RetinaCodecError(f"{path} must hold references; it holds something else")
    return entries
