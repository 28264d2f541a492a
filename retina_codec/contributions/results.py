"""The labelled result of an analysis of contributions, and how complete it is.

Why this file exists: names of dims, coordinates and units are given here once, so that no later
step has to guess an order. It computes no contributions.
"""

import hashlib
from collections.abc import Hashable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import xarray as xr
from torch import nn

from retina_codec.contributions.reduction import SIGNS
from retina_codec.contributions.sources import Source
from retina_codec.contributions.targets import Surprisal, Target
from retina_codec.errors import RetinaCodecError

__all__ = ["completeness", "label", "state_hash", "versions"]


def completeness(tree: xr.DataTree) -> xr.Dataset:
    """Summarise how far contributions are from adding up to the change of the target.

    ``|Σ_j C_j − (F(x) − F(x′))| / |F(x) − F(x′)|`` for every input; its median and 95th
    percentile over inputs.

    Parameters
    ----------
    tree : xr.DataTree
        What `contribute` returned.

    Returns
    -------
    xr.Dataset, dims (layer)
        ``median`` and ``percentile_95``, dimensionless.

    Raises
    ------
    RetinaCodecError
        If the tree holds no layers.
    """
    layers = list(tree["layers"].children) if "layers" in tree.children else []
    if not layers:
        raise RetinaCodecError("the tree must hold /layers; pass what contribute() returned.")
    relative = []
    for name in layers:
        found = tree["layers"].children[name].to_dataset()
        error = np.abs(found["completeness_error"].values)
        change = np.abs(found["target_change"].values)
        with np.errstate(divide="ignore", invalid="ignore"):
            # An input at the baseline has neither change nor error: nothing is missing there.
            relative.append(np.where(error == 0, 0.0, error / change))
    attrs = {"units": "1", "method": "absolute completeness error over absolute target change"}
    return xr.Dataset(
        {
            "median": ("layer", np.median(relative, axis=1), attrs),
            "percentile_95": ("layer", np.percentile(relative, 95, axis=1), attrs),
        },
        coords={"layer": layers},
    )


def label(
    found: dict[str, np.ndarray],
    names: Sequence[str],
    source: Source,
    target: Target,
    cells: Sequence[Any] | None,
    settings: dict[str, Any],
) -> xr.DataTree:
    """Put dims, coordinates and units on what was found."""
    dim, inputs = source.dim, source.coords
    # Only a network that names its cells is known to put out rates.
    rate_units = {"units": "Hz" if cells is not None else "1"}
    units = rate_units if target.units == "Hz" else {"units": target.units}
    count = found["prediction"][0].size
    known = cells is not None and len(cells) == count
    cell: dict[Hashable, Any] = {"cell": list(cells or ()) if known else np.arange(count)}
    if source.types is not None:
        cell["type"] = ("cell", source.types)
    prediction = found["prediction"].reshape(-1, count)
    responses = xr.Dataset(
        {
            "prediction": ((dim, "cell"), prediction, {**rate_units, "long_name": "model rate"}),
            "target": (dim, found["target"], {**units, "long_name": "target F(x)"}),
        },
        coords={**inputs, **cell},
    )
    if source.rate is not None:
        recorded = source.rate.transpose("time", "cell")
        responses["rate"] = ((dim, "cell"), recorded.values, dict(recorded.attrs))
    if isinstance(target, Surprisal):
        responses = responses.assign_coords(other_cell=responses["cell"].values)
        responses["mean"] = ("cell", target.mean, {"units": "Hz"})
        responses["covariance"] = (("cell", "other_cell"), target.covariance, {"units": "Hz²"})
        responses["condition_number"] = ((), target.condition_number, {"units": "1"})
    nodes = {"/": xr.Dataset(attrs=settings), "/responses": responses}
    for name in names:
        contribution = found[f"{name}/contribution"]
        error, change = found[f"{name}/completeness_error"], found["target_change"]
        nodes[f"/layers/{name}"] = xr.Dataset(
            {
                "contribution": ((dim, "sign", "channel"), contribution, units),
                "activation": ((dim, "channel"), found[f"{name}/activation"], {"units": "1"}),
                "completeness_error": (dim, error, units),
                "target_change": (dim, change, {**units, "long_name": "F(x) - F(baseline)"}),
            },
            coords={
                **inputs,
                "sign": list(SIGNS),
                "channel": np.arange(contribution.shape[-1]),
            },
        )
    return xr.DataTree.from_dict(nodes)


def state_hash(network: nn.Module) -> str:
    """Return a SHA256 of all weights and buffers with their names."""
    digest = hashlib.sha256()
    for name, values in network.state_dict().items():
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(values.detach().cpu().numpy()).tobytes())
    return digest.hexdigest()


def versions() -> str:
    """Return the versions of the package and of what computed the numbers."""
    found = []
    for name in ("retina-codec", "torch", "numpy", "xarray"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} (not installed)")
    return ", ".join(found)
