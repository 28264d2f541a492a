"""Matrices of contributions (channel, image), ordered by class; pairs of excitation and inhibition.

Half of the images defines the order, the other half is shown: noise then shows no order.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.storage.results import class_codes, input_dim, layer_dataset, sample_labels

__all__ = ["channel_matrix", "sign_pairs"]

Floats = npt.NDArray[np.float64]


def channel_matrix(
    tree: xr.DataTree, layer: str, *, labels: Any = None, images: int = 400, channels: int = 128
) -> xr.Dataset:
    """Return net contributions of a layer, images sorted by class and channels by best class.

    Every second image of a class (the first, the third, ...) orders the channels: by the class
    to which they contribute most on average, then by how much. The others are shown.

    Parameters
    ----------
    tree : xr.DataTree
        Results of `contribute` with `ChannelSums`.
    layer : str
    labels : array-like of str, (sample,), optional
        The coordinate ``label`` of the results when left out. Inputs without a label take no part,
        and classes with one image are not shown.
    images, channels : int
        At most so many are returned, images spread evenly over the sorted ones, channels those
        with the largest mean size in the images that order.

    Returns
    -------
    xr.Dataset, dims (channel, image)
        ``contribution``, C⁺ + C⁻ in the unit of the target; coordinates ``label`` (image),
        ``sample`` (image), place among the inputs, and ``best`` (channel), the class that orders.

    Raises
    ------
    RetinaCodecError
        If there are no labels, or no class has two images.

    References
    ----------
    Melander et al. 2026, CODEC, section 2, Fig. 3A.
    """
    data = layer_dataset(tree, layer)
    dim = input_dim(data["contribution"])
    known = sample_labels(tree, labels, layer, int(data.sizes[dim]))
    if known is None:
        raise RetinaCodecError(
            "a matrix sorted by class needs labels; give labels=, one per input."
        )
    codes, names = class_codes(known)
    fine = np.flatnonzero(codes >= 0)
    order = fine[np.argsort(codes[fine], kind="stable")]
    starts = np.searchsorted(codes[order], np.arange(len(names)))
    odd = (np.arange(len(order)) - starts[codes[order]]) % 2 == 1
    judges, shown = order[~odd], order[odd]
    if not len(shown):
        raise RetinaCodecError(
            "a matrix needs classes with two images, one to order and one to show; every class "
            "has one. Explain more images."
        )
    shown = shown[np.unique(np.linspace(0, len(shown) - 1, images).round().astype(int))]
    net = data["contribution"].sum("sign").transpose("channel", dim)
    first = net.isel({dim: np.sort(judges)}).values.astype(np.float64)
    member = codes[np.sort(judges)][:, None] == np.arange(len(names))
    means = first @ (member / member.sum(axis=0))  # (channel, class)
    best = means.argmax(axis=1)
    large = np.sort(np.argsort(-np.abs(first).mean(axis=1), kind="stable")[:channels])
    rank = large[np.lexsort((-means[large, best[large]], best[large]))]
    values = net.isel(channel=rank).isel({dim: shown}).values
    return xr.Dataset(
        {"contribution": (("channel", "image"), values, dict(data["contribution"].attrs))},
        coords={
            "channel": data["channel"].values[rank],
            "best": ("channel", np.array(names)[best[rank]]),
            "label": ("image", known[shown]),
            "sample": ("image", shown),
        },
        attrs={"layer": layer, "channels": int(net.sizes["channel"]), "inputs": len(fine)},
    )


def sign_pairs(tree: xr.DataTree, layer: str, *, count: int = 2000, seed: int = 0) -> xr.Dataset:
    """Draw pairs (input, channel) and return excitation and inhibition, for a scatter plot.

    Returns
    -------
    xr.Dataset, dims (pair)
        ``excitatory`` and ``inhibitory`` (its size), in the unit of the target; ``input`` and
        ``channel``, their places. Pairs are drawn without replacement, at most ``count``.
    """
    data = layer_dataset(tree, layer)
    both = data["contribution"]
    dim = input_dim(both)
    inputs, channels = int(both.sizes[dim]), int(both.sizes["channel"])
    random = np.random.default_rng(seed)
    drawn = np.sort(random.choice(inputs * channels, min(count, inputs * channels), replace=False))
    row, column = np.divmod(drawn, channels)
    rows, back = np.unique(row, return_inverse=True)
    some = both.isel({dim: rows}).transpose(dim, "sign", "channel")
    about = dict(both.attrs)
    return xr.Dataset(
        {
            "excitatory": ("pair", some.sel(sign="excitatory").values[back, column], about),
            "inhibitory": ("pair", -some.sel(sign="inhibitory").values[back, column], about),
            "input": ("pair", row),
            "channel": ("pair", column),
        },
        attrs={"layer": layer, "seed": seed},
    )
