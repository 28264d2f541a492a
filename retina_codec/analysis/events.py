"""Choose the moments at which receptive fields are worth looking at, by active mode.

Why this file exists: a receptive field at one instant is large, so it is computed at a few
events only; which events is a choice that must be the same every time. It computes no receptive
field and reads no stimulus.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from retina_codec.errors import RetinaCodecError

__all__ = ["choose_events", "combination_labels"]

LARGEST_COMBINATION = 5  # modes; science: sets of one to five modes are shown
APART = 0.2  # s between two events of the same combination, so that they show two scenes


def combination_labels(active: npt.NDArray[np.bool_], names: Sequence[Any]) -> list[str]:
    """Name the set of active modes of every time: ``"0+4"``, or ``""`` where no mode is active.

    Parameters
    ----------
    active : array of bool, (time, mode)
    names : sequence, (mode,)
        Coordinate of each mode.

    Returns
    -------
    list of str, (time,)
    """
    sets, back = np.unique(active, axis=0, return_inverse=True)
    labels = ["+".join(str(names[int(m)]) for m in np.flatnonzero(row)) for row in sets]
    return [labels[i] for i in back.reshape(-1)]


def choose_events(
    active: npt.NDArray[np.bool_],
    prediction: npt.NDArray[np.floating[Any]],
    time: npt.NDArray[np.floating[Any]],
    *,
    combinations: int = 6,
    per_combination: int = 3,
    minimum_rate: float = 1.0,
) -> npt.NDArray[np.intp]:
    """Choose events: the commonest sets of active modes, each at its liveliest moments.

    Times are grouped by their set of active modes (1 to 5 modes). Half of the ``combinations``
    are the commonest single modes, half the commonest sets of two or more; when one kind has too
    few, the other fills up. Within each, times are taken in the order of falling population rate
    (sum over cells), each at least 0.2 s from those already taken. Times at which no cell
    reaches ``minimum_rate`` are left out. Nothing is random.

    Parameters
    ----------
    active : array of bool, (time, mode)
    prediction : array, (time, cell), Hz
    time : array, (time,), s
    combinations : int
        Number of sets of modes.
    per_combination : int
        Largest number of events of each set.
    minimum_rate : float
        Hz; at least one cell must reach it.

    Returns
    -------
    array of int
        Positions along time, by combination (single modes first), then by falling rate.

    Raises
    ------
    RetinaCodecError
        If no time has both an active mode and a responding cell.
    """
    if combinations < 1 or per_combination < 1:
        raise RetinaCodecError(
            "at least one combination with one event is needed; "
            f"got {combinations=}, {per_combination=}."
        )
    size = active.sum(axis=1)
    usable = (size >= 1) & (size <= LARGEST_COMBINATION) & (prediction >= minimum_rate).any(axis=1)
    if not usable.any():
        raise RetinaCodecError(
            f"no time has 1 to {LARGEST_COMBINATION} active modes and a cell at "
            f"{minimum_rate:g} Hz or more; the highest predicted rate is "
            f"{float(prediction.max()):.3g} Hz and the times have {int(size.min())} to "
            f"{int(size.max())} active modes. Lower minimum_rate, or pass events=."
        )
    positions = np.flatnonzero(usable)
    sets, back, count = np.unique(
        active[positions], axis=0, return_inverse=True, return_counts=True
    )
    back = back.reshape(-1)
    common_first = sorted(range(len(sets)), key=lambda i: (-count[i], tuple(~sets[i])))
    single = [i for i in common_first if sets[i].sum() == 1]
    several = [i for i in common_first if sets[i].sum() > 1]
    n_single = min(len(single), max(combinations - combinations // 2, combinations - len(several)))
    chosen = single[:n_single] + several[: combinations - n_single]

    population = prediction.sum(axis=1)
    events: list[int] = []
    for combination in chosen:
        members = positions[back == combination]
        taken: list[int] = []
        for position in members[np.argsort(-population[members], kind="stable")]:
            if all(abs(time[position] - time[other]) >= APART - 1e-9 for other in taken):
                taken.append(int(position))
            if len(taken) == per_combination:
                break
        events += taken
    return np.asarray(events, dtype=np.intp)
