"""Compare times on a busy machine: rounds side by side, medians, robust fits.

Notation: m settings, r rounds, n sizes (images, steps, tokens), t seconds.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from scipy.stats import theilslopes

from retina_codec.errors import RetinaCodecError
from retina_codec.progress import progress_bar
from retina_codec.statistics.resampling import percentiles

__all__ = ["FEWEST_ROUNDS", "exponent", "growth", "over_rounds", "slope", "time_rounds"]

FEWEST_ROUNDS = 5


"""With fewer no interval is given: that of a median from 5 rounds covers 94 % at most."""


Floats = npt.NDArray[np.float64]


def time_rounds(
    works: Sequence[Callable[[], Any]],
    rounds: int = 7,
    *,
    seed: int = 0,
    warm: bool = True,
    finish: Callable[[], Any] | None = None,
    progress: bool | None = None,
) -> xr.Dataset:
    """Time pieces of work in rounds; every round does all of them once, in an order of its own.

    Parameters
    ----------
    works : sequence of callable
        Without arguments; what they return is not kept.
    rounds : int
        r.
    seed : int
        Of the orders.
    warm : bool
        Whether all are called once beforehand, untimed.
    finish : callable, optional
        Called before a clock is read: ``torch.cuda.synchronize`` on a GPU.
    progress : bool, optional

    Returns
    -------
    xr.Dataset, dims (setting, round)
        ``processor``: s, of this process with all its threads. ``wall``: s.

    Raises
    ------
    RetinaCodecError
        If there is nothing to time, or no round.
    """
    if not works or rounds < 1:
        raise RetinaCodecError(
            f"at least one piece of work and one round are needed; got {len(works)} and {rounds}."
        )
    for work in works if warm else ():
        work()
    order = np.random.default_rng(seed)
    clocks = np.full((2, len(works), rounds), np.nan)
    for turn in progress_bar(range(rounds), description="rounds", progress=progress):
        for place in order.permutation(len(works)):
            if finish is not None:
                finish()
            start = time.process_time(), time.perf_counter()
            works[place]()
            if finish is not None:
                finish()
            end = time.process_time(), time.perf_counter()
            clocks[:, place, turn] = np.subtract(end, start)
    dims = ("setting", "round")
    return xr.Dataset(
        {
            name: (dims, clocks[row], {"units": "s"})
            for row, name in enumerate(("processor", "wall"))
        },
        attrs={"seed": seed, "rounds": rounds},
    )


def over_rounds(
    seconds: Any, estimate: Callable[[Floats], float], *, draws: int = 1000, seed: int = 0
) -> tuple[float, tuple[float, float]]:
    """Return an estimate from medians over rounds, with its 95 % interval.

    Parameters
    ----------
    seconds : array (setting, round)
    estimate : callable
        Takes the medians (setting,) and returns a number.
    draws : int
        Bootstrap samples: rounds drawn with replacement, the same for all settings, since these
        were measured side by side.
    seed : int
        Of the draws.

    Returns
    -------
    float, (low, high)
        NaN ends with fewer than `FEWEST_ROUNDS` rounds, or where the estimate is NaN in more than
        one draw in twenty (a bad round may be drawn again and again; such draws are left out).
    """
    values: Floats = np.asarray(seconds, np.float64)
    rounds = values.shape[1]
    middle = float(estimate(np.median(values, axis=1)))
    if rounds < FEWEST_ROUNDS:
        return middle, (np.nan, np.nan)
    chosen = np.random.default_rng(seed).integers(rounds, size=(draws, rounds))
    medians = np.median(values[:, chosen], axis=2)  # (setting, draw)
    found = np.array([estimate(one) for one in medians.T], np.float64)
    if np.isnan(found).mean() > 0.05:
        return middle, (np.nan, np.nan)
    low, high = percentiles(found, skip_missing=True)
    return middle, (float(low), float(high))


def slope(sizes: Any, seconds: Any) -> float:
    """Return the median of the slopes between all pairs of points (Theil 1950, Sen 1968).

    What is paid once, whatever the size, drops out.

    Parameters
    ----------
    sizes, seconds : array (size,)
        Sizes must differ.

    Returns
    -------
    float
        s per unit of size.
    """
    return float(theilslopes(seconds, sizes).slope)


def exponent(sizes: Any, seconds: Any) -> float:
    """Return p of ``t ∝ nᵖ``: `slope` of log t over log n, with all that is paid once in t."""
    return slope(np.log(np.asarray(sizes, np.float64)), np.log(np.asarray(seconds, np.float64)))


def growth(sizes: Any, seconds: Any) -> float:
    """Return the exponent of what comes on top of the smallest size.

    `exponent` of ``t − t₁`` over ``n − n₁``: 1 where t = a + b n, whatever a is. NaN where a
    larger size takes no longer than the smallest.

    Parameters
    ----------
    sizes, seconds : array (size,)
        Three or more, rising.
    """
    x, y = np.asarray(sizes, np.float64), np.asarray(seconds, np.float64)
    rise = y[1:] - y[0]
    return exponent(x[1:] - x[0], rise) if bool((rise > 0).all()) else float("nan")
