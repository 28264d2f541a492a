"""Spatial sparsity of contributions and activations of single units, and maps of channels.

Notation: n images, d channels, P places of a layer, v (d, P) contributions or activations.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr

from retina_codec.analysis.layers.sparsity import hoyer
from retina_codec.contributions.contribute import contribute
from retina_codec.errors import RetinaCodecError
from retina_codec.methods.base import Method
from retina_codec.networks.adapter import Adapter
from retina_codec.nulls import q_values
from retina_codec.progress import progress_bar
from retina_codec.reductions import AllUnits
from retina_codec.statistics.resampling import (
    flip_p_values,
    mean_and_error,
    percentiles,
    resampled_means,
)
from retina_codec.storage.results import layer_sites
from retina_codec.targets.base import Target

__all__ = ["SCOPES", "map_sparsity", "some_inputs", "spatial_sparsity", "unit_maps"]

Floats = npt.NDArray[np.float64]

QUANTITIES = ("contribution", "activation")
SCOPES = ("places", "units")


def spatial_sparsity(
    network: Adapter,
    inputs: Any,
    *,
    target: Target,
    method: Method,
    layers: str | Sequence[str] | None = None,
    batch_size: int = 16,
    bootstraps: int = 1000,
    seed: int = 0,
    device: str | None = None,
    progress: bool | None = None,
) -> xr.Dataset:
    """Measure the sparsity over places of contributions and activations of single units.

    Scope "places": Hoyer sparsity ``(√P − ‖v_c‖₁/‖v_c‖₂) / (√P − 1)`` of the map of every channel
    c, averaged over the channels whose maps are not zero in both quantities; scope "units": of all
    d · P units of the layer together.

    Parameters
    ----------
    network : Adapter
        See `adapt`.
    inputs : xr.DataArray (sample, ...) or a data set of torch
        Images as the network takes them.
    target, method
        See `contribute`.
    layers : str or sequence of str, optional
        Those of the network when left out. Layers with one place are refused.
    batch_size : int
        Images at a time; all their units are held at once (ResNet-50: 5.5 million an image).
    bootstraps : int
        Draws of images for intervals, and of signs for p.
    seed : int
    device : str, optional
    progress : bool, optional

    Returns
    -------
    xr.Dataset
        ``sparsity_by_input`` (sample, layer, scope, quantity), NaN where a map is zero everywhere;
        ``sparsity`` (layer, scope, quantity) and ``difference`` (layer, scope), contributions less
        activations of the same images, each with ``..._interval`` (95 %, bootstrap over images);
        ``p_value`` (layer, scope), two-sided, signs of differences flipped, and ``q_value``
        (Benjamini-Hochberg over layers and scopes); ``places`` (layer). Dimensionless. Along
        ``layer``: ``site``.

    Raises
    ------
    RetinaCodecError
        If there are fewer than two images, or a layer has no places.

    References
    ----------
    Melander et al. 2026, CODEC, section 2, Fig. 2B, D and Fig. S1A. Hoyer 2004, J. Mach. Learn.
    Res. 5:1457.
    """
    total = len(inputs)
    if total < 2 or batch_size < 1 or bootstraps < 1:
        raise RetinaCodecError(
            "spatial sparsity needs at least two images, and batch_size and bootstraps of at "
            f"least 1; got {total} images, {batch_size=}, {bootstraps=}."
        )
    found: list[Floats] = []
    names: list[str] = []
    places: list[int] = []
    sites: list[str] = []
    starts = range(0, total, batch_size)
    for start in progress_bar(starts, description="single units", progress=progress):
        tree = contribute(
            network,
            some_inputs(inputs, range(start, min(start + batch_size, total))),
            target=target,
            method=method,
            layers=layers,
            reduction=AllUnits(),
            device=device,
            progress=False,
        )
        names = list(tree["layers"].children)
        sites = layer_sites(tree, names)
        units = [tree[f"layers/{name}"].to_dataset() for name in names]
        places = [int(np.prod(one["activation"].shape[2:])) for one in units]
        if 1 in places:
            raise RetinaCodecError(
                f"every layer needs more than one place; {names[places.index(1)]!r} has one. "
                "Leave it out."
            )
        found.append(np.stack([_both(one) for one in units], 1))
    return _labelled(np.concatenate(found), names, sites, places, bootstraps, seed)


def _both(units: xr.Dataset) -> Floats:
    """Return the sparsity of the units of a layer, (sample, scope, quantity)."""
    values = [_maps(units[name]) for name in QUANTITIES]
    return np.stack(
        [
            np.stack(map_sparsity(*values), -1),
            np.stack([hoyer(one.reshape(len(one), -1)) for one in values], -1),
        ],
        1,
    )


def _maps(values: xr.DataArray) -> Floats:
    """Return (sample, channel, place)."""
    ordered = values.transpose("sample", "channel", ...).values.astype(np.float64)
    return ordered.reshape(*ordered.shape[:2], -1)


def map_sparsity(one: Floats, other: Floats) -> tuple[Floats, Floats]:
    """Average Hoyer sparsity of maps (n, d, P) over channels that both arrays have, (n,) each."""
    each = np.stack([hoyer(one), hoyer(other)])  # (2, n, d)
    fine = np.isfinite(each).all(axis=0)
    count = fine.sum(axis=1)
    sums = np.where(fine, each, 0.0).sum(axis=2)
    mean = np.divide(sums, count, out=np.full(sums.shape, np.nan), where=count > 0)
    return mean[0], mean[1]


def some_inputs(inputs: Any, chosen: Sequence[int]) -> Any:
    """Return some of the images, of an array or of a data set, as one array or tensor."""
    if hasattr(inputs, "isel"):
        return inputs.isel(sample=list(chosen))
    pictures = [inputs[int(number)] for number in chosen]
    return torch.stack([one[0] if isinstance(one, tuple) else one for one in pictures])


def _labelled(
    values: Floats,
    names: list[str],
    sites: list[str],
    places: list[int],
    bootstraps: int,
    seed: int,
) -> xr.Dataset:
    """Average over inputs, with intervals and tests."""
    shape = values.shape[1:]  # (layer, scope, quantity)
    gap = values[..., 0] - values[..., 1]
    columns = [part.reshape(len(values), -1) for part in (values, gap)]
    means = [mean_and_error(part)[0] for part in columns]
    ends = [percentiles(resampled_means(part, bootstraps, seed)) for part in columns]
    p = flip_p_values(columns[1], bootstraps, seed)
    q = q_values(p)
    dims = ("layer", "scope", "quantity")
    units = {"units": "1"}
    return xr.Dataset(
        {
            "sparsity_by_input": (("sample", *dims), values, units),
            "sparsity": (dims, means[0].reshape(shape), units),
            "sparsity_interval": ((*dims, "bound"), ends[0].reshape(*shape, 2), units),
            "difference": (dims[:2], means[1].reshape(shape[:2]), units),
            "difference_interval": ((*dims[:2], "bound"), ends[1].reshape(*shape[:2], 2), units),
            "p_value": (dims[:2], p.reshape(shape[:2]), units),
            "q_value": (dims[:2], q.reshape(shape[:2]), units),
            "places": ("layer", places, {"units": "count"}),
        },
        coords={
            "layer": names,
            "site": ("layer", sites),
            "scope": list(SCOPES),
            "quantity": list(QUANTITIES),
            "bound": ["low", "high"],
        },
        attrs={"bootstraps": bootstraps, "seed": seed, "null": "signs of differences flipped"},
    )


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
