"""Read results: which layers they hold, one node, labels of inputs, and chunks of large arrays."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.errors import RetinaCodecError

__all__ = [
    "QUANTITIES",
    "class_codes",
    "input_dim",
    "layer_dataset",
    "layer_sites",
    "layers_of",
    "layers_with",
    "modes_at",
    "read",
    "read_quantities",
    "sample_labels",
    "table",
]

Floats = npt.NDArray[np.float64]

QUANTITIES = ("contribution", "excitatory", "inhibitory", "activation")

SITES = ("blocks", "mlp", "attention")

BYTES = 2**26  # of one chunk in float64

MADE_BY = {
    "contributions": "contribute",
    "modes": "decompose",
    "score": "score_modes",
    "pathways": "find_pathways",
}


def layers_of(
    tree: xr.DataTree,
    layers: str | Sequence[str] | None = None,
    *,
    part: str = "",
    among: Sequence[str] | None = None,
) -> list[str]:
    """Name the layers of results: those asked for, or all that hold a part.

    Parameters
    ----------
    tree : xr.DataTree
        Results of `contribute`, or of what works on them.
    layers : str or sequence of str, optional
        Layers that must be there. All when left out, in the order of their depth where the results
        know it: by site, block outputs first, then by number of the block.
    part : {"", "modes", "score", "pathways"}
        What each layer must hold below it; nothing by default.
    among : sequence of str, optional
        The layers to look for, in this order, where not all of them need to be there.

    Returns
    -------
    list of str
        At least one.

    Raises
    ------
    RetinaCodecError
        If there are none, or one that was asked for is not there.
    """
    found = layers_with(tree, part)
    if layers is not None:
        chosen = [layers] if isinstance(layers, str) else [str(name) for name in layers]
    elif among is not None:
        chosen = [name for name in among if name in found]
    else:
        chosen = found
    if not chosen or not set(chosen) <= set(found):
        what = part or "contributions"
        asked = chosen or (f"one of {list(among)}" if among else "at least one layer")
        raise RetinaCodecError(
            f"the results must hold {what} of {asked}; they hold {what} of {found or 'no layer'}: "
            f"run {MADE_BY.get(what, 'analyze')}() first."
        )
    return chosen


def layers_with(tree: xr.DataTree, part: str = "") -> list[str]:
    """Name all layers of results that hold a part, as `layers_of` does; there may be none."""
    nodes = tree["layers"].children if "layers" in tree.children else {}
    found = [str(name) for name, node in nodes.items() if not part or part in node.children]
    return _by_depth(tree, found)


def table(tree: xr.DataTree, path: str) -> xr.Dataset:
    """Return one node of the results as a dataset.

    Raises
    ------
    RetinaCodecError
        If there is no such node.
    """
    try:
        node = tree[path]
    except KeyError:
        node = None
    if not isinstance(node, xr.DataTree):
        found = ", ".join(str(name) for name in tree.children) or "none"
        raise RetinaCodecError(
            f"the tree must hold the node {path}; its nodes are {found}: pass one that holds it, "
            "such as the results of analyze()."
        )
    return node.to_dataset()


def modes_at(tree: xr.DataTree, layer: str) -> xr.Dataset:
    """Return the modes of a layer, as `decompose` describes them.

    Raises
    ------
    RetinaCodecError
        If the layer has none.
    """
    layers_of(tree, layer, part="modes")
    return tree["layers"].children[layer].children["modes"].to_dataset()


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
