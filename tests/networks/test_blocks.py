"""Blocks and sites of many families, found from their modules alone."""

from typing import Any

import pytest
import torch
from torch import nn

from retina_codec.errors import RetinaCodecError
from retina_codec.networks.blocks import SITES, find_structure
from tests.networks.families import IMAGE, LANGUAGE, TorchViT, plain_cnn

# family, number of blocks, first and last block, leading tokens
FOUND: dict[str, tuple[str, int, str, str, int]] = {
    "resnet": (
        "repeated blocks", 3, "resnet.encoder.stages.0.layers.0",
        "resnet.encoder.stages.1.layers.0", 0,
    ),
    "convnext": (
        "repeated blocks", 2, "convnext.encoder.stages.0.layers.0",
        "convnext.encoder.stages.1.layers.0", 0,
    ),
    "mobilenet_v2": ("repeated blocks", 16, "mobilenet_v2.layer.0", "mobilenet_v2.layer.15", 0),
    "mobilenet_v1": (
        "convolutions in a row", 26, "mobilenet_v1.layer.0", "mobilenet_v1.layer.25", 0,
    ),
    "regnet": (
        "repeated blocks", 3, "regnet.encoder.stages.0.layers.0",
        "regnet.encoder.stages.1.layers.1", 0,
    ),
    "vit": ("transformer", 2, "vit.layers.0", "vit.layers.1", 1),
    "deit": ("transformer", 2, "deit.layers.0", "deit.layers.1", 2),
    "dinov2_registers": (
        "transformer", 2, "dinov2_with_registers.encoder.layer.0",
        "dinov2_with_registers.encoder.layer.1", 5,
    ),
    "gpt2": ("language model", 2, "transformer.h.0", "transformer.h.1", 0),
    "llama": ("language model", 2, "model.layers.0", "model.layers.1", 0),
    "gemma2": ("language model", 2, "model.layers.0", "model.layers.1", 0),
    "neox": ("language model", 2, "gpt_neox.layers.0", "gpt_neox.layers.1", 0),
    "opt": ("language model", 2, "model.decoder.layers.0", "model.decoder.layers.1", 0),
    "bert": ("language model", 2, "bert.encoder.layer.0", "bert.encoder.layer.1", 0),
}  # fmt: skip

# mlp, attention, post_attention, post_mlp of the first block, from the block's name on
WHERE: dict[str, tuple[str, str, str, str]] = {
    "vit": ("mlp.fc2", "attention.o_proj", "attention", "mlp"),
    "deit": ("mlp.fc2", "attention.o_proj", "attention", "mlp"),
    "dinov2_registers": ("mlp.fc2", "attention.o_proj", "attention", "mlp"),
    "gpt2": ("mlp.c_proj", "attn.c_proj", "attn", "mlp"),
    "llama": ("mlp.down_proj", "self_attn.o_proj", "self_attn", "mlp"),
    "gemma2": ("mlp.down_proj", "self_attn.o_proj", "self_attn", "mlp"),
    "neox": ("mlp.dense_4h_to_h", "attention.dense", "attention", "mlp"),
    "opt": ("fc2", "self_attn.out_proj", "self_attn", "fc2"),
    "bert": (
        "output.dense", "attention.output.dense", "attention.output.dense", "output.dense",
    ),
}  # fmt: skip


@pytest.mark.parametrize("family", FOUND)
def test_blocks_of_every_family(family: str) -> None:
    kind, count, first, last, leading = FOUND[family]
    structure = find_structure((IMAGE | LANGUAGE)[family]())
    sites = structure.sites("blocks")
    assert structure.family == kind
    assert (len(sites), sites[0].layer, sites[-1].layer) == (count, first, last)
    assert {(site.hook, site.leading_tokens) for site in sites} == {("output", leading)}
    assert [site.block for site in sites] == list(range(count))


@pytest.mark.parametrize("family", WHERE)
def test_sites_within_the_blocks_of_every_transformer(family: str) -> None:
    structure = find_structure((IMAGE | LANGUAGE)[family]())
    hooks = ("input", "input", "output", "output")
    for word, where, hook in zip(SITES[1:], WHERE[family], hooks, strict=True):
        sites = structure.sites(word)
        expected = [f"{block.name}.{where}" for block in structure.blocks]
        assert [site.layer for site in sites] == expected
        assert {(s.hook, s.channel_axis, s.heads) for s in sites} == {(hook, -1, 2)}


def test_torchs_own_transformer() -> None:
    structure = find_structure(TorchViT())
    assert structure.leading == ("class_token",)
    first = {word: structure.sites(word)[0].layer for word in SITES}
    assert first == {
        "blocks": "encoder.layers.0",
        "mlp": "encoder.layers.0.linear2",
        "attention": "encoder.layers.0.self_attn.out_proj",
        "post_attention": "encoder.layers.0.self_attn",
        "post_mlp": "encoder.layers.0.linear2",
    }


def test_a_nonlinearity_after_each_convolution_where_nothing_else_repeats() -> None:
    """A norm may stand between; a convolution without a nonlinearity is no stage, nor a linear."""
    structure = find_structure(plain_cnn())
    assert [site.layer for site in structure.sites("blocks")] == ["0.2", "0.5"]


class Mixed(nn.Module):
    """Two linear layers and a sum; may hold small repeated parts of its own."""

    def __init__(self, inner: int = 0) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        if inner:
            self.small = nn.ModuleList(Unit() for _ in range(inner))


class Unit(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(4, 4, 1)


class Squeeze(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(4, 2, 1), nn.Conv2d(2, 4, 1)


class Stage(nn.Module):
    def __init__(self, count: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Mixed() for _ in range(count))


def names(network: nn.Module) -> list[str]:
    return [site.layer for site in find_structure(network).sites("blocks")]


def test_blocks_are_the_innermost_that_repeat() -> None:
    assert names(nn.ModuleList([Stage(2), Stage(1)])) == ["0.blocks.0", "0.blocks.1", "1.blocks.0"]


def test_parts_with_one_convolution_each_are_no_blocks_where_there_are_larger_ones() -> None:
    assert names(nn.Sequential(Mixed(3), Mixed(3))) == ["0", "1"]


def test_a_part_that_stands_alone_among_others_is_no_block() -> None:
    """Squeeze-and-excitation has two convolutions, but no neighbour of its kind."""
    rows = [nn.Sequential(Unit(), Squeeze(), Unit()) for _ in range(2)]

    class Inverted(nn.Module):
        def __init__(self, row: nn.Module) -> None:
            super().__init__()
            self.row = row

    network = nn.Sequential(nn.Conv2d(3, 4, 1), *(Inverted(row) for row in rows), nn.Flatten())
    assert names(network) == ["1", "2"]


def test_neighbours_under_one_parent_are_a_row_too() -> None:
    """As in GoogLeNet: inception3a, inception3b, ... of one class."""

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.mixed_a, self.mixed_b = Unit(), Mixed(), Mixed()

    assert names(Named()) == ["mixed_a", "mixed_b"]


def test_a_module_in_two_rows_is_one_block() -> None:
    shared = Mixed()
    assert names(nn.Sequential(shared, shared, Mixed())) == ["0", "2"]


@pytest.mark.parametrize(
    ("make", "word", "message"),
    [
        (IMAGE["resnet"], "attention", r"no attention in its blocks.*3 blocks .ResNet"),
        (IMAGE["vit"], "heads", "a site is one of blocks, mlp, attention, post_attention"),
        (lambda: nn.Sequential(nn.Linear(2, 2)), "blocks", r"no repeated.*modules are: 0"),
    ],
)  # fmt: skip
def test_what_was_looked_for_is_said(make: Any, word: str, message: str) -> None:
    with pytest.raises(RetinaCodecError, match=message):
        find_structure(make()).sites(word)


def test_a_mixture_of_experts_has_no_mlp_but_the_rest() -> None:
    class Expert(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(8, 12), nn.Linear(12, 8)

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2)
            self.experts = nn.ModuleList(Expert() for _ in range(3))

    structure = find_structure(nn.ModuleList([Layer(), Layer()]))
    assert len(structure.sites("attention")) == 2
    with pytest.raises(RetinaCodecError, match="mixture of experts"):
        structure.sites("mlp")


def test_a_layer_that_is_named_is_known_by_its_block() -> None:
    structure = find_structure(IMAGE["dinov2_registers"]())
    block = "dinov2_with_registers.encoder.layer.1"
    found = structure.site_of(f"{block}.attention.o_proj", "input")
    assert found == structure.sites("attention")[1]
    inside = structure.site_of(f"{block}.norm2", "output")
    assert inside is not None
    assert (inside.site, inside.block, inside.leading_tokens) == ("inside", 1, 5)
    assert structure.site_of("classifier", "output") is None
    other = structure.site_of(f"{block}.attention.o_proj", "output")
    assert other is not None
    assert other.site == "inside"


def test_leading_tokens_belong_to_the_tower_that_has_them() -> None:
    class Tower(nn.Module):
        def __init__(self, tokens: int) -> None:
            super().__init__()
            self.embeddings = nn.Module()
            if tokens:
                self.embeddings.class_embedding = nn.Parameter(torch.zeros(8))
                self.embeddings.mask_token = nn.Parameter(torch.zeros(1, 1, 8))
            layers = [nn.TransformerEncoderLayer(8, 2, 12) for _ in range(2)]
            self.layers = nn.ModuleList(layers)

    structure = find_structure(nn.ModuleDict({"text": Tower(0), "vision": Tower(1)}))
    counts = {block.name: block.leading_tokens for block in structure.blocks}
    assert counts == {
        "text.layers.0": 0, "text.layers.1": 0, "vision.layers.0": 1, "vision.layers.1": 1,
    }  # fmt: skip
    assert structure.leading == ("vision.embeddings.class_embedding",)
