"""Which channels to hold back for which concept: by modes, or by chance.

Why this file exists: control of a network through modes rests on two choices, the mode that goes
with a concept and the channels that lead in a mode. Both are made here, from labels and weights
alone. It runs no network.

Notation: c channels, m modes, k concepts.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.errors import RetinaCodecError

__all__ = ["Choice", "best_modes", "channel_counts", "channel_weights", "draw_orders", "keep_sets"]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Masks = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Choice:
    """Channels of one layer in the order in which they are taken, and why."""

    order: Integers  # (concept or draw, group)
    mode: Integers | None = None  # (concept, rank), numbers along the dim mode
    correlation: Floats | None = None  # (concept, rank), Pearson r


def best_modes(
    loading: Floats, member: npt.NDArray[np.bool_], count: int
) -> tuple[Integers, Floats]:
    """Find the modes whose loadings correlate most with each concept.

    Pearson r of every loading with the binary mask of the concept, over samples.

    Parameters
    ----------
    loading : array (sample, mode)
    member : array of bool (sample, concept)
    count : int
        How many modes of each concept.

    Returns
    -------
    mode : array of int (concept, rank)
        Largest r first. A loading that does not vary comes last.
    correlation : array (concept, rank)
        r; NaN for such a loading.
    """
    z = loading - loading.mean(0)
    y = member - member.mean(0)
    scale = np.sqrt((z**2).sum(0)[:, None] * (y**2).sum(0))  # (m, k)
    varies = (np.ptp(loading, axis=0) > 0)[:, None] & (scale > 0)
    r = np.divide(z.T @ y, scale, out=np.full_like(scale, -np.inf), where=varies).T  # (k, m)
    mode = np.argsort(-r, axis=1, kind="stable")[:, :count]
    found = np.take_along_axis(r, mode, 1)
    return mode, np.where(np.isfinite(found), found, np.nan)


def channel_weights(dictionary: xr.DataArray, mode: Integers, sign: str) -> Floats:
    """Sum the weights of some modes for every channel, of one sign or of both (net).

    Parameters
    ----------
    dictionary : xr.DataArray (mode, sign, channel)
    mode : array of int (concept, rank)
    sign : {"excitatory", "inhibitory", "net"}

    Returns
    -------
    array (concept, channel)
        Inhibitory weights are <= 0: of "inhibitory", the size.
    """
    ordered = dictionary.transpose("mode", "sign", "channel")
    if sign == "net":
        weight = ordered.sum("sign").values
    else:
        weight = np.abs(ordered.sel(sign=sign).values)
    found: Floats = weight.astype(np.float64)[mode].sum(1)
    return found


def draw_orders(weight: Floats, random: np.random.Generator) -> Integers:
    """Order channels by weight, the largest first, equal ones (those without) by chance.

    Parameters
    ----------
    weight : array (row, channel)
        All equal: a random order.
    """
    ties = random.permuted(np.tile(np.arange(weight.shape[1]), (len(weight), 1)), axis=1)
    found: Integers = np.lexsort((ties, -weight), axis=1)
    return found


def channel_counts(percentages: npt.ArrayLike, channels: int) -> Integers:
    """Return how many channels stand for each percentage: the nearest, at least 1, never all."""
    share = np.asarray(percentages, np.float64) / 100
    found: Integers = np.clip(np.floor(share * channels + 0.5), 1, max(1, channels - 1)).astype(int)
    return found


def keep_sets(order: Integers, counts: Integers, style: str, channels: int) -> Masks:
    """Say what is kept when the first of an order are ablated, or preserved.

    Parameters
    ----------
    order : array of int (row, group)
        Groups are equal runs of neighbouring channels (attention heads), or single channels.
    counts : array of int (percentage,)
        Of groups.
    style : {"ablate", "preserve"}
    channels : int
        Of the layer.

    Returns
    -------
    array (row, percentage, channel)
        1: kept, 0: held back.

    Raises
    ------
    RetinaCodecError
        If groups cannot share the channels evenly.
    """
    groups = order.shape[1]
    if channels % groups:
        raise RetinaCodecError(
            f"the modes have {groups} channels (or heads), which cannot share the layer's "
            f"{channels} evenly. Give modes of this layer, or the number of its heads."
        )
    place = np.argsort(order, axis=1)  # (row, group): when its turn comes
    taken = place[:, None] < counts[None, :, None]
    kept = taken if style == "preserve" else ~taken
    return np.repeat(kept, channels // groups, axis=2).astype(np.float32)
