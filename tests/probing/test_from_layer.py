"""A network run from one layer upward gives what a whole run gives, and skips what lies below."""

import numpy as np
import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, ViTConfig, ViTForImageClassification

from retina_codec.errors import RetinaCodecError
from retina_codec.networks.adapter import adapt
from retina_codec.networks.pictures.small_resnet import SmallResNet
from retina_codec.networks.pictures.small_vit import SmallViT
from retina_codec.probing.from_layer import FromLayer
from retina_codec.probing.hooks import HookedFunction


class Block(nn.Module):
    """A residual block with in-place steps, as torchvision writes them."""

    def __init__(self, width: int, relu: nn.Module) -> None:
        super().__init__()
        self.one, self.two, self.relu = nn.Linear(width, width), nn.Linear(width, width), relu

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.two(self.relu(self.one(x)))
        out += x
        return torch.relu_(out)


class Chain(nn.Module):
    """Blocks that share one ReLU, which is also called between them."""

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU(inplace=True)
        self.stem = nn.Linear(5, 6)
        self.blocks = nn.ModuleList(Block(6, self.relu) for _ in range(3))
        self.head = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.stem(x))
        for block in self.blocks:
            x = self.relu(block(x) - 0.1)
        return self.head(x)


class Remembers(Chain):
    """Its first block leaves something behind that the end needs: it cannot be skipped."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number == 0:
                self.blocks[0].left = x
            x = x + self.blocks[0].left
        return self.head(x)


class Hidden(nn.Module):
    """The first block keeps its own input for later, out of sight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Leaves(), nn.Linear(5, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x)) + self.first.seen.sum(1, keepdim=True)


class Leaves(nn.Linear):
    """Leaves what it was given behind."""

    def __init__(self) -> None:
        super().__init__(5, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen = x
        return super().forward(x)


def vit() -> nn.Module:
    config = ViTConfig(
        hidden_size=8, num_hidden_layers=3, num_attention_heads=2, intermediate_size=12,
        image_size=12, patch_size=4, num_labels=5,
    )  # fmt: skip
    return ViTForImageClassification(config)


def gpt2() -> nn.Module:
    config = GPT2Config(
        n_embd=8, n_layer=3, n_head=2, vocab_size=20, n_positions=12, bos_token_id=0,
        eos_token_id=0,
    )  # fmt: skip
    return GPT2LMHeadModel(config)


def pictures(size: int) -> torch.Tensor:
    return torch.randn(3, 3, size, size)


CASES = {
    "chain": (Chain, lambda: torch.randn(3, 5), ["blocks.0", "blocks.1.one", "blocks.2"], {}),
    "called often": (Chain, lambda: torch.randn(3, 5), ["relu"], {}),
    "remembers": (Remembers, lambda: torch.randn(3, 5), ["blocks.1"], {}),
    "small cnn": (SmallResNet, lambda: pictures(16), ["stage1.0", "stage2.1.conv1", "pool"], {}),
    "small vit": (
        lambda: SmallViT(size=8, dim=8, depth=3, heads=2, hidden=12),
        lambda: pictures(8),
        ["blocks.1", "blocks.1.mlp.act"],
        {},
    ),
    "before a module": (
        lambda: SmallViT(size=8, dim=8, depth=3, heads=2, hidden=12),
        lambda: pictures(8),
        ["blocks.2.attn.proj", "blocks.0.mlp.fc2"],
        {"hook": "input"},
    ),
    "vit of transformers": (vit, lambda: pictures(12), ["vit.layers.1", "vit.layernorm"], {}),
    "language model": (
        gpt2,
        lambda: {"input_ids": torch.randint(20, (3, 7))},
        ["transformer.h.1", "transformer.h.1.mlp.c_proj"],
        {},
    ),
}


def halved(values: torch.Tensor) -> torch.Tensor:
    """Every repeat gets values of its own."""
    return values * torch.linspace(0, 1, len(values)).view(-1, *[1] * (values.ndim - 1))


@pytest.mark.parametrize("name", CASES)
def test_from_the_layer_equals_from_the_input(name: str) -> None:
    make, inputs, layers, choices = CASES[name]
    torch.manual_seed(0)
    network, x = make().double().eval(), inputs()
    x = x.double() if isinstance(x, torch.Tensor) else x
    function = HookedFunction.open(adapt(network, layers, **choices), x)
    plain = function.outputs(x)
    for layer in function.survey:
        resumed = FromLayer(function, layer)
        kept = resumed.keep(x)
        torch.testing.assert_close(kept.outputs, plain)
        for repeats in (1, 4):
            whole = resumed.run_whole(kept, halved, repeats)
            torch.testing.assert_close(resumed.run(kept, halved, repeats), whole)
            assert not torch.allclose(whole[: len(plain)], plain)
        assert resumed.check(kept, halved, 4) == resumed.resumes == (name != "called often")
        assert bool(kept.outcomes) == resumed.resumes


def test_what_lies_below_is_not_run_again() -> None:
    torch.manual_seed(0)
    network, x = SmallResNet().eval(), pictures(16)
    function, runs = HookedFunction.open(network, x), []
    resumed = FromLayer(function, "stage3.0")
    kept = resumed.keep(x)
    parts = ("stem", "stage1.0.conv1", "stage2.1.conv2", "stage3.0.conv1", "stage3.1.conv1")
    for name in parts:
        module = network.get_submodule(name)
        module.register_forward_hook(lambda *_, name=name: runs.append(name))
    resumed.run(kept, halved, 2)
    assert runs == ["stem", "stage3.1.conv1"]  # the stem's call gives what nobody looks at
    stem = network.stem.weight.detach().clone()
    with torch.no_grad():
        network.stem.weight.fill_(torch.nan)
    assert torch.isfinite(resumed.run(kept, halved, 2)).all()
    assert torch.isfinite(stem).all()


def test_a_block_that_cannot_be_skipped_is_run() -> None:
    """Four repeats of what the block left behind are needed, and only it knows them."""
    torch.manual_seed(0)
    network, x = Hidden().double().eval(), torch.randn(3, 5).double()
    function = HookedFunction.open(network, x, ["first"])
    resumed = FromLayer(function, "first")
    kept = resumed.keep(x)
    expected = torch.cat(
        [network.second(network.first(x) * s) + x.sum(1, keepdim=True) for s in (0.0, 0.5)]
    )
    scale = torch.tensor([0.0, 0.5]).double().repeat_interleave(3)[:, None]
    assert not resumed.check(kept, lambda v: v * scale, 2)
    assert not resumed.resumes
    torch.testing.assert_close(resumed.run(kept, lambda v: v * scale, 2), expected)
    torch.testing.assert_close(resumed.run(resumed.keep(x), lambda v: v * scale, 2), expected)


def test_nothing_is_left_on_the_network_after_a_crash() -> None:
    torch.manual_seed(0)
    network, x = Chain().eval(), torch.randn(3, 5)
    network.stem.forward = lambda values: nn.Linear.forward(network.stem, values)  # the caller's
    own, before = network.stem.__dict__["forward"], x.clone()
    function = HookedFunction.open(network, x, ["blocks.1"])
    resumed = FromLayer(function, "blocks.1")
    kept = resumed.keep(x)

    def crash(values: torch.Tensor) -> torch.Tensor:
        raise KeyError(f"stop at {values.ndim}")

    with pytest.raises(KeyError, match="stop at 2"):
        resumed.run(kept, crash, 2)
    assert network.stem.__dict__["forward"] is own
    others = [m for m in network.modules() if m is not network.stem]
    assert not any("forward" in m.__dict__ for m in others)
    assert not any(m._forward_hooks for m in network.modules())
    assert torch.equal(x, before)
    np.testing.assert_array_equal(network(x).detach(), kept.outputs)


def test_an_unknown_layer_is_named() -> None:
    function = HookedFunction.open(Chain().eval(), torch.randn(2, 5), ["stem"])
    with pytest.raises(RetinaCodecError, match="layer must be one of stem; got 'head'"):
        FromLayer(function, "head")
