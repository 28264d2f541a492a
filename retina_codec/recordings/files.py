"""One door for every file that holds a recording: the suffix decides the format."""

import os
from pathlib import Path

import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.recordings.nwb import read_nwb, write_nwb
from retina_codec.recordings.schema import validate_recording
from retina_codec.storage import open_tree, save_tree

__all__ = ["convert", "open_recording", "save_recording"]

SUFFIXES = (".nwb", ".nc", ".zarr")


def open_recording(path: str | os.PathLike[str]) -> xr.DataTree:
    """Open a recording; its stimulus is read only when asked for.

    Parameters
    ----------
    path : path
        ``.nwb``, ``.nc`` or ``.zarr``.

    Returns
    -------
    xr.DataTree
        A valid recording, see `retina_codec.recordings.schema.make_recording`.

    Raises
    ------
    RetinaCodecError
        Nothing at ``path``, an unknown suffix, an unreadable file, or one without a recording.
    """
    suffix = _suffix(path)
    if not Path(path).exists():
        raise RetinaCodecError(f"there must be a recording at {path}; nothing is there")
    if suffix == ".nwb":
        return read_nwb(path)
    recording = open_tree(path)
    try:
        validate_recording(recording)
    except RetinaCodecError as error:
        recording.close()
        raise RetinaCodecError(f"{path}: {error}") from error
    return recording


def save_recording(
    recording: xr.DataTree, path: str | os.PathLike[str], *, overwrite: bool = False
) -> None:
    """Save a recording; nothing is left behind if that fails.

    Parameters
    ----------
    recording : xr.DataTree
        A valid recording; not modified.
    path : path
        ``.nwb`` (keeps what `retina_codec.recordings.nwb.write_nwb` says), ``.nc`` or ``.zarr``
        (keep everything).
    overwrite : bool
        Replace what is at ``path``.

    Raises
    ------
    RetinaCodecError
        Not a valid recording, an unknown suffix, an existing path, or a failing write.
    """
    suffix = _suffix(path)
    validate_recording(recording)
    if suffix == ".nwb":
        write_nwb(recording, path, overwrite=overwrite)
    else:
        save_tree(recording, path, overwrite=overwrite)


def convert(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    *,
    overwrite: bool = False,
) -> None:
    """Write a recording in another format, block by block.

    Parameters
    ----------
    source, destination : path
        ``.nwb``, ``.nc`` or ``.zarr``.
    overwrite : bool
        Replace what is at ``destination``.

    Raises
    ------
    RetinaCodecError
        As `open_recording` and `save_recording`, or both paths are the same.
    """
    _suffix(destination)
    if Path(source).resolve() == Path(destination).resolve():
        raise RetinaCodecError(f"source and destination must differ; both are {source}")
    recording = open_recording(source)
    try:
        save_recording(recording, destination, overwrite=overwrite)
    finally:
        recording.close()


def _suffix(path: str | os.PathLike[str]) -> str:
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise RetinaCodecError(
            f"a recording's name must end in {', '.join(SUFFIXES)}; got {os.fspath(path)!r}"
        )
    return suffix
