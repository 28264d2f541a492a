"""Compare two analyses: their modes, and the cells that the modes group, each against a null.

Notation: A, B two results; c (mode of A, mode of B) Pearson r of loadings, or cosine of modes.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.analysis.pathways.pathways import find_pathways
from retina_codec.errors import RetinaCodecError
from retina_codec.modes.base import Decomposition, decomposition_of
from retina_codec.modes.decompose import decompose
from retina_codec.modes.decompositions.sparse_autoencoder import SparseAutoencoder
from retina_codec.modes.scores import stability
from retina_codec.statistics.kmeans import adjusted_rand
from retina_codec.statistics.resampling import (
    block_bins,
    draw_blocks,
    percentiles,
    resample_correlations,
)
from retina_codec.storage.results import layers_of

__all__ = ["compare_halves", "reproducibility", "shifted_copies"]

Floats = npt.NDArray[np.float64]
Compared = Literal["loading", "dictionary"]
Pair = tuple[xr.Dataset, xr.Dataset]
LEAST_SHIFT = 0.1  # of the length, so that a shifted copy has nothing of the one it is compared to
BLOCK = 2.0  # s of time drawn as one piece
RESAMPLES = 100


def reproducibility(
    one: xr.DataTree,
    other: xr.DataTree,
    *,
    layers: Sequence[str] | None = None,
    compare: Compared | None = None,
    null: Sequence[xr.DataTree] = (),
    draws: int = 199,
    seed: int = 0,
) -> xr.Dataset:
    """Say how far two analyses agree, layer by layer, beside what chance gives.

    Modes are matched one to one for the largest sum of c; ``modes`` is the mean c of those that
    explain 95 %, both ways averaged; one without a partner counts as 0. ``pathways`` is the
    adjusted Rand index of the two groupings of cells. ``similarity`` is Pearson r over pairs of
    cells between how alike they are in A and in B (cosine of their descriptions by modes), which
    needs no number of groups.

    Parameters
    ----------
    one, other : xr.DataTree
        Results with ``/layers/<name>/modes`` and, where they exist, ``/layers/<name>/pathways`` and
        ``own``: of two parts of a recording, of networks fitted from other seeds, of a network with
        shuffled weights.
    layers : sequence of str, optional
        All that have modes in both when left out.
    compare : {"loading", "dictionary"}, optional
        What tells whether two modes are the same. "loading" needs the same times, "dictionary" the
        same channels, that is the same network. When left out: loadings if the times agree.
    null : sequence of xr.DataTree
        Further results in the place of ``other`` in which nothing but chance agrees with ``one``,
        as `shifted_copies` makes them; needed for the p value of dictionaries.
    draws : int
        Of each null: loadings of B moved in time together, which keeps their autocorrelation, by
        up to a quarter of the length either way (p compares the middle half of A with as many
        samples of B at each shift); cells of B dealt anew.
    seed : int
        Of nulls and blocks.

    Returns
    -------
    xr.Dataset, dims (layer, quantity, bound)
        ``agreement`` (layer, quantity), quantity "modes", "pathways", "similarity"; NaN where one
        of the two has none; ``null_mean``, ``null_high`` (95th percentile), ``p_value`` = (1 +
        number of null values at least as large) / (1 + draws); ``interval`` (layer, quantity,
        bound) for modes by loadings, middle 95 % over resampled blocks of 2 s. ``modes`` (layer,
        result) counts them. ``compared`` (layer) says by what modes were compared.

    Raises
    ------
    RetinaCodecError
        No common layer with modes; modes that cannot be compared, with the reason.

    References
    ----------
    Hubert and Arabie 1985, J. Classification 2:193. Künsch 1989, Ann. Stat. 17:1217. Phipson and
    Smyth 2010 (p of permutations).
    """
    if draws < 1:
        raise RetinaCodecError(f"draws must be at least 1; got {draws}.")
    mine, theirs = (layers_of(tree, layers, part="modes") for tree in (one, other))
    common = [name for name in mine if name in theirs]
    if not common:
        raise RetinaCodecError(
            f"both results must have modes in a common layer; they have {mine} and {theirs}. "
            "Decompose the same layers of both."
        )
    rows: list[xr.Dataset] = []
    for name in common:
        pair = one["layers"].children[name], other["layers"].children[name]
        both = pair[0]["modes"].to_dataset(), pair[1]["modes"].to_dataset()
        kind = compare or _kind(both, name)
        further = [tree["layers"].children[name]["modes"].to_dataset() for tree in null]
        random = np.random.default_rng([seed, len(rows)])
        found = {
            "modes": _by_dictionaries(both, name, further)
            if kind == "dictionary"
            else _by_loadings(both, draws, random),
            "pathways": _pathways(*pair, draws, random),
            "similarity": _similarity(*pair, draws, random),
        }
        row = xr.concat(list(found.values()), xr.Variable("quantity", list(found)))
        row["compared"] = ((), kind)
        row["modes"] = ("result", [modes.sizes["mode"] for modes in both])
        rows.append(row)
    result = xr.concat(rows, xr.Variable("layer", common))
    return result.assign_coords(result=["one", "other"], bound=["low", "high"]).assign_attrs(
        draws=draws, seed=seed
    )


def compare_halves(
    results: xr.DataTree,
    *,
    layers: Sequence[str] | None = None,
    clusters: Iterable[int] = range(2, 9),
    copies: int = 3,
    gap: int = 40,
    seed: int = 0,
    progress: bool | None = None,
) -> xr.Dataset:
    """Find modes and pathways in each half of the time alone, and compare them.

    Contributions of both halves are decomposed with the settings of the results; modes are compared
    by their dictionaries beside those of shifted copies of the second half, groupings of cells (by
    correlations with the modes of each half) beside cells dealt anew.

    Parameters
    ----------
    results : xr.DataTree
        With ``/layers/<name>/modes`` in order of time, and ``/responses`` for pathways.
    layers : sequence of str, optional
        All that have modes when left out.
    clusters : iterable of int
        Numbers of pathways to try, see `find_pathways`.
    copies : int
        Shifted copies; at least 1.
    gap : int
        Samples between the halves, which would share stimulus history.
    seed : int
        Of decompositions, k-means and nulls.
    progress : bool, optional
        See `retina_codec.progress.progress_bar`.

    Returns
    -------
    xr.Dataset
        As `reproducibility`; attribute ``samples``, those of each half. No pathways (NaN) where
        cells cannot be grouped.

    Raises
    ------
    RetinaCodecError
        Results too short for two halves, no copies, and what `decompose` refuses.
    """
    names = layers_of(results, layers, part="modes")
    attrs = results["layers"].children[names[0]]["modes"].attrs
    dim = str(results["layers"].children[names[0]]["contribution"].dims[0])
    length = results["layers"].children[names[0]].sizes[dim]
    count = (length - gap) // 2
    if count < 2 * max(gap, 1):
        raise RetinaCodecError(
            f"two halves need {2 * max(gap, 1)} samples each beside a gap of {gap}; there are "
            f"{length} samples. Explain a longer part."
        )
    if copies < 1:
        raise RetinaCodecError(f"copies must be at least 1; got {copies}. Use 3.")
    decomposition = decomposition_of({str(key): value for key, value in attrs.items()})
    how: dict[str, Any] = {
        "signs": attrs["signs"].split(",") if "signs" in attrs else None,
        "held_out": float(attrs["held_out"]),
        "gap": gap,
        "progress": progress,
    }
    halves = []
    for part in (slice(0, count), slice(length - count, None)):
        nodes = {
            f"/layers/{name}": results["layers"].children[name].to_dataset().isel({dim: part})
            for name in names
        }
        if "responses" in results.children:
            nodes["/responses"] = results["responses"].to_dataset().isel({dim: part})
        half = decompose(xr.DataTree.from_dict(nodes), decomposition, **how)
        halves.append(_with_pathways(half, clusters, seed))
    null = shifted_copies(halves[1], decomposition, layers=names, copies=copies, seed=seed, **how)
    found = reproducibility(*halves, layers=names, compare="dictionary", null=null, seed=seed)
    return found.assign_attrs(samples=count, copies=copies)


def _with_pathways(half: xr.DataTree, clusters: Iterable[int], seed: int) -> xr.DataTree:
    """Group cells by correlations, where they can be grouped."""
    if "responses" not in half.children:
        return half
    try:
        return find_pathways(
            half, description="correlation", clusters=clusters, resamples=2, seed=seed,
            progress=False,
        )  # fmt: skip
    except RetinaCodecError:
        return half


def shifted_copies(
    tree: xr.DataTree,
    decomposition: Decomposition | None = None,
    *,
    layers: Sequence[str] | None = None,
    signs: str | Sequence[str] | None = None,
    held_out: float = 0.25,
    gap: int = 40,
    copies: int = 5,
    seed: int = 0,
    progress: bool | None = None,
) -> list[xr.DataTree]:
    """Decompose copies of contributions in which only chance goes together.

    Every feature is moved in time, in a circle, by its own amount: it keeps its distribution and
    its autocorrelation, and no two features keep what they had in common.

    Parameters
    ----------
    tree : xr.DataTree
        Results of `contribute`, in order of time.
    decomposition : Decomposition, optional
        The default of `decompose` when left out.
    layers : sequence of str, optional
        All when left out.
    signs, held_out, gap
        See `decompose`: those of the modes that the copies are compared with.
    copies : int
    seed : int
        Of the movements.
    progress : bool, optional
        Of `decompose`.

    Returns
    -------
    list of xr.DataTree
        With ``/layers/<name>/modes``: the ``null`` of `reproducibility`.

    Raises
    ------
    RetinaCodecError
        As `decompose`.
    """
    random = np.random.default_rng(seed)
    found = []
    for _ in range(copies):
        nodes = {}
        for name in layers_of(tree, layers):
            layer = tree["layers"].children[name].to_dataset()
            own = layer["contribution"].copy(deep=True)
            flat = own.values.reshape(own.shape[0], -1)
            for column in range(flat.shape[1]):
                flat[:, column] = np.roll(flat[:, column], _shift(len(flat), random))
            moved = own.copy(data=flat.reshape(own.shape))
            nodes[f"/layers/{name}"] = moved.to_dataset(name="contribution")
        whole = xr.DataTree.from_dict(nodes)
        found.append(
            decompose(
                whole, decomposition or SparseAutoencoder(), signs=signs, held_out=held_out,
                gap=gap, progress=progress,
            )
        )  # fmt: skip
    return found


def _shift(length: int, random: np.random.Generator) -> int:
    least = max(1, int(LEAST_SHIFT * length))
    return int(random.integers(least, max(least + 1, length - least)))


def _kind(both: Pair, layer: str) -> Compared:
    """Return by what two sets of modes can be compared."""
    one, other = both
    dims = [str(modes["loading"].dims[0]) for modes in both]
    same = dims[0] == dims[1] and np.array_equal(one[dims[0]].values, other[dims[0]].values)
    if same:
        return "loading"
    features = [modes["dictionary"].shape[1:] for modes in both]
    if features[0] == features[1]:
        return "dictionary"
    raise RetinaCodecError(
        f"modes of {layer!r} must have the same times or the same channels to be compared; got "
        f"{one.sizes[dims[0]]} and {other.sizes[dims[1]]} times and channels {features[0]} and "
        f"{features[1]}. Explain the same part of the recording with both networks."
    )


def _leading_agreement(likeness: Floats, one: xr.Dataset, other: xr.Dataset) -> float:
    shares = []
    for modes in (one, other):
        loading = modes["loading"].values.astype(np.float64)
        length = np.linalg.norm(modes["dictionary"].values.reshape(loading.shape[1], -1), axis=1)
        shares.append((loading**2).sum(axis=0) * length**2)
    return stability.agreement(likeness, *shares).leading


def _by_dictionaries(both: Pair, layer: str, null: Sequence[xr.Dataset]) -> xr.Dataset:
    """Agreement by cosines of modes; the null are modes of other data."""
    flat = [_flat(modes) for modes in both]
    if flat[0].shape[1] != flat[1].shape[1]:
        raise RetinaCodecError(
            f"modes of {layer!r} must have the same channels to be compared by dictionaries; got "
            f"{flat[0].shape[1]} and {flat[1].shape[1]} features. Compare loadings."
        )
    value = _leading_agreement(stability.cosine(*flat), *both)
    chance = [
        _leading_agreement(stability.cosine(flat[0], _flat(each)), both[0], each) for each in null
    ]
    return _row(value, np.array(chance))


def _flat(modes: xr.Dataset) -> Floats:
    """Return modes (mode, feature)."""
    return modes["dictionary"].values.reshape(modes.sizes["mode"], -1).astype(np.float64)


def _by_loadings(both: Pair, draws: int, random: np.random.Generator) -> xr.Dataset:
    """Agreement by correlations of loadings; the null moves those of one in time."""
    dim = str(both[0]["loading"].dims[0])
    one, other = (modes["loading"].transpose(dim, "mode").values.astype(float) for modes in both)
    value = _leading_agreement(stability.correlation(one, other), *both)
    length = len(one)
    most = length // 4  # every shift compares as many samples, none of them twice
    middle = one[most : length - most]

    def moved(by: int) -> float:
        beside = other[most + by : length - most + by]
        return _leading_agreement(stability.correlation(middle, beside), *both)

    shifts = np.unique(np.rint(np.linspace(-most, most, draws + 1)).astype(int))
    chance = np.array([moved(int(by)) for by in shifts if by])
    interval = None
    time = both[0][dim].values
    if time.dtype.kind == "f" and length > 20:
        bins = block_bins(time, min(BLOCK, float(time[-1] - time[0]) / 11))
        drawn = draw_blocks(length, bins, RESAMPLES, int(random.integers(2**31)))
        again = resample_correlations(one, other, drawn, bins)
        again = np.where(np.isfinite(again), again, 0.0)
        interval = percentiles(np.array([_leading_agreement(each, *both) for each in again]))
    return _row(value, chance, interval, tested=moved(0))


def _row(
    value: float,
    by_chance: Floats,
    interval: Floats | None = None,
    tested: float | None = None,
) -> xr.Dataset:
    chance = by_chance[np.isfinite(by_chance)]
    known = np.isfinite(value) and len(chance) > 0
    tested = value if tested is None else tested
    return xr.Dataset(
        {
            "agreement": ((), value, {"units": "1"}),
            "null_mean": ((), chance.mean() if known else np.nan, {"units": "1"}),
            "null_high": ((), np.quantile(chance, 0.95) if known else np.nan, {"units": "1"}),
            "p_value": (
                (),
                (1 + (chance >= tested).sum()) / (1 + len(chance)) if known else np.nan,
                {"units": "1"},
            ),
            "interval": ("bound", np.full(2, np.nan) if interval is None else interval),
        }
    )


def _grouped(layer: xr.DataTree) -> xr.Dataset | None:
    return layer["pathways"].to_dataset() if "pathways" in layer.children else None


def _common(one: xr.DataArray, other: xr.DataArray) -> tuple[list[int], list[int]] | None:
    """Rows of the cells that both have; None for fewer than 3."""
    names = [cells.values.astype(str).tolist() for cells in (one, other)]
    both = [name for name in names[0] if name in names[1]]
    if len(both) < 3:
        return None
    return [names[0].index(name) for name in both], [names[1].index(name) for name in both]


def _pathways(
    one: xr.DataTree, other: xr.DataTree, draws: int, random: np.random.Generator
) -> xr.Dataset:
    """Compare groupings by the adjusted Rand index, cells of one dealt anew as the null."""
    mine, theirs = _grouped(one), _grouped(other)
    rows = None if mine is None or theirs is None else _common(mine["cell"], theirs["cell"])
    if mine is None or theirs is None or rows is None:
        return _row(np.nan, np.zeros(0))
    groups = mine["pathway"].values[rows[0]], theirs["pathway"].values[rows[1]]
    dealt = np.stack([groups[1], *(random.permutation(groups[1]) for _ in range(draws))])
    found = adjusted_rand(np.broadcast_to(groups[0], dealt.shape), dealt)
    return _row(float(found[0]), found[1:])


def _similarity(
    one: xr.DataTree, other: xr.DataTree, draws: int, random: np.random.Generator
) -> xr.Dataset:
    """Pearson r over pairs of cells of their likeness in both, cells of one dealt anew."""
    mine, theirs = _description(one), _description(other)
    rows = None if mine is None or theirs is None else _common(mine["cell"], theirs["cell"])
    if mine is None or theirs is None or rows is None or len(rows[0]) < 4:
        return _row(np.nan, np.zeros(0))
    alike = [
        stability.cosine(values[few], values[few])
        for values, few in zip((mine.values, theirs.values), rows, strict=True)
    ]
    above = np.triu_indices(len(rows[0]), 1)

    def r(order: npt.NDArray[Any]) -> float:
        return float(np.corrcoef(alike[0][above], alike[1][np.ix_(order, order)][above])[0, 1])

    cells = np.arange(len(rows[0]))
    return _row(r(cells), np.array([r(random.permutation(cells)) for _ in range(draws)]))


def _description(layer: xr.DataTree) -> xr.DataArray | None:
    """Describe cells by modes: square roots of shares in their drive, or r; centred over cells."""
    if "own" in layer.children:
        found = layer["own"].to_dataset()["share"].transpose("cell", "mode") ** 0.5
    elif (pathways := _grouped(layer)) is not None:
        found = pathways["correlation"].transpose("cell", "mode")
    else:
        return None
    centred: xr.DataArray = found - found.mean("cell")
    return centred
