"""Values of a recording for which NWB has no place, as notes and processing modules, out and in.

The module ``misc`` holds values per bin and cell: ``<split>_<variable>`` and ``repeats_rate``.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.recordings.binning import Floats
from retina_codec.recordings.nwb.options import Reading
from retina_codec.recordings.nwb.session import NOTES_KEY, Presentation, join_session
from retina_codec.recordings.nwb.splits import Split
from retina_codec.recordings.nwb.tree import Node
from retina_codec.recordings.nwb.units import Cells

__all__ = [
    "add_further_values",
    "add_interneurons",
    "dataset_from_notes",
    "dataset_to_notes",
    "plain_attributes",
    "plain_value",
    "read_notes",
    "read_repeats_rate",
    "with_further_values",
    "with_nodes",
]

NO_LONG_NAME = "axes: time, unit"  # description of a series whose variable has no long name
REPEATS_RATE = "repeats_rate"  # series in the module misc


def add_interneurons(nwbfile: Any, recording: xr.DataTree) -> None:
    """Add interneuron potentials and a table of the interneurons, where the recording has them.

    Parameters
    ----------
    nwbfile : pynwb.NWBFile
        Changed.
    recording : xr.DataTree
    """
    from hdmf.common import DynamicTable, VectorData
    from pynwb import TimeSeries

    if "interneurons" not in recording.children:
        return
    node = recording["interneurons"].to_dataset()
    module = nwbfile.create_processing_module(
        "icephys", "Interneurons, recorded during the first test presentation"
    )
    module.add(
        TimeSeries(
            name="interneuron_potential",
            data=node["potential"].to_numpy(),
            unit=node["potential"].attrs.get("units") or "n/a",
            description="axes: time, interneuron (rows of the table interneurons)",
            rate=recording.attrs["frame_rate"],
            starting_time=float(node["time"][0]),
        )
    )
    names = [name for name in ("type", "center_y", "center_x") if name in node.coords]
    table = [("label", node["interneuron"])] + [(name, node[name]) for name in names]
    module.add(
        DynamicTable(
            name="interneurons",
            description="One row per column of interneuron_potential",
            columns=[
                VectorData(name=name, description=f"{name} of the interneuron", data=_plain(v))
                for name, v in table
            ],
        )
    )


def add_further_values(nwbfile: Any, recording: xr.DataTree, shown: Sequence[Presentation]) -> None:
    """Add every (time, cell) variable that the spikes and their intervals do not give back.

    A rate or a count that follows from the spikes is left out. The rates of repeats become one
    series, one presentation after another, with a time for each bin where there are pauses.

    Parameters
    ----------
    nwbfile : pynwb.NWBFile
        Changed.
    recording : xr.DataTree
    shown : sequence of Presentation
        In order of time, as written.
    """
    frame_rate = float(recording.attrs["frame_rate"])
    for split in ("train", "test"):
        if split not in recording.children:
            continue
        dataset = recording[split].to_dataset()
        known = _from_spikes([entry for entry in shown if entry.split == split], frame_rate)
        for name, variable in dataset.data_vars.items():
            if variable.dims != ("time", "cell"):
                continue
            if name in known and _same(variable.to_numpy(), known[str(name)]):
                continue
            start = float(dataset["time"][0])
            _add_series(nwbfile, f"{split}_{name}", variable, rate=frame_rate, starting_time=start)
    if "repeats" not in recording["test"].children:
        return
    rate = recording["test/repeats"].to_dataset()["rate"]
    tests = [entry for entry in shown if entry.split == "test"]
    in_time = rate.to_numpy()[[entry.repeat for entry in tests]]
    counted = np.stack([entry.counts for entry in tests]) * frame_rate
    if _same(in_time, counted.astype(np.float32)):
        return
    start, timestamps = join_session(tests)
    timing: dict[str, Any] = {"rate": frame_rate, "starting_time": start}
    if timestamps is not None:
        timing = {"timestamps": timestamps}
    joined = xr.DataArray(in_time.reshape(-1, in_time.shape[2]), attrs=rate.attrs)
    _add_series(nwbfile, REPEATS_RATE, joined, **timing)


def _from_spikes(shown: Sequence[Presentation], frame_rate: float) -> dict[str, npt.NDArray[Any]]:
    """Return counts and rates of a split as a reader derives them from the spikes."""
    if shown[0].repeat < 0:  # blocks, one after the other
        each = np.concatenate([entry.counts for entry in shown])[None]
    else:
        each = np.stack([entry.counts for entry in shown])  # (repeat, time, cell), NaN: missing
    missing = np.isnan(each).all(axis=0)
    total: Floats = np.where(missing, np.nan, np.nansum(each, axis=0))
    rates = (each * frame_rate).astype(np.float32).astype(np.float64)
    seen = np.maximum(np.isfinite(each).sum(axis=0), 1)
    mean = np.where(missing, np.nan, np.nansum(rates, axis=0) / seen)
    return {"spike_count": total, "rate": mean.astype(np.float32)}


def _same(values: npt.NDArray[Any], others: npt.NDArray[Any]) -> bool:
    return np.array_equal(values.astype(np.float64), others.astype(np.float64), equal_nan=True)


def _add_series(nwbfile: Any, name: str, values: xr.DataArray, **timing: Any) -> None:
    from hdmf.backends.hdf5.h5_utils import H5DataIO
    from pynwb import TimeSeries

    if "misc" not in nwbfile.processing:
        nwbfile.create_processing_module("misc", "Further values per frame and unit")
    further = {k: v for k, v in values.attrs.items() if k not in ("units", "long_name")}
    if further:  # of a smoothed rate: kernel and width
        timing["comments"] = json.dumps(further, default=str)
    nwbfile.processing["misc"].add(
        TimeSeries(
            name=name,
            data=H5DataIO(values.to_numpy(), compression="gzip", compression_opts=1),
            unit=values.attrs.get("units") or "n/a",
            description=values.attrs.get("long_name") or NO_LONG_NAME,
            **timing,
        )
    )


def _plain(values: xr.DataArray) -> list[Any]:
    array = values.to_numpy()
    plain: list[Any] = (array if array.dtype.kind in "iuf" else array.astype(str)).tolist()
    return plain


def dataset_to_notes(dataset: xr.Dataset) -> dict[str, Any]:
    """Turn a small dataset into dicts, lists, text and numbers.

    Parameters
    ----------
    dataset : xr.Dataset
        Numbers, booleans and text; any dims and units.

    Returns
    -------
    dict
        For `json.dumps`; `dataset_from_notes` is the inverse.
    """
    groups = {"coords": dataset.coords, "data_vars": dataset.data_vars}
    return {"attrs": plain_attributes(dataset.attrs)} | {
        group: {
            str(name): {
                "dims": [str(dim) for dim in variable.dims],
                "dtype": "str" if variable.dtype.kind in "OTU" else str(variable.dtype),
                "data": variable.to_numpy().tolist(),
                "attrs": plain_attributes(variable.attrs),
            }
            for name, variable in variables.items()
        }
        for group, variables in groups.items()
    }


def dataset_from_notes(notes: dict[str, Any]) -> xr.Dataset:
    """Rebuild the dataset that `dataset_to_notes` converted.

    Parameters
    ----------
    notes : dict
        As returned, before or after JSON.

    Returns
    -------
    xr.Dataset
        Same dims, coordinates, values, types and attributes.
    """
    parts = {
        group: {
            name: (entry["dims"], np.asarray(entry["data"], dtype=entry["dtype"]), entry["attrs"])
            for name, entry in notes[group].items()
        }
        for group in ("coords", "data_vars")
    }
    return xr.Dataset(**parts, attrs=notes["attrs"])


def plain_attributes(attributes: Mapping[Any, Any]) -> dict[str, Any]:
    """Return attributes as text, numbers and lists, without numpy types."""
    plain: dict[str, Any] = json.loads(
        json.dumps({str(name): value for name, value in attributes.items()}, default=plain_value)
    )
    return plain


def plain_value(value: Any) -> Any:
    """Return what `json` cannot write as a number, a list or text."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else str(value)


CLOCK_WORDS = {
    "offset": ("s", "onset of the first frame on the session clock"),
    "jitter": ("s", "standard deviation of the onsets around equal steps"),
    "largest_jitter": ("s", "largest deviation of an onset from equal steps"),
    "drift": ("ppm", "measured against stated frame rate"),
    "dropped_frames": ("count", "frames that are missing between two others"),
    "duplicated_frames": ("count", "frames that were replaced at once"),
    "pauses": ("count", "longer gaps between frames"),
}


def read_notes(root: Node) -> dict[str, Any]:
    """Return what `write_nwb` kept in the notes of a file; empty for other files."""
    general = root.get("general")
    words = "" if general is None else general.text("notes")
    try:
        notes = json.loads(words or "{}")[NOTES_KEY]
    except (json.JSONDecodeError, KeyError, TypeError):
        return {}
    return notes if isinstance(notes, dict) else {}


def with_further_values(root: Node, part: xr.Dataset, split: str) -> xr.Dataset:
    """Add the (time, cell) values that `write_nwb` kept, such as smoothed or noise-free rates."""
    for series in root.groups("processing/misc"):
        data = series.stored("data")
        fits = data is not None and data.shape == (part.sizes["time"], part.sizes["cell"])
        if data is not None and fits and series.name.startswith(f"{split}_"):
            name = series.name.removeprefix(f"{split}_")
            part[name] = (("time", "cell"), data.read(), _series_attributes(series, data))
    return part


def read_repeats_rate(
    root: Node, shape: tuple[int, int, int]
) -> tuple[npt.NDArray[Any], dict[str, Any]] | None:
    """Return the rates of repeats that `write_nwb` kept and their attributes, or None.

    Parameters
    ----------
    root : Node
    shape : tuple of int
        (repeat, time, cell); rates of another shape are passed over.
    """
    series = root.get(f"processing/misc/{REPEATS_RATE}")
    data = None if series is None else series.stored("data")
    if series is None or data is None or data.shape != (shape[0] * shape[1], shape[2]):
        return None
    return data.read().reshape(shape), _series_attributes(series, data)


def _series_attributes(series: Node, data: Node) -> dict[str, Any]:
    """Return unit, long name and further attributes of a series."""
    attrs = {"units": str(data.attribute("unit", "n/a"))}
    words = str(series.attribute("description", ""))
    further = str(series.attribute("comments", ""))
    if further.startswith("{"):
        attrs |= json.loads(further)
    return attrs if words in ("", NO_LONG_NAME) else attrs | {"long_name": words}


def with_nodes(
    recording: xr.DataTree,
    cells: Cells,
    splits: Mapping[str, Split],
    notes: Mapping[str, Any],
    reading: Reading,
) -> xr.DataTree:
    """Add exact spike times, the clock, and the report of the reading, or what the notes kept."""
    nodes = {node.path: node.to_dataset(inherit=False) for node in recording.subtree}
    if not str(notes.get("spikes", "placed" if notes else "exact")).startswith("placed"):
        lengths = [train.size for train in cells.trains]
        nodes["/spikes"] = xr.Dataset(
            {
                "spike_time": ("spike", np.concatenate(cells.trains), {"units": "s"}),
                "spike_cell": ("spike", np.repeat(cells.names, lengths)),
            }
        )
    if "clock" in notes:
        nodes["/clock"] = dataset_from_notes(notes["clock"])
    elif not notes:
        nodes["/clock"] = _clock(cells, splits)
    tree = xr.DataTree.from_dict(nodes)
    if "reading" in notes:
        tree.attrs["reading"] = notes["reading"]
    elif not notes:
        tree.attrs["reading"] = reading.text
    return tree


def _clock(cells: Cells, splits: Mapping[str, Split]) -> xr.Dataset:
    """Summarize the frame clock: of the test movie, counts over all movies."""
    test = splits["test"].movie.clock.report
    found: dict[str, Any] = {}
    reports = [split.movie.clock.report for split in splits.values()]
    different = list({id(report): report for report in reports}.values())
    for name, (unit, words) in CLOCK_WORDS.items():
        value = test[name]
        if unit == "count":
            value = int(sum(report[name] for report in different))
        found[name] = ((), value, {"units": unit, "long_name": words})
    outside = np.array([train.size for train in cells.trains])
    for split in splits.values():
        for edges in split.edges:
            inside = [(train >= edges[0]) & (train < edges[-1]) for train in cells.trains]
            outside -= [int(each.sum()) for each in inside]
    attrs = {"units": "count", "long_name": "spikes outside train and test"}
    return xr.Dataset(
        found | {"spikes_outside": ("cell", outside, attrs)}, coords={"cell": cells.names}
    )
