"""A Zarr store of arrays along time that a long run fills piece by piece and can continue.

Why this file exists: receptive fields of an hour of recording do not fit in memory and take long.
As the stores of contributions do (contributions/store.py), a run stands in ``<name>.partial`` until
it is whole: arrays, which run it is, and a mark per finished piece, made after its values. It does
not know what is in the arrays.
"""

import json
import logging
import os
import shutil
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.storage.provenance import check_same
from retina_codec.storage.trees import open_tree, save_tree

__all__ = ["FieldStore", "FolderLock"]

OURS = {"lock", "done", "data.zarr", ".data.zarr.partial", "run.json"}


class FieldStore:
    """Arrays along a first dim, written in pieces of one length; a context.

    Parameters
    ----------
    path : path
        Where the finished store shall be, ``name.zarr``.
    template : xr.Dataset
        Coordinates and attributes; one variable per array, of the full shape (lazy or broadcast),
        the first dim being that of the pieces.
    length : int
        Of a piece: also the chunks, so that no two pieces touch one file.
    identity : mapping of str to str
        What the run is; it must be the same when it is continued.

    Raises
    ------
    RetinaCodecError
        If ``path`` does not end in ``.zarr``, holds something else or another run, or another
        process writes to it.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        template: xr.Dataset,
        length: int,
        identity: Mapping[str, str],
    ) -> None:
        self.place = Path(path).expanduser().resolve()
        if self.place.suffix != ".zarr":
            raise RetinaCodecError(
                f"a store that is filled piece by piece must end in .zarr; got {os.fspath(path)!r}."
            )
        self.partial = self.place.with_name(self.place.name + ".partial")
        self.data = self.partial / "data.zarr"
        self._template, self._length, self._identity = template, length, dict(identity)
        self.finished = os.path.lexists(self.place)
        if self.finished:
            with open_tree(self.place) as tree:
                check_same(tree.attrs.get("run"), self._identity, self.place)
            return
        self._lock = FolderLock(self.partial)
        try:
            self._begin()
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Let other processes in; what is done is kept."""
        if not self.finished:
            self._lock.release()

    def _begin(self) -> None:
        described = self.partial / "run.json"
        if described.exists():
            check_same(described.read_text(encoding="utf-8"), self._identity, self.partial)
            return
        strange = sorted({entry.name for entry in self.partial.iterdir()} - OURS)
        if strange:
            raise RetinaCodecError(
                f"store must be new or hold this run; {self.partial} holds {strange[0]!r} and does "
                "not say which run it is. Choose another name for store, or remove it."
            )
        self._create()
        described.write_text(json.dumps(self._identity), encoding="utf-8")

    def _create(self) -> None:
        """Write coordinates and empty arrays; a half-made folder is begun again."""
        import zarr

        shutil.rmtree(self.data, ignore_errors=True)
        shutil.rmtree(self.partial / "done", ignore_errors=True)
        (self.partial / "done").mkdir()
        names = [str(name) for name in self._template.data_vars]
        save_tree(xr.DataTree(self._template.drop_vars(names)), self.data)
        root = zarr.open_group(str(self.data), mode="r+")
        root.attrs["run"] = json.dumps(self._identity, sort_keys=True)
        for name in names:
            array = self._template[name]
            root.create_array(
                name,
                shape=array.shape,
                chunks=(min(self._length, array.shape[0]), *(max(1, n) for n in array.shape[1:])),
                dtype=array.dtype,
                fill_value=np.nan,
                dimension_names=tuple(str(dim) for dim in array.dims),
                attributes={str(key): value for key, value in array.attrs.items()},
            )

    def _mark(self, piece: int) -> Path:
        return self.partial / "done" / f"{piece:06d}"

    def done(self, piece: int) -> bool:
        """Whether a piece was written, by this run or an earlier one."""
        return self.finished or self._mark(piece).exists()

    def write(self, piece: int, found: Mapping[str, npt.NDArray[Any]]) -> None:
        """Write a piece, then its mark."""
        import zarr

        try:
            root = zarr.open_group(str(self.data), mode="r+")
            start = piece * self._length
            for name, values in found.items():
                array: Any = root[name]
                array[start : start + len(values)] = values
            self._mark(piece).touch()
        except OSError as error:
            raise RetinaCodecError(
                f"could not write to {self.partial}: {error.strerror or error}. What is done is "
                "kept: free some space, or mend this, and run the same again."
            ) from error

    def finish(self) -> xr.Dataset:
        """Move the store to its place when all pieces are there; open it."""
        if not self.finished:
            os.replace(self.data, self.place)
            self._lock.release()
            self.finished = True
            shutil.rmtree(self.partial, ignore_errors=True)
        return open_tree(self.place).to_dataset()


NAME = "lock"


_HELD: set[Path] = set()  # by this process, which the operating system would let in again


_LOG = logging.getLogger(__name__)


class FolderLock:
    """The right to write to a folder; makes the folder.

    Raises
    ------
    RetinaCodecError
        If another holds it: says which process on which host.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self._stream: IO[str] | None = None
        if self.path in _HELD:
            self._refuse(f"this process ({os.getpid()})")
        while self._stream is None:
            folder.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):  # the folder went as its holder finished: once more
                self._stream = self._open()
        _HELD.add(self.path)

    def _open(self) -> IO[str] | None:
        stream = self.path.open("a+", encoding="utf-8")
        try:
            if not _lock(stream):
                stream.seek(0)
                self._refuse(stream.read().strip() or "another process")
            if os.fstat(stream.fileno()).st_ino != self.path.stat().st_ino:
                stream.close()  # its holder removed it between our opening and our locking
                return None
            stream.truncate(0)
            stream.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            stream.flush()
        except BaseException:
            stream.close()
            raise
        return stream

    def _refuse(self, holder: str) -> None:
        raise RetinaCodecError(
            f"only one process at a time may write to {self.path.parent}; {holder} does. "
            "Wait for it, or end it and run the same again."
        )

    def release(self) -> None:
        """Let others in; nothing is left of the lock."""
        if self._stream is None:
            return
        with suppress(OSError):
            self.path.unlink()
        with suppress(OSError):
            self._stream.close()
        self._stream = None
        _HELD.discard(self.path)


def _lock(stream: IO[str]) -> bool:
    """Lock an open file; False if another process holds it."""
    try:
        import fcntl
    except ImportError:  # not a POSIX system
        return True
    try:
        fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError as error:
        _LOG.warning("this file system has no locks (%s): start a run only once", error.strerror)
    return True
