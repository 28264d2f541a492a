"""Types of cells: from a column of the units, codes of another table, a file or a mapping."""

import csv
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retina_codec.errors import RetinaCodecError, option
from retina_codec.recordings.nwb.options import Reading
from retina_codec.recordings.nwb.tree import Table, joined_words

__all__ = ["MAYBE_TYPES", "TYPE_COLUMNS", "types_from", "types_of"]

TYPE_COLUMNS = ("cell_type", "celltype", "cell_class", "cell type")
MAYBE_TYPES = ("type", "group", "class", "label", "cluster_type", "functional_type")
NAME_COLUMNS = (*TYPE_COLUMNS, *MAYBE_TYPES, "name", "type_name", "label_name")
TYPE_WORDS = ("unknown", "", "nan", "none", "n/a", "null")


def types_of(table: Table, name: str, count: int, reading: Reading) -> npt.NDArray[Any]:
    """Read the types in a column; codes get the names in the table that they refer to.

    Parameters
    ----------
    table : Table
    name : str
        Of the column.
    count : int
        Number of cells.
    reading : Reading
        Gets a doubt where codes have no names.

    Returns
    -------
    numpy.ndarray, (cell,)
        Several types of one cell joined by commas; "unknown" where unknown.
    """
    values: Any = table[name]
    target = table.rows_of(name)
    if target is not None:
        columns = [n for n in target if n.lower() in NAME_COLUMNS] or [
            n for n in target if n != "id" and np.asarray(target[n]).dtype.kind == "O"
        ]
        words = target.words(columns[0]) if len(columns) == 1 else []
        rows = [np.atleast_1d(entry).astype(np.int64) for entry in values]
        if not words or any(((row < 0) | (row >= len(words))).any() for row in rows):
            reading.doubt(
                f"{table.path}/{name} refers to rows of {target.path}, which has no one column of "
                f"names for them ({', '.join(target) or 'no column'}); types are unknown. Pass "
                f"{option('cell_types', 'FILE.csv')} with the type of every id"
            )
            return np.full(count, "unknown")
        values = [[words[number] for number in row] for row in rows]
        reading.say(f"cell types: {columns[0]} of {target.path}")
    elif isinstance(values, np.ndarray) and values.dtype.kind not in "OSU":
        reading.doubt(
            f"{table.path}/{name} holds numbers that nothing names; they are taken as types. Pass "
            f"{option('cell_types', 'FILE.csv')} with the name of each"
        )
    if any(np.size(entry) > 1 for entry in values):
        reading.say("cell types: some units have several; they are joined by commas")
    return clean_types([joined_words(entry) for entry in values])


def types_from(
    source: Any, names: npt.NDArray[Any], table: Table | None, reading: Reading, what: str
) -> npt.NDArray[Any]:
    """Look up the type of each cell in a column, a CSV or JSON file, or a mapping.

    Parameters
    ----------
    source : str, path or mapping
        Name of a column of the table, a ``.csv`` (first column the id; the type in the column
        ``cell_type`` or ``type``, else the second) or ``.json`` (an object from id to type), or a
        mapping from id to type.
    names : numpy.ndarray
        Ids, as the file has them.
    table : Table or None
    reading : Reading
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
                raise RetinaCodecError(
                    f"{reading.path} must have a table with a column {text!r}; it has no table of "
                    f"these. Pass a .csv or .json file, {option(f'{what}_types', 'FILE.csv')}."
                )
            return types_of(table, text, len(names), reading)
        source = _mapping_from(Path(text))
    known = {str(key).strip(): value for key, value in source.items()}
    found = [known.get(str(name)) for name in names]
    if all(entry is None for entry in found):
        raise RetinaCodecError(
            f"{reading.path}: {what}_types must be keyed by {what} id, such as "
            f"{[str(n) for n in names[:5]]}; the keys given are {sorted(known)[:5]}. Key it by id."
        )
    return clean_types(["unknown" if entry is None else entry for entry in found])


def clean_types(values: Any) -> npt.NDArray[Any]:
    """Strip texts; "unknown" where they are empty or say that the type is not known."""
    words = [str(value).strip() for value in values]
    return np.array(["unknown" if w.lower() in TYPE_WORDS else w for w in words], dtype=str)


def _mapping_from(file: Path) -> Mapping[str, Any]:
    if not file.is_file():
        raise RetinaCodecError(
            f"there must be a table of cell types at {file}; no file is there. Correct the path."
        )
    text = file.read_text(encoding="utf-8-sig")
    if file.suffix.lower() == ".json":
        try:
            found = json.loads(text)
        except ValueError as error:
            raise RetinaCodecError(
                f'{file} must be JSON, such as {{"12": "ON"}}; it is not ({error}). Correct it.'
            ) from error
        if not isinstance(found, dict):
            raise RetinaCodecError(
                f'{file} must be an object from id to type, such as {{"12": "ON"}}; it is a '
                f"{type(found).__name__}. Correct it."
            )
        return found
    rows = [row for row in csv.reader(text.splitlines()) if row]
    if not rows or len(rows[0]) < 2:
        raise RetinaCodecError(
            f"{file} must have an id and a type in every row, as in 12,ON; its first row is "
            f"{rows[0] if rows else 'missing'}. Correct it."
        )
    head = [entry.strip().lower() for entry in rows[0]]
    named = [name for name in ("cell_type", "type") if name in head]
    place = head.index(named[0]) if named else 1
    return {row[0].strip(): row[place] for row in rows if len(row) > place}
