"""What a silencing does inside chosen events and outside, with intervals.

Why this file exists: means over events of uneven length need a bootstrap that keeps neighbouring
bins together. Where rates and events come from is not known here.

Notation: r rows, b blocks of time, n cells, s silencings.
"""

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

__all__ = ["EventEffects", "event_effects"]

Floats = npt.NDArray[np.floating]
FEWEST_BLOCKS = 4  # with events in fewer, resampling says nothing: the interval is NaN


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
    """Compare rates with and without a silencing, inside events and outside.

    ``Δ = Σ_{t ∈ E} (λ₁ − λ)(t) / |E|``, elsewhere the same over the other times, and their
    difference. Interval and standard error: blocks of time are drawn with replacement, sums and
    numbers of bins alike, the ratio is formed anew.

    Parameters
    ----------
    before : array (time, cell), Hz
    after : array (silencing, time, cell), Hz
    which : array of int (row,)
        Silencing of each row.
    masks : array of bool (row, time)
        E.
    per_block : int
        Bins; bins after the last whole block are left out.
    frame_rate : float
        Hz.
    resamples : int
    significance : float
        Intervals cover 1 − significance.
    seed : int

    Returns
    -------
    EventEffects
        Intervals and errors are NaN where events, or other times, lie in fewer than 4 blocks.

    References
    ----------
    Efron, Tibshirani 1993, An Introduction to the Bootstrap, chapters 8 and 13 (blocks, percentile
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
        few = [(n > 0).sum() < min(FEWEST_BLOCKS, blocks) for n in (count, others)]
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
    seen = drawn[np.isfinite(drawn).all(axis=1)]  # a resample without any event says nothing
    if unknown or len(seen) < 2:
        nothing = np.full(drawn.shape[1], np.nan)
        return nothing, nothing, nothing
    low, high = np.quantile(seen, [significance / 2, 1 - significance / 2], axis=0)
    return low, high, seen.std(axis=0, ddof=1)
