"""Intracellular recordings of an NWB file as interneurons, on the bins of the test movie.

Our own files keep potentials per bin; files of others hold series of an electrode at many kHz,
which are averaged within bins. A bin without a sample is NaN.
"""

from typing import Any

import numpy as np
import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.recordings.nwb.options import NwbOptions, Reading
from retina_codec.recordings.nwb.session import Floats
from retina_codec.recordings.nwb.tree import Node, texts
from retina_codec.recordings.nwb.units import types_from

__all__ = ["read_interneurons"]

KINDS = ("CurrentClampSeries", "IZeroClampSeries", "PatchClampSeries", "VoltageClampSeries")


def read_interneurons(
    root: Node, path: str, onsets: Floats, rate: float, options: NwbOptions, reading: Reading
) -> xr.Dataset | None:
    """Read the interneurons of a file, if it has any.

    Parameters
    ----------
    root : Node
    path : str
        For messages.
    onsets : numpy.ndarray, (time,)
        s, bins of the first test presentation.
    rate : float
        Hz, of the bins.
    options : NwbOptions
        ``interneuron_types``: a mapping, or a CSV or JSON file, from series name to type.
    reading : Reading

    Returns
    -------
    xr.Dataset or None
        ``potential`` (time, interneuron) in the unit of the file (V, as a rule); ``type``.
    """
    ours = root.get("processing/icephys/interneuron_potential")
    if ours is not None:
        return _ours(root, ours, rate)
    series = [
        node
        for place in ("acquisition", "stimulus/presentation")
        for node in _members(root, place)
        if node.kind in KINDS and node.get("data") is not None
    ]
    kept, columns, units = [], [], set()
    for node in series:
        means, unit = _binned(node, onsets, rate, path)
        if np.isfinite(means).any():
            kept.append(node)
            columns.append(means)
            units.add(unit)
        else:
            reading.doubt(f"{node.path} has no sample during the test movie; left out")
    if not kept:
        return None
    if len(units) > 1:
        raise RetinaCodecError(
            f"{path}: intracellular series must have one unit; they have {sorted(units)}. Name "
            "those that are potentials: open the file without the others."
        )
    names = np.array([node.name for node in kept], dtype=str)
    types = np.full(names.size, "unknown", dtype=object)
    if options.interneuron_types is not None:
        types = types_from(options.interneuron_types, names, None, path, "interneuron")
    reading.say(f"interneurons: {', '.join(names)}, averaged within bins")
    return xr.Dataset(
        {"potential": (("time", "interneuron"), np.stack(columns, axis=1), {"units": units.pop()})},
        coords={
            "time": onsets[0] + np.arange(onsets.size) / rate,
            "interneuron": names,
            "type": ("interneuron", types.astype(str)),
        },
    )


def _members(root: Node, place: str) -> list[Node]:
    group = root.get(place)
    if group is None or group.is_array:
        return []
    return [node for node in group.members() if not node.is_array]


def _ours(root: Node, series: Node, rate: float) -> xr.Dataset:
    data, start = series.get("data"), series.get("starting_time")
    table = root.get("processing/icephys/interneurons")
    if data is None or table is None:
        raise RetinaCodecError(f"{series.path} must have data and a table of interneurons")
    values = data.read()
    first = 0.0 if start is None else float(start.read().ravel()[0])
    coords: dict[str, Any] = {"time": first + np.arange(len(values)) / rate}
    columns = {"interneuron": "label", **{n: n for n in ("type", "center_y", "center_x")}}
    for name, title in columns.items():
        column = table.get(title)
        if column is not None:
            entries = column.read()
            numbers = entries.dtype.kind in "iuf"
            coords[name] = ("interneuron", entries if numbers else texts(entries).astype(str))
    attrs = {"units": str(data.attribute("unit", "n/a"))}
    return xr.Dataset({"potential": (("time", "interneuron"), values, attrs)}, coords=coords)


def _binned(node: Node, onsets: Floats, rate: float, path: str) -> tuple[Floats, str]:
    """Mean of the samples in every bin; NaN without one."""
    data, start, stamps = node.get("data"), node.get("starting_time"), node.get("timestamps")
    if data is None or len(data.shape) != 1:
        raise RetinaCodecError(f"{path}: {node.path} must be one potential over time")
    values = data.read().astype(np.float64)
    factor, offset = float(data.attribute("conversion", 1.0)), float(data.attribute("offset", 0.0))
    if start is not None:
        sampling = float(start.attribute("rate", np.nan))
        times = float(start.read().ravel()[0]) + np.arange(values.size) / sampling
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
