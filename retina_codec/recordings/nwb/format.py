"""Neurodata Without Borders as a recording format."""

import os
from dataclasses import fields
from typing import Any

import xarray as xr

from retina_codec.recordings.formats import Format, suffix_of
from retina_codec.recordings.nwb.open import is_nwb_zarr
from retina_codec.recordings.nwb.options import NwbOptions
from retina_codec.recordings.nwb.reader import read_nwb
from retina_codec.recordings.nwb.writer import write_nwb

__all__ = ["Nwb"]


class Nwb(Format):
    """NWB files in HDF5 or in a Zarr folder; written as HDF5."""

    name = "nwb"
    suffixes = (".nwb",)
    options = tuple(field.name for field in fields(NwbOptions))
    addresses = True

    def recognises(self, path: str | os.PathLike[str]) -> bool:
        """Look into Zarr folders: their root says whether they hold an NWB file."""
        return suffix_of(path) in self.suffixes or is_nwb_zarr(path)

    def read(self, path: str | os.PathLike[str], **options: Any) -> xr.DataTree:
        """See `read_nwb`."""
        return read_nwb(path, **options)

    def write(
        self, recording: xr.DataTree, path: str | os.PathLike[str], *, overwrite: bool
    ) -> None:
        """See `write_nwb`."""
        write_nwb(recording, path, overwrite=overwrite)
