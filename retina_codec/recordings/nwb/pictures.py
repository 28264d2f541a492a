"""Frames of an image series of an NWB file: inside it, in files beside it, or made from a seed."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retina_codec.errors import RetinaCodecError
from retina_codec.recordings.frames.files import joined_files
from retina_codec.recordings.frames.lazy import ArrayFrames, Frames, GivenFrames, Pictures
from retina_codec.recordings.frames.seeded import SeededFrames
from retina_codec.recordings.nwb.options import NwbOptions, Reading
from retina_codec.recordings.nwb.session import Floats
from retina_codec.recordings.nwb.tree import Node, texts
from retina_codec.storage.hdf5 import inside_folder, is_address

__all__ = [
    "Presentations",
    "find_presentations",
    "is_movie",
    "is_template",
    "natural_order",
    "picture_names",
    "series_frames",
    "template_frames",
]

AXES = ("tyx", "txy", "xyt", "yxt")


STANDARD = ("ImageSeries", "OpticalSeries", "IndexSeries", "ImageMaskSeries")


def is_movie(node: Node) -> bool:
    """Frames inside, in other files, or to be made from a seed."""
    if node.is_array:
        return False
    data = node.get("data")
    if data is not None and data.is_array and len(data.shape) in (3, 4):
        return True
    return node.get("external_file") is not None or _recipe(node) is not None


def series_frames(
    node: Node, path: str, where: str, options: NwbOptions, reading: Reading
) -> Frames:
    """Give the frames of a series, from wherever they are."""
    if options.frames is not None:
        given = (
            options.frames if isinstance(options.frames, Frames) else GivenFrames(options.frames)
        )
        return given
    if node.kind not in STANDARD:
        reading.say(f"{node.path} is of the type {node.kind or 'none'}, read as an image series")
    files = node.get("external_file")
    data = node.get("data")
    inline = (
        data is not None and data.is_array and len(data.shape) in (3, 4) and 0 not in data.shape
    )
    if inline and data is not None:
        return _inline(node, data, where, options, reading)
    if files is not None and files.shape and files.shape[0]:
        return _external(files, path, where, options)
    recipe = _recipe(node)
    if recipe is not None:
        return _seeded(node, recipe, where)
    raise RetinaCodecError(
        f"{where} must have grey frames (time, y, x), files, or a seed; it has none. Pass "
        "frames=ARRAY or frames=SeededFrames(…)."
    )


def _inline(
    node: Node, data: Node, where: str, options: NwbOptions, reading: Reading
) -> ArrayFrames:
    axes = options.axis_order or _axes(node, data.shape, where, reading)
    if axes not in AXES:
        raise RetinaCodecError(f"axis_order must be one of {', '.join(AXES)}; got {axes!r}")
    if len(data.shape) == 4:
        if options.color is None:
            raise RetinaCodecError(
                f"{where} has frames in color, shape {data.shape}; grey ones are explained. Pass "
                "color= 'luminance', 'mean', 'red', 'green' or 'blue'."
            )
        axes += "c"
    return ArrayFrames(
        data.place,
        data.shape,
        data.dtype,
        axes=axes,
        color=options.color if len(data.shape) == 4 else None,
        conversion=float(data.attribute("conversion", 1.0)),
        offset=float(data.attribute("offset", 0.0)),
    )


def _axes(node: Node, shape: tuple[int, ...], where: str, reading: Reading) -> str:
    """Check the usual order against ``dimension``, which NWB counts as x, y."""
    stated = node.get("dimension")
    if stated is None:
        reading.say(f"axes of {node.path}: taken as (time, y, x); nothing states them")
        return "tyx"
    sizes = tuple(int(size) for size in stated.read().ravel()[:2])
    if sizes == (shape[2], shape[1]):
        return "tyx"
    turned = (shape[1], shape[2])
    found = "the same sizes the other way round" if sizes == turned else "other sizes"
    raise RetinaCodecError(
        f"{where} must say how its axes are ordered: frames are stored as {shape[1]} × {shape[2]} "
        f"and dimension (x, y) says {sizes[0]} × {sizes[-1]}, {found}. Pass axis_order='tyx' "
        "(rows are y) or 'txy' (rows are x)."
    )


def _external(files: Node, path: str, where: str, options: NwbOptions) -> Frames:
    names = [str(name) for name in files.read().ravel()]
    if is_address(path) or any(is_address(name) for name in names):
        raise RetinaCodecError(
            f"{where} names files at an address ({names[0]}); they must be on this machine. "
            "Download them beside the NWB file and correct the names."
        )
    folder = Path(path).resolve().parent
    if options.trust_paths:
        places = [folder / name for name in names]
    else:
        places = [inside_folder(name, folder, path) for name in names]
    starts = files.attribute("starting_frame")
    return joined_files(places, starts if isinstance(starts, list) else None, color=options.color)


def _recipe(node: Node) -> dict[str, Any] | None:
    """Read a generator and its seed from the words of a series, where they are JSON."""
    for words in (node.attribute("comments", ""), node.attribute("description", "")):
        if isinstance(words, str) and words.lstrip().startswith("{") and '"generator"' in words:
            try:
                found = json.loads(words)
            except ValueError:
                continue
            if isinstance(found, dict) and isinstance(found.get("seed"), int):
                return found
    return None


def _seeded(node: Node, recipe: dict[str, Any], where: str) -> Frames:
    settings = {name: value for name, value in recipe.items() if name != "generator"}
    settings.pop("file", None)  # a path that stands in a file is not followed
    size = node.get("dimension")
    times = node.get("timestamps")
    if size is not None:  # (x, y)
        sides = size.read().ravel()[:2].tolist()
        settings.setdefault("width", sides[0])
        settings.setdefault("height", sides[1])
    if times is not None:
        settings.setdefault("frames", times.shape[0])
    missing = [name for name in ("frames", "height", "width") if name not in settings]
    if missing:
        raise RetinaCodecError(f"{where} is made from a seed and must also say {missing}")
    shape = tuple(int(settings.pop(name)) for name in ("frames", "height", "width"))
    return SeededFrames(str(recipe["generator"]), shape=shape, **settings)  # type: ignore[arg-type]


NO_PICTURES = ("order_of_images", "description")


def is_template(node: Node) -> bool:
    """Say whether a node holds pictures: a series with frames, or arrays of two or three axes."""
    if node.is_array:
        return False
    data = node.get("data")
    if data is not None and data.is_array:
        return len(data.shape) in (3, 4)
    return bool(_pictures(node))


def picture_names(node: Node) -> list[str]:
    """Names of the pictures of a container, in the order of their numbers; none for a series."""
    data = node.get("data")
    if data is not None and data.is_array:
        return []
    return [path.rsplit("/", 1)[-1] for path in _ordered(node)[0]]


def template_frames(node: Node, where: str, options: NwbOptions, reading: Reading) -> Frames:
    """Give the pictures of a template by number.

    Parameters
    ----------
    node : Node
        An ``Images`` container or an image series.
    where : str
        For messages.
    options : NwbOptions
        ``color``, ``axis_order``.
    reading : Reading
        Told where the order is not stated.

    Returns
    -------
    Frames

    Raises
    ------
    RetinaCodecError
        No pictures, pictures of several sizes, or color without a word on what to do with it.
    """
    data = node.get("data")
    if data is not None and data.is_array:
        if len(data.shape) == 4 and options.color is None:
            _refuse_color(where)
        axes = (options.axis_order or "tyx") + "c" * (len(data.shape) == 4)
        return ArrayFrames(
            data.place,
            data.shape,
            data.dtype,
            axes=axes,
            color=options.color if len(data.shape) == 4 else None,
            conversion=float(data.attribute("conversion", 1.0)),
            offset=float(data.attribute("offset", 0.0)),
        )
    pictures = _pictures(node)
    paths, stated = _ordered(node)
    missing = [path for path in paths if path.rsplit("/", 1)[-1] not in pictures]
    if not pictures or missing:
        raise RetinaCodecError(
            f"{where}: {node.path} must hold pictures; it lacks {missing or 'all of them'}"
        )
    if not stated and len(paths) > 1:
        reading.doubt(
            f"{node.path} does not say the order of its pictures; they are numbered by name, "
            "numbers in names as numbers"
        )
    chosen = [pictures[path.rsplit("/", 1)[-1]] for path in paths]
    if any(len(each.shape) == 3 for each in chosen) and options.color is None:
        _refuse_color(where)
    return Pictures(
        [each.place for each in chosen],
        [each.shape for each in chosen],
        chosen[0].dtype,
        color=options.color,
        names=[each.name for each in chosen],
    )


def natural_order(name: str) -> list[tuple[int, Any]]:
    """Sort key: ``im10`` after ``im9``."""
    parts = re.split(r"(\d+)", name)
    return [(0, int(part)) if part.isdigit() else (1, part) for part in parts]


def _pictures(node: Node) -> dict[str, Node]:
    return {
        each.name: each
        for each in node.members()
        if each.is_array and each.name not in NO_PICTURES and len(each.shape) in (2, 3)
    }


def _ordered(node: Node) -> tuple[list[str], bool]:
    """Paths of the pictures in order, and whether the file states it."""
    order = node.get("order_of_images")
    if order is not None and order.is_array:
        return order.references(), True
    return sorted(_pictures(node), key=natural_order), False


def _refuse_color(where: str) -> None:
    raise RetinaCodecError(
        f"{where} has pictures in color; grey ones are explained. Pass color= 'luminance', 'mean', "
        "'red', 'green' or 'blue'."
    )


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
