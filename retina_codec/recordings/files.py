"""One door for every file that holds a recording: the suffix decides the format."""

import inspect
import os
from collections.abc import Callable, Mapping
from pathlib import Path, PurePath
from typing import Any

import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.recordings.maheswaranathan_2023.recording import (
    SUFFIXES as PUBLISHED,
)
from retina_codec.recordings.maheswaranathan_2023.recording import (
    read_maheswaranathan,
)
from retina_codec.recordings.nwb.open import is_nwb_zarr
from retina_codec.recordings.nwb.reader import read_nwb
from retina_codec.recordings.nwb.writer import write_nwb
from retina_codec.recordings.schema import validate_recording
from retina_codec.storage.hdf5 import is_address
from retina_codec.storage.trees import open_tree, save_tree

__all__ = ["convert", "open_recording", "save_recording"]

SUFFIXES = (".nwb", ".nc", ".zarr")


def open_recording(path: str | os.PathLike[str], **options: Any) -> xr.DataTree:
    """Open a recording; its stimulus is read only when asked for.

    Parameters
    ----------
    path : path
        ``.nwb`` (HDF5, or a Zarr folder as hdmf-zarr writes), also at an address (``https://``,
        ``s3://``); ``.nc`` or ``.zarr`` of our own; ``.h5``, ``.hdf5`` or the folder of an
        experiment, as published by Maheswaranathan et al. 2023.
    **options
        What the file leaves open: keyword options of the format's reader,
        `retina_codec.recordings.nwb.writer.read_nwb` or
        `retina_codec.recordings.maheswaranathan_2023.recording.read_maheswaranathan`; none for our own formats.

    Returns
    -------
    xr.DataTree
        A valid recording, see `retina_codec.recordings.schema.make_recording`.

    Raises
    ------
    RetinaCodecError
        Nothing at ``path``, an unknown suffix, an unreadable file, or one without a recording;
        an option that this format does not have.
    """
    reader = _reader(path)
    _check_options(options, reader, path)
    return reader(path, **options)


def _reader(path: str | os.PathLike[str]) -> Callable[..., xr.DataTree]:
    """Choose the reader of a format, by suffix and by what stands in a folder."""
    suffix = PurePath(os.fspath(path).rstrip("/")).suffix.lower()
    if is_address(path):
        if suffix not in (".nwb", ".zarr"):
            raise RetinaCodecError(
                f"only NWB files are read at an address; got {os.fspath(path)!r}. Download it."
            )
        return read_nwb
    folder = Path(path).is_dir()
    if suffix not in (*SUFFIXES, *PUBLISHED) and not folder:
        _suffix(path)
    if not Path(path).exists():
        raise RetinaCodecError(f"there must be a recording at {path}; nothing is there")
    if folder:
        if is_nwb_zarr(path):
            return read_nwb
        return _read_ours if suffix == ".zarr" else read_maheswaranathan
    if suffix in PUBLISHED:
        return read_maheswaranathan
    return read_nwb if suffix == ".nwb" else _read_ours


def _read_ours(path: str | os.PathLike[str]) -> xr.DataTree:
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
        ``.nwb`` (keeps what `retina_codec.recordings.nwb.writer.write_nwb` says), ``.nc`` or ``.zarr``
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
    **options: Any,
) -> None:
    """Write a recording in another format, block by block.

    Parameters
    ----------
    source : path
        Whatever `open_recording` opens.
    destination : path
        ``.nwb``, ``.nc`` or ``.zarr``.
    overwrite : bool
        Replace what is at ``destination``.
    **options
        Of `open_recording`.

    Raises
    ------
    RetinaCodecError
        As `open_recording` and `save_recording`, or both paths are the same.
    """
    _suffix(destination)
    if not is_address(source) and Path(source).resolve() == Path(destination).resolve():
        raise RetinaCodecError(f"source and destination must differ; both are {source}")
    recording = open_recording(source, **options)
    try:
        save_recording(recording, destination, overwrite=overwrite)
    finally:
        recording.close()


def _check_options(
    options: Mapping[str, Any], reader: Callable[..., Any], path: str | os.PathLike[str]
) -> None:
    parameters = inspect.signature(reader).parameters.values()
    valid = [p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]
    for name in options:
        if name not in valid:
            raise RetinaCodecError(
                f"{path}: the options of this format are {', '.join(valid) or 'none'}; got {name!r}"
            )


def _suffix(path: str | os.PathLike[str]) -> str:
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise RetinaCodecError(
            f"a recording's name must end in {', '.join(SUFFIXES)}; got {os.fspath(path)!r}"
        )
    return suffix
