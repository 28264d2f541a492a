"""Open, save and convert recordings of every registered format."""

import os
from pathlib import Path
from typing import Any

import xarray as xr

from retina_codec.errors import RetinaCodecError, option
from retina_codec.recordings.formats import format_of, writable_format
from retina_codec.recordings.schema import validate_recording
from retina_codec.storage.hdf5 import is_address

__all__ = ["convert", "open_recording", "save_recording"]


def open_recording(path: str | os.PathLike[str], **options: Any) -> xr.DataTree:
    """Open a recording; its stimulus is read only when it is used.

    Parameters
    ----------
    path : path
        ``.nwb`` (HDF5, or a Zarr folder as hdmf-zarr writes), also at an address (``https://``,
        ``s3://``); ``.nc`` or ``.zarr`` written by `save_recording`; ``.h5``, ``.hdf5`` or the
        folder of an experiment, as published by Maheswaranathan et al. 2023; or whatever a format
        in ``rc.recordings.registry`` recognises.
    **options
        What the file does not say itself: the options of the format, for NWB those of
        `retina_codec.recordings.nwb.options.NwbOptions`, for the published files those of
        `retina_codec.recordings.maheswaranathan_2023.recording.read_maheswaranathan`.

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
    chosen = format_of(path)
    for name in options:
        if name not in chosen.options:
            valid = ", ".join(chosen.options) or "none"
            raise RetinaCodecError(
                f"{path}: the options of this format are {valid}; got "
                f"{option(name, options[name])}. Leave it out, or correct its name."
            )
    recording = chosen.read(path, **options)
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
        Its suffix decides the format: ``.nc`` or ``.zarr`` keep everything, ``.nwb`` keeps what
        `retina_codec.recordings.nwb.writer.write_nwb` says.
    overwrite : bool
        Replace what is at ``path``.

    Raises
    ------
    RetinaCodecError
        Not a valid recording, an unknown suffix, an existing path, or a failing write.
    """
    chosen = writable_format(path)
    validate_recording(recording)
    chosen.write(recording, path, overwrite=overwrite)


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
        Whatever `save_recording` writes.
    overwrite : bool
        Replace what is at ``destination``.
    **options
        Of `open_recording`.

    Raises
    ------
    RetinaCodecError
        As `open_recording` and `save_recording`, or both paths are the same.
    """
    writable_format(destination)
    if not is_address(source) and Path(source).resolve() == Path(destination).resolve():
        raise RetinaCodecError(f"source and destination must differ; both are {source}")
    recording = open_recording(source, **options)
    try:
        save_recording(recording, destination, overwrite=overwrite)
    finally:
        recording.close()
