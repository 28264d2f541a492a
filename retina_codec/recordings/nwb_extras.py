"""What a recording holds beside movie and spikes, as processing modules of an NWB file.

Why this file exists: interneuron potentials, and every value per bin and cell that does not follow
from the spikes (smoothed rates above all), must not be lost. Names here are what the reader looks
for: ``<split>_<variable>`` and ``repeats_rate`` in the module ``misc``.
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.recordings.nwb_session import Floats, Presentation, join_session

__all__ = ["NO_LONG_NAME", "REPEATS_RATE", "add_further_values", "add_interneurons"]

NO_LONG_NAME = "axes: time, unit"  # description of a series whose variable has no long name
REPEATS_RATE = "repeats_rate"


def add_interneurons(nwbfile: Any, recording: xr.DataTree) -> None:
    """Add interneuron potentials with a table of who they are; nothing without them.

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

    A rate or a count that follows from the spikes is left out. The rates of repeats stand one
    presentation after another in one series, with a time for each bin where there are pauses.

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
    """Return what a reader will make of the spikes of a split: its counts and rates."""
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
