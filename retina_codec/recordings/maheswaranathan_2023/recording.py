"""Read the recordings of Maheswaranathan et al. 2023 as published: one HDF5 file per movie.

What the files do not say about their numbers is inferred, and reported in the attributes.
"""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.errors import RecordingWarning, RetinaCodecError, option
from retina_codec.recordings.doubts import frame_doubts
from retina_codec.recordings.formats import Format
from retina_codec.recordings.maheswaranathan_2023.arrays import (
    FRAME_RATE,
    dataset_of,
    lazy_movie,
    member,
    names_of,
    start_of,
)
from retina_codec.recordings.maheswaranathan_2023.constants import (
    NUM_BLOCKS,
    PUBLISHED_CELLS,
    PUBLISHED_CENTERS,
)
from retina_codec.recordings.maheswaranathan_2023.responses import (
    read_counts,
    read_repeats,
    read_response,
    read_spikes,
)
from retina_codec.recordings.schema import make_recording
from retina_codec.storage.hdf5 import hdf5_input, is_address, naming_file, read_array

__all__ = ["Published", "read_maheswaranathan"]

SUFFIXES = (".h5", ".hdf5")
PIXEL_SIZE = 50.0  # µm
SPECIES = "Ambystoma tigrinum"
LISTED = 8
FRAME = (50, 50)  # px, for which the centres are given
INTERNEURON_STIMULI = {"boxes", "lines", "flashes", "movingbar"}


class Published(Format):
    """The published HDF5 files, or the folder of an experiment; not written."""

    name = "maheswaranathan_2023"
    suffixes = SUFFIXES
    options = ("stimulus", "response", "cells")

    def recognises(self, path: str | os.PathLike[str]) -> bool:
        """Take any folder; its reader says what is missing there."""
        return super().recognises(path) or (not is_address(path) and Path(path).is_dir())

    def read(self, path: str | os.PathLike[str], **options: Any) -> xr.DataTree:
        """See `read_maheswaranathan`."""
        return read_maheswaranathan(path, **options)


def read_maheswaranathan(
    path: str | os.PathLike[str],
    *,
    stimulus: str | None = None,
    response: str = "firing_rate_10ms",
    cells: str | Sequence[int] | None = None,
) -> xr.DataTree:
    """Open a published recording, without reading its frames.

    Parameters
    ----------
    path : path
        The folder of an experiment, or one of its files. The name of the folder is the name of
        the experiment.
    stimulus : str, optional
        ``"naturalscene"`` or ``"whitenoise"``, where the folder holds both.
    response : str
        Which response becomes ``rate``: ``"firing_rate_5ms"``, ``"firing_rate_10ms"`` (on which
        the published networks were trained), ``"firing_rate_20ms"``, smoothed as published, or
        ``"binned"`` (spike counts · 100 Hz).
    cells : "published" or sequence of int, optional
        Rows of the response arrays, from 0; all by default. ``"published"`` takes those that the
        published network of the experiment models, in its order.

    Returns
    -------
    xr.DataTree
        Dims and units as in `make_recording`; ``cell`` is the row in the file. ``spike_count``
        comes from ``binned``, NaN where that is not stored. The train split has a coordinate
        ``block`` along time where the movie is several pieces of one length, joined. The node
        /spikes holds ``spike_time`` (spike) in s and ``spike_cell`` (spike), where spikes are
        stored. ``center_y`` and ``center_x`` (px) are NaN for cells without a published centre,
        and absent where there is none. Attributes report what was checked and found.

    Raises
    ------
    RetinaCodecError
        Not such a file; several stimuli and none named; an unknown response or cell; arrays that
        do not fit each other; a clock that is not 100 Hz.

    Notes
    -----
    Both splits get one session clock: where the stored times of the test split fall into the train
    split, the test split is moved after it, and the attribute ``clock`` says so. A test response
    one sample longer than the movie is cut, and the attribute ``cut`` says so. Spike-triggered
    averages in the file are not read. ``source_sha256`` is empty: a hash would read the whole
    movie.

    References
    ----------
    Maheswaranathan et al. 2023, Neuron 111:2742, doi:10.1016/j.neuron.2023.06.007.
    """
    for name, value in {"stimulus": stimulus or "any", "response": response}.items():
        if not isinstance(value, str):
            raise RetinaCodecError(
                f"{name} must be a name; got {value!r}. Pass {option(name, 'NAME')}."
            )
    cells = _wanted(cells)
    place = _choose_file(Path(path), stimulus)
    with naming_file(path):
        return _read(place, response, cells)


def _read(place: Path, response: str, cells: str | list[int] | None) -> xr.DataTree:
    """Read one file."""
    experiment = place.resolve().parent.name
    notes: dict[str, str] = {"experiment": experiment}
    notes["pixel_size_source"] = "not in the file; sources say 50 µm, some 55.55 µm"
    train, repeats = None, None
    with hdf5_input(place, "a recording of Maheswaranathan et al. 2023 (HDF5)") as file:
        _check_groups(file, place)
        if (group := member(file, "train")) is not None:
            blocks = NUM_BLOCKS.get(experiment, 1)
            train, _ = _read_split(group, response, blocks, f"{place}: /train", notes)
        test, repeats = _read_split(member(file, "test"), response, 1, f"{place}: /test", notes)
        rows = _rows(cells, test.sizes["cell"], experiment)
        if train is not None:
            _check_sizes(train, test, place)
            test = _after_train(train, test, 1 if repeats is None else len(repeats), notes)
            train = _with_blocks(train.isel(cell=rows), experiment, notes)
            if doubt := _scales(file):
                notes["scales"] = doubt
        test = test.isel(cell=rows)
        spikes = read_spikes(file, rows, train, str(place), notes)
    notes["centers"] = _add_centers([s for s in (train, test) if s is not None], experiment)
    shown = None
    if repeats is not None:
        values = (("repeat", "time", "cell"), repeats[:, :, rows], {"units": "Hz"})
        shown = xr.Dataset({"rate": values})
        notes["repeats"] += "; start_time is not stored: one after another"
    recording = make_recording(
        train=train,
        test=test,
        repeats=shown,
        frame_rate=FRAME_RATE,
        pixel_size=PIXEL_SIZE,
        session=f"{experiment} {place.stem}",
        species=SPECIES,
        source=f"Maheswaranathan et al. 2023, {experiment}/{place.name}",
    )
    if spikes is not None:
        recording["spikes"] = xr.DataTree(spikes)
    recording.attrs.update({name: notes[name] for name in sorted(notes)})
    for name in ("missing", "scales"):
        if name in notes:
            warnings.warn(f"{place}: {notes[name]}", RecordingWarning, stacklevel=3)
    return recording


def _scales(file: Any) -> str:
    """Compare three frames of each split, where their types let them differ in scale."""
    stored = {name: member(file, f"{name}/stimulus") for name in ("train", "test")}
    kinds = {frames.dtype for frames in stored.values()}
    if len(kinds) == 1 and kinds.pop().kind != "f":
        return ""
    some = {
        name: read_array(frames, np.unique([0, len(frames) // 2, len(frames) - 1]))
        for name, frames in stored.items()
    }
    return "; ".join(frame_doubts(some))


def _check_groups(file: Any, place: Path) -> None:
    import h5py

    found = names_of(file)
    if set(found) & INTERNEURON_STIMULI:
        raise RetinaCodecError(
            f"{place} must have /test; it has {found}, as the files of interneurons have. "
            "Open it with rc.recordings.open_interneurons."
        )
    for name in ("train", "test"):
        group = member(file, name)
        if group is None and name == "test":
            raise RetinaCodecError(
                f"{place} must have a group /test; it has {found[:LISTED]}. Write the test split "
                "there, or build the recording with make_recording."
            )
        if group is not None and not isinstance(group, h5py.Group):
            raise RetinaCodecError(
                f"{place}: /{name} must be a group; it is an array. Write stimulus and response in "
                "a group."
            )


def _read_split(
    group: Any, response: str, blocks: int, where: str, notes: dict[str, str]
) -> tuple[xr.Dataset, npt.NDArray[Any] | None]:
    """One split with all cells, on its stored clock; the presentations (repeat, time, cell)."""
    stored = dataset_of(group, "stimulus", "time, y, x", where)
    frames = stored.shape[0]
    found = names_of(member(group, "response"))
    if response not in found:
        raise RetinaCodecError(
            f"{where}/response must have {response!r}; it has {found or 'nothing'}. "
            f"Pass {option('response', found[0] if found else 'NAME')}."
        )
    values = read_response(group, response, frames, where, notes)  # (time, cell)
    repeats = read_repeats(group, response, values, where, notes)
    presentations = 1 if repeats is None else len(repeats)
    counts, summed, words = read_counts(group, values, presentations, where, notes)
    start = start_of(group, frames, blocks, where, notes)
    width = response.removeprefix("firing_rate_").removesuffix("ms")
    kernel = f"{response}: {width} ms, as published"
    if response == "binned":
        values, kernel = counts * (FRAME_RATE / summed), f"{words}, as a rate"
    split = xr.Dataset(
        {
            "stimulus": (("time", "y", "x"), lazy_movie(stored)),
            "rate": (("time", "cell"), values, {"units": "Hz", "long_name": kernel}),
            "spike_count": (("time", "cell"), counts, {"units": "count", "long_name": words}),
        },
        coords={
            "time": start + np.arange(frames) / FRAME_RATE,
            "cell": np.arange(values.shape[1]),
        },
    )
    return split, repeats


def _choose_file(path: Path, stimulus: str | None) -> Path:
    """Find the one file of a path and a stimulus."""
    if not path.exists():
        raise RetinaCodecError(
            f"there must be an experiment folder or file at {path}; none is. Correct the path."
        )
    if not path.is_dir():
        if stimulus not in (None, path.stem):
            raise RetinaCodecError(
                f"{path} must hold the stimulus {stimulus!r}; by its name it holds "
                f"{path.stem!r}. Pass the folder, or leave stimulus out."
            )
        return path
    found = {p.stem: p for p in sorted(path.iterdir()) if p.suffix.lower() in SUFFIXES}
    if not found:
        below = sorted(p.parent.name for p in path.glob("*/*.h5"))
        raise RetinaCodecError(
            f"{path} must hold naturalscene.h5 or whitenoise.h5; it holds neither. "
            + (f"Pass one of its folders: {sorted(set(below))}." if below else "Is it complete?")
        )
    if stimulus is None and len(found) > 1:
        raise RetinaCodecError(
            f"{path} must have one stimulus; it has {sorted(found)}. Pass "
            f"{option('stimulus', sorted(found)[0])} or another of these."
        )
    name = stimulus if stimulus is not None else next(iter(found))
    if name not in found:
        raise RetinaCodecError(
            f"{path} must have the stimulus {name!r}; it has {sorted(found)}. Pass "
            f"{option('stimulus', sorted(found)[0])} or another of these."
        )
    return found[name]


def _wanted(cells: Any) -> str | list[int] | None:
    """Return the option ``cells`` as row numbers, or as ``"published"``."""
    if cells is None or (isinstance(cells, str) and cells == "published"):
        return None if cells is None else "published"
    given = [cells] if isinstance(cells, int | np.integer) else cells
    try:
        rows = [int(row) for row in given if row == int(row)]
    except (TypeError, ValueError):
        rows = []
    if not rows or len(rows) != len(given) or len(set(rows)) != len(rows):
        raise RetinaCodecError(
            f"cells must be 'published' or different whole numbers, at least one; got "
            f"{str(cells)[:60]}. Pass {option('cells', [0, 1])} or {option('cells', 'published')}."
        )
    return rows


def _rows(cells: str | list[int] | None, count: int, experiment: str) -> list[int]:
    """Rows of the response arrays, in the order of ``cells``."""
    if cells is None:
        return list(range(count))
    rows = cells
    if isinstance(rows, str):
        if experiment not in PUBLISHED_CELLS:
            raise RetinaCodecError(
                f"the published cells are known for {', '.join(PUBLISHED_CELLS)}; the folder is "
                f"named {experiment!r}. Rename it, or pass row numbers: {option('cells', [0, 1])}."
            )
        rows = list(PUBLISHED_CELLS[experiment])
    if min(rows) < 0 or max(rows) >= count:
        raise RetinaCodecError(
            f"cells must lie in 0..{count - 1}; got {rows[:20]}. Pass {option('cells', [0])} or "
            "others of these."
        )
    return rows


def _check_sizes(train: xr.Dataset, test: xr.Dataset, place: Path) -> None:
    """Check that both splits have the same cells and frames of the same size."""
    for dim in ("cell", "y", "x"):
        if train.sizes[dim] != test.sizes[dim]:
            raise RetinaCodecError(
                f"{place}: train and test must have the same {dim}; they have "
                f"{train.sizes[dim]} and {test.sizes[dim]}. Write both with the same {dim}."
            )


def _with_blocks(train: xr.Dataset, experiment: str, notes: dict[str, str]) -> xr.Dataset:
    frames, blocks = train.sizes["time"], NUM_BLOCKS.get(experiment)
    if blocks is None:
        notes["blocks"] = "not known for this experiment"
        return train
    if frames % blocks:
        notes["blocks"] = f"left out: {frames} frames are not {blocks} blocks of one length"
        return train
    notes["blocks"] = f"{blocks} of {frames // blocks} frames, joined; from the authors' code"
    return train.assign_coords(block=("time", np.repeat(np.arange(blocks), frames // blocks)))


def _after_train(
    train: xr.Dataset, test: xr.Dataset, presentations: int, notes: dict[str, str]
) -> xr.Dataset:
    """Move the test split after the train split where their stored times overlap."""
    bounds = [
        (float(split["time"][0]), float(split["time"][0]) + split.sizes["time"] * n / FRAME_RATE)
        for split, n in ((train, 1), (test, presentations))
    ]
    (start, stop), (test_start, test_stop) = bounds
    half = 0.5 / FRAME_RATE
    if test_start < stop - half and start < test_stop - half:
        said = f"{notes['clock']}; " if "clock" in notes else ""
        notes["clock"] = f"{said}test times are moved by {stop - test_start:.6g} s, behind train"
        frames = test.sizes["time"]
        return test.assign_coords(time=stop + np.arange(frames) / FRAME_RATE)
    return test


def _add_centers(splits: list[xr.Dataset], experiment: str) -> str:
    """Write the published centres into the splits; say where they come from."""
    known = dict(
        zip(
            PUBLISHED_CELLS.get(experiment, ()), PUBLISHED_CENTERS.get(experiment, ()), strict=False
        )
    )
    size = (splits[0].sizes["y"], splits[0].sizes["x"])
    if not known or size != FRAME:
        return "not known for this experiment" if not known else f"left out: frames are {size} px"
    for split in splits:
        rows = split["cell"].to_numpy().tolist()
        for axis, name in enumerate(("center_y", "center_x")):
            values = [float(known[row][axis]) if row in known else np.nan for row in rows]
            split.coords[name] = ("cell", values, {"units": "px"})
    return "from the authors' code, px of a 50 x 50 frame; how they were obtained is not stated"
