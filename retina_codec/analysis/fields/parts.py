"""Split receptive fields by mode, so that the parts and a remainder add up to the whole field.

A field is a sum over the units of a layer (chain rule), and each unit is shared among the modes.

Notation: e events, n cells, p parts (modes, then the remainder), l lags, y x pixels; h units of the
explained layer, w stimulus window.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from retina_codec.errors import RetinaCodecError
from retina_codec.networks.borrowed import borrow
from retina_codec.networks.retina.model import RetinaCNN
from retina_codec.probing.hooks import HookedFunction
from retina_codec.probing.points import Layers
from retina_codec.probing.retina.fields import RetinaFields
from retina_codec.reductions import SIGNS

__all__ = [
    "FieldParts",
    "mode_shares",
    "retina_field_parts",
    "split_fields",
    "summarize_parts",
    "unit_shares",
]

SIGN_OF = {"inhibitory": -1.0, "excitatory": 1.0}


class FieldParts(NamedTuple):
    """Parts of fields along the whole field's own image and time course."""

    spatial: torch.Tensor  # (e, n, p, y, x)
    temporal: torch.Tensor  # (e, n, p, l)
    share: torch.Tensor  # (e, n, p)
    error: torch.Tensor  # (e, n)


def split_fields(
    network: nn.Module, windows: torch.Tensor, layer: str, shares: torch.Tensor
) -> torch.Tensor:
    """Split the receptive fields of all cells through the units of one layer.

    ``∂rate_i/∂w = Σ_j (∂rate_i/∂h_j) (∂h_j/∂w)``, and part p takes the share ``q_pj`` of unit j:
    ``part_p = Σ_j q_pj (∂rate_i/∂h_j) (∂h_j/∂w)``. Shares that add up to 1 for every unit give
    parts that add up to the field, whatever the shares are.

    For normalised windows (e, l, y, x), a layer that is called once and that every path from input
    to output crosses, and shares (e, p, ...) of every unit, see `unit_shares`: parts (e, n, p, l,
    y, x) in Hz per unit of the input. One forward pass; per cell one backward pass to the layer and
    one per part below it, each for all events. `retina_field_parts` does it for a `RetinaCNN` all
    at once.
    """
    with borrow(network) as module, torch.enable_grad():
        function = HookedFunction.open(module, windows, [layer])
        inputs = windows.detach().requires_grad_(True)
        rates, seen = function.run_from(inputs)
        units = _one_call(seen, layer, shares)
        parts = []
        for total in rates.sum(dim=0):  # (n,): events do not mix
            (slope,) = torch.autograd.grad(total, units, retain_graph=True)
            each = [
                torch.autograd.grad(units, inputs, cotangent, retain_graph=True)[0]
                for cotangent in (shares * slope[:, None]).unbind(1)
            ]
            parts.append(torch.stack(each, dim=1))
    return torch.stack(parts, dim=1)


def _one_call(seen: Layers, layer: str, shares: torch.Tensor) -> torch.Tensor:
    """Return the units of the layer, if it was called once and the shares fit it."""
    if layer not in seen:
        raise RetinaCodecError(
            f"fields are split at a layer that is called once; {layer!r} was called {len(seen)} "
            "times. Choose another layer."
        )
    units = seen[layer]
    if shares.shape[:1] + shares.shape[2:] != units.shape:
        raise RetinaCodecError(
            f"shares must be (event, part, ...) over the units {tuple(units.shape)} of {layer!r}; "
            f"got {tuple(shares.shape)}."
        )
    return units


def retina_field_parts(
    network: RetinaCNN, windows: torch.Tensor, layer: str, shares: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Split the fields of a retina network as `split_fields` does, all cells and parts at once.

    Return the parts (e, n, p, l, y, x) and the whole fields (e, n, l, y, x), not made from the
    parts.
    """
    structure = RetinaFields(network)
    with torch.no_grad():
        seen = structure.evaluate(network.first_layer(windows))
        whole = structure.fields(structure.descend(seen))
        parts = structure.fields(structure.descend(seen, layer, shares))
        return structure.place(parts), structure.place(whole)[:, :, 0]


def summarize_parts(
    parts: torch.Tensor, fields: torch.Tensor, spatial: torch.Tensor, temporal: torch.Tensor
) -> FieldParts:
    """Write parts (e, n, p, l, y, x) along the image and time course of the field (e, n, l, y, x).

    With A the field minus its mean, ``u`` its time course and ``v = uᵀ A`` its image
    (`rank_one_parts`), and A_p the same of a part: the part's image is ``uᵀ A_p``, its time course
    ``A_p v / ‖v‖²``, its share ``⟨part, field⟩ / ⟨field, field⟩``. All are linear in the part, so
    they add up over the parts to ``v``, ``u`` and 1. ``error`` is the largest absolute difference
    between the sum of the parts and the field, over the field's largest absolute value. NaN where a
    field is constant.
    """
    dims = (-3, -2, -1)
    peak = fields.abs().amax(dims)
    scale = torch.where(peak > 0, peak, 1.0)  # squares of small fields must not vanish
    parts = parts / scale[..., None, None, None, None]
    fields = fields / scale[..., None, None, None]
    spatial = spatial / scale[..., None, None]
    centered = parts - parts.mean(dims, keepdim=True)
    image = torch.einsum("enl,enplyx->enpyx", temporal, centered) * scale[..., None, None, None]
    size = spatial.square().sum((-2, -1))[..., None, None]
    course = torch.einsum("enplyx,enyx->enpl", centered, spatial) / size
    power = fields.square().sum(dims)[..., None]
    share = torch.einsum("enplyx,enlyx->enp", parts, fields) / power
    error = (parts.sum(2) - fields).abs().amax(dims) / fields.abs().amax(dims)
    return FieldParts(image, course, share, error)


def mode_shares(
    loading: npt.NDArray[np.floating[Any]],
    dictionary: npt.NDArray[np.floating[Any]],
    contribution: npt.NDArray[np.floating[Any]],
) -> npt.NDArray[np.float64]:
    """Share every channel's contribution of one sign among the modes and a remainder.

    With A the contribution (event, sign, channel) of a sign and channel, and ``a_m = max(0, z_m d_m
    σ)`` the part of mode m in it (z loading (event, mode), 0 for modes that are not active; d
    dictionary (mode, sign, channel), inhibitory first; σ = −1 for inhibitory and +1 for
    excitatory), mode m gets ``w_m = a_m / max(|A|, Σ_m' a_m')`` and the remainder ``1 − Σ_m w_m``.
    Shares (event, mode + 1, sign, channel) lie in [0, 1] and add up to 1; the remainder is the
    last.

    What the modes do not explain of a channel is in the remainder. Two rules are choices: where
    Σ_m a_m exceeds |A|, the modes share |A| in proportion to a_m, so that no share leaves [0, 1]
    (the ratio ``z_m d_m / A`` has no limit where A is small); and parts against the sign of a
    feature, which only decompositions without consistent signs have, count as 0.

    >>> import numpy as np
    >>> dictionary = np.zeros((2, 2, 1))
    >>> dictionary[:, 1, 0] = [0.6, 0.2]
    >>> contribution = np.array([[[0.0], [1.0]]])
    >>> mode_shares(np.ones((1, 2)), dictionary, contribution)[0, :, 1, 0].round(6).tolist()
    [0.6, 0.2, 0.2]
    """
    z, d, actual = (np.asarray(v, np.float64) for v in (loading, dictionary, contribution))
    fits = z.ndim == 2 and d.ndim == 3 and d.shape[1] == len(SIGNS)
    if not fits or d.shape[0] != z.shape[1] or actual.shape != (len(z), *d.shape[1:]):
        raise RetinaCodecError(
            "shares need loadings (event, mode), a dictionary (mode, sign, channel) with 2 signs "
            "and contributions (event, sign, channel) that fit each other; got "
            f"{z.shape}, {d.shape} and {actual.shape}."
        )
    if not all(np.isfinite(v).all() for v in (z, d, actual)):
        raise RetinaCodecError(
            "shares need finite loadings, modes and contributions; some are NaN or infinite. "
            "Leave these events out."
        )
    sigma = np.array([SIGN_OF[name] for name in SIGNS])
    claim = np.maximum(0.0, np.einsum("em,msk,s->emsk", z, d, sigma))
    total = np.maximum(np.abs(actual), claim.sum(1))[:, None]  # (e, 1, s, k)
    share = np.divide(claim, total, out=np.zeros_like(claim), where=total > 0)
    rest = np.maximum(0.0, 1.0 - share.sum(1, keepdims=True))
    return np.concatenate((share, rest), axis=1)


def unit_shares(shares: torch.Tensor, contribution: torch.Tensor) -> torch.Tensor:
    """Give every unit the shares of its channel and of the sign of its contribution (e, k, ...).

    From the shares (e, p, s, k) of `mode_shares`: (e, p, k, ...), adding up to 1 over the parts. A
    unit without a contribution belongs to no mode: it goes to the remainder, the last part.
    """
    shape = (*shares.shape[:2], shares.shape[3], *[1] * (contribution.ndim - 2))
    inhibitory, excitatory = (shares[:, :, sign].reshape(shape) for sign in range(2))
    units = contribution[:, None]  # (e, 1, k, ...)
    found = torch.where(units > 0, excitatory, inhibitory)
    idle = torch.zeros(shares.shape[1], dtype=shares.dtype, device=shares.device)
    idle[-1] = 1.0
    return torch.where(units == 0, idle.reshape(1, -1, *[1] * (units.ndim - 2)), found)
