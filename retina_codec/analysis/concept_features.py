"""The features that concepts are compared with: loadings, channels, activations.

Why this file exists: all kinds of features are read in the same way afterwards, a few samples at a
time. It correlates nothing.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.analysis.layer_samples import input_dim, layer_dataset, read
from retina_codec.errors import RetinaCodecError

__all__ = ["KINDS", "chunks_of", "features_of", "kinds_of"]

Floats = npt.NDArray[np.float64]
KINDS = ("modes", "contributions", "activations", "activation_modes")


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


def features_of(
    tree: xr.DataTree, other: xr.DataTree | None, name: str, kind: str, sign: str
) -> xr.DataArray:
    """Return one kind of features of a layer, not read yet."""
    if kind in ("modes", "activation_modes"):
        source = tree if kind == "modes" or other is None else other
        layer = source["layers"].children.get(name)
        node = None if layer is None else layer.children.get("modes")
        if node is None or "loading" not in node.data_vars:
            raise RetinaCodecError(
                f"layer {name!r} has no modes to correlate ({kind}); run decompose() first, or "
                "leave them out of of=."
            )
        return node.to_dataset()["loading"]
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
