"""Find the events at which a mode is active, and compare changes of rates in and outside them.

Notation: T bins.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.statistics.resampling import percentiles

__all__ = [
    "EventEffects",
    "event_effects",
    "event_mask",
    "event_runs",
    "events_of",
    "in_events",
    "overlap",
    "pad_runs",
]

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

FEWEST_BLOCKS = 4  # with events in fewer blocks the interval is NaN


def event_mask(loading: npt.ArrayLike, share: float) -> Mask:
    """Find the times at which a loading (time,) is positive and among its largest, (time,).

    ``E = {t : z(t) > 0, rank of z(t) ≤ max(1, round(share · T))}``, the largest first, equal
    values in order of time. A mode that is active less often has fewer.
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
    """Find the events of modes (mode, time) on the clock of a split, see `event_mask`.

    Loadings (time,) must lie on ``time`` (s), the bins of the split that have a whole history, to a
    quarter of a bin of length ``step``.
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
    """Return start and stop (s) of every run of bins in a mask.

    ``time`` (s) are the left edges of bins of length ``step``; a run starts at the left edge of its
    first bin and stops at the right edge of its last.
    """
    edges = np.diff(np.concatenate([[0], mask.astype(np.int8), [0]]))
    first, last = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1) - 1
    return time[first], time[last] + step


def in_events(start: npt.ArrayLike, stop: npt.ArrayLike, time: npt.ArrayLike) -> Mask:
    """Find the bins (time,) in the events of one hypothesis, the inverse of `event_runs`.

    Those whose left edge ``time`` (s) lies between ``start`` and ``stop`` (s) of an event, to a
    millionth of a second; NaN is no event.
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
    """Return the overlap of two masks, ``|A ∩ B| / |A ∪ B|``; 1 for two empty ones."""
    union = int((one | other).sum())
    return float((one & other).sum() / union) if union else 1.0


@dataclass(frozen=True)
class EventEffects:
    """Rates and changes in Hz, (row, cell) each; NaN where a row has no such time."""

    rate: Floats  # before silencing, in the events
    change: Floats
    low: Floats
    high: Floats
    error: Floats
    rate_elsewhere: Floats
    elsewhere: Floats  # change
    contrast: Floats  # change − elsewhere
    contrast_low: Floats
    contrast_high: Floats
    contrast_error: Floats
    seconds: Floats  # (row,), of the events
    seconds_elsewhere: Floats  # (row,)

    def rows(self, chosen: npt.NDArray[np.integer]) -> "EventEffects":
        """Take some rows, in this order."""
        return EventEffects(*(getattr(self, part.name)[chosen] for part in fields(self)))


def event_effects(
    before: Floats,
    after: Floats,
    which: npt.NDArray[np.integer],
    masks: npt.NDArray[np.bool_],
    *,
    per_block: int,
    frame_rate: float,
    resamples: int,
    significance: float,
    seed: int,
) -> EventEffects:
    """Compare rates (time, cell) with those of silencings (silencing, time, cell), Hz, in events E.

    ``Δ = Σ_{t ∈ E} (λ₁ − λ)(t) / |E|``, elsewhere the same over the other times, and their
    difference; E are the masks (row, time), ``which`` the silencing of each row. Intervals, which
    cover 1 − ``significance``, and standard errors come from blocks of ``per_block`` bins drawn
    with replacement, with their sums and their numbers of bins; bins after the last whole block are
    left out. Both are NaN where events, or other times, lie in fewer than 4 blocks. Efron,
    Tibshirani 1993, An Introduction to the Bootstrap, chapters 8 and 13 (blocks, percentile
    intervals).
    """
    blocks = len(before) // per_block
    kept = blocks * per_block
    draws = np.random.default_rng(seed)
    weight = draws.multinomial(blocks, np.full(blocks, 1 / blocks), size=resamples).astype(float)
    rows: list[list[Floats]] = []
    times = []
    for number, mask in zip(which, masks[:, :kept], strict=True):
        change = after[number, :kept].astype(np.float64) - before[:kept]
        inside, count = _by_block(change, mask, per_block)
        outside, others = _by_block(change, ~mask, per_block)
        drawn = _ratio(weight @ inside, weight @ count)  # (resample, cell)
        apart = drawn - _ratio(weight @ outside, weight @ others)
        here = _ratio(inside.sum(0), count.sum())
        there = _ratio(outside.sum(0), others.sum())
        few = [(n > 0).sum() < FEWEST_BLOCKS for n in (count, others)]
        rows.append(
            [
                _ratio((before[:kept] * mask[:, None]).sum(0), count.sum()),
                here,
                *_interval(drawn, significance, bool(few[0])),
                _ratio((before[:kept] * ~mask[:, None]).sum(0), others.sum()),
                there,
                here - there,
                *_interval(apart, significance, bool(few[0] or few[1])),
            ]
        )
        times.append((count.sum() / frame_rate, others.sum() / frame_rate))
    columns = [np.stack(column) for column in zip(*rows, strict=True)]
    return EventEffects(*columns, *np.array(times).T)


def _by_block(values: Floats, mask: npt.NDArray[np.bool_], per_block: int) -> tuple[Floats, Floats]:
    """Return sums (block, cell) and numbers (block,) of the bins in a mask."""
    kept = (values * mask[:, None]).reshape(-1, per_block, values.shape[1])
    return kept.sum(axis=1), mask.reshape(-1, per_block).sum(axis=1).astype(np.float64)


def _ratio(total: Floats, count: Floats | np.floating) -> Floats:
    """Means (..., cell) from sums and numbers of bins, NaN where there are none."""
    number = np.asarray(count, dtype=np.float64)[..., None]
    return np.divide(total, number, out=np.full_like(total, np.nan), where=number > 0)


def _interval(drawn: Floats, significance: float, unknown: bool) -> tuple[Floats, Floats, Floats]:
    """Low and high end and standard error of resampled values (resample, cell)."""
    seen = drawn[np.isfinite(drawn).all(axis=1)]  # a resample without any event has no value
    if unknown or len(seen) < 2:
        nothing = np.full(drawn.shape[1], np.nan)
        return nothing, nothing, nothing
    low, high = percentiles(seen, 1 - significance).T
    return low, high, seen.std(axis=0, ddof=1)
