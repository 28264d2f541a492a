"""A small residual network and a small vision transformer for pictures of 32 px.

Why this file exists: the toolkit ships networks on which contributions of image models can be
tried on any machine in a minute. Both are plain: every place that an analysis may want to read is
a module of its own. How a
folder of a network is checked is told by checkpoints.py.

Notation: b pictures, c channels, t tokens, d dimensions, h heads.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from retina_codec.errors import RetinaCodecError

__all__ = [
    "Attention",
    "PictureNorm",
    "SmallResNet",
    "SmallViT",
    "load_small_network",
    "save_small_network",
    "small_from_config",
]

DIGITS = tuple("0123456789")
DEEPEST = 256  # blocks; a config that asks for more is damaged


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


class _SmallNetwork(nn.Module):
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


class SmallResNet(_SmallNetwork):
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


class Attention(nn.Module):
    """Self-attention, ``softmax(q kᵀ / √(d/h)) v`` per head, then a projection.

    Parameters
    ----------
    dim, heads : int
        Dimensions of a token, and heads that share them equally.

    Notes
    -----
    The input of ``proj`` holds the heads one after another, ``d / h`` dimensions each. In training
    the same is computed in one fused step, which is quicker.

    References
    ----------
    Vaswani et al. 2017, Attention is all you need, NeurIPS, equation 1.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """``(b, t, d)`` to the same shape."""
        count, length, dim = tokens.shape
        parts = self.qkv(tokens).view(count, length, 3, self.heads, dim // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)  # each (b, h, t, d / h)
        if self.training:
            read = nn.functional.scaled_dot_product_attention(query, key, value)
        else:  # in steps that every kind of derivative knows
            weights = (query @ key.transpose(-2, -1) * (dim // self.heads) ** -0.5).softmax(-1)
            read = weights @ value
        result: torch.Tensor = self.proj(read.transpose(1, 2).flatten(2))
        return result


class _Mlp(nn.Module):
    """Two linear layers with a GELU between."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.fc2(self.act(self.fc1(tokens)))
        return result


class _TransformerBlock(nn.Module):
    """``x + attn(norm(x))``, then ``x + mlp(norm(x))``."""

    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = _Mlp(dim, hidden)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        tokens = tokens + self.attn(self.norm1(tokens))
        result: torch.Tensor = tokens + self.mlp(self.norm2(tokens))
        return result


class SmallViT(_SmallNetwork):
    """A vision transformer: patches as tokens, a class token, blocks of attention and MLP.

    Parameters
    ----------
    classes : sequence of str
        Names of the outputs, in order.
    size, patch : int
        Side of the pictures and of a patch, px; ``size`` must be a multiple of ``patch``.
    dim, depth, heads, hidden : int
        Dimensions of a token, blocks, heads per block, units of the MLP.
    mean, std : sequence of float
        Of the pictures, per colour; see `PictureNorm`.

    Notes
    -----
    ``layers`` names the blocks, ``blocks.0`` onwards: every path from the input to the output goes
    through each of them. Other sites are ``blocks.N.mlp.act`` (hidden units of the MLP, after the
    nonlinearity) and the input of ``blocks.N.attn.proj`` (attention, before its projection); paths
    go round these. Token 0 is the class token. Inputs ``(b, 3, size, size)`` in [0, 1]; outputs
    ``(b, class)``, logits.

    References
    ----------
    Dosovitskiy et al. 2021, An image is worth 16×16 words, ICLR, section 3.1.
    """

    kind = "SmallViT"

    def __init__(
        self,
        classes: Sequence[str] = DIGITS,
        *,
        size: int = 32,
        patch: int = 4,
        dim: int = 64,
        depth: int = 6,
        heads: int = 4,
        hidden: int = 192,
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        std: Sequence[float] = (0.25, 0.25, 0.25),
    ) -> None:
        super().__init__(classes, mean, std)
        numbers = {
            "size": size,
            "patch": patch,
            "dim": dim,
            "depth": depth,
            "heads": heads,
            "hidden": hidden,
        }
        if min(numbers.values()) < 1 or depth > DEEPEST or size % patch or dim % heads:
            raise RetinaCodecError(
                f"all numbers must be above 0, depth at most {DEEPEST}, size a multiple of patch "
                f"and dim one of heads; got {numbers}."
            )
        self._numbers = numbers
        self.layers = tuple(f"blocks.{block}" for block in range(depth))
        self.patch_embed = nn.Conv2d(3, dim, patch, patch)
        self.class_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.positions = nn.Parameter(torch.zeros(1, 1 + (size // patch) ** 2, dim))
        self.blocks = nn.ModuleList(_TransformerBlock(dim, heads, hidden) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, len(self.classes))
        nn.init.trunc_normal_(self.class_token, std=0.02)
        nn.init.trunc_normal_(self.positions, std=0.02)

    def config(self) -> dict[str, Any]:
        """Return what the network is built from, for config.json."""
        return {**self._pictures(), **self._numbers}

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """``(b, 3, size, size)`` in [0, 1] to logits ``(b, class)``."""
        patches = self.patch_embed(self.normalisation(pictures)).flatten(2).transpose(1, 2)
        first = self.class_token.expand(len(patches), -1, -1)
        tokens = torch.cat([first, patches], 1) + self.positions  # (b, t, d)
        for block in self.blocks:
            tokens = block(tokens)
        logits: torch.Tensor = self.head(self.norm(tokens)[:, 0])
        return logits


def save_small_network(
    network: SmallResNet | SmallViT,
    folder: str | os.PathLike[str],
    card: str | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Write a small network to a folder: config.json, weights.safetensors, card.md.

    Parameters
    ----------
    network : SmallResNet or SmallViT
        Not modified.
    folder : path
        Written beside and renamed, so that it is whole or absent.
    card : str, optional
        Markdown: how trained, on what, how well it does.
    overwrite : bool
        Replace an existing folder.

    Raises
    ------
    RetinaCodecError
        If it is another network, the folder exists and ``overwrite`` is false, or writing fails.
    """
    from retina_codec.networks.checkpoints import save_network

    if not isinstance(network, SmallResNet | SmallViT):
        raise RetinaCodecError(
            f"network must be a SmallResNet or a SmallViT; got {type(network).__name__}. Use "
            "save_network for networks of the retina."
        )
    save_network(network, folder, card=card, overwrite=overwrite)


def load_small_network(folder: str | os.PathLike[str]) -> SmallResNet | SmallViT:
    """Load a small network on the CPU, in evaluation mode.

    Parameters
    ----------
    folder : path
        What `save_small_network` wrote, such as ``models/digits_cnn``.

    Returns
    -------
    SmallResNet or SmallViT
        With ``classes``, ``layers`` and ``training_record``.

    Raises
    ------
    RetinaCodecError
        If the folder or a file is missing, the weights are not those that config.json names, the
        two do not fit together, or it is a network of another kind.
    """
    from retina_codec.networks.checkpoints import load_network

    network = load_network(folder)
    if not isinstance(network, SmallResNet | SmallViT):
        raise RetinaCodecError(
            f"{folder} must hold a SmallResNet or a SmallViT; it holds a "
            f"{type(network).__name__}. Use load_network for it."
        )
    return network


def small_from_config(config: Mapping[str, Any]) -> SmallResNet | SmallViT:
    """Build a small network, its weights still to come, from what ``config()`` returned."""
    kinds = {kind.kind: kind for kind in (SmallResNet, SmallViT)}
    rest = {str(key): value for key, value in config.items() if key != "kind"}
    made: SmallResNet | SmallViT = kinds[config["kind"]](**rest)
    return made
