"""Decompose the contributions of each layer into modes and loadings, labelled and with units."""

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.modes.base import Decomposition, Fitted
from retina_codec.modes.explained_variance import scorecard
from retina_codec.storage.results import layers_of

__all__ = ["checked_contribution", "decompose", "modes_of"]

ACTIVE = 0.01  # a mode is active where its loading exceeds this share of the global scale


# Nodes of the tree and of a layer that were computed from the modes; dropped with them.
STALE = ("pathways", "receptive_fields", "hypotheses")
STALE_OF_LAYER = ("own", "pathways", "score")


def decompose(
    tree: xr.DataTree,
    decomposition: Decomposition,
    *,
    layers: Sequence[str] | None = None,
    signs: str | Sequence[str] | None = None,
    held_out: float = 0.25,
    gap: int = 40,
    device: str | torch.device | None = None,
    progress: bool | None = None,
) -> xr.DataTree:
    """Decompose the contributions of every layer into modes and loadings.

    contribution[t, sign, channel] ≈ Σ_mode loading[t, mode] · dictionary[mode, sign, channel].
    Features are sign × channel, divided by one global standard deviation, that of the fitted part.
    The first part of the data is fitted, the last part only scored, with a gap between them
    because neighbouring times share stimulus history.

    Parameters
    ----------
    tree : xr.DataTree
        Results of `contribute`: ``/layers/<name>/contribution`` (time or sample, sign, channel).
    decomposition : Decomposition
        For instance `SparseAutoencoder`; ``rc.modes.registry.list()`` names all.
    layers : sequence of str, optional
        Which layers; all if left out.
    signs : str or sequence of str, optional
        Which signs are features: both side by side when left out (the retina), "excitatory" alone
        in analyses of images. Entries of a mode for other signs are 0, their scores NaN.
    held_out : float
        Share of the samples, at the end, that the fit never sees.
    gap : int
        Samples left out between the two parts.
    device : str or torch.device, optional
        Where to compute; the CPU when left out.
    progress : bool, optional
        None shows bars after 2 s, False never, True at once.

    Returns
    -------
    xr.DataTree
        A copy with ``/layers/<name>/modes``: ``dictionary`` (mode, sign, channel), unit length,
        dimensionless, inhibitory entries <= 0 if the decomposition is sign consistent; ``loading``
        (time, mode), >= 0 (but for `PCA`), unit of the contributions; ``scale`` (), the standard
        deviation used; ``active`` (time, mode), where the size of the loading exceeds 1 % of
        ``scale``; the scores of `scorecard`; ``split`` along time.
        Modes that never load in the fitted part are dropped; the others stand in order of the
        sum they explain there, largest first. Results of earlier modes are dropped: own
        contributions, scores and pathways of these layers; pathways of all layers, receptive fields
        and hypotheses.

    Raises
    ------
    RetinaCodecError
        If there are no such layers, a contribution is not finite or does not vary, the parts
        would be too short, or what the decomposition returns is no `Fitted` for these features.

    References
    ----------
    Melander et al. 2026, decomposition of contributions.
    """
    if not isinstance(decomposition, Decomposition):
        raise RetinaCodecError(
            "decomposition must be one of rc.modes, for instance rc.modes.SparseAutoencoder(), or "
            f"of a subclass of rc.modes.Decomposition; got {decomposition!r}."
        )
    chosen = layers_of(tree, layers)
    result = tree.copy()
    _drop(result, STALE)
    for name in chosen:
        _drop(result["layers"].children[name], STALE_OF_LAYER)
        contribution = checked_contribution(tree, name, signs)
        modes = modes_of(contribution, decomposition, held_out, gap, device, progress)
        if signs is not None:
            modes = on_all_signs(modes, tree[f"layers/{name}"].to_dataset()["sign"])
        result[f"layers/{name}/modes"] = xr.DataTree(modes)
    return result


def _drop(node: xr.DataTree, names: Sequence[str]) -> None:
    for name in names:
        if name in node.children:
            del node[name]


def checked_contribution(
    tree: xr.DataTree, name: str, signs: str | Sequence[str] | None = None
) -> xr.DataArray:
    """Return a layer's contributions in order (sample, sign, channel), all finite."""
    layer = tree[f"layers/{name}"].to_dataset()
    if "contribution" not in layer or not {"sign", "channel"} <= set(layer["contribution"].dims):
        raise RetinaCodecError(
            f"layer {name!r} must hold contribution (time, sign, channel); it holds "
            f"{ {key: value.dims for key, value in layer.data_vars.items()} }."
        )
    contribution = layer["contribution"].transpose(..., "sign", "channel")
    if contribution.ndim != 3 or "inhibitory" not in contribution.coords["sign"]:
        raise RetinaCodecError(
            f"contribution of layer {name!r} must have dims (time or sample, sign, channel) and "
            f"sign labels 'inhibitory', 'excitatory'; got dims {contribution.dims}."
        )
    bad = ~np.isfinite(contribution.values).all(axis=(1, 2))
    if bad.any():
        raise RetinaCodecError(
            f"contributions of layer {name!r} must be finite; {int(bad.sum())} of {len(bad)} "
            f"samples are not, the first is number {int(bad.argmax())}. Leave these out."
        )
    if signs is None:
        return contribution
    chosen = [signs] if isinstance(signs, str) else [str(sign) for sign in signs]
    known = contribution["sign"].values.tolist()
    if not chosen or not set(chosen) <= set(known):
        raise RetinaCodecError(
            f"signs must name signs of the contributions; got {chosen or 'none'}, there are "
            f"{known}. Leave signs out to take both."
        )
    return contribution.sel(sign=chosen)


def on_all_signs(found: xr.Dataset, sign: xr.DataArray) -> xr.Dataset:
    """Put modes (or scores) of some signs on all signs; the attrs say which were features."""
    own = ",".join(str(name) for name in found["sign"].values)
    whole = found.reindex(sign=sign.values, fill_value={"dictionary": np.float32(0)})
    return whole.assign_attrs(signs=own)


def _split_labels(count: int, held_out: float, gap: int) -> np.ndarray:
    """Label samples "fit", "gap", "held_out" in this order."""
    if not 0 < held_out < 1 or gap < 0:
        raise RetinaCodecError(
            f"held_out must lie between 0 and 1 and gap must be >= 0; got {held_out=}, {gap=}."
        )
    last = round(held_out * count)
    first = count - last - gap
    if last < 2 or first < 4:
        raise RetinaCodecError(
            f"the fit needs at least 4 samples and its scores 2; {count} samples with "
            f"{held_out=} and {gap=} leave {max(first, 0)} and {last}. Give a longer recording or "
            "a smaller gap."
        )
    return np.repeat(["fit", "gap", "held_out"], [first, gap, last])


def modes_of(
    contribution: xr.DataArray,
    decomposition: Decomposition,
    held_out: float,
    gap: int,
    device: str | torch.device | None,
    progress: bool | None,
) -> xr.Dataset:
    """Find and label the modes of one layer; their content as in `decompose`."""
    dim = str(contribution.dims[0])
    split = _split_labels(contribution.sizes[dim], held_out, gap)
    values = contribution.values.astype(np.float64)
    scale = float(values[split == "fit"].std())
    if not scale > 0:
        raise RetinaCodecError(
            "contributions must vary in the fitted part; they are all alike there. Give a "
            "recording in which the network is active and the stimulus varies."
        )
    sign = np.where(contribution["sign"].values == "inhibitory", -1.0, 1.0)[:, None]
    if not decomposition.sign_consistent:
        sign = np.ones_like(sign)
    scaled = (values * sign / scale).reshape(len(values), -1)
    features = torch.as_tensor(scaled.astype(np.float32), device=device)
    fitted = decomposition.fit(features[torch.as_tensor(split == "fit")], progress=progress)
    loading, unpolished = (
        found * np.float32(scale) for found in _loadings(decomposition, fitted, features)
    )
    dictionary = fitted.dictionary.cpu().numpy().reshape(-1, *values.shape[1:])

    explained = np.abs(loading[split == "fit"]).sum(0) * np.abs(dictionary).sum((1, 2))
    alive = (np.abs(loading[split == "fit"]) > ACTIVE * scale).any(0)
    order = np.argsort(-explained, kind="stable")
    order = order[alive[order]]
    if len(order) == 0:
        raise RetinaCodecError(
            f"no mode is active after the fit of {type(decomposition).__name__}; try another seed, "
            "more epochs, or SparseAutoencoder()."
        )
    units = contribution.attrs.get("units", "1")
    coords = {**contribution.coords, "mode": np.arange(len(order)), "split": (dim, split)}
    loading = loading[:, order]
    modes = xr.Dataset(
        {
            "dictionary": (
                ("mode", *contribution.dims[1:]),
                (dictionary * sign).astype(np.float32)[order],
                {"units": "1", "long_name": "modes, unit length"},
            ),
            "loading": ((dim, "mode"), loading, {"units": units, "long_name": "loading"}),
            "active": ((dim, "mode"), np.abs(loading) > ACTIVE * scale, {"units": "1"}),
            "scale": ((), scale, {"units": units, "long_name": "global standard deviation"}),
        },
        coords=coords,
        attrs=decomposition.settings()
        | {"kept_epoch": fitted.epochs, "held_out": held_out, "gap": gap},
    )
    raw = modes["loading"].copy(data=unpolished[:, order])
    return modes.assign(scorecard(contribution, modes, unpolished=raw).data_vars)


def _loadings(
    decomposition: Decomposition, fitted: Fitted, features: torch.Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """Return loadings (sample, mode) of features (sample, feature), polished and unpolished."""
    name = type(decomposition).__name__
    if not isinstance(fitted, Fitted):
        raise RetinaCodecError(
            f"fit() of {name} must return a subclass of rc.modes.Fitted; got "
            f"{type(fitted).__name__}."
        )
    found = tuple(
        encode(features).detach().cpu().numpy()
        for encode in (fitted.encode, fitted.encode_unpolished)
    )
    modes, wide = fitted.dictionary.shape
    shapes = [one.shape for one in found]
    if wide != features.shape[1] or shapes != [(len(features), modes)] * 2:
        raise RetinaCodecError(
            f"{name} must return a dictionary (mode, {features.shape[1]}) and loadings "
            f"({len(features)}, mode); got {(modes, wide)} and {shapes[0]}, unpolished {shapes[1]}."
        )
    return found[0], found[1]
