"""Correlate modes, channels and activations with classes and superclasses."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.analysis.concepts.correlations import Correlated, correlate, resample_pairs
from retina_codec.analysis.concepts.summaries import Levels, label_summaries, summaries_of
from retina_codec.analysis.concepts.table import (
    checked_table,
    chunks_of,
    concept_table,
    features_of,
    kinds_of,
    layers_for,
)
from retina_codec.errors import RetinaCodecError
from retina_codec.nulls import q_values
from retina_codec.progress import progress_bar
from retina_codec.statistics.resampling import percentiles
from retina_codec.storage.results import layer_dataset, layer_sites, layers_of

__all__ = ["activation_tree", "concept_table", "correlate_concepts"]

Floats = npt.NDArray[np.float64]

SIGNS = ("excitatory", "inhibitory", "net")


def activation_tree(tree: xr.DataTree, layers: str | Sequence[str] | None = None) -> xr.DataTree:
    """Put activations in the place of contributions, so that `decompose` finds activation modes.

    Excitatory max(A, 0), inhibitory min(A, 0), A averaged over space as `contribute` keeps it.

    Parameters
    ----------
    tree : xr.DataTree
        Results of `contribute`; not modified.
    layers : str or sequence of str, optional
        All when left out; other layers are left out.

    Returns
    -------
    xr.DataTree
        ``/layers/<name>``: ``contribution`` (sample, sign, channel), which are activations, and
        ``activation``; modes and completeness are left out. Attribute
        ``decomposed`` of a layer: "activations".

    Raises
    ------
    RetinaCodecError
        If there are no such layers.

    References
    ----------
    Melander et al. 2026, CODEC, Fig. 5 and S7 (activation modes).
    """
    nodes: dict[str, xr.Dataset] = {"/": xr.Dataset(attrs=dict(tree.attrs))}
    if "responses" in tree.children:
        nodes["/responses"] = tree.children["responses"].to_dataset(inherit=False)
    for name in layers_of(tree, layers):
        layer = layer_dataset(tree, name)
        a = layer["activation"]
        signs = layer["contribution"]["sign"]
        parts = [a.clip(max=0) if sign == "inhibitory" else a.clip(min=0) for sign in signs.values]
        split = xr.concat(parts, signs).transpose(*layer["contribution"].dims)
        attrs = {"units": a.attrs.get("units", "1"), "long_name": "activation by sign"}
        about = {k: v for k, v in tree[f"layers/{name}"].attrs.items() if k != "completeness"}
        nodes[f"/layers/{name}"] = xr.Dataset(
            {"contribution": split.assign_attrs(attrs), "activation": a},
            attrs=about | {"decomposed": "activations"},
        )
    return xr.DataTree.from_dict(nodes)


def correlate_concepts(
    tree: xr.DataTree,
    concepts: xr.DataArray | None = None,
    *,
    of: str | Sequence[str] = ("modes", "contributions", "activations"),
    activation_modes: xr.DataTree | None = None,
    sign: str = "excitatory",
    layers: str | Sequence[str] | None = None,
    threshold: float = 0.2,
    permutations: int = 200,
    false_discovery: float = 0.05,
    bootstraps: int = 500,
    seed: int = 0,
    progress: bool | None = None,
) -> xr.DataTree:
    """Correlate loadings, channels and activations with classes and superclasses.

    Pearson r of every feature with the binary mask of every concept, over samples.

    Parameters
    ----------
    tree : xr.DataTree
        Results of `decompose` (or `contribute`, without "modes"), in memory or in a file.
    concepts : xr.DataArray of bool, (sample, concept), optional
        From `concept_table`; classes by the coordinate ``label`` of the results when left out.
    of : str or sequence of str
        Features: "modes" (loadings), "contributions" (of channels), "activations" (of channels).
    activation_modes : xr.DataTree, optional
        ``decompose(activation_tree(tree), method)``: adds "activation_modes".
    sign : {"excitatory", "inhibitory", "net"}
        Of the contributions of channels.
    layers : str or sequence of str, optional
        All that hold every kind of features when left out: those with modes, unless ``of`` leaves
        modes out.
    threshold : float
        From which r on a feature and a concept count as correlated.
    permutations : int
        P, shuffles of the labels (whole rows of the table: which concepts go together stays).
    false_discovery : float
        Largest q of a feature that counts as significant.
    bootstraps : int
        Draws for intervals.
    seed : int
    progress : bool, optional
        None shows a bar after 2 s, False never, True at once.

    Returns
    -------
    xr.DataTree
        ``/summary``, dims (layer, kind, level): ``concept_correlation``, mean over concepts of the
        largest r of any feature (Fig. S7G–I); ``feature_correlation``, mean over features of the
        largest r with any concept (Fig. 5D); ``correlated``, features with r > threshold for some
        concept; ``coverage``, share of concepts with r > threshold for some feature;
        ``significant``, features with ``feature_q_value`` ≤ false_discovery (all levels together;
        its null: features that reach the same p). Each with ``..._interval`` (95 %;
        bootstrap over concepts or features for the first two, Wilson's for counts and shares),
        ``..._null``, ``..._null_interval`` (mean and middle 95 % with shuffled labels) and
        ``..._p`` = (1 + #{null ≥ found}) / (1 + P). ``features``, those that vary. Along
        ``layer``: ``site``, where the results know it.

        ``/layers/<name>/<kind>``: ``correlation``, ``p_value``, ``q_value`` (feature, concept);
        ``feature_p_value``, ``feature_q_value`` (feature): correlated with any concept more than by
        chance, its smallest p against smallest ones of shuffled labels, q over features;
        ``best_feature``, ``best_correlation``, ``best_interval`` (concept): the feature with the
        largest r, and its interval over resampled samples, the pair held fixed. Features that do
        not vary, and concepts of no or all samples, have NaN. ``feature`` is the label of the
        mode or channel.

    Raises
    ------
    RetinaCodecError
        If something is missing, or samples do not fit.

    Notes
    -----
    p is one-sided (r larger than by chance) and comes from permutations of the labels, pooled over
    pairs once each r is measured by its own permutation law (see `correlations.correlate`);
    q is Benjamini and Hochberg's over all pairs of a layer and kind. Samples must be exchangeable,
    as images are and neighbouring times of a movie are not. The largest of many r is large
    by chance too, the more so the more features: compare with the null, not with 0. Modes are
    fitted without labels, so fitted samples may be used here.

    References
    ----------
    Melander et al. 2026, CODEC, section 4, Fig. 4 and 5; 10.5.2, Fig. S7G–I; Fig. S9. Benjamini,
    Hochberg 1995, J. R. Stat. Soc. B 57:289.
    """
    kinds = kinds_of(of, activation_modes)
    if sign not in SIGNS or permutations < 1 or bootstraps < 1 or not 0 < false_discovery < 1:
        raise RetinaCodecError(
            f"sign must be one of {', '.join(SIGNS)}, permutations and bootstraps at least 1 and "
            f"false_discovery in (0, 1); got {sign=}, {permutations=}, {bootstraps=}, "
            f"{false_discovery=}."
        )
    names = layers_for(tree, activation_modes, kinds, layers)
    jobs = [(name, kind) for name in names for kind in kinds]
    arrays = {job: features_of(tree, activation_modes, *job, sign) for job in jobs}
    first = arrays[jobs[0]]
    table = checked_table(tree, concepts, names[0], first)
    level = [str(one) for one in table["level"].values] if "level" in table.coords else []
    levels = Levels(level or ["class"] * table.sizes["concept"], threshold)
    member = table.transpose("sample", "concept").values.astype(bool)
    nodes: dict[str, xr.Dataset] = {}
    rows: dict[tuple[str, str], dict[str, Floats]] = {}
    for job in progress_bar(jobs, description="concepts", progress=progress):
        chunks = chunks_of(arrays[job], len(member))
        found = correlate(chunks, member, permutations, seed, levels.measure)
        data = _pairs(found, chunks, member, arrays[job], table, bootstraps, seed)
        nodes[f"/layers/{job[0]}/{job[1]}"] = data.assign_attrs(kind=job[1])
        rows[job] = summaries_of(found, data["feature_q_value"].values, levels, false_discovery,
                                 bootstraps, seed)  # fmt: skip
    summary = label_summaries(rows, names, list(kinds), levels)
    summary = summary.assign_coords(site=("layer", layer_sites(tree, names)))
    summary.attrs |= {
        "threshold": threshold,
        "permutations": permutations,
        "false_discovery": false_discovery,
        "bootstraps": bootstraps,
        "seed": seed,
        "sign": sign,
        "samples": len(member),
        "null": "labels shuffled over samples",
    }
    return xr.DataTree.from_dict({"/summary": summary} | nodes)


def _pairs(
    found: Correlated,
    chunks: Any,
    member: npt.NDArray[np.bool_],
    array: xr.DataArray,
    table: xr.DataArray,
    bootstraps: int,
    seed: int,
) -> xr.Dataset:
    """Label correlations, p, q, and the best feature of every concept."""
    r, p = found.correlation, found.p_value
    fine = np.isfinite(p)
    q, feature_q = q_values(p), q_values(found.feature_p)
    known: npt.NDArray[np.bool_] = np.any(fine, axis=0)
    best = np.where(fine, r, -np.inf).argmax(axis=0)
    largest = np.where(known, np.take_along_axis(r, best[None], 0)[0], np.nan)
    drawn = resample_pairs(chunks, member, best, bootstraps, seed)
    ends = np.full((len(known), 2), np.nan)
    some = known & np.isfinite(drawn).any(axis=0)
    ends[some] = percentiles(drawn[:, some], skip_missing=True)
    dim = "mode" if "mode" in array.dims else "channel"
    labels = array[dim].values
    pair, units = ("feature", "concept"), {"units": "1"}
    names = np.array([str(label) for label in labels[best]], dtype=object)
    names[~known] = ""
    return xr.Dataset(
        {
            "correlation": (pair, r, units | {"long_name": "Pearson r"}),
            "p_value": (pair, p, units | {"long_name": "p, labels permuted, one-sided"}),
            "q_value": (pair, q, units | {"long_name": "q, Benjamini-Hochberg over all pairs"}),
            "feature_p_value": ("feature", found.feature_p, units),
            "feature_q_value": ("feature", feature_q, units),
            "best_feature": ("concept", names.astype(str), {"long_name": f"{dim} with largest r"}),
            "best_correlation": ("concept", largest, units),
            "best_interval": (("concept", "bound"), ends, units),
        },
        coords={
            "feature": labels,
            "bound": ["low", "high"],
            **{str(key): one for key, one in table.coords.items() if one.dims == ("concept",)},
        },
        attrs={"feature_is": dim},
    )
