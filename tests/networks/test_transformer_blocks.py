"""Attention and MLP told apart within one block, however it is written."""

import pytest
import torch
from torch import nn

from retina_codec.networks.transformer_blocks import features, find_parts, has_attention


class Heads(nn.Module):
    """Queries, keys and values, fused or not, then a projection; and what may stand beside."""

    def __init__(
        self, width: int = 8, joined: int = 8, *, fused: bool = False, more: str = ""
    ) -> None:
        super().__init__()
        self.n_heads = 2
        if more == "positions first":
            self.positions = nn.Sequential(nn.Linear(2, 5), nn.ReLU(), nn.Linear(5, 2))
        if fused:
            self.qkv = nn.Linear(width, 3 * joined)
        else:
            self.q, self.k, self.v = (nn.Linear(width, joined) for _ in range(3))
        self.last = nn.Linear(joined, width)
        if more == "talking heads":
            self.mix_heads = nn.Linear(2, 2)
        if more == "norm last":
            self.norm = nn.LayerNorm(width)


class Block(nn.Module):
    def __init__(self, attention: nn.Module, form: str = "mlp") -> None:
        super().__init__()
        self.attn = attention
        if form == "mlp":
            self.norm, self.mlp = nn.LayerNorm(8), nn.Sequential(nn.Linear(8, 12), nn.Linear(12, 8))
            self.adapter = nn.Sequential(nn.Linear(8, 3), nn.Linear(3, 8))  # after it, not it
        elif form == "flat":
            self.fc1, self.fc2 = nn.Linear(8, 12), nn.Linear(12, 8)
        elif form == "gated":
            self.feed = nn.ModuleDict(
                {"gate": nn.Linear(8, 12), "up": nn.Linear(8, 12), "down": nn.Linear(12, 8)}
            )
        elif form == "not back":
            self.fc1, self.fc2 = nn.Linear(8, 12), nn.Linear(12, 7)


@pytest.mark.parametrize(
    ("attention", "projection", "ends"),
    [
        (lambda: Heads(), "attn.last", "attn"),
        (lambda: Heads(fused=True), "attn.last", "attn"),
        (lambda: Heads(joined=6), "attn.last", "attn"),  # heads narrower than the stream
        (lambda: Heads(more="positions first"), "attn.last", "attn"),
        (lambda: Heads(more="talking heads"), "attn.last", "attn"),
        (lambda: Heads(more="norm last"), "attn.last", "attn.last"),
        (lambda: nn.MultiheadAttention(8, 2), "attn.out_proj", "attn"),
    ],
)
def test_the_output_projection_leads_back_to_the_stream(
    attention: object, projection: str, ends: str
) -> None:
    parts = find_parts(Block(attention()))  # type: ignore[operator]
    assert (parts.projection, parts.attention, parts.heads) == (projection, ends, 2)


@pytest.mark.parametrize(
    ("form", "last", "ends"),
    [
        ("mlp", "mlp.1", "mlp"),
        ("flat", "fc2", "fc2"),
        ("gated", "feed.down", "feed"),
        ("not back", None, None),
        ("none", None, None),
    ],
)
def test_the_last_linear_layer_of_the_mlp(form: str, last: str | None, ends: str | None) -> None:
    parts = find_parts(Block(Heads(), form))
    assert (parts.last_linear, parts.mlp) == (last, ends)
    assert "no MLP of two linear layers" in parts.why_no_mlp


def test_heads_are_counted_by_number_or_size_if_they_fit() -> None:
    def count(**told: int) -> int | None:
        attention = Heads(joined=12)
        del attention.n_heads
        for name, value in told.items():
            setattr(attention, name, value)
        return find_parts(Block(attention)).heads

    assert count() is None
    assert count(num_heads=3) == 3
    assert count(head_dim=6) == 2
    assert count(num_heads=5, head_dim=4) == 3  # 5 heads cannot share 12
    assert count(num_heads=0) is None


def test_an_attention_is_called_so_and_has_a_projection() -> None:
    def named(**parts: nn.Module) -> nn.Module:
        return nn.ModuleDict(parts)

    assert has_attention(named(self_attention=Heads()))
    assert has_attention(named(any_name=nn.MultiheadAttention(8, 2)))
    assert not has_attention(named(any_name=Heads()))
    assert not has_attention(named(attn=nn.Sequential(nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1))))
    assert not has_attention(named(attn=nn.Sequential(nn.Linear(8, 3), nn.Linear(3, 2))))
    assert not has_attention(Heads())  # itself is none within it


def test_what_layers_take_and_give() -> None:
    from transformers.pytorch_utils import Conv1D

    assert features(nn.Conv2d(3, 5, 2)) == (3, 5)
    assert features(nn.Linear(3, 5)) == (3, 5)
    assert features(Conv1D(5, 3)) == (3, 5)  # its order is the other way round
    assert features(nn.LayerNorm(3)) is None
    assert Conv1D(5, 3)(torch.zeros(1, 3)).shape == (1, 5)
