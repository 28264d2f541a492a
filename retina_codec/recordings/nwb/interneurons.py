"""Intracellular recordings of an NWB file as interneurons, in the bins of the test movie.

Samples are averaged within bins; a bin without a sample is NaN.
"""

from typing import Any

import numpy as np
import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.recordings.binning import Floats
from retina_codec.recordings.nwb.options import Reading
from retina_codec.recordings.nwb.tree import Node, Table
from retina_codec.recordings.nwb.units import types_from

__all__ = ["read_interneurons"]

KINDS = ("CurrentClampSeries", "IZeroClampSeries", "PatchClampSeries", "VoltageClampSeries")


def read_interneurons(
    root: Node, onsets: Floats, rate: float, reading: Reading
) -> xr.Dataset | None:
    """Read the interneurons of a file, if it has any.

    Parameters
    ----------
    root : Node
    onsets : numpy.ndarray, (time,)
        s, bins of the first test presentation.
    rate : float
        Hz, of the bins.
    reading : Reading
        Option ``interneuron_types``: a mapping, or a CSV or JSON file, from series name to type.

    Returns
    -------
    xr.Dataset or None
        ``potential`` (time, interneuron) in the unit of the file (usually V); ``type``.

    Raises
    ------
    RetinaCodecError
        A series that is not one potential over time, without times, or in another unit.
    """
    ours = root.get("processing/icephys/interneuron_potential")
    if ours is not None:
        return _ours(root, ours, rate)
    names, columns, units, path = [], [], set(), reading.path
    for node in [*root.groups("acquisition"), *root.groups("stimulus/presentation")]:
        if node.kind not in KINDS or node.get("data") is None:
            continue
        means, unit = _binned(node, onsets, rate, path)
        if np.isfinite(means).any():
            names.append(node.name)
            columns.append(means)
            units.add(unit)
        else:
            reading.doubt(f"{node.path} has no sample during the test movie; left out")
    if not names:
        return None
    if len(units) > 1:
        raise RetinaCodecError(
            f"{path}: intracellular series must have one unit; they have {sorted(units)}. Keep "
            "those that are potentials in the file, and take the others out."
        )
    labels = np.array(names, dtype=str)
    types = np.full(labels.size, "unknown")
    if reading.options.interneuron_types is not None:
        given = reading.options.interneuron_types
        types = types_from(given, labels, None, path, "interneuron")
    reading.say(f"interneurons: {', '.join(names)}, averaged within bins")
    return xr.Dataset(
        {"potential": (("time", "interneuron"), np.stack(columns, axis=1), {"units": units.pop()})},
        coords={
            "time": onsets[0] + np.arange(onsets.size) / rate,
            "interneuron": labels,
            "type": ("interneuron", types),
        },
    )


def _ours(root: Node, series: Node, rate: float) -> xr.Dataset:
    """Interneurons as `write_nwb` stores them: one potential per bin."""
    data, group = series.stored("data"), root.get("processing/icephys/interneurons")
    if data is None or group is None:
        raise RetinaCodecError(
            f"{root.source}: {series.path} must have data and a table of interneurons"
        )
    values, table, (start, _, _) = data.read(), Table(group), series.timing()
    coords: dict[str, Any] = {"time": (start or 0.0) + np.arange(len(values)) / rate}
    columns = {"interneuron": "label", "type": "type"} | {n: n for n in ("center_y", "center_x")}
    for name, title in columns.items():
        if title in table:
            entries = np.asarray(table[title])
            text = entries.dtype.kind not in "iuf"
            coords[name] = ("interneuron", entries.astype(str) if text else entries)
    attrs = {"units": str(data.attribute("unit", "n/a"))}
    return xr.Dataset({"potential": (("time", "interneuron"), values, attrs)}, coords=coords)


def _binned(node: Node, onsets: Floats, rate: float, path: str) -> tuple[Floats, str]:
    """Mean of the samples in every bin, NaN without one; and the unit."""
    data, (start, sampling, stamps) = node.stored("data"), node.timing()
    if data is None or len(data.shape) != 1:
        raise RetinaCodecError(f"{path}: {node.path} must be one potential over time")
    values = data.read().astype(np.float64)
    factor, offset = float(data.attribute("conversion", 1.0)), float(data.attribute("offset", 0.0))
    if start is not None:
        times = start + np.arange(values.size) / sampling
    elif stamps is not None:
        times = stamps.read().astype(np.float64)
    else:
        raise RetinaCodecError(f"{path}: {node.path} must have a rate or timestamps")
    if times.size != values.size:
        raise RetinaCodecError(
            f"{path}: {node.path} must have one time per sample; {times.size} for {values.size}"
        )
    edges = np.append(onsets, onsets[-1] + 1 / rate)
    place = np.searchsorted(edges, times, side="right") - 1
    inside = (place >= 0) & (place < onsets.size) & np.isfinite(values)
    total = np.bincount(place[inside], values[inside], minlength=onsets.size)
    count = np.bincount(place[inside], minlength=onsets.size)
    with np.errstate(invalid="ignore"):
        means: Floats = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return means * factor + offset, str(data.attribute("unit", "n/a"))
