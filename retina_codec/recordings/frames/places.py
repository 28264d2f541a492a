"""The groups and arrays of an NWB file, by path: HDF5 or Zarr, here or at an address.

Why this file exists: files of real labs use extensions that are not installed, old schema versions
and links, and pynwb then refuses the whole file. NWB's layout is public and stable, so it is read
by path: every file opens the same way, fast, and no link leads out of its folder unseen. What the
groups mean is not known here; Zarr stands in nwb_zarr.py.
"""

import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Place"]


@dataclass(frozen=True)
class Place:
    """Where an array stands: a file or an address, and the path in it."""

    source: str
    path: str
    state: str = ""  # changes when the file does

    def __str__(self) -> str:
        return f"{self.source}{self.path}{self.state}"


def file_state(path: str | os.PathLike[str]) -> str:
    """Say which state of a file this is: size and time of its last change."""
    state = Path(path).stat()
    return f"-{state.st_size}-{state.st_mtime_ns}"
