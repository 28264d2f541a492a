"""Arrays of a published HDF5 file: found by name, checked, cut to the movie; frames stay on disk.

What a function finds that is not as expected goes into ``notes``, which become attributes of the
recording. What the responses mean stands in maheswaranathan_responses.py.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retina_codec.errors import RetinaCodecError
from retina_codec.storage.hdf5 import check_size, child, hdf5_input, read_array

__all__ = [
    "FRAME_RATE",
    "CheckedFrames",
    "dataset_of",
    "fit_length",
    "lazy_dataset",
    "member",
    "names_of",
    "start_of",
]

FRAME_RATE = 100.0  # Hz, of every published recording


FRAMES_PER_BLOCK = 500


BLOCK_BYTES = 2**26


JITTER = 0.1  # of a frame


RATE_TOLERANCE = 1e-3  # a stored clock may run this much faster or slower than 100 Hz


Numbers = npt.NDArray[Any]


class CheckedFrames:
    """An array of a file of strangers, read on demand: links and sizes are checked every time.

    It keeps no file open and can be sent to another process.

    Parameters
    ----------
    path : Path
        The file.
    location : str
        Name of the data set in it.
    shape : tuple of int
    dtype : numpy.dtype
        As stored; an array that changed since is refused.
    """

    def __init__(
        self, path: Path, location: str, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> None:
        self.path = path
        self.location = location
        self.shape = shape
        self.ndim = len(shape)
        self.dtype = dtype

    def __getitem__(self, key: Any) -> Numbers:
        with hdf5_input(self.path, "the file of the frames, unchanged,") as file:
            dataset = member(file, self.location)
            if getattr(dataset, "shape", None) != self.shape or dataset.dtype != self.dtype:
                raise RetinaCodecError(
                    f"the frames must stay as they were at {self.path}; {self.location} has "
                    "changed. Open the file again."
                )
            return read_array(dataset, key)


def lazy_dataset(dataset: Any) -> Any:
    """Put a dask array before an open data set; read nothing.

    Parameters
    ----------
    dataset : h5py.Dataset, (time, ...)
        From `dataset_of`.

    Returns
    -------
    dask.array.Array, (time, ...), the same dtype

    Raises
    ------
    RetinaCodecError
        It claims far more than it stores, or its chunks are too large to read.
    """
    from dask.array import from_array

    path = Path(dataset.file.filename).resolve()
    check_size(dataset, path)
    per_frame = max(1, int(np.prod(dataset.shape[1:], dtype=object)) * dataset.dtype.itemsize)
    chunk = int(np.prod(dataset.chunks or (0,), dtype=object)) * dataset.dtype.itemsize
    if max(per_frame, chunk) > BLOCK_BYTES:
        raise RetinaCodecError(
            f"{path}: {dataset.name} must be stored in pieces of at most {BLOCK_BYTES} bytes; "
            f"one is {max(per_frame, chunk)}. Store it in smaller chunks (h5repack)."
        )
    frames = CheckedFrames(path, dataset.name, dataset.shape, dataset.dtype)
    block = max(1, min(FRAMES_PER_BLOCK, BLOCK_BYTES // per_frame, dataset.shape[0]))
    return from_array(  # type: ignore[no-untyped-call]  # dask has no types here
        frames,
        chunks=(block, *[-1] * (dataset.ndim - 1)),
        name=f"frames-{path}-{path.stat().st_mtime_ns}-{dataset.name}",
        asarray=False,
        meta=np.empty((0,) * dataset.ndim, dataset.dtype),
    )


def member(group: Any, name: str) -> Any:
    """Return a member as `child` does; None where there is no group to begin with.

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
    """List the members of a group; nothing for what is no group."""
    import h5py

    return sorted(map(str, group)) if isinstance(group, h5py.Group) else []


def dataset_of(group: Any, name: str, dims: str, where: str) -> Any:
    """Find an array of real numbers with these dims; ``dims`` is words for the message."""
    import h5py

    found = member(group, name)
    if found is None:
        raise RetinaCodecError(f"{where} must have {name} ({dims}); it has {names_of(group)}")
    shape = getattr(found, "shape", None)
    if not isinstance(found, h5py.Dataset) or shape is None or len(shape) != len(dims.split(", ")):
        raise RetinaCodecError(
            f"{where}: {name} must be an array ({dims}); it is {type(found).__name__} {shape}"
        )
    if found.dtype.kind not in "biuf" or 0 in shape:
        raise RetinaCodecError(
            f"{where}: {name} must hold real numbers, at least one; it is {shape} {found.dtype}"
        )
    return found


def fit_length(
    values: Numbers, frames: int, what: str, notes: dict[str, str], *, said: str | None = None
) -> Numbers:
    """Cut the one sample that some responses have beyond the movie; along the last dim.

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
        name = _in_file(said or what)
        before = notes.get("cut", "the last sample, beyond the movie, is left out of: ")
        if name not in before.split(": ")[1].split(", "):
            notes["cut"] = before + ("" if before.endswith(": ") else ", ") + name
        return values[..., :frames]
    if length != frames:
        raise RetinaCodecError(
            f"{what} must have a sample per frame, or one more; it has {length} for {frames} frames"
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
        _add(notes, "clock", f"{_in_file(where)} stores no time: 100 Hz from 0 s")
        return 0.0
    time = read_array(dataset_of(group, "time", "time", where)).astype(np.float64)
    time = fit_length(time, frames, f"{where}/time", notes)
    if frames < 2 or not np.isfinite(time).all():
        raise RetinaCodecError(f"{where}/time must be finite seconds, at least two")
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
        _add(notes, "clock", f"{_in_file(where)}: {jumps.size} gaps between blocks are closed")
    elif off.max() > 1e-6:
        _add(
            notes,
            "clock",
            f"{_in_file(where)}: exactly 100 Hz; stored times are up to {off.max():.2g} s off",
        )
    return float(time[0])


def _add(notes: dict[str, str], key: str, text: str) -> None:
    notes[key] = f"{notes[key]}; {text}" if key in notes else text


def _in_file(where: str) -> str:
    """Name of an array without the path of its file, which means nothing elsewhere."""
    return where.rsplit(": ", 1)[-1]
