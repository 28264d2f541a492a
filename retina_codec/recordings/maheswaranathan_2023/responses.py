"""Responses of a published HDF5 file: counts or rates, sums or means, inferred from their values.

The files do not state this; each function reports what it found in ``notes`` or beside the values.
"""

from typing import Any

import numpy as np
import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.recordings.binning import bin_spikes
from retina_codec.recordings.doubts import wrong_responses
from retina_codec.recordings.maheswaranathan_2023.arrays import (
    FRAME_RATE,
    Numbers,
    dataset_of,
    fit_length,
    in_file,
    member,
    names_of,
)
from retina_codec.storage.hdf5 import read_array

__all__ = ["read_counts", "read_repeats", "read_response", "read_spikes"]

MEAN_TOLERANCE = 1e-4  # relative and in Hz: the files may hold single precision


def cell_name(row: int) -> str:
    """Name the cell of a response row, as /spikes and /test/repeats do."""
    return f"cell{row + 1:02d}"


def read_response(group: Any, name: str, frames: int, where: str, notes: dict[str, str]) -> Numbers:
    """Read one kind of response of a split, (time, cell), as stored."""
    responses = member(group, "response")
    stored = dataset_of(responses, name, "cell, time", f"{where}/response")
    what = f"{where}/response/{name}"
    values = fit_length(read_array(stored), frames, what, notes)
    values = values.astype(np.float32) if values.dtype.kind == "b" else values
    _check_values(values, what, notes)
    return values.T


def _check_values(values: Numbers, what: str, notes: dict[str, str]) -> None:
    """Refuse negative and infinite responses; note how many are missing."""
    wrong = list(wrong_responses(xr.DataArray(values), what))
    if wrong:
        raise RetinaCodecError(
            f"{wrong[0]}. Write them again; NaN stands for what was not recorded."
        )
    missing = int(np.isnan(values).sum()) if values.dtype.kind == "f" else 0
    if missing:
        said = f"{missing} of {values.size} values of {in_file(what)} are NaN: not recorded"
        notes["missing"] = f"{notes['missing']}; {said}" if "missing" in notes else said


def read_counts(
    group: Any, rate: Numbers, presentations: int, where: str, notes: dict[str, str]
) -> tuple[Numbers, int, str]:
    """Read ``binned`` as spikes per bin, summed over presentations, and report how.

    Files may hold counts, their mean over presentations, or either in Hz; the smallest value
    decides. What fits none of these is kept as stored.

    Parameters
    ----------
    group : h5py.Group
        The split.
    rate : numpy.ndarray, (time, cell)
        The response that was chosen: how many frames and cells there must be.
    presentations : int
        Of the movie; 1 for the train movie, or where it is not known.
    where : str
        Name of the split.
    notes : dict
        May get an entry ``cut``.

    Returns
    -------
    numpy.ndarray, (time, cell)
        NaN where nothing is stored.
    int
        Presentations that they are summed over.
    str
        What the numbers are.
    """
    if member(member(group, "response"), "binned") is None:
        return np.full(rate.shape, np.nan, dtype=np.float32), 1, "not stored"
    stored = read_response(group, "binned", len(rate), where, notes)
    if stored.shape != rate.shape:
        raise RetinaCodecError(
            f"{where}/response must have the same cells in every response; binned has "
            f"{stored.shape[1]} instead of {rate.shape[1]}. Write binned again, or take it out."
        )
    positive = stored[stored > 0]
    if positive.size and positive.min() * presentations > FRAME_RATE * (1 - 1e-6):
        counts, words = stored / FRAME_RATE, "binned, stored in Hz, over 100 Hz"
    else:
        counts, words = stored, "binned, as stored"
    if _are_whole(counts):
        return _as_whole(counts), presentations, words
    if _are_whole(counts * presentations):
        said = f"{words}, times {presentations}: the sum over presentations"
        return _as_whole(counts * presentations), presentations, said
    return counts, 1, f"{words}; not whole numbers, probably a mean over presentations"


def _are_whole(values: Numbers) -> bool:
    return np.allclose(values, np.round(values), rtol=0, atol=1e-3, equal_nan=True)


def _as_whole(values: Numbers) -> Numbers:
    """Round; to integers where none is missing or absurd."""
    whole = np.round(values)
    fits = bool((np.abs(whole) < 2**31).all())  # False for NaN
    return whole.astype(np.int32) if fits else whole


def read_repeats(
    group: Any, response: str, rate: Numbers, where: str, notes: dict[str, str]
) -> Numbers | None:
    """Read the presentations of the test movie in Hz.

    Parameters
    ----------
    group : h5py.Group
        The test split.
    response : str
        Kind of response, for files that store several.
    rate : numpy.ndarray, (time, cell)
        Response of the test split: how many frames and cells there are.
    where : str
        Name of the split.
    notes : dict
        Gets an entry ``repeats``: what the numbers are, and by which evidence.

    Returns
    -------
    numpy.ndarray, (repeat, time, cell), Hz, or None
        NaN where a cell has fewer presentations; None where there are none.

    Raises
    ------
    RetinaCodecError
        Arrays of other dims or another length.
    """
    import h5py

    stored, where = member(group, "repeats"), f"{where}/repeats"
    frames, cells = rate.shape
    if stored is not None and not isinstance(stored, h5py.Group):
        raise RetinaCodecError(
            f"{where} must be a group, with an array (repeat, time) per cell; it is an array. "
            "Write it again, or take it out."
        )
    if not names_of(stored):
        return None
    per_cell: list[Numbers | None] = []
    if isinstance(member(stored, response), h5py.Dataset):
        joined = read_array(dataset_of(stored, response, "repeat, cell, time", where))
        if joined.shape[1] != cells and joined.shape[0] == cells:
            joined = joined.swapaxes(0, 1)
        if joined.shape[1] != cells:
            raise RetinaCodecError(
                f"{where}/{response} must be (repeat, cell, time) with {cells} cells; "
                f"it is {joined.shape}. Write it again."
            )
        joined = fit_length(joined, frames, f"{where}/{response}", notes)
        _check_values(joined, f"{where}/{response}", notes)
        per_cell = [joined[:, row] for row in range(cells)]
    else:
        for row in range(cells):
            cell = cell_name(row)
            places = (f"{response}/{cell}", f"{cell}/{response}", cell)
            name = next((n for n in places if isinstance(member(stored, n), h5py.Dataset)), None)
            values = None
            if name is not None:
                values = read_array(dataset_of(stored, name, "repeat, time", where))
                values = fit_length(values, frames, f"{where}/{name}", notes, said=where)
                _check_values(values, f"{where}/{name}", notes)
            per_cell.append(values)
    most = max((len(values) for values in per_cell if values is not None), default=0)
    if most == 0:
        raise RetinaCodecError(
            f"{where} must have {response} or {cell_name(0)} to {cell_name(cells - 1)} "
            f"(repeat, time); it has {names_of(stored)[:8]}. Write one of these, or take the group "
            "out."
        )
    repeats = np.full((most, frames, cells), np.nan)
    for row, values in enumerate(per_cell):
        if values is not None:
            repeats[: len(values), :, row] = values
    return _in_hertz(group, repeats, notes)


def _in_hertz(group: Any, repeats: Numbers, notes: dict[str, str]) -> Numbers:
    """Convert presentations to Hz; the stored response that is their mean says what they hold."""
    shown = np.isfinite(repeats).sum(axis=0)
    mean = np.nansum(repeats, axis=0) / np.where(shown > 0, shown, np.nan)  # (time, cell)
    responses = member(group, "response")
    for name in names_of(responses):
        stored = member(responses, name)
        if getattr(stored, "ndim", 0) != 2 or stored.dtype.kind not in "biuf":
            continue
        values = read_array(stored)[:, : len(mean)].T
        if values.shape == mean.shape and np.allclose(
            values, mean, rtol=MEAN_TOLERANCE, atol=MEAN_TOLERANCE, equal_nan=True
        ):
            notes["repeats"] = f"as stored; their mean is test/response/{name}"
            break
    else:
        notes["repeats"] = "as stored; no response of the file is their mean"
    finite = repeats[np.isfinite(repeats)]
    whole, hertz = (finite == np.round(finite)).all(), (finite % FRAME_RATE == 0).all()
    if whole and not hertz:
        notes["repeats"] += "; whole numbers, taken as spikes per bin, times 100 Hz"
        return repeats * FRAME_RATE
    notes["repeats"] += "; taken as Hz"
    return repeats


def read_spikes(
    file: Any, rows: list[int], train: xr.Dataset | None, where: str, notes: dict[str, str]
) -> xr.Dataset | None:
    """Read spike times, if there are any.

    Parameters
    ----------
    file : h5py.File
    rows : list of int
        The cells, in this order.
    train : xr.Dataset or None
        Its counts show whether the spikes are on the clock of the train movie.
    where : str
        The file.
    notes : dict
        Gets an entry ``spikes``.

    Returns
    -------
    xr.Dataset or None
        ``spike_time`` (spike) s, ascending for each cell; ``spike_cell`` (spike), label of the
        cell.

    Raises
    ------
    RetinaCodecError
        A spike time that is not a finite number.
    """
    stored = member(file, "spikes")
    names = names_of(stored)
    rows = [row for row in rows if cell_name(row) in names]
    if not rows:
        return None
    times, unsorted = [], 0
    for row in rows:
        found = member(stored, cell_name(row))
        empty = getattr(found, "shape", None) in ((0,), None) and hasattr(found, "dtype")
        values = np.empty(0)
        if not empty:
            found = dataset_of(stored, cell_name(row), "spike", f"{where}/spikes")
            values = read_array(found).astype(np.float64)
        if not np.isfinite(values).all():
            raise RetinaCodecError(
                f"{where}/spikes/{cell_name(row)} must be finite times in s; some are not. Write "
                "them again, or take the group spikes out."
            )
        unsorted += int((np.diff(values) < 0).any())
        times.append(np.sort(values))
    same = train is not None and "spike_count" in train and _same_counts(times, rows, train)
    notes["spikes"] = (
        "the clock of /train: their counts are its spike_count"
        if same
        else "times as stored; their counts in the bins of /train differ from its spike_count, so "
        "the clock is not certain"
    )
    if unsorted:
        notes["spikes"] += f"; {unsorted} cells were not in order of time and were sorted"
    return xr.Dataset(
        {
            "spike_time": ("spike", np.concatenate(times), {"units": "s"}),
            "spike_cell": ("spike", np.repeat(rows, [len(values) for values in times])),
        }
    )


def _same_counts(times: list[Numbers], rows: list[int], train: xr.Dataset) -> bool:
    edges = float(train["time"][0]) + np.arange(train.sizes["time"] + 1) / FRAME_RATE
    counts = bin_spikes(times, None, edges)
    return np.array_equal(counts, train["spike_count"].sel(cell=rows).to_numpy())
