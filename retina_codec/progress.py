"""Progress bars for work that may take longer than two seconds."""

from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

__all__ = ["progress_bar"]

Item = TypeVar("Item")


def progress_bar(
    iterable: Iterable[Item],
    *,
    description: str,
    total: int | None = None,
    progress: bool | None = None,
) -> "tqdm[Item]":
    """Wrap an iterable in a progress bar on standard error.

    Parameters
    ----------
    iterable : iterable
        The steps of the work; passed through unchanged.
    description : str
        Two or three words shown before the bar.
    total : int, optional
        Number of steps, when the iterable does not know its length.
    progress : bool, optional
        None shows the bar once the work has lasted 2 s; False never shows it; True at once.

    Returns
    -------
    tqdm
        Iterates over the same items.
    """
    return tqdm(
        iterable,
        desc=description,
        total=total,
        delay=0.0 if progress else 2.0,
        disable=progress is False,
        dynamic_ncols=True,
    )
