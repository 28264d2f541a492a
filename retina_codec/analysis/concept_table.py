"""Which samples belong to which classes and superclasses, as a table of yes and no.

Why this file exists: classes, superclasses and any other concept are the same to everything that
follows, a column of a table. Labels may be numbers here, and the table is checked against results.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from retina_codec.analysis.layer_samples import input_dim, sample_labels
from retina_codec.errors import RetinaCodecError
from retina_codec.recordings.hierarchy import membership

__all__ = ["checked_table", "concept_table"]


def concept_table(labels: Any, hierarchy: Mapping[str, Any] | None = None) -> xr.DataArray:
    """Say which samples belong to which classes, and to which groups of classes.

    Parameters
    ----------
    labels : array-like of str or numbers, (sample,)
        Class of every sample; "", None or NaN for no class.
    hierarchy : Hierarchy or mapping, optional
        From `read_hierarchy`, or class to superclass, or to several. Classes that it does not
        name belong to none.

    Returns
    -------
    xr.DataArray of bool, dims (sample, concept)
        See `recordings.hierarchy.membership`: classes first, then superclasses; coordinate
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
