"""Types of cells: from a column, a table in a file beside, or a mapping."""

import csv
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retina_codec.errors import RetinaCodecError
from retina_codec.recordings.nwb_columns import column
from retina_codec.recordings.nwb_tree import Node, texts

__all__ = ["clean_types", "types_from"]

TYPE_WORDS = ("unknown", "", "nan", "none", "n/a", "null")


def types_from(
    source: Any, names: npt.NDArray[Any], table: Node | None, path: str, what: str
) -> npt.NDArray[Any]:
    """Give each cell its type: from a column, a CSV or JSON file, or a mapping.

    Parameters
    ----------
    source : str, path or mapping
        Name of a column of the table, a ``.csv`` (first column the id; the type in the column
        ``cell_type`` or ``type``, else the second) or ``.json`` (an object from id to type), or a
        mapping from id to type.
    names : numpy.ndarray
        Ids, as the file has them.
    table : Node or None
    path : str
        For messages.
    what : str
        "cell" or "interneuron", for messages.

    Returns
    -------
    numpy.ndarray, (cell,)
        "unknown" where the source has nothing.

    Raises
    ------
    RetinaCodecError
        No such column or file, or none of the ids is in it.
    """
    if not isinstance(source, Mapping):
        text = os.fspath(source)
        if Path(text).suffix.lower() not in (".csv", ".json"):
            if table is None:
                raise RetinaCodecError(f"{path}: there is no table with a column {text!r}")
            values = column(table, text, path)
            if isinstance(values, list) or len(values) != len(names):
                raise RetinaCodecError(f"{path}: the column {text!r} must have one value per row")
            return clean_types(values)
        source = _mapping_from(Path(text))
    known = {str(key).strip(): value for key, value in source.items()}
    found = [known.get(str(name)) for name in names]
    if all(entry is None for entry in found):
        raise RetinaCodecError(
            f"the types must be keyed by {what} id, such as {[str(n) for n in names[:5]]}; the "
            f"keys given are {sorted(known)[:5]}"
        )
    return clean_types(["unknown" if entry is None else entry for entry in found])


def clean_types(values: Any) -> npt.NDArray[Any]:
    """Text without blanks around it; "unknown" where nothing is said."""
    words = [str(value).strip() for value in texts(np.asarray(values))]
    return np.array(["unknown" if w.lower() in TYPE_WORDS else w for w in words], dtype=str)


def _mapping_from(file: Path) -> Mapping[str, Any]:
    if not file.is_file():
        raise RetinaCodecError(f"there must be a table of cell types at {file}; no file is there")
    text = file.read_text(encoding="utf-8-sig")
    if file.suffix.lower() == ".json":
        try:
            found = json.loads(text)
        except ValueError as error:
            raise RetinaCodecError(f"{file} must be JSON; {error}") from error
        if not isinstance(found, dict):
            raise RetinaCodecError(f"{file} must be an object from id to type")
        return found
    rows = [row for row in csv.reader(text.splitlines()) if row]
    if not rows or len(rows[0]) < 2:
        raise RetinaCodecError(f"{file} must have an id and a type in every row")
    head = [entry.strip().lower() for entry in rows[0]]
    named = [name for name in ("cell_type", "type") if name in head]
    place = head.index(named[0]) if named else 1
    return {row[0].strip(): row[place] for row in rows if len(row) > place}
