"""A small vision transformer for pictures of 32 px, each site of a block a module of its own.

Notation: b pictures, t tokens, d dimensions, h heads.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from retina_codec.errors import RetinaCodecError
from retina_codec.networks.pictures.small_resnet import DIGITS, SmallNetwork

__all__ = ["Attention", "SmallViT"]

DEEPEST = 256  # blocks; a config that asks for more is damaged


class Attention(nn.Module):
    """Self-attention, ``softmax(q kᵀ / √(d/h)) v`` per head, then a projection.

    The input of ``proj`` holds the heads one after another, ``d / h`` dimensions each. In training
    and without gradients the same is computed in one fused step, which is quicker. Vaswani et al.
    2017, Attention is all you need, NeurIPS, equation 1.
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
        if self.training or not torch.is_grad_enabled():
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


def _positions(side: int, dim: int) -> torch.Tensor:
    """Return initial position embeddings: waves along y and x, zeros for the class token.

    ``(1, 1 + side², dim)``; the first half of the dimensions tells y, the second x, each by sines
    and cosines of growing wavelength (Vaswani et al. 2017, section 3.5), amplitude 0.5.
    """
    found = torch.zeros(side, side, dim)
    place = torch.arange(side, dtype=torch.float32)
    count = dim // 4
    for number in range(count):
        angle = place * (torch.pi / (1.0 + number * (side - 1) / max(1, count - 1)))
        found[:, :, number] = angle.sin()[:, None]
        found[:, :, count + number] = angle.cos()[:, None]
        found[:, :, 2 * count + number] = angle.sin()[None]
        found[:, :, 3 * count + number] = angle.cos()[None]
    return torch.cat([torch.zeros(1, dim), 0.5 * found.flatten(0, 1)])[None]


class SmallViT(SmallNetwork):
    """A vision transformer: patches as tokens, a class token, blocks of attention and MLP.

    Parameters
    ----------
    classes : sequence of str
        Names of the outputs, in order.
    size, patch : int
        Side of the pictures and of a patch, px; ``size`` must be a multiple of ``patch``.
    stem : int
        Channels of a convolution before the one that makes tokens. Each of the two steps by half
        a patch's side, so that a token sees a little beyond its patch; ``patch`` must be 4 then.
        0: patches alone, as published.
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
    Dosovitskiy et al. 2021, An image is worth 16×16 words, ICLR, section 3.1. The stem: Xiao et al.
    2021, Early convolutions help transformers see better, NeurIPS.
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
        hidden: int = 128,
        stem: int = 24,
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
        if stem < 0 or (stem and patch != 4):
            raise RetinaCodecError(
                f"a stem needs patches of 4 px and channels above 0; got {stem=}, {patch=}. Use "
                "stem=0 for other patches."
            )
        self._numbers = {**numbers, "stem": stem}
        self.layers = tuple(f"blocks.{block}" for block in range(depth))
        self.patch_embed: nn.Module = nn.Conv2d(3, dim, patch, patch)
        if stem:
            self.patch_embed = nn.Sequential(
                nn.Conv2d(3, stem, 3, 2, 1, bias=False),
                nn.BatchNorm2d(stem),
                nn.ReLU(),
                nn.Conv2d(stem, dim, 3, 2, 1),
            )
        self.class_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.positions = nn.Parameter(_positions(size // patch, dim))
        self.blocks = nn.ModuleList(_TransformerBlock(dim, heads, hidden) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, len(self.classes))
        nn.init.trunc_normal_(self.class_token, std=0.02)

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
