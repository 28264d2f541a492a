"""Frames of an image series of an NWB file: inside it, in files beside it, or made from a seed."""

import json
from pathlib import Path
from typing import Any

from retina_codec.errors import RetinaCodecError
from retina_codec.hdf5_input import inside_folder, is_address
from retina_codec.recordings.frame_files import joined_files
from retina_codec.recordings.frames import ArrayFrames, Frames, GivenFrames
from retina_codec.recordings.generators import SeededFrames
from retina_codec.recordings.nwb_options import NwbOptions, Reading
from retina_codec.recordings.nwb_tree import Node

__all__ = ["is_movie", "series_frames"]

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
