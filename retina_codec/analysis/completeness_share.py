"""Which share of the change of the target do contributions miss, with its interval.

Why this file exists: relative errors of single inputs are dominated by inputs whose target hardly
changes; the share over all inputs says how well contributions add up as a whole, and carries an
interval. The errors themselves come from `contribute`.
"""

from typing import Any

import numpy as np
import xarray as xr

from retina_codec.analysis.input_resampling import resampled_means
from retina_codec.analysis.layer_samples import chosen_layers
from retina_codec.analysis.resampling import percentiles

__all__ = ["completeness_share"]


def completeness_share(tree: xr.DataTree, *, bootstraps: int = 1000, seed: int = 0) -> xr.Dataset:
    """Mean absolute completeness error over mean absolute change of the target.

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
    names = chosen_layers(tree)
    share, ends = np.full(len(names), np.nan), np.full((len(names), 2), np.nan)
    for number, name in enumerate(names):
        layer: Any = tree["layers"].children[name].to_dataset()
        cuts = str(layer.attrs.get("completeness", "holds")).startswith("holds")
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
