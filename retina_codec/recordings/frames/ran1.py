"""Random bits of Numerical Recipes' ``ran1``, from any number on.

Notation: x ← 16807 x mod (2³¹ − 1) (Park and Miller); y, the number before, picks the place
j = ⌊y / 2²⁶⌋ of a table v of 32 (Bays and Durham): y ← v[j], v[j] ← x; u = y / (2³¹ − 1).
"""

from bisect import bisect_right
from threading import Lock
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

__all__ = ["draw_frames"]

MODULUS, MULTIPLIER = 2**31 - 1, 16807
PLACES, WARM_UP = 32, 8
STRIDE = 2**22  # numbers between states that are kept; one state has 272 bytes
State = npt.NDArray[np.int64]  # (34,): x, y, v


def _first_state(seed: int) -> State:
    """State before the first number."""
    x, table = -seed, np.zeros(PLACES, dtype=np.int64)
    for place in range(PLACES + WARM_UP - 1, -1, -1):
        x = MULTIPLIER * x % MODULUS
        if place < PLACES:
            table[place] = x
    return np.concatenate([[x, table[0]], table])


@numba.njit(cache=True, nogil=True, inline="always")
def _step(x: int, y: int, table: State) -> tuple[int, int]:
    """Return the next x and y; v changes in place."""
    product = x * 16807
    x = (product & 2147483647) + (product >> 31)
    if x >= 2147483647:
        x -= 2147483647
    place = y >> 26
    y = table[place]
    table[place] = x
    return x, y


@numba.njit(cache=True, nogil=True)
def _skip(state: State, count: int) -> None:
    """Draw numbers and keep none."""
    x, y, table = state[0], state[1], state[2:]
    for _ in range(count):
        x, y = _step(x, y, table)
    state[0], state[1] = x, y


@numba.njit(cache=True, nogil=True)
def _draw(
    state: State, limit: int, slow: int, fast: int, first: int, low: int, on: npt.NDArray[np.bool_]
) -> None:
    """Fill frames (time, slow, fast) of a window of whole frames of slow · fast numbers."""
    x, y, table = state[0], state[1], state[2:]
    for frame in range(on.shape[0]):
        for i in range(slow):
            inside = first <= i < first + on.shape[1]
            for j in range(fast):
                x, y = _step(x, y, table)
                if inside and low <= j < low + on.shape[2]:
                    on[frame, i - first, j - low] = y > limit
    state[0], state[1] = x, y


class _States:
    """States of one seed by the count of numbers drawn before; safe between threads."""

    def __init__(self, seed: int) -> None:
        self.counts, self.states = [0], [_first_state(seed)]
        self.last: dict[int, State] = {}  # ends of the last reads, so that the next goes on
        self.lock = Lock()

    def at(self, count: int) -> State:
        """Return the state before number ``count``."""
        with self.lock:
            kept = self.last.get(count)
            if kept is not None:
                return kept.copy()
            index = bisect_right(self.counts, count) - 1
            done, state = self.counts[index], self.states[index].copy()
            while done < count:
                step = min(STRIDE - done % STRIDE, count - done)
                _skip(state, step)
                done += step
                if done % STRIDE == 0 and done > self.counts[-1]:
                    self.counts.append(done)
                    self.states.append(state.copy())
            return state

    def keep(self, count: int, state: State) -> None:
        """Keep the end of a read."""
        with self.lock:
            self.last[count] = state.copy()
            while len(self.last) > 16:
                self.last.pop(next(iter(self.last)))


_KNOWN: dict[int, _States] = {}


def draw_frames(
    numbers: npt.NDArray[np.int64],
    seed: int,
    size: tuple[int, int],
    *,
    limit: float,
    corner: tuple[int, int] = (0, 0),
    kept: tuple[int, int] | None = None,
) -> npt.NDArray[np.bool_]:
    """Draw chosen frames of a movie and keep a window of each.

    Parameters
    ----------
    numbers : array of int
        Of the frames.
    seed : int
        -2³¹ + 2 to -1.
    size : (int, int)
        Numbers along the slow and the fast axis of a whole frame.
    limit : float
        A pixel is on where u > limit.
    corner, kept : (int, int)
        First number and count of numbers of the window, along both axes.

    Returns
    -------
    array of bool, (frame, slow, fast)

    References
    ----------
    Press, Teukolsky, Vetterling and Flannery 1992, Numerical Recipes in C, section 7.1. Park and
    Miller 1988, Communications of the ACM 31:1192. Bays and Durham 1976, ACM TOMS 2:59.
    """
    states = _KNOWN.setdefault(seed, _States(seed))
    pixels = size[0] * size[1]
    whole = int(np.floor(limit * MODULUS))  # y is an integer: u > limit where y > whole
    height, width = kept or size
    shown = np.empty((len(numbers), height, width), dtype=bool)
    wanted, place = np.unique(numbers, return_inverse=True)
    unique = np.empty((len(wanted), height, width), dtype=bool)
    for run in np.split(np.arange(len(wanted)), np.flatnonzero(np.diff(wanted) > 1) + 1):
        if not len(run):
            continue
        first, last = int(wanted[run[0]]), int(wanted[run[-1]]) + 1
        state: Any = states.at(first * pixels)
        part = unique[run[0] : run[-1] + 1]
        _draw(state, whole, size[0], size[1], corner[0], corner[1], part)
        states.keep(last * pixels, state)
    shown[:] = unique[place]
    return shown
