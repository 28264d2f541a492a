"""Arrays of a published HDF5 file: found by name, checked, cut to the movie; frames stay on disk.

What is not as expected is written into ``notes``, which become attributes of the recording.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retina_codec.errors import RetinaCodecError
from retina_codec.recordings.frames.lazy import BLOCK_BYTES, ArrayFrames, lazy_frames
from retina_codec.recordings.frames.places import Place, file_state
from retina_codec.storage.hdf5 import check_stored, child, read_array

__all__ = [
    "FRAME_RATE",
    "dataset_of",
    "fit_length",
    "in_file",
    "lazy_movie",
    "member",
    "names_of",
    "start_of",
]

FRAME_RATE = 100.0  # Hz, of every published recording
JITTER = 0.1  # of a frame
RATE_TOLERANCE = 1e-3  # a stored clock may run this much faster or slower than 100 Hz
Numbers = npt.NDArray[Any]


def lazy_movie(dataset: Any, axes: str = "tyx") -> Any:
    """Make a dask array of an open movie; nothing is read.

    Parameters
    ----------
    dataset : h5py.Dataset
        From `dataset_of`.
    axes : str
        What the stored axes are; see `ArrayFrames`.

    Returns
    -------
    dask.array.Array, (time, y, x), the same dtype

    Raises
    ------
    RetinaCodecError
        It claims far more than it stores, or its chunks are too large to read.
    """
    path = Path(dataset.file.filename).resolve()
    check_stored(dataset, path)
    pieces = (dataset.shape[1:], dataset.chunks or (0,))  # one frame, one chunk
    largest = max(int(np.prod(piece, dtype=object)) for piece in pieces) * dataset.dtype.itemsize
    if largest > BLOCK_BYTES:
        raise RetinaCodecError(
            f"{path}: {dataset.name} must be stored in pieces of at most {BLOCK_BYTES} bytes; "
            f"one is {largest}. Store it in smaller chunks (h5repack)."
        )
    place = Place(str(path), dataset.name, file_state(path))
    together = dataset.chunks[axes.index("t")] if dataset.chunks else 1
    frames = ArrayFrames(place, dataset.shape, dataset.dtype, axes=axes, together=together)
    return lazy_frames(frames)


def member(group: Any, name: str) -> Any:
    """Return a member as `child` does; None where ``group`` is no group.

    Parameters
    ----------
    group : h5py.Group or None
    name : str
        A name, or a path of names from the group.

    Raises
    ------
    RetinaCodecError
        As `child`.
    """
    import h5py

    return child(group, name) if isinstance(group, h5py.Group) else None


def names_of(group: Any) -> list[str]:
    """List the members of a group; none where it is no group."""
    import h5py

    return sorted(map(str, group)) if isinstance(group, h5py.Group) else []


def dataset_of(group: Any, name: str, dims: str, where: str) -> Any:
    """Find an array of real numbers with these dims, given as text: ``"time, y, x"``."""
    import h5py

    found = member(group, name)
    if found is None:
        raise RetinaCodecError(
            f"{where} must have {name} ({dims}); it has {names_of(group)[:8]}. Write it there, or "
            "build the recording with make_recording."
        )
    shape = getattr(found, "shape", None)
    if not isinstance(found, h5py.Dataset) or shape is None or len(shape) != len(dims.split(", ")):
        raise RetinaCodecError(
            f"{where}: {name} must be an array ({dims}); it is {type(found).__name__} {shape}. "
            "Write it again."
        )
    if found.dtype.kind not in "biuf" or 0 in shape:
        raise RetinaCodecError(
            f"{where}: {name} must hold real numbers, at least one; it is {shape} {found.dtype}. "
            "Write it again."
        )
    return found


def fit_length(
    values: Numbers, frames: int, what: str, notes: dict[str, str], *, said: str | None = None
) -> Numbers:
    """Cut off the one sample that some responses have beyond the movie, along the last dim.

    Parameters
    ----------
    values : numpy.ndarray, (..., time)
    frames : int
        Of the movie.
    what : str
        Name of the array, for the note and the message.
    notes : dict
        Gets an entry ``cut``.
    said : str, optional
        Another name for the note, for one of many arrays.

    Returns
    -------
    numpy.ndarray, (..., time)
        As long as the movie.

    Raises
    ------
    RetinaCodecError
        Any other length.
    """
    length = values.shape[-1]
    if length == frames + 1:
        name = in_file(said or what)
        before = notes.get("cut", "the last sample, beyond the movie, is left out of: ")
        if name not in before.split(": ")[1].split(", "):
            notes["cut"] = before + ("" if before.endswith(": ") else ", ") + name
        return values[..., :frames]
    if length != frames:
        raise RetinaCodecError(
            f"{what} must have a sample per frame, or one more; it has {length} for {frames} "
            "frames. Cut it, or build the recording with make_recording."
        )
    return values


def start_of(group: Any, frames: int, blocks: int, where: str, notes: dict[str, str]) -> float:
    """Check the stored clock of a split and return its first time.

    Parameters
    ----------
    group : h5py.Group
        The split.
    frames : int
        Of the movie.
    blocks : int
        Pieces that the movie may consist of; the clock may jump between them.
    where : str
        Name of the split, for notes and messages.
    notes : dict
        Gets an entry ``clock`` where the stored clock is not taken as it is.

    Returns
    -------
    float
        s; 0 where no clock is stored.

    Raises
    ------
    RetinaCodecError
        Not about 100 Hz, or a time that is off by more than a tenth of a frame.
    """
    if member(group, "time") is None:
        _add(notes, "clock", f"{in_file(where)} stores no time: 100 Hz from 0 s")
        return 0.0
    time = read_array(dataset_of(group, "time", "time", where)).astype(np.float64)
    time = fit_length(time, frames, f"{where}/time", notes)
    if frames < 2 or not np.isfinite(time).all():
        raise RetinaCodecError(
            f"{where}/time must be finite seconds, at least two; it is not. Write it again, or "
            "take it out: then 100 Hz from 0 s is taken."
        )
    step = float(np.median(np.diff(time)))
    rate = 1.0 / step if step > 0 else np.nan
    if not abs(rate / FRAME_RATE - 1) <= RATE_TOLERANCE:
        raise RetinaCodecError(
            f"{where}/time must advance at {FRAME_RATE:g} Hz, as published; it does at "
            f"{rate:.6g} Hz. Build the recording with make_recording."
        )
    jumps = np.flatnonzero(np.abs(np.diff(time) / step - 1) > JITTER) + 1
    borders = set(range(0, frames, frames // blocks)) if frames % blocks == 0 else set()
    if not set(jumps.tolist()) <= borders:
        first = next(jump for jump in jumps if jump not in borders)
        raise RetinaCodecError(
            f"{where}/time must advance evenly; at index {first} it goes from "
            f"{time[first - 1]:.6g} to {time[first]:.6g} s. Cut the session there."
        )
    off = np.abs(time - time[0] - np.arange(frames) / FRAME_RATE)
    if jumps.size:
        _add(notes, "clock", f"{in_file(where)}: {jumps.size} gaps between blocks are closed")
    elif off.max() > 1e-6:
        _add(
            notes,
            "clock",
            f"{in_file(where)}: exactly 100 Hz; stored times are up to {off.max():.2g} s off",
        )
    return float(time[0])


def _add(notes: dict[str, str], key: str, text: str) -> None:
    notes[key] = f"{notes[key]}; {text}" if key in notes else text


def in_file(where: str) -> str:
    """Return the name of an array without the path of its file.

    Parameters
    ----------
    where : str
        ``file: place``.
    """
    return where.rsplit(": ", 1)[-1]
