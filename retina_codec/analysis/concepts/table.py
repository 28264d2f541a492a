"""Tables of samples and concepts (classes, superclasses), and the features to correlate."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.images.hierarchy import membership
from retina_codec.storage.results import (
    input_dim,
    layer_dataset,
    layers_of,
    layers_with,
    modes_at,
    read,
    sample_labels,
)

__all__ = [
    "KINDS",
    "checked_table",
    "chunks_of",
    "concept_table",
    "features_of",
    "kinds_of",
    "layers_for",
]

Floats = npt.NDArray[np.float64]

KINDS = ("modes", "contributions", "activations", "activation_modes")


def concept_table(labels: Any, hierarchy: Mapping[str, Any] | None = None) -> xr.DataArray:
    """Return which samples belong to which classes, and to which superclasses.

    Parameters
    ----------
    labels : array-like of str or numbers, (sample,)
        Class of every sample; "", None or NaN for no class.
    hierarchy : Hierarchy or mapping, optional
        From `open_hierarchy`, or class to superclass, or to several. Classes that it does not
        name belong to none.

    Returns
    -------
    xr.DataArray of bool, dims (sample, concept)
        See `retina_codec.images.hierarchy.membership`: classes first, then superclasses; coordinate
        ``level`` along concept.

    Raises
    ------
    RetinaCodecError
        If there are no labels, or a superclass has the name of a class.
    """
    given = np.asarray(getattr(labels, "values", labels), dtype=object)
    if given.ndim != 1:
        raise RetinaCodecError(f"labels must be one per sample, (sample,); got {given.shape}.")
    text = np.array(["" if one is None or one != one else str(one) for one in given], dtype=str)
    coords = labels.coords if isinstance(labels, xr.DataArray) else None
    named = xr.DataArray(text, dims=getattr(labels, "dims", ("sample",)), coords=coords)
    return membership(named, hierarchy)


def checked_table(
    tree: xr.DataTree, concepts: xr.DataArray | None, name: str, first: xr.DataArray
) -> xr.DataArray:
    """Return the table of concepts, checked against the samples."""
    dim = input_dim(first)
    count = int(first.sizes[dim])
    if concepts is None:
        labels = sample_labels(tree, None, name, count)
        if labels is None:
            raise RetinaCodecError(
                "the results carry no labels; give concepts=concept_table(labels)."
            )
        return concept_table(labels)
    if set(concepts.dims) != {"sample", "concept"} or concepts.dtype != bool:
        raise RetinaCodecError(
            f"concepts must be bool (sample, concept); got {concepts.dtype} {concepts.dims}. Use "
            "concept_table(labels)."
        )
    same = "sample" not in concepts.coords or dim not in first.coords
    if concepts.sizes["sample"] != count or not (
        same or np.array_equal(concepts["sample"].values, first[dim].values)
    ):
        raise RetinaCodecError(
            f"concepts must be of the same samples as the results; got {concepts.sizes['sample']} "
            f"for {count}, or other labels. Select common samples."
        )
    if "concept" not in concepts.coords:
        concepts = concepts.assign_coords(concept=np.arange(concepts.sizes["concept"]))
    return concepts


def kinds_of(of: str | Sequence[str], activation_modes: xr.DataTree | None) -> list[str]:
    """Return the kinds that are asked for, in their usual order."""
    kinds = [of] if isinstance(of, str) else list(of)
    if activation_modes is not None and "activation_modes" not in kinds:
        kinds.append("activation_modes")
    if not kinds or not set(kinds) <= set(KINDS):
        raise RetinaCodecError(f"of must name some of {', '.join(KINDS)}; got {kinds}.")
    if "activation_modes" in kinds and activation_modes is None:
        raise RetinaCodecError(
            "activation modes must be given: activation_modes=decompose(activation_tree(tree), "
            "method)."
        )
    return [kind for kind in KINDS if kind in kinds]


def layers_for(
    tree: xr.DataTree,
    activation_modes: xr.DataTree | None,
    kinds: Sequence[str],
    layers: str | Sequence[str] | None,
) -> list[str]:
    """Return the layers asked for, or all that hold every kind of features."""
    found = layers_of(tree, layers)
    sources = {
        "modes": tree,
        "activation_modes": activation_modes,
    }
    holders = {kind: layers_with(one, "modes") for kind, one in sources.items()
               if kind in kinds and one is not None}  # fmt: skip
    if layers is None:
        whole = [name for name in found if all(name in held for held in holders.values())]
        if not whole:
            both = " both modes and activation modes" if len(holders) > 1 else " modes"
            raise RetinaCodecError(
                f"at least one layer must hold every kind of features; no layer has{both} "
                f"(layers: {', '.join(found)}). Run decompose() on the same layers, or leave modes "
                "out: of=('contributions', 'activations')."
            )
        return whole
    for kind, held in holders.items():
        missing = [name for name in found if name not in held]
        if missing:
            what = "the results" if kind == "modes" else "activation_modes"
            raise RetinaCodecError(
                f"{what} must hold modes of {missing}; they hold modes of {held or 'no layer'}. "
                f"Run decompose(..., layers={found}), or choose layers= among these."
            )
    return found


def features_of(
    tree: xr.DataTree, other: xr.DataTree | None, name: str, kind: str, sign: str
) -> xr.DataArray:
    """Return one kind of features of a layer, not read yet."""
    if kind in ("modes", "activation_modes"):
        source = tree if kind == "modes" or other is None else other
        return modes_at(source, name)["loading"]
    dataset = layer_dataset(tree, name)
    if kind == "activations":
        return dataset["activation"]
    both = dataset["contribution"]
    return both if sign == "net" else both.sel(sign=sign)


def chunks_of(array: xr.DataArray, count: int) -> Callable[[], Iterator[tuple[slice, Floats]]]:
    """Return a way to go through (slice, features); signs are added up."""
    dim = input_dim(array)
    if array.sizes[dim] != count:
        raise RetinaCodecError(
            f"all features must be of the same samples; got {array.sizes[dim]} and {count}."
        )

    def chunks() -> Iterator[tuple[slice, Floats]]:
        for part, values in read({"v": array}, dim):
            one = values["v"]
            yield part, one.sum(axis=1) if one.ndim == 3 else one

    return chunks
