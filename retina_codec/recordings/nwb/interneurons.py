"""Intracellular recordings of an NWB file as interneurons, in the bins of the test movie.

Samples are averaged within bins; a bin without a sample is NaN.
"""

from typing import Any

import numpy as np
import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.recordings.binning import Floats
from retina_codec.recordings.nwb.cell_types import types_from
from retina_codec.recordings.nwb.options import Reading
from retina_codec.recordings.nwb.tree import Node, Table

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
    names: list[str] = []
    columns, units, path = [], set(), reading.path
    lost: dict[str, str] = {}
    nodes = [*root.groups("acquisition", lost), *root.groups("stimulus/presentation")]
    if lost:
        reading.say(f"acquisition that cannot be reached, and was not needed: {', '.join(lost)}")
    for node in nodes:
        try:
            if node.kind not in KINDS or node.get("data") is None:
                continue
            node.timing()
        except RetinaCodecError as error:  # in a file that is not beside
            reading.doubt(f"{node.path} was left out: {error}")
            continue
        means, unit = _binned(node, onsets, rate, reading)
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
        types = types_from(given, labels, None, reading, "interneuron")
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
            f"{root.source}: {series.path} must have data and a table of interneurons. Write both, "
            "or take the series out."
        )
    values, table, (start, _, _) = data.numbers(), Table(group), series.timing()
    if values.ndim != 2 or any(len(table[name]) != values.shape[1] for name in table):
        raise RetinaCodecError(
            f"{series.where} must be (time, interneuron), with one row of {group.path} per "
            f"interneuron; it is {values.shape}. Write both again, or take the series out."
        )
    values = values.astype(data.dtype)
    coords: dict[str, Any] = {"time": (start or 0.0) + np.arange(len(values)) / rate}
    columns = {"interneuron": "label", "type": "type"} | {n: n for n in ("center_y", "center_x")}
    for name, title in columns.items():
        if title in table:
            entries = np.asarray(table[title])
            text = entries.dtype.kind not in "iuf"
            coords[name] = ("interneuron", entries.astype(str) if text else entries)
    attrs = {"units": str(data.attribute("unit", "n/a"))}
    return xr.Dataset({"potential": (("time", "interneuron"), values, attrs)}, coords=coords)


def _binned(node: Node, onsets: Floats, rate: float, reading: Reading) -> tuple[Floats, str]:
    """Mean of the samples in every bin, NaN without one; and the unit."""
    data, (start, sampling, stamps) = node.stored("data"), node.timing()
    if data is None or len(data.shape) != 1:
        found = "no array" if data is None else f"of shape {data.shape}"
        raise RetinaCodecError(
            f"{node.where} must be one potential over time; its data is {found}. Write one series "
            "per cell."
        )
    values = data.numbers()
    factor = data.factor("conversion", 1.0, reading.doubt)
    offset = data.factor("offset", 0.0, reading.doubt)
    if start is not None and np.isfinite(start) and 0 < sampling < np.inf:
        times = start + np.arange(values.size) / sampling
    elif stamps is not None:
        times = stamps.numbers().ravel()
    else:
        raise RetinaCodecError(
            f"{node.where} must have a positive rate with a start, or timestamps; it has "
            f"{sampling} Hz from {start} s. Write them there."
        )
    if times.size != values.size:
        raise RetinaCodecError(
            f"{node.where} must have one time per sample; {times.size} for {values.size}. Write "
            "its timestamps again."
        )
    edges = np.append(onsets, onsets[-1] + 1 / rate)
    place = np.searchsorted(edges, times, side="right") - 1
    inside = (place >= 0) & (place < onsets.size) & np.isfinite(values)
    total = np.bincount(place[inside], values[inside], minlength=onsets.size)
    count = np.bincount(place[inside], minlength=onsets.size)
    with np.errstate(invalid="ignore"):
        means: Floats = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return means * factor + offset, str(data.attribute("unit", "n/a"))
