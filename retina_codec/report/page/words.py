"""How the report writes numbers and lists.

Why this file exists: a number that is not known must never read like one that is, and the same
value must look the same everywhere on the page.
"""

from typing import Any

__all__ = ["NOT_MEASURED", "count", "listed", "measured", "number", "percent", "plural", "signed"]

NOT_MEASURED = "not measured"


def number(value: float | None, digits: int = 2) -> str:
    """Format with fixed decimals; a dash where nothing is known."""
    return "–" if value is None or value != value else f"{value:.{digits}f}"


def measured(value: float | None, digits: int = 2) -> str:
    """Format with fixed decimals and a true minus sign; words where nothing is known."""
    if value is None or value != value:
        return NOT_MEASURED
    return signed(value, digits)


def percent(value: float | None, digits: int = 0) -> str:
    """Format a share as percent with a space that does not break; small ones keep two figures."""
    if value is None or value != value:
        return "–"
    if value != 0 and abs(value) < 0.0005:
        return f"{100 * value:.1g}\u00a0%"
    if digits == 0 and abs(value) < 0.0995 and value != 0:
        digits = 1 if abs(value) >= 0.00995 else 2
    return f"{100 * value:.{digits}f}\u00a0%"


def listed(items: list[Any]) -> str:
    """Join as in a sentence: ``a, b and c``."""
    words = [str(item) for item in items]
    if len(words) < 2:
        return words[0] if words else "none"
    return f"{', '.join(words[:-1])} and {words[-1]}"


def plural(value: int, noun: str) -> str:
    """Count a noun: ``1 cell``, ``2 cells``."""
    return f"{value} {noun}" if value == 1 else f"{value} {noun}s"


def signed(value: float | None, digits: int = 2) -> str:
    """Format with a true minus sign."""
    return number(value, digits).replace("-", "−")


def count(value: float) -> str:
    """Format a large number with commas, a very large one with an exponent."""
    return f"{value:,.0f}" if value < 1e7 else f"{value:.1e}"
