"""Measure the change of a number from the first layer to the last, with its interval.

All layers see the same inputs, so intervals of single layers cannot test a trend.

Notation: L layers of one kind, v (L,) a number per layer, w (L,) weights.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.analysis.layers.dimensionality import jackknife_error, left_out, measure
from retina_codec.analysis.layers.statistics import MEASURES, GatheredLayer, gather_layer
from retina_codec.errors import RetinaCodecError
from retina_codec.progress import progress_bar
from retina_codec.statistics.resampling import mean_and_error, percentiles, resampled_means
from retina_codec.storage.results import QUANTITIES, layer_sites, layers_of

__all__ = ["depth_trends", "trend_weights"]

Floats = npt.NDArray[np.float64]


def trend_weights(layers: int) -> Floats:
    """Return w with ``w · v`` the change from first to last layer along the line fitted to v.

    ``w_l = (L − 1)(l − l̄) / Σ (l − l̄)²``; a line from a to b gives b − a.
    """
    depth = np.arange(layers) - (layers - 1) / 2
    return np.asarray((layers - 1) * depth / np.square(depth).sum())


def depth_trends(
    tree: xr.DataTree,
    *,
    labels: Any = None,
    layers: str | Sequence[str] | None = None,
    variance: float = 0.95,
    bootstraps: int = 1000,
    class_draws: int = 200,
    seed: int = 0,
    progress: bool | None = None,
) -> xr.Dataset:
    """Measure the change of sparsity, sign correlation and dimensionality over the layers.

    ``Σ_l w_l v_l``: the change along the straight line fitted to the numbers v of the layers of
    one site; see `measure_contributions` for the numbers and `trend_weights` for w.

    Parameters
    ----------
    tree : xr.DataTree
        Results of `contribute` with `ChannelSums`.
    labels, variance, bootstraps, class_draws, seed, progress
        See `measure_contributions`.
    layers : str or sequence of str, optional
        In order of depth. All when left out.

    Returns
    -------
    xr.Dataset, dims (site, quantity[, bound])
        ``sparsity`` and ``sign_correlation`` (site), with ``..._interval``: 95 %, bootstrap over
        inputs, which are drawn for all layers at once. With labels ``components`` and
        ``participation_ratio``, their intervals ± 1.96 standard errors of the delete-d jackknife
        over classes, left out of all layers at once. ``layers`` (site), their number.

    Raises
    ------
    RetinaCodecError
        If a site has fewer than two layers.

    References
    ----------
    Melander et al. 2026, CODEC, section 3: contributions rise in sparsity and dimensionality and
    their signs decorrelate. Shao, Wu 1989, Ann. Statist. 17:1176, the delete-d jackknife.
    """
    names = layers_of(tree, layers)
    kinds = layer_sites(tree, names)
    sites = list(dict.fromkeys(kinds))
    for site in sites:
        if kinds.count(site) < 2:
            raise RetinaCodecError(
                f"a trend needs two layers or more; there is one {site or 'layer'} in {names}."
            )
    found = [
        gather_layer(tree, name, labels)
        for name in progress_bar(names, description="trends", progress=progress)
    ]
    groups = [[one for one, kind in zip(found, kinds, strict=True) if kind == s] for s in sites]
    data = _of_inputs(groups, bootstraps, seed)
    if found[0].classes:
        data |= _of_classes(groups, variance, class_draws, seed)
    data["layers"] = ("site", [len(group) for group in groups], {"units": "count"})
    return xr.Dataset(
        data,
        coords={"site": sites, "quantity": list(QUANTITIES), "bound": ["low", "high"]},
        attrs={"bootstraps": bootstraps, "seed": seed, "variance": variance},
    )


def _of_inputs(groups: list[list[GatheredLayer]], bootstraps: int, seed: int) -> dict[str, Any]:
    """Label trends of numbers of single inputs: (site, 5), the last one the sign correlation."""
    trends = [
        np.tensordot(trend_weights(len(group)), np.stack([one.values for one in group]), 1)
        for group in groups
    ]  # each (input, 5); NaN where an input has none in some layer
    flat = np.concatenate(trends, 1)
    mean = mean_and_error(flat)[0].reshape(len(groups), -1)
    ends = percentiles(resampled_means(flat, bootstraps, seed)).reshape(len(groups), -1, 2)
    two, three = ("site", "quantity"), ("site", "quantity", "bound")
    about = {"units": "1", "long_name": "change from first to last layer"}
    return {
        "sparsity": (two, mean[:, :-1], about),
        "sparsity_interval": (three, ends[:, :-1], about),
        "sign_correlation": ("site", mean[:, -1], about),
        "sign_correlation_interval": (("site", "bound"), ends[:, -1], about),
    }


def _of_classes(
    groups: list[list[GatheredLayer]], variance: float, draws: int, seed: int
) -> dict[str, Any]:
    """Label trends of numbers of class averages."""
    kept, scale = left_out(len(groups[0][0].classes), draws, seed)
    whole = np.empty((len(groups), len(QUANTITIES), 2))
    error = np.empty_like(whole)
    for row, group in enumerate(groups):
        weights = trend_weights(len(group))
        for column, name in enumerate(QUANTITIES):
            all_layers = [measure(one.means[name], variance, kept, scale) for one in group]
            whole[row, column] = weights @ np.stack([one.whole for one in all_layers])
            parts = np.tensordot(weights, np.stack([one.parts for one in all_layers]), 1)
            error[row, column] = jackknife_error(parts, scale)
    data: dict[str, Any] = {}
    for number, name in enumerate(MEASURES):
        middle, half = whole[..., number], 1.96 * error[..., number]
        about = {"units": "1", "long_name": "change from first to last layer"}
        data[name] = (("site", "quantity"), middle, about)
        ends = np.stack([middle - half, middle + half], -1)
        data[f"{name}_interval"] = (("site", "quantity", "bound"), ends, about)
    return data
