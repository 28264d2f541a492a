"""Open an NWB file: HDF5 or a Zarr folder, on this machine or at an address."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from retina_codec.errors import RetinaCodecError
from retina_codec.recordings.frames.places import file_state
from retina_codec.recordings.nwb.tree import HDF5Node, Node
from retina_codec.storage.hdf5 import hdf5_input, is_address

__all__ = ["is_nwb_zarr", "open_nwb"]


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
        from retina_codec.recordings.nwb.zarr import open_zarr

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
