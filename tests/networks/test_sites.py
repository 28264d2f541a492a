"""Words for sites among the layers of an adapter."""

from typing import Any

import pytest
from torch import nn

from retina_codec.errors import RetinaCodecError
from retina_codec.networks.adapter import adapt
from tests.networks.families import IMAGE, LANGUAGE, TorchViT, plain_cnn


def test_words_and_names_together_each_with_its_side_and_axis() -> None:
    adapter = adapt(LANGUAGE["gpt2"](), ["mlp", "transformer.ln_f", "blocks"])
    expected = {
        "transformer.h.0.mlp.c_proj": ("input", -1),
        "transformer.h.1.mlp.c_proj": ("input", -1),
        "transformer.ln_f": ("output", None),
        "transformer.h.0": ("output", None),
        "transformer.h.1": ("output", None),
    }
    assert adapter.layers == tuple(expected)
    assert {
        name: (adapter.hook_of(name), adapter.declared_axis(name)) for name in adapter.layers
    } == expected
    assert adapter.describe()["hook"].startswith("output; input of transformer.h.0.mlp.c_proj, ")


def test_one_side_for_all_is_a_word_of_its_own() -> None:
    adapter = adapt(LANGUAGE["gpt2"](), "attention")
    assert adapter.hook == "input"
    assert adapter.heads("transformer.h.1.attn.c_proj") == 2


def test_sides_can_be_given_by_name() -> None:
    adapter = adapt(plain_cnn(), ["0.0", "0.4", "blocks"], hook={"0.4": "input"})
    assert [adapter.hook_of(name) for name in adapter.layers] == [
        "output", "input", "output", "output",
    ]  # fmt: skip


def test_an_axis_that_is_declared_comes_before_that_of_the_site() -> None:
    network, name = LANGUAGE["gpt2"](), "transformer.h.0.mlp.c_proj"
    assert adapt(network, "mlp").declared_axis(name) == -1
    assert adapt(network, "mlp", channel_axis={name: 1}).declared_axis(name) == 1
    assert adapt(network, "mlp", channel_axis={"other": 1}).declared_axis(name) == -1
    assert adapt(network, "mlp", kind="cnn").declared_axis(name) == 1


def test_a_word_that_is_a_name_too() -> None:
    """timm calls the row of its blocks "blocks"."""
    network = nn.Module()
    network.blocks = nn.Sequential(*(nn.TransformerEncoderLayer(8, 2, 12) for _ in range(2)))
    assert adapt(network, "blocks").layers == ("blocks.0", "blocks.1")
    assert adapt(network, "[b]locks").layers == ("blocks",)
    simple = nn.ModuleDict({"blocks": nn.Linear(2, 2)})  # nothing repeats: a name
    assert adapt(simple, "blocks").layers == ("blocks",)


def test_what_is_known_of_a_layer_that_was_named() -> None:
    adapter = adapt(TorchViT(), ["encoder.layers.1", "encoder.layers.0.norm1", "head"])
    assert [adapter.leading_tokens(name) for name in adapter.layers] == [1, 1, 0]
    assert adapter.heads("encoder.layers.1") is None


@pytest.mark.parametrize(
    ("make", "layers", "options", "message"),
    [
        (LANGUAGE["bert"], ["mlp", "post_mlp"], {}, "two sides of the same module 'bert.encoder"),
        (IMAGE["resnet"], "mlp", {}, "no block of this network has the site 'mlp'"),
        (lambda: nn.Sequential(nn.Linear(2, 2)), "blocks", {}, "no repeated structure was found"),
        (plain_cnn, "blocks", {"tokens": "some"}, "tokens must be one of .*got 'some'"),
        (plain_cnn, "blocks", {"hook": {"0.2": "both"}}, "hook must be one of .*got 'both'"),
    ],
)
def test_what_cannot_be_is_refused(
    make: Any, layers: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(RetinaCodecError, match=message):
        adapt(make(), layers, **options)
