"""Movies that are read by frame numbers when they are used: stored arrays, pictures, indices."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from retina_codec.errors import RetinaCodecError, option
from retina_codec.recordings.frames.places import Place, open_place

__all__ = [
    "ArrayFrames",
    "Frames",
    "GivenFrames",
    "IndexedFrames",
    "Pictures",
    "lazy_frames",
    "read_few",
]

FRAMES_PER_BLOCK = 500
BLOCK_BYTES = 2**26  # of one block in memory; fewer frames where they are large
LONG_BLOCK_BYTES = 2**28  # of one block, where chunks are stored long in time
LUMINANCE = (0.299, 0.587, 0.114)  # of red, green, blue: Rec. ITU-R BT.601
COLORS = {"red": 0, "green": 1, "blue": 2}
BLANK = -1  # the number of a frame on which nothing was shown
Numbers = npt.NDArray[np.int64]


class Frames(ABC):
    """A movie that is read by frame numbers.

    Attributes
    ----------
    shape : tuple of int
        (time, y, x)
    dtype : numpy.dtype
    label : str
        The same for the same frames; part of the name of the lazy array.
    encoding : str
        How the frames are stored, for the reader's report.
    together : int
        Number of frames that are stored in one chunk, so that one costs as much as all of them.
    """

    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    label: str
    encoding: str
    together: int = 1

    @abstractmethod
    def read(self, numbers: Numbers) -> npt.NDArray[Any]:
        """Return the frames with these numbers, ``(number, y, x)``; 0 <= number < shape[0]."""


class ArrayFrames(Frames):
    """Frames of one array of an HDF5 or Zarr file.

    Intensity = raw · conversion + offset; float32 unless these are 1 and 0. No file is kept open,
    so the frames can go to another process. Links, size, shape and type are checked at every read.

    Parameters
    ----------
    place : Place
        The array.
    shape : tuple of int
        As stored; an array that changed since is refused.
    dtype : numpy.dtype
        As stored.
    axes : str
        What the stored axes are, in order: ``t``, and where they exist ``y``, ``x``, ``c`` (color).
        Frames have length 1 along ``y`` or ``x`` where it is not stored.
    color : str, optional
        Which grey value stands for a color: ``luminance`` (0.299 R + 0.587 G + 0.114 B),
        ``mean`` of the three, ``red``, ``green`` or ``blue``.
    conversion, offset : float
        As stored with the series.
    together : int
        Frames per chunk, as stored.
    """

    def __init__(
        self,
        place: Place,
        shape: Sequence[int],
        dtype: np.dtype[Any],
        *,
        axes: str = "tyx",
        color: str | None = None,
        conversion: float = 1.0,
        offset: float = 0.0,
        together: int = 1,
    ) -> None:
        sizes = {"y": 1, "x": 1} | dict(zip(axes, shape, strict=True))
        self.place = place
        self.stored = tuple(shape), np.dtype(dtype)
        self.axes = axes
        self.color = color
        self.conversion = conversion
        self.offset = offset
        self.together = together
        self.shape = (sizes["t"], sizes["y"], sizes["x"])
        self.raw = conversion == 1.0 and offset == 0.0
        mixed = "c" in axes and color in ("luminance", "mean")
        self.dtype = np.dtype(np.float32) if mixed or not self.raw else dtype
        self.label = f"{place}-{axes}-{color}-{conversion}-{offset}"
        self.encoding = "inline data"

    def read(self, numbers: Numbers) -> npt.NDArray[Any]:
        """Read runs of frames; small gaps are read along."""
        order = tuple(self.axes.index(letter) for letter in "tyxc" if letter in self.axes)
        missing = tuple(axis for axis, letter in enumerate("tyx") if letter not in self.axes)
        pieces = []
        with open_place(self.place) as data:
            if (tuple(data.shape), data.dtype) != self.stored:
                raise RetinaCodecError(
                    f"the frames must stay as they were at {self.place.source}; "
                    f"{self.place.path} has changed. Open the file again."
                )
            for start, stop in runs(np.unique(numbers)):
                key = tuple(
                    slice(start, stop) if letter == "t" else slice(None) for letter in self.axes
                )
                piece = np.transpose(data[key], order)
                pieces.append((start, np.expand_dims(piece, missing)))
        frames = _gather(pieces, numbers)
        if "c" in self.axes:
            frames = grey(frames, self.color or "luminance")
        if self.raw:
            return frames.astype(self.dtype, copy=False)
        scaled: npt.NDArray[Any] = frames.astype(np.float64) * self.conversion + self.offset
        with np.errstate(over="ignore"):  # infinity, which is told where frames are used
            return scaled.astype(np.float32)


class Pictures(Frames):
    """Pictures that are each an array of their own, all of one size.

    Parameters
    ----------
    places : sequence of Place
        One per picture, axes (y, x) or (y, x, color).
    shapes : sequence of tuple of int
    dtype : numpy.dtype
    color : str, optional
        See `ArrayFrames`.
    names : sequence of str
        For messages.
    """

    def __init__(
        self,
        places: Sequence[Place],
        shapes: Sequence[Sequence[int]],
        dtype: np.dtype[Any],
        *,
        color: str | None = None,
        names: Sequence[str],
    ) -> None:
        sizes = {tuple(shape[:2]) for shape in shapes}
        if len(sizes) != 1:
            raise RetinaCodecError(
                f"all pictures must have one size; {names[0]} and others have {sorted(sizes)}. "
                "Bring them to one size, or choose another stimulus."
            )
        self.places = list(places)
        self.color = color
        height, width = next(iter(sizes))
        self.shape = (len(self.places), height, width)
        colored = any(len(shape) == 3 for shape in shapes)
        self.dtype = np.dtype(np.float32) if colored else dtype
        self.label = f"{self.places[0]}-{len(self.places)}-{color}-{','.join(names)}"
        self.encoding = f"{len(self.places)} pictures"

    def read(self, numbers: Numbers) -> npt.NDArray[Any]:
        """Read each picture once."""
        frames = np.empty((len(numbers), *self.shape[1:]), self.dtype)
        for number in np.unique(numbers):
            with open_place(self.places[number]) as data:
                picture = np.asarray(data[()])
            if picture.ndim == 3:
                picture = grey(picture, self.color or "luminance")
            frames[numbers == number] = picture
        return frames


class IndexedFrames(Frames):
    """Frames of another source, in any order, any number of times, with blanks.

    Parameters
    ----------
    base : Frames
    index : array of int
        Number of the frame in ``base``; −1 for a blank.
    blank : float, optional
        Intensity of a blank; must be given where there are blanks.
    """

    def __init__(self, base: Frames, index: Any, *, blank: float | None = None) -> None:
        self.base = base
        self.index = np.asarray(index, dtype=np.int64)
        if self.index.size and (self.index.max() >= base.shape[0] or self.index.min() < BLANK):
            raise RetinaCodecError(
                f"a frame number must be below the number of pictures, {base.shape[0]}; the "
                f"stimulus has {self.index.min()} to {self.index.max()}. Correct the numbers."
            )
        self.blank = blank
        if blank is None and (self.index == BLANK).any():
            raise RetinaCodecError(
                "the intensity of the screen must be known at all times; at some no picture was "
                f"shown. Pass {option('blank', 128)}, the intensity of the screen."
            )
        self.shape = (self.index.size, *base.shape[1:])
        kept = blank is None or np.dtype(base.dtype).kind == "f" or _holds(base.dtype, blank)
        self.dtype = base.dtype if kept else np.dtype(np.float32)
        self.label = f"{base.label}-{hashlib.sha256(self.index.tobytes()).hexdigest()}-{blank}"
        self.encoding = base.encoding
        self.together = base.together

    def read(self, numbers: Numbers) -> npt.NDArray[Any]:
        """Read the frames that the numbers refer to."""
        wanted = self.index[numbers]
        shown = wanted != BLANK
        frames = np.full((len(numbers), *self.shape[1:]), self.blank or 0, self.dtype)
        if shown.any():
            frames[shown] = self.base.read(wanted[shown])
        return frames


class GivenFrames(Frames):
    """Frames of an array in memory or on disk: numpy, dask, a memory map, an xarray variable.

    Parameters
    ----------
    array : array, (time, y, x)
    """

    def __init__(self, array: Any) -> None:
        shape = tuple(int(size) for size in getattr(array, "shape", ()))
        if len(shape) != 3 or 0 in shape:
            raise RetinaCodecError(f"frames must be an array (time, y, x); got {shape}")
        self.array = array
        self.shape = (shape[0], shape[1], shape[2])
        self.dtype = np.dtype(array.dtype)
        self.label = f"given-{id(array)}-{shape}"
        self.encoding = "frames given by the user"
        first = (getattr(array, "chunks", None) or (1,))[0]  # of dask: a tuple of lengths
        self.together = int(max(first) if isinstance(first, tuple) else first)

    def read(self, numbers: Numbers) -> npt.NDArray[Any]:
        """Read one run."""
        first, last = int(numbers.min()), int(numbers.max()) + 1
        return _gather([(first, np.asarray(self.array[first:last]))], numbers)


class _Blocks:
    """An array as dask reads it: shape, dtype, and slices along time.

    Where a part costs as much as the chunk that it lies in, the last chunks are kept: readers ask
    for parts one after the other, and dask for the two sides of a border in any order.
    """

    def __init__(self, frames: Frames, length: int) -> None:
        self.frames = frames
        self.length = length  # frames per block
        self.shape = frames.shape
        self.ndim = 3
        self.dtype = frames.dtype
        self._unit = min(frames.together, length)
        self._kept: dict[int, npt.NDArray[Any]] = {}
        self._lock = Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"frames": self.frames, "length": self.length}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]  # the same as a new one

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        keys = key if isinstance(key, tuple) else (key,)
        numbers = np.arange(self.shape[0])[keys[0]]
        read = self._read(np.atleast_1d(numbers))
        read = read if np.ndim(numbers) else read[0]
        rest = keys[1:] if np.ndim(numbers) == 0 else (slice(None), *keys[1:])
        part: npt.NDArray[Any] = read[rest]
        return part

    def _read(self, numbers: Numbers) -> npt.NDArray[Any]:
        """Read frames; by whole chunks where they are fewer than one holds."""
        if self._unit == 1 or (numbers.size >= self._unit and np.ptp(numbers) < numbers.size):
            return self.frames.read(numbers)
        found = np.empty((numbers.size, *self.shape[1:]), self.dtype)
        units = numbers // self._unit
        for unit in np.unique(units):
            held = units == unit
            found[held] = self._chunk(int(unit))[numbers[held] - int(unit) * self._unit]
        return found

    def _chunk(self, unit: int) -> npt.NDArray[Any]:
        """Return the frames of a chunk, or of the part of a very long one that fits into memory."""
        with self._lock:
            if unit not in self._kept:
                both = 2 * self._unit * self.dtype.itemsize * self.shape[1] * self.shape[2]
                while len(self._kept) > (both <= LONG_BLOCK_BYTES):
                    del self._kept[max(self._kept, key=lambda other: abs(other - unit))]
                stop = min((unit + 1) * self._unit, self.shape[0])
                self._kept[unit] = self.frames.read(np.arange(unit * self._unit, stop))
            return self._kept[unit]


def lazy_frames(frames: Frames) -> Any:
    """Put a dask array, dims (time, y, x), before a source; read nothing.

    Parameters
    ----------
    frames : Frames

    Returns
    -------
    dask.array.Array
        In blocks of up to 500 frames and 64 MiB; of whole chunks and up to 256 MiB where chunks
        are longer in time, so that each is unpacked once.
    """
    from dask.array import from_array

    length = _block_length(frames)
    return from_array(  # type: ignore[no-untyped-call]  # dask has no types here
        _Blocks(frames, length),
        chunks=(length, -1, -1),
        name=f"frames-{frames.label}",
        asarray=False,
        meta=np.empty((0, 0, 0), frames.dtype),  # otherwise dask reads a frame
    )


def _block_length(frames: Frames) -> int:
    """Return the number of frames per block."""
    total, height, width = frames.shape
    size = max(1, height * width * frames.dtype.itemsize)
    each = max(1, min(FRAMES_PER_BLOCK, BLOCK_BYTES // size, total))
    if frames.together == 1:
        return each
    most = max(each, LONG_BLOCK_BYTES // size)
    whole = frames.together * max(1, each // frames.together)
    return min(total, whole if whole <= most else -(-total // -(-total // most)))


def read_few(frames: Frames, numbers: Numbers) -> npt.NDArray[Any]:
    """Read some frames of a movie, unpacking no chunk twice.

    Parameters
    ----------
    frames : Frames
    numbers : array of int

    Returns
    -------
    numpy.ndarray, (number, y, x)
    """
    blocks = _Blocks(frames, _block_length(frames))
    unique, place = np.unique(numbers, return_inverse=True)
    found: npt.NDArray[Any] = blocks[unique][place]
    return found


def grey(frames: npt.NDArray[Any], color: str) -> npt.NDArray[Any]:
    """Turn color, the last axis (red, green, blue, opacity), into one grey value.

    Parameters
    ----------
    frames : numpy.ndarray, (..., 3 or 4)
    color : str
        See `ArrayFrames`.

    Returns
    -------
    numpy.ndarray, (...)
        float32 for ``luminance`` and ``mean``, as it came for one color.

    Raises
    ------
    RetinaCodecError
        An unknown name of a color, or a last axis that is not 3 or 4 long.
    """
    if frames.shape[-1] not in (3, 4):
        raise RetinaCodecError(
            f"color must have 3 or 4 values (the last axis); it has {frames.shape[-1]}"
        )
    if color in COLORS:
        return frames[..., COLORS[color]]
    if color not in ("luminance", "mean"):
        raise RetinaCodecError(
            f"color must be one of luminance, mean, {', '.join(COLORS)}; got {color!r}"
        )
    weights = np.array(LUMINANCE if color == "luminance" else (1 / 3,) * 3)
    mixed: npt.NDArray[Any] = (frames[..., :3].astype(np.float64) @ weights).astype(np.float32)
    return mixed


def runs(numbers: Numbers, gap: int = 16) -> list[tuple[int, int]]:
    """Join ascending numbers into runs (first, last + 1); small gaps are read along."""
    if numbers.size == 0:
        return []
    cuts = np.flatnonzero(np.diff(numbers) > gap) + 1
    return [(int(part[0]), int(part[-1]) + 1) for part in np.split(numbers, cuts)]


def _gather(pieces: list[tuple[int, npt.NDArray[Any]]], numbers: Numbers) -> npt.NDArray[Any]:
    """Pick frames by number out of runs that start at known numbers."""
    if len(pieces) == 1:
        start, frames = pieces[0]
        if len(frames) == len(numbers) and (np.diff(numbers) == 1).all():
            return frames
        picked: npt.NDArray[Any] = frames[numbers - start]
        return picked
    held = np.concatenate([np.arange(start, start + len(frames)) for start, frames in pieces])
    joined = np.concatenate([frames for _, frames in pieces])
    found: npt.NDArray[Any] = joined[np.searchsorted(held, numbers)]
    return found


def _holds(dtype: np.dtype[Any], value: float) -> bool:
    """Return whether an integer type represents a value exactly."""
    if np.dtype(dtype).kind not in "iu":
        return False
    limits = np.iinfo(dtype)
    return float(value).is_integer() and limits.min <= value <= limits.max
