"""Reductions: from one contribution per hidden unit to one per channel and sign.

Why this file exists: the order matters (sign first, then sum over space), because excitation at
one place and inhibition at another would otherwise cancel. It is not a statistic of contributions.
"""

import torch

from retina_codec.errors import RetinaCodecError

__all__ = ["SIGNS", "mean_over_space", "sum_by_sign"]

SIGNS = ("inhibitory", "excitatory")


def sum_by_sign(contributions: torch.Tensor) -> torch.Tensor:
    """Split contributions by sign, then sum over space.

    ``C⁻ = Σ_space min(C, 0)`` (inhibitory) and ``C⁺ = Σ_space max(C, 0)`` (excitatory).

    Parameters
    ----------
    contributions : torch.Tensor, (batch, channel, ...)
        One value per hidden unit, in the unit of the target; NaN stays NaN.

    Returns
    -------
    torch.Tensor, (batch, 2, channel)
        In the order of `SIGNS`; the two parts add up to the net channel contribution.

    References
    ----------
    Melander et al. 2026, CODEC: contributions of a channel are summed over space by sign.
    """
    units = _units(contributions)  # (batch, channel, space)
    return torch.stack((units.clamp(max=0).sum(2), units.clamp(min=0).sum(2)), 1)


def mean_over_space(activations: torch.Tensor) -> torch.Tensor:
    """Average activations ``(batch, channel, ...)`` over space: ``(batch, channel)``."""
    return _units(activations).mean(2)


def _units(values: torch.Tensor) -> torch.Tensor:
    """Flatten ``(batch, channel, ...)`` to ``(batch, channel, space)``."""
    if values.ndim < 2:
        raise RetinaCodecError(
            f"a layer must put out (batch, channel, ...); got {tuple(values.shape)}. "
            "Explain a layer with a channel axis."
        )
    return values.flatten(2) if values.ndim > 2 else values.unsqueeze(2)
