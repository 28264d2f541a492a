"""The fast evaluation of the retina network against the plain one, and the care of the caller's."""

import numpy as np
import pytest
import torch
from torch import nn

from retina_codec.contributions.evaluation import (
    HookedFunction,
    RetinaFunction,
    make_function,
    working_network,
)
from retina_codec.contributions.methods import IntegratedGradients
from retina_codec.contributions.targets import Sum, Surprisal, as_target
from retina_codec.errors import RetinaCodecError
from tests.contributions.tiny import tiny_retina, tiny_windows

LAYERS = ("conv1", "conv2", "conv3")


@pytest.mark.parametrize("stacked", [False, True])
@pytest.mark.parametrize("consecutive", [False, True])
def test_the_fast_way_and_hooks_give_the_same(stacked: bool, consecutive: bool) -> None:
    network = tiny_retina(stacked=stacked).double()
    windows = tiny_windows(9)
    target = Surprisal().fit(network(tiny_windows(200)).detach())
    with working_network(network, None, None):
        fast = make_function(network, LAYERS, consecutive=consecutive)
        plain = HookedFunction(network, LAYERS)
        assert isinstance(fast, RetinaFunction)
        torch.testing.assert_close(fast.outputs(fast.start(windows)), network(windows))
        method = IntegratedGradients(6, baseline=0.1)
        found = method.explain(fast, target, windows)
        expected = method.explain(plain, target, windows)
        for name in ("conv1", "conv2"):
            torch.testing.assert_close(found.contribution[name], expected.contribution[name])
        # Units of the last layer that no cell reads contribute exactly nothing.
        whole = expected.contribution["conv3"]
        places = network.readout.locations
        cell = torch.arange(len(places))
        read = whole[:, cell, places[:, 0], places[:, 1]]
        torch.testing.assert_close(found.contribution["conv3"], read)
        torch.testing.assert_close(whole.flatten(2).abs().sum(2), read.abs())
        torch.testing.assert_close(found.value, expected.value)
        torch.testing.assert_close(found.baseline_value, expected.baseline_value)
        for name, maps in plain.activations(windows).items():
            torch.testing.assert_close(fast.activations(fast.start(windows))[name], maps)


@pytest.mark.parametrize("layers", [("conv3",), ("conv2",), ("conv3", "conv1")])
def test_fewer_layers_give_the_same_values(layers: tuple[str, ...]) -> None:
    network = tiny_retina().double().requires_grad_(False)
    windows, method = tiny_windows(5), IntegratedGradients(3)
    every = make_function(network, LAYERS)
    some = make_function(network, layers)
    expected = method.explain(every, Sum(), windows).contribution
    found = method.explain(some, Sum(), windows).contribution
    assert set(found) == set(layers)
    for name in layers:
        torch.testing.assert_close(found[name], expected[name])


def test_a_network_with_hooks_of_its_own_is_run_module_by_module() -> None:
    """An ablation by hook must act: with conv2 silenced, nothing reaches the rates."""
    network = tiny_retina().double().requires_grad_(False)
    handle = network.relu2.register_forward_hook(lambda *_: torch.zeros(5, 3, 5, 4).double())
    function = make_function(network, ("conv3",))
    assert isinstance(function, HookedFunction)
    rates = function.outputs(tiny_windows(5))
    torch.testing.assert_close(rates, rates[:1].expand_as(rates))
    handle.remove()
    assert isinstance(make_function(network, ("conv3",)), RetinaFunction)
    assert isinstance(make_function(network, ("relu1",)), HookedFunction)


def test_an_in_place_module_after_the_layer_changes_nothing() -> None:
    torch.manual_seed(0)
    first, last = nn.Linear(4, 6), nn.Linear(6, 2)
    x, found = torch.randn(5, 4), []
    for in_place in (True, False):
        network = nn.Sequential(first, nn.ReLU(inplace=in_place), last).requires_grad_(False)
        function = HookedFunction(network, ("0", "1"))
        explained = IntegratedGradients(5).explain(function, Sum(), x).contribution
        found.append({**explained, "activation": function.activations(x)["0"]})
    for name, values in found[0].items():
        assert torch.equal(values, found[1][name])


def test_the_backward_pass_stops_at_the_lowest_layer() -> None:
    passed = []

    class Watched(torch.autograd.Function):
        @staticmethod
        def forward(_: object, values: torch.Tensor) -> torch.Tensor:
            return values.clone()

        @staticmethod
        def backward(_: object, gradient: torch.Tensor) -> torch.Tensor:
            passed.append(True)
            return gradient

    class Watch(nn.Module):
        def forward(self, values: torch.Tensor) -> torch.Tensor:
            return Watched.apply(values)

    network = nn.Sequential(nn.Linear(3, 3), Watch(), nn.Linear(3, 3), nn.Linear(3, 2))
    function = HookedFunction(network, ("2",))
    function(torch.randn(2, 3), Sum())
    assert not passed
    HookedFunction(network, ("0",))(torch.randn(2, 3), Sum())
    assert passed
    assert all(parameter.grad is None for parameter in network.parameters())


def test_the_callers_network_is_lent_and_given_back_also_after_a_crash() -> None:
    network = tiny_retina().train()
    network.norm1.eval()
    network.conv2.weight.requires_grad_(False)
    flags = [module.training for module in network.modules()]
    gradients = [parameter.requires_grad for parameter in network.parameters()]

    def work() -> None:
        with working_network(network, None, None) as lent:
            assert lent is network
            assert not any(module.training for module in lent.modules())
            assert not any(parameter.requires_grad for parameter in lent.parameters())
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        work()
    assert [module.training for module in network.modules()] == flags
    assert [parameter.requires_grad for parameter in network.parameters()] == gradients
    with working_network(network, None, torch.float64) as copy:
        assert copy is not network
        assert copy.conv1.weight.dtype == torch.float64
    assert network.conv1.weight.dtype == torch.float32


def test_hooks_are_gone_after_a_crash() -> None:
    network = tiny_retina()

    def crash(_: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("boom")

    function = HookedFunction(network, LAYERS)
    with pytest.raises(RuntimeError, match="boom"):
        function(tiny_windows(2).float(), as_target(crash))
    with pytest.raises(RuntimeError, match="size"):
        function(torch.zeros(2, 3), Sum())
    assert not any(module._forward_hooks for module in network.modules())


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.idle, self.side = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)
        self.pair = Pair()

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        self.side(values)
        return self.inner(self.inner(self.pair(values)[0]))


class Pair(nn.Module):
    def forward(self, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return values, values


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("inner", "'inner' is called more than once"),
        ("idle", r"\['idle'\] were not called"),
        ("side", r"does not depend on layers \['side'\]"),
        ("pair", "layer 'pair' must return one tensor .* got tuple"),
        ("other", "no layer 'other'. Its layers are: inner, idle, side, pair"),
        ("", "no layer ''"),
    ],
)
def test_layers_that_cannot_be_explained(layer: str, message: str) -> None:
    with pytest.raises(RetinaCodecError, match=message):
        HookedFunction(Twice(), (layer,))(torch.ones(2, 3), Sum())


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (lambda y: y, r"shape \(2,\); got \(2, 4\)"),
        (lambda y: y.sum(), r"shape \(2,\); got \(\)"),
        (lambda _: 3.0, r"shape \(2,\); got float"),
        (lambda y: y.sum(1).detach(), "does not depend on layers"),
    ],
)
def test_targets_that_cannot_be_explained(target: object, message: str) -> None:
    network = nn.Sequential(nn.Linear(3, 4))
    with pytest.raises(RetinaCodecError, match=message):
        HookedFunction(network, ("0",))(torch.ones(2, 3), as_target(target))  # type: ignore[arg-type]


def test_frames_that_do_not_repeat_give_the_first_layer_too() -> None:
    """Transforms of frames against torch's convolution, odd and even frame sizes."""
    for shape in ((9, 8), (10, 11)):
        network = tiny_retina(frame_shape=shape).double().requires_grad_(False)
        frames = torch.from_numpy(np.random.default_rng(1).normal(size=(12, *shape)))
        windows = frames.unfold(0, network.history, 1).movedim(-1, 1)
        function = make_function(network, ("conv1",), consecutive=True)
        torch.testing.assert_close(function.start(windows), network.conv1(windows))
