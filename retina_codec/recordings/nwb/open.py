"""The groups and arrays of an NWB file, by path: HDF5 or Zarr, here or at an address.

Why this file exists: files of real labs use extensions that are not installed, old schema versions
and links, and pynwb then refuses the whole file. NWB's layout is public and stable, so it is read
by path: every file opens the same way, fast, and no link leads out of its folder unseen. What the
groups mean is not known here; Zarr stands in nwb_zarr.py.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from retina_codec.errors import RetinaCodecError
from retina_codec.recordings.frames.places import Place, file_state
from retina_codec.recordings.nwb.tree import HDF5Node, Node
from retina_codec.storage.hdf5 import child, hdf5_input, is_address

__all__ = ["is_nwb_zarr", "open_nwb", "open_place"]


@contextmanager
def open_nwb(path: str | os.PathLike[str]) -> Iterator[Node]:
    """Open an NWB file and give its root.

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
        from retina_codec.recordings.nwb.zarr import open_zarr

        with open_zarr(path) as root:
            yield _checked(root, path)
        return
    with hdf5_input(path, "an NWB file (HDF5)") as file:
        source = os.fspath(path) if is_address(path) else str(Path(path).resolve())
        state = "" if is_address(path) else file_state(source)
        yield _checked(HDF5Node(file["/"], source, state), path)


@contextmanager
def open_place(place: Place) -> Iterator[Any]:
    """Open an array for reading by parts.

    Parameters
    ----------
    place : Place

    Yields
    ------
    h5py.Dataset or zarr.Array

    Raises
    ------
    RetinaCodecError
        The file is no longer there.
    """
    gone = f"the frames must stay readable at {place.source}; they are not. Open the file again."
    if is_nwb_zarr(place.source):
        from retina_codec.recordings.nwb.zarr import open_array

        yield open_array(place)
        return
    if not is_address(place.source) and not Path(place.source).is_file():
        raise RetinaCodecError(gone)
    with hdf5_input(place.source, "the frames") as file:
        found = child(file, place.path)
        if found is None:
            raise RetinaCodecError(gone)
        yield found


def is_nwb_zarr(path: str | os.PathLike[str]) -> bool:
    """Say whether a path is an NWB file in a Zarr folder: its root says so in its attributes."""
    text = os.fspath(path)
    if is_address(path):
        return text.rstrip("/").endswith(".zarr")
    folder = Path(path)
    for name in (".zattrs", "zarr.json"):
        file = folder / name
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
