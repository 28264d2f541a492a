"""Make a whole recording from arrays: in memory, or in a .npz or .mat file."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.errors import RetinaCodecError, in_words
from retina_codec.recordings.arrays import make_split
from retina_codec.recordings.numbers import is_positive
from retina_codec.recordings.schema import make_recording

__all__ = ["read_arrays", "recording_from_arrays"]

ARRAYS = ("frames", "frame_times", "counts", "spikes", "test_frames", "repeats", "test_counts")
AXES = ("tyx", "yxt", "xyt", "txy")
PREFIX = "spikes_"


def recording_from_arrays(
    frames: Any,
    spikes: Mapping[Any, npt.ArrayLike] | Sequence[npt.ArrayLike] | None = None,
    *,
    counts: npt.ArrayLike | None = None,
    frame_rate: float | None = None,
    frame_times: npt.ArrayLike | None = None,
    test_frames: Any = None,
    repeats: Sequence[float] | None = None,
    test_counts: npt.ArrayLike | None = None,
    held_out: float = 0.2,
    types: Mapping[Any, str] | Sequence[str] | None = None,
    about: Mapping[str, Any] | None = None,
) -> xr.DataTree:
    """Make a recording from frames and spikes; all times are in s on one clock.

    Parameters
    ----------
    frames : array (time, y, x)
        Raw intensities of the movie that was shown once: the train split.
    spikes : mapping of name to array, or sequence of arrays
        s, the spikes of each cell in the whole session.
    counts : array (time, cell), instead of ``spikes``
        Spikes per frame.
    frame_rate : float
        Hz. The first frame is at 0 s where ``frame_times`` is not given.
    frame_times : array (time,), optional
        s, when each frame was shown.
    test_frames : array (time, y, x), optional
        The movie of the test split. Without it the last part of ``frames`` becomes the test split.
    repeats : sequence of float
        s, onset of each presentation of ``test_frames``; needed with ``spikes``.
    test_counts : array (repeat, time, cell)
        Spikes per frame in each presentation; needed with ``counts``.
    held_out : float
        Share of ``frames`` for the test split where there are no ``test_frames``.
    types : mapping of name to str, or sequence of str, optional
        Type of each cell.
    about : mapping, optional
        ``session``, ``species``, ``source`` (str), ``pixel_size`` (µm on the retina).

    Returns
    -------
    xr.DataTree
        See `make_recording`.

    Raises
    ------
    RetinaCodecError
        Spikes and counts both, or neither; no clock; counts that do not fit the frames; what
        `make_split` and `make_recording` refuse.

    Examples
    --------
    >>> import numpy as np
    >>> import retina_codec as rc
    >>> noise = np.random.default_rng(0).integers(0, 255, (50, 4, 4), dtype=np.uint8)
    >>> own = rc.recordings.recording_from_arrays(noise, [[0.3, 1.2], [0.7]], frame_rate=30)
    >>> own["train"].sizes["time"], own["test"].sizes["time"]
    (40, 10)
    """
    known = {"session", "species", "source", "pixel_size"}
    about = {"session": "", "species": "unknown", "source": "", **(about or {})}
    if wrong := sorted(set(about) - known):
        raise RetinaCodecError(f"about takes {', '.join(sorted(known))}; got {wrong}.")
    if (spikes is None) == (counts is None):
        raise RetinaCodecError(
            "give spikes (s, one array per cell) or counts (time, cell), one of the two; got "
            f"{'neither' if spikes is None else 'both'}."
        )
    onsets = _onsets(frames, frame_times, frame_rate, "frames")
    rate = float(frame_rate or (len(onsets) - 1) / (onsets[-1] - onsets[0]))
    train = _split(frames, onsets, spikes, counts, types, "counts")
    if test_frames is None:
        cut = round(len(onsets) * (1 - held_out))
        if not 2 <= cut <= len(onsets) - 2:
            raise RetinaCodecError(
                f"held_out must leave two frames to either split; got {held_out} of {len(onsets)}."
            )
        parts: dict[str, Any] = {
            "train": train.isel(time=slice(0, cut)),
            "test": train.isel(time=slice(cut, None)),
        }
    else:
        parts = {"train": train, **_test(test_frames, rate, spikes, repeats, test_counts, train)}
    return make_recording(
        **parts,
        frame_rate=float(train.attrs.get("frame_rate", rate)),
        pixel_size=float(about.get("pixel_size", "nan")),
        session=str(about["session"]),
        species=str(about["species"]),
        source=str(about["source"]),
    )


def _onsets(
    frames: Any, times: npt.ArrayLike | None, rate: float | None, what: str
) -> npt.NDArray[np.float64]:
    shape = tuple(getattr(frames, "shape", np.shape(frames)))
    if len(shape) != 3 or shape[0] < 2:
        raise RetinaCodecError(
            f"{what} must be an array (time, y, x) of two frames or more; got shape {shape}. "
            + in_words(
                "Move its axes: frames of MATLAB (y, x, time) are frames.transpose(2, 0, 1).",
                "Say what its axes are: --axes yxt for frames of MATLAB (y, x, time).",
            )
        )
    if times is not None:
        return np.asarray(times, dtype=np.float64).ravel()
    if rate is None or not is_positive(rate):
        raise RetinaCodecError(
            f"the clock of the frames must be known; got frame_rate {rate} and no frame_times. "
            + in_words("Pass frame_rate=30 (Hz).", "Pass --frame-rate 30 (Hz).")
        )
    return np.arange(shape[0]) / float(rate)


def _split(
    frames: Any,
    onsets: npt.NDArray[np.float64],
    spikes: Any,
    counts: npt.ArrayLike | None,
    types: Any,
    what: str,
) -> xr.Dataset:
    """One movie with its spikes, binned where they are times."""
    if counts is None:
        return make_split(frames, onsets, spikes, types=types)
    values = np.asarray(counts)
    if values.ndim != 2 or len(values) != len(onsets):
        raise RetinaCodecError(
            f"{what} must be (time, cell), one row for each of the {len(onsets)} frames; got shape "
            f"{values.shape}. Transpose them, or cut frames and counts to the same times."
        )
    empty: list[list[float]] = [[float(onsets[0])]] * values.shape[1]
    split = make_split(frames, onsets, empty, types=types)
    rate = split.attrs["frame_rate"]
    return split.assign(
        spike_count=(("time", "cell"), values, {"units": "count"}),
        rate=(("time", "cell"), (values * rate).astype(np.float32), {"units": "Hz"}),
    )


def _test(
    frames: Any,
    rate: float,
    spikes: Any,
    repeats: Sequence[float] | None,
    counts: npt.ArrayLike | None,
    train: xr.Dataset,
) -> dict[str, xr.Dataset]:
    """Test movie and the rates of its presentations."""
    own = _onsets(frames, None, rate, "test_frames")
    types = None if "type" not in train.coords else train["type"].values.tolist()
    if counts is None:
        if repeats is None or not np.size(repeats):
            raise RetinaCodecError(
                "repeats must be the onset of each presentation of test_frames, s; got none. One "
                "presentation is a list of one."
            )
        starts = np.asarray(repeats, dtype=np.float64).ravel()
        shown = [make_split(frames, start + own, spikes, types=types) for start in starts]
    else:
        values = np.asarray(counts)
        if values.ndim != 3 or values.shape[1] != len(own):
            raise RetinaCodecError(
                f"test_counts must be (repeat, time, cell), {len(own)} times as test_frames; got "
                f"shape {values.shape}. Transpose them."
            )
        after = float(train["time"][-1]) + 1 / rate
        starts = after + np.arange(len(values)) * len(own) / rate
        shown = [
            _split(frames, start + own, None, each, types, "test_counts")
            for start, each in zip(starts, values, strict=True)
        ]
    rates = xr.concat(
        [part[["rate"]].drop_vars(["time", "session_time"]) for part in shown], "repeat"
    )
    return {
        "test": shown[0][["stimulus"]],
        "repeats": rates.assign_coords(start_time=("repeat", starts, {"units": "s"})),
    }


def read_arrays(
    path: str | os.PathLike[str],
    *,
    names: Mapping[str, str] | None = None,
    axes: str = "tyx",
) -> dict[str, Any]:
    """Read the arrays of a ``.npz`` or ``.mat`` file as arguments of `recording_from_arrays`.

    Parameters
    ----------
    path : path
        Nothing in it is unpickled.
    names : mapping, optional
        What the file calls an array, by our name: ``{"frames": "stim"}``. Ours are frames,
        frame_times, counts, spikes, test_frames, repeats, test_counts. ``spikes`` of a ``.mat``
        file is a cell array; in a ``.npz`` file each cell has an array ``spikes_NAME``.
    axes : {"tyx", "yxt", "xyt", "txy"}
        Order of the axes of frames and test_frames.

    Returns
    -------
    dict of arrays

    Raises
    ------
    RetinaCodecError
        Not such a file; no frames; an unknown name or order of axes.
    """
    if axes not in AXES:
        raise RetinaCodecError(f"axes must be one of {', '.join(AXES)}; got {axes!r}.")
    names = dict(names or {})
    stored = _stored(Path(path))
    wrong = [name for name in names if name not in ARRAYS]
    lost = [name for name in names.values() if name not in stored]
    if wrong or lost:
        raise RetinaCodecError(
            f"{path}: names must give {', '.join(ARRAYS)} by the names in the file, "
            f"{', '.join(sorted(stored)) or 'none'}; got {names}."
        )
    found = {
        ours: stored[names.get(ours, ours)] for ours in ARRAYS if names.get(ours, ours) in stored
    }
    cells = {key[len(PREFIX) :]: stored[key] for key in stored if key.startswith(PREFIX)}
    if cells and "spikes" not in found:
        found["spikes"] = cells
    elif "spikes" in found:
        given = np.asarray(found["spikes"])  # numbers are the spikes of one cell
        several = np.ravel(given) if given.dtype.kind == "O" else [given]
        found["spikes"] = [np.ravel(each) for each in several]
    if "frames" not in found:
        holds = ", ".join(sorted(stored)) or "nothing"
        raise RetinaCodecError(
            f"{path} must hold the array frames; it holds {holds}. "
            + in_words("Pass names={'frames': NAME}.", "Pass --name frames=NAME.")
        )
    order = [axes.index(axis) for axis in "tyx"]
    for name in ("frames", "test_frames"):
        if name in found and np.ndim(found[name]) == 3:
            found[name] = np.transpose(found[name], order)
    return found


def _stored(path: Path) -> dict[str, Any]:
    """Return all arrays of a file by name."""
    if path.suffix.lower() == ".mat":
        from retina_codec.recordings.white_noise.matfile import read_mat, variables_of

        names = variables_of(path)
        return {key: v for key, v in read_mat(path, names, whole=names).items() if key[0] != "_"}
    if path.suffix.lower() != ".npz" or not path.is_file():
        raise RetinaCodecError(f"arrays must be in a .npz or .mat file that exists; got {path}.")
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError) as error:
        raise RetinaCodecError(
            f"{path} must be a .npz file of plain arrays; it cannot be read: {error}. Arrays of "
            "objects are not read: save the spikes of each cell as spikes_NAME."
        ) from error
