"""Reading results of `contribute` a few inputs at a time, with the labels of the inputs.

Why this file exists: contributions of 50,000 images to 2048 channels do not fit into memory beside
everything else, so statistics go through them in chunks; and every statistic must find layers,
labels and the dim of the inputs in the same way. It computes no statistic.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.errors import RetinaCodecError

__all__ = [
    "QUANTITIES",
    "chosen_layers",
    "class_codes",
    "input_dim",
    "layer_dataset",
    "layer_sites",
    "read",
    "read_quantities",
    "sample_labels",
]

Floats = npt.NDArray[np.float64]


QUANTITIES = ("contribution", "excitatory", "inhibitory", "activation")


SITES = ("blocks", "mlp", "attention")


BYTES = 2**26  # of one chunk in float64


def chosen_layers(tree: xr.DataTree, layers: str | Sequence[str] | None = None) -> list[str]:
    """Name the layers to go through: all, or those asked for.

    All of them stand in the order of their depth where the results know it (files do not keep the
    order of layers): by site, block outputs first, then by number of the block.

    Raises
    ------
    RetinaCodecError
        If there are none, or one is not there.
    """
    found = list(tree["layers"].children) if "layers" in tree.children else []
    layers = [layers] if isinstance(layers, str) else layers
    chosen = _by_depth(tree, found) if layers is None else list(layers)
    if not chosen or not set(chosen) <= set(found):
        raise RetinaCodecError(
            f"layers must name explained layers; got {chosen or 'none'}, the tree holds "
            f"{found or 'none'}. Pass what contribute() returned."
        )
    return chosen


def _by_depth(tree: xr.DataTree, names: list[str]) -> list[str]:
    """Sort layers by site and block, if that is known of all."""
    attrs = {name: tree["layers"].children[name].attrs for name in names}
    if not all({"site", "block"} <= set(about) for about in attrs.values()):
        return names
    sites = layer_sites(tree, names)
    rank = {site: (SITES.index(site) if site in SITES else len(SITES), site) for site in sites}
    place = dict(zip(names, sites, strict=True))
    return sorted(names, key=lambda name: (rank[place[name]], int(attrs[name]["block"])))


def layer_sites(tree: xr.DataTree, names: Sequence[str]) -> list[str]:
    """Return the site of every layer ("blocks", "mlp", "attention"); "" where it is not known."""
    return [str(tree["layers"].children[name].attrs.get("site", "")) for name in names]


def layer_dataset(tree: xr.DataTree, name: str) -> xr.Dataset:
    """Return contributions (input, sign, channel) and activations (input, channel) of a layer.

    Raises
    ------
    RetinaCodecError
        If the layer does not hold them.
    """
    layer = tree[f"layers/{name}"].to_dataset()
    held = {str(key): value.dims for key, value in layer.data_vars.items()}
    if not {"contribution", "activation"} <= set(held) or not (
        {"sign", "channel"} < set(held["contribution"]) and len(held["contribution"]) == 3
    ):
        raise RetinaCodecError(
            f"layer {name!r} must hold contribution (sample or time, sign, channel) and activation "
            f"(sample or time, channel); it holds {held}. Run contribute() with ChannelSums()."
        )
    if "inhibitory" not in layer["contribution"].coords.get("sign", ()):
        raise RetinaCodecError(
            f"contributions of layer {name!r} need sign labels 'inhibitory' and 'excitatory'; "
            "run contribute() again."
        )
    dim = input_dim(layer["contribution"])
    return xr.Dataset(
        {
            "contribution": layer["contribution"].transpose(dim, "sign", "channel"),
            "activation": layer["activation"].transpose(dim, "channel"),
        }
    )


def input_dim(values: xr.DataArray) -> str:
    """Return the dim of the inputs: ``sample`` or ``time``.

    Raises
    ------
    RetinaCodecError
        If it has neither.
    """
    for dim in ("sample", "time"):
        if dim in values.dims:
            return dim
    raise RetinaCodecError(
        f"values must have a dim 'sample' or 'time' for the inputs; got dims {values.dims}."
    )


def read(
    arrays: Mapping[str, xr.DataArray], dim: str, *, size: int = BYTES
) -> Iterator[tuple[slice, dict[str, Floats]]]:
    """Go through arrays along ``dim``; each chunk as float64 with ``dim`` first.

    A chunk has about ``size`` bytes, whole chunks of the file where the arrays lie in one.
    """
    ordered = {key: values.transpose(dim, ...) for key, values in arrays.items()}
    first = next(iter(ordered.values()))
    total = int(first.sizes[dim])
    row = sum(8 * values.size // max(1, values.sizes[dim]) for values in ordered.values())
    rows = max(1, size // max(1, row))
    stored = first.encoding.get("chunks") or first.encoding.get("chunksizes")
    if stored and stored[0] < rows:
        rows -= rows % int(stored[0])
    for start in range(0, total, rows):
        part = slice(start, min(start + rows, total))
        yield (
            part,
            {k: v.isel({dim: part}).to_numpy().astype(np.float64) for k, v in ordered.items()},
        )


def read_quantities(layer: xr.Dataset) -> Iterator[tuple[slice, dict[str, Floats]]]:
    """Go through what `layer_dataset` returned; each chunk (input, channel) by quantity.

    Quantities in the order of `QUANTITIES`: C⁺ + C⁻, C⁺, C⁻, activation.
    """
    signs = layer["contribution"]["sign"].values.tolist()
    low, high = signs.index("inhibitory"), signs.index("excitatory")
    arrays = {str(key): layer[key] for key in ("contribution", "activation")}
    for part, chunk in read(arrays, input_dim(layer["contribution"])):
        minus, plus = chunk["contribution"][:, low], chunk["contribution"][:, high]
        values = (minus + plus, plus, minus, chunk["activation"])
        yield part, dict(zip(QUANTITIES, values, strict=True))


def sample_labels(
    tree: xr.DataTree, labels: Any, layer: str, count: int
) -> npt.NDArray[np.str_] | None:
    """Return the label of every input as text, ``""`` where it has none; None without labels.

    Parameters
    ----------
    tree : xr.DataTree
        Labels are its coordinate ``label`` along the inputs when none are given.
    labels : array-like of str or int, (sample,), optional
    layer : str
        A layer to look at.
    count : int
        Number of inputs.

    Raises
    ------
    RetinaCodecError
        If there is not one label per input.
    """
    if labels is None:
        nodes = [tree["layers"].children[layer], tree.children.get("responses"), tree]
        labelled = [node for node in nodes if node is not None and "label" in node.coords]
        if not labelled:
            return None
        labels = labelled[0].coords["label"]
    given = np.asarray(getattr(labels, "values", labels), dtype=object)
    if given.shape != (count,):
        raise RetinaCodecError(
            f"there must be one label per input, ({count},); got labels of shape {given.shape}."
        )
    return np.array(["" if value is None or value != value else str(value) for value in given])


def class_codes(labels: npt.NDArray[np.str_]) -> tuple[npt.NDArray[np.intp], list[str]]:
    """Give classes numbers by alphabet; −1 for inputs without a label."""
    names, codes = np.unique(labels, return_inverse=True)
    if len(names) and names[0] == "":
        return codes.astype(np.intp) - 1, [str(name) for name in names[1:]]
    return codes.astype(np.intp), [str(name) for name in names]
