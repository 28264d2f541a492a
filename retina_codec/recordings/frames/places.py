"""Where the arrays of frames are stored, and how they are opened for reading by parts."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retina_codec.errors import RetinaCodecError
from retina_codec.storage.hdf5 import (
    check_stored,
    child,
    hdf5_input,
    is_address,
    naming_place,
    one_line,
)

__all__ = ["Place", "file_state", "open_place"]


@dataclass(frozen=True)
class Place:
    """An array: its file or address, the path in it, and whether that is HDF5 or Zarr."""

    source: str
    path: str
    state: str = ""  # changes when the file does
    zarr: bool = False

    def __str__(self) -> str:
        return f"{self.source}{self.path}{self.state}"


def file_state(path: str | os.PathLike[str]) -> str:
    """Return size and time of the last change of a file, as text."""
    state = Path(path).stat()
    return f"-{state.st_size}-{state.st_mtime_ns}"


@contextmanager
def open_place(place: Place) -> Iterator[Any]:
    """Open an array for reading by parts; links and claimed sizes are checked.

    Parameters
    ----------
    place : Place

    Yields
    ------
    h5py.Dataset or zarr.Array

    Raises
    ------
    RetinaCodecError
        The file or the array is no longer there, or the array claims far more than it stores.
    """
    gone = f"the frames must stay readable at {place.source}; they are not. Open the file again."
    if place.zarr:
        import zarr

        folder = f"{place.source.rstrip('/')}/{place.path.lstrip('/')}"
        if not is_address(place.source) and not Path(folder).is_dir():
            raise RetinaCodecError(gone)
        try:
            yield zarr.open_array(folder, mode="r")
        except RetinaCodecError:
            raise
        except Exception as error:  # codecs fail in many ways
            raise RetinaCodecError(
                f"{place.source}: {place.path} must be a Zarr array that can be read; it is not "
                f"({one_line(error)}). Copy the folder again, whole."
            ) from error
        return
    if not is_address(place.source) and not Path(place.source).is_file():
        raise RetinaCodecError(gone)
    with hdf5_input(place.source, "the frames") as file:
        found = child(file, place.path)
        if not hasattr(found, "shape"):
            raise RetinaCodecError(gone)
        check_stored(found, place.source)
        with naming_place(found):
            yield found
