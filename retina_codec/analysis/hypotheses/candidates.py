"""Find the sets of channels that an experiment could silence, from modes and pathways.

Modes of one layer with the same strong channels make one candidate.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.probing.interventions import Silencing
from retina_codec.probing.retina.hidden import LAYERS
from retina_codec.storage.results import layers_of, modes_at

__all__ = [
    "Candidate",
    "gather_candidates",
    "join_candidates",
    "strong_channels",
    "whole_interneuron",
]

Floats = npt.NDArray[np.float64]
Key = tuple[str, tuple[int, ...], str]


@dataclass
class Candidate:
    """Channels of one layer to silence, with the modes and pathways in which they are strong."""

    silencing: Silencing
    weight: Floats  # (channel,), sums to 1
    modes: list[int] = field(default_factory=list)
    pathways: list[int] = field(default_factory=list)
    loading: xr.DataArray | None = None  # (time,), of a single mode or pathway
    support: str = ""  # all modes and pathways with the same experiment

    @property
    def labels(self) -> list[str]:
        """Return the channels as "conv1/3"."""
        return [f"{self.silencing.layer}/{channel}" for channel in self.silencing.channels]

    @property
    def source(self) -> str:
        """Return the first mode, or else pathway, as "conv1 mode 3"."""
        word, numbers = ("mode", self.modes) if self.modes else ("pathway", self.pathways)
        return f"{self.silencing.layer} {word} {numbers[0]}"


def strong_channels(dictionary: Floats, share: float) -> tuple[tuple[int, ...], Floats]:
    """Return the strong channels of a mode (sign, channel), in rising order, and their weights.

    ``n_c = √(Σ_sign D[sign, c]²)``; strong are the channels with ``n_c ≥ share · max n``; their
    weight is n over the sum of n of the strong ones. None for a mode of zeros.
    """
    norm = np.sqrt((np.asarray(dictionary, dtype=np.float64) ** 2).sum(axis=0))
    if not norm.max() > 0:
        return (), np.zeros(0)
    chosen = np.flatnonzero(norm >= share * norm.max())
    return tuple(int(channel) for channel in chosen), norm[chosen] / norm[chosen].sum()


def gather_candidates(
    modes: xr.DataTree,
    pathways: xr.DataTree | None,
    *,
    share: float,
    kinds: Mapping[str, str] | None = None,
    apart: bool = False,
) -> list[Candidate]:
    """Collect the distinct sets of strong channels of modes and pathways, by layer and first mode.

    A pathway has strong channels as a mode does, with the dictionary
    ``Σ_mode w_mode · D_mode / ‖D_mode‖``, w_mode = max(0, mean over its cells of r[cell, mode]),
    and has the loading ``Σ_mode w_mode · ‖D_mode‖ · z_mode(t)``.

    Layers other than the first two convolutions are left out. ``share`` see `strong_channels`;
    ``kinds`` names the interneuron of each channel ("conv1/3"): an experiment silences one type at
    a time, so the strong channels of a mode become one candidate for each type. ``apart``: every
    mode and pathway has candidates of its own, with its loading; modes of constant parts
    (``origin``, see `decompose`) have no events and none.
    """
    if not 0 < share <= 1:
        raise RetinaCodecError(f"share must lie in (0, 1]; got {share}.")
    found: dict[Key, Candidate] = {}
    for layer in layers_of(modes, part="modes", among=LAYERS):
        node = modes_at(modes, layer)
        loading = _loading(node, layer) if apart else None
        origin = node["origin"].values if "origin" in node.coords else None
        named = [
            ("mode", *mode)
            for place, mode in enumerate(_modes(node["dictionary"]))
            if not apart or origin is None or origin[place] != "constant"
        ]
        paths = _pathways(node["dictionary"], _table(pathways, layer))
        for word, number, values, weight in [*named, *(("pathway", *path) for path in paths)]:
            owner = f"{word} {number}" if apart else ""
            for candidate in _add(found, layer, values, share, kinds, owner):
                (candidate.modes if word == "mode" else candidate.pathways).append(number)
                if loading is not None:
                    candidate.loading = loading.dot(weight, dim="mode")
    if not found:
        raise RetinaCodecError("every mode is zero; there is nothing to silence. Fit them again.")
    return list(found.values())


def whole_interneuron(
    candidate: Candidate, matches: xr.Dataset, kinds: Mapping[str, str]
) -> Silencing:
    """Return all channels that resemble the interneuron of a candidate, in the best layer.

    That is the layer of the channel with the largest r (`match_interneurons`) among those of the
    same kind (`name_channels`). The candidate's own channels if these resemble no interneuron.
    """
    kind = kinds.get(candidate.labels[0], "")
    if not kind:
        return candidate.silencing
    alike = [channel for channel, name in kinds.items() if name == kind]
    r = matches["type_correlation"].sel(channel=alike, interneuron_type=kind)
    layer = str(r["layer"].values[int(r.values.argmax())])
    number = r["number"].values[r["layer"].values == layer]
    return Silencing(layer, tuple(sorted(int(channel) for channel in number)))


def join_candidates(group: Sequence[Candidate]) -> Candidate:
    """Join candidates for the same experiment; channels, weights and loading of the first stay.

    ``modes`` and ``pathways`` are those of its layer, ``support`` lists those of all layers.
    """
    lead = group[0]
    words, own = [], {"modes": lead.modes, "pathways": lead.pathways}
    for layer in LAYERS:
        here = [candidate for candidate in group if candidate.silencing.layer == layer]
        for word in ("modes", "pathways"):
            numbers = sorted({number for candidate in here for number in getattr(candidate, word)})
            if numbers:
                words.append(f"{layer} {word} {', '.join(map(str, numbers))}")
            if layer == lead.silencing.layer:
                own[word] = numbers
    return replace(lead, modes=own["modes"], pathways=own["pathways"], support="; ".join(words))


def _add(
    found: dict[Key, Candidate],
    layer: str,
    values: Floats,
    share: float,
    kinds: Mapping[str, str] | None,
    owner: str,
) -> Iterable[Candidate]:
    """Return the candidates of these weights, new or known."""
    channels, weight = strong_channels(values, share)
    of_channel = [kinds.get(f"{layer}/{channel}", "") if kinds else "" for channel in channels]
    for kind in dict.fromkeys(of_channel):
        kept = [i for i, name in enumerate(of_channel) if name == kind]
        group = tuple(channels[i] for i in kept)
        part = weight[kept] / weight[kept].sum()
        yield found.setdefault((layer, group, owner), Candidate(Silencing(layer, group), part))


def _modes(dictionary: xr.DataArray) -> Iterable[tuple[int, Floats, xr.DataArray]]:
    """Yield number, weights (sign, channel), and the share of every loading (mode,)."""
    values = dictionary.transpose("mode", "sign", "channel")
    labels = values["mode"].values
    for number, weights in zip(labels.tolist(), values.values, strict=True):
        yield number, weights, xr.DataArray((labels == number).astype(float), {"mode": labels})


def _loading(node: xr.Dataset, layer: str) -> xr.DataArray:
    """Return loadings (time, mode) of a layer."""
    if "loading" not in node or set(node["loading"].dims) != {"time", "mode"}:
        raise RetinaCodecError(
            f"the events of modes need loadings (time, mode); those of {layer} are "
            f"{node['loading'].dims if 'loading' in node else 'missing'}. Use when='always'."
        )
    return node["loading"].astype(np.float64)


def _table(pathways: xr.DataTree | None, layer: str) -> xr.Dataset:
    """Correlations and groups of a layer, empty where there are none."""
    node = pathways
    for name in ("layers", layer, "pathways"):
        node = None if node is None else node.children.get(name)
    return xr.Dataset() if node is None else node.to_dataset()


def _pathways(
    dictionary: xr.DataArray, table: xr.Dataset
) -> Iterable[tuple[int, Floats, xr.DataArray]]:
    """Yield number, weights (sign, channel) and share of every loading of each pathway."""
    if "pathway" not in table:
        return
    correlation, labels = table["correlation"], dictionary["mode"].values
    dictionary = dictionary.sel(mode=correlation["mode"].values)  # without constant ones
    values = dictionary.transpose("mode", "sign", "channel").values.astype(np.float64)
    norm = np.sqrt((values**2).sum(axis=(1, 2), keepdims=True))
    scaled = values / np.where(norm > 0, norm, 1.0)
    for number in np.unique(table["pathway"].values):
        r = correlation.transpose("cell", "mode").values[table["pathway"].values == number]
        weight = np.maximum(r.mean(axis=0), 0.0)
        share = xr.DataArray(weight * norm[:, 0, 0], {"mode": dictionary["mode"].values})
        share = share.reindex(mode=labels, fill_value=0.0)
        yield int(number), np.einsum("m,msc->sc", weight, scaled), share
