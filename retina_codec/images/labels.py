"""Labels of pictures from tables, lists of numbers, or mappings; names of classes."""

import csv
import io
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from retina_codec.errors import RetinaCodecError

__all__ = ["Labels", "labels_of_files", "parse_json", "read_class_names", "read_text"]

Place = str | os.PathLike[str]
# a table of files and labels; (numbers, order of their classes); or a mapping
Labels = Place | tuple[Place, Place] | Mapping[str, str]
NUMBERED = re.compile(r"_(\d{8})\.[A-Za-z]+$")  # ILSVRC2012_val_00000001.JPEG
WORDNET = re.compile(r"n\d{8}")


def labels_of_files(files: Sequence[str], labels: Labels) -> list[str]:
    """Return the label of every file.

    Parameters
    ----------
    files : sequence of str
        Names of files, in natural order.
    labels : path, (path, path) or mapping
        A ``.csv``, ``.tsv`` or ``.txt`` with a file (with or without its suffix) and its label in
        the first two columns; of several words in a label the first counts
        (``LOC_val_solution.csv``). A ``.json``, file to label. A mapping of the same. Two paths:
        numbers from 1, one per line in the order of the files
        (``ILSVRC2012_validation_ground_truth.txt``), and the classes in the order of these
        numbers, one per line. Entries for other files are passed over.

    Returns
    -------
    list of str

    Raises
    ------
    RetinaCodecError
        If a table cannot be read, a file has no label or two, or a number has no class.
    """
    if isinstance(labels, tuple):
        if len(labels) != 2:
            raise RetinaCodecError(
                "labels must be one table, or (numbers, order of classes); got "
                f"{len(labels)} paths."
            )
        return _numbered(files, Path(labels[0]), Path(labels[1]))
    table = dict(labels) if isinstance(labels, Mapping) else _read_table(Path(labels), files)
    found = [table.get(name, table.get(Path(name).stem)) for name in files]
    missing = [name for name, label in zip(files, found, strict=True) if label is None]
    if missing:
        raise RetinaCodecError(
            f"every picture must have a label; {len(missing)} of {len(files)} have none, first "
            f"{missing[0]!r}. Add them to the table, or put these pictures elsewhere."
        )
    return [str(label) for label in found]


def _read_table(file: Path, files: Sequence[str]) -> dict[str, str]:
    """Read files and labels from a table of any kind."""
    suffix = file.suffix.lower()
    text = read_text(file)
    if suffix == ".json":
        table = parse_json(text, file)
        if not all(isinstance(label, str | int) for label in table.values()):
            raise RetinaCodecError(f"{file} must be a table of files and labels, {{file: label}}.")
        return {str(name): str(label) for name, label in table.items()}
    if suffix not in (".csv", ".tsv", ".txt"):
        raise RetinaCodecError(
            f"labels must be a .csv, .tsv, .txt or .json; got {file.name!r}. Give "
            "(numbers, order of classes) for numbers without files."
        )
    if suffix == ".csv":
        rows = list(csv.reader(io.StringIO(text)))
    else:
        rows = [line.split("\t" if suffix == ".tsv" else None, 1) for line in text.splitlines()]
    rows = [[cell.strip() for cell in row] for row in rows if any(cell.strip() for cell in row)]
    if rows and all(len(row) == 1 and row[0].isdigit() for row in rows):
        raise RetinaCodecError(
            f"{file} must name files and labels; it holds numbers alone. Pass labels="
            "(numbers, order), where order has one class per line, the first for number 1."
        )
    if wrong := next((row for row in rows if len(row) < 2 or not row[1]), None):
        raise RetinaCodecError(f"{file} must have a file and a label in every row; got {wrong}.")
    known = {*files, *(Path(name).stem for name in files)}
    if rows and rows[0][0] not in known:
        rows = rows[1:]  # names of columns, or a picture that is not here
    found: dict[str, str] = {}
    for row in rows:
        label = row[1].split()[0] if WORDNET.match(row[1]) else row[1]
        if found.setdefault(row[0], label) != label:
            raise RetinaCodecError(f"{file} must give one label to a file; {row[0]!r} has two.")
    return found


def _numbered(files: Sequence[str], numbers: Path, order: Path) -> list[str]:
    """Return classes by number; the number in a file's name says its line, or its place."""
    classes = [_first_id(line) for line in read_text(order).splitlines() if line.strip()]
    if len(set(classes)) < len(classes) or not classes:
        raise RetinaCodecError(f"{order} must name every class once, one per line.")
    lines = read_text(numbers).split()
    if wrong := next((line for line in lines if not line.isdecimal()), None):
        raise RetinaCodecError(f"{numbers} must hold one whole number per line; got {wrong!r:.40}.")
    chosen = [int(line) for line in lines]
    if chosen and not (min(chosen) >= 1 and max(chosen) <= len(classes)):
        raise RetinaCodecError(
            f"{numbers} must number the {len(classes)} classes of {order.name} from 1; it has "
            f"{min(chosen)} to {max(chosen)}."
        )
    found = [NUMBERED.search(name) for name in files]
    if files and all(found):
        places = [int(match[1]) - 1 for match in found if match]
    else:
        places = list(range(len(files)))
        if len(files) != len(chosen):
            raise RetinaCodecError(
                f"{numbers} must have one number per picture; it has {len(chosen)} for "
                f"{len(files)}, and names of pictures do not end in _ and 8 digits."
            )
    if files and not 0 <= min(places) <= max(places) < len(chosen):
        raise RetinaCodecError(
            f"{numbers} has {len(chosen)} lines; pictures are numbered from {min(places) + 1} to "
            f"{max(places) + 1}."
        )
    return [classes[chosen[place] - 1] for place in places]


def _first_id(line: str) -> str:
    """Return the WordNet id in a line, or its first word."""
    found = WORDNET.search(line)
    return found[0] if found else line.split()[0]


LARGEST = 2**27  # bytes of a table


def read_class_names(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read the names of classes, in the order of the file.

    Parameters
    ----------
    path : path
        Lines of an id and its names (``LOC_synset_mapping.txt``, ``words.txt``), or JSON: id to
        name, or number to id and name (``imagenet_class_index.json``).

    Returns
    -------
    dict of str to str
        Id to first name (up to the first comma).

    Raises
    ------
    RetinaCodecError
        If the file is missing or not such a list, or an id is there twice.
    """
    file = Path(path)
    text = read_text(file)
    if file.suffix.lower() == ".json":
        table = parse_json(text, file)
        pairs = [
            (str(value[0]), str(value[1]))
            if isinstance(value, list) and len(value) == 2
            else (str(key), str(value))
            for key, value in table.items()
        ]
    else:
        cut = [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]
        pairs = [(parts[0], parts[-1]) for parts in cut]
    names = {key: name.split(",")[0].strip() for key, name in pairs}
    if not names or len(names) < len(pairs):
        raise RetinaCodecError(
            f"{file} must give one name to every id; it has {len(pairs)} rows for {len(names)} ids."
        )
    return names


def read_text(file: Path) -> str:
    """Return the text of a table."""
    try:
        if file.stat().st_size > LARGEST:
            raise RetinaCodecError(
                f"{file} must be at most {LARGEST} bytes, as a table; it is larger."
            )
        return file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise RetinaCodecError(f"{file} must be a readable table; {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise RetinaCodecError(f"{file} must be text in UTF-8; it is not.") from error


def parse_json(text: str, file: Path) -> dict[str, Any]:
    """Return the table in a JSON file."""
    try:
        table = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RetinaCodecError(f"{file} must be JSON; {error}.") from error
    if not isinstance(table, dict):
        raise RetinaCodecError(f"{file} must hold a table {{...}}; it holds a list or a value.")
    return table
