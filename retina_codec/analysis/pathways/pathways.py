"""Correlate modes with the rates of cells and group cells that the same modes drive: pathways.

Recorded cell types take no part in the grouping; they name its numbers and judge it.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.nulls import Null, assess_significance
from retina_codec.statistics.clustering import cluster_cells
from retina_codec.statistics.correlation import pearson
from retina_codec.statistics.kmeans import adjusted_rand
from retina_codec.statistics.resampling import (
    PIECES,
    block_bins,
    draw_blocks,
    percentiles,
    resample_correlations,
)
from retina_codec.storage.results import layers_of

__all__ = ["cluster_cells", "find_pathways"]

UNKNOWN = "unknown"
COMPARED = ("correlation", "p_value", "q_value", "pathway")  # between model and recording
BLOCK = 2.0  # s of time drawn as one piece: several times the history of a retina

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


def find_pathways(
    tree: xr.DataTree,
    *,
    layers: Sequence[str] | None = None,
    rates: Literal["prediction", "rate"] = "prediction",
    description: Literal["own", "correlation"] | None = None,
    clusters: Iterable[int] = range(2, 9),
    null: Null | None = None,
    resamples: int = 200,
    block: float = BLOCK,
    seed: int = 0,
    progress: bool | None = None,
) -> xr.DataTree:
    """Correlate modes with cells and group cells with the same modes.

    r[cell, mode] = Pearson correlation over time of the cell's rate with the mode's loading, with
    p and q from a null that keeps autocorrelation and an interval from blocks of time. Cells are
    described by the square root of each mode's share of their drive (`own_contributions`), or by r
    standardised over cells per mode (mean 0, standard deviation 1); k-means, k as in
    `cluster_cells`. Groupings are compared by the adjusted Rand index (1 the same, 0 as by chance).
    Modes of constant parts (``origin`` "constant", see `decompose`) are left out.
    Pathways are numbered from 0, by the type that most of their cells have in alphabetical order,
    then by their first cells; figures, report, tables and files all show these numbers.

    Parameters
    ----------
    tree : xr.DataTree
        Results of `decompose`, with ``/responses`` (time, cell) Hz and ``/layers/<name>/modes``.
    layers : sequence of str, optional
        Which layers; all that have modes if left out.
    rates : {"prediction", "rate"}
        Correlate with the model's rates or with the recorded ones.
    description : {"own", "correlation"}, optional
        What describes a cell; None takes "own" where the layer has own contributions.
    clusters : iterable of int
        Numbers of pathways to try; those above the number of cells − 1 are left out.
    null : Null, optional
        `LinearShift` when left out: valid for slow random walks too.
    resamples : int
        Recordings made of resampled blocks of time, for intervals and stability; 0 for none.
    block : float
        Length of a block in s, at most a tenth of the recording.
    seed : int
        Of k-means and of the blocks.
    progress : bool, optional
        None shows bars after 2 s, False never, True at once.

    Returns
    -------
    xr.DataTree
        A copy with ``/layers/<name>/pathways``: ``correlation``, ``p_value``, ``q_value`` (cell,
        mode), dimensionless; what `cluster_cells` gives; with resamples ``correlation_lower`` and
        ``correlation_upper`` (cell, mode), the middle 95 %. Where recorded rates lie beside the
        model's: ``recorded_correlation``, ``recorded_p_value``, ``recorded_q_value`` (cell, mode)
        and ``recorded_pathway`` (cell), by the correlations with recorded rates. And
        ``/pathways``: ``agreement`` (layer, other_layer); ``type_agreement`` (layer), over cells
        of known type, NaN where fewer than 2 types are known; ``recorded_agreement`` (layer) of
        the two groupings; the same with ``_interval`` (..., bound) over those of resamples.

    Raises
    ------
    RetinaCodecError
        If layers have no modes, a cell or mode is constant or not finite, or no number of
        pathways can be tried.

    References
    ----------
    Melander et al. 2026, retina: mode–cell correlations and clusters (Figure 8). Hubert, Arabie
    1985, comparing partitions. Künsch 1989, moving block bootstrap.
    """
    chosen = layers_of(tree, layers, part="modes")
    responses = tree["responses"].to_dataset() if "responses" in tree.children else xr.Dataset()
    types = responses["type"].values.astype(str) if "type" in responses.coords else None
    if rates not in ("prediction", "rate") or rates not in responses:
        raise RetinaCodecError(
            f"rates must be 'prediction' or 'rate' and lie in /responses; got {rates=}, /responses "
            f"holds {list(responses.data_vars) or 'nothing'}."
        )
    if description not in (None, "own", "correlation") or resamples < 0:
        raise RetinaCodecError(
            "description must be 'own', 'correlation' or None, and resamples at least 0; got "
            f"{description=}, {resamples=}."
        )
    clusters = list(clusters)
    sources: list[Literal["prediction", "rate"]] = [rates]
    if rates == "prediction" and _usable(responses.get("rate")):
        sources.append("rate")
    result = tree.copy()
    groupings: dict[str, list[xr.Dataset]] = {}
    for name in chosen:
        each = [
            _layer_pathways(
                tree["layers"].children[name],
                responses[source],
                clusters,
                null,
                kind,
                resamples=resamples,
                block=block,
                seed=seed,
                progress=progress,
            )
            for source, kind in zip(sources, (description, "correlation"), strict=False)
        ]
        each = [_numbered(one, types) for one in each]
        groupings[name] = each
        found = each[0].assign_attrs(rates=rates, seed=seed)
        for other in each[1:]:
            found = found.assign({f"recorded_{what}": other[what] for what in COMPARED})
        found = found.drop_vars("resampled_pathway", errors="ignore")
        result[f"layers/{name}/pathways"] = xr.DataTree(found)
    result["pathways"] = xr.DataTree(_agreement(groupings, types))
    return result


def _layer_pathways(
    layer: xr.DataTree,
    rate: xr.DataArray,
    clusters: list[int],
    null: Null | None,
    description: str | None,
    *,
    resamples: int,
    block: float,
    seed: int,
    progress: bool | None,
) -> xr.Dataset:
    """Correlate, test and group for one layer and one kind of rates."""
    modes = layer["modes"].to_dataset()
    varying = np.ones(modes.sizes["mode"], dtype=bool)
    if "origin" in modes.coords:
        varying = modes["origin"].values != "constant"
    loading = modes["loading"].isel(mode=varying).drop_vars("origin", errors="ignore")
    dim = str(loading.dims[0])
    correlation = _correlation(rate, loading, str(layer.name))
    found = assess_significance(rate, loading, null=null, progress=progress)
    found["correlation"] = correlation
    attrs: dict[str, Any] = {"resamples": resamples}
    blocks, again = None, None
    if resamples:
        time = loading[dim].values
        length = block_bins(time, block)
        drawn = draw_blocks(len(time), length, resamples, seed)
        blocks = (time[:: length // PIECES], drawn)
        attrs |= {"block": length * float(np.median(np.diff(time))), "block_bins": length}
        x, z = (a.transpose(dim, ...).values.astype(np.float64) for a in (rate, loading))
        again = resample_correlations(x, z, drawn, length)
        ends = percentiles(again)
        for place, end in enumerate(("lower", "upper")):
            values = correlation.copy(data=ends[..., place])
            values.attrs["long_name"] = f"{end} end of the middle 95 % of r over resamples"
            found[f"correlation_{end}"] = values
    own = layer.children["own"].to_dataset(inherit=False) if "own" in layer.children else None
    if description == "own" and own is None:
        raise RetinaCodecError(
            f"layer {layer.name!r} must have own contributions to describe cells by them; it has "
            f"{list(layer.children)}. Run own_contributions() first, or use 'correlation'."
        )
    if own is None or description == "correlation":
        words = "its standardised correlations with the modes"
        features, again = _standard(correlation.values), None if again is None else _standard(again)
    else:
        words = "the square root of each mode's share of its drive"
        if not varying.all() and own.sizes["mode"] == len(varying):
            own = own.isel(mode=varying)
            own = own.assign(share=own["share"] / own["share"].sum("mode"))
        features, again = _own_features(own, correlation, blocks)
    groups = cluster_cells(features, clusters, resampled=again, seed=seed)
    if "other_cell" in groups.dims:
        groups = groups.assign_coords(other_cell=correlation["cell"].values)
    found = found.assign(groups.variables).assign_attrs(groups.attrs)
    return found.assign_attrs(attrs | {"method": f"k-means of {words}", "description": words})


def _numbered(found: xr.Dataset, types: npt.NDArray[np.str_] | None) -> xr.Dataset:
    """Give pathways numbers by their commonest type, the first by alphabet among equals."""
    if types is None:
        return found
    pathway = found["pathway"].values

    def commonest(number: int) -> str:
        names, count = np.unique(types[pathway == number], return_counts=True)
        return str(names[count.argmax()])

    order = sorted(range(pathway.max() + 1), key=commonest)
    return found.assign(pathway=found["pathway"].copy(data=np.argsort(order)[pathway]))


def _standard(correlation: Floats) -> Floats:
    """Give every mode mean 0 and standard deviation 1 over cells, (..., cell, mode)."""
    deviation = correlation.std(axis=-2, keepdims=True)
    # a mode with the same r for all cells does not separate them
    scale = np.where(deviation > 0, deviation, 1.0)
    standard: Floats = (correlation - correlation.mean(axis=-2, keepdims=True)) / scale
    return standard


def _own_features(
    own: xr.Dataset, correlation: xr.DataArray, blocks: tuple[Floats, Integers] | None
) -> tuple[Floats, Floats | None]:
    """Square roots of the shares of modes, (cell, mode), also over the windows in drawn blocks."""
    same = [np.array_equal(own[dim].values, correlation[dim].values) for dim in ("cell", "mode")]
    if not all(same) or not np.isfinite(own["share"]).all():
        raise RetinaCodecError(
            "own contributions must be those of these cells and modes, and no cell without any; "
            f"got {own.sizes['cell']} cells and {own.sizes['mode']} modes for {correlation.shape}. "
            "Run own_contributions() on these modes, or use description='correlation'."
        )
    features = np.sqrt(own["share"].transpose("cell", "mode").values)
    if blocks is None:
        return features, None
    begins, drawn = blocks
    piece = np.searchsorted(begins, own["window_time"].values, side="right") - 1
    weight = np.where(piece < drawn.shape[1], drawn[:, np.minimum(piece, drawn.shape[1] - 1)], 0)
    loading = own["own_loading"].transpose("cell", "window", "mode").values.astype(np.float64)
    total = np.einsum("bw,cwm->bcm", weight, loading, optimize=True)
    whole = total.sum(axis=-1, keepdims=True)
    share = np.divide(total, whole, out=np.zeros_like(total), where=whole > 0)
    return features, np.sqrt(share)


def _usable(rate: xr.DataArray | None) -> bool:
    """Say whether recorded rates are there, finite, and vary in every cell."""
    if rate is None or not np.isfinite(rate).all():
        return False
    dim = next(str(dim) for dim in rate.dims if dim != "cell")
    return bool((rate.max(dim) > rate.min(dim)).all())


def _correlation(rate: xr.DataArray, loading: xr.DataArray, layer: str) -> xr.DataArray:
    """Correlate every cell with every mode, (cell, mode); a constant one is an error naming it."""
    dim = str(loading.dims[0])
    for what, values, each in (("rates", rate, "cell"), ("loadings", loading, "mode")):
        array = values.transpose(dim, each).values
        finite = np.isfinite(array).all(axis=0)
        if not finite.all():
            names = values[each].values[~finite].tolist()
            raise RetinaCodecError(
                f"{what} must be finite to correlate them; those of {each} {names} of layer "
                f"{layer!r} are not. Leave these times or cells out."
            )
        constant = array.max(axis=0) == array.min(axis=0)
        if constant.any():
            names = values[each].values[constant].tolist()
            raise RetinaCodecError(
                f"{what} must vary in time to have a correlation; {each} {names} (layer "
                f"{layer!r}) is constant. Leave it out of the network, or explain a longer "
                "recording."
            )
    correlation = pearson(rate, loading, dim).transpose("cell", "mode")
    return correlation.assign_attrs(units="1", long_name="Pearson r of rate and loading")


def _agreement(
    groupings: dict[str, list[xr.Dataset]], types: npt.NDArray[np.str_] | None
) -> xr.Dataset:
    """Compare the groupings of layers, of kinds of rates, and with known types."""
    names = list(groupings)
    first = {name: groupings[name][0] for name in names}
    known = np.zeros(0, bool) if types is None else types != UNKNOWN
    found: dict[str, list[Any]] = {
        "agreement": [[_compare(a, b) for b in first.values()] for a in first.values()]
    }
    missing = np.full(3, np.nan)
    kinds = np.zeros(0, int) if types is None else np.unique(types[known], return_inverse=True)[1]
    if len(set(kinds.tolist())) > 1:  # one type agrees with no grouping, by chance or not
        found["type_agreement"] = [_compare(one, kinds, known) for one in first.values()]
    else:
        found["type_agreement"] = [missing for _ in names]
    if all(len(each) > 1 for each in groupings.values()):
        found["recorded_agreement"] = [
            _compare(groupings[name][0], groupings[name][1]) for name in names
        ]
    words = "adjusted Rand index"
    result = xr.Dataset(
        coords={"layer": names, "other_layer": names, "bound": ["low", "high"]},
        attrs={"cells_of_known_type": int(known.sum())},
    )
    for name, rows in found.items():
        values = np.array(rows, dtype=np.float64)
        dims = ("layer", "other_layer")[: values.ndim - 1]
        result[name] = (dims, values[..., 0], {"units": "1", "long_name": words})
        result[f"{name}_interval"] = (
            (*dims, "bound"),
            values[..., 1:],
            {"units": "1", "long_name": f"{words}, middle 95 % over resamples"},
        )
    return result


def _compare(
    one: xr.Dataset, other: xr.Dataset | Integers, known: npt.NDArray[np.bool_] | None = None
) -> Floats:
    """Compare two groupings; (index, lower, upper), NaN ends where nothing is resampled."""
    keep = np.ones(one.sizes["cell"], bool) if known is None else known
    fixed = other["pathway"].values[keep] if isinstance(other, xr.Dataset) else other
    value = adjusted_rand(one["pathway"].values[None, keep], fixed)
    if "resampled_pathway" not in one:
        return np.array([value[0], np.nan, np.nan])
    again = other["resampled_pathway"].values[:, keep] if isinstance(other, xr.Dataset) else fixed
    ends = percentiles(adjusted_rand(one["resampled_pathway"].values[:, keep], again))
    return np.array([value[0], *ends])
