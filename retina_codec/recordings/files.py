"""One door for every file that holds a recording: the suffix decides the format."""

import inspect
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.recordings.maheswaranathan import SUFFIXES as PUBLISHED
from retina_codec.recordings.maheswaranathan import read_maheswaranathan
from retina_codec.recordings.nwb import read_nwb, write_nwb
from retina_codec.recordings.schema import validate_recording
from retina_codec.storage import open_tree, save_tree

__all__ = ["convert", "open_recording", "save_recording"]

SUFFIXES = (".nwb", ".nc", ".zarr")


def open_recording(path: str | os.PathLike[str], **options: Any) -> xr.DataTree:
    """Open a recording; its stimulus is read only when asked for.

    Parameters
    ----------
    path : path
        ``.nwb``, ``.nc`` or ``.zarr``; ``.h5``, ``.hdf5`` or the folder of an experiment, as
        published by Maheswaranathan et al. 2023.
    **options
        Keyword options of the format's reader: `retina_codec.recordings.nwb.read_nwb`,
        `retina_codec.recordings.maheswaranathan.read_maheswaranathan`; none for the others.

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
    suffix = Path(path).suffix.lower()
    if suffix not in PUBLISHED and not Path(path).is_dir():
        suffix = _suffix(path)
    if not Path(path).exists():
        raise RetinaCodecError(f"there must be a recording at {path}; nothing is there")
    if suffix not in SUFFIXES:
        _check_options(options, read_maheswaranathan, path)
        return read_maheswaranathan(path, **options)
    if suffix == ".nwb":
        _check_options(options, read_nwb, path)
        return read_nwb(path, **options)
    _check_options(options, None, path)
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


def _check_options(
    options: Mapping[str, Any], reader: Callable[..., Any] | None, path: str | os.PathLike[str]
) -> None:
    valid: list[str] = []
    if reader is not None:
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
