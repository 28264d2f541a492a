"""Which stimulus of an NWB file was shown, and its frames by number.

They are stored in the file, in files beside it, or made from a seed.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retina_codec.errors import RetinaCodecError, option
from retina_codec.recordings.binning import Floats
from retina_codec.recordings.frames.files import joined_files
from retina_codec.recordings.frames.lazy import BLANK, ArrayFrames, Frames, GivenFrames, Pictures
from retina_codec.recordings.frames.seeded import SeededFrames
from retina_codec.recordings.nwb.options import Reading
from retina_codec.recordings.nwb.tree import Node, Table, Tables
from retina_codec.storage.hdf5 import inside_folder, is_address

__all__ = ["Candidate", "Shown", "find_pictures"]

OURS = "stimulus"  # the name that `write_nwb` gives
NUMBER_COLUMNS = ("frame", "image_index", "template_index", "stimulus_index", "index")
NAME_COLUMNS = ("image_name", "image", "frame_name", "stimulus_name")
TEMPLATE_COLUMNS = ("stimulus_name", "template", "template_name", "stimulus", "movie_name")
LISTED = 8
RECORDED = ("TwoPhotonSeries", "OnePhotonSeries")  # movies of cells, which nobody saw
STANDARD = ("ImageSeries", "OpticalSeries", "IndexSeries", "ImageMaskSeries")
NO_PICTURES = ("order_of_images", "description")


Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Candidate:
    """A series, or a table of presentations, that may be the stimulus.

    Attributes
    ----------
    pictures : Node
        The series with the frames, or the template with the pictures.
    series : Node or None
        The series with the times; None for a table of presentations.
    index : numpy.ndarray, (row,), or None
        Number of the picture in each row of a table of presentations.
    starts, stops : numpy.ndarray, (row,)
        s, of these rows; empty for a series.
    column : str
        Where the numbers of a table came from; empty where every row plays the whole template.
    """

    pictures: Node
    series: Node | None = None
    index: Numbers | None = None
    starts: Floats = field(default_factory=lambda: np.empty(0))
    stops: Floats = field(default_factory=lambda: np.empty(0))
    column: str = ""

    def numbers(self, where: str) -> Numbers | None:
        """Return the number of the picture at each time; None for a movie stored by frames."""
        if self.series is None or self.series is self.pictures:
            return self.index
        data = self.series.stored("data")
        if data is None:
            raise RetinaCodecError(
                f"{where} must hold numbers of pictures; it has no data. Write them there."
            )
        numbers = data.numbers().ravel()
        if not (np.isfinite(numbers).all() and (numbers == np.round(numbers)).all()):
            raise RetinaCodecError(
                f"{where} must hold whole numbers of pictures in {data.path}; some are not. Write "
                "them again."
            )
        return numbers.astype(np.int64)

    def words(self, frames: Frames) -> str:
        """Say how the frames are stored."""
        if self.series is self.pictures:
            return frames.encoding
        what = f"presentations of {self.pictures.path} by the column {self.column!r}"
        if not self.column:
            what = f"{self.starts.size} presentations of the whole of {self.pictures.path}"
        if self.series is not None:
            what = f"indices into {self.pictures.path}"
        return f"{what} ({frames.encoding})"

    @property
    def whole(self) -> bool:
        """Whether every row of a table plays the whole template."""
        return self.series is None and not self.column


@dataclass(frozen=True)
class Shown:
    """The stimulus that was chosen, and its frames.

    Attributes
    ----------
    name : str
        Empty where the user gives frames and their times.
    chosen : Candidate or None
        None where the file has no part in it.
    frames : Frames
        By number.
    index : numpy.ndarray, (row,), or None
        Number of the picture at each time; None for a movie that is stored frame by frame, and
        for whole presentations.
    others : list of str
        Stimuli that were not read.
    """

    name: str
    chosen: Candidate | None
    frames: Frames
    index: Numbers | None = None
    others: list[str] = field(default_factory=list)


def find_pictures(root: Node, tables: Tables, name: str | None, reading: Reading) -> Shown:
    """Choose the stimulus that was shown, or the one with a given name, and open its frames.

    Parameters
    ----------
    root : Node
    tables : mapping of str to Table
        Tables of intervals by name, with ``start_time`` and ``stop_time``.
    name : str, optional
        Of a series or a table of presentations.
    reading : Reading
        Options on frames.

    Returns
    -------
    Shown

    Raises
    ------
    RetinaCodecError
        None, several without a name, or one whose frames are not fully known.
    """
    options = reading.options
    found, others, lost = _candidates(root, tables, options.frames is not None)
    timed = options.frames is not None and options.frame_times is not None
    if name is None and timed and len(found) != 1:
        return Shown("", None, _given_frames(options.frames))
    name = _choose(root, found, [*others, *lost], lost, name, reading)
    chosen, where = found[name], f"{reading.path}: stimulus {name!r}"
    index = None if chosen.whole else chosen.numbers(where)
    if index is None and not chosen.whole:
        base = _series_frames(chosen.pictures, where, reading)
    else:
        base = _template_frames(chosen.pictures, where, reading)
    if index is not None and index.size and not BLANK <= index.min() <= index.max() < base.shape[0]:
        raise RetinaCodecError(
            f"{where} must refer to pictures of {chosen.pictures.path} by numbers below "
            f"{base.shape[0]}, their count; they are {index.min()} to {index.max()}. Correct them, "
            f"or pass {option('axis_order', 'xyt')} if the pictures are its last axis."
        )
    return Shown(name, chosen, base, index, sorted({*found, *others, *lost} - {name}))


def _candidates(
    root: Node, tables: Tables, timed: bool
) -> tuple[dict[str, Candidate], list[str], dict[str, str]]:
    """List what may be the movie, by name; the names of other stimuli; those that cannot be read.

    Where the user gives the frames (``timed``), any series with times may be the movie.
    """
    found: dict[str, Candidate] = {}
    others: list[str] = []
    indexed: set[str] = set()
    lost: dict[str, str] = {}
    for node in _inside(root, "stimulus/presentation", lost):
        try:
            source = node.get("indexed_images") or node.get("indexed_timeseries")
            if source is not None:
                indexed.add(source.path)
            if source is not None and not timed:
                found[node.name] = Candidate(source, node)
            elif source is not None or _may_be(node, timed):
                found[node.name] = Candidate(node, node)
            else:
                others.append(node.name)
        except RetinaCodecError as error:
            lost[node.name] = str(error)
    hidden: dict[str, str] = {}
    nodes = _inside(root, "stimulus/templates", hidden)
    templates = {n.name: n for n in nodes if not n.is_array and _is_template(n)}
    tabled = list(_presentations(tables, templates))
    numbered = [entry for entry in tabled if entry[1].column]
    for name, table in numbered if found or numbered else tabled:
        if table.pictures.path not in indexed:  # an index series says more
            found.setdefault(name, table)
    return found, others, lost if found else lost | hidden


def _inside(node: Node, place: str = "", lost: dict[str, str] | None = None) -> list[Node]:
    """Return the members of a group, or of one in it; none where nothing is there."""
    group = node.get(place) if place else node
    return [] if group is None else list(group.members(lost))


def _may_be(node: Node, timed: bool) -> bool:
    """Say whether a node may be the movie: it has frames, or times for the frames given."""
    times = node.stored("timestamps") or node.stored("starting_time")
    return (timed and times is not None) or _is_movie(node)


def _elsewhere(root: Node, timed: bool) -> dict[str, Candidate]:
    """Find series that the file does not call a stimulus, by path; read only if they are named."""
    modules = [f"processing/{one.name}" for one in _inside(root, "processing") if not one.is_array]
    found = {}
    for place in ("acquisition", *modules, "stimulus/templates"):
        for node in _inside(root, place):
            try:
                if not node.is_array and _may_be(node, timed):
                    found[f"{place}/{node.name}"] = Candidate(node, node)
            except RetinaCodecError:  # of a series that nobody may need
                continue
    return found


def _presentations(
    tables: Tables, templates: Mapping[str, Node]
) -> Iterator[tuple[str, Candidate]]:
    """Yield every table of intervals that refers to a template, once per template.

    A row refers to a template by its name in a column such as ``stimulus_name``; without one the
    table's own name must begin with the template's (``movie_presentations``), or there must be
    only one. It refers to a picture by number (``frame``, ``image_index``, …) or by its name; where
    it does not, it plays the whole template.
    """
    for table in tables.values() if templates else ():
        starts, stops = table.spans()
        owner = _owner(table, templates, starts.size)
        for name in sorted({each for each in owner if each}):
            rows = np.flatnonzero(owner == name)
            found = _numbers(table, templates[name], rows)
            if found is None and _frame_array(templates[name]) is not None:
                found = rows, np.zeros(rows.size, dtype=np.int64), ""
            if found is None:
                continue
            rows, index, column = found
            order = np.argsort(starts[rows], kind="stable")
            rows, index = rows[order], index[order]
            several = len(set(owner.tolist())) > 1
            title = f"{table.name}/{name}" if several else table.name
            yield title, Candidate(templates[name], None, index, starts[rows], stops[rows], column)


def _owner(table: Table, templates: Mapping[str, Node], rows: int) -> npt.NDArray[np.object_]:
    """Name of the template of every row; empty where it has none."""
    for column in TEMPLATE_COLUMNS:
        words = table.words(column) if column in table else []
        if len(words) == rows and set(words) & set(templates):
            return np.array([w if w in templates else "" for w in words], dtype=object)
    named = [name for name in templates if table.name.startswith(name)]
    if not named and len(templates) == 1 and "presentation" in table.name:
        named = list(templates)
    return np.full(rows, max(named, key=len) if named else "", dtype=object)


def _numbers(table: Table, template: Node, rows: Numbers) -> tuple[Numbers, Numbers, str] | None:
    """Rows that show a picture, its numbers, and the column they came from."""
    for column in NUMBER_COLUMNS:
        values = table[column] if column in table else None
        if isinstance(values, np.ndarray) and values.dtype.kind in "iuf":
            numbers = values.ravel()[rows].astype(np.float64)
            shown = np.isfinite(numbers)
            return rows[shown], numbers[shown].astype(np.int64), column
    names = {name: number for number, name in enumerate(_picture_names(template))}
    for column in NAME_COLUMNS:
        values = table[column] if column in table and names else None
        if isinstance(values, np.ndarray):
            words = [str(word) for word in values.ravel()[rows]]
            known = np.array([word in names for word in words], dtype=bool)
            if known.any():
                picked = np.array([names[w] for w in words if w in names], dtype=np.int64)
                return rows[known], picked, column
    return None


def _choose(
    root: Node,
    found: dict[str, Candidate],
    others: list[str],
    lost: Mapping[str, str],
    name: str | None,
    reading: Reading,
) -> str:
    """Choose the stimulus: the one that is named, or the only one; adds it to ``found``."""
    path, timed = reading.path, reading.options.frames is not None
    if name is not None and name not in found and name not in lost:
        further = _elsewhere(root, timed)
        fitting = [p for p in further if name.strip("/") in (p, p.rsplit("/", 1)[-1])]
        if len(fitting) == 1:
            found[name] = further[fitting[0]]
            reading.say(f"{fitting[0]} is no stimulus of the file; taken as named")
        elif found or fitting:
            raise RetinaCodecError(
                f"{path} must have the stimulus {name!r}, once; it has "
                f"{', '.join(fitting or sorted({*found, *others}))}. Pass "
                f"{option('stimulus', (fitting or sorted(found))[0])} or another of these."
            )
    if name is not None and name in lost:
        raise RetinaCodecError(lost[name])
    if not found and len(lost) == 1:
        raise RetinaCodecError(next(iter(lost.values())))
    if not found:
        has = f"it has {', '.join(sorted(others))}" if others else "it has none"
        every = _elsewhere(root, timed)
        near = sorted(p for p, each in every.items() if each.pictures.kind not in RECORDED)
        if near:
            has += f", and {', '.join(near[:LISTED])} elsewhere"
            way = f"Pass {option('stimulus', near[0])} or another of these."
        else:
            frames, times = option("frames", "ARRAY"), option("frame_times", "ONSETS")
            way = f"Pass {frames} and {times}; frames of a seed: frames=SeededFrames(…) in Python."
        raise RetinaCodecError(
            f"{path} must have a stimulus that is an image series, an index series, or a table of "
            f"presentations that names a template; {has}. {way}"
        )
    if name is None:
        if len(found) + len(lost) > 1 and OURS not in found:
            raise RetinaCodecError(
                f"{path} must have one stimulus; it has {', '.join(sorted({*found, *lost}))}. Pass "
                f"{option('stimulus', 'NAME')} (or one per split: "
                f"{option('stimulus', {'train': 'NAME', 'test': 'NAME'})})."
            )
        return OURS if OURS in found else next(iter(found))
    return name


def _is_movie(node: Node) -> bool:
    """Return whether a node has frames: inside, in other files, or to be made from a seed."""
    if node.is_array:
        return False
    return (
        _frame_array(node) is not None
        or node.get("external_file") is not None
        or _recipe(node) is not None
    )


def _is_template(node: Node) -> bool:
    """Return whether a node holds pictures: a series with frames, or arrays of 2 or 3 axes."""
    return _frame_array(node) is not None or bool(_pictures(node))


def _series_frames(node: Node, where: str, reading: Reading) -> Frames:
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
        return _given_frames(options.frames)
    if node.kind not in STANDARD:
        reading.say(f"{node.path} is of the type {node.kind or 'none'}, read as an image series")
    data, files, recipe = _frame_array(node), node.stored("external_file"), _recipe(node)
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


def _template_frames(node: Node, where: str, reading: Reading) -> Frames:
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
    options, data = reading.options, _frame_array(node)
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


def _picture_names(node: Node) -> list[str]:
    """Return the names of the pictures of a container in order; none for an image series."""
    return [] if node.stored("data") is not None else _ordered(node)[0]


def _given_frames(given: Any) -> Frames:
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


def _frame_array(node: Node) -> Node | None:
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
        conversion=data.factor("conversion", 1.0, reading.doubt),
        offset=data.factor("offset", 0.0, reading.doubt),
        together=data.chunks[along] if data.chunks else whole,
    )


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
    arrays = [] if node.stored("data") is not None else [n for n in _inside(node) if n.is_array]
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
