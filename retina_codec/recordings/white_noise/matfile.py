"""Read MATLAB files, and cut a part of a screen, with errors in one line."""

import os
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from retina_codec.errors import RetinaCodecError, in_words, option

__all__ = ["check_region", "choose_rows", "read_mat", "variables_of"]

LAYOUTS = (
    "spk1 and spk2 (cell, frame, trial) as in Liu et al. 2017, or datainfo, stimulus and spikes as "
    "in crcns.org ret-1"
)
UNREADABLE = (OSError, ValueError, TypeError, IndexError, struct.error, zlib.error)


def variables_of(path: str | os.PathLike[str]) -> list[str]:
    """Return the names of the variables of a file; none where it cannot be read."""
    from scipy.io import whosmat
    from scipy.io.matlab import MatReadError

    try:
        return [name for name, *_ in whosmat(os.fspath(path))]
    except (*UNREADABLE, MatReadError, NotImplementedError):
        return []


def read_mat(
    path: str | os.PathLike[str], names: Sequence[str], *, whole: Sequence[str] = ()
) -> dict[str, Any]:
    """Read variables of a MATLAB file: cells and structs as lists and dicts.

    Parameters
    ----------
    path : path
    names : sequence of str
        Axes of length 1 are dropped.
    whole : sequence of str
        Those of them that keep all their axes.

    Returns
    -------
    dict of str

    Raises
    ------
    RetinaCodecError
        Not a MATLAB file, one of version 7.3, or one without these variables.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    found = variables_of(path)
    missing = [name for name in names if name not in found]
    if found and missing:
        own = in_words(
            "rc.recordings.recording_from_arrays takes arrays of any name",
            "retina-codec import takes arrays of other names",
        )
        raise RetinaCodecError(
            f"{path}: a recording in a .mat file must hold {LAYOUTS}; it holds "
            f"{', '.join(found[:12]) or 'nothing'}. Rename its variables, or make the recording "
            f"from its arrays: {own}."
        )
    try:
        kept = loadmat(os.fspath(path), variable_names=list(whole)) if whole else {}
        rest = [name for name in names if name not in whole]
        return {**loadmat(os.fspath(path), simplify_cells=True, variable_names=rest), **kept}
    except NotImplementedError as error:
        raise RetinaCodecError(
            f"{path} must be a MATLAB file up to version 7; it is of version 7.3. Save it again: "
            "save(NAME, '-v7')."
        ) from error
    except (*UNREADABLE, MatReadError) as error:
        raise RetinaCodecError(
            f"{path} must be a MATLAB file; it cannot be read: {error}. Copy it again."
        ) from error


def check_region(region: Any, screen: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return first and last (excluded) pixel along y and x of a part of the screen.

    Raises
    ------
    RetinaCodecError
        Not four numbers, or outside the screen.
    """
    if region is None:
        return 0, screen[0], 0, screen[1]
    values = np.asarray(region, dtype=object).ravel().tolist()
    whole = [int(value) for value in values if isinstance(value, int | np.integer)]
    if len(whole) == 4 == len(values):
        top, bottom, left, right = whole
        if 0 <= top < bottom <= screen[0] and 0 <= left < right <= screen[1]:
            return top, bottom, left, right
    raise RetinaCodecError(
        f"region must be the first and last pixel along y and x, within {screen[0]} × {screen[1]} "
        f"px; got {region!r}. Pass {option('region', [0, screen[0], 0, screen[1]])} or a part."
    )


def choose_rows(cells: Any, count: int) -> list[int]:
    """Return the numbers of the cells to keep, in this order.

    Raises
    ------
    RetinaCodecError
        A cell that is not there, or none.
    """
    if cells is None:
        return list(range(count))
    given = [cells] if isinstance(cells, int | str | np.integer) else list(cells)
    try:
        rows = [int(cell) for cell in given]
    except (TypeError, ValueError):
        rows = [-1]
    if not rows or min(rows) < 0 or max(rows) >= count or len(set(rows)) < len(rows):
        raise RetinaCodecError(
            f"cells must be different numbers of cells, 0 to {count - 1}; got {given[:8]}. Pass "
            f"{option('cells', [0, 1])} or others of these."
        )
    return rows
