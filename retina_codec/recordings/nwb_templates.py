"""Pictures that were shown by index: a container of images, or an older series of templates."""

import re
from typing import Any

from retina_codec.errors import RetinaCodecError
from retina_codec.recordings.frames import ArrayFrames, Frames, Pictures
from retina_codec.recordings.nwb_options import NwbOptions, Reading
from retina_codec.recordings.nwb_tree import Node

__all__ = ["is_template", "natural_order", "picture_names", "template_frames"]

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
