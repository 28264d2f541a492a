"""A copy of a session with added processing modules; the session itself is not changed."""

import hashlib
import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retina_codec.errors import RetinaCodecError
from retina_codec.progress import progress_bar
from retina_codec.recordings.nwb.session import NOTES_KEY
from retina_codec.storage.hdf5 import child, read_array

__all__ = [
    "Units",
    "check_same_session",
    "copy_session",
    "read_units",
    "refuse_neighbours",
    "source_hash",
]

BLOCK = 2**24  # bytes


MOST_NAMED = 10  # cells or files named in a message


POINTS_TO_UNITS = "the cell's row in the table of units of the session"


@dataclass(frozen=True)
class Units:
    """The cells of a session.

    Attributes
    ----------
    place : str
        Path of the table in the file.
    ids : numpy.ndarray, (unit,)
    labels : numpy.ndarray, (unit,)
        Names where the file has them, else ids: what a recording calls its cells.
    session : str
        The file, for messages.
    """

    place: str
    ids: npt.NDArray[Any]
    labels: npt.NDArray[Any]
    session: str

    def rows(self, cells: npt.NDArray[Any]) -> list[int]:
        """Find the row of each cell.

        Parameters
        ----------
        cells : numpy.ndarray, (cell,)
            Labels.

        Returns
        -------
        list of int

        Raises
        ------
        RetinaCodecError
            A cell is no unit of the session.
        """
        place = {str(label): row for row, label in enumerate(self.labels.tolist())}
        missing = [cell for cell in cells.tolist() if str(cell) not in place]
        if missing:
            raise RetinaCodecError(
                f"cells of the results must be units of the session; {missing[:MOST_NAMED]} are "
                f"not, {self.session} has {self.labels[:MOST_NAMED].tolist()}"
                f"{' and more' if len(self.labels) > MOST_NAMED else ''}. Export into the session "
                "that was analyzed."
            )
        return [place[str(cell)] for cell in cells.tolist()]

    def column(self, cells: npt.NDArray[Any]) -> Any:
        """Make a column of the row of each cell, which `write_module` turns into a region."""
        from hdmf.common import VectorData

        return VectorData(name="unit", description=POINTS_TO_UNITS, data=self.rows(cells))

    def write_module(self, file: Any, module: Any) -> None:
        """Put a finished processing module into an open NWB file.

        Parameters
        ----------
        file : h5py.File
            The copy, open for writing.
        module : pynwb.ProcessingModule
            Columns made by `column` come to point to this table of units.
        """
        import h5py

        with h5py.File(_written_alone(module), "r") as memory:
            processing = file.require_group("processing")
            memory.copy(memory[f"processing/{module.name}"], processing, module.name)
        target = file[self.place].ref

        def point(_: str, item: Any) -> None:
            if item.attrs.get("description") == POINTS_TO_UNITS:
                item.attrs["neurodata_type"] = "DynamicTableRegion"
                item.attrs["table"] = target

        processing[module.name].visititems(point)


def read_units(file: Any, session: str) -> Units:
    """Read who the cells of a session are.

    Parameters
    ----------
    file : h5py.File
    session : str
        For messages.

    Returns
    -------
    Units

    Raises
    ------
    RetinaCodecError
        No units, or units in another file.
    """
    table = child(file, "units")
    ids = child(table, "id") if table is not None else None
    if ids is None or table.file.filename != file.filename:
        raise RetinaCodecError(
            f"{session} must hold a table of units; it holds none of its own. Export into the file "
            "with the sorted units."
        )
    numbers = read_array(ids)
    names = child(table, "cell_name")
    labels = numbers
    if names is not None:
        labels = np.array([_text(name) for name in read_array(names)], dtype=str)
    return Units("/units", numbers, labels, session)


def source_hash(file: Any) -> str:
    """Read the SHA-256 of the source that our writer keeps in the notes; empty without one."""
    notes = child(file, "general/notes")
    try:
        return str(json.loads(_text(notes[()]))[NOTES_KEY]["source_sha256"])
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError, UnicodeDecodeError):
        return ""


def refuse_neighbours(file: Any, session: Path, path: Path) -> None:
    """Refuse to copy a file that points to files beside it into another folder.

    Parameters
    ----------
    file : h5py.File
        The session.
    session, path : Path
        Where it is, and where the copy goes.

    Raises
    ------
    RetinaCodecError
        A link, a movie or values in another file, which the copy would not find.
    """
    if session.resolve().parent == path.expanduser().resolve().parent:
        return
    found = sorted(_neighbours(file, set()))
    if found:
        raise RetinaCodecError(
            f"a copy must find what the session points to; {session.name} points to "
            f"{', '.join(found[:MOST_NAMED])}, relative to its own folder. Write the copy beside "
            "the session."
        )


def copy_session(
    session: str | os.PathLike[str], stream: io.RawIOBase, *, progress: bool | None = None
) -> str:
    """Copy a file byte for byte.

    Parameters
    ----------
    session : path
    stream : file
        Open for writing, empty.
    progress : bool, optional
        None shows a bar after 2 s, False never, True at once.

    Returns
    -------
    str
        SHA-256 of what was copied, 64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    blocks = -(-Path(session).stat().st_size // BLOCK)
    with open(session, "rb") as source:
        for _ in progress_bar(range(blocks), description="copy session", progress=progress):
            block = source.read(BLOCK)
            digest.update(block)
            stream.write(block)
    return digest.hexdigest()


def check_same_session(
    attributes: Mapping[Any, Any], session: str, digest: str, noted: str
) -> None:
    """Check that the results are those of this session, as far as hashes tell.

    Parameters
    ----------
    attributes : mapping
        Of the results: ``recording_sha256`` and ``source_sha256``, where known.
    session : str
        For messages.
    digest : str
        SHA-256 of the session's file.
    noted : str
        SHA-256 of the file that the session was made from; empty where unknown.

    Raises
    ------
    RetinaCodecError
        Hashes are known, and none is the same.
    """
    names = ("recording_sha256", "source_sha256")
    known = {name: str(attributes[name]) for name in names if attributes.get(name)}
    if known and not set(known.values()) & ({digest, noted} - {""}):
        told = ", ".join(f"{name} {value[:12]}…" for name, value in known.items())
        raise RetinaCodecError(
            f"results must be those of this session; they come from another file ({told}), "
            f"{session} has {digest[:12]}…. Take the file that was analyzed, or say that it is "
            "the same session with other_session=True."
        )


def _written_alone(module: Any) -> io.BytesIO:
    """Write the module into a file of its own, in memory."""
    import h5py
    from pynwb import NWBHDF5IO, NWBFile

    alone = NWBFile(
        session_description="a module on its way into a session",
        identifier=module.name,
        session_start_time=datetime(1970, 1, 1, tzinfo=UTC),
    )
    alone.add_processing_module(module)
    buffer = io.BytesIO()
    with (
        h5py.File(buffer, "w") as memory,
        NWBHDF5IO(file=memory, mode="w") as out,
    ):
        out.write(alone, cache_spec=False)
    return buffer


def _neighbours(group: Any, seen: set[Any]) -> set[str]:
    """Names of other files that a group points to, down to its last member."""
    import h5py

    found: set[str] = set()
    for name in group:
        link = group.get(name, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            found.add(str(link.filename))
            continue
        if isinstance(link, h5py.SoftLink):
            continue
        item = group[name]
        info = h5py.h5o.get_info(item.id)
        if info.addr in seen:
            continue
        seen.add(info.addr)
        if isinstance(item, h5py.Group):
            found |= _neighbours(item, seen)
        elif isinstance(item, h5py.Dataset):
            found |= {os.fsdecode(entry[0]) for entry in item.external or ()}
            if item.is_virtual:
                found |= {s.file_name for s in item.virtual_sources() if s.file_name != "."}
            if name == "external_file" and item.shape is not None:
                found |= {_text(entry) for entry in np.ravel(item[()])}
    return {entry for entry in found if "://" not in entry and not os.path.isabs(entry)}


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
