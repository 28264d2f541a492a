"""Labelled datasets as tables and series of one NWB processing module, with notes to read back."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.recordings.nwb.extras import plain_attributes, plain_value

__all__ = ["NOTES", "ModuleBuilder", "column"]

MOST_WORDS = 10_000  # values kept as words in the notes; more belong into a table


NOTES = "notes"  # the table with the notes
MOST_LABELS = 40  # named in a description


UNEVEN = 1e-3  # of a bin


KINDS = "biufOTU"  # numbers, booleans, text


class ModuleBuilder:
    """Collects the tables and series of one processing module.

    Attributes
    ----------
    objects : list
        pynwb objects, in order.
    nodes : dict
        For each node of the tree its attributes, and for each variable where it stands.
    """

    def __init__(self) -> None:
        self.objects: list[Any] = []
        self.nodes: dict[str, dict[str, Any]] = {}

    def start(self, path: str, dataset: xr.Dataset) -> None:
        """Begin a node: note its attributes."""
        self.nodes[path] = {"attrs": plain_attributes(dataset.attrs), "variables": {}}

    def note(self, path: str, name: str, variable: xr.DataArray, **where: Any) -> None:
        """Note where a variable stands, with its dims, type and attributes."""
        about = {
            "dims": [str(dim) for dim in variable.dims],
            "shape": list(variable.shape),
            "dtype": "str" if variable.dtype.kind in "OTU" else str(variable.dtype),
            "attrs": plain_attributes(variable.attrs),
        }
        self.nodes[path]["variables"][name] = about | where

    def words(self, path: str, dataset: xr.Dataset, names: Iterable[str]) -> None:
        """Keep small variables as values in the notes."""
        for name in names:
            variable = dataset[name]
            if variable.dtype.kind in KINDS and variable.size <= MOST_WORDS:
                values = variable.to_numpy().ravel().tolist()
                self._note_in(path, dataset, name, variable, values=values)

    def table(
        self,
        path: str,
        dataset: xr.Dataset,
        rows: Sequence[str],
        names: Iterable[str],
        table: str,
        description: str,
        *,
        first: Sequence[Any] = (),
        further: xr.Dataset | None = None,
    ) -> None:
        """Add a table with one column per variable; what has more dims is flattened per row.

        Parameters
        ----------
        path : str
            Node of the tree.
        dataset : xr.Dataset
        rows : sequence of str
            Dims that the rows run over, the last one fastest.
        names : iterable of str
            Variables and coordinates that have these dims.
        table, description : str
        first : sequence of hdmf VectorData
            Columns that stand before the others.
        further : xr.Dataset, optional
            More columns along ``rows``, which are not read back.
        """
        columns = list(first)
        for name in names:
            variable = dataset[name].transpose(*rows, ...)
            if variable.size == 0 or _all_nan(variable):
                kept: dict[str, Any] = {"values": []} if variable.size == 0 else {"nan": True}
                self._note_in(path, dataset, name, variable, **kept)
                continue
            columns.append(_column(name, variable, len(rows)))
            self._note_in(path, dataset, name, variable, at=f"{table}/{columns[-1].name}")
        taken = {column.name for column in columns}
        further = xr.Dataset() if further is None else further
        for key in further.data_vars:
            extra = further[key].transpose(*rows, ...)
            if key not in taken and not _all_nan(extra):
                columns.append(_column(str(key), extra, len(rows)))
        self.add_table(table, description, columns)

    def add_table(self, table: str, description: str, columns: Sequence[Any]) -> None:
        """Add a table of finished columns; one without rows is left out."""
        from hdmf.common import DynamicTable

        if columns and len(columns[0].data) > 0:
            self.objects.append(
                DynamicTable(name=table, description=description, columns=list(columns))
            )

    def clock(
        self, path: str, dataset: xr.Dataset, dim: str, rate: float | None, name: str
    ) -> None:
        """Keep an even clock as its start and rate, and what rounding adds to it.

        Parameters
        ----------
        path : str
        dataset : xr.Dataset
            With the coordinate ``dim``, s.
        dim : str
        rate : float or None
            Hz, if known; else from the steps.
        name : str
            Of the series that holds the rounding, where there is any.
        """
        time = dataset[dim].to_numpy().astype(np.float64)
        rate = _clock_rate(time, rate)
        rounding = time - (time[0] + np.arange(time.size) / rate)
        where: dict[str, Any] = {"start": float(time[0]), "rate": rate}
        if rounding.any():
            self._series(
                name,
                rounding,
                "s",
                "to be added to starting_time + n / rate to get the exact labels of the bins",
                time[0],
                rate,
            )
            where["rounding"] = f"{name}/data"
        self._note_in(path, dataset, dim, dataset[dim], clock=where)

    def series(
        self, path: str, dataset: xr.Dataset, name: str, series: str, rate: float | None
    ) -> None:
        """Add a variable along time as a series on the clock of the session.

        Parameters
        ----------
        path : str
        dataset : xr.Dataset
            With a coordinate ``time``, s.
        name : str
            Of the variable; booleans are written as 0 and 1.
        series : str
        rate : float or None
            Hz, if known.
        """
        variable = dataset[name].transpose("time", ...)
        time = dataset["time"].to_numpy().astype(np.float64)
        values = variable.to_numpy()
        values = values.astype(np.int8) if values.dtype == np.bool_ else values
        units = str(variable.attrs.get("units") or "n/a")
        about = _describe(name, variable, 1)
        self._series(series, values, units, about, time[0], _clock_rate(time, rate))
        self._note_in(path, dataset, name, variable, at=f"{series}/data")

    def runs(
        self, path: str, dataset: xr.Dataset, name: str, table: str, rate: float | None
    ) -> None:
        """Add labels along time as intervals, one per run of equal labels."""
        from pynwb.epoch import TimeIntervals

        labels = dataset[name].to_numpy().astype(str)
        time = dataset["time"].to_numpy().astype(np.float64)
        rate = _clock_rate(time, rate)
        starts = np.flatnonzero(np.append(True, labels[1:] != labels[:-1]))
        counts = np.diff(np.append(starts, labels.size))
        intervals = TimeIntervals(name=table, description=f"{name} of the bins")
        intervals.add_column("label", f"{name} of these bins")
        intervals.add_column("bins", "number of bins, count")
        for start, count in zip(starts, counts, strict=True):
            stop = time[start + count - 1] + 1.0 / rate
            intervals.add_row(
                start_time=time[start], stop_time=stop, label=labels[start], bins=int(count)
            )
        self.objects.append(intervals)
        self._note_in(path, dataset, name, dataset[name], runs=table)

    def module(self, name: str, sentence: str, notes: dict[str, Any]) -> Any:
        """Make the processing module, with the notes as a table of places and values (JSON)."""
        from pynwb import ProcessingModule

        whole = json.loads(json.dumps(notes | {"nodes": self.nodes}, default=plain_value))
        places, values = zip(*_leaves(whole, []), strict=True)
        self.add_table(
            NOTES,
            "Where the numbers come from, and what every column and series was: value (JSON) by "
            "place (keys from the root, as JSON)",
            [
                column("place", np.array(places), "keys from the root to the value, JSON"),
                column("value", np.array(values), "the value, JSON"),
            ],
        )
        module = ProcessingModule(name=name, description=sentence)
        for entry in self.objects:
            module.add(entry)
        return module

    def _note_in(
        self, path: str, dataset: xr.Dataset, name: str, variable: xr.DataArray, **where: Any
    ) -> None:
        own = dataset[name]
        if own.dims != variable.dims:
            where["order"] = [str(dim) for dim in own.dims]
        if name in dataset.coords:
            where["coord"] = True
        self.note(path, name, variable, **where)

    def _series(
        self,
        name: str,
        values: npt.NDArray[Any],
        units: str,
        description: str,
        start: float,
        rate: float,
    ) -> None:
        from hdmf.backends.hdf5.h5_utils import H5DataIO
        from pynwb import TimeSeries

        self.objects.append(
            TimeSeries(
                name=name,
                data=H5DataIO(values, compression="gzip", compression_opts=1),
                unit=units,
                description=description,
                starting_time=float(start),
                rate=rate,
            )
        )


def _clock_rate(time: npt.NDArray[np.float64], rate: float | None) -> float:
    """Return the rate of an even clock, Hz; an uneven one is an error."""
    if time.size < 2 and rate is None:
        raise RetinaCodecError(
            f"results must have at least 2 times to have a clock; they have {time.size}"
        )
    if rate is None:
        rate = (time.size - 1) / float(time[-1] - time[0])
    late = np.abs(time - time[0] - np.arange(time.size) / rate) * rate
    if not late.max() <= UNEVEN:
        first = int(np.argmax(~(late <= UNEVEN)))
        raise RetinaCodecError(
            f"times must advance evenly, at {rate:.6g} Hz, to be written as series; the one at "
            f"{time[first]:.6g} s is off by {late[first]:.3g} bins. Explain one stretch at a time."
        )
    return float(rate)


def _all_nan(variable: xr.DataArray) -> bool:
    return variable.dtype.kind == "f" and bool(np.isnan(variable.to_numpy()).all())


def column(name: str, values: npt.NDArray[Any], description: str) -> Any:
    """Make one column of a table.

    Parameters
    ----------
    name : str
        Changed where NWB keeps it for itself (``name`` becomes ``name_``).
    values : numpy.ndarray, (row, ...)
    description : str

    Returns
    -------
    hdmf.common.VectorData
    """
    from hdmf.common import DynamicTable, VectorData

    if values.dtype.kind in "OTU":
        data: Any = values.astype(str).tolist()
    elif values.dtype.kind in "iu" and values.min() >= 0 and values.max() <= 1:
        data = values.astype(np.uint8)  # two numbers, not yes and no
    else:
        data = values
    taken = hasattr(DynamicTable, name) or name == "id"
    safe = name.replace("/", "_") + ("_" if taken else "")
    return VectorData(name=safe, description=description, data=data)


def _column(name: str, variable: xr.DataArray, along: int) -> Any:
    """Make a column of a variable; the dims after the first ``along`` are flattened."""
    rows = int(np.prod(variable.shape[:along]))
    values = variable.to_numpy()
    values = values.reshape(rows, -1) if variable.ndim > along else values.reshape(rows)
    return column(name, values, _describe(name, variable, along))


def _describe(name: str, variable: xr.DataArray, along: int) -> str:
    """Say in words what a column or series holds, in which unit, and what its own columns are."""
    words = str(variable.attrs.get("long_name") or name.replace("_", " "))
    units = variable.attrs.get("units")
    words += f", {units}" if units not in (None, "", "1") else ""
    inner = [str(dim) for dim in variable.dims[along:]]
    if not inner:
        return words
    words += f"; columns: {' × '.join(inner)}" + (", the last fastest" if len(inner) > 1 else "")
    for dim in inner:
        if dim in variable.coords and variable.sizes[dim] <= MOST_LABELS:
            labels = variable[dim].to_numpy().tolist()
            words += f"; {dim}: {', '.join(map(str, labels))}"
    return words


def _leaves(value: Any, place: list[str]) -> Iterator[tuple[str, str]]:
    """Walk through nested dicts: the keys to each other value, and the value, both as JSON."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, [*place, key])
        return
    yield json.dumps(place, ensure_ascii=False), json.dumps(value, ensure_ascii=False)
