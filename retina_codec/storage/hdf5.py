"""Read untrusted HDF5 files, and write HDF5 so that a full disk is reported.

No link leads out of the folder, no array is larger than its data, and all damage is one error.
"""

import io
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retina_codec.errors import RetinaCodecError

__all__ = [
    "check_size",
    "child",
    "hdf5_input",
    "hdf5_output",
    "inside_folder",
    "is_address",
    "read_array",
]

ALWAYS_READ = 2**24  # bytes; no claim below this is checked

MOST_PACKED = 200  # bytes in memory per byte on disk; spike times and tables stay far below

REMOTE_BLOCK = 2**22  # bytes fetched at a time

DAMAGE = (  # errors of h5py and numpy in a damaged file
    OSError,
    RuntimeError,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    ArithmeticError,
    MemoryError,
)

LONGEST_CHAIN = 32  # of soft links


@contextmanager
def hdf5_input(path: str | os.PathLike[str], what: str = "an HDF5 file") -> Iterator[Any]:
    """Open a file for reading; anything wrong in it is one clear error.

    Parameters
    ----------
    path : path
        A file on this machine, or an address that fsspec can open (``https://``, ``s3://``).
    what : str
        What the file should be, for the message.

    Yields
    ------
    h5py.File
        Use `child` and `read_array` on it.

    Raises
    ------
    RetinaCodecError
        No file, not HDF5, or damaged.
    """
    import h5py

    remote = is_address(path)
    if not remote and not Path(path).is_file():
        raise RetinaCodecError(f"there must be {what} at {path}; no file is there")
    try:
        with ExitStack() as stack:
            source: Any = stack.enter_context(_remote(path)) if remote else path
            yield stack.enter_context(h5py.File(source, "r"))
    except RetinaCodecError:
        raise
    except Exception as error:
        if not remote and not isinstance(error, DAMAGE):  # of an address, anything may fail
            raise
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise RetinaCodecError(
            f"{path} must be {what} that can be read; it is not ({reason}). It may be damaged or "
            "only partly copied: copy it again, whole."
        ) from error


def is_address(path: str | os.PathLike[str]) -> bool:
    """Say whether a path is an address such as ``https://…`` or ``s3://…``, not a local file."""
    return "://" in os.fspath(path)


def _remote(path: str | os.PathLike[str]) -> Any:
    """Open an address for reading by parts; nothing is downloaded whole."""
    import fsspec

    system, place = fsspec.core.url_to_fs(os.fspath(path))
    return system.open(place, "rb", block_size=REMOTE_BLOCK)


def child(group: Any, name: str) -> Any:
    """Return a member of a group, or None; links may not leave the folder of the file.

    Parameters
    ----------
    group : h5py.Group
    name : str
        One name, or a path of names from the group.

    Raises
    ------
    RetinaCodecError
        A link to another file outside the folder, a data set that is stored in other files
        outside it, or links that go in circles.
    """
    return _walk(group, name, 0)


def _walk(group: Any, name: str, depth: int) -> Any:
    import h5py

    if depth > LONGEST_CHAIN:
        raise RetinaCodecError(f"{group.file.filename}: the link {name!r} goes in circles")
    here = group.file["/"] if name.startswith("/") else group
    for part in [part for part in name.split("/") if part not in ("", ".")]:
        if not isinstance(here, h5py.Group):
            return None
        links, key = here.id.links, part.encode()
        if not links.exists(key):  # h5py's own `in` would follow the link
            return None
        kind = links.get_info(key).type
        if kind == h5py.h5l.TYPE_SOFT:
            here = _walk(here, os.fsdecode(links.get_val(key)), depth + 1)
        elif kind == h5py.h5l.TYPE_EXTERNAL:
            here = _other_file(here, *map(os.fsdecode, links.get_val(key)), depth=depth)
        else:
            here = here[part]
        if here is None:
            return None
    if isinstance(here, h5py.Dataset):
        _check_storage(here)
    return here


def _other_file(owner: Any, name: str, path: str, *, depth: int) -> Any:
    """Open the target of an external link; links in that file are checked in turn."""
    import h5py

    _may_follow(owner, name)
    place = Path(owner.file.filename).parent / name
    if not place.is_file():
        raise RetinaCodecError(
            f"{owner.file.filename} points to {name!r}, and no file is there. Copy it beside, or "
            "under the same folder as before."
        )
    return _walk(h5py.File(place, "r"), path, depth + 1)


def _may_follow(owner: Any, name: str) -> None:
    """Refuse another file that is not in the owner's folder, or has no folder to be in."""
    file = owner.file
    if file.driver == "fileobj":
        raise RetinaCodecError(
            f"a file at an address must stand alone; {owner.name} points to {name!r}. "
            "Copy both to one folder and open that."
        )
    inside_folder(name, Path(file.filename).parent, file.filename)


def _check_storage(dataset: Any) -> None:
    """Refuse values stored in other files, for a virtual data set those outside the folder."""
    if dataset.external:
        raise RetinaCodecError(
            f"{dataset.file.filename}: the values of {dataset.name} must stand in an HDF5 file; "
            f"they are in {dataset.external[0][0]!r}. Copy them into the file (h5repack)."
        )
    if dataset.is_virtual:
        for source in dataset.virtual_sources():
            if source.file_name != ".":
                _may_follow(dataset, source.file_name)


def inside_folder(
    name: str | os.PathLike[str], folder: Path, owner: str | os.PathLike[str]
) -> Path:
    """Resolve a path written in a file; it must stay in that file's folder or below.

    Parameters
    ----------
    name : path
        As written in the file.
    folder : Path
        Of the file.
    owner : path
        The file, for the message.

    Returns
    -------
    Path
        Absolute, symbolic links followed.

    Raises
    ------
    RetinaCodecError
        It leads elsewhere.
    """
    root = folder.resolve()
    try:
        place = (root / os.fsdecode(name)).resolve()
        inside = place.is_relative_to(root)
    except (OSError, ValueError, RuntimeError):
        inside = False
    if not inside:
        raise RetinaCodecError(
            f"{owner} points to {os.fsdecode(name)!r}, outside its own folder. A file may only "
            "point to files beside or below it: move the target there and correct the path."
        )
    return place


def check_size(dataset: Any, where: str | os.PathLike[str]) -> None:
    """Refuse a data set that claims far more than is stored.

    Parameters
    ----------
    dataset : h5py.Dataset
    where : path
        The file, for the message.

    Raises
    ------
    RetinaCodecError
        More than 16 MiB in memory and 200 times what is on disk.
    """
    claimed = int(np.prod(dataset.shape, dtype=object)) * dataset.dtype.itemsize
    stored = dataset.nbytes if dataset.is_virtual else dataset.id.get_storage_size()
    if claimed > ALWAYS_READ and claimed > MOST_PACKED * stored:
        raise RetinaCodecError(
            f"{where}: {dataset.name} claims {claimed} bytes and stores {stored}; it is damaged, "
            "or empty by mistake"
        )


def read_array(dataset: Any, key: Any = ()) -> npt.NDArray[Any]:
    """Read values, all by default, after a check of how many are stored.

    Parameters
    ----------
    dataset : h5py.Dataset
        From `child`.
    key : index
        Part of it.

    Returns
    -------
    numpy.ndarray

    Raises
    ------
    RetinaCodecError
        Not a data set of values, or one that claims far more than it stores.
    """
    import h5py

    if not isinstance(dataset, h5py.Dataset) or dataset.shape is None:
        name = getattr(dataset, "name", dataset)
        raise RetinaCodecError(f"{name} must be an array; it is {type(dataset).__name__}")
    check_size(dataset, dataset.file.filename)
    values: npt.NDArray[Any] = dataset[key]
    return values


@contextmanager
def hdf5_output(path: str | os.PathLike[str]) -> Iterator[io.RawIOBase]:
    """Open a new file for an HDF5 writer; raise the first failure to write on leaving.

    Parameters
    ----------
    path : path
        Made, or emptied.

    Yields
    ------
    io.RawIOBase
        Takes the place of a path in ``h5py.File`` and in xarray's writers.

    Raises
    ------
    OSError
        The first failure of the system, whatever the writer made of it.
    """
    stream = _LastingFile(path)
    try:
        try:
            yield stream
        finally:
            stream.really_close()
    except Exception as error:
        raise (stream.failure or error) from error
    if stream.failure is not None:
        raise stream.failure


class _LastingFile(io.RawIOBase):
    """A file that accepts writes after a failure; what was not written reads as zero.

    The HDF5 library crashes the process if a write fails while it closes its objects. So the first
    failure is kept and raised after everything is closed.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__()
        self._file = io.FileIO(path, "w+")
        self.failure: OSError | None = None

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def truncate(self, size: int | None = None) -> int:
        try:
            return self._file.truncate(size)
        except OSError as error:
            self.failure = self.failure or error
            return self.tell() if size is None else size

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        count = self._file.readinto(view) or 0
        view[count:] = bytes(len(view) - count)
        return len(view)

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        end = self.tell() + len(view)
        done = 0
        while done < len(view) and self.failure is None:
            try:
                done += self._file.write(view[done:])
            except OSError as error:
                self.failure = error
        self._file.seek(end)
        return len(view)

    def really_close(self) -> None:
        """Close the system's file; a failure to flush counts as one to write."""
        try:
            self._file.close()
        except OSError as error:
            self.failure = self.failure or error
        self.close()
