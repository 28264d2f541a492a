"""Which mode claims which hidden unit, at one moment: shares that add up to one.

Why this file exists: modes are sums over sign and channel, receptive fields go through single
units. Shares carry one to the other, and everything that is split by them adds up again exactly.
It computes no contribution and no gradient.

Notation: e events, m modes, p parts (the modes, then the remainder), s signs, k channels.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from retina_codec.contributions.reduction import SIGNS
from retina_codec.errors import RetinaCodecError

__all__ = ["mode_shares", "unit_shares"]

SIGN_OF = {"inhibitory": -1.0, "excitatory": 1.0}


def mode_shares(
    loading: npt.NDArray[np.floating[Any]],
    dictionary: npt.NDArray[np.floating[Any]],
    contribution: npt.NDArray[np.floating[Any]],
) -> npt.NDArray[np.float64]:
    """Share out every channel's contribution of one sign among the modes and a remainder.

    With A the contribution of a sign and channel, and ``a_m = max(0, z_m d_m σ)`` what mode m says
    of it (z loading, d dictionary, σ = −1 for inhibitory and +1 for excitatory), mode m gets
    ``w_m = a_m / max(|A|, Σ_m' a_m')`` and the remainder ``1 − Σ_m w_m``.

    Parameters
    ----------
    loading : array, (event, mode)
        z; 0 for modes that are not active.
    dictionary : array, (mode, sign, channel)
        d, signs in the order inhibitory, excitatory.
    contribution : array, (event, sign, channel)
        A, in the unit of the loadings.

    Returns
    -------
    array, (event, mode + 1, sign, channel)
        Dimensionless, in [0, 1], adding up to 1 over the parts; the remainder is the last.

    Raises
    ------
    RetinaCodecError
        If the shapes do not fit or a number is not finite.

    Notes
    -----
    Where modes explain a channel in part, the rest of it is the remainder's. Two things are a
    choice. Where modes claim more than is there, they share what is there in proportion to their
    claims, so that no share leaves [0, 1]; the plain ratio ``z_m d_m / A`` would be without bound
    where A is small. A claim against the sign of a feature (only decompositions without
    consistent signs make one) counts as none, for the same reason.

    Examples
    --------
    >>> import numpy as np
    >>> dictionary = np.zeros((2, 2, 1))
    >>> dictionary[:, 1, 0] = [0.6, 0.2]
    >>> contribution = np.array([[[0.0], [1.0]]])
    >>> mode_shares(np.ones((1, 2)), dictionary, contribution)[0, :, 1, 0].tolist()
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
    """Give every unit the shares of its channel and of the sign of its contribution.

    Parameters
    ----------
    shares : torch.Tensor
        ``(e, p, s, k)`` from `mode_shares`.
    contribution : torch.Tensor
        ``(e, k, ...)``, of every unit.

    Returns
    -------
    torch.Tensor
        ``(e, p, k, ...)``, adding up to 1 over the parts. A unit without a contribution belongs
        to no mode: it goes to the remainder, the last part.
    """
    shape = (*shares.shape[:2], shares.shape[3], *[1] * (contribution.ndim - 2))
    inhibitory, excitatory = (shares[:, :, sign].reshape(shape) for sign in range(2))
    units = contribution[:, None]  # (e, 1, k, ...)
    found = torch.where(units > 0, excitatory, inhibitory)
    idle = torch.zeros(shares.shape[1], dtype=shares.dtype, device=shares.device)
    idle[-1] = 1.0
    return torch.where(units == 0, idle.reshape(1, -1, *[1] * (units.ndim - 2)), found)
