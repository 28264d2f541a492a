"""Which samples belong to which classes and superclasses, as a table of yes and no.

Why this file exists: classes, superclasses and any other concept are the same to everything that
follows, a column of a table. It reads no files.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from retina_codec.analysis.layer_samples import input_dim, sample_labels
from retina_codec.errors import RetinaCodecError

__all__ = ["checked_table", "concept_table"]


def concept_table(
    labels: Any, hierarchy: Mapping[str, str | Sequence[str]] | None = None
) -> xr.DataArray:
    """Say which samples belong to which classes, and to which groups of classes.

    Parameters
    ----------
    labels : array-like of str, (sample,)
        Class of every sample; "" or None for no class.
    hierarchy : mapping, optional
        Superclass, or superclasses, of a class. Classes that it does not name belong to none.

    Returns
    -------
    xr.DataArray of bool, dims (sample, concept)
        Classes first, then superclasses, each by alphabet; coordinate ``level`` along concept:
        "class" or "superclass".

    Raises
    ------
    RetinaCodecError
        If there are no labels, or a superclass has the name of a class.
    """
    coords = {}
    if isinstance(labels, xr.DataArray) and labels.ndim == 1 and "sample" in labels.coords:
        coords["sample"] = labels["sample"].values
    given = np.asarray(getattr(labels, "values", labels), dtype=object)
    if given.ndim != 1:
        raise RetinaCodecError(f"labels must be one per sample, (sample,); got {given.shape}.")
    names = np.array(["" if one is None or one != one else str(one) for one in given], dtype=str)
    classes = sorted(set(names.tolist()) - {""})
    if not classes:
        raise RetinaCodecError("there are no labels; give the class of every sample.")
    above: dict[str, set[str]] = {}
    for name, parents in (hierarchy or {}).items():
        for parent in [parents] if isinstance(parents, str) else parents:
            above.setdefault(str(parent), set()).add(str(name))
    groups = sorted(group for group, members in above.items() if members & set(classes))
    if twice := sorted(set(groups) & set(classes)):
        raise RetinaCodecError(
            f"a superclass must not have the name of a class; {twice[0]!r} has. Rename it."
        )
    columns = [names == name for name in classes]
    columns += [np.isin(names, sorted(above[group])) for group in groups]
    return xr.DataArray(
        np.stack(columns, 1),
        dims=("sample", "concept"),
        coords=coords
        | {
            "concept": [*classes, *groups],
            "level": ("concept", ["class"] * len(classes) + ["superclass"] * len(groups)),
        },
        name="member",
    )


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
