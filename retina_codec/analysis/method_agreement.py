"""Do several ways to compute contributions say the same? Correlations, image by image.

Why this file exists: methods and targets have contributions in different units and of different
size, so that only their pattern over channels can be compared. It computes no contributions.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations_with_replacement

import numpy as np
import xarray as xr

from retina_codec.analysis.contribution_statistics import row_correlation
from retina_codec.analysis.input_resampling import mean_and_error, resampled_means
from retina_codec.analysis.layer_samples import chosen_layers, input_dim, layer_dataset
from retina_codec.analysis.resampling import percentiles
from retina_codec.errors import RetinaCodecError
from retina_codec.progress import progress_bar

__all__ = ["method_agreement"]


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
    known = chosen_layers(runs[names[0]], layers)
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
        each = np.stack([row_correlation(values[names[a]], values[names[b]]) for a, b in pairs], 1)
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
