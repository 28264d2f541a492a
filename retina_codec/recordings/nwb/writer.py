"""Write a recording as an NWB file: one image series, a units table, a table of trials.

The series holds the train movie and every presentation of the test movie, in order of time.
"""

import json
import os
import re
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.recordings.binning import EDGE_SLACK, Floats
from retina_codec.recordings.nwb.extras import (
    add_further_values,
    add_interneurons,
    dataset_to_notes,
)
from retina_codec.recordings.nwb.session import (
    NOTES_KEY,
    TOLERANCE,
    Presentation,
    join_session,
    observed_intervals,
    place_spikes,
    presentations_of,
)
from retina_codec.recordings.schema import validate_recording
from retina_codec.storage.hdf5 import hdf5_output
from retina_codec.storage.trees import new_output

__all__ = ["exact_spikes", "observed_with_spikes", "smallest_difference", "write_nwb"]

STIMULUS = "stimulus"
FRAMES_PER_CHUNK = 100
CHUNKS_PER_BLOCK = 5
UNDATED = datetime(1970, 1, 1, tzinfo=UTC)  # NWB requires a date; recordings have none
UNIDENTIFIED = "http://purl.obolibrary.org/obo/NCBITaxon_32644"  # NCBI's taxon "unidentified"
EVENLY = "placed evenly in their bins"
EXACT = "exact times"
COARSEST = 0.01  # s: NWB Inspector reports a coarser resolution as an error
CELL_COLUMNS = {
    "cell_type": "cell type, 'unknown' where unknown",
    "center_y": "receptive field centre, px from the first row of a frame",
    "center_x": "receptive field centre, px from the first column of a frame",
}


def write_nwb(
    recording: xr.DataTree, path: str | os.PathLike[str], *, overwrite: bool = False
) -> None:
    """Write a recording as one NWB file.

    The test movie is stored once per presentation, in the order in which the retina saw it. Spike
    times of the node ``/spikes`` are written as they are. Without it there are only counts: the n
    spikes of a bin are placed evenly, at (k + ½)/n of the bin, so that counts are recovered
    exactly. Observation intervals say in which bins a cell was recorded (elsewhere its rate is
    NaN). Rates and counts that do not follow from the spikes, such as smoothed rates, and further
    values per bin and cell go to the processing module ``misc``. Boolean frames become 0 and 1.
    What NWB has no place for (pixel size, labels of the pixels, species in words, source,
    ``/clock``, how spikes were placed) is kept as JSON in the notes.

    Parameters
    ----------
    recording : xr.DataTree
        A valid recording; not modified. The stimulus is streamed.
    path : path
        The file; its name usually ends in ``.nwb``.
    overwrite : bool
        Replace an existing file.

    Raises
    ------
    RetinaCodecError
        Not a valid recording, presentations that overlap in time, smoothed rates without counts,
        spike times that give other counts, an existing path, a full disk.
    """
    import h5py
    from pynwb import NWBHDF5IO

    validate_recording(recording)
    with new_output(path, overwrite=overwrite) as partial:
        nwbfile = _build(recording)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # the partial file's suffix
                with (
                    hdf5_output(partial) as stream,
                    h5py.File(stream, "w") as file,
                    NWBHDF5IO(file=file, mode="w") as out,
                ):
                    out.write(nwbfile)
        except (RuntimeError, TypeError, ValueError) as error:  # raised by h5py
            if isinstance(error, RetinaCodecError):
                raise
            raise RetinaCodecError(f"could not write {path}: {str(error)[:200]}") from error


def _build(recording: xr.DataTree) -> Any:
    """Make the pynwb object; its movie is an iterator that pynwb reads while writing."""
    from pynwb import NWBFile
    from pynwb.file import Subject

    attrs = recording.attrs
    spikes = exact_spikes(recording)
    shown = presentations_of(recording, spikes)
    start, timestamps = join_session(shown)
    types = recording["test/cell_type"].to_numpy().tolist()
    rows, columns = (recording["test"][dim].to_numpy().tolist() for dim in ("y", "x"))
    own = {**attrs, "y": rows, "x": columns, "cell_types": types, "date": "not known"}
    own["spikes"] = EVENLY if spikes is None else EXACT
    own["joined_blocks"] = "train" in recording.children and "block" in recording["train"].coords
    if "clock" in recording.children:
        own["clock"] = dataset_to_notes(recording.children["clock"].to_dataset(inherit=False))
    notes = {NOTES_KEY: own}
    nwbfile = NWBFile(
        session_description=attrs["session"] or "no description",
        identifier=attrs["session"] or "no identifier",
        session_start_time=UNDATED,
        experiment_description=f"Retina recording; source: {attrs['source'] or 'not known'}",
        keywords=["retina", "visual stimulus", "ganglion cells"],
        notes=json.dumps(notes, ensure_ascii=False, default=str),
    )
    words = attrs["species"]
    nwbfile.subject = Subject(
        subject_id=attrs["session"] or "no identifier",
        description=f"species as recorded: {words or 'not known'}",
        species=words if re.fullmatch("[A-Z][a-z]+ [a-z]+", words) else UNIDENTIFIED,
        age="P0D/",  # from 0 days, no upper bound: not known
        sex="U",
    )
    nwbfile.add_stimulus(_image_series(recording, shown, start, timestamps))
    _add_units(nwbfile, recording, shown, spikes)
    nwbfile.add_trial_column("split", "train (shown once) or test")
    nwbfile.add_trial_column(
        "repeat", "number of the presentation of the test movie; -1: no repeat"
    )
    for entry in shown:
        nwbfile.add_trial(
            start_time=entry.start, stop_time=entry.stop, split=entry.split, repeat=entry.repeat
        )
    add_interneurons(nwbfile, recording)
    add_further_values(nwbfile, recording, shown)
    return nwbfile


def _image_series(
    recording: xr.DataTree,
    shown: list[Presentation],
    start: float,
    timestamps: npt.NDArray[np.float64] | None,
) -> Any:
    from hdmf.backends.hdf5.h5_utils import H5DataIO
    from pynwb.image import ImageSeries

    frames = recording["test/stimulus"]
    splits = {entry.split for entry in shown}
    dtype = np.result_type(*(recording[split].to_dataset()["stimulus"].dtype for split in splits))
    if dtype == np.bool_:  # NWB has no boolean frames
        dtype = np.dtype(np.uint8)
    compressed = H5DataIO(
        _chunk_iterator(recording, shown, dtype), compression="gzip", compression_opts=1
    )
    timing: dict[str, Any] = {"rate": recording.attrs["frame_rate"], "starting_time": start}
    if timestamps is not None:
        timing = {"timestamps": timestamps}
    return ImageSeries(
        name=STIMULUS,
        data=compressed,
        unit=frames.attrs.get("units", "n/a"),
        description="Frames shown to the retina, raw intensities; axes: frame, y (row), x (column)",
        **timing,
    )


def _chunk_iterator(recording: xr.DataTree, shown: list[Presentation], dtype: np.dtype[Any]) -> Any:
    """Make an hdmf iterator over the movie of the session, a few whole chunks at a time."""
    from hdmf.data_utils import GenericDataChunkIterator

    movies = {entry.split: recording[entry.split].to_dataset()["stimulus"] for entry in shown}
    _, height, width = movies["test"].shape
    starts = np.cumsum([0, *(entry.frames for entry in shown)])
    total = int(starts[-1])
    chunk = min(FRAMES_PER_CHUNK, total)

    class SessionMovie(GenericDataChunkIterator):  # type: ignore[misc]  # hdmf has no types
        def _get_data(self, selection: tuple[slice, ...]) -> npt.NDArray[Any]:
            first, last = selection[0].start, selection[0].stop
            pieces = [
                movies[entry.split][
                    entry.first + max(first - start, 0) : entry.first
                    + min(last - start, entry.frames)
                ].to_numpy()
                for entry, start in zip(shown, starts, strict=False)
                if start < last and first < start + entry.frames
            ]
            joined: npt.NDArray[Any] = np.concatenate(pieces).astype(dtype, copy=False)
            return joined[:, selection[1], selection[2]]

        def _get_maxshape(self) -> tuple[int, ...]:
            return total, height, width

        def _get_dtype(self) -> np.dtype[Any]:
            return dtype

    return SessionMovie(
        chunk_shape=(chunk, height, width),
        buffer_shape=(min(total, chunk * CHUNKS_PER_BLOCK), height, width),
    )


def _add_units(
    nwbfile: Any,
    recording: xr.DataTree,
    shown: list[Presentation],
    spikes: list[Floats] | None,
) -> None:
    from pynwb.misc import Units

    most = max(1.0, *(float(np.nanmax(entry.counts, initial=1.0)) for entry in shown))
    resolution = 1.0 / (shown[0].frame_rate * most)  # s between the spikes of the fullest bin
    placed = EVENLY
    if spikes is not None:
        placed = "exact times; the resolution is the smallest difference found"
        found = smallest_difference(spikes)
        resolution = found if np.isfinite(found) else resolution
    nwbfile.units = Units(
        name="units",
        description=f"Retinal ganglion cells; spikes: {placed}",
        resolution=min(resolution, COARSEST),
    )
    test = recording["test"].to_dataset()
    cells = test["cell"].to_numpy()
    columns = {"cell_type": test["type"].to_numpy().astype(str)}
    for name in ("center_y", "center_x"):
        if name in test.coords:
            columns[name] = test[name].to_numpy().astype(float)
    for name, values in columns.items():
        nwbfile.add_unit_column(name, CELL_COLUMNS[name])
        columns[name] = values
    numbered = cells.dtype.kind in "iu"
    if not numbered:
        nwbfile.add_unit_column("cell_name", "name of the cell")
    member, types = test["type_membership"].to_numpy(), test["cell_type"].to_numpy().astype(str)
    follows = np.array_equal(types, np.unique(columns["cell_type"])) and np.array_equal(
        member, columns["cell_type"][:, None] == types
    )
    if not follows:
        names = ", ".join(types.tolist())
        nwbfile.add_unit_column("type_membership", f"membership in [0, 1], one number for: {names}")
    for index, cell in enumerate(cells):
        observed = observed_intervals(shown, index)
        if spikes is None:
            times = np.concatenate([place_spikes(entry, index) for entry in shown])
        else:
            times = spikes[index]
            observed = observed_with_spikes(observed, shown, times)
        row: dict[str, Any] = {name: values[index] for name, values in columns.items()}
        if not numbered:
            row["cell_name"] = str(cell)
        if not follows:
            row["type_membership"] = member[index].astype(float)
        nwbfile.add_unit(
            id=int(cell) if numbered else index,
            spike_times=times,
            obs_intervals=observed,
            **row,
        )


WAY_OUT = "Correct them, or leave them out: recording.drop_nodes('spikes')."


def exact_spikes(recording: xr.DataTree) -> list[Floats] | None:
    """Group the spike times of a recording by cell.

    Parameters
    ----------
    recording : xr.DataTree
        A valid recording; ``/spikes`` may hold ``spike_time`` (spike), s on the session clock, and
        ``spike_cell`` (spike), labels of cells.

    Returns
    -------
    list of numpy.ndarray, or None
        s, one array per cell of ``/test`` in its order; None without the node.

    Raises
    ------
    RetinaCodecError
        A cell that the recording does not have, times that do not ascend or are not finite.
    """
    if "spikes" not in recording.children:
        return None
    node = recording.children["spikes"].to_dataset()
    cells = recording["test/cell"].to_numpy()
    times = node["spike_time"].to_numpy().astype(np.float64)
    labels = node["spike_cell"].to_numpy()
    foreign = np.unique(labels[~np.isin(labels, cells)])
    if foreign.size:
        raise RetinaCodecError(
            f"/spikes must name cells of the recording; {foreign[:10].tolist()} are none of "
            f"{cells[:10].tolist()}. {WAY_OUT}"
        )
    order = np.argsort(labels, kind="stable")
    grouped, ordered = labels[order], times[order]
    edges = [np.searchsorted(grouped, cells, side) for side in ("left", "right")]
    spikes = [ordered[first:last] for first, last in zip(*edges, strict=True)]
    for cell, train in zip(cells.tolist(), spikes, strict=True):
        if not np.isfinite(train).all() or (np.diff(train) < 0).any():
            raise RetinaCodecError(
                f"/spikes must hold finite times that ascend for each cell; those of cell {cell!r} "
                f"do not. {WAY_OUT}"
            )
    return spikes


def observed_with_spikes(
    intervals: Floats, shown: Sequence[Presentation], spikes: Floats
) -> Floats:
    """Add to the observation intervals of a cell the pauses in which it has spikes.

    A spike between presentations shows that the cell was recorded then. No interval is added within
    a presentation.

    Parameters
    ----------
    intervals : numpy.ndarray, (interval, 2)
        s, from `observed_intervals`.
    shown : sequence of Presentation
        In order of time.
    spikes : numpy.ndarray
        s, ascending.

    Returns
    -------
    numpy.ndarray, (interval, 2)
        s, ascending; every spike outside the presentations lies in one.
    """
    if spikes.size == 0:
        return intervals
    width = 1.0 / shown[0].frame_rate
    starts = np.array([entry.start for entry in shown])
    stops = np.array([entry.stop for entry in shown])
    first = [min(float(spikes[0]), starts[0]), *stops]
    last = [*starts, max(float(spikes[-1]), stops[-1])]
    rows = intervals.tolist()
    for start, stop in zip(first, last, strict=True):
        inside = (spikes >= start) & (spikes < stop - EDGE_SLACK * width)
        if inside.any() or (start == stops[-1] and spikes[-1] == stop):
            rows.append([start, stop])
    joined: list[list[float]] = []
    for start, stop in sorted(rows):
        if joined and start - joined[-1][1] <= TOLERANCE * width:
            joined[-1][1] = max(joined[-1][1], stop)
        else:
            early = (spikes < start) & (spikes >= start - EDGE_SLACK * width)  # rounding of an edge
            joined.append([float(spikes[early].min()) if early.any() else start, stop])
    return np.array(joined, dtype=np.float64).reshape(-1, 2)


def smallest_difference(spikes: Sequence[Floats]) -> float:
    """Find the smallest time between two spikes of one cell, s; NaN where no cell has two."""
    steps = [np.diff(train) for train in spikes]
    steps = [step[step > 0] for step in steps]
    return min((float(step.min()) for step in steps if step.size), default=float("nan"))
