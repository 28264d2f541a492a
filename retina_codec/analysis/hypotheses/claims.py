"""Decide which predicted changes a hypothesis claims, and rank hypotheses by information.

All arrays are (row, cell) unless stated otherwise.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from retina_codec.analysis.hypotheses.effects import EventEffects, overlap
from retina_codec.statistics.power import detectability

__all__ = [
    "ClaimedCells",
    "claim_cells",
    "detectabilities",
    "information_of_cells",
    "order_and_join",
]

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class ClaimedCells:
    """Which cells each row claims to change."""

    affected: Mask
    undecided: Mask
    timed: Mask
    match_error: Floats  # (row,) Hz

    def rows(self, chosen: npt.NDArray[np.integer]) -> "ClaimedCells":
        """Take some rows, in this order."""
        return ClaimedCells(*(getattr(self, part.name)[chosen] for part in fields(self)))


def claim_cells(
    effects: EventEffects, rate: Floats, match: Floats, threshold: float
) -> ClaimedCells:
    """Find affected, undecided and timed cells; ``match`` (row,) is r of channels and interneuron.

    With Δ the change in the events, Δ' that elsewhere, C = Δ − Δ', λ̄ the larger of the cell's rate
    in the events and over the split (``rate``, Hz), and ``m = (1 − r²) · max over cells |Δ|``:
    affected is ``|Δ| > max(threshold λ̄, m)`` with an interval without 0; undecided is
    ``|Δ| > threshold λ̄`` without being affected; timed is affected, ``|C| > threshold λ̄`` with an
    interval without 0, and ``|Δ| > |Δ'|``. An unknown interval (NaN) excludes nothing.
    """
    error = (1 - match**2) * np.abs(effects.change).max(axis=1)
    least = threshold * np.fmax(effects.rate, rate)
    large = np.abs(effects.change) > least
    sure = (effects.low > 0) | (effects.high < 0)
    affected = large & sure & (np.abs(effects.change) > error[:, None])
    apart = (effects.contrast_low > 0) | (effects.contrast_high < 0)
    more = np.abs(effects.change) > np.abs(effects.elsewhere)
    timed = affected & apart & more & (np.abs(effects.contrast) > least)
    return ClaimedCells(affected, large & ~affected, timed, error)


def information_of_cells(
    effects: EventEffects, claimed: ClaimedCells, variability: Floats, *, active: bool
) -> Floats:
    """Compute the information of one presentation with and one without silencing, in nats.

    ``½ ln(1 + C² / (s² + m² + v))`` for timed cells, else 0; C and its standard error s, ``v = F (λ
    + λ₁) / T`` in the events and elsewhere, F the ``variability`` (cell,). Without events (not
    ``active``) Δ takes the place of C, and all cells count; NaN where s is not known.
    """
    noise = _noise(effects.rate, effects.change, effects.seconds, variability)
    value, error = effects.change, effects.error
    if active:
        elsewhere = effects.rate_elsewhere, effects.elsewhere, effects.seconds_elsewhere
        noise = noise + _noise(*elsewhere, variability)
        value, error = effects.contrast, effects.contrast_error
    width = error**2 + claimed.match_error[:, None] ** 2 + noise
    ratio = np.divide(value**2, width, out=np.zeros_like(value), where=width > 0)
    gain = 0.5 * np.log1p(ratio)
    return np.where(claimed.timed, gain, 0.0) if active else np.where(np.isnan(error), np.nan, gain)


def detectabilities(
    effects: EventEffects, affected: Mask, variability: Floats
) -> tuple[Floats, Floats, Floats]:
    """Compute d² of every cell in the events, and Σ d² per second over affected cells.

    Return d² (row, cell) of one presentation of the split, see `detectability`, and the sums (row,)
    in 1/s in the events and at other times, NaN without any. In a row without an affected cell all
    cells count.
    """
    counted = np.where(affected.any(axis=1, keepdims=True), affected, True)
    parts = []
    for rate, change in (
        (effects.rate, effects.change),
        (effects.rate_elsewhere, effects.elsewhere),
    ):
        after = np.maximum(rate + change, 0.0)  # a rate; rounding may leave −1e-8
        parts.append(detectability(rate, after, 1.0, variability))  # in one second
    inside, outside = ((part * counted).sum(axis=1) for part in parts)
    return parts[0] * effects.seconds[:, None], inside, outside


def _noise(rate: Floats, change: Floats, seconds: Floats, variability: Floats) -> Floats:
    """Variance of a measured change, F (λ + λ₁) / T."""
    time = seconds[:, None]
    total = variability * (2 * rate + change)
    return np.divide(total, time, out=np.full_like(total, np.nan), where=time > 0)


def order_and_join(
    information: Floats, experiment: Sequence[object], masks: Mask, *, alike: float = 0.5
) -> list[list[int]]:
    """Rank rows and join those about the same experiment: the leading row, then the others.

    Repeatedly, the row with the largest ``I / (1 + n)`` is taken next, n the number of rows taken
    before about the same silencing (``experiment``, compared by ==). It joins the first earlier row
    of the same silencing whose events (``masks``, (row, time)) `overlap` by at least ``alike``,
    else it opens an experiment of its own. Of equal rows the earlier comes first; NaN comes last.
    """
    information = np.where(np.isnan(information), -np.inf, information)
    left = list(range(len(information)))
    found: list[list[int]] = []
    while left:
        taken = [experiment[rows[0]] for rows in found]
        worth = [information[row] / (1 + taken.count(experiment[row])) for row in left]
        row = left.pop(int(np.argmax(worth)))
        for rows in found:
            lead = rows[0]
            if experiment[lead] == experiment[row] and overlap(masks[lead], masks[row]) >= alike:
                rows.append(row)
                break
        else:
            found.append([row])
    return found
