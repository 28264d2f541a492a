"""NWB files in Zarr folders, as hdmf-zarr writes them (Zarr format 2).

Pickled references are read by an unpickler that accepts four names and never runs code.
"""

import io
import json
import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from retina_codec.errors import RetinaCodecError
from retina_codec.recordings.frames.places import Place, open_place
from retina_codec.recordings.nwb.tree import Node, plain, texts
from retina_codec.storage.hdf5 import ALWAYS_READ, MOST_PACKED, is_address

__all__ = ["open_zarr"]

SAFE_CODECS = ("vlen-utf8", "vlen-bytes", "json2", "vlen-array")


class ZarrNode(Node):
    """A node of a Zarr folder."""

    def __init__(self, folder: Any, source: str, path: str) -> None:
        self._folder = folder  # mapping of keys to bytes
        self.source = source
        self.path = path
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
        """See `Node`."""
        found: np.dtype[Any] = np.dtype((self._array or {})["dtype"])
        return found

    @property
    def place(self) -> Place:
        """See `Node`."""
        self._check_size()
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
        kinds = (".zgroup", ".zarray")
        if not any(f"{path}/{kind}".lstrip("/") in self._folder for kind in kinds):
            return None
        return ZarrNode(self._folder, self.source, path)

    def attribute(self, name: str, default: Any = None) -> Any:
        """See `Node`."""
        value = self._attributes.get(name, default)
        return None if isinstance(value, dict) and "zarr_dtype" in value else plain(value)

    def read(self) -> npt.NDArray[Any]:
        """See `Node`."""
        if self.dtype.kind == "O":
            self._check_size()
            return texts(self._objects())
        with open_place(self.place) as array:
            return texts(np.asarray(array[...]))

    def references(self) -> list[str]:
        """See `Node`."""
        self._check_size()
        return [self._target(entry) for entry in self._objects().ravel() if entry]

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

    def _check_size(self) -> None:
        """As `retina_codec.storage.hdf5.check_size`."""
        claimed = int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize
        if claimed <= ALWAYS_READ or is_address(self.source):
            return
        place = Path(self.source) / self.path.lstrip("/")
        stored = sum(entry.stat().st_size for entry in place.rglob("*") if entry.is_file())
        if claimed > MOST_PACKED * stored:
            raise RetinaCodecError(
                f"{self.source}: {self.path} claims {claimed} bytes and stores {stored}; it is "
                "damaged, or empty by mistake"
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
        No Zarr folder of format 2, or damaged.
    """
    import fsspec

    source = os.fspath(path) if is_address(path) else str(Path(path).resolve())
    try:
        folder = fsspec.get_mapper(source)
        if ".zgroup" not in folder:
            raise RetinaCodecError(
                f"{path} must be a Zarr folder of format 2, as hdmf-zarr writes; it is not"
            )
        yield ZarrNode(folder, source, "/")
    except RetinaCodecError:
        raise
    except (OSError, LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise RetinaCodecError(
            f"{path} must be an NWB file (Zarr) that can be read; it is not ({reason})"
        ) from error


def _json(folder: Any, key: str) -> dict[str, Any]:
    key = key.lstrip("/")
    if key not in folder:
        return {}
    found = json.loads(bytes(folder[key]))
    if not isinstance(found, dict):
        raise RetinaCodecError(f"{key} must hold named values; it holds {type(found).__name__}")
    return found


def _children(folder: Any, path: str) -> list[str]:
    """Names below a group: from the consolidated listing where there is one, else by looking."""
    listing = _json(folder, ".zmetadata").get("metadata", {})
    start = path.strip("/")
    prefix = f"{start}/" if start else ""
    if listing:
        rest = [key[len(prefix) :] for key in listing if key.startswith(prefix)]
        return sorted({entry.split("/")[0] for entry in rest if entry.count("/") == 1})
    place = f"{folder.root.rstrip('/')}/{start}".rstrip("/")
    entries = folder.fs.ls(place, detail=False)
    names = [str(entry).rstrip("/").rsplit("/", 1)[-1] for entry in entries]
    return [name for name in names if not name.startswith(".")]


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
