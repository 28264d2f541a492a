"""Which modes go with which cells, and the pathways that follow: cells driven by the same modes.

Why this file exists: a mode names hidden channels; correlated with the rates of the ganglion cells
it becomes a statement about a pathway through the retina. What it is not: a test of significance,
and not a use of the known cell types, which only judge the result.
"""

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.analysis.statistics import pearson
from retina_codec.errors import RetinaCodecError

__all__ = ["cluster_cells", "find_pathways"]

UNKNOWN = "unknown"

Floats = npt.NDArray[np.floating]
Integers = npt.NDArray[np.integer]


def find_pathways(
    tree: xr.DataTree,
    *,
    layers: Sequence[str] | None = None,
    rates: Literal["prediction", "rate"] = "prediction",
    clusters: Iterable[int] = range(2, 9),
    seed: int = 0,
) -> xr.DataTree:
    """Correlate modes with cells and group cells that go with the same modes.

    r[cell, mode] = Pearson correlation over time of the cell's rate with the mode's loading; each
    mode's column is standardised over cells (mean 0, standard deviation 1); k-means of the cells
    with 10 starts, k with the largest mean silhouette. Grouping of two layers, or of a layer and
    the known types, is compared by the adjusted Rand index (1 the same, 0 as by chance).

    Parameters
    ----------
    tree : xr.DataTree
        Results of `decompose`, with ``/responses`` (time, cell) Hz and ``/layers/<name>/modes``.
    layers : sequence of str, optional
        Which layers; all that have modes if left out.
    rates : {"prediction", "rate"}
        Correlate with the model's rates or with the recorded ones.
    clusters : iterable of int
        Numbers of pathways to try; those above the number of cells − 1 are left out.
    seed : int
        Of k-means.

    Returns
    -------
    xr.DataTree
        A copy with ``/layers/<name>/pathways``: ``correlation`` (cell, mode), dimensionless;
        ``pathway`` (cell), numbered from 0 in order of first cells; ``silhouette`` (k); the chosen
        k in ``attrs["k"]``. And ``/pathways``: ``agreement`` (layer, other_layer);
        ``type_agreement`` (layer), over cells of known type, NaN where fewer than 2 are known.

    Raises
    ------
    RetinaCodecError
        If layers have no modes, a cell or mode is constant or not finite, or no number of
        pathways can be tried.

    References
    ----------
    Melander et al. 2026, retina: mode–cell correlations and clusters (Figure 8). Rousseeuw 1987,
    silhouettes. Hubert, Arabie 1985, comparing partitions.
    """
    chosen = _layers_with_modes(tree, layers)
    responses = tree["responses"].to_dataset() if "responses" in tree.children else xr.Dataset()
    if rates not in ("prediction", "rate") or rates not in responses:
        raise RetinaCodecError(
            f"rates must be 'prediction' or 'rate' and lie in /responses; got {rates=}, /responses "
            f"holds {list(responses.data_vars) or 'nothing'}."
        )
    rate = responses[rates]
    result = tree.copy()
    pathway: dict[str, Integers] = {}
    for name in chosen:
        loading = tree[f"layers/{name}/modes"].to_dataset()["loading"]
        correlation = _correlation(rate, loading, name)
        values = correlation.values
        deviation = values.std(axis=0)
        deviation[deviation == 0] = 1.0  # a mode that treats all cells alike tells none apart
        pathway[name], silhouette = cluster_cells(
            (values - values.mean(axis=0)) / deviation, clusters, seed=seed
        )
        tried = list(silhouette)
        found = xr.Dataset(
            {
                "correlation": correlation,
                "pathway": ("cell", pathway[name], {"units": "1", "long_name": "pathway number"}),
                "silhouette": ("k", list(silhouette.values()), {"units": "1"}),
            },
            coords={"k": ("k", tried, {"long_name": "number of pathways"})},
            attrs={
                "method": "k-means of standardised mode correlations, k by silhouette",
                "k": int(pathway[name].max()) + 1,
                "rates": rates,
                "seed": seed,
            },
        )
        result[f"layers/{name}/pathways"] = xr.DataTree(found)
    types = responses["type"].values if "type" in responses.coords else None
    result["pathways"] = xr.DataTree(_agreement(pathway, types))
    return result


def cluster_cells(
    features: Floats, clusters: Iterable[int], *, seed: int = 0
) -> tuple[Integers, dict[int, float]]:
    """Group rows by k-means, the number of groups chosen by the mean silhouette.

    Parameters
    ----------
    features : array (cell, feature)
    clusters : iterable of int
        Numbers of groups to try, at least 2; those above cells − 1 are left out.
    seed : int

    Returns
    -------
    group : array of int (cell,), numbered from 0 in order of first members
    silhouette : dict
        Mean silhouette for each number tried; of equal ones the smallest number is chosen.

    Raises
    ------
    RetinaCodecError
        If no number can be tried.
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_score

    wanted = sorted(set(clusters))
    distinct = len(np.unique(features, axis=0))
    tried = [k for k in wanted if 2 <= k <= min(len(features) - 1, distinct)]
    if not tried:
        raise RetinaCodecError(
            f"clusters must hold a number from 2 to cells − 1; got {wanted} for {len(features)} "
            f"cells, {distinct} of them different. Record more cells, or try fewer pathways."
        )
    groups = {
        k: KMeans(k, n_init=10, random_state=seed).fit_predict(features).astype(np.int64)
        for k in tried
    }
    silhouette = {k: float(silhouette_score(features, groups[k])) for k in tried}
    group = groups[max(tried, key=silhouette.__getitem__)]
    _, first = np.unique(group, return_index=True)
    return np.argsort(np.argsort(first))[group], silhouette


def _layers_with_modes(tree: xr.DataTree, layers: Sequence[str] | None) -> list[str]:
    """Return the layers asked for, or all, that have modes."""
    nodes = tree["layers"].children if "layers" in tree.children else {}
    valid = [name for name, node in nodes.items() if "modes" in node.children]
    layers = [layers] if isinstance(layers, str) else layers
    chosen = valid if layers is None else list(layers)
    if not chosen or not set(chosen) <= set(valid):
        raise RetinaCodecError(
            f"layers must name layers with modes; got {chosen or 'none'}, with modes are "
            f"{valid or 'none'}. Run decompose() first."
        )
    return chosen


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


def _agreement(pathway: dict[str, Integers], types: npt.NDArray[np.str_] | None) -> xr.Dataset:
    """Compare the groupings of layers with each other and with known types."""
    from sklearn.metrics import adjusted_rand_score

    names = list(pathway)
    agreement = [[adjusted_rand_score(pathway[a], pathway[b]) for b in names] for a in names]
    with_types = np.full(len(names), np.nan)
    known = np.zeros(0, bool) if types is None else np.asarray(types).astype(str) != UNKNOWN
    if types is not None and known.sum() >= 2:
        with_types[:] = [
            adjusted_rand_score(np.asarray(types)[known], pathway[name][known]) for name in names
        ]
    attrs = {"units": "1", "long_name": "adjusted Rand index"}
    return xr.Dataset(
        {
            "agreement": (("layer", "other_layer"), np.array(agreement, dtype=float), attrs),
            "type_agreement": ("layer", with_types, attrs),
        },
        coords={"layer": names, "other_layer": names},
        attrs={"cells_of_known_type": int(known.sum())},
    )
