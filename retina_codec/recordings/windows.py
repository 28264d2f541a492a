"""Stimulus history of each response bin, as views into short chunks of frames.

The window of bin t holds the ``history`` frames that end at bin t − 1, oldest first.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr

from retina_codec.errors import RetinaCodecError

__all__ = ["StimulusWindows", "in_one_block", "window_view"]

READ_BYTES = 2**24
TORCH_TYPES = ("uint8", "int8", "int16", "int32", "int64", "float32", "float64")


def window_view(frames: torch.Tensor, history: int) -> torch.Tensor:
    """Return every run of ``history`` consecutive frames as a strided view.

    window[n, k] = frames[n + k]: ``lag`` 0 is the oldest frame.

    Parameters
    ----------
    frames : torch.Tensor, dims (time, y, x)
        Consecutive frames, at least ``history`` of them.
    history : int
        Frames per window.

    Returns
    -------
    torch.Tensor, dims (time − history + 1, lag, y, x)
        A view that shares memory with ``frames``; do not write to it.
    """
    return frames.unfold(0, history, 1).movedim(-1, 1)


def in_one_block(split: xr.Dataset | xr.DataArray, history: int) -> npt.NDArray[np.bool_]:
    """Say which windows lie in one piece of the movie.

    Parameters
    ----------
    split : xr.Dataset or xr.DataArray, dim time
        ``block`` (time) numbers the pieces that were joined; without it all are one.
    history : int
        Frames per window.

    Returns
    -------
    numpy.ndarray of bool, (time - history,)
        True where the frames of a window and its bin have the same block.
    """
    if "block" not in split.coords:
        return np.ones(max(0, split.sizes["time"] - history), dtype=bool)
    block = split["block"].to_numpy()
    change = np.concatenate([[0], np.cumsum(block[1:] != block[:-1])])
    same: npt.NDArray[np.bool_] = change[history:] == change[: len(change) - history]
    return same


class StimulusWindows:
    """Normalised stimulus windows of one recording split, computed when needed.

    Response index i is the bin i + ``history`` of the split; its window is
    (stimulus[i : i + history] − mean) / std, and its ``time`` is the left edge of its bin.

    Parameters
    ----------
    stimulus : xr.DataArray, dims (time, y, x), raw intensities
        May be lazy (dask or an open file); `stimulus.compute()` first if random access is wanted
        often. ``time`` (s) must be a coordinate.
    history : int
        Number of frames per window.
    mean, std : float
        Normalisation, in raw intensities.
    dtype : torch.dtype
        Of the windows.

    Raises
    ------
    RetinaCodecError
        Wrong dims, a recording no longer than the history, a std that is not positive; while
        reading, NaN or infinity in the stimulus.
    """

    def __init__(
        self,
        stimulus: xr.DataArray,
        history: int,
        *,
        mean: float = 0.0,
        std: float = 1.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if set(stimulus.dims) != {"time", "y", "x"}:
            raise RetinaCodecError(
                f"the stimulus must have the dims time, y and x; got {tuple(stimulus.dims)}"
            )
        if "time" not in stimulus.coords:
            raise RetinaCodecError("the stimulus must have a time coordinate in s; it has none")
        if history < 1:
            raise RetinaCodecError(f"the history must be at least 1 frame; got {history=}")
        if not (np.isfinite(mean) and np.isfinite(std) and std > 0):
            raise RetinaCodecError(
                f"mean must be finite and std positive; got {mean=}, {std=}. "
                "A constant stimulus has no std: pass std=1."
            )
        total = stimulus.sizes["time"]
        if total <= history:
            raise RetinaCodecError(
                f"the recording must be longer than the history; it has {total} frames and the "
                f"history is {history}. Use a longer split or a shorter history."
            )
        self._stimulus = stimulus.transpose("time", "y", "x")
        self._in_memory = stimulus.variable._in_memory
        self.history = history
        self.mean = float(mean)
        self.std = float(std)
        self.dtype = dtype

    def __len__(self) -> int:
        return int(self._stimulus.sizes["time"]) - self.history

    @property
    def frame_shape(self) -> tuple[int, int]:
        """Pixels along y and x."""
        return int(self._stimulus.sizes["y"]), int(self._stimulus.sizes["x"])

    @property
    def time(self) -> xr.DataArray:
        """Times of the responses, dims (time), s: left edges of their bins."""
        return self._stimulus["time"][self.history :]

    @property
    def lag(self) -> xr.DataArray:
        """Age of each frame of a window, dims (lag), s before the response bin, oldest first."""
        time = self._stimulus["time"].to_numpy()
        step = (time[-1] - time[0]) / (time.size - 1)
        values = np.arange(self.history, 0, -1) * step
        attrs = {"units": "s", "long_name": "time before the response bin"}
        return xr.DataArray(values, dims="lag", coords={"lag": ("lag", values, attrs)}, attrs=attrs)

    def frames(self, start: int, stop: int, *, device: str | torch.device = "cpu") -> torch.Tensor:
        """Read normalised frames.

        Parameters
        ----------
        start, stop : int
            Frame numbers of the split, 0 <= start < stop <= number of frames.
        device : device
            Where the tensor lives.

        Returns
        -------
        torch.Tensor, dims (time, y, x)
        """
        return self._normalise(torch.from_numpy(self._read(start, stop)), device)

    def batches(
        self, batch_size: int, device: str | torch.device = "cpu"
    ) -> Iterator[tuple[slice, torch.Tensor]]:
        """Yield all windows in order, reading every frame once.

        Parameters
        ----------
        batch_size : int
            Windows per batch; the last batch may be shorter.
        device : device
            Where the windows live.

        Yields
        ------
        slice
            Response indices of the batch, for `time` and for rates cut by `history`.
        torch.Tensor, dims (batch, lag, y, x)
            A view; do not write to it.
        """
        if batch_size < 1:
            raise RetinaCodecError(f"batch_size must be at least 1; got {batch_size=}")
        height, width = self.frame_shape
        total = len(self) + self.history
        per_read = max(batch_size, READ_BYTES // max(1, 4 * height * width))
        frames = torch.empty((0, height, width), dtype=self.dtype, device=device)
        first = 0  # frame number of frames[0]
        for start in range(0, len(self), batch_size):
            stop = min(start + batch_size, len(self))
            needed = stop + self.history - 1
            have = first + len(frames)
            if have < needed:
                end = min(total - 1, max(needed, have + per_read))
                frames = torch.cat([frames[start - first :], self.frames(have, end, device=device)])
                first = start
            yield (
                slice(start, stop),
                window_view(frames[start - first : needed - first], self.history),
            )

    def at(
        self,
        indices: Sequence[int] | npt.NDArray[np.integer],
        *,
        device: str | torch.device = "cpu",
    ) -> torch.Tensor:
        """Copy out the windows of chosen responses.

        Parameters
        ----------
        indices : sequence of int
            Response indices, 0 <= index < len(self), any order, repeats allowed.
        device : device
            Where the windows live.

        Returns
        -------
        torch.Tensor, dims (batch, lag, y, x)
        """
        wanted = np.asarray(indices, dtype=np.int64).reshape(-1)
        if wanted.size == 0 or wanted.min() < 0 or wanted.max() >= len(self):
            raise RetinaCodecError(
                f"response indices must lie in 0..{len(self) - 1}; got {list(wanted[:5])}"
            )
        rows = wanted[:, None] + np.arange(self.history)  # (batch, lag)
        if self._in_memory:
            values = self._stimulus.to_numpy()[rows]
            self._check_finite(values, rows)
            return self._normalise(torch.from_numpy(_torch_ready(values)), device)
        needed, place = np.unique(rows, return_inverse=True)
        runs = np.split(needed, np.flatnonzero(np.diff(needed) > 1) + 1)
        pieces = [self._read(int(run[0]), int(run[-1]) + 1) for run in runs]
        gathered = torch.from_numpy(np.concatenate(pieces))[torch.from_numpy(place)]
        return self._normalise(gathered.reshape(*rows.shape, *self.frame_shape), device)

    def _read(self, start: int, stop: int) -> npt.NDArray[np.generic]:
        """Raw frames, checked, as a new array of a type that torch accepts."""
        values = self._stimulus[start:stop].to_numpy()  # (time, y, x)
        self._check_finite(values, np.arange(start, stop))
        return _torch_ready(values.copy() if self._in_memory else values)

    def _check_finite(
        self, values: npt.NDArray[np.generic], numbers: npt.NDArray[np.integer]
    ) -> None:
        """``numbers`` holds the frame number of each frame of ``values`` (..., y, x)."""
        if values.dtype.kind not in "fc" or np.isfinite(values).all():
            return
        bad = int(numbers[~np.isfinite(values).all(axis=(-2, -1))].min())
        raise RetinaCodecError(
            "the stimulus must be finite; it holds NaN or infinity at time "
            f"{float(self._stimulus['time'][bad]):.6g} s (frame {bad}). Repair or cut these frames."
        )

    def _normalise(self, raw: torch.Tensor, device: str | torch.device) -> torch.Tensor:
        # raw bytes travel to the device, four times fewer than floats
        values = raw.to(device).to(self.dtype, copy=True)
        return values.sub_(self.mean).div_(self.std)


def _torch_ready(values: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """Native byte order, contiguous, writable, and a type that torch computes with."""
    if values.dtype.name not in TORCH_TYPES:
        values = values.astype(np.float64 if values.dtype.itemsize >= 4 else np.float32)
    ready = np.require(values, dtype=values.dtype.newbyteorder("="), requirements=["C", "W"])
    return ready
