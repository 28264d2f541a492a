"""Tables of presentations that name a template: one row per picture shown, from start to stop."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retina_codec.recordings.nwb_session import Floats
from retina_codec.recordings.nwb_templates import is_template, picture_names
from retina_codec.recordings.nwb_tree import Node, texts

__all__ = ["Presentations", "find_presentations"]

NUMBER_COLUMNS = ("frame", "image_index", "template_index", "stimulus_index", "index")
NAME_COLUMNS = ("image_name", "image", "frame_name", "stimulus_name")
TEMPLATE_COLUMNS = ("stimulus_name", "template", "template_name", "stimulus", "movie_name")


@dataclass
class Presentations:
    """Which picture of which template was on, and when.

    Attributes
    ----------
    name : str
        Of the table (and the template, where it shows several).
    template : Node
    index : numpy.ndarray, (row,)
        Number of the picture.
    starts, stops : numpy.ndarray, (row,)
        s.
    column : str
        Where the numbers came from.
    """

    name: str
    template: Node
    index: npt.NDArray[np.int64]
    starts: Floats
    stops: Floats
    column: str


def find_presentations(root: Node) -> Iterator[Presentations]:
    """Give every table of intervals that points to a template, once per template.

    A row points to a template by its name in a column such as ``stimulus_name``; without one the
    table's own name must begin with the template's (``movie_presentations``), or there must be
    only one. It points to a picture by number (``frame``, ``image_index``, …) or by its name.
    """
    templates = {
        node.name: node for node in _members(root, "stimulus/templates") if is_template(node)
    }
    if not templates:
        return
    for table in _members(root, "intervals"):
        first, last = table.get("start_time"), table.get("stop_time")
        if first is None or last is None:
            continue
        starts, stops = first.read().astype(np.float64), last.read().astype(np.float64)
        owner = _owner(table, templates, starts.size)
        for name in sorted({each for each in owner if each}):
            rows = np.flatnonzero(owner == name)
            found = _numbers(table, templates[name], rows)
            if found is None:
                continue
            rows, index, column = found
            order = np.argsort(starts[rows], kind="stable")
            rows, index = rows[order], index[order]
            several = len(set(owner.tolist())) > 1
            title = f"{table.name}/{name}" if several else table.name
            yield Presentations(title, templates[name], index, starts[rows], stops[rows], column)


def _members(root: Node, path: str) -> Iterator[Node]:
    group = root.get(path)
    if group is not None and not group.is_array:
        yield from (node for node in group.members() if not node.is_array)


def _owner(table: Node, templates: dict[str, Node], rows: int) -> npt.NDArray[np.object_]:
    """Name of the template of every row; empty where it has none."""
    for column in TEMPLATE_COLUMNS:
        data = table.get(column)
        if data is not None and data.is_array and data.shape == (rows,):
            words = [str(word) for word in texts(data.read())]
            if set(words) & set(templates):
                return np.array([w if w in templates else "" for w in words], dtype=object)
    named = [name for name in templates if table.name.startswith(name)]
    if not named and len(templates) == 1 and "presentation" in table.name:
        named = list(templates)
    return np.full(rows, max(named, key=len) if named else "", dtype=object)


def _numbers(
    table: Node, template: Node, rows: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], str] | None:
    """Rows that show a picture, its numbers, and the column they came from."""
    for column in NUMBER_COLUMNS:
        data = table.get(column)
        if data is not None and data.is_array and data.dtype.kind in "iuf":
            values = data.read().ravel()[rows].astype(np.float64)
            shown = np.isfinite(values)
            return rows[shown], values[shown].astype(np.int64), column
    names = {name: number for number, name in enumerate(picture_names(template))}
    for column in NAME_COLUMNS:
        data = table.get(column)
        if data is not None and data.is_array and names:
            words = [str(word) for word in texts(data.read().ravel()[rows])]
            known = np.array([word in names for word in words], dtype=bool)
            if known.any():
                picked = np.array([names[w] for w in words if w in names], dtype=np.int64)
                return rows[known], picked, column
    return None
