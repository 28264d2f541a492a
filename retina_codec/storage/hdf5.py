"""Read untrusted HDF5 files, and write HDF5 so that a full disk is reported.

No link leads out of the folder, no array is larger than its data, and all damage is one error.
"""

import gc
import io
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retina_codec.errors import RetinaCodecError

__all__ = [
    "check_stored",
    "child",
    "hdf5_input",
    "hdf5_output",
    "inside_folder",
    "is_address",
    "naming_file",
    "naming_place",
    "one_line",
    "read_array",
    "written_share",
]

ALWAYS_READ = 2**24  # bytes; no claim below this is checked

MOST_PACKED = 200  # bytes in memory per byte on disk; more is looked at closely

MOST_DEFLATED = 1100  # bytes per byte that gzip, and lzf, can reach at all

FILTERS = {  # of HDF5, registered, that h5py alone cannot read
    307: "bzip2",
    32001: "blosc",
    32004: "lz4",
    32008: "bitshuffle",
    32013: "zfp",
    32015: "zstd",
    32017: "sz",
    32024: "sz3",
    32026: "blosc2",
}

BOUNDED = (1, 2, 3, 32000)  # deflate, shuffle, fletcher32, lzf

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
        No file, not HDF5, held by a program that writes it, or damaged.
    """
    import h5py

    remote = is_address(path)
    if not remote and not Path(path).is_file():
        raise RetinaCodecError(f"there must be {what} at {path}; no file is there")
    opened = False
    try:
        with ExitStack() as stack:
            source: Any = stack.enter_context(_remote(path)) if remote else path
            file = stack.enter_context(h5py.File(source, "r"))
            opened = True
            yield file
    except RetinaCodecError:
        raise
    except Exception as error:
        if not remote and not isinstance(error, DAMAGE):  # of an address, anything may fail
            raise
        reason = one_line(error)
        way = _way_out(path, reason)
        if opened:  # damage was told by `child` and `read_array`
            way = "Its content is not of the kind that it must be: write that part again."
        raise RetinaCodecError(
            f"{path} must be {what} that can be read; it is not ({reason}). {way}"
        ) from error


@contextmanager
def naming_file(path: str | os.PathLike[str]) -> Iterator[None]:
    """Put the path before an error that does not name it.

    Parameters
    ----------
    path : path
    """
    try:
        yield
    except RetinaCodecError as error:
        names = (os.fspath(path), os.fspath(path).rstrip("/").rsplit("/", 1)[-1])
        if any(name in str(error) for name in names):
            raise
        raise RetinaCodecError(f"{path}: {error}") from error


def one_line(error: BaseException) -> str:
    """Return what a library says of a failure, short and in one line."""
    return " ".join(str(error).split())[:160] or type(error).__name__


def _way_out(path: str | os.PathLike[str], reason: str) -> str:
    """Say what can be done about a file that HDF5 does not open."""
    if "unable to lock" in reason:
        return (
            "Another program holds it open for writing: close it there, or copy the file and open "
            "the copy (on a disk without locks, set HDF5_USE_FILE_LOCKING=FALSE)."
        )
    if "already open" in reason:
        return (
            "Another program holds it open for writing, or ended before it closed it: close it "
            "there, or run h5clear -s on a copy."
        )
    if "ermission" in reason:
        return "Ask its owner for the right to read it, or copy it to a place of your own."
    if is_address(path):
        return "Check the address and the connection, or download the file and open that."
    if "signature not found" in reason:
        with open(path, "rb") as file:
            start = file.read(64)
        if start.startswith(b"version https://git-lfs"):
            return "It is a pointer of Git LFS: run git lfs pull in its folder."
        found = "is empty" if not start else f"begins with {start[:12]!r}"
        return f"It is no HDF5 file ({found}): open the file itself, or download it again."
    return "It may be damaged or only partly copied: copy it again, whole."


def is_address(path: str | os.PathLike[str]) -> bool:
    """Say whether a path is an address such as ``https://…`` or ``s3://…``, not a local file."""
    return "://" in os.fspath(path)


def _remote(path: str | os.PathLike[str]) -> Any:
    """Open an address for reading by parts; nothing is downloaded whole."""
    import fsspec

    gc.collect()  # else its thread may free objects of HDF5 while HDF5, locked, waits for it
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
        outside it, links that go in circles, or a damaged member.
    """
    with naming_place(group, name):
        return _walk(group, name, 0)


@contextmanager
def naming_place(group: Any, name: str = "") -> Iterator[None]:
    """Turn a failure of the library into an error that names file and place.

    Parameters
    ----------
    group : h5py.Group or h5py.Dataset
    name : str
        Of a member, where one is read.
    """
    try:
        yield
    except RetinaCodecError:
        raise
    except DAMAGE as error:
        place = f"{str(group.name).rstrip('/')}/{name.lstrip('/')}" if name else group.name
        raise RetinaCodecError(
            f"{group.file.filename}: {place} must be readable; it is not ({one_line(error)}). "
            "It is damaged or only partly copied: copy the file again, whole."
        ) from error


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
            here = _other_file(here, part, *map(os.fsdecode, links.get_val(key)), depth=depth)
        else:
            here = here[part]
        if here is None:
            return None
    if isinstance(here, h5py.Dataset):
        _check_storage(here)
    return here


def _other_file(owner: Any, key: str, name: str, path: str, *, depth: int) -> Any:
    """Open the target of an external link; links in that file are checked in turn."""
    import h5py

    here = f"{str(owner.name).rstrip('/')}/{key}"
    place = _may_follow(owner, name, here)
    if not place.is_file():
        raise RetinaCodecError(
            f"{owner.file.filename}: {here} points to {name!r}, and no file is there. Copy "
            "it beside, or under the same folder as before."
        )
    return _walk(h5py.File(place, "r"), path, depth + 1)


def _may_follow(owner: Any, name: str, here: str) -> Path:
    """Return the place of another file; refuse one that is not in the owner's folder."""
    file = owner.file
    if file.driver == "fileobj":
        raise RetinaCodecError(
            f"a file at an address must stand alone; {here} points to {name!r}. "
            "Copy both to one folder and open that."
        )
    return inside_folder(name, Path(file.filename).parent, f"{file.filename}: {here}")


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
                place = _may_follow(dataset, source.file_name, dataset.name)
                if "%" not in source.file_name and not place.is_file():  # would read as fill value
                    raise RetinaCodecError(
                        f"{dataset.file.filename}: {dataset.name} must be stored in files that are "
                        f"there; {source.file_name!r} is not. Copy it beside, or under the same "
                        "folder as before."
                    )


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
    owner : path or text
        The file, and the place in it, for the message.

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


def check_stored(dataset: Any, where: str | os.PathLike[str]) -> None:
    """Refuse a data set whose values are not there, or cannot be unpacked here.

    Values that are all alike shrink without limit; what counts is whether they were written.

    Parameters
    ----------
    dataset : h5py.Dataset
    where : path
        The file, for the message.

    Raises
    ------
    RetinaCodecError
        Packed by a filter that is not installed; more than 16 MiB in memory of which hardly any
        was written, or which so few bytes cannot hold.
    """
    _check_filters(dataset, where)
    claimed = int(np.prod(dataset.shape, dtype=object)) * dataset.dtype.itemsize
    stored = dataset.nbytes if dataset.is_virtual else dataset.id.get_storage_size()
    if claimed <= max(ALWAYS_READ, MOST_PACKED * stored):
        return
    said = f"{where}: {dataset.name} claims {claimed} bytes and stores {stored};"
    written = written_share(dataset) * claimed
    if written * MOST_PACKED < claimed:
        raise RetinaCodecError(
            f"{said} its values must have been written, and hardly any were. Copy the file again, "
            "whole, or write the values."
        )
    if written > MOST_DEFLATED * stored and all(code in BOUNDED for code, _ in _filters(dataset)):
        raise RetinaCodecError(
            f"{said} no more than {MOST_DEFLATED} times as much must come out of them. It is "
            "damaged: copy the file again, whole."
        )


def written_share(dataset: Any) -> float:
    """Return which share of an array was written; the rest reads as its fill value.

    Parameters
    ----------
    dataset : h5py.Dataset

    Returns
    -------
    float
        1 for a virtual data set, and for one that is not stored in chunks unless it is empty.
    """
    if dataset.is_virtual or 0 in dataset.shape:
        return 1.0
    if dataset.chunks is None:
        return float(dataset.id.get_storage_size() > 0)
    pairs = zip(dataset.shape, dataset.chunks, strict=True)
    chunks = int(np.prod([-(-size // chunk) for size, chunk in pairs], dtype=object))
    return float(dataset.id.get_num_chunks() / chunks)


def _filters(dataset: Any) -> list[tuple[int, str]]:
    """Return code and name of every filter that the values passed."""
    plan = dataset.id.get_create_plist()
    found = [plan.get_filter(number) for number in range(plan.get_nfilters())]
    return [(int(code), os.fsdecode(name)) for code, _, _, name in found]


def _check_filters(dataset: Any, where: str | os.PathLike[str]) -> None:
    """Refuse values that were packed by a filter which is not installed, by its name."""
    import h5py

    for code, name in _filters(dataset):
        if not h5py.h5z.filter_avail(code):
            with suppress(ImportError):
                import hdf5plugin  # noqa: F401  (registers its filters)
        if not h5py.h5z.filter_avail(code):
            known = f"{FILTERS[code]}, {code}" if code in FILTERS else f"{name or '?'}, {code}"
            raise RetinaCodecError(
                f"{where}: {dataset.name} is packed by a filter that must be installed ({known}); "
                "it is not. Run pip install hdf5plugin, or repack the file "
                "(h5repack -f GZIP=4) where the filter is installed."
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
        Not a data set of values, one whose values are not there, or damaged.
    """
    import h5py

    if not isinstance(dataset, h5py.Dataset) or dataset.shape is None:
        name = getattr(dataset, "name", dataset)
        file = f"{dataset.file.filename}: " if hasattr(dataset, "file") else ""
        raise RetinaCodecError(
            f"{file}{name} must be an array; it is {type(dataset).__name__}. Write values there."
        )
    check_stored(dataset, dataset.file.filename)
    with naming_place(dataset):
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
