"""When a mode is active: the events that a hypothesis is about.

Why this file exists: "silencing X changes this cell" is true or false whatever a mode says. "It
does so in these moments and not in those" can only be said by what tells the moments apart. Every
mode gets the same share of the time, so that statements of different modes, and of controls, can
be compared.

Notation: T bins.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.errors import RetinaCodecError

__all__ = ["event_mask", "event_runs", "events_of", "in_events", "overlap", "pad_runs"]

Floats = npt.NDArray[np.floating]
Mask = npt.NDArray[np.bool_]


def event_mask(loading: npt.ArrayLike, share: float) -> Mask:
    """Tell the times at which a loading is positive and among its largest.

    ``E = {t : z(t) > 0, rank of z(t) ≤ max(1, round(share · T))}``, the largest first, equal
    values in order of time. A mode that is active less often has fewer.

    Parameters
    ----------
    loading : array-like (time,)
        Any unit, finite.
    share : float
        Largest share of the time, in (0, 1).

    Returns
    -------
    array of bool (time,)

    Raises
    ------
    RetinaCodecError
        If share lies outside (0, 1), or a loading is not finite.
    """
    z = np.asarray(loading, dtype=np.float64)
    if not 0 < share < 1 or not np.isfinite(z).all():
        raise RetinaCodecError(
            f"events need a share in (0, 1) and finite loadings; got {share=}, "
            f"{int((~np.isfinite(z)).sum())} values that are not finite. Use 0.1, fit again."
        )
    found = np.zeros(len(z), dtype=bool)
    found[np.argsort(-z, kind="stable")[: max(1, round(share * len(z)))]] = True
    return found & (z > 0)


def events_of(
    loadings: Sequence[xr.DataArray | None], time: Floats, step: float, share: float
) -> npt.NDArray[np.bool_]:
    """Events of modes on the clock of a split.

    Parameters
    ----------
    loadings : sequence of xr.DataArray, dims (time)
    time : array (time,), s
        Bins of the split that have a whole history.
    step : float
        s, of one bin.
    share : float
        See `event_mask`.

    Returns
    -------
    array of bool (mode, time)

    Raises
    ------
    RetinaCodecError
        If a loading has other times, by more than a quarter of a bin.
    """
    found = []
    for loading in loadings:
        own = np.zeros(0) if loading is None else loading["time"].values
        if loading is None or len(own) != len(time) or abs(own - time).max() > 0.25 * step:
            raise RetinaCodecError(
                f"loadings must lie on the {len(time)} bins of the split that have a whole "
                f"history, {time[0]:g} to {time[-1]:g} s; got {len(own)} bins"
                f"{f', {own[0]:g} to {own[-1]:g} s' if len(own) else ''}. Explain this split, or "
                "pass when='always'."
            )
        found.append(event_mask(loading.values, share))
    return np.stack(found)


def event_runs(mask: Mask, time: Floats, step: float) -> tuple[Floats, Floats]:
    """Start and stop (s) of every run of bins in a mask.

    Parameters
    ----------
    mask : array of bool (time,)
    time : array (time,), s
        Left edges of the bins, evenly spaced.
    step : float
        s, of one bin.

    Returns
    -------
    array (event,), s
        Left edge of the first bin of each run.
    array (event,), s
        Right edge of its last.
    """
    edges = np.diff(np.concatenate([[0], mask.astype(np.int8), [0]]))
    first, last = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1) - 1
    return time[first], time[last] + step


def in_events(start: npt.ArrayLike, stop: npt.ArrayLike, time: npt.ArrayLike) -> Mask:
    """Tell which bins lie in the events of one hypothesis, the inverse of `event_runs`.

    Parameters
    ----------
    start, stop : array-like (event,), s
        ``event_start`` and ``event_stop`` of a row of `hypothesize`; NaN where there is no event.
    time : array-like (time,), s
        Left edges of bins.

    Returns
    -------
    array of bool (time,)
        A bin counts if its left edge lies in an event, to a millionth of a second.
    """
    edge = np.asarray(time, dtype=np.float64)[:, None]
    begin, end = np.asarray(start, dtype=np.float64), np.asarray(stop, dtype=np.float64)
    seen = np.isfinite(begin)
    inside = (edge >= begin[seen] - 1e-6) & (edge < end[seen] - 1e-6)  # (time, event)
    return np.asarray(inside.any(axis=1))


def pad_runs(runs: Sequence[tuple[Floats, Floats]]) -> tuple[Floats, Floats]:
    """Join runs of several rows to arrays (row, event), NaN after the last event of a row."""
    longest = max((len(start) for start, _ in runs), default=0)
    joined = np.full((2, len(runs), max(1, longest)), np.nan)
    for row, pair in enumerate(runs):
        for side, values in enumerate(pair):
            joined[side, row, : len(values)] = values
    return joined[0], joined[1]


def overlap(one: Mask, other: Mask) -> float:
    """Shared times over all times of two masks, ``|A ∩ B| / |A ∪ B|``; 1 for two empty ones."""
    union = int((one | other).sum())
    return float((one & other).sum() / union) if union else 1.0
