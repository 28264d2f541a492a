"""What the small networks share: pictures centred and scaled, names of classes, a config.

Why this file exists: both small networks take pictures in [0, 1] and normalise inside, so that
nobody has to know how. It is no network by itself.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from retina_codec.errors import RetinaCodecError

__all__ = ["DIGITS", "PictureNorm", "SmallNetwork"]

DIGITS = tuple("0123456789")


class PictureNorm(nn.Module):
    """Centre and scale every colour: ``y = (x − mean) / std``, with fixed numbers.

    Parameters
    ----------
    mean, std : sequence of float
        One number per colour (red, green, blue), in units of a picture in [0, 1].
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != 3 or len(std) != 3 or not all(value > 0 for value in std):
            raise RetinaCodecError(
                f"mean and std must be three numbers each, std above 0; got {mean=}, {std=}."
            )
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(3, 1, 1))

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """``(b, color, y, x)`` to the same shape."""
        return (pictures - self.mean) / self.std


class SmallNetwork(nn.Module):
    """What both networks have: classes, layers, a config and a record of their training."""

    classes: tuple[str, ...]
    layers: tuple[str, ...]
    kind: str

    def __init__(self, classes: Sequence[str], mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.classes = tuple(str(name) for name in classes)
        if len(self.classes) < 2 or len(set(self.classes)) < len(self.classes):
            raise RetinaCodecError(
                f"classes must be at least two different names; got {list(self.classes)[:20]}."
            )
        self.normalisation = PictureNorm(mean, std)
        self.training_record: dict[str, Any] = {}

    @property
    def grey(self) -> float:
        """Mean intensity of train pictures, in [0, 1]: the input that normalisation brings to 0.

        Mean over colours, which differ little; where paths of integration begin.
        """
        return round(float(self.normalisation.mean.mean()), 4)

    def _pictures(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "classes": list(self.classes),
            "mean": [round(value, 6) for value in self.normalisation.mean.flatten().tolist()],
            "std": [round(value, 6) for value in self.normalisation.std.flatten().tolist()],
        }
