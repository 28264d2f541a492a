"""From the stimuli of interneurons to movies for a network, step by step, as the authors do.

Each step is a function that the user calls; the reader in interneurons.py calls none of them. Bars
that move ("movingbar") are not covered: the authors change their frame rate, too.
"""

import numpy as np
import xarray as xr

from retina_codec.errors import RetinaCodecError

__all__ = ["center_in_frame", "frames_of_lines", "from_signed", "spread_over_frame", "to_signed"]


def to_signed(stimulus: xr.DataArray) -> xr.DataArray:
    """Map intensities 0 and 1 to −1 and 1, as the authors do with boxes: 2s − 1.

    Parameters
    ----------
    stimulus : xr.DataArray
        Any dims; not modified.

    Returns
    -------
    xr.DataArray
        Same dims, float64 (float32 for smaller types); `from_signed` undoes it.
    """
    return _as_float(stimulus) * 2.0 - 1.0


def from_signed(stimulus: xr.DataArray) -> xr.DataArray:
    """Undo `to_signed`: (s + 1) / 2.

    Parameters
    ----------
    stimulus : xr.DataArray
        Any dims; not modified.

    Returns
    -------
    xr.DataArray
        Same dims.
    """
    return (_as_float(stimulus) + 1.0) / 2.0


def center_in_frame(
    stimulus: xr.DataArray, size: tuple[int, int] = (50, 50), *, fill: float = 0.0
) -> xr.DataArray:
    """Put a small movie into the middle of larger frames, as the authors do with boxes.

    Where the margin is odd, the lower and right side get the larger part.

    Parameters
    ----------
    stimulus : xr.DataArray, dims (time, y, x)
        May be lazy; not modified. Scale it first: ``fill`` is in its unit.
    size : tuple of int
        Rows and columns of the frames, px.
    fill : float
        Intensity of the margin.

    Returns
    -------
    xr.DataArray, dims (time, y, x)
        ``y`` and ``x`` are numbered from 0.

    Raises
    ------
    RetinaCodecError
        The movie is larger than the frames.
    """
    margins: dict[str, tuple[int, int]] = {}
    for dim, whole in zip(("y", "x"), size, strict=True):
        left = whole - stimulus.sizes[dim]
        if left < 0:
            raise RetinaCodecError(
                f"frames must hold the movie; {dim} has {stimulus.sizes[dim]} px of {whole}. "
                "Pass a larger size."
            )
        margins[dim] = (left // 2, left - left // 2)
    padded = stimulus.drop_vars(["y", "x"], errors="ignore").pad(margins, constant_values=fill)
    return padded.assign_coords(y=np.arange(size[0]), x=np.arange(size[1]))


def frames_of_lines(stimulus: xr.DataArray) -> xr.DataArray:
    """Turn lines into frames as the authors do: average neighbours, take every second, repeat.

    frame[t, y, k] = (s[t, 2k − 1] + s[t, 2k]) / 2 with s[t, −1] = 0: the first column is half as
    strong, as in the authors' code.

    Parameters
    ----------
    stimulus : xr.DataArray, dims (time, y, x)
        One row per frame.

    Returns
    -------
    xr.DataArray, dims (time, y, x)
        Square frames, half as wide.

    Raises
    ------
    RetinaCodecError
        More than one row.
    """
    lines = _as_float(_one(stimulus, "y")).drop_vars("x", errors="ignore")
    before = lines.shift(x=1, fill_value=0.0)
    halved = ((before + lines) / 2.0).isel(x=slice(None, None, 2))
    side = halved.sizes["x"]
    halved = halved.assign_coords(x=np.arange(side))
    return spread_over_frame(halved, (side, side))


def spread_over_frame(stimulus: xr.DataArray, size: tuple[int, int]) -> xr.DataArray:
    """Repeat a movie along the dims in which it has one pixel, as flashes and bars do.

    Parameters
    ----------
    stimulus : xr.DataArray, dims (time, y, x)
        One pixel along y, along x, or both.
    size : tuple of int
        Rows and columns of the frames, px; the authors use 38 × 38 for flashes.

    Returns
    -------
    xr.DataArray, dims (time, y, x)

    Raises
    ------
    RetinaCodecError
        A dim that has more pixels and another number than ``size``.
    """
    for dim, whole in zip(("y", "x"), size, strict=True):
        if stimulus.sizes[dim] == whole:
            continue
        row = _one(stimulus, dim).isel({dim: 0}, drop=True)
        stimulus = row.expand_dims({dim: np.arange(whole)})
    return stimulus.transpose("time", "y", "x")


def _one(stimulus: xr.DataArray, dim: str) -> xr.DataArray:
    if stimulus.sizes[dim] != 1:
        raise RetinaCodecError(
            f"the movie must have one pixel along {dim} to be repeated; "
            f"it has {stimulus.sizes[dim]}"
        )
    return stimulus


def _as_float(stimulus: xr.DataArray) -> xr.DataArray:
    small = np.result_type(stimulus.dtype, np.float16).itemsize <= 4
    return stimulus.astype(np.float32 if small else np.float64)
