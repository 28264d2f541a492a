"""List the files of a Zarr folder in its root, so that one that is lost or damaged is noticed.

Names and sizes are verified when the folder is opened, checksums when a file is read.
"""

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["FILES", "ROOT", "RUN", "bad_files", "describe_file", "root_attribute", "seal"]

FILES = "files_of_this_folder"

RUN = "run_of_this_folder"

ROOT = "zarr.json"  # the one file that is not listed: it holds the list


def describe_file(path: Path) -> tuple[int, int]:
    """Return size and CRC-32 of a file."""
    size = total = 0
    with path.open("rb") as stream:
        while block := stream.read(2**22):
            size, total = size + len(block), zlib.crc32(block, total)
    return size, total


def seal(folder: Path, known: Mapping[str, tuple[int, int]], run: str = "") -> None:
    """Write the list of all files into the root of a Zarr folder that is complete.

    Parameters
    ----------
    folder : Path
        A Zarr group with all its files.
    known : mapping
        Size and checksum of files that were described when they were written.
    run : str
        What the run is that wrote them, see `open_run`.
    """
    files = {
        name: list(known.get(name) or describe_file(path))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and (name := path.relative_to(folder).as_posix()) != ROOT
    }
    root = json.loads((folder / ROOT).read_text(encoding="utf-8"))
    root.setdefault("attributes", {})[FILES] = files
    if run:
        root["attributes"][RUN] = run
    new = folder / f"{ROOT}.partial"
    with new.open("w", encoding="utf-8") as stream:
        json.dump(root, stream)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(new, folder / ROOT)


def root_attribute(folder: Path, name: str) -> Any:
    """Return an attribute of the root of a Zarr folder; None if there is none."""
    try:
        return json.loads((folder / ROOT).read_bytes())["attributes"].get(name)
    except (OSError, ValueError, LookupError, AttributeError, TypeError):
        return None


def bad_files(folder: Path, files: Mapping[str, Any], *, exact: bool = True) -> list[str]:
    """Name the files that are missing or have another size (or, if exact, another checksum)."""
    bad = []
    for name, (size, total) in files.items():
        path = folder / name
        try:
            there = path.stat().st_size
        except OSError:
            bad.append(name)
            continue
        changeable = Path(name).name == ROOT  # attributes may be added
        if not changeable and (there != size or (exact and describe_file(path)[1] != total)):
            bad.append(name)
    return bad
