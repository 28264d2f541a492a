"""Results of a contribution run with classes that some features know of."""

import numpy as np
import xarray as xr

SIGNS = ["inhibitory", "excitatory"]


def planted(seed=0, samples=200, classes=5, features=12, known=3, strength=3.0, layers=("one",)):
    """Sparse features; feature k < known is larger for class k. Also the tree that holds them."""
    random = np.random.default_rng(seed)
    labels = np.array([f"c{i % classes}" for i in range(samples)])
    nodes = {}
    for name in layers:
        kinds = []
        for _ in range(4):
            values = random.gamma(0.3, size=(samples, features))
            values *= random.random((samples, features)) < 0.3
            for k in range(known):
                values[labels == f"c{k}", k] += strength * random.random((labels == f"c{k}").sum())
            kinds.append(values)
        plus, minus, active, loading = kinds
        nodes[f"/layers/{name}"] = xr.Dataset(
            {
                "contribution": (("sample", "sign", "channel"), np.stack([-minus, plus], 1)),
                "activation": (("sample", "channel"), active),
            },
            coords={
                "sign": SIGNS,
                "channel": np.arange(features),
                "sample": np.arange(samples) + 7,
                "label": ("sample", labels),
            },
        )
        nodes[f"/layers/{name}/modes"] = xr.Dataset(
            {"loading": (("sample", "mode"), loading)},
            coords={"mode": np.arange(features) * 10},
        )
    return xr.DataTree.from_dict(nodes)
