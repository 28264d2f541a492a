"""One image: activations and contributions of single units, as maps beside each other.

Why this file exists: an example that can be looked at says what the sums over channels stand for.
It measures nothing; for many images see `spatial_sparsity`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from retina_codec.contributions.engine import contribute
from retina_codec.contributions.methods import Method
from retina_codec.contributions.reduction import AllUnits
from retina_codec.contributions.targets import Target
from retina_codec.networks.adapter import Adapter

__all__ = ["unit_maps"]


def unit_maps(
    network: Adapter,
    picture: Any,
    *,
    target: Target,
    method: Method,
    layers: Sequence[str] | None = None,
    shown: int = 4,
    device: str | None = None,
) -> xr.DataTree:
    """Return the maps of the channels that contribute most to the answer to one image.

    Parameters
    ----------
    network : Adapter
    picture : xr.DataArray or tensor, (1, color, y, x)
    target, method
        See `contribute`.
    layers : sequence of str, optional
        Those of the network when left out.
    shown : int
        Channels of a layer, those with the largest ``|Σ_places C|``.
    device : str, optional

    Returns
    -------
    xr.DataTree
        Root: ``image`` (color, y, x) and ``prediction`` (output); ``target`` (). ``/layers/<n>``,
        numbered in the given order, with the layer's name in ``attrs["layer"]``: ``activation``
        and ``contribution`` (shown, row, column), tokens of patches laid out as they cut the image
        (a class token has no place and is left out); ``net`` (channel), contributions of all
        channels summed over places, all tokens included; ``target_change`` and
        ``completeness_error`` () where they are known. Contributions have the unit of the target.
    """
    tree = contribute(
        network,
        picture,
        target=target,
        method=method,
        layers=layers,
        reduction=AllUnits(),
        device=device,
        progress=False,
    )
    answer = tree["responses"].to_dataset().isel(sample=0)
    image = np.asarray(picture)[0]
    root = xr.Dataset(
        {
            "image": (("color", "y", "x"), image),
            "prediction": ("output", answer["prediction"].values),
            "target": ((), float(answer["target"]), dict(answer["target"].attrs)),
        },
        attrs=tree.attrs,
    )
    nodes = {"/": root}
    for place, (name, node) in enumerate(tree["layers"].children.items()):
        units = node.to_dataset().isel(sample=0)
        leading = network.leading_tokens(name)
        net = units["contribution"].values.reshape(units.sizes["channel"], -1).sum(1)
        order = np.argsort(-np.abs(net), kind="stable")[:shown]
        about = dict(units["contribution"].attrs)
        data: dict[str, Any] = {"net": ("channel", net, about)}
        for key in ("activation", "contribution"):
            places = ("shown", "row", "column")
            data[key] = (places, _laid_out(units[key], leading)[order], dict(units[key].attrs))
        for key in ("target_change", "completeness_error"):
            if key in units:
                data[key] = ((), float(units[key]), about)
        coords = {"channel": units["channel"].values, "shown": units["channel"].values[order]}
        nodes[f"/layers/{place}"] = xr.Dataset(data, coords=coords, attrs={"layer": name})
    return xr.DataTree.from_dict(nodes)


def _laid_out(units: xr.DataArray, leading: int) -> np.ndarray:
    """Return maps (channel, row, column); tokens that fill no square lie in one row."""
    values: np.ndarray = units.transpose("channel", ...).values
    if values.ndim != 2:
        return values
    values = values[:, leading:]
    side = round(values.shape[1] ** 0.5)
    return values.reshape(len(values), side if side * side == values.shape[1] else 1, -1)
