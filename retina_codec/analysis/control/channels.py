"""Match labels of images, outputs and modes with concepts, and order channels by modes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.analysis.concepts.table import concept_table
from retina_codec.analysis.control.settings import ControlSettings
from retina_codec.errors import RetinaCodecError
from retina_codec.probing.inputs import Source
from retina_codec.storage.results import sample_labels

__all__ = [
    "Choice",
    "Concepts",
    "best_modes",
    "channel_counts",
    "channel_weights",
    "concepts_of",
    "draw_orders",
    "keep_sets",
    "samples_of",
]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Masks = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Concepts:
    """N images with their classes, and the concepts whose channels are perturbed."""

    classes: list[str]  # those that images have
    code: npt.NDArray[np.intp]  # (N,), number along ``classes``
    output: npt.NDArray[np.intp]  # (N,), number of the network's output
    concepts: list[str]
    member: npt.NDArray[np.bool_]  # (concept, class)
    hierarchy: Mapping[str, str | Sequence[str]] | None
    outputs: Sequence[str] | None

    @property
    def single(self) -> int:
        """Number of classes of which there is a single image."""
        return int((np.bincount(self.code, minlength=len(self.classes)) == 1).sum())


def concepts_of(
    source: Source,
    labels: Any,
    outputs: Sequence[str] | None,
    superclasses: Mapping[str, str | Sequence[str]] | None,
    settings: ControlSettings,
) -> Concepts:
    """Match the labels of images with outputs and concepts."""
    given = source.coords.get("label") if labels is None else labels
    if given is None:
        raise RetinaCodecError(
            "labels must name the class of every image; got none, and the images carry no "
            "coordinate 'label'. Give labels=."
        )
    given = given[1] if isinstance(given, tuple) else given
    names = _names(given, outputs)
    if names.shape != (len(source),):
        raise RetinaCodecError(
            f"there must be one label per image, ({len(source)},); got shape {names.shape}."
        )
    table = concept_table(names, superclasses)
    wanted = "class" if superclasses is None else "superclass"
    table = table.isel(concept=table["level"].values == wanted)
    known = [str(name) for name in table["concept"].values]
    chosen = known if settings.concepts is None else [str(name) for name in settings.concepts]
    if not chosen or not set(chosen) <= set(known):
        raise RetinaCodecError(
            f"concepts must name {wanted}es of the images; got {chosen or 'none'}, there are "
            f"{known or 'none'}."
        )
    classes, code = np.unique(names, return_inverse=True)
    rows = table.sel(concept=chosen).transpose("concept", "sample").values
    first = [int(np.flatnonzero(code == number)[0]) for number in range(len(classes))]
    member = rows[:, first]
    lonely = [name for name, row in zip(chosen, member, strict=True) if row.all()]
    if lonely:
        raise RetinaCodecError(
            f"every concept needs classes outside it, to be off target; {lonely[0]!r} holds all "
            f"{len(classes)} classes of the images. Give images of other classes too."
        )
    off_classes, most = settings.off_classes, int((~member).sum(1).min())
    if off_classes is not None and not 1 <= off_classes <= most:
        raise RetinaCodecError(
            f"off_classes must be between 1 and {most}, the classes outside a concept; got "
            f"{off_classes}."
        )
    order = [str(name) for name in outputs] if outputs is not None else None
    number = {name: order.index(name) if order else int(name) for name in classes.tolist()}
    output = np.array([number[name] for name in names.tolist()], dtype=np.intp)
    return Concepts(
        classes.tolist(), code.astype(np.intp), output, chosen, member, superclasses, outputs
    )


def samples_of(
    tree: xr.DataTree, name: str, labels: Any, count: int, concepts: Concepts
) -> npt.NDArray[np.bool_]:
    """Return which samples of the modes belong to which concept, (sample, concept)."""
    if labels is not None:
        labels = _names(labels, concepts.outputs)
    given = sample_labels(tree, labels, name, count)
    if given is None:
        raise RetinaCodecError(
            "the results carry no labels, so no mode can be matched with a class. Give "
            "mode_labels=, the class of every sample that was explained."
        )
    _names(given[given != ""], concepts.outputs)
    table = concept_table(given, concepts.hierarchy)
    missing = [name for name in concepts.concepts if name not in table["concept"].values]
    if missing:
        raise RetinaCodecError(
            f"the samples of the modes must hold every concept; they hold none of {missing}. "
            "Explain images of these, or choose concepts=."
        )
    found: npt.NDArray[np.bool_] = (
        table.sel(concept=concepts.concepts).transpose("sample", "concept").values
    )
    return found


def _names(labels: Any, outputs: Sequence[str] | None) -> npt.NDArray[np.str_]:
    """Return labels as names: of outputs by name or number, else numbers as text."""
    given = np.asarray(getattr(labels, "values", labels))
    names = given.astype(str)
    if outputs is None:
        wrong = sorted({name for name in names.ravel().tolist() if not name.isdigit()})
        if wrong:
            raise RetinaCodecError(
                f"labels must be numbers of outputs where the network does not name its classes; "
                f"got {wrong[:5]}. Give numbers, or ControlSettings(classes=[...]) with names of "
                "the outputs in order; groups of classes are superclasses=."
            )
        return names
    known = [str(name) for name in outputs]
    if given.dtype.kind in "iu":
        if given.size and not 0 <= given.min() <= given.max() < len(known):
            raise RetinaCodecError(
                f"labels that are numbers must lie in 0..{len(known) - 1}, the outputs; got "
                f"{given.min()} to {given.max()}."
            )
        numbered: npt.NDArray[np.str_] = np.array(known)[given]
        return numbered
    wrong = sorted(set(names.ravel().tolist()) - set(known))
    if wrong:
        raise RetinaCodecError(
            f"labels must be classes of the network; got {wrong[:5]}, it has {known[:20]}"
            f"{' ...' if len(known) > 20 else ''}."
        )
    return names


@dataclass(frozen=True)
class Choice:
    """Channels of one layer in the order in which they are taken, and why."""

    order: Integers  # (concept or draw, group)
    mode: Integers | None = None  # (concept, rank), numbers along the dim mode
    correlation: Floats | None = None  # (concept, rank), Pearson r


def best_modes(
    loading: Floats, member: npt.NDArray[np.bool_], count: int
) -> tuple[Integers, Floats]:
    """Find the ``count`` modes (concept, rank) whose loadings correlate most, and r, largest first.

    ``loading`` (sample, mode), ``member`` (sample, concept). A loading that does not vary comes
    last, with r NaN.
    """
    z = loading - loading.mean(0)
    y = member - member.mean(0)
    scale = np.sqrt((z**2).sum(0)[:, None] * (y**2).sum(0))  # (m, k)
    varies = (np.ptp(loading, axis=0) > 0)[:, None] & (scale > 0)
    r = np.divide(z.T @ y, scale, out=np.full_like(scale, -np.inf), where=varies).T  # (k, m)
    mode = np.argsort(-r, axis=1, kind="stable")[:, :count]
    found = np.take_along_axis(r, mode, 1)
    return mode, np.where(np.isfinite(found), found, np.nan)


def channel_weights(dictionary: xr.DataArray, mode: Integers, sign: str) -> Floats:
    """Sum the weights of modes (concept, rank) for every channel: (concept, channel).

    ``sign`` is "excitatory", "inhibitory" (its size) or "net", the sum of both.
    """
    ordered = dictionary.transpose("mode", "sign", "channel")
    if sign == "net":
        weight = ordered.sum("sign").values
    else:
        weight = np.abs(ordered.sel(sign=sign).values)
    found: Floats = weight.astype(np.float64)[mode].sum(1)
    return found


def draw_orders(weight: Floats, random: np.random.Generator) -> Integers:
    """Order channels by weight (row, channel), the largest first, equal ones by chance."""
    ties = random.permuted(np.tile(np.arange(weight.shape[1]), (len(weight), 1)), axis=1)
    found: Integers = np.lexsort((ties, -weight), axis=1)
    return found


def channel_counts(percentages: npt.ArrayLike, channels: int) -> Integers:
    """Return the number of channels of each percentage: the nearest, at least 1, never all."""
    share = np.asarray(percentages, np.float64) / 100
    found: Integers = np.clip(np.floor(share * channels + 0.5), 1, max(1, channels - 1)).astype(int)
    return found


def keep_sets(order: Integers, counts: Integers, style: str, channels: int) -> Masks:
    """Return masks (row, percentage, channel), 1: kept; the first groups are ablated, or kept.

    Groups in ``order`` (row, group) are equal runs of neighbouring channels (attention heads), or
    single channels.

    Raises
    ------
    RetinaCodecError
        If groups cannot share the channels evenly.
    """
    groups = order.shape[1]
    if channels % groups:
        raise RetinaCodecError(
            f"the modes have {groups} channels (or heads), which cannot share the layer's "
            f"{channels} evenly. Give modes of this layer, or the number of its heads."
        )
    place = np.argsort(order, axis=1)  # (row, group): rank in the order
    taken = place[:, None] < counts[None, :, None]
    kept = taken if style == "preserve" else ~taken
    return np.repeat(kept, channels // groups, axis=2).astype(np.float32)
