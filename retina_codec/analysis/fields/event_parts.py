"""Split receptive fields at chosen events by mode; contributions of units are computed again.

Notation: e events, n cells, m modes, p parts (the modes active at an event, then the remainder).
"""

from collections.abc import Callable, Sequence
from dataclasses import fields as settings_of
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr
from torch import nn

from retina_codec.analysis.fields.parts import (
    FieldParts,
    mode_shares,
    retina_field_parts,
    split_fields,
    summarize_parts,
    unit_shares,
)
from retina_codec.contributions.contribute import contribute
from retina_codec.errors import RetinaCodecError
from retina_codec.methods.base import Method
from retina_codec.methods.base import registry as methods
from retina_codec.methods.integrated_gradients import IntegratedGradients
from retina_codec.networks.retina.model import RetinaCNN
from retina_codec.reductions import AllUnits
from retina_codec.targets.base import Target, target_of

__all__ = ["can_split", "event_parts", "explanation_of"]

TOGETHER = 4  # events at a time: 16 cells and 4 parts of them take 100 MB
TOLERANCE = 2e-3  # of the largest contribution: rounding, and other products of the same formula


def can_split(tree: xr.DataTree, layer: str) -> bool:
    """Return whether results hold contributions and modes, and say how they were computed."""
    node = tree[f"layers/{layer}"]
    modes = node["modes"].to_dataset()
    known = {"dictionary", "loading"} <= set(modes.data_vars)
    explained = "contribution" in node.to_dataset() and "sign" in modes.coords
    return known and explained and explanation_of(tree) is not None


def explanation_of(tree: xr.DataTree) -> tuple[Target, Method] | None:
    """Return target and method of results of `analyze`; None for others.

    A target that the results hold whole, integrated gradients from a baseline that is a number.
    """
    attrs, target = tree.attrs, target_of(tree)
    name, baseline = str(attrs.get("method")), attrs.get("baseline")
    kind = methods.get(name) if name in methods.list() else Method
    if target is None or not issubclass(kind, IntegratedGradients):
        return None
    if attrs.get("tolerance") != "None" or not isinstance(baseline, int | float):
        return None
    known = {field.name for field in settings_of(kind)} & set(attrs) - {"tolerance"}
    settings = {name: np.asarray(attrs[name]).item() for name in known}
    return target, kind(**{"placement": "uniform"} | settings)  # results of 0.1 do not say


def event_parts(
    network: nn.Module,
    windows: Callable[[npt.NDArray[np.intp]], torch.Tensor],
    tree: xr.DataTree,
    layer: str,
    positions: npt.NDArray[np.intp],
    spatial: torch.Tensor,
    temporal: torch.Tensor,
    *,
    fields: Callable[[nn.Module, torch.Tensor], torch.Tensor],
    target: Any = None,
    method: Method | None = None,
) -> dict[str, xr.Variable]:
    """Split the fields at events among the active modes of a layer.

    ``windows`` gives windows ``(e, l, y, x)`` at positions of the results, as the network takes
    them; ``spatial`` (e, n, y, x) and ``temporal`` (e, n, l) are those of the whole fields, which
    ``fields`` computes where the network is no `RetinaCNN`. Target and method of the contributions
    are known for results of `analyze`.

    Returns
    -------
    dict of xr.Variable
        ``part`` (event, cell, mode, y, x), ``part_temporal`` (event, cell, mode, lag) and
        ``part_share`` (event, cell, mode), 0 for modes that are not active;
        ``remainder``, ``remainder_temporal``, ``remainder_share``; ``identity_error``
        (event, cell). Modes as in the dictionary.
    """
    known = explanation_of(tree)
    if known is None and (target is None or method is None):
        raise RetinaCodecError(
            "fields are split by contributions of single units, which are computed again; these "
            "results do not say how. Pass the target= and method= that contribute had."
        )
    target = target if target is not None else known[0] if known else None
    method = method if method is not None else known[1] if known else None
    node = tree[f"layers/{layer}"]
    modes = node["modes"].to_dataset().transpose("time", "mode", "sign", "channel")
    signs = ["inhibitory", "excitatory"]
    dictionary = modes["dictionary"].sel(sign=signs).values
    stored = node["contribution"].sel(sign=signs).transpose("time", "sign", "channel")
    stored = stored.values[positions]
    active = modes["active"].values.astype(bool)[positions]
    loading = np.where(active, modes["loading"].values[positions], 0.0)
    modules = dict(network.named_modules(remove_duplicate=False))
    together = [name for name in tree["layers"].children if name == layer or name in modules]
    units = _units(network, windows(positions), layer, together, target, method, stored)
    shares = torch.as_tensor(mode_shares(loading, dictionary, stored))  # (e, m + 1, s, k)

    slots = _slots(active)  # (e, p): the modes of an event, then the remainder
    pieces: list[FieldParts] = []
    for start in range(0, len(positions), TOGETHER):
        some = slice(start, start + TOGETHER)
        here = windows(positions[some])
        index = torch.as_tensor(slots[some])[:, :, None, None]
        chosen = shares[some].gather(1, index.expand(-1, -1, *shares.shape[2:]).clamp(min=0))
        chosen = torch.where(index >= 0, chosen, 0.0)
        of_units = unit_shares(chosen.to(here), units[some].to(here))
        if isinstance(network, RetinaCNN):
            parts, whole = retina_field_parts(network, here, layer, of_units)
        else:
            parts, whole = split_fields(network, here, layer, of_units), fields(network, here)
        pieces.append(
            summarize_parts(parts, whole, spatial[some].to(here), temporal[some].to(here))
        )
    joined = FieldParts(*(torch.cat(p).detach().cpu() for p in zip(*pieces, strict=True)))
    return _spread(joined, slots, dictionary.shape[0])


def _units(
    network: nn.Module,
    windows: torch.Tensor,
    layer: str,
    together: Sequence[str],
    target: Any,
    method: Any,
    stored: npt.NDArray[np.floating[Any]],
) -> torch.Tensor:
    """Contribution of every unit at the events, ``(e, channel, ...)``, as the results have it."""
    again = contribute(
        network,
        windows,
        target=target,
        method=method,
        layers=list(together),  # points of paths are those of all layers
        reduction=AllUnits(),
        progress=False,
    )
    units = torch.as_tensor(again[f"layers/{layer}/contribution"].values)
    flat = units.flatten(2) if units.ndim > 2 else units[..., None]
    sums = torch.stack((flat.clamp(max=0).sum(2), flat.clamp(min=0).sum(2)), 1).numpy()
    if sums.shape != stored.shape or (
        np.abs(sums - stored).max() > TOLERANCE * max(np.abs(stored).max(), 1e-12)
    ):
        raise RetinaCodecError(
            f"contributions of {layer!r} at the events must be those of the results; computed "
            "again, they differ. Pass the network, target= and method= that contribute had."
        )
    return units


def _slots(active: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Modes active at each event, (event, part), −1 where there are fewer; last the remainder."""
    most = int(active.sum(1).max())
    slots = np.full((len(active), most + 1), -1, np.int64)
    for row, here in zip(slots, active, strict=True):
        found = np.flatnonzero(here)
        row[: len(found)] = found
    slots[:, -1] = active.shape[1]
    return slots


def _spread(parts: FieldParts, slots: npt.NDArray[np.int64], modes: int) -> dict[str, xr.Variable]:
    """Put the parts of each event at the places of their modes; label the arrays."""
    units = {"spatial": "Hz per standard deviation of intensity", "temporal": "1", "share": "1"}
    axes = {"spatial": ("y", "x"), "temporal": ("lag",), "share": ()}
    names = {"spatial": ("part", "remainder"), "temporal": ("part_temporal", "remainder_temporal")}
    names["share"] = ("part_share", "remainder_share")
    found: dict[str, xr.Variable] = {}
    for key, (by_mode, rest) in names.items():
        values = getattr(parts, key).numpy()  # (e, n, p, ...)
        dense = np.zeros((*values.shape[:2], modes, *values.shape[3:]), values.dtype)
        for event, row in enumerate(slots[:, :-1]):
            dense[event][:, row[row >= 0]] = values[event][:, : (row >= 0).sum()]
        about = {"units": units[key]}
        dims = ("event", "cell", "mode", *axes[key])
        words = {"spatial": "image", "temporal": "time course", "share": "share of the field"}[key]
        found[by_mode] = xr.Variable(dims, dense, about | {"long_name": f"{words} of each mode"})
        dims = ("event", "cell", *axes[key])
        left = about | {"long_name": f"{words} that no active mode claims"}
        found[rest] = xr.Variable(dims, values[:, :, -1], left)
    missing = {"units": "1", "long_name": "largest gap between field and sum of parts"}
    found["identity_error"] = xr.Variable(("event", "cell"), parts.error.numpy(), missing)
    return found
