"""Maps in input space: closed forms, units one by one, and sums that must come out."""

from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from retina_codec.contributions.contribute import contribute
from retina_codec.contributions.maps import input_map
from retina_codec.errors import RetinaCodecError
from retina_codec.methods.base import Method
from retina_codec.methods.gradients import ActGrad, ActNormGrad, InputGrad, SmoothGrad
from retina_codec.methods.integrated_gradients import IntegratedGradients
from retina_codec.networks.adapter import adapt
from retina_codec.reductions import AllUnits
from retina_codec.targets.base import Sum, as_target
from retina_codec.targets.classification import Probability, TopK
from tests.contributions.tiny import HISTORY, tiny_retina, tiny_split, tiny_windows
from tests.reference import maps as slow

SQUARE = as_target(lambda y: (y**2).sum(1))
UNIFORM = IntegratedGradients(5, baseline=0.2, placement="uniform")
METHODS = [InputGrad(0.2), ActGrad(0.2), UNIFORM]


def linear_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 6), nn.Linear(6, 3)).double()


def curved_net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    first = (nn.Conv2d(2, 3, 2), nn.Tanh(), nn.Conv2d(3, 4, 2), nn.Softplus())
    return nn.Sequential(*first, nn.Flatten(), nn.Linear(24, 3)).double()


X = torch.randn(3, 2, 4, 5, generator=torch.Generator().manual_seed(1)).double()


def maps(method: Method, x: Any = X, layer: str = "1", seed: int = 0, **choices: Any) -> xr.Dataset:
    options = {"target": SQUARE, "steps": 5} | choices
    return input_map(curved_net(seed), x, layer, method=method, **options)


def units_of(method: Method, layer: str = "1", seed: int = 0) -> np.ndarray:
    """C_j with the layer's own shape, (b, channel, row, column)."""
    tree = contribute(
        curved_net(seed), X, target=SQUARE, method=method, layers=[layer], reduction=AllUnits(),
        progress=False,
    )  # fmt: skip
    return tree[f"layers/{layer}/contribution"].values


@pytest.mark.parametrize("method", METHODS, ids=repr)
@pytest.mark.parametrize("positive_only", [False, True])
def test_on_a_linear_network_a_map_is_weights_times_change(
    method: Method, positive_only: bool
) -> None:
    """C_ij = v_j W_ji (x_i − x′_i) for every method."""
    network, x = linear_net(), torch.randn(4, 5).double()
    weights = torch.rand(6).double()
    found = input_map(
        network, x, "0", target=Sum(), method=method, weights=weights, positive_only=positive_only
    )
    change = (x - 0.2)[:, None]  # (b, 1, i)
    parts = network[1].weight.sum(0)[:, None] * network[0].weight * change  # (b, j, i)
    chosen = (parts.sum(2) > 0) if positive_only else torch.ones(4, 6)
    expected = (parts * (chosen * weights)[..., None]).sum(1).detach()
    np.testing.assert_allclose(found["map"], expected, rtol=1e-10)
    np.testing.assert_allclose(found["total"], expected.sum(1), rtol=1e-10)
    np.testing.assert_allclose(found["completeness_error"], 0, atol=1e-12)


@pytest.mark.parametrize("layer", ["0", "3"])
@pytest.mark.parametrize("positive_only", [False, True])
@pytest.mark.parametrize("kind", ["input", "act", "integrated"])
def test_a_map_is_that_of_units_one_by_one(layer: str, positive_only: bool, kind: str) -> None:
    network, cut, start = (
        curved_net().requires_grad_(False),
        int(layer) + 1,
        torch.full_like(X[0], 0.2),
    )
    method = dict(zip(("input", "act", "integrated"), METHODS, strict=True))[kind]
    weights = np.random.default_rng(0).uniform(0, 1, network[:cut](X[:1]).shape[1:])
    found = maps(method, layer=layer, weights=weights, positive_only=positive_only)

    def below(x: torch.Tensor) -> torch.Tensor:
        return network[:cut](x[None])[0]

    def above(h: torch.Tensor) -> torch.Tensor:
        return SQUARE(network[cut:](h[None]))[0]

    acted = units_of(method, layer)
    for one, map_, contribution in zip(X, found["map"].values, acted, strict=True):
        parts = {
            "input": lambda x: slow.input_grad(below, above, x, start),
            "act": lambda x: slow.act_grad(below, above, x, start, 5),
            "integrated": lambda x: slow.integrated_gradients(below, above, x, start, 5),
        }[kind](one)
        m = weights.ravel() * ((contribution.ravel() > 0) if positive_only else 1)
        np.testing.assert_allclose(map_, np.einsum("j,jcyx->cyx", m, parts), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_a_map_sums_to_what_its_units_contribute(method: Method) -> None:
    weights = np.array([0.5, 0.0, 2.0])
    acted = units_of(method)
    for positive_only in (False, True):
        found = maps(method, weights=weights, positive_only=positive_only, steps=200)
        kept = acted * (acted > 0) if positive_only else acted
        total = (kept * weights[:, None, None]).sum((1, 2, 3))
        np.testing.assert_allclose(found["total"], total, rtol=1e-9)
        missing = found["map"].values.sum((1, 2, 3)) - total
        np.testing.assert_allclose(found["completeness_error"], missing, atol=1e-9)
    if isinstance(method, InputGrad):
        np.testing.assert_allclose(missing, 0, atol=1e-10)


def test_quadrature_error_of_a_map_falls_with_its_steps() -> None:
    for few, many in (
        (maps(ActGrad(0.2), steps=4), maps(ActGrad(0.2), steps=64)),
        (maps(IntegratedGradients(4)), maps(IntegratedGradients(64))),
    ):
        error = [float(abs(found["completeness_error"]).max()) for found in (few, many)]
        assert error[1] < error[0] / 200  # 16 times the steps: 256 times less
    gauss = maps(IntegratedGradients(8, quadrature="gauss-legendre"))
    exact = maps(IntegratedGradients(400))
    np.testing.assert_allclose(gauss["map"], exact["map"], rtol=1e-4, atol=1e-6)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 1000), which=st.integers(0, 2))
def test_maps_are_linear_in_weights_and_split_by_sign(seed: int, which: int) -> None:
    method, random = METHODS[which], np.random.default_rng(seed)
    first, second = random.uniform(0, 1, (2, 3))
    one, two, both = (
        maps(method, weights=w, seed=seed)["map"].values
        for w in (first, second, first + 3 * second)
    )
    np.testing.assert_allclose(one + 3 * two, both, rtol=1e-8, atol=1e-10)
    positive = maps(method, positive_only=True, seed=seed)
    signs = units_of(method, seed=seed) <= 0
    negative = [
        maps(method, x[None], weights=chosen.astype(float), seed=seed)["map"].values[0]
        for x, chosen in zip(X, signs, strict=True)
    ]
    everything = maps(method, seed=seed)["map"].values
    np.testing.assert_allclose(positive["map"] + negative, everything, rtol=1e-7, atol=1e-9)
    assert (positive["total"] > 0).all()


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_a_mode_weighs_a_unit_by_the_sign_of_its_contribution(method: Method) -> None:
    random = np.random.default_rng(2)
    dictionary = xr.DataArray(
        random.uniform(0, 1, (2, 2, 3)), dims=("mode", "sign", "channel"),
        coords={"sign": ["inhibitory", "excitatory"]},
    )  # fmt: skip
    mode = dictionary.sel(mode=1)
    acted = units_of(method)
    for given_mode in (mode, mode.transpose("channel", "sign"), mode.isel(sign=[1, 0])):
        found = maps(method, weights=given_mode)
        down, up = (mode.sel(sign=sign).values[:, None, None] for sign in mode["sign"].values)
        for one, map_, contribution in zip(X, found["map"].values, acted, strict=True):
            weights = np.where(contribution > 0, up, down)
            expected = maps(method, one[None], weights=weights)["map"].values[0]
            np.testing.assert_allclose(map_, expected, rtol=1e-9, atol=1e-12)


def test_several_baselines_are_averaged() -> None:
    for kind in (InputGrad, ActGrad, IntegratedGradients):
        many = maps(kind(baseline=[0.1, X[2], 0.7]))
        each = [maps(kind(baseline=baseline)) for baseline in (0.1, X[2], 0.7)]
        for name in ("map", "total"):
            np.testing.assert_allclose(
                many[name], sum(one[name].values for one in each) / 3, rtol=1e-9, atol=1e-12
            )
    mean = maps(IntegratedGradients(baseline="mean"))
    np.testing.assert_allclose(mean["map"], maps(IntegratedGradients(baseline=X.mean(0)))["map"])


@pytest.mark.parametrize("kind", [InputGrad, ActGrad, IntegratedGradients])
def test_the_sign_of_a_unit_is_that_of_its_mean_over_baselines(kind: Any) -> None:
    method = kind(baseline=[0.1, X[2], 2.0])
    acted = units_of(method)
    found = maps(method, positive_only=True)
    np.testing.assert_allclose(found["total"], (acted * (acted > 0)).sum((1, 2, 3)), rtol=1e-9)


@pytest.mark.parametrize("target", [TopK(1), Probability()])
@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_inputs_are_mapped_one_by_one_each_to_its_own_winner(target: Any, method: Method) -> None:
    together = maps(method, target=target)
    for batch_size in (1, 2):
        apart = maps(method, target=target, batch_size=batch_size)
        np.testing.assert_allclose(apart["map"], together["map"], rtol=1e-9, atol=1e-12)


def test_dims_and_coordinates_come_from_the_inputs() -> None:
    photos = xr.DataArray(
        X.numpy(), dims=("sample", "color", "y", "x"),
        coords={"sample": ["a", "b", "c"], "x": ("x", np.arange(5.0), {"units": "deg"})},
    )  # fmt: skip
    found = maps(InputGrad(), photos)
    assert found["map"].dims == ("sample", "color", "y", "x")
    assert list(found["sample"].values) == ["a", "b", "c"]
    assert found["x"].attrs["units"] == "deg"
    np.testing.assert_allclose(found["map"], maps(InputGrad())["map"])
    assert maps(InputGrad())["map"].dims == ("sample", "color", "y", "x")
    assert found.attrs["layer"] == "1"
    assert found.attrs["method"] == "InputGrad"
    assert found.attrs["units_mapped"] == "all"
    flat = input_map(
        linear_net(), torch.zeros(2, 5).double(), "0", target=Sum(), method=InputGrad()
    )
    assert flat["map"].dims == ("sample", "axis1")
    assert flat["map"].attrs["units"] == "1"


def test_windows_of_a_retina_are_mapped_by_lag_and_place() -> None:
    network, method = tiny_retina().double(), IntegratedGradients(200)
    split = tiny_split(HISTORY + 6)
    found = input_map(network, split, "conv1", target=Sum(), method=method, dtype=torch.float64)
    assert found["map"].dims == ("time", "lag", "y", "x")
    np.testing.assert_array_equal(found["time"], split["time"].values[HISTORY:])
    raw = input_map(network, tiny_windows(6), "conv1", target=Sum(), method=method)
    np.testing.assert_allclose(found["map"], raw["map"].values, rtol=1e-9, atol=1e-9)
    total = network(tiny_windows(6)).sum(1) - network(torch.zeros_like(tiny_windows(1))).sum()
    # The layer cuts, so a whole map explains the whole change of rate, but for bends of the ReLU.
    np.testing.assert_allclose(found["map"].sum(("lag", "y", "x")), total.detach(), atol=0.01)


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix, self.last = nn.Linear(2, 4), nn.Linear(4, 2)

    def forward(self, left: torch.Tensor, right: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        h = self.mix(torch.stack([left, right], -1)).tanh() * keep[..., None]
        return self.last(h.sum(1))


def test_every_floating_input_has_a_map_and_all_add_up() -> None:
    torch.manual_seed(4)
    network = Named().double()
    inputs = {name: torch.randn(3, 6).double() for name in ("left", "right")}
    inputs["keep"] = (torch.rand(3, 6) > 0.4).long()
    method = IntegratedGradients(200, baseline={"left": 0.3})
    found = input_map(network, inputs, "mix", target=SQUARE, method=method)
    start = dict(inputs, left=torch.full((3, 6), 0.3).double(), right=torch.zeros(3, 6).double())
    change = (SQUARE(network(**inputs)) - SQUARE(network(**start))).detach()
    parts = found["map_left"].sum("axis1") + found["map_right"].sum("axis1")
    np.testing.assert_allclose(parts, change, rtol=1e-4, atol=1e-6)
    assert not (found["map_left"].values * (1 - inputs["keep"].numpy())).any()
    half = {"left": inputs["left"].float(), "right": inputs["right"].round().long()}
    only = input_map(
        network.float(), half | {"keep": inputs["keep"]}, "last", target=SQUARE, method=InputGrad()
    )
    assert set(only.data_vars) == {"total", "map", "completeness_error"}


def test_one_call_of_a_module_that_is_called_twice() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shared, self.last = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.shared(self.shared(x).tanh()).tanh())

    network, x = Twice().double(), torch.randn(3, 4).double()
    change = (SQUARE(network(x)) - SQUARE(network(torch.zeros_like(x)))).detach()
    found = []
    for layer in ("shared@1", "shared@2"):
        method = IntegratedGradients(400)
        found.append(
            input_map(network, x, layer, target=SQUARE, method=method, weights=[1, 0, 0, 0])
        )
        whole = input_map(network, x, layer, target=SQUARE, method=method)
        np.testing.assert_allclose(whole["map"].sum("axis1"), change, rtol=1e-4, atol=1e-7)
    assert not np.allclose(found[0]["map"], found[1]["map"])
    with pytest.raises(RetinaCodecError, match=r"one call .*\['shared@1', 'shared@2'\]; got"):
        input_map(network, x, "shared", target=SQUARE, method=InputGrad())


def test_in_place_steps_after_the_layer_change_nothing() -> None:
    torch.manual_seed(5)
    layers = [nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)]
    plain = nn.Sequential(*layers).double()
    inplace = nn.Sequential(layers[0], nn.ReLU(inplace=True), layers[2])
    x = torch.randn(4, 5).double()
    for method in METHODS:
        one, two = (input_map(n, x, "0", target=SQUARE, method=method) for n in (plain, inplace))
        np.testing.assert_array_equal(one["map"], two["map"])


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_half_precision_maps_are_near_single_ones(method: Method) -> None:
    half, x = curved_net().bfloat16(), X.bfloat16()
    options = {"target": SQUARE, "method": method, "positive_only": True}
    found = input_map(half, x, "1", **options)["map"]
    single = input_map(half, x.float(), "1", **options, dtype=torch.float32)["map"]
    assert found.dtype == np.float32
    error = np.linalg.norm(found - single) / np.linalg.norm(single)
    assert 0 < error < 0.05  # 8 bits, and units near zero may change sides


def test_memory_is_that_of_one_point() -> None:
    """Nothing of a path point outlives it: as many tensors for 3 points as for 30."""

    class Watch(nn.Module):
        live = most = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out = x.tanh()
            Watch.live += 1
            Watch.most = max(Watch.most, Watch.live)
            torch.utils.weak.weakref.finalize(out.untyped_storage(), Watch.gone)
            return out

        @staticmethod
        def gone() -> None:
            Watch.live -= 1

    network = nn.Sequential(nn.Linear(5, 6), Watch(), nn.Linear(6, 3)).double()
    most = []
    for steps in (3, 30):
        Watch.live = Watch.most = 0
        method = IntegratedGradients(steps)
        input_map(network, torch.randn(4, 5).double(), "1", target=SQUARE, method=method)
        most.append(Watch.most)
    assert most[0] == most[1]


def test_the_network_and_inputs_are_left_alone() -> None:
    network, x = curved_net().train(), X.clone()
    for method in METHODS:
        input_map(network, x, "1", target=SQUARE, method=method)
    assert torch.equal(x, X)
    assert all(module.training for module in network.modules())
    assert all(p.requires_grad and p.grad is None for p in network.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"method": ActNormGrad()}, "maps are defined for"),
        ({"method": SmoothGrad()}, "maps are defined for"),
        ({"method": "ig"}, "maps are defined for"),
        ({"method": IntegratedGradients(path="hidden")}, "follows the input path"),
        ({"method": IntegratedGradients(tolerance=1.0)}, "fixed number of steps"),
        ({"method": ActGrad(), "steps": 0}, "steps must be a whole number"),
        ({"layer": "9"}, "no layer '9'"),
        ({"layer": "?"}, "a map is of one layer"),
        ({"weights": np.ones(4)}, r"one per channel \(3,\), one per unit \(3, 3, 4\)"),
        ({"weights": np.array([1, np.nan, 1])}, "weights must be finite"),
        ({"weights": "many"}, "weights must be finite numbers"),
        ({"weights": xr.DataArray(np.ones((2, 4)), dims=("sign", "channel"))}, "3 channels; got"),
        (
            {"weights": xr.DataArray(np.ones((2, 2, 3)), dims=("mode", "sign", "channel"))},
            "Select one mode",
        ),
        ({"target": lambda y: y}, "one number per input"),
        ({"target": lambda y: y.detach().sum(1)}, "does not depend on layer '1'"),
        ({"target": lambda y: y.sum(1) / 0}, "is not finite"),
    ],
)
def test_what_cannot_be_mapped_is_refused(choices: dict[str, Any], message: str) -> None:
    choices = {"method": InputGrad(), "layer": "1"} | choices
    with pytest.raises(RetinaCodecError, match=message):
        maps(choices.pop("method"), layer=choices.pop("layer"), **choices)


def test_a_layer_that_does_not_see_the_input_is_refused() -> None:
    class Aside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.aside, self.main = nn.Linear(1, 2), nn.Linear(5, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.main(x) * self.aside(torch.ones(len(x), 1, dtype=x.dtype))

    for method in METHODS:
        with pytest.raises(RetinaCodecError, match="does not depend on the input"):
            input_map(Aside(), torch.zeros(2, 5), "aside", target=Sum(), method=method)


def test_an_adapter_says_where_the_layer_is_hooked() -> None:
    network = curved_net()
    at_input = input_map(
        adapt(network, "2", hook="input"), X, "2", target=SQUARE, method=METHODS[2]
    )
    at_output = input_map(network, X, "1", target=SQUARE, method=METHODS[2])
    np.testing.assert_allclose(at_input["map"], at_output["map"])
