"""Scores as `score_modes` gives them, written by hand."""

import numpy as np
import xarray as xr

BASELINES = ("modes", "NMF", "PCA", "raw channels", "frozen decoder", "frozen encoder")


def scores(seed: int = 0, network: bool = True) -> xr.Dataset:
    """Return scores of two starts at two limits, four modes asked of the network."""
    random = np.random.default_rng(seed)
    pairs = ("mode_match", "mode_match_null", "loading_match", "loading_match_null", "collisions")
    limit_seed = ("limit", "seed")
    found = xr.Dataset(
        {
            "r2": (limit_seed, random.random((2, 2))),
            "mean_active": (limit_seed, random.random((2, 2))),
            "live_modes": (limit_seed, random.integers(3, 9, (2, 2))),
            "limit_own": ((), 3),
            "baseline_r2": (("baseline", "seed"), random.random((7, 2))),
            **{name: ("pair", random.random(1)) for name in pairs},
        },
        coords={"limit": [1, 3], "seed": [0, 1], "baseline": [*BASELINES, "shuffled data"]},
        attrs={"seeds": 2, "first_seed": 0},
    )
    if network:
        for name in ("insertion_gain", "deletion_gain", "effect"):
            found[name] = ("mode", random.random(4))
            found[f"{name}_interval"] = (("mode", "bound"), np.sort(random.random((4, 2)), 1))
        found["noise_r2"], found["noise_match"] = ((), random.random()), ((), random.random())
    return found


def scored(results: xr.DataTree, **layers: xr.Dataset) -> xr.DataTree:
    """Return a copy of results with these scores."""
    tree = results.copy()
    for name, score in layers.items():
        tree[f"layers/{name}/score"] = xr.DataTree(score)
    return tree
