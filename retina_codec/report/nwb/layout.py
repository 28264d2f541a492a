"""Which part of the results becomes which table, column or series of an NWB file."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.report.nwb.session import Units
from retina_codec.report.nwb.tables import ModuleBuilder, column

__all__ = ["lay_out", "mode_statistics"]

SERIES = {"loading": "loadings", "split": "parts"}  # names of what lies along time


Scores = dict[str, dict[str, tuple[str, str, xr.DataArray]]]  # column: layer: node, name, value


def lay_out(results: xr.DataTree, layers: Sequence[str], units: Units) -> ModuleBuilder:
    """Put modes, loadings, pathways and hypotheses into tables and series.

    Parameters
    ----------
    results : xr.DataTree
    layers : sequence of str
        Those with modes.
    units : Units
        Of the session.

    Returns
    -------
    ModuleBuilder

    Raises
    ------
    RetinaCodecError
        Loadings that are not along time, times that do not advance evenly, or cells that are no
        units of the session.
    """
    builder = ModuleBuilder()
    found = results.attrs.get("frame_rate")
    rate = float(found) if isinstance(found, int | float) else None
    scores: Scores = {}
    for layer in layers:
        node = results["layers"].children[layer]
        place = f"/layers/{layer}"
        own = node.to_dataset(inherit=False)
        builder.start(place, own)
        _coordinates(builder, place, own, layer, rate)
        _modes(builder, f"{place}/modes", node, layer, rate, scores)
        if "pathways" in node.children:
            dataset = node.children["pathways"].to_dataset(inherit=False)
            place = f"{place}/pathways"
            builder.start(place, dataset)
            unit = [units.column(dataset["cell"].values)]
            _tables(builder, place, dataset, f"{layer}_pathways", "cell", unit)
            _collect(scores, place, dataset, layer, "pathways_")
    _scores(builder, layers, scores)
    for name, table in (("pathways", "layer_agreement"), ("hypotheses", "hypotheses")):
        if name in results.children:
            dataset = results.children[name].to_dataset(inherit=False)
            builder.start(f"/{name}", dataset)
            _tables(builder, f"/{name}", dataset, table)
            builder.words(f"/{name}", dataset, [str(n) for n in dataset if dataset[n].ndim == 0])
    return builder


def _coordinates(
    builder: ModuleBuilder, place: str, dataset: xr.Dataset, layer: str, rate: float | None
) -> None:
    """Keep the coordinates of a node that no table holds: time as a clock, labels in words."""
    for name in map(str, dataset.coords):
        if name == "time" and dataset[name].dims == ("time",):
            builder.clock(place, dataset, name, rate, f"{layer}_clock_rounding")
        elif "time" not in dataset[name].dims and "mode" not in dataset[name].dims:
            builder.words(place, dataset, [name])


def _modes(
    builder: ModuleBuilder,
    place: str,
    node: xr.DataTree,
    layer: str,
    rate: float | None,
    scores: Scores,
) -> None:
    """Lay out modes, features, loadings, and what was fitted and held out."""
    dataset = node.children["modes"].to_dataset()
    if set(dataset["loading"].dims) != {"time", "mode"} or "time" not in dataset.coords:
        raise RetinaCodecError(
            "loadings must lie along time (s), to stand on the clock of a session; those of layer "
            f"{layer!r} have the dims {dataset['loading'].dims}. Keep such results as .nc or .zarr."
        )
    own = node.children["modes"].to_dataset(inherit=False)
    builder.start(place, own)
    _coordinates(builder, place, own, layer, rate)
    in_modes, in_features = [], []
    for name in map(str, own.variables):
        dims = dataset[name].dims
        series = f"{layer}_{SERIES.get(name, name)}"
        if name == "time":
            continue
        if dims == ("time",) and dataset[name].dtype.kind in "OTU":
            builder.runs(place, dataset, name, series, rate)
        elif "time" in dims:
            builder.series(place, dataset, name, series, rate)
        elif "mode" in dims:
            in_modes.append(name)
        elif set(dims) == {"sign", "channel"}:
            in_features.append(name)
    parent = node.to_dataset()
    contribution = parent["contribution"] if "contribution" in parent else None
    builder.table(
        place,
        dataset,
        ["mode"],
        sorted(in_modes, key="mode".__ne__),
        f"{layer}_modes",
        f"Modes of layer {layer}, one per row; the columns of dictionary stand in the order of the "
        f"rows of {layer}_features",
        further=mode_statistics(dataset, contribution),
    )
    sign, channel = dataset["sign"].values, dataset["channel"].values
    labels = [
        column("sign", np.repeat(sign, channel.size), "sign of the contribution"),
        column("channel", np.tile(channel, sign.size), f"channel of layer {layer}"),
    ]
    builder.table(
        place,
        dataset,
        ["sign", "channel"],
        in_features,
        f"{layer}_features",
        f"Features that the modes of layer {layer} are made of, one per row",
        first=labels,
    )
    _collect(scores, place, own, layer, "")


def _collect(scores: Scores, place: str, dataset: xr.Dataset, layer: str, prefix: str) -> None:
    """Put single numbers aside: they become a row of the table of layers."""
    for name, value in dataset.data_vars.items():
        if value.ndim == 0:
            scores.setdefault(f"{prefix}{name}", {})[layer] = (place, str(name), value)


def _scores(builder: ModuleBuilder, layers: Sequence[str], scores: Scores) -> None:
    """Add the table of layers: one row each, one column per score."""
    columns = [column("layer", np.array(layers), "name of the layer")]
    for name, each in scores.items():
        first = next(iter(each.values()))[2]
        missing: Any = "" if first.dtype.kind in "OTU" else np.nan
        values = np.array([each[n][2].item() if n in each else missing for n in layers])
        empty = values.dtype.kind == "f" and bool(np.isnan(values).all())
        words = str(first.attrs.get("long_name") or name.replace("_", " "))
        units = str(first.attrs.get("units", "1"))
        columns.append(column(name, values, words if units == "1" else f"{words}, {units}"))
        for row, layer in enumerate(layers):
            if layer in each:
                place, variable, value = each[layer]
                where: dict[str, Any] = {"at": f"layers/{columns[-1].name}", "row": row}
                builder.note(place, variable, value, **({"nan": True} if empty else where))
        if empty:
            columns.pop()
    builder.add_table(
        "layers", "Explained layers, one per row, and how good their modes are", columns
    )


def _tables(
    builder: ModuleBuilder,
    place: str,
    dataset: xr.Dataset,
    table: str,
    rows: str | None = None,
    first: Sequence[Any] = (),
) -> None:
    """One table per dim: that of ``rows``, or else the first dim of each variable."""
    groups: dict[str, list[str]] = {rows: []} if rows else {}
    for name, variable in dataset.data_vars.items():
        if variable.ndim:
            dim = rows if rows in variable.dims else str(variable.dims[0])
            groups.setdefault(str(dim), []).append(str(name))
    labels: dict[str, list[str]] = {}
    for name, variable in dataset.coords.items():
        dim = str(variable.dims[0]) if variable.dims else ""
        if dim in groups:
            labels.setdefault(dim, []).append(str(name))
        else:
            builder.words(place, dataset, [str(name)])
    main = next(iter(groups), None)
    for dim, names in groups.items():
        index = dim == main
        builder.table(
            place,
            dataset,
            [dim],
            sorted(labels.get(dim, []), key=dim.__ne__) + names,
            table if index else f"{table}_{dim}",
            f"One row per {dim.replace('_', ' ')}",
            first=first if index else (),
        )


def mode_statistics(modes: xr.Dataset, contribution: xr.DataArray | None = None) -> xr.Dataset:
    """Describe every mode of a layer by a few numbers.

    With loadings l[t, m] and the dictionary d[m, f] (f: sign × channel):
    contribution share = Σ_t l Σ_f |d| over its sum over modes; loading share = Σ_t l² over its sum
    over modes; effective features = (Σ_f |d|)² / Σ_f d², 1 for a single feature, the number of
    features where all weigh the same; R² lost = R² of all modes − R² without this one, on the
    held-out part.

    Parameters
    ----------
    modes : xr.Dataset
        ``dictionary`` (mode, sign, channel), ``loading`` (time, mode), ``active`` (time, mode) and
        the coordinate ``split`` along time.
    contribution : xr.DataArray, dims (time, sign, channel), optional
        What was decomposed; without it there is no ``r2_lost``.

    Returns
    -------
    xr.Dataset
        Along ``mode``: ``contribution_share``, ``loading_share``, ``active_share`` (of held-out
        times), ``inhibitory_share`` (of Σ_f |d|), ``effective_features``, ``r2_lost``,
        dimensionless; ``peak_loading``, unit of the loadings. NaN where a sum to divide by is 0.
    """
    weight = abs(modes["dictionary"]).astype(np.float64)
    loading = modes["loading"].astype(np.float64)
    dim = next(str(dim) for dim in loading.dims if dim != "mode")
    held = np.flatnonzero(modes["split"].values == "held_out")
    size = weight.sum(("sign", "channel"))
    explained = loading.sum(dim) * size
    power = (loading**2).sum(dim)
    inhibitory = weight.where(weight["sign"] == "inhibitory", 0.0).sum(("sign", "channel"))
    found = {
        "contribution_share": (_share(explained), "share of the summed contributions of all modes"),
        "loading_share": (_share(power), "share of the summed squared loadings of all modes"),
        "active_share": (
            modes["active"].isel({dim: held}).mean(dim),
            "share of held-out times at which the mode is active",
        ),
        "peak_loading": (loading.max(dim), "largest loading"),
        "inhibitory_share": (
            inhibitory / size.where(size > 0),
            "share of the mode's weights that are inhibitory",
        ),
        "effective_features": (
            size**2 / (weight**2).sum(("sign", "channel")).where(size > 0),
            "effective number of features, squared sum over sum of squares of the weights",
        ),
    }
    if contribution is not None:
        found["r2_lost"] = (
            _r2_lost(contribution.isel({dim: held}), loading.isel({dim: held}), modes, dim),
            "R² on the held-out part that is lost without this mode",
        )
    units = {"peak_loading": str(modes["loading"].attrs.get("units", "1"))}
    return xr.Dataset(
        {
            name: (
                "mode",
                values.transpose("mode").values,
                {"units": units.get(name, "1"), "long_name": words},
            )
            for name, (values, words) in found.items()
        },
        coords={"mode": modes["mode"].values},
    )


def _share(values: xr.DataArray) -> xr.DataArray:
    total = values.sum()
    return values / total.where(total > 0)


def _r2_lost(
    contribution: xr.DataArray, loading: xr.DataArray, modes: xr.Dataset, dim: str
) -> xr.DataArray:
    """Leave one mode out: the residual e becomes e + l d, so Σ (e + l d)² − Σ e² in closed form."""
    dictionary = modes["dictionary"].astype(np.float64)
    values = contribution.astype(np.float64)
    residual = values - xr.dot(loading, dictionary, dim="mode")
    spread = ((values - values.mean(dim)) ** 2).sum()
    cross = xr.dot(xr.dot(residual, loading, dim=dim), dictionary, dim=("sign", "channel"))
    power = (loading**2).sum(dim) * (dictionary**2).sum(("sign", "channel"))
    lost: xr.DataArray = (2 * cross + power) / spread.where(spread > 0)
    return lost
