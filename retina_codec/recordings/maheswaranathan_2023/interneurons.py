"""Intracellular recordings of Maheswaranathan et al. 2023: stimuli and membrane potentials.

One HDF5 file per type of interneuron, one group per stimulus; values come as stored.
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
    lazy_movie,
    member,
    names_of,
)
from retina_codec.storage.hdf5 import hdf5_input, read_array

__all__ = ["open_interneurons"]

AXES = {"boxes": "tyx", "lines": "tx", "flashes": "t", "movingbar": "tx"}  # of the stimuli
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
        row: unique across files) and ``type`` along it, from the name of the file. Where
        ``stimuli`` is left out, one that does not fit its potentials is left out, and the attribute
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
        if name not in AXES:
            raise RetinaCodecError(f"stimuli must be of {', '.join(AXES)}; got {name!r}")
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
        found = [name for name in AXES if name in names_of(file)]
        missing = set(stimuli or ()) - set(found)
        if missing or not found:
            raise RetinaCodecError(
                f"{place} must have {', '.join(sorted(missing) or AXES)}; it has {names_of(file)}"
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
    axes = AXES[name]
    dims = ", ".join({"t": "time"}.get(axis, axis) for axis in axes)
    frames = dataset_of(group, "stimuli", dims, where)
    stored = dataset_of(group, "detrended_membrane_potential", "interneuron, time", where)
    notes: dict[str, str] = {}
    what = f"{where}/detrended_membrane_potential"
    potential = fit_length(read_array(stored), frames.shape[0], what, notes)
    node = xr.Dataset(
        {
            "stimulus": (("time", "y", "x"), lazy_movie(frames, axes)),
            "potential": (("time", "interneuron"), potential.T),
        },
        attrs=dict(notes),
    )
    for dim in ("y", "x"):
        node = node.assign_coords({dim: (dim, np.arange(node.sizes[dim]), {"units": "px"})})
    node["stimulus"].attrs = {"units": "raw intensity", "long_name": f"{name}, as stored"}
    node["potential"].attrs = {"units": "not stated", "long_name": "detrended membrane potential"}
    return node
