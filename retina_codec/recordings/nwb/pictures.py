"""Frames of an NWB file by number: stored in it, in files beside it, or made from a seed."""

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from retina_codec.errors import RetinaCodecError, option
from retina_codec.recordings.frames.files import joined_files
from retina_codec.recordings.frames.lazy import ArrayFrames, Frames, GivenFrames, Pictures
from retina_codec.recordings.frames.seeded import SeededFrames
from retina_codec.recordings.nwb.options import Reading
from retina_codec.recordings.nwb.tree import Node
from retina_codec.storage.hdf5 import inside_folder, is_address

__all__ = [
    "frame_array",
    "given_frames",
    "is_movie",
    "is_template",
    "picture_names",
    "series_frames",
    "stated_factor",
    "template_frames",
]

STANDARD = ("ImageSeries", "OpticalSeries", "IndexSeries", "ImageMaskSeries")
NO_PICTURES = ("order_of_images", "description")


def is_movie(node: Node) -> bool:
    """Return whether a node has frames: inside, in other files, or to be made from a seed."""
    if node.is_array:
        return False
    return (
        frame_array(node) is not None
        or node.get("external_file") is not None
        or _recipe(node) is not None
    )


def is_template(node: Node) -> bool:
    """Return whether a node holds pictures: a series with frames, or arrays of 2 or 3 axes."""
    return frame_array(node) is not None or bool(_pictures(node))


def series_frames(node: Node, where: str, reading: Reading) -> Frames:
    """Return the frames of an image series, wherever they are stored.

    Parameters
    ----------
    node : Node
    where : str
        File and stimulus, for messages.
    reading : Reading
        Options: ``frames``, ``axis_order``, ``color``, ``trust_paths``.

    Returns
    -------
    Frames

    Raises
    ------
    RetinaCodecError
        No frames, an order of the axes that is not known, color without the option ``color``,
        files that are missing or outside the folder of the file.
    """
    options = reading.options
    if options.frames is not None:
        return given_frames(options.frames)
    if node.kind not in STANDARD:
        reading.say(f"{node.path} is of the type {node.kind or 'none'}, read as an image series")
    data, files, recipe = frame_array(node), node.stored("external_file"), _recipe(node)
    if data is not None and 0 not in data.shape:
        axes = options.axis_order or _axes(node, data.shape, where, reading)
        return _array_frames(data, axes, where, reading)
    if files is not None and files.shape and files.shape[0]:
        return _external(files, where, reading)
    if recipe is not None:
        return _seeded(node, recipe, where)
    raise RetinaCodecError(
        f"{where} must have grey frames (time, y, x), files, or a seed; it has none. Pass "
        f"{option('frames', 'ARRAY')} (a seed: frames=SeededFrames(…) in Python)."
    )


def template_frames(node: Node, where: str, reading: Reading) -> Frames:
    """Return the pictures of a template by number.

    Parameters
    ----------
    node : Node
        An ``Images`` container or an image series.
    where : str
        File and stimulus, for messages.
    reading : Reading
        Options: ``color``, ``axis_order``. Reports where the order is not stated.

    Returns
    -------
    Frames

    Raises
    ------
    RetinaCodecError
        No pictures, pictures of several sizes, or color without the option ``color``.
    """
    options, data = reading.options, frame_array(node)
    if data is not None:
        return _array_frames(data, options.axis_order or "tyx", where, reading)
    pictures, (names, stated) = _pictures(node), _ordered(node)
    missing = [name for name in names if name not in pictures]
    if not pictures or missing:
        raise RetinaCodecError(
            f"{where}: {node.path} must hold pictures; it lacks {missing[:8] or 'all of them'}. "
            "Write them there, or choose another stimulus."
        )
    if not stated and len(names) > 1:
        reading.doubt(
            f"{node.path} does not say the order of its pictures; they are numbered by name, "
            "numbers in names as numbers"
        )
    chosen = [pictures[name] for name in names]
    if any(len(each.shape) == 3 for each in chosen) and options.color is None:
        _refuse_color(where, "pictures in color")
    for each in chosen:
        _check_numbers(each, where)
    return Pictures(
        [each.place for each in chosen],
        [each.shape for each in chosen],
        np.result_type(*{each.dtype for each in chosen}),
        color=options.color,
        names=names,
    )


def picture_names(node: Node) -> list[str]:
    """Return the names of the pictures of a container in order; none for an image series."""
    return [] if node.stored("data") is not None else _ordered(node)[0]


def given_frames(given: Any) -> Frames:
    """Return frames that the user gives: an array, a source of frames, or a .npy file."""
    if isinstance(given, Frames):
        return given
    if isinstance(given, str | os.PathLike):
        try:
            given = np.load(given, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise RetinaCodecError(
                f"frames must be a .npy file that can be read; {given} is not ({error}). Correct "
                "the path."
            ) from error
    try:
        np.dtype(given.dtype)
    except TypeError:  # of torch
        given = np.asarray(given)
    return GivenFrames(given)


def frame_array(node: Node) -> Node | None:
    """Return the array of frames in a series, or None."""
    data = node.stored("data")  # None for an array, which has no members
    return data if data is not None and len(data.shape) in (3, 4) else None


def _check_numbers(data: Node, where: str) -> None:
    if data.dtype.kind not in "biuf":
        raise RetinaCodecError(
            f"{where}: {data.path} must hold real numbers; it holds {data.dtype}. Write the "
            "intensities there."
        )


def _array_frames(data: Node, axes: str, where: str, reading: Reading) -> ArrayFrames:
    color = reading.options.color
    _check_numbers(data, where)
    if 0 in data.shape:
        raise RetinaCodecError(
            f"{where}: {data.path} must hold frames; its shape is {data.shape}. Write them there."
        )
    colored = len(data.shape) == 4
    if colored and color is None:
        _refuse_color(where, f"frames in color, shape {data.shape}")
    place, share = data.place, data.written()
    if share < 1 and not (place.zarr and share):  # in Zarr, black chunks may have no file
        reading.doubt(
            f"{data.path}: {100 * (1 - share):.3g} % of its values were never written; they read "
            "as its fill value"
        )
    along = axes.index("t")
    whole = data.shape[along] if along else 1  # time last: every frame lies all over the array
    return ArrayFrames(
        place,
        data.shape,
        data.dtype,
        axes=axes + "c" * colored,
        color=color if colored else None,
        conversion=stated_factor(data, "conversion", 1.0, reading),
        offset=stated_factor(data, "offset", 0.0, reading),
        together=data.chunks[along] if data.chunks else whole,
    )


def stated_factor(data: Node, name: str, usual: float, reading: Reading) -> float:
    """Return ``conversion`` or ``offset`` of an array.

    Parameters
    ----------
    data : Node
    name : str
    usual : float
        Taken, with a doubt, where the file holds NaN, text or a conversion of 0.
    reading : Reading
    """
    value = data.setting(name, usual)
    if np.isfinite(value) and (value != 0 or usual == 0):
        return value
    reading.doubt(
        f"{name} of {data.path} is {data.attribute(name)!r}, as some write for unknown; {usual:g} "
        "is taken"
    )
    return usual


def _refuse_color(where: str, found: str) -> None:
    raise RetinaCodecError(
        f"{where} must have grey frames; it has {found}. Pass {option('color', 'luminance')}, or "
        "'mean', 'red', 'green', 'blue'."
    )


def _axes(node: Node, shape: tuple[int, ...], where: str, reading: Reading) -> str:
    """Check the usual order of the axes against ``dimension``, which NWB counts as x, y.

    Without it, time should be the longest axis, or there must be a timestamp for each frame.
    """
    stated, stamps = node.stored("dimension"), node.stored("timestamps")
    sizes = () if stated is None else tuple(stated.numbers().ravel()[:2].tolist())
    last = f"{option('axis_order', 'xyt')} or {option('axis_order', 'yxt')} (time is last)"
    if len(sizes) == 2 and all(size >= 1 for size in sizes):
        if sizes == (shape[2], shape[1]):
            return "tyx"
        found, way = "other sizes", f"{option('axis_order', 'tyx')} (rows are y)"
        if sizes in ((shape[0], shape[1]), (shape[1], shape[0])):
            found, way = f"the first two of {shape}", last
        elif sizes == (shape[1], shape[2]):
            found = "the same sizes the other way round"
        raise RetinaCodecError(
            f"{where} must say how its axes are ordered: frames are stored as {shape[1]} × "
            f"{shape[2]} and dimension (x, y) says {sizes[0]:g} × {sizes[1]:g}, {found}. Pass {way}"
            f" or {option('axis_order', 'txy')} (rows are x)."
        )
    count = stamps.shape[0] if stamps is not None and stamps.shape else None
    given = reading.options.frame_times
    if given is not None and not isinstance(given, str):
        count = len(given)
    if count == shape[2] != shape[0]:
        raise RetinaCodecError(
            f"{where} must have time as its first axis; there are {count} times and the frames are "
            f"stored as {' × '.join(map(str, shape))}. Pass {last}."
        )
    if count != shape[0] and shape[0] < max(shape[1:3]):
        reading.doubt(
            f"{node.path} is read as {shape[0]} frames of {shape[1]} × {shape[2]} px, though time "
            f"should be its longest axis; if it is not the first, pass {last}; if it is, "
            f"{option('axis_order', 'tyx')}"
        )
    else:
        reading.say(f"axes of {node.path}: taken as (time, y, x); nothing states them")
    return "tyx"


def _external(files: Node, where: str, reading: Reading) -> Frames:
    names, path = [str(name) for name in files.read().ravel()], reading.path
    if is_address(path) or any(is_address(name) for name in names):
        raise RetinaCodecError(
            f"{where} names files at an address ({names[0]}); they must be on this machine. "
            "Download them beside the NWB file and correct the names."
        )
    folder = Path(path).resolve().parent
    if reading.options.trust_paths:
        places = [folder / name for name in names]
    else:
        places = [inside_folder(name, folder, path) for name in names]
    starts, color = files.attribute("starting_frame"), reading.options.color
    return joined_files(places, starts if isinstance(starts, list) else None, color=color)


def _recipe(node: Node) -> dict[str, Any] | None:
    """Read a generator and its seed from the comments of a series, where these are JSON."""
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
    settings.pop("file", None)  # a path that is written in a file is not followed
    size, times = node.stored("dimension"), node.stored("timestamps")
    if size is not None:  # (x, y)
        width, height, *_ = [*size.numbers().ravel().tolist(), 0.0, 0.0]
        settings.setdefault("width", width)
        settings.setdefault("height", height)
    if times is not None:
        settings.setdefault("frames", times.shape[0])
    missing = [name for name in ("frames", "height", "width") if name not in settings]
    if missing:
        raise RetinaCodecError(
            f"{where} is made from a seed and must also say {missing}. Write them beside the seed, "
            "or pass frames=SeededFrames(…) in Python."
        )
    sides = [settings.pop(name) for name in ("frames", "height", "width")]
    if not all(isinstance(side, int | float) and 1 <= side < np.inf for side in sides):
        raise RetinaCodecError(
            f"{where} is made from a seed; frames, height and width must be at least 1; they are "
            f"{sides}. Correct them, or pass frames=SeededFrames(…) in Python."
        )
    shape = tuple(map(int, sides))
    return SeededFrames(str(recipe["generator"]), shape=shape, **settings)  # type: ignore[arg-type]


def _pictures(node: Node) -> dict[str, Node]:
    """Return the arrays of a container by name; none for a series."""
    arrays = [] if node.stored("data") is not None else [n for n in node.members() if n.is_array]
    return {n.name: n for n in arrays if n.name not in NO_PICTURES and len(n.shape) in (2, 3)}


def _ordered(node: Node) -> tuple[list[str], bool]:
    """Names of the pictures in order, and whether the file states the order."""
    order = node.stored("order_of_images")
    if order is not None:
        return [path.rsplit("/", 1)[-1] for path in order.references()], True
    return sorted(_pictures(node), key=_natural_order), False


def _natural_order(name: str) -> list[tuple[int, Any]]:
    """Sort key: ``im10`` after ``im9``."""
    parts = re.split(r"(\d+)", name)
    return [(0, int(part)) if part.isdigit() else (1, part) for part in parts]
