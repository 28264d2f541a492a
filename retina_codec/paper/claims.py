"""A claim of the paper, judged by a rule on the 95 % interval of a measured number."""

import csv
import os
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from retina_codec.errors import RetinaCodecError

__all__ = ["Claim", "claims_table", "judge", "save_claims", "with_interval"]

HEADINGS = ("what the paper says", "what is seen here", "rule", "holds here")


WIDTHS = (44, 40, 26, 10)


@dataclass(frozen=True)
class Claim:
    """One row: a statement of a paper, the number seen here with its interval, the verdict."""

    name: str
    source: str  # section and figure
    says: str
    found: float
    interval: tuple[float, float]  # 95 %
    holds: bool | None  # None: not tested
    measure: str = ""  # what the number is, with its unit
    rule: str = ""

    @property
    def verdict(self) -> str:
        """Say yes, no or not tested."""
        return {True: "yes", False: "no", None: "not tested"}[self.holds]


def judge(
    name: str,
    source: str,
    says: str,
    found: Any = np.nan,
    interval: Any = (np.nan, np.nan),
    *,
    low: float = -np.inf,
    high: float = np.inf,
    measure: str = "",
    places: Sequence[str] | None = None,
) -> Claim:
    """Judge a statement: it holds if every 95 % interval lies wholly between two bounds.

    Parameters
    ----------
    name, source, says : str
        Few words; section and figure of the paper; what it says.
    found : float or array (place,)
        The number, or one per layer where the paper speaks of all layers. NaN: not tested.
    interval : array (2,) or (place, 2)
        95 %.
    low, high : float
        The rule. "Contributions are sparser" is a difference with ``low=0``; "similar" is a
        difference between ``low=-0.05`` and ``high=0.05``.
    measure : str
        What the number is, and its unit.
    places : sequence of str, optional
        Names of the places.

    Returns
    -------
    Claim
        Of several places, the one whose interval comes nearest to a bound or passes it farthest,
        named in ``measure`` with how many comply; ``holds`` speaks of all. Asking that all
        intervals comply needs no correction for their number. A number without an interval is
        not tested.

    Raises
    ------
    RetinaCodecError
        If numbers, intervals and names do not fit, or there are no bounds.
    """
    middle: npt.NDArray[np.float64] = np.atleast_1d(np.asarray(found, np.float64))
    ends: npt.NDArray[np.float64] = np.asarray(interval, np.float64).reshape(-1, 2)
    names = list(places) if places is not None else [""] * len(middle)
    if not len(middle) == len(ends) == len(names) or not len(middle):
        raise RetinaCodecError(
            "a claim needs one interval (and one name) for every number; got "
            f"{len(middle)} numbers, {len(ends)} intervals, {len(names)} names."
        )
    if not low < high or (np.isinf(low) and np.isinf(high)):
        raise RetinaCodecError(f"a rule needs low < high, one of them finite; got {low=}, {high=}.")
    room = np.minimum(ends[:, 0] - low, high - ends[:, 1])
    sure = np.isfinite(middle) & np.isfinite(ends).all(axis=1)
    worst = int(np.argmin(np.where(sure, room, -np.inf)))
    if np.isinf(high):
        rule = f"interval above {low:g}"
    elif np.isinf(low):
        rule = f"interval below {high:g}"
    else:
        rule = f"interval within {low:g} to {high:g}"
    if len(middle) > 1:
        rule += f", in all {len(middle)}"
        rest = f"{int((room > 0).sum())} of {len(middle)} comply"
        measure += f", at worst {names[worst]}".rstrip() + f"; {rest}"
    return Claim(
        name,
        source,
        says,
        float(middle[worst]),
        (float(ends[worst, 0]), float(ends[worst, 1])),
        bool((room > 0).all()) if sure.all() else None,
        measure.removeprefix(", "),
        rule.replace("-", "−"),
    )


def claims_table(claims: Sequence[Claim]) -> str:
    """Lay the claims out as a table in plain text, 130 characters wide."""
    lines = [_line(HEADINGS), _line(["─" * width for width in WIDTHS])]
    for claim in claims:
        seen = f"— {claim.measure}"
        if np.isfinite(claim.found):
            seen = f"{with_interval(claim.found, *claim.interval)} {claim.measure}"
        cells = (f"{claim.says} ({claim.source})", seen, claim.rule, claim.verdict)
        wrapped = [textwrap.wrap(c, w) or [""] for c, w in zip(cells, WIDTHS, strict=True)]
        for row in range(max(map(len, wrapped))):
            lines.append(_line([part[row] if row < len(part) else "" for part in wrapped]))
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def with_interval(found: float, low: float, high: float) -> str:
    """Write "0.12 (0.1 to 0.14)", three digits; what is 0 up to rounding is 0."""
    numbers = np.array([found, low, high])
    numbers[np.abs(numbers) < 1e-9 * np.abs(numbers).max()] = 0.0
    middle, *ends = (f"{value:.3g}".replace("-", "−") for value in numbers.tolist())
    return f"{middle} ({' to '.join(ends)})"


def _line(cells: Sequence[str]) -> str:
    return "  ".join(cell.ljust(w) for cell, w in zip(cells, WIDTHS, strict=True)).rstrip()


def save_claims(claims: Sequence[Claim], path: str | os.PathLike[str]) -> None:
    """Write the claims as CSV, numbers in full."""
    heads = ["name", "source", "says", "found", "low", "high", "measure", "rule", "holds"]
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(heads)
        for claim in claims:
            numbers = (claim.found, *claim.interval)
            words = (claim.measure, claim.rule, claim.verdict)
            writer.writerow((claim.name, claim.source, claim.says, *numbers, *words))
