"""The methods by name: what results say they were made with, found again.

Why this file exists: scoring fits the same method again from other starting points, and knows it
only from the attributes of the results. A new method is one class in its own file and one line
here.
"""

from collections.abc import Mapping
from typing import Any

from retina_codec.errors import RetinaCodecError
from retina_codec.modes.base import DecompositionMethod, restore
from retina_codec.modes.decompositions.gated import GatedAutoencoder
from retina_codec.modes.decompositions.kmeans import KMeans
from retina_codec.modes.decompositions.linear import PCA, RawChannels
from retina_codec.modes.decompositions.nmf import NMF, SemiNMF
from retina_codec.modes.decompositions.sparse_autoencoder import SparseAutoencoder
from retina_codec.modes.decompositions.topk import BatchTopKAutoencoder, TopKAutoencoder

__all__ = ["METHODS", "method_of"]

METHODS: dict[str, type[Any]] = {
    kind.__name__: kind
    for kind in (
        SparseAutoencoder,
        GatedAutoencoder,
        TopKAutoencoder,
        BatchTopKAutoencoder,
        NMF,
        SemiNMF,
        PCA,
        KMeans,
        RawChannels,
    )
}


def method_of(attrs: Mapping[str, Any]) -> DecompositionMethod:
    """Make the method that modes were found with, from their attributes.

    Parameters
    ----------
    attrs : mapping
        ``method``, and its settings by name, as `decompose` writes them.

    Returns
    -------
    DecompositionMethod

    Raises
    ------
    RetinaCodecError
        If the name is not that of a method of this package.
    """
    name = str(attrs.get("method", "none"))
    if name not in METHODS:
        raise RetinaCodecError(
            f"method must be one of {', '.join(METHODS)}; got {name!r}. Decompose with one of "
            "these, or give the method itself."
        )
    found: DecompositionMethod = restore(METHODS[name], attrs)
    return found
