"""Find the contexts of a text model in which a mode has its largest loadings."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.analysis.gallery.maps import mode_of, recorded
from retina_codec.errors import RetinaCodecError
from retina_codec.storage.results import modes_at, sample_labels

__all__ = ["top_contexts"]


def top_contexts(
    modes: xr.DataTree,
    layer: str,
    mode: Any,
    texts: Sequence[str] | Sequence[Sequence[str]],
    *,
    position: npt.ArrayLike | None = None,
    predicted: Sequence[str] | None = None,
    count: int = 8,
) -> xr.Dataset:
    """Find the texts that load a mode most; no labels are needed.

    Parameters
    ----------
    modes : xr.DataTree
        Results of `decompose`; a sample is a text, explained at one of its words.
    layer : str
    mode : label of a mode
    texts : sequence of str, or of sequences of str, (sample,)
        As text, whose words are what white space separates; or as the words (or tokens) themselves,
        which are joined as they are.
    position : array-like of int, (sample,), optional
        Number of the word that a sample is about, from 0; negative from the end. The last one when
        left out.
    predicted : sequence of str, (sample,), optional
        The next word that the network predicts there.
    count : int
        How many contexts.

    Returns
    -------
    xr.Dataset, dims (rank)
        Contexts with a loading above 0, the largest first, at most ``count``; none for a mode that
        does not load. ``text``; ``position`` of the word in its text, from 0; ``word``;
        ``loading``, in the unit of the loadings; ``predicted``, where given; ``label``, where the
        results carry labels. Along ``rank``: ``sample``, number among the samples.

    Raises
    ------
    RetinaCodecError
        No such mode; texts, positions or predictions that do not fit the samples; no such word.

    References
    ----------
    Melander et al. 2026, CODEC, Fig. 4 (images that load a mode most), for texts.
    """
    loading = modes_at(modes, layer)["loading"]
    values = mode_of(loading, layer, mode).values.astype(np.float64)
    total = len(values)
    if isinstance(count, bool) or count < 1:
        raise RetinaCodecError(f"count must be at least 1; got {count}. 8 is usual.")
    if isinstance(texts, str):
        raise RetinaCodecError("texts must be several, one per sample; got one text.")
    for name, given in (("texts", texts), ("predicted", predicted), ("position", position)):
        length = total if given is None else len(np.asarray(given, dtype=object))
        if length != total:
            raise RetinaCodecError(
                f"{name} must be those of the samples, {total} of them; got {length}. Give one "
                "for each text that was explained, in the same order."
            )
    place = np.full(total, -1) if position is None else np.asarray(position)
    if place.dtype.kind not in "iu" or place.ndim != 1:
        raise RetinaCodecError(
            f"position must be whole numbers (sample,); got {place.dtype} {place.shape}."
        )
    order = np.argsort(-values, kind="stable")
    best = order[values[order] > 0][:count]
    rows = [_context(texts[one], int(place[one]), int(one)) for one in best.tolist()]
    units = {"units": str(loading.attrs.get("units", "1"))}
    data: dict[str, Any] = {
        "text": ("rank", np.array([row[0] for row in rows], dtype=object).astype(str)),
        "position": ("rank", np.array([row[1] for row in rows], np.int64), {"units": "count"}),
        "word": ("rank", np.array([row[2] for row in rows], dtype=object).astype(str)),
        "loading": ("rank", values[best], units),
    }
    for name, known in (
        ("predicted", predicted),
        ("label", sample_labels(modes, None, layer, total)),
    ):
        if known is not None:
            data[name] = ("rank", np.asarray(known, dtype=object)[best].astype(str))
    return xr.Dataset(
        data,
        coords={"rank": np.arange(len(best)), "sample": ("rank", best)},
        attrs={"layer": layer, "mode": recorded(mode)},
    )


def _context(text: str | Sequence[str], place: int, sample: int) -> tuple[str, int, str]:
    """Return a text, the number of a word in it, and the word."""
    words = text.split() if isinstance(text, str) else [str(word) for word in text]
    if not -len(words) <= place < len(words):
        raise RetinaCodecError(
            f"position must be that of a word of the text; text {sample} has {len(words)} words, "
            f"got {place}. Count from 0."
        )
    whole = text if isinstance(text, str) else "".join(words)
    return whole, place % len(words), words[place]
