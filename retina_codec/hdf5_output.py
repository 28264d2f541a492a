"""A file for HDF5 to write to that never fails under its feet.

Why this file exists: when a write fails (a full disk), the HDF5 library crashes the whole process
while it closes its objects, and the half-written file stays. Here the first failure is remembered,
later bytes are dropped, and the failure is raised when all is closed. It knows nothing of formats.
"""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["hdf5_output"]


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
    """A file that pretends to go on after a failure; what was not written reads as zero."""

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
