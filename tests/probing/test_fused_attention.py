"""Heads of torch's own attention before their projection, against loops over heads."""

from typing import Any

import pytest
import torch
from torch import nn

from retina_codec.contributions.contribute import contribute
from retina_codec.errors import RetinaCodecError
from retina_codec.methods.base import Method
from retina_codec.methods.gradients import ActGrad, InputGrad
from retina_codec.methods.integrated_gradients import IntegratedGradients
from retina_codec.networks.adapter import adapt
from retina_codec.probing.hooks import HookedFunction
from retina_codec.reductions import HeadSums
from retina_codec.targets.base import Sum, as_target
from tests.networks.families import TorchViT

SQUARE = as_target(lambda y: (y**2).flatten(1).sum(1))


class Attends(nn.Module):
    """One attention of torch with whatever options, called as its user would."""

    def __init__(self, call: dict[str, Any] | None = None, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.attention = nn.MultiheadAttention(8, 2, **options)
        self.call, self.first = call or {}, options.get("batch_first", False)
        for values in self.attention.parameters():
            nn.init.normal_(values)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x if self.first else x.transpose(0, 1)
        found = self.attention(x, x, x, **self.call)[0]
        return found if self.first else found.transpose(0, 1)


def heads_by_hand(attention: nn.MultiheadAttention, x: torch.Tensor) -> torch.Tensor:
    """One input, head and token at a time; ``(b, token, 8)``."""
    found = torch.zeros_like(x)
    weights = attention.in_proj_weight.view(3, 2, 4, 8)
    biases = attention.in_proj_bias.view(3, 2, 4)
    for number, tokens in enumerate(x):
        for head in range(2):
            q, k, v = (tokens @ weights[i, head].T + biases[i, head] for i in range(3))
            for place in range(len(tokens)):
                share = torch.softmax(torch.stack([q[place] @ key / 2 for key in k]), 0)
                found[number, place, 4 * head : 4 * head + 4] = share @ v
    return found


WORDS = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(1)).double()


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("call", [{}, {"need_weights": False}])
def test_heads_before_the_projection_are_those_of_a_loop(first: bool, call: dict) -> None:
    network = Attends(call, batch_first=first).double().eval().requires_grad_(False)
    name = "attention.out_proj"
    function = HookedFunction.open(adapt(network, name, hook="input"), WORDS)
    seen = function(WORDS, SQUARE)
    expected = heads_by_hand(network.attention, WORDS).requires_grad_()
    torch.testing.assert_close(seen.activation[name], expected.detach())
    torch.testing.assert_close(function.activations(WORDS)[name], expected.detach())
    out = network.attention.out_proj
    value = SQUARE(expected @ out.weight.T + out.bias)
    (gradient,) = torch.autograd.grad(value.sum(), expected)
    torch.testing.assert_close(seen.value, value.detach())
    torch.testing.assert_close(seen.gradient[name], gradient)


@pytest.mark.parametrize(
    ("call", "options"),
    [
        ({"attn_mask": torch.ones(5, 5).tril() == 0}, {}),
        ({"attn_mask": torch.ones(5, 5).tril() == 0, "is_causal": True}, {}),
        ({"key_padding_mask": torch.eye(3, 5) == 1}, {}),
        ({}, {"bias": False}),
        ({}, {"add_bias_kv": True}),
        ({}, {"add_zero_attn": True}),
        ({}, {"kdim": 8, "vdim": 8}),
        ({"average_attn_weights": False}, {}),
    ],
)
def test_looking_at_heads_changes_nothing(call: dict[str, Any], options: dict[str, Any]) -> None:
    network = Attends(call, **options).double().eval()
    plain = network(WORDS)
    function = HookedFunction(adapt(network, "attention.out_proj", hook="input"), {})
    torch.testing.assert_close(function.outputs(WORDS), plain.detach())
    with torch.no_grad(), function.watched(lambda *_: None):
        watched = network(WORDS)
    torch.testing.assert_close(watched, plain.detach())


def test_what_is_put_in_place_of_heads_goes_through_the_projection() -> None:
    network = Attends(batch_first=True).double().eval().requires_grad_(False)
    function = HookedFunction.open(adapt(network, "attention.out_proj", hook="input"), WORDS)
    units = torch.randn(3, 5, 8).double()
    value, gradient = function.above("attention.out_proj", units, WORDS, Sum())
    out = network.attention.out_proj
    torch.testing.assert_close(value, (units @ out.weight.T + out.bias).sum((1, 2)))
    torch.testing.assert_close(gradient, out.weight.sum(0).expand(3, 5, 8))


@pytest.mark.parametrize("method", [ActGrad(), InputGrad(), IntegratedGradients(3)], ids=repr)
def test_sums_before_and_after_the_projection_are_equal(method: Method) -> None:
    """The projection is affine: g·Wᵀ against Δh is g against W Δh, whatever the path."""
    network = TorchViT().double()
    network.encoder.layers[0].self_attn.out_proj.bias.data.zero_()  # ActGrad has no differences
    pictures = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(2)).double()
    adapter = adapt(network, ["attention", "post_attention"])
    options = {"target": SQUARE, "method": method, "progress": False}
    layers = contribute(adapter, pictures, **options)["layers"].children
    before = layers["encoder.layers.0.self_attn.out_proj"]["contribution"].sum(("sign", "channel"))
    after = layers["encoder.layers.0.self_attn"]["contribution"].sum(("sign", "channel"))
    torch.testing.assert_close(torch.tensor(before.values), torch.tensor(after.values))
    heads = contribute(adapter, pictures, reduction=HeadSums(2), **options)
    attrs = heads["layers"].children["encoder.layers.1.self_attn.out_proj"].attrs
    assert attrs["heads"] == 2


def test_the_fast_path_is_off_within_and_as_it_was_afterwards() -> None:
    """In one fused step no module of the block would be called."""
    network = TorchViT().requires_grad_(False)
    pictures = torch.randn(2, 3, 12, 12)
    function = HookedFunction.open(adapt(network, ["mlp", "attention"]), pictures)
    for enabled in (True, False):
        torch.backends.mha.set_fastpath_enabled(enabled)
        try:
            seen = function.activations(pictures)
            assert torch.backends.mha.get_fastpath_enabled() == enabled
        finally:
            torch.backends.mha.set_fastpath_enabled(True)
        assert list(seen) == list(function.network.layers)


def test_other_attentions_and_errors_pass_through() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = Attends(batch_first=True), Attends(batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.two(self.one(x))

    network = Two().double().eval().requires_grad_(False)
    name = "two.attention.out_proj"
    seen = HookedFunction.open(adapt(network, name, hook="input"), WORDS).activations(WORDS)
    torch.testing.assert_close(seen[name], heads_by_hand(network.two.attention, network.one(WORDS)))
    with pytest.raises(RetinaCodecError, match=r"were not called .* weights of others"):
        HookedFunction.open(adapt(network, name), WORDS)  # its output is seen nowhere


def test_an_attention_without_a_batch_is_refused() -> None:
    class Alone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.stack([self.attention(one, one, one)[0] for one in x])

    network = Alone().double().eval()
    with pytest.raises(RetinaCodecError, match="must be given a batch"):
        HookedFunction.open(adapt(network, "attention.out_proj", hook="input"), WORDS)
