"""Reductions: what results keep of one contribution per hidden unit.

Contributions are split by sign before sums over space, so that opposite signs do not cancel.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from retina_codec.errors import RetinaCodecError

__all__ = [
    "SIGNS",
    "AllUnits",
    "ChannelSums",
    "HeadSums",
    "Reduction",
    "mean_over_space",
    "sum_by_sign",
]

SIGNS = ("inhibitory", "excitatory")


class Reduction(ABC):
    """What is kept of the units of a layer.

    Must
    ----
    - be a frozen dataclass whose fields are all its parameters (results name them);
    - take values with the channel axis second, ``(batch, channel, space...)``;
    - keep the sum over units: what `contribution` returns adds up to it.

    Should
    ------
    - override `coords`, if its dims are not ``sign`` and ``channel``;
    - set `needs_whole_layer`, if it keeps units that do not act on the output (the fast path of a
      `RetinaCNN` leaves them out).
    """

    needs_whole_layer: bool = False

    @abstractmethod
    def contribution(self, units: torch.Tensor) -> torch.Tensor:
        """Reduce contributions ``(batch, channel, ...)``."""

    @abstractmethod
    def activation(self, units: torch.Tensor) -> torch.Tensor:
        """Reduce activations ``(batch, channel, ...)``."""

    @abstractmethod
    def dims(self, shape: tuple[int, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Name the dims of contribution and activation, without the batch; shape without it."""

    def coords(self, shape: tuple[int, ...]) -> dict[str, Any]:
        """Return the coordinates of these dims."""
        return {"sign": list(SIGNS), "channel": np.arange(shape[0])}

    def describe(self) -> str:
        """Return the readable form that results hold."""
        return repr(self)


@dataclass(frozen=True)
class ChannelSums(Reduction):
    """Split by sign, then sum over space (or tokens): ``C⁺ = Σ max(C, 0)``, ``C⁻ = Σ min(C, 0)``.

    Activations are averaged over space.

    References
    ----------
    Melander et al. 2026, CODEC: contributions of a channel are summed over space by sign.
    """

    def contribution(self, units: torch.Tensor) -> torch.Tensor:
        """``(batch, channel, ...)`` to ``(batch, sign, channel)``."""
        return sum_by_sign(units)

    def activation(self, units: torch.Tensor) -> torch.Tensor:
        """``(batch, channel, ...)`` to ``(batch, channel)``."""
        return mean_over_space(units)

    def dims(self, shape: tuple[int, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Sign and channel; channel."""
        del shape
        return ("sign", "channel"), ("channel",)


@dataclass(frozen=True)
class HeadSums(Reduction):
    """Split by sign, then sum over tokens and the dimensions of each attention head.

    Parameters
    ----------
    heads : int
        Number of heads; they follow each other along the channel axis, as in the input of an
        attention's output projection. ``channel`` of the results counts heads.

    Raises
    ------
    RetinaCodecError
        If the number of channels of a layer is no multiple of heads.

    References
    ----------
    Melander et al. 2026, CODEC, attention head sparsity.
    """

    heads: int

    def __post_init__(self) -> None:
        """Check the number."""
        if isinstance(self.heads, bool) or not isinstance(self.heads, int) or self.heads < 1:
            raise RetinaCodecError(f"heads must be a whole number >= 1; got {self.heads!r}.")

    def _split(self, units: torch.Tensor) -> torch.Tensor:
        count = units.shape[1]
        if count % self.heads:
            raise RetinaCodecError(
                f"the number of channels must be a multiple of heads; got {count} channels and "
                f"{self.heads} heads. Give the number of heads of this model, and hook the input "
                "of the output projection."
            )
        return units.reshape(len(units), self.heads, -1, *units.shape[2:])

    def contribution(self, units: torch.Tensor) -> torch.Tensor:
        """``(batch, channel, ...)`` to ``(batch, sign, head)``."""
        return sum_by_sign(self._split(units))

    def activation(self, units: torch.Tensor) -> torch.Tensor:
        """``(batch, channel, ...)`` to ``(batch, head)``."""
        return mean_over_space(self._split(units))

    def dims(self, shape: tuple[int, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Sign and channel, which counts heads; channel."""
        del shape
        return ("sign", "channel"), ("channel",)

    def coords(self, shape: tuple[int, ...]) -> dict[str, Any]:
        """Signs and numbers of heads."""
        del shape
        return {"sign": list(SIGNS), "channel": np.arange(self.heads)}


@dataclass(frozen=True)
class AllUnits(Reduction):
    """Keep every unit. Large: an hour of recording has 23 GB of them, 50,000 images 1.1 TB.

    Dims are ``channel`` and then space: ``token`` for one axis, ``row`` and ``column`` for two,
    ``axis1`` ... for more.
    """

    needs_whole_layer = True

    def contribution(self, units: torch.Tensor) -> torch.Tensor:
        """Return them as they are."""
        return units

    def activation(self, units: torch.Tensor) -> torch.Tensor:
        """Return them as they are."""
        return units

    def dims(self, shape: tuple[int, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Channel and the axes of space."""
        space = len(shape) - 1
        names = {0: (), 1: ("token",), 2: ("row", "column")}
        found = names.get(space) or tuple(f"axis{k + 1}" for k in range(space))
        return ("channel", *found), ("channel", *found)

    def coords(self, shape: tuple[int, ...]) -> dict[str, Any]:
        """Numbers along every dim."""
        return {
            name: np.arange(size) for name, size in zip(self.dims(shape)[0], shape, strict=True)
        }


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
