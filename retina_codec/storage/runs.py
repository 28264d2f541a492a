"""Resumable runs: arrays of a Zarr store that are filled piece by piece.

A run stands in ``<name>.partial`` until it is whole; each finished piece has a mark there.
"""

import hashlib
import json
import logging
import os
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NoReturn, Self

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.storage.integrity import RUN, bad_files, describe_file, root_attribute, seal
from retina_codec.storage.provenance import check_same
from retina_codec.storage.trees import local_path, open_tree, save_tree

__all__ = ["FolderLock", "PieceWriter", "Run", "open_run"]

HALF_MADE = {"lock", "done", "data.zarr", "run.json.new"}  # what a run may leave before run.json

MOVED = {"lock", "done", "run.json"}  # what is left once the arrays were moved to their place

_LOG = logging.getLogger(__name__)


def open_run(
    path: str | os.PathLike[str],
    identity: Mapping[str, str],
    arrays: Callable[[], Mapping[str, xr.DataArray]],
    length: int,
) -> "Run | xr.DataTree":
    """Open the store of a run: new, to be continued, or finished.

    Parameters
    ----------
    path : path
        Where the finished store shall be, ``name.zarr``.
    identity : mapping of str to str
        What the run is; it must be the same when the run is continued.
    arrays : callable
        Returns the arrays to fill by address (``/layers/conv1/contribution``): shape, dtype, dims
        and attributes count, values do not. Called for a new run only.
    length : int
        Of a piece along the first dim: also of the chunks, so that no two pieces share a file.

    Returns
    -------
    Run or xr.DataTree
        The tree if the store holds this very run, finished. A `Run` holds the folder until its
        context is left.

    Raises
    ------
    RetinaCodecError
        If ``path`` does not end in ``.zarr``, something else is there, another process writes to
        it, or it belongs to another run (the message says what differs).
    """
    place = local_path(path).resolve()
    if place.suffix.lower() != ".zarr":
        raise RetinaCodecError(
            f"a store that is filled piece by piece must end in .zarr; got {os.fspath(path)!r}."
        )
    partial = place.with_name(place.name + ".partial")
    if os.path.lexists(place):
        return _finished(place, partial, identity)
    if os.path.lexists(partial) and not partial.is_dir():
        raise RetinaCodecError(
            f"results are kept in the folder {partial} until they are whole; there is a file of "
            "that name. Choose another name for store, or remove it."
        )
    with _one_line_errors(partial):
        lock = FolderLock(partial)
    try:
        if os.path.lexists(place):  # finished by the process that held the lock until now
            lock.release()
            return _finished(place, partial, identity)
        run = Run(place, partial, lock)
        run.begin(identity, arrays, length)
    except BaseException:
        lock.release()
        with suppress(OSError):  # goes only if nothing was in it
            partial.rmdir()
        raise
    return run


def _finished(place: Path, partial: Path, identity: Mapping[str, str]) -> xr.DataTree:
    """Open a finished store; remove what a crash after its last step left beside it."""
    tree = open_tree(place)
    try:
        check_same(root_attribute(place, RUN), identity, place)
    except RetinaCodecError:
        tree.close()
        raise
    if partial.is_dir() and {entry.name for entry in partial.iterdir()} <= MOVED:
        shutil.rmtree(partial, ignore_errors=True)
    return tree


@contextmanager
def _one_line_errors(partial: Path, what: str = "") -> Iterator[None]:
    """Turn an error of the system into one line; nothing that was written is touched."""

    def refuse(problem: str, way_out: str, error: BaseException) -> NoReturn:
        raise RetinaCodecError(
            f"could not write {what}to {partial}: {problem}. What is done is kept: {way_out}."
        ) from error

    try:
        yield
    except (FileNotFoundError, NotADirectoryError, KeyError) as error:
        way_out = "bring the folder back (every process must see it) and run the same again"
        refuse("the store is not there (any more)", way_out, error)
    except OSError as error:
        problem = error.strerror or str(error).splitlines()[0]
        refuse(problem, "free some space, or mend this, and run the same again", error)


def _text(identity: Mapping[str, str]) -> str:
    """Return an identity as it stands in the folder."""
    return json.dumps(dict(identity), sort_keys=True)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class PieceWriter:
    """Writes pieces of a run; can be sent to another process that sees the same folder.

    Parameters
    ----------
    partial : Path
        The folder of the unfinished run.
    identity : str
        SHA256 of the identity as it stands in the folder.
    """

    def __init__(self, partial: Path, identity: str) -> None:
        self.partial, self.identity = partial, identity
        self.data = partial / "data.zarr"

    def done(self, piece: str) -> bool:
        """Say whether a piece is whole, by this run or an earlier one."""
        return self._mark(piece).exists()

    def files(self) -> dict[str, Any]:
        """Return size and checksum of every file of all pieces, by name."""
        found: dict[str, Any] = {}
        for mark in self._marks():
            found |= _marked(mark) or {}
        return found

    def drop_damaged(self, *, exact: bool) -> int:
        """Remove the marks of pieces whose files are lost or damaged; return how many there are.

        Sizes are compared; if ``exact``, checksums too.
        """
        dropped = 0
        for mark in self._marks():
            files = _marked(mark)
            if files is None or bad_files(self.data, files, exact=exact):
                mark.unlink()
                dropped += 1
        return dropped

    def refuse_damaged(self) -> None:
        """Refuse to go on if files of a finished piece are lost."""
        if dropped := self.drop_damaged(exact=False):
            raise RetinaCodecError(
                f"files of {dropped} finished pieces in {self.data} were lost or damaged while the "
                "run lasted. Run the same again: it computes these pieces once more."
            )

    def _marks(self) -> list[Path]:
        found = sorted((self.partial / "done").iterdir())
        return [mark for mark in found if mark.suffix != ".partial"]

    def _mark(self, piece: str) -> Path:
        return self.partial / "done" / piece

    def check(self) -> None:
        """Check that the folder is here and still that of this run."""
        with _one_line_errors(self.partial):
            found = (self.partial / "run.json").read_text(encoding="utf-8")
        if _digest(found) != self.identity:
            raise RetinaCodecError(
                f"{self.partial} now belongs to another run, begun while this one lasted. Give "
                "each run a store of its own."
            )

    def write(self, piece: str, start: int, found: Mapping[str, npt.NDArray[Any]]) -> None:
        """Write the arrays of a piece, by address, from row ``start``; then its mark."""
        import zarr

        self.check()
        with _one_line_errors(self.partial, f"{piece} "):
            root, files = zarr.open_group(str(self.data), mode="r+"), {}
            for address, values in found.items():
                array: Any = root[address.strip("/")]
                array[start : start + len(values)] = values
                # A mark that outlives a power cut must not stand for chunks that do not.
                chunk = str(start // array.chunks[0])
                for file in _to_disk(self.data / address.strip("/") / "c" / chunk):
                    files[file.relative_to(self.data).as_posix()] = describe_file(file)
            new = self.partial / "done" / f"{piece}.partial"
            new.write_text(json.dumps(files), encoding="utf-8")
            _to_disk(new)
            os.replace(new, self._mark(piece))

    def read(self, address: str) -> npt.NDArray[Any]:
        """Read a whole array."""
        import zarr

        with _one_line_errors(self.partial):
            self.refuse_damaged()
            array: Any = zarr.open_group(str(self.data), mode="r")[address.strip("/")]
            return np.asarray(array[:])


def _marked(mark: Path) -> dict[str, Any] | None:
    """Return the files that a mark stands for; None if it does not say."""
    try:
        return dict(json.loads(mark.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        return None


class Run:
    """A run that is being written: its folder, its lock and its pieces; a context."""

    def __init__(self, place: Path, partial: Path, lock: "FolderLock") -> None:
        self.place, self._lock = place, lock
        self.pieces = PieceWriter(partial, "")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Release the folder, and say where an interrupted run stands."""
        self._lock.release()
        if error[0] is not None and self.pieces.partial.exists():
            _LOG.warning(
                "stopped before the end; what is done is kept in %s, and the same call continues",
                self.pieces.partial,
            )

    def begin(
        self,
        identity: Mapping[str, str],
        arrays: Callable[[], Mapping[str, xr.DataArray]],
        length: int,
    ) -> None:
        """Continue this run, or begin it where nothing or a half-made folder is."""
        partial = self.pieces.partial
        with _one_line_errors(partial):
            described = partial / "run.json"
            if described.exists():
                text = described.read_text(encoding="utf-8", errors="replace")
                check_same(text, identity, partial)
                self.pieces = PieceWriter(partial, _digest(text))
                if not (self.pieces.data / "zarr.json").exists():
                    raise RetinaCodecError(
                        f"the arrays of {partial} are gone, though it says that it holds this "
                        "run. Bring data.zarr back, or remove the folder and begin again."
                    )
                _remove_torn(partial)
                if dropped := self.pieces.drop_damaged(exact=True):
                    _LOG.warning(
                        "files of %d finished pieces in %s are lost or damaged; these pieces are "
                        "computed again",
                        dropped,
                        partial,
                    )
                return
            strange = sorted({entry.name for entry in partial.iterdir()} - HALF_MADE)
            if strange:
                raise RetinaCodecError(
                    f"store must be new or hold this run; {partial} holds {strange[0]!r} and "
                    "does not say which run it is. Choose another name for store, or remove it."
                )
            try:
                self._create(identity, arrays(), length)
            except BaseException:
                self._empty()
                raise

    def _empty(self) -> None:
        """Remove what is in the folder, but not the lock."""
        for entry in self.pieces.partial.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            elif entry.name != "lock":
                entry.unlink(missing_ok=True)

    def _create(
        self, identity: Mapping[str, str], arrays: Mapping[str, xr.DataArray], length: int
    ) -> None:
        """Create empty arrays; ``run.json`` comes last: without it the folder is begun again."""
        import zarr

        self._empty()
        partial = self.pieces.partial
        (partial / "done").mkdir()
        root = zarr.open_group(str(self.pieces.data), mode="w")
        for address, array in arrays.items():
            root.create_array(
                address.strip("/"),
                shape=array.shape,
                chunks=(min(length, len(array)), *(max(1, size) for size in array.shape[1:])),
                dtype=array.dtype,
                fill_value=np.nan if array.dtype.kind == "f" else 0,
                dimension_names=tuple(str(dim) for dim in array.dims),
                attributes={str(key): value for key, value in array.attrs.items()},
            )
        described = partial / "run.json.new"
        described.write_text(_text(identity), encoding="utf-8")
        _to_disk(described)
        os.replace(described, partial / "run.json")
        self.pieces = PieceWriter(partial, _digest(_text(identity)))

    def finish(self, rest: xr.DataTree) -> xr.DataTree:
        """Add what the pieces do not hold, move the store to its place and open it.

        Parameters
        ----------
        rest : xr.DataTree
            The result without the arrays that were filled: coordinates, attributes, statistics.

        Returns
        -------
        xr.DataTree
            The whole result.

        Raises
        ------
        RetinaCodecError
            If something else was put in its place, or the system cannot write; pieces are kept.
        """
        partial, data = self.pieces.partial, self.pieces.data
        with _one_line_errors(partial, "the end "):
            self.pieces.refuse_damaged()
            text = (partial / "run.json").read_text(encoding="utf-8")
            added, rest = partial / "rest.zarr", rest.copy()
            rest.attrs["run"] = _told(text)  # all of it is in the root of the folder
            save_tree(rest, added, overwrite=True)
            for file in sorted(path for path in added.rglob("*") if path.is_file()):
                goal = data / file.relative_to(added)
                goal.parent.mkdir(parents=True, exist_ok=True)
                os.replace(file, goal)
            _remove_torn(partial)
            seal(data, self.pieces.files(), text)
            if os.path.lexists(self.place):
                raise RetinaCodecError(
                    f"something was put at {self.place} while the run lasted. What is done is "
                    f"kept in {partial}: remove the other and run the same again."
                )
            os.replace(data, self.place)
        self._lock.release()  # before its file goes; who takes it now finds the run finished
        shutil.rmtree(partial, ignore_errors=True)
        return open_tree(self.place)


def _remove_torn(folder: Path) -> None:
    """Remove the file that a killed writer was at; zarr writes beside and renames."""
    for left in folder.rglob("*.partial"):
        if left.is_file():
            left.unlink(missing_ok=True)


def _told(text: str) -> str:
    """Return what the attributes of a result say of its run: settings, not parts of the network."""
    whole: dict[str, str] = json.loads(text)
    return _text({key: value for key, value in whole.items() if key.isidentifier()})


def _to_disk(place: Path) -> list[Path]:
    """Wait until a file, or all files of a folder, are on the disk; return those there are."""
    found = place.rglob("*") if place.is_dir() else [place]
    files = sorted(file for file in found if file.is_file())
    for file in files:
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
    return files


_HELD: set[Path] = set()  # by this process, which the operating system would let in again


class FolderLock:
    """The right to write to a folder; makes the folder.

    Raises
    ------
    RetinaCodecError
        If another holds it: says which process on which host.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "lock"
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
