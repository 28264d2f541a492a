"""A small residual network for pictures of 32 px, with a module at every place worth explaining.

Notation: b pictures, c channels.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import nn

from retina_codec.errors import RetinaCodecError

__all__ = ["DIGITS", "PictureNorm", "SmallNetwork", "SmallResNet"]


DIGITS = tuple("0123456789")


class PictureNorm(nn.Module):
    """Centre and scale every colour: ``y = (x − mean) / std``, x in [0, 1], three numbers each."""

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
    """Base of the small networks: classes, layers, a config and a record of their training."""

    classes: tuple[str, ...]
    layers: tuple[str, ...]
    kind: ClassVar[str]

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
        """Mean intensity of train pictures, in [0, 1]: where paths of integration begin."""
        return round(float(self.normalisation.mean.mean()), 4)

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], state: Mapping[str, torch.Tensor] | None = None
    ) -> Self:
        """Build the network that `config` describes, with these weights or fresh ones."""
        network = cls(**{key: value for key, value in config.items() if key != "kind"})
        if state is not None:
            network.load_state_dict(state)
        return network

    def _pictures(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "classes": list(self.classes),
            "mean": [round(value, 6) for value in self.normalisation.mean.flatten().tolist()],
            "std": [round(value, 6) for value in self.normalisation.std.flatten().tolist()],
        }


class _ResidualBlock(nn.Module):
    """``relu(shortcut(x) + norm(conv(relu(norm(conv(x))))))``."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.act1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )
        self.act2 = nn.ReLU()

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        branch = self.norm2(self.conv2(self.act1(self.norm1(self.conv1(maps)))))
        result: torch.Tensor = self.act2(self.shortcut(maps) + branch)
        return result


class SmallResNet(SmallNetwork):
    """A residual network of eight blocks in four stages.

    Parameters
    ----------
    classes : sequence of str
        Names of the outputs, in order.
    widths : sequence of four int
        Channels of the stages, two blocks each; the second and the fourth halve the map.
    mean, std : sequence of float
        Of the pictures, per colour; see `PictureNorm`.

    Notes
    -----
    ``layers`` names the eight blocks, ``stage1.0`` to ``stage4.1``. Every path from the input to
    the output goes through each of them. Inputs ``(b, 3, y, x)`` in [0, 1], 32 px in the networks
    that are shipped; outputs ``(b, class)``, logits.

    References
    ----------
    He et al. 2016, Deep residual learning for image recognition, CVPR, section 3.
    """

    kind = "SmallResNet"
    layers = tuple(f"stage{stage}.{block}" for stage in (1, 2, 3, 4) for block in (0, 1))

    def __init__(
        self,
        classes: Sequence[str] = DIGITS,
        *,
        widths: Sequence[int] = (16, 32, 48, 64),
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        std: Sequence[float] = (0.25, 0.25, 0.25),
    ) -> None:
        super().__init__(classes, mean, std)
        if len(widths) != 4 or min(widths) < 1:
            raise RetinaCodecError(f"widths must be four numbers above 0; got {widths=}.")
        self.widths = tuple(int(width) for width in widths)
        one, two, three, four = self.widths
        self.stem = nn.Conv2d(3, one, 5, 2, 2, bias=False)
        self.stem_norm = nn.BatchNorm2d(one)
        self.stem_act = nn.ReLU()
        self.stage1 = _stage(one, one, 1)
        self.stage2 = _stage(one, two, 2)
        self.stage3 = _stage(two, three, 1)
        self.stage4 = _stage(three, four, 2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(four, len(self.classes))

    def config(self) -> dict[str, Any]:
        """Return what the network is built from, for config.json."""
        return {**self._pictures(), "widths": list(self.widths)}

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """``(b, 3, y, x)`` in [0, 1] to logits ``(b, class)``."""
        maps = self.stem_act(self.stem_norm(self.stem(self.normalisation(pictures))))
        maps = self.stage4(self.stage3(self.stage2(self.stage1(maps))))
        logits: torch.Tensor = self.head(self.flatten(self.pool(maps)))
        return logits


def _stage(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        _ResidualBlock(inputs, outputs, stride), _ResidualBlock(outputs, outputs, 1)
    )
