"""Make a split of a recording from frames, their onsets and spike times in arrays."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.recordings.binning import Floats, bin_spikes
from retina_codec.recordings.nwb.clock import FrameClock, clock_from_times

__all__ = ["make_split"]

LATER = 20.0  # times the end of the frames: spikes that late are not in s
LISTED = 5


def make_split(
    frames: Any,
    onsets: npt.ArrayLike,
    spikes: Mapping[Any, npt.ArrayLike] | Sequence[npt.ArrayLike],
    *,
    types: Mapping[Any, str] | Sequence[str] | None = None,
    repair_clock: bool = False,
) -> xr.Dataset:
    """Count spikes in the bins of frames: one split, as `make_recording` takes it.

    Bin t is [onset_t, onset_t+1); the last bin is as long as the mean one. The frame rate is the
    slope of the onsets, so that jitter does not change it.

    Parameters
    ----------
    frames : array (time, y, x)
        Raw intensities; NumPy, memory map, dask or tensor.
    onsets : array, (time,)
        s, when each frame was shown.
    spikes : mapping of name to array, or sequence of arrays
        s, times of the spikes of each cell on the clock of the onsets, also outside the frames;
        without names cells are numbered from 0.
    types : mapping of name to str, or sequence of str, optional
        Type of each cell.
    repair_clock : bool
        Show the frame before once more where frames were dropped, and leave out frames that were
        replaced at once; refused otherwise.

    Returns
    -------
    xr.Dataset
        ``stimulus`` (time, y, x) raw intensity; ``spike_count`` (time, cell) count; ``rate``
        (time, cell) Hz; ``time`` (s, at equal steps), ``session_time`` (time) s, the onsets;
        ``type`` (cell), where given. The attribute ``frame_rate`` is in Hz.

    Raises
    ------
    RetinaCodecError
        Another number of onsets than of frames; onsets that do not rise, with dropped frames or a
        pause; cells without name or train; spikes that are not on the clock of the frames.

    Examples
    --------
    >>> import numpy as np
    >>> import retina_codec as rc
    >>> split = rc.recordings.make_split(np.zeros((3, 4, 4)), [0.0, 0.1, 0.2], {"a": [0.05, 0.21]})
    >>> split["spike_count"].values.ravel().tolist(), round(split.attrs["frame_rate"])
    ([1, 0, 1], 10)
    """
    shape = tuple(getattr(frames, "shape", ()))
    if len(shape) != 3 or 0 in shape:
        raise RetinaCodecError(
            f"frames must be an array (time, y, x); got {type(frames).__name__} of shape {shape}. "
            "Move its axes: frames of MATLAB (y, x, time) are frames.transpose(2, 0, 1)."
        )
    clock = _clock(onsets, shape[0], repair_clock)
    names, trains = _trains(spikes)
    edges = np.append(clock.onsets, clock.stop)
    _check_spikes(trains, float(edges[0]), float(edges[-1]))
    if not isinstance(getattr(frames, "dtype", None), np.dtype):
        frames = np.asarray(frames)
    shown = frames if clock.index is None else frames[clock.index]
    counts = bin_spikes(trains, None, edges)
    split = xr.Dataset(
        {
            "stimulus": (("time", "y", "x"), shown),
            "spike_count": (("time", "cell"), counts, {"units": "count"}),
            "rate": (("time", "cell"), np.float32(counts * clock.rate), {"units": "Hz"}),
        },
        coords={
            "time": clock.onsets[0] + np.arange(clock.onsets.size) / clock.rate,
            "session_time": ("time", clock.onsets, {"units": "s"}),
            "cell": names,
        },
        attrs={"frame_rate": clock.rate},
    )
    return split if types is None else split.assign_coords(type=("cell", _types(types, names)))


def _clock(onsets: npt.ArrayLike, count: int, repair: bool) -> FrameClock:
    """Clock of the onsets; refuse what would move frames against spikes."""
    times = np.asarray(onsets, dtype=np.float64).ravel()
    if times.size != count or count < 2:
        raise RetinaCodecError(
            f"onsets must be one time in s for each frame, at least two; got {times.size} for "
            f"{count} frames. Nothing is cut: give the true onsets."
        )
    back = np.flatnonzero(~(np.diff(times) >= 0))
    if back.size or times[-1] == times[0]:
        at = int(back[0]) if back.size else 0
        raise RetinaCodecError(
            f"onsets must be finite seconds that rise; number {at + 1} is {times[at + 1]:.6g}, "
            f"the one before {times[at]:.6g}. Sort frames and onsets together, or correct them."
        )
    clock = clock_from_times(times, count, "onsets", repair=repair)
    lost, twice, pauses = (
        int(clock.report[name]) for name in ("dropped_frames", "duplicated_frames", "pauses")
    )
    if pauses:
        raise RetinaCodecError(
            f"onsets must follow each other; they have {pauses} pauses. Make one split of each "
            "part, or give the frames that were shown in between."
        )
    if (lost or twice) and not repair:
        raise RetinaCodecError(
            f"onsets must follow each other by one frame; {lost} frames were dropped and {twice} "
            "replaced at once. Pass repair_clock=True to show the frame before once more."
        )
    return clock


def _trains(spikes: Any) -> tuple[npt.NDArray[Any], list[Floats]]:
    """Names and sorted spike times of the cells."""
    named = spikes.items() if isinstance(spikes, Mapping) else enumerate(spikes)
    names, trains = [], []
    for name, values in named:
        train = np.asarray(values)
        if train.size == 0:
            train = train.astype(np.float64)
        if train.dtype.kind not in "iuf" or not np.isfinite(train).all():
            raise RetinaCodecError(
                f"spikes must be finite times in s, one array per cell; those of cell {name!r} are "
                f"{train.dtype} of shape {train.shape}. Give {{name: times}} or a list of arrays."
            )
        names.append(name)
        trains.append(np.sort(train.astype(np.float64).ravel()))
    if not names:
        raise RetinaCodecError("spikes must hold at least one cell; got none.")
    return np.asarray(names), trains


def _check_spikes(trains: list[Floats], start: float, stop: float) -> None:
    """Refuse spikes that cannot be seconds on the clock of the frames."""
    every = np.concatenate(trains)
    inside = ((every >= start) & (every < stop)).any()
    if not inside or np.median(every) > LATER * max(abs(start), abs(stop)):
        found = f"{every.min():.6g} to {every.max():.6g} s" if every.size else "none"
        raise RetinaCodecError(
            f"spikes must be on the clock of the frames, in s; frames span {start:.6g} to "
            f"{stop:.6g} s, spikes: {found}. Divide times in ms by 1000, samples by their rate."
        )


def _types(types: Any, names: npt.NDArray[Any]) -> list[str]:
    """Types in the order of the cells."""
    if isinstance(types, Mapping):
        missing = [name for name in names.tolist() if name not in types]
        if missing:
            raise RetinaCodecError(
                f"types must name every cell; {missing[:LISTED]} are missing. Give 'unknown' there."
            )
        return [str(types[name]) for name in names.tolist()]
    if len(types) != len(names):
        raise RetinaCodecError(
            f"types must be one per cell; got {len(types)} for {len(names)} cells."
        )
    return [str(name) for name in types]
