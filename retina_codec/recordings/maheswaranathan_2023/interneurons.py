"""Intracellular recordings of Maheswaranathan et al. 2023: stimuli and membrane potentials.

One HDF5 file per kind of interneuron, with one group per stimulus. Values come as stored: how the
authors turned them into movies for their network stands in interneuron_movies.py; the reader calls
none of it. Nothing here compares potentials with units.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.recordings.maheswaranathan_2023.arrays import (
    dataset_of,
    fit_length,
    lazy_dataset,
    member,
    names_of,
)
from retina_codec.storage.hdf5 import hdf5_input, read_array

__all__ = [
    "center_in_frame",
    "frames_of_lines",
    "from_signed",
    "open_interneurons",
    "spread_over_frame",
    "to_signed",
]

STIMULUS_DIMS = {
    "boxes": ("time", "y", "x"),
    "lines": ("time", "x"),
    "flashes": ("time",),
    "movingbar": ("time", "x"),
}


TYPES = {"unk": "unknown"}


CLOCK = "not stored; {:g} Hz assumed, as in the authors' comparison with their network"


def open_interneurons(
    path: str | os.PathLike[str],
    *,
    stimuli: Sequence[str] | None = None,
    frame_rate: float = 100.0,
) -> xr.DataTree:
    """Open recordings of interneurons, without reading their stimuli.

    Parameters
    ----------
    path : path
        A file such as ``bipolars_late_2012.h5``, or a folder of such files.
    stimuli : sequence of str, optional
        Which of ``"boxes"``, ``"lines"``, ``"flashes"`` and ``"movingbar"``; all that are found by
        default.
    frame_rate : float
        Hz; the files store no clock.

    Returns
    -------
    xr.DataTree
        A node /<file>/<stimulus> with ``stimulus`` (time, y, x), raw and lazy, of length 1 along
        dims that are not stored; ``potential`` (time, interneuron), in the unit of the file, which
        does not state it; coordinates ``time`` (s, left edges, from 0), ``interneuron`` (file and
        row: unique across files) and ``type`` along it, from the name of the file. Where all
        stimuli are asked for, one that does not fit its potentials is left out, and the attribute
        ``left_out`` of the file's node says why.

    Raises
    ------
    RetinaCodecError
        No such file or stimulus; a stimulus that was named and does not fit its potentials.

    References
    ----------
    Maheswaranathan et al. 2023, Neuron 111:2742, doi:10.1016/j.neuron.2023.06.007.
    """
    if not (np.isfinite(frame_rate) and frame_rate > 0):
        raise RetinaCodecError(f"frame_rate must be a positive number of Hz; got {frame_rate}")
    for name in stimuli or ():
        if name not in STIMULUS_DIMS:
            raise RetinaCodecError(f"stimuli must be of {', '.join(STIMULUS_DIMS)}; got {name!r}")
    place = Path(path)
    files = [place]
    if place.is_dir():
        files = [p for p in sorted(place.iterdir()) if p.suffix.lower() in (".h5", ".hdf5")]
        if not files:
            raise RetinaCodecError(f"{place} must hold HDF5 files of interneurons; it has none")
    nodes: dict[str, xr.Dataset] = {}
    for file in files:
        nodes |= _read_file(file, stimuli, frame_rate)
    return xr.DataTree.from_dict(nodes)


def _read_file(
    place: Path, stimuli: Sequence[str] | None, frame_rate: float
) -> dict[str, xr.Dataset]:
    """Nodes of one file, by their paths."""
    kind = place.stem.split("_")[0].removesuffix("s")
    kind = TYPES.get(kind, kind)
    nodes: dict[str, xr.Dataset] = {}
    left_out: list[str] = []
    with hdf5_input(place, "a file of interneurons (HDF5)") as file:
        found = [name for name in STIMULUS_DIMS if name in names_of(file)]
        missing = set(stimuli or ()) - set(found)
        if missing or not found:
            raise RetinaCodecError(
                f"{place} must have {', '.join(sorted(missing) or STIMULUS_DIMS)}; "
                f"it has {names_of(file)}"
            )
        for name in found if stimuli is None else stimuli:
            try:
                node = _read_stimulus(member(file, name), name, f"{place}: /{name}")
            except RetinaCodecError as error:
                if stimuli is not None:
                    raise
                left_out.append(str(error).removeprefix(f"{place}: "))
                continue
            count = node.sizes["interneuron"]
            attrs = {"units": "s", "source": CLOCK.format(frame_rate)}
            nodes[f"/{place.stem}/{name}"] = node.assign_coords(
                time=("time", np.arange(node.sizes["time"]) / frame_rate, attrs),
                interneuron=[f"{place.stem} {row}" for row in range(count)],
                type=("interneuron", [kind] * count),
            )
        if not nodes:
            raise RetinaCodecError(f"{place}: {'; '.join(left_out)}")
    about = {"source": f"Maheswaranathan et al. 2023, {place.name}", "frame_rate": frame_rate}
    if left_out:
        about["left_out"] = "; ".join(left_out)
    return {f"/{place.stem}": xr.Dataset(attrs=about)} | nodes


def _read_stimulus(group: Any, name: str, where: str) -> xr.Dataset:
    """Stimulus (time, y, x) and potential (time, interneuron), as stored."""
    dims = STIMULUS_DIMS[name]
    frames = dataset_of(group, "stimuli", ", ".join(dims), where)
    stored = dataset_of(group, "detrended_membrane_potential", "interneuron, time", where)
    notes: dict[str, str] = {}
    what = f"{where}/detrended_membrane_potential"
    potential = fit_length(read_array(stored), frames.shape[0], what, notes)
    movie = xr.DataArray(lazy_dataset(frames), dims=dims).expand_dims(
        [dim for dim in ("y", "x") if dim not in dims]
    )
    node = xr.Dataset(
        {
            "stimulus": movie.transpose("time", "y", "x"),
            "potential": (("time", "interneuron"), potential.T),
        },
        attrs=dict(notes),
    )
    for dim in ("y", "x"):
        node = node.assign_coords({dim: (dim, np.arange(node.sizes[dim]), {"units": "px"})})
    node["stimulus"].attrs = {"units": "raw intensity", "long_name": f"{name}, as stored"}
    node["potential"].attrs = {"units": "not stated", "long_name": "detrended membrane potential"}
    return node


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
