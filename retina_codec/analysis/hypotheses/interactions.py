"""Interactions: what silencing channels together changes beyond what each changes alone.

Notation: t times, n cells, λ_A(t, n) the rate (Hz) with the channels of A silenced, I interaction.
"""

from collections.abc import Iterable, Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr

from retina_codec.analysis.hypotheses.candidates import strong_channels
from retina_codec.analysis.hypotheses.effects import event_mask
from retina_codec.analysis.hypotheses.silencing import RestingAt, silence_channels
from retina_codec.errors import RetinaCodecError
from retina_codec.networks.retina.model import RetinaCNN
from retina_codec.probing.interventions import Cut, Silencing
from retina_codec.probing.retina.hidden import LAYERS
from retina_codec.statistics.power import repeats_needed
from retina_codec.storage.results import layers_of, modes_at

__all__ = ["groups_of_modes", "measure_interactions", "pair_scores"]

Floats = npt.NDArray[np.float64]
Channel = tuple[str, int]
AT_ONCE = 64  # silencings whose rates are held at a time
LARGEST = 4  # channels of a group


def measure_interactions(
    network: RetinaCNN,
    split: xr.Dataset | xr.DataTree,
    groups: Sequence[Sequence[Channel]],
    *,
    active: xr.DataArray | npt.ArrayLike | None = None,
    held_at: RestingAt = "grey",
    block: float | None = None,
    batch_size: int = 128,
    device: str | torch.device | None = None,
    progress: bool | None = None,
) -> xr.Dataset:
    """Silence channels alone and together; what is left is their interaction.

    ``I_G(t, n) = (λ_G − λ) − Σ_{c ∈ G} (λ_c − λ)``: 0 where the effects add up. The network answers
    exactly; nothing is approximated. An experiment that measures the k + 2 rates (nothing silenced,
    each of the k channels, all together), each with ``N`` repeats, sees I with
    ``d² = Ī² T / (λ̄_G + Σ_c λ̄_c + (k − 1)² λ̄)`` per repeat, means over the times that count,
    Poisson spikes.

    Parameters
    ----------
    network : RetinaCNN
    split : xr.Dataset or node of a recording
        With ``stimulus`` (time, y, x), raw intensities.
    groups : sequence of sequences of (layer, channel)
        Such as ``[(("conv1", 0), ("conv2", 3))]``: two to four distinct channels each, of one
        layer or both.
    active : array (group, time), optional
        Whether a time counts for a group, such as the events of its mode; all when left out. Its
        times are the last ones of the split, as in results.
    held_at : {"grey", "zero"}
        See `silence_channels`.
    block : float, optional
        s: rates are averaged over blocks of this length before anything else; one bin when left
        out. Must be one bin if ``active`` is given.
    batch_size : int
        Windows at a time.
    device : str or torch.device, optional
        Where to compute; where the network lies when left out.
    progress : bool, optional
        See `retina_codec.progress.progress_bar`.

    Returns
    -------
    xr.Dataset
        By (group, cell): ``interaction`` Ī, ``joint`` λ̄_G − λ̄ and ``apart`` Σ_c (λ̄_c − λ̄), Hz;
        ``size`` √mean_t I², Hz, which does not cancel over time; ``d2`` per repeat and ``repeats``
        of each condition for 80 % power at 5 %. By (group,): ``strength`` √Σ_n size², Hz, and
        ``repeats_together``, for all cells recorded at once (from Σ_n d²). ``group`` is text such
        as "conv1/0 + conv2/3"; NaN for a group without active times.

    Raises
    ------
    RetinaCodecError
        Groups that are not two to four distinct channels, unknown layers or channels, ``active``
        of another shape.
    """
    sets = [_checked(group) for group in groups]
    if not sets:
        raise RetinaCodecError("groups must hold at least one group of channels; got none.")
    if active is not None and block is not None:
        raise RetinaCodecError("block must be left out where active times are given, bin by bin.")
    singles = sorted({channel for group in sets for channel in group})
    cuts: list[Cut] = [Silencing(layer, (number,)) for layer, number in singles]
    step = 1 / network.frame_rate if block is None else block

    def silence(some: Sequence[Cut]) -> xr.Dataset:
        return silence_channels(
            network, split, some, block=step, held_at=held_at, batch_size=batch_size,
            device=device, progress=progress,
        )  # fmt: skip

    alone = silence(cuts)
    plain = alone["rate"].values.astype(np.float64)
    each = dict(zip(singles, alone["silenced_rate"].values, strict=True))
    counts = _active(active, len(sets), len(plain))
    different = list(dict.fromkeys(sets))
    rows: dict[int, dict[str, Floats]] = {}
    for start in range(0, len(different), AT_ONCE):
        some = different[start : start + AT_ONCE]
        together = silence([tuple(Silencing(a, (c,)) for a, c in group) for group in some])
        rates = dict(zip(some, together["silenced_rate"].values, strict=True))
        for place, group in enumerate(sets):
            if group in rates:
                kept = slice(None) if counts is None else counts[place]
                joint = rates[group][kept].astype(np.float64)
                parts = [each[channel][kept].astype(np.float64) for channel in group]
                rows[place] = _measure(plain[kept], parts, joint, step)
    return _table(sets, [rows[place] for place in range(len(sets))], alone, held_at)


def pair_scores(
    modes: xr.DataTree, channels: Sequence[Channel], layers: str | Sequence[str] | None = None
) -> xr.DataArray:
    """Score all pairs of channels by the modes: how far they move together in what modes rebuild.

    ``s(a, b) = |corr_t(ĉ_a, ĉ_b)|`` with ``ĉ_a(t) = Σ_i z_i(t) Σ_sign D[i, sign, a]``, the
    contribution of channel a that the modes of its layer rebuild. In the simulated retina this
    order finds strong interactions as early as the contributions themselves do and earlier than
    shared weights in modes (benchmarks/interactions.py).

    Parameters
    ----------
    modes : xr.DataTree
        From `decompose`.
    channels : sequence of (layer, channel)
        Between which pairs are made.
    layers : str or sequence of str, optional
        Whose modes are used; all that have modes when left out.

    Returns
    -------
    xr.DataArray (pair,)
        Without unit, 0 to 1; NaN where a channel is in no mode. ``pair`` is text as ``group`` in
        `measure_interactions`, in the order of `itertools.combinations`.

    Raises
    ------
    RetinaCodecError
        If a layer of the channels has no modes.
    """
    among = [layer for layer in layers_of(modes, layers, part="modes") if layer in LAYERS]
    missing = sorted({layer for layer, _ in channels} - set(among))
    if missing:
        raise RetinaCodecError(
            f"the layers of the channels must have modes; {', '.join(missing)} has none. Decompose "
            "it, or leave its channels out."
        )
    rebuilt: dict[str, Floats] = {}
    for layer in among:
        node = modes_at(modes, layer)
        dictionary = node["dictionary"].sum("sign").transpose("mode", "channel").values
        loading = node["loading"].transpose("time", "mode").values.astype(np.float64)
        rebuilt[layer] = loading @ dictionary.astype(np.float64)
    series = np.stack([rebuilt[layer][:, number] for layer, number in channels])
    series = series - series.mean(axis=1, keepdims=True)
    size = np.sqrt((series**2).sum(axis=1))
    unit = series / np.where(size > 0, size, np.nan)[:, None]
    score = np.minimum(np.abs(unit @ unit.T), 1.0)
    pairs = list(combinations(range(len(channels)), 2))
    return xr.DataArray(
        [score[i, j] for i, j in pairs],
        {"pair": [_label((channels[i], channels[j])) for i, j in pairs]},
        "pair",
        "score",
    )


def groups_of_modes(
    modes: xr.DataTree,
    *,
    share: float = 0.5,
    size: int = 2,
    duration: float = 0.1,
    layers: str | Sequence[str] | None = None,
) -> tuple[list[tuple[Channel, ...]], xr.DataArray]:
    """List the groups of strong channels of every mode, with the times at which the mode acts.

    Parameters
    ----------
    modes : xr.DataTree
        From `decompose`.
    share : float
        Channels are strong if their norm in the dictionary is at least this share of the largest.
    size : int
        Channels of a group.
    duration : float
        Share of the time at which a mode acts most: its events.
    layers : str or sequence of str, optional
        All that have modes when left out.

    Returns
    -------
    list of tuples of (layer, channel)
        A group may come once for each mode that holds it.
    xr.DataArray (group, time)
        True in the events; coordinates ``layer`` and ``mode`` (group,). Both are what
        `measure_interactions` takes.

    Raises
    ------
    RetinaCodecError
        If no mode has that many strong channels.
    """
    groups: list[tuple[Channel, ...]] = []
    masks, owner = [], []
    time: xr.DataArray | None = None
    for layer in layers_of(modes, layers, part="modes", among=LAYERS):
        node = modes_at(modes, layer)
        dictionary = node["dictionary"].transpose("mode", "sign", "channel")
        loading = node["loading"].transpose("time", "mode")
        time = loading["time"]
        for place, mode in enumerate(node["mode"].values.tolist()):
            strong, _ = strong_channels(dictionary.values[place], share)
            for chosen in combinations(strong, size):
                groups.append(tuple((layer, number) for number in chosen))
                masks.append(event_mask(loading.values[:, place], duration))
                owner.append((layer, mode))
    if not groups or time is None:
        raise RetinaCodecError(
            f"a mode must have {size} strong channels or more; none has. Give a smaller share than "
            f"{share}."
        )
    coords = {
        "group": [_label(group) for group in groups],
        "time": time,
        "layer": ("group", [layer for layer, _ in owner]),
        "mode": ("group", [mode for _, mode in owner]),
    }
    return groups, xr.DataArray(np.stack(masks), coords, ("group", "time"), "active")


def _label(group: Iterable[Channel]) -> str:
    return " + ".join(f"{layer}/{number}" for layer, number in group)


def _checked(group: Sequence[Channel]) -> tuple[Channel, ...]:
    channels = tuple((str(layer), int(number)) for layer, number in group)
    if not 2 <= len(channels) <= LARGEST or len(set(channels)) < len(channels):
        raise RetinaCodecError(
            f"a group must be two to {LARGEST} distinct channels, such as (('conv1', 0), "
            f"('conv2', 3)); got {tuple(group)}."
        )
    return channels


def _active(
    active: xr.DataArray | npt.ArrayLike | None, groups: int, bins: int
) -> npt.NDArray[np.bool_] | None:
    if active is None:
        return None
    values = np.asarray(
        active.transpose("group", "time") if isinstance(active, xr.DataArray) else active,
        dtype=bool,
    )
    if values.ndim != 2 or values.shape[0] != groups or values.shape[1] != bins:
        raise RetinaCodecError(
            f"active must have one row for each of {groups} groups and one column for each of "
            f"{bins} bins that have a whole history; got shape {values.shape}. Take the split that "
            "was explained."
        )
    return values


def _measure(
    plain: Floats, parts: Sequence[Floats], joint: Floats, step: float
) -> dict[str, Floats]:
    """Return the numbers of one group by cell; times are those that count."""
    if not len(plain):
        empty = np.full(plain.shape[1], np.nan)
        return dict.fromkeys(("interaction", "joint", "apart", "size", "d2"), empty)
    apart = np.sum([part - plain for part in parts], axis=0)
    interaction = joint - plain - apart
    variance = joint.mean(0) + np.sum([part.mean(0) for part in parts], axis=0)
    variance = variance + (len(parts) - 1) ** 2 * plain.mean(0)
    mean = interaction.mean(0)
    d2 = mean**2 * len(plain) * step / np.where(variance > 0, variance, np.inf)
    return {
        "interaction": mean,
        "joint": (joint - plain).mean(0),
        "apart": apart.mean(0),
        "size": np.sqrt(np.mean(interaction**2, axis=0)),
        "d2": d2,
    }


LONG = {
    "interaction": ("Hz", "mean change together beyond the sum of the changes apart"),
    "joint": ("Hz", "mean change of the rate, silenced together"),
    "apart": ("Hz", "sum of the mean changes, each silenced alone"),
    "size": ("Hz", "root mean square of the interaction over time"),
    "d2": ("1", "squared expected z-score of one repeat of each condition"),
}


def _table(
    sets: Sequence[Sequence[Channel]],
    rows: Sequence[dict[str, Floats]],
    answer: xr.Dataset,
    held_at: str,
) -> xr.Dataset:
    found = xr.Dataset(
        {
            name: (
                ("group", "cell"),
                np.stack([row[name] for row in rows]),
                {"units": units, "long_name": words},
            )
            for name, (units, words) in LONG.items()
        },
        {
            "group": [_label(group) for group in sets],
            "cell": answer["cell"],
            "type": answer["type"],
        },
        {"held_at": held_at, "block": answer.attrs["block"]},
    )
    found["repeats"] = found["d2"].copy(data=repeats_needed(found["d2"].values))
    found["repeats"].attrs = {"units": "1", "long_name": "repeats of each condition"}
    together = found["d2"].sum("cell", skipna=False)
    found["repeats_together"] = together.copy(data=repeats_needed(together.values))
    found["repeats_together"].attrs = {"units": "1", "long_name": "repeats, all cells together"}
    found["strength"] = np.sqrt((found["size"] ** 2).sum("cell", skipna=False))
    found["strength"].attrs = {"units": "Hz", "long_name": "size over all cells"}
    return found
