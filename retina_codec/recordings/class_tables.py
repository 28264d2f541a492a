"""Small tables beside a collection of pictures: names of classes, and text read with care.

Why this file exists: ids of classes have names in a handful of layouts, and every table may be
missing, huge or no text. Labels of files are read in image_labels.py, superclasses in hierarchy.py.
"""

import json
import os
from pathlib import Path
from typing import Any

from retina_codec.errors import RetinaCodecError

__all__ = ["parse_json", "read_class_names", "read_text"]

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
    """Return what is in a table, or say that it is none."""
    try:
        if file.stat().st_size > LARGEST:
            raise RetinaCodecError(f"{file} is larger than a table can be ({LARGEST} bytes).")
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
