"""How much of the variance of held-out inputs modes rebuild, with its interval.

Why this file exists: the R² of a scorecard is one number; whether it lies above another needs to
know what other images might have given. It fits nothing.
"""

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.analysis.layer_samples import input_dim
from retina_codec.analysis.resampling import percentiles
from retina_codec.errors import RetinaCodecError

__all__ = ["rebuilt_variance"]

Floats = npt.NDArray[np.float64]


def rebuilt_variance(
    tree: xr.DataTree, layer: str, *, bootstraps: int = 1000, seed: int = 0
) -> xr.Dataset:
    """Explained variance of held-out inputs, ``R² = 1 − Σ_i,f (x − x̂)² / Σ_i,f (x − x̄_f)²``.

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
    node = tree["layers"].children.get(layer) if "layers" in tree.children else None
    if node is None or "modes" not in node.children:
        raise RetinaCodecError(f"layer {layer!r} has no modes here; run decompose() for it first.")
    modes = node["modes"].to_dataset()
    dim = input_dim(modes["loading"])
    held = np.flatnonzero(modes["split"].values == "held_out")
    if len(held) < 2:
        raise RetinaCodecError(f"R² needs at least two held-out inputs; got {len(held)}.")
    signs = str(modes.attrs.get("signs", "")).split(",") if modes.attrs.get("signs") else None
    values = node["contribution"].isel({dim: held})
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
