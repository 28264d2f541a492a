"""Decompose the contributions of each layer into modes and loadings, labelled and with units."""

import warnings
from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr

from retina_codec.errors import RecordingWarning, RetinaCodecError, in_words
from retina_codec.modes.base import Decomposition, Fitted
from retina_codec.modes.explained_variance import scorecard
from retina_codec.modes.scaling import (
    Loaded,
    Scaling,
    load_modes,
    measure_scaling,
    without_scaling,
)
from retina_codec.networks.borrowed import settled
from retina_codec.storage.results import layers_of

__all__ = ["checked_contribution", "decompose", "modes_of"]

WRONG = 0.01  # share of squared contributions of the wrong sign that is worth a warning
ACTIVE = 0.01  # a mode is active where its loading exceeds this share of the global scale


# Nodes of the tree and of a layer that were computed from the modes; dropped with them.
STALE = ("pathways", "receptive_fields", "hypotheses")
STALE_OF_LAYER = ("own", "pathways", "score")


@settled()
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
    Constant and extreme values are kept out of the fit (`measure_scaling`) and come back as modes
    of their own, in addition to those of the decomposition (`load_modes`), so that the product
    above rebuilds the contributions in their units. The first part of the data is fitted, the last
    part only scored, with a gap between them because neighbouring times share stimulus history.

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
        deviation used; ``offset`` and ``feature_scale`` (sign, channel), the constant part of each
        feature (0 where there is none) and what the rest was divided by (``scale``, larger where
        one feature dominates), unit of the contributions; ``active`` (time, mode), where the size
        of the loading exceeds 1 % of ``scale``; the scores of `scorecard`; ``split`` along time;
        ``origin`` along mode: "fit" for modes of the decomposition, "constant" for modes of
        the offsets, "outlier" for a feature that alone carries a sample beyond the others,
        "opposite" for a feature's values of the wrong sign.
        Modes of the fit that never load in the fitted part are dropped; modes stand in order of the
        sum they explain there, largest first. Results of earlier modes are dropped: own
        contributions, scores and pathways of these layers; pathways of all layers, receptive fields
        and hypotheses.

    Warns
    -----
    RecordingWarning
        If more than 1 % of the squared contributions have the wrong sign for their label and the
        decomposition is sign consistent: modes of single features must carry these.

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
        if decomposition.sign_consistent:
            _check_signs(contribution, name)
        modes = modes_of(contribution, decomposition, held_out, gap, device, progress)
        if signs is not None:
            modes = on_all_signs(modes, tree[f"layers/{name}"].to_dataset()["sign"])
        result[f"layers/{name}/modes"] = xr.DataTree(modes)
    return result


def _check_signs(contribution: xr.DataArray, name: str) -> None:
    """Warn of contributions whose sign is not that of their label."""
    power = contribution.astype(np.float64) ** 2
    wrong = (contribution > 0) == (contribution["sign"] == "inhibitory")
    share = float(power.where(wrong, 0.0).sum()) / max(float(power.sum()), 1e-300)
    if share > WRONG:
        warnings.warn(
            f"contributions of layer {name!r} should be <= 0 where sign is 'inhibitory' and >= 0 "
            f"elsewhere; {share:.0%} of their squares are not, and modes of single features carry "
            "these. Check the labels, or use sign_consistent=False or PCA.",
            RecordingWarning,
            stacklevel=3,
        )


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
            f"{held_out=} and {gap=} leave {max(first, 0)} and {last}. Give a longer recording"
            + in_words(" or a smaller gap.", ".")
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
    sign = np.where(contribution["sign"].values == "inhibitory", -1.0, 1.0)[:, None]
    if not decomposition.sign_consistent:
        sign = np.ones_like(sign)
    values = (values * sign).reshape(len(values), -1)
    sign = np.broadcast_to(sign, contribution.shape[1:])
    part = values[split == "fit"]
    scaling = _scaling(part, sign.ravel(), decomposition)
    features = scaling.shorten(scaling.apply(scaling.level(part)).astype(np.float32))
    fitted = decomposition.fit(torch.as_tensor(features, device=device), progress=progress)
    found = load_modes(
        values,
        scaling,
        _dictionary(decomposition, fitted, values.shape[1]),
        lambda scaled: _loadings(decomposition, fitted, torch.as_tensor(scaled, device=device)),
        lambda scaled, weight: _weighted(fitted, scaled, weight, device),
    )
    order = _order(found, split == "fit", scaling.scale)
    if not (found.origin[order] == "fit").any():
        raise RetinaCodecError(
            f"no mode is active after the fit of {type(decomposition).__name__}; try "
            + in_words("another seed, more epochs, or SparseAutoencoder().", "another --seed.")
        )
    units = contribution.attrs.get("units", "1")
    modes_dims = ("mode", *contribution.dims[1:])
    loading = found.loading[:, order]
    dictionary = found.dictionary[order].reshape(-1, *sign.shape) * sign
    modes = xr.Dataset(
        {
            "dictionary": (
                modes_dims,
                dictionary.astype(np.float32),
                {"units": "1", "long_name": "modes, unit length"},
            ),
            "loading": ((dim, "mode"), loading, {"units": units, "long_name": "loading"}),
            "active": ((dim, "mode"), np.abs(loading) > ACTIVE * scaling.scale, {"units": "1"}),
            "scale": (
                (),
                scaling.scale,
                {"units": units, "long_name": "global standard deviation"},
            ),
        },
        coords={
            **contribution.coords,
            "mode": np.arange(len(order)),
            "origin": ("mode", found.origin[order]),
            "split": (dim, split),
        },
        attrs=decomposition.settings()
        | {"kept_epoch": fitted.epochs, "held_out": held_out, "gap": gap},
    )
    modes = modes.assign(_scaling_variables(scaling, sign, contribution))
    raw = modes["loading"].copy(data=found.unpolished[:, order])
    return modes.assign(scorecard(contribution, modes, unpolished=raw).data_vars)


def _scaling_variables(
    scaling: Scaling, sign: np.ndarray, contribution: xr.DataArray
) -> dict[str, xr.Variable]:
    """Return what was subtracted from features and what they were divided by (sign, channel)."""
    dims, units = contribution.dims[1:], contribution.attrs.get("units", "1")
    subtracted = {"units": units, "long_name": "constant part, carried by modes of that origin"}
    divisor = {"units": units, "long_name": "divisor of a feature in the fit"}
    scale = (scaling.scale / scaling.gain).reshape(sign.shape)
    return {
        "offset": xr.Variable(dims, scaling.offset.reshape(sign.shape) * sign, subtracted),
        "feature_scale": xr.Variable(dims, scale, divisor),
    }


def _scaling(values: np.ndarray, sign: np.ndarray, decomposition: Decomposition) -> Scaling:
    """Measure how the features (sample, feature) of the fitted part are shifted and scaled."""
    if decomposition.robust:
        scaling = measure_scaling(values, sign, non_negative=decomposition.sign_consistent)
    else:
        scaling = without_scaling(values, sign)
    if not scaling.scale > 0:
        raise RetinaCodecError(
            "contributions must vary in the fitted part; they are all alike there. Give a "
            "recording in which the network is active and the stimulus varies."
        )
    return scaling


def _order(found: Loaded, fit: np.ndarray, scale: float) -> np.ndarray:
    """Order modes by the sum they explain in the fitted part, largest first, without dead ones."""
    size = np.abs(found.loading[fit])
    alive = (size > ACTIVE * scale).any(0) | (found.origin == "outlier")
    order = np.argsort(-size.sum(0) * np.abs(found.dictionary).sum(1), kind="stable")
    kept: np.ndarray = order[alive[order]]
    return kept


def _dictionary(decomposition: Decomposition, fitted: Fitted, wide: int) -> np.ndarray:
    """Return the modes (mode, feature) that a decomposition found in scaled features."""
    name = type(decomposition).__name__
    if not isinstance(fitted, Fitted):
        raise RetinaCodecError(
            f"fit() of {name} must return a subclass of rc.modes.Fitted; got "
            f"{type(fitted).__name__}."
        )
    found: np.ndarray = fitted.dictionary.cpu().numpy()
    if found.ndim != 2 or found.shape[1] != wide:
        raise RetinaCodecError(
            f"{name} must return a dictionary (mode, {wide}); got {found.shape}."
        )
    return found


def _weighted(
    fitted: Fitted, scaled: np.ndarray, weight: np.ndarray, device: str | torch.device | None
) -> np.ndarray:
    """Return loadings (sample, mode) of features whose errors count so many times."""
    features, counts = (torch.as_tensor(given, device=device) for given in (scaled, weight))
    found: np.ndarray = fitted.encode_weighted(features, counts).detach().cpu().numpy()
    return found


def _loadings(
    decomposition: Decomposition, fitted: Fitted, features: torch.Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """Return loadings (sample, mode) of features (sample, feature), polished and unpolished."""
    one, other = (
        encode(features).detach().cpu().numpy()
        for encode in (fitted.encode, fitted.encode_unpolished)
    )
    modes, wide = fitted.dictionary.shape
    if (one.shape, other.shape) != ((len(features), modes),) * 2:
        raise RetinaCodecError(
            f"{type(decomposition).__name__} must return a dictionary (mode, {wide}) and loadings "
            f"({len(features)}, mode); got {(modes, wide)} and {one.shape}, unpolished "
            f"{other.shape}."
        )
    return one, other
