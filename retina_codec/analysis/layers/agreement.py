"""Compare runs of `contribute`: agreement of methods, completeness, explained variance."""

from collections.abc import Mapping, Sequence
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.progress import progress_bar
from retina_codec.statistics.correlation import paired_correlations
from retina_codec.statistics.resampling import mean_and_error, percentiles, resampled_means
from retina_codec.storage.results import input_dim, layer_dataset, layers_of, modes_at

__all__ = ["completeness_share", "method_agreement", "rebuilt_variance"]

Floats = npt.NDArray[np.float64]


def method_agreement(
    runs: Mapping[str, xr.DataTree],
    *,
    layers: str | Sequence[str] | None = None,
    bootstraps: int = 1000,
    seed: int = 0,
    progress: bool | None = None,
) -> xr.Dataset:
    """Correlate the channel contributions of every pair of runs on the same inputs.

    Pearson r over channels of C = C⁺ + C⁻, for every input on its own, averaged over inputs.

    Parameters
    ----------
    runs : dict of str to xr.DataTree
        Results of `contribute` with `ChannelSums`, by name; the same inputs and layers.
    layers : str or sequence of str, optional
        All when left out.
    bootstraps : int
        Draws of inputs.
    seed : int
    progress : bool, optional

    Returns
    -------
    xr.Dataset, dims (layer, run, other[, bound])
        ``correlation``, dimensionless, and ``correlation_interval`` (95 %, bootstrap over inputs);
        ``undefined``, inputs whose contributions are the same in all channels in one of the two.

    Raises
    ------
    RetinaCodecError
        If there are fewer than two runs, or inputs or channels differ.

    References
    ----------
    Melander et al. 2026, CODEC, section 2 and Fig. S1: methods and targets.
    """
    if len(runs) < 2:
        raise RetinaCodecError(f"agreement needs two runs or more; got {list(runs)}.")
    names = list(runs)
    known = layers_of(runs[names[0]], layers)
    shape = (len(known), len(names), len(names))
    middle, ends, undefined = np.empty(shape), np.empty((*shape, 2)), np.empty(shape, int)
    for place, layer in enumerate(progress_bar(known, description="agreement", progress=progress)):
        values = {name: _net(tree, layer) for name, tree in runs.items()}
        if len({one.shape for one in values.values()}) > 1:
            shapes = {name: one.shape for name, one in values.items()}
            raise RetinaCodecError(
                f"runs must have the same inputs and channels; in layer {layer!r} got {shapes}."
            )
        pairs = list(combinations_with_replacement(range(len(names)), 2))
        each = np.stack(
            [paired_correlations(values[names[a]], values[names[b]]) for a, b in pairs], 1
        )
        means = mean_and_error(each)[0]
        drawn = percentiles(resampled_means(each, bootstraps, seed))
        for number, (a, b) in enumerate(pairs):
            for row, column in ((a, b), (b, a)):
                middle[place, row, column], ends[place, row, column] = means[number], drawn[number]
                undefined[place, row, column] = (~np.isfinite(each[:, number])).sum()
    dims = ("layer", "run", "other")
    return xr.Dataset(
        {
            "correlation": (dims, middle, {"units": "1", "long_name": "mean Pearson r"}),
            "correlation_interval": ((*dims, "bound"), ends, {"units": "1"}),
            "undefined": (dims, undefined, {"units": "count"}),
        },
        coords={"layer": known, "run": names, "other": names, "bound": ["low", "high"]},
        attrs={"bootstraps": bootstraps, "seed": seed},
    )


def _net(tree: xr.DataTree, layer: str) -> np.ndarray:
    """Return C (input, channel)."""
    contribution = layer_dataset(tree, layer)["contribution"]
    dim = input_dim(contribution)
    return contribution.sum("sign").transpose(dim, "channel").values.astype(np.float64)


def completeness_share(tree: xr.DataTree, *, bootstraps: int = 1000, seed: int = 0) -> xr.Dataset:
    """Divide the mean absolute completeness error by the mean absolute change of the target.

    ``Σ_i |Σ_j C_ij − ΔF_i| / Σ_i |ΔF_i|`` over inputs i, with ΔF what contributions of the layer
    should sum to.

    Parameters
    ----------
    tree : xr.DataTree
        Results of `contribute`.
    bootstraps : int
        Draws of inputs.
    seed : int

    Returns
    -------
    xr.Dataset, dims (layer[, bound])
        ``share`` and ``share_interval`` (95 %, bootstrap over inputs), dimensionless; NaN for
        layers that do not cut the network, or if the sum is not known for this method.
    """
    names = layers_of(tree)
    share, ends = np.full(len(names), np.nan), np.full((len(names), 2), np.nan)
    for number, name in enumerate(names):
        layer: Any = tree["layers"].children[name].to_dataset()
        said = str(layer.attrs.get("completeness", "holds"))
        cuts = said.startswith(("holds", "not reached", "does not hold"))
        if "completeness_error" not in layer or not cuts:
            continue
        keys = ("completeness_error", "target_change")
        both = np.stack([np.abs(layer[key].values.astype(np.float64)) for key in keys], 1)
        if not np.isfinite(both).all() or not both[:, 1].sum() > 0:
            continue
        share[number] = both[:, 0].sum() / both[:, 1].sum()
        drawn = resampled_means(both, bootstraps, seed)
        ends[number] = percentiles(drawn[:, :1] / drawn[:, 1:])[0]
    about = {"units": "1", "long_name": "mean |error| over mean |change of the target|"}
    return xr.Dataset(
        {"share": ("layer", share, about), "share_interval": (("layer", "bound"), ends, about)},
        coords={"layer": names, "bound": ["low", "high"]},
        attrs={"bootstraps": bootstraps, "seed": seed},
    )


def rebuilt_variance(
    tree: xr.DataTree, layer: str, *, bootstraps: int = 1000, seed: int = 0
) -> xr.Dataset:
    """Compute the explained variance of held-out inputs.

    ``R² = 1 − Σ_i,f (x − x̂)² / Σ_i,f (x − x̄_f)²`` over inputs i and features f.

    Parameters
    ----------
    tree : xr.DataTree
        Results of `decompose`.
    layer : str
    bootstraps : int
        Draws of held-out inputs, each with feature means x̄_f of its own.
    seed : int

    Returns
    -------
    xr.Dataset
        ``r2`` (), the same as in the scorecard of the modes; ``r2_interval`` (bound), 95 %,
        bootstrap over held-out inputs, the modes held fixed; ``held_out`` (), their number.

    Raises
    ------
    RetinaCodecError
        If the layer has no modes, or fewer than two held-out inputs.

    Notes
    -----
    Inputs are drawn one by one, as is right for images; neighbouring times of a movie are alike,
    and the interval would be too narrow.
    """
    modes = modes_at(tree, layer)
    dim = input_dim(modes["loading"])
    held = np.flatnonzero(modes["split"].values == "held_out")
    if len(held) < 2:
        raise RetinaCodecError(f"R² needs at least two held-out inputs; got {len(held)}.")
    signs = str(modes.attrs.get("signs", "")).split(",") if modes.attrs.get("signs") else None
    values = tree[f"layers/{layer}/contribution"].isel({dim: held})
    dictionary = modes["dictionary"]
    if signs is not None:
        values, dictionary = values.sel(sign=signs), dictionary.sel(sign=signs)
    x = values.transpose(dim, "sign", "channel").values.astype(np.float64).reshape(len(held), -1)
    loading = modes["loading"].isel({dim: held}).transpose(dim, "mode").values.astype(np.float64)
    flat = dictionary.transpose("mode", "sign", "channel").values.astype(np.float64)
    left = np.square(x - loading @ flat.reshape(len(flat), -1)).sum(axis=1)
    x = x - x.mean(axis=0)  # of all: leaves R² as it is and keeps digits
    random = np.random.default_rng(seed)
    drawn = np.empty(bootstraps)
    for number in range(bootstraps):
        weight = np.bincount(random.integers(len(x), size=len(x)), minlength=len(x)).astype(float)
        drawn[number] = _r2(x, left, weight)
    return xr.Dataset(
        {
            "r2": ((), _r2(x, left, np.ones(len(x))), {"units": "1"}),
            "r2_interval": ("bound", percentiles(drawn[:, None])[0], {"units": "1"}),
            "held_out": ((), len(held), {"units": "count"}),
        },
        coords={"bound": ["low", "high"]},
        attrs={"bootstraps": bootstraps, "seed": seed},
    )


def _r2(x: Floats, left: Floats, weight: Floats) -> float:
    """R² of inputs with weights; Σ w (x − x̄)² = Σ w x² − (Σ w x)² / Σ w."""
    sums = weight @ x
    spread = weight @ np.square(x).sum(axis=1) - np.square(sums).sum() / weight.sum()
    return float(1 - weight @ left / spread) if spread > 0 else np.nan
