"""Spike-triggered averages of white noise: place, size, polarity and time course of every cell.

Notation: s (time, pixel) intensity with mean m and standard deviation d, n (time) spikes per bin
with mean k; z[l, pixel] = Σ_t (n[t] − k) (s[t − l] − m) / (d √Σ_t (n[t] − k)²).
"""

import math
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr
from scipy.ndimage import label, uniform_filter
from scipy.stats import norm

from retina_codec.errors import RecordingWarning, RetinaCodecError
from retina_codec.progress import progress_bar
from retina_codec.recordings.windows import in_one_block

__all__ = ["spike_triggered_average"]

Floats = npt.NDArray[np.float64]
CHUNK_BYTES = 2**26  # of frames in float32
LEVEL = 0.01  # chance that any place of a cell without receptive field exceeds the threshold
NEIGHBOURS = 0.05  # correlation of neighbouring pixels above which a movie is no white noise
HALF = 0.5


def spike_triggered_average(
    split: xr.Dataset | xr.DataTree,
    *,
    history: int = 12,
    smooth: int = 5,
    progress: bool | None = None,
) -> xr.Dataset:
    """Average the frames before each spike, and measure the receptive field of every cell.

    The field lies where |z|, summed over ``smooth`` × ``smooth`` px and divided by √(number of
    pixels), is largest. In a cell without receptive field z is normal with variance 1 at every
    pixel and lag, whatever its spikes, because the pixels of white noise are independent.

    Parameters
    ----------
    split : xr.Dataset or xr.DataTree
        ``stimulus`` (time, y, x), white noise, may be lazy; ``spike_count`` (time, cell), NaN where
        missing; ``block`` (time) where the movie was joined: pairs across blocks are left out.
    history : int
        Frames before the spike, lags 1 to ``history``.
    smooth : int
        px, side of the square; 1 looks at single pixels.
    progress : bool, optional
        See `retina_codec.progress.progress_bar`.

    Returns
    -------
    xr.Dataset
        ``average`` (cell, lag, y, x), mean frame before a spike minus the mean frame intensity, in
        raw intensity; ``z`` (cell, lag, y, x), unsmoothed. Per cell: ``center_y``, ``center_x`` (by
        the coordinates of the pixels), ``peak_lag`` in s, ``peak_z`` signed, after smoothing,
        ``polarity`` "ON" or "OFF", "none" below ``threshold``; ``size`` in px, the diameter of a
        circle with the area in which the smoothed z of the peak lag exceeds half of its peak;
        ``time_course`` (cell, lag), mean of ``average`` over the square at the centre; ``spikes``.
        ``lag`` is in s before the bin of the spike. Attributes: ``threshold``, the |z| that a cell
        without field exceeds anywhere with probability 1 % (Bonferroni), ``frames``.

    Raises
    ------
    RetinaCodecError
        Fewer frames than lags, or a movie that does not change.

    Warns
    -----
    RecordingWarning
        No cell has a receptive field above chance, with the largest |z|: frames and spikes may not
        belong together. Neighbouring pixels are correlated: z holds for white noise.

    References
    ----------
    Chichilnisky 2001, Network 12:199.
    """
    dataset = split.to_dataset() if isinstance(split, xr.DataTree) else split
    stimulus = dataset["stimulus"].transpose("time", "y", "x")
    counts = dataset["spike_count"].transpose("time", "cell").to_numpy().astype(np.float32)
    frames, height, width = stimulus.shape
    if history < 1 or smooth < 1 or frames <= history + 1:
        raise RetinaCodecError(
            f"history and smooth must be at least 1, and the movie longer than the history; got "
            f"{history=}, {smooth=} and {frames} frames."
        )
    weights = _centred(counts)
    products, squares, spread, alike = _sum_products(stimulus, weights, dataset, history, progress)
    if not spread > 0:
        raise RetinaCodecError(
            "the movie must change from pixel to pixel; all its intensities are the same. Choose "
            "another stimulus."
        )
    length = np.sqrt(np.where(squares > 0, squares, np.nan))[:, :, None]
    z = (products / (spread * length)).reshape(-1, history, height, width)
    spikes = np.nansum(counts, axis=0, dtype=np.float64)
    average = products.reshape(z.shape) / np.where(spikes > 0, spikes, np.nan)[:, None, None, None]
    found = _measure(z, average, dataset, history, smooth)
    found["spikes"] = ("cell", spikes, {"units": "count"})
    found.attrs["frames"] = frames
    _warn(found, alike)
    return found


def _centred(counts: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return n − k, 0 where n is missing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of a cell that was never recorded
        mean = np.nanmean(counts, axis=0)
    return np.where(np.isfinite(counts), counts - mean, np.float32(0))


def _sum_products(
    stimulus: xr.DataArray,
    weights: npt.NDArray[np.float32],
    dataset: xr.Dataset,
    history: int,
    progress: bool | None,
) -> tuple[Floats, Floats, float, float]:
    """Pass through the movie once, with weights w = n − k.

    Returns Σ w (s − m) (cell, lag, pixel) and Σ w² (cell, lag) over the pairs used, d, and the
    correlation of neighbouring pixels.
    """
    frames, height, width = stimulus.shape
    cells, pixels = weights.shape[1], height * width
    usable = np.stack(  # (lag, frame): whether the pair of frame t and bin t + lag is used
        [np.pad(in_one_block(dataset, lag), (0, lag)) for lag in range(1, history + 1)]
    )
    products = torch.zeros(cells * history, pixels)
    moments, alike, lengths = np.zeros(2), 0.0, np.zeros((2, cells, history))
    chunk = max(history, CHUNK_BYTES // (4 * pixels))
    starts = range(0, frames, chunk)
    later = np.concatenate([weights, np.zeros((history, cells), np.float32)])
    center = 0.0
    for start in progress_bar(
        starts, description="spike-triggered averages", total=len(starts), progress=progress
    ):
        block = np.asarray(stimulus[start : start + chunk].values, dtype=np.float32)
        count = len(block)
        own = np.stack(  # (cell, lag, time)
            [
                later[start + lag : start + lag + count].T * usable[lag - 1, start : start + count]
                for lag in range(1, history + 1)
            ],
            axis=1,
        )
        lengths += own.sum(axis=2, dtype=np.float64), (own.astype(np.float64) ** 2).sum(axis=2)
        center = center or float(block.mean(dtype=np.float64))  # small sums have small rounding
        block -= np.float32(center)
        moments += block.sum(dtype=np.float64), (block**2).sum(dtype=np.float64)
        alike += _likeness(block) / len(starts)
        products += torch.from_numpy(own.reshape(-1, count)) @ torch.from_numpy(
            block.reshape(count, pixels)
        )
    moments /= frames * pixels
    sums = products.numpy().reshape(cells, history, pixels).astype(np.float64)
    sums -= lengths[0][:, :, None] * moments[0]
    return sums, lengths[1], math.sqrt(max(moments[1] - moments[0] ** 2, 0.0)), alike


def _likeness(block: npt.NDArray[np.float32]) -> float:
    """Return the correlation of neighbouring pixels, the larger of both directions; 0 if none."""
    found = [0.0]
    for axis in (1, 2):
        if block.shape[axis] > 1:
            one = np.delete(block, -1, axis).ravel()
            other = np.delete(block, 0, axis).ravel()
            scale = math.sqrt(float((one**2).mean()) * float((other**2).mean()))
            found.append(float((one * other).mean()) / scale if scale > 0 else 0.0)
    return max(found)


def _measure(
    z: Floats, average: Floats, dataset: xr.Dataset, history: int, smooth: int
) -> xr.Dataset:
    """Find the place, size, polarity and time course of every cell."""
    cells, _, height, width = z.shape
    sides = min(smooth, height), min(smooth, width)
    together = math.sqrt(sides[0] * sides[1])
    rows, columns = dataset["y"].to_numpy(), dataset["x"].to_numpy()
    time = dataset["time"].to_numpy()
    lag = np.arange(1, history + 1) * (time[-1] - time[0]) / (len(time) - 1)
    threshold = float(norm.isf(LEVEL / 2 / (history * height * width)))
    per_cell: dict[str, Any] = {
        name: np.full(cells, np.nan)
        for name in ("center_y", "center_x", "peak_lag", "peak_z", "size")
    }
    polarity, course = np.full(cells, "none"), np.full((cells, history), np.nan)
    for cell in range(cells):
        area = uniform_filter(z[cell], (1, *sides), mode="constant") * together
        if not np.isfinite(area).any() or not area.any():
            continue
        at, y, x = np.unravel_index(np.abs(area).argmax(), area.shape)
        peak = area[at, y, x]
        per_cell["center_y"][cell], per_cell["center_x"][cell] = rows[y], columns[x]
        per_cell["peak_lag"][cell], per_cell["peak_z"][cell] = lag[at], peak
        square = (
            slice(max(0, y - sides[0] // 2), y + sides[0] // 2 + 1),
            slice(max(0, x - sides[1] // 2), x + sides[1] // 2 + 1),
        )
        course[cell] = average[cell][:, square[0], square[1]].mean(axis=(1, 2))
        if abs(peak) >= threshold:
            polarity[cell] = "ON" if peak > 0 else "OFF"
            pieces, _ = label(area[at] / peak >= HALF)
            per_cell["size"][cell] = 2 * math.sqrt((pieces == pieces[y, x]).sum() / math.pi)
    units = {"center_y": "px", "center_x": "px", "peak_lag": "s", "peak_z": "1", "size": "px"}
    dims = ("cell", "lag", "y", "x")
    return xr.Dataset(
        {
            "average": (dims, average.astype(np.float32), {"units": "raw intensity"}),
            "z": (dims, z.astype(np.float32), {"units": "1"}),
            "time_course": (("cell", "lag"), course, {"units": "raw intensity"}),
            **{name: ("cell", values, {"units": units[name]}) for name, values in per_cell.items()},
            "polarity": ("cell", polarity),
        },
        coords={
            "cell": dataset["cell"].to_numpy(),
            "lag": ("lag", lag, {"units": "s", "long_name": "time before the bin of the spike"}),
            "y": ("y", rows, {"units": "px"}),
            "x": ("x", columns, {"units": "px"}),
        },
        attrs={"threshold": threshold, "smooth": smooth},
    )


def _warn(found: xr.Dataset, alike: float) -> None:
    """Warn of a movie that is no white noise, and of spikes that do not follow it."""
    if alike > NEIGHBOURS:
        warnings.warn(
            f"neighbouring pixels of the movie correlate (r = {alike:.2f}); z and the threshold "
            "hold for white noise. Choose a stimulus of white noise.",
            RecordingWarning,
            stacklevel=3,
        )
    elif (found["polarity"] == "none").all():
        largest = float(np.abs(found["peak_z"]).max())
        warnings.warn(
            f"no cell has a receptive field above chance: the largest |z| is {largest:.1f}, a cell "
            f"without one reaches {found.attrs['threshold']:.1f} in 1 % of cases. The frames may "
            "not be those of these spikes: check the seed, the order of pixels and the onset.",
            RecordingWarning,
            stacklevel=3,
        )
