"""A weighted difference between layers or kinds, paired within images, with its interval.

The weighted sum is taken within each image (or class), so that variance between images cancels.

Notation: n units (images, classes or modes), v (n, p) a value per unit and place, w (p,) weights.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from retina_codec.errors import RetinaCodecError

__all__ = ["Difference", "contrast", "depth_weights", "thirds"]

Floats = npt.NDArray[np.float64]


class Difference(NamedTuple):
    """A mean over units with its 95 % interval."""

    found: float
    interval: tuple[float, float]
    units: int


def contrast(values: npt.ArrayLike, weights: npt.ArrayLike) -> Difference:
    """Mean over units of a weighted sum over places, ``mean_i Σ_p w_p v_ip``; values (n, p).

    Weights (p,), ``[1, -1]`` is a paired difference; a unit that is NaN at a place with a weight
    other than 0 takes no part. Interval ``mean ± t s / √n``, t the 97.5 % quantile of Student's law
    with n − 1 degrees of freedom (Student 1908, Biometrika 6:1); NaN of fewer than two units.
    """
    from scipy.stats import t

    table, w = np.asarray(values, np.float64), np.asarray(weights, np.float64)
    if table.ndim != 2 or w.shape != table.shape[1:] or not w.any():
        raise RetinaCodecError(
            "a contrast needs values (unit, place) and one weight per place, not all 0; got "
            f"{table.shape} and {w.tolist()}."
        )
    each = table[:, w != 0] @ w[w != 0]
    each = each[np.isfinite(each)]
    count = len(each)
    if count < 2:
        middle = float(each[0]) if count else np.nan
        return Difference(middle, (np.nan, np.nan), count)
    middle = float(each.mean())
    half = float(t.ppf(0.975, count - 1) * each.std(ddof=1) / np.sqrt(count))
    return Difference(middle, (middle - half, middle + half), count)


def thirds(places: int) -> tuple[slice, slice, slice]:
    """Divide layers into early, middle and late ones; the middle takes the remainder."""
    if places < 3:
        raise RetinaCodecError(f"early, middle and late need at least 3 layers; got {places}.")
    part = places // 3
    return slice(0, part), slice(part, places - part), slice(places - part, places)


def depth_weights(places: int, more: str, less: str) -> Floats:
    """Weights (places,) of one third's mean less another's: of "early", "middle", "late" layers."""
    parts = dict(zip(("early", "middle", "late"), thirds(places), strict=True))
    weights = np.zeros(places)
    for name, sign in ((more, 1.0), (less, -1.0)):
        if name not in parts:
            raise RetinaCodecError(f"a third is one of {', '.join(parts)}; got {name!r}.")
        part = parts[name]
        weights[part] += sign / (part.stop - part.start)
    return weights
