"""Trees of modes that hypotheses are compared with: wrong channels, wrong times, no modes."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from retina_codec.analysis.hypotheses.interneurons import name_channels
from retina_codec.analysis.hypotheses.silencing import silence_channels
from retina_codec.networks.retina.model import RetinaCNN
from retina_codec.probing.interventions import Silencing
from retina_codec.statistics.power import detectability


def of_activations(explained: xr.DataTree, layers: Sequence[str]) -> xr.DataTree:
    """Put activations, split by sign, in the place of contributions."""
    tree = explained.copy()
    for layer in layers:
        node = tree[f"layers/{layer}"].to_dataset()
        a = node["activation"]
        split = xr.concat([np.minimum(a, 0), np.maximum(a, 0)], node["sign"])
        split = split.transpose(*node["contribution"].dims)
        node["contribution"] = split.assign_attrs(node["contribution"].attrs)
        tree[f"layers/{layer}"] = xr.DataTree(node)
    return tree


def single(explained: xr.DataTree, layers: Sequence[str]) -> xr.DataTree:
    """Every channel and sign alone as a mode, the size of its contribution as loading."""
    tree = xr.DataTree.from_dict({"responses": explained["responses"].to_dataset()})
    for layer in layers:
        values = explained[f"layers/{layer}"].to_dataset()["contribution"]
        values = values.transpose("time", "sign", "channel")
        flat = np.abs(values.values).reshape(len(values), -1)
        shape = (-1, values.sizes["sign"], values.sizes["channel"])
        moving = flat.std(axis=0) > 0
        data = xr.Dataset(
            {
                "dictionary": (
                    ("mode", "sign", "channel"),
                    np.eye(flat.shape[1])[moving].reshape(shape),
                ),
                "loading": (("time", "mode"), flat[:, moving]),
            },
            coords={"time": values["time"].values, "mode": np.arange(int(moving.sum()))},
        )
        tree[f"layers/{layer}/modes"] = xr.DataTree(data)
    return tree


def exchanged(
    modes: xr.DataTree, layers: Sequence[str], random: np.random.Generator
) -> xr.DataTree:
    """Exchange the channels of every mode at random; its loading stays."""
    tree = modes.copy()
    for layer in layers:
        node = modes[f"layers/{layer}/modes"].to_dataset()
        values = node["dictionary"].transpose("mode", "sign", "channel")
        mixed = np.stack([d[:, random.permutation(d.shape[1])] for d in values.values])
        tree[f"layers/{layer}/modes"] = node.assign(dictionary=values.copy(data=mixed))
    return tree


def shifted(modes: xr.DataTree, layers: Sequence[str], random: np.random.Generator) -> xr.DataTree:
    """Rotate the loading of every mode by a random step of at least 5 s; its channels stay."""
    tree = modes.copy()
    for layer in layers:
        node = modes[f"layers/{layer}/modes"].to_dataset()
        values = node["loading"].transpose("time", "mode")
        steps = random.integers(500, len(values) - 500, values.sizes["mode"])
        moved = np.stack(
            [np.roll(z, step) for z, step in zip(values.values.T, steps, strict=True)], axis=1
        )
        tree[f"layers/{layer}/modes"] = node.assign(loading=values.copy(data=moved))
    return tree


def network_alone(
    network: RetinaCNN, split: xr.DataTree, matches: xr.Dataset, modes: xr.DataTree
) -> xr.DataTree:
    """One "mode" per interneuron and layer: its channels, loading the predicted Σ d² per bin."""
    kinds = name_channels(matches)
    tree = xr.DataTree.from_dict({"responses": modes["responses"].to_dataset()})
    for layer, count in zip(("conv1", "conv2"), network.channels, strict=True):
        of_kind: dict[str, list[int]] = {}
        for channel in range(count):
            of_kind.setdefault(kinds[f"{layer}/{channel}"], []).append(channel)
        of_kind.pop("", None)
        cuts = [Silencing(layer, tuple(channels)) for channels in of_kind.values()]
        answer = silence_channels(network, split, cuts, block=1 / network.frame_rate)
        d2 = detectability(answer["rate"].values, answer["silenced_rate"].values, 1.0)
        weights = np.zeros((len(cuts), 2, count))
        for row, cut in enumerate(cuts):
            weights[row, 1, list(cut.channels)] = 1
        data = xr.Dataset(
            {
                "dictionary": (("mode", "sign", "channel"), weights),
                "loading": (("time", "mode"), d2.sum(axis=2).T),
            },
            coords={"time": answer["time"].values, "mode": np.arange(len(cuts))},
        )
        tree[f"layers/{layer}/modes"] = xr.DataTree(data)
    return tree
