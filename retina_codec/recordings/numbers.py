"""What counts as a number that a user gave."""

from typing import Any

import numpy as np

__all__ = ["is_number", "is_positive"]


def is_number(value: Any, least: float = -np.inf) -> bool:
    """Whether a value is one finite number (no bool, no text), at least `least`.

    Whole numbers beyond the range of float64 are none: they cannot be computed with.
    """
    if not isinstance(value, int | float | np.number) or isinstance(value, bool):
        return False
    try:
        number = float(value)
    except (OverflowError, TypeError):
        return False
    return bool(np.isfinite(number)) and number >= least


def is_positive(value: Any) -> bool:
    """Whether a value is one finite number above zero."""
    return is_number(value) and value > 0
