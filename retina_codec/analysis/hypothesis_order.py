"""The order of hypotheses: large and sure effects first, every experiment once.

Why this file exists: modes that name the same neurons at the same times ask for the same
experiment, and ten analyses of one silencing tell less than two silencings.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from retina_codec.analysis.mode_events import overlap

__all__ = ["order_and_join"]


def order_and_join(
    information: npt.NDArray[np.floating],
    experiment: Sequence[object],
    masks: npt.NDArray[np.bool_],
    *,
    alike: float = 0.5,
) -> list[list[int]]:
    """Put rows in order and join those that ask for the same experiment.

    Step by step the row with the largest ``I / (1 + n)`` is taken, n the number of rows taken
    before about the same silencing. It joins an earlier row of the same silencing whose events
    share at least ``alike`` of their times (the first such row), or else opens a row of its own.
    Of equal rows the earlier comes first.

    Parameters
    ----------
    information : array (row,), nats
        At least 0.
    experiment : sequence (row,)
        What is silenced, comparable by ==.
    masks : array of bool (row, time)
        Events.
    alike : float
        Part of the times of two rows, see `overlap`.

    Returns
    -------
    list of list of int
        One list per experiment, in order: the leading row, then those that join it.
    """
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
