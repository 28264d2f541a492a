"""Layers found by name or pattern, parts of outputs taken and put back, errors that help."""

from collections import namedtuple
from typing import Any

import pytest
import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutput

from retina_codec.errors import RetinaCodecError
from retina_codec.networks.adapter import adapt, put, take
from tests.networks.families import IMAGE, LANGUAGE, TorchViT, plain_cnn


def blocks() -> nn.Module:
    network = nn.Module()
    network.stage1 = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
    network.stage2 = nn.Sequential(nn.Conv2d(2, 2, 3), nn.ReLU())
    network.readout = nn.Linear(2, 3)
    return network


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("readout", ("readout",)),
        ("stage?.0", ("stage1.0", "stage2.0")),
        ("*", ("stage1", "stage1.0", "stage1.1", "stage2", "stage2.0", "stage2.1", "readout")),
        (["readout", "stage*.1"], ("readout", "stage1.1", "stage2.1")),
        (["stage2.1", "stage?.1"], ("stage2.1", "stage1.1")),  # in the order given, none twice
    ],
)
def test_layers_are_found_by_name_and_pattern(wanted: Any, found: tuple[str, ...]) -> None:
    assert adapt(blocks(), wanted).layers == found


def test_a_module_under_two_names_is_found_under_both() -> None:
    shared = nn.Linear(2, 2)
    network = nn.ModuleDict({"first": shared, "second": shared})
    assert adapt(network, "*").layers == ("first", "second")


def test_the_networks_own_layers_are_the_default() -> None:
    network = blocks()
    network.layers = ("stage1", "readout")
    assert adapt(network).layers == ("stage1", "readout")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layers": "stage1.5"}, r"no layer 'stage1.5'. The closest are: stage1\.[01]"),
        ({"layers": "qqqq"}, r"no layer 'qqqq'. Its layers are: stage1, stage1.0"),
        ({"layers": ["readout", ""]}, "no layer ''"),
        ({"layers": []}, "layers must name the submodules to explain; got none. They are: stage1"),
        ({"layers": None}, "layers must name the submodules"),
        ({"layers": "*", "kind": "rnn"}, "kind must be one of .*got 'rnn'"),
        ({"layers": "*", "hook": "both"}, "hook must be one of .*got 'both'"),
    ],
)
def test_what_cannot_be_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(RetinaCodecError, match=message):
        adapt(blocks(), **arguments)


def test_only_a_module_is_a_network() -> None:
    with pytest.raises(RetinaCodecError, match="must be a torch module; got str"):
        adapt("resnet50", "*")  # type: ignore[arg-type]


def test_axes_are_declared_by_kind_or_number_or_layer() -> None:
    network = blocks()
    assert adapt(network, "*").declared_axis("readout") is None
    assert adapt(network, "*", kind="cnn").declared_axis("readout") == 1
    assert adapt(network, "*", kind="transformer").declared_axis("readout") == -1
    by_layer = adapt(network, "*", kind="cnn", channel_axis={"readout": 2})
    assert by_layer.declared_axis("readout") == 2
    assert adapt(network, "*", kind="cnn", channel_axis=3).declared_axis("readout") == 3


ONE, TWO, NEW = torch.zeros(1, 2), torch.ones(1, 2), torch.full((1, 2), 7.0)
Pair = namedtuple("Pair", ["first", "second"])


@pytest.mark.parametrize(
    ("outcome", "element", "taken"),
    [
        (ONE, None, ONE),
        ((ONE, TWO), None, ONE),
        ((None, TWO), None, TWO),  # the first tensor
        ((ONE, TWO), 1, TWO),
        ((ONE, TWO), -1, TWO),
        ([ONE, TWO], 1, TWO),
        (Pair(ONE, TWO), 1, TWO),
        ({"a": ONE, "b": TWO}, "b", TWO),
        ({"a": "text", "b": TWO}, None, TWO),
        (BaseModelOutput(last_hidden_state=ONE, hidden_states=(TWO,)), None, ONE),
        (BaseModelOutput(last_hidden_state=ONE), "last_hidden_state", ONE),
    ],
)
def test_a_part_is_taken_and_put_back_and_nothing_else_changes(
    outcome: Any, element: int | str | None, taken: torch.Tensor
) -> None:
    assert take(outcome, element, "layer") is taken
    changed = put(outcome, element, NEW)
    assert type(changed) is type(outcome)
    assert take(changed, element, "layer") is NEW
    assert take(outcome, element, "layer") is taken  # a new outcome, not the old one changed
    if not isinstance(outcome, torch.Tensor):
        keys = outcome if isinstance(outcome, dict) else range(len(outcome))
        others = [key for key in keys if outcome[key] is not taken]
        assert all(changed[key] is outcome[key] for key in others)
        assert len(changed) == len(outcome)
    if isinstance(outcome, BaseModelOutput):
        assert changed.last_hidden_state is NEW


@pytest.mark.parametrize(
    ("outcome", "element", "message"),
    [
        ((ONE, TWO), 5, "part 5 of tuple is NoneType"),
        ((ONE, TWO), "hidden", "part 'hidden' of tuple"),
        ({"a": ONE}, "b", r"part 'b' of \['a'\]"),
        ({"a": "text"}, "a", "is str. Choose another with element="),
        ("text", None, "must give a tensor"),
    ],
)
def test_a_part_that_is_not_there_is_named(outcome: Any, element: Any, message: str) -> None:
    with pytest.raises(RetinaCodecError, match=message):
        take(outcome, element, "layer 'x'")


class Answers(nn.Module):
    def __init__(self, outcome: Any) -> None:
        super().__init__()
        self.part = nn.Identity()
        self.outcome = outcome

    def forward(self, x: torch.Tensor) -> Any:
        del x
        return self.outcome


@pytest.mark.parametrize(
    ("outcome", "output", "answer"),
    [
        (ONE, None, ONE),
        ((ONE, TWO), None, ONE),
        ((ONE, TWO), 1, TWO),
        ({"score": TWO}, "score", TWO),
    ],
)
def test_the_part_of_the_output_that_counts(outcome: Any, output: Any, answer: Any) -> None:
    assert adapt(Answers(outcome), "part", output=output).call(ONE) is answer


@pytest.mark.parametrize("outcome", [torch.zeros(3), {"score": TWO}, "text", None])
def test_an_output_without_a_tensor_is_refused(outcome: Any) -> None:
    way = "Keep the axis" if isinstance(outcome, torch.Tensor) else "Name the part"
    with pytest.raises(RetinaCodecError, match=rf"must return one tensor .* {way}"):
        adapt(Answers(outcome), "part").call(ONE)


def test_named_inputs_are_passed_by_name() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = nn.Identity()

        def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
            return self.part(left - right)

    network = adapt(Two(), "part")
    assert torch.equal(network.call({"right": ONE, "left": TWO}), TWO)


# Words for sites


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
def test_words_that_fit_no_site_are_refused(
    make: Any, layers: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(RetinaCodecError, match=message):
        adapt(make(), layers, **options)
