"""Paths with each input's own points: closed forms, a slow second implementation, captum."""

import gc
import weakref
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import LayerConductance
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import retina_codec as rc
from retina_codec.errors import RetinaCodecError
from retina_codec.methods.adaptive import KEPT
from retina_codec.methods.base import UnitContributions
from retina_codec.methods.integrated_gradients import IntegratedGradients
from retina_codec.probing.hooks import HookedFunction
from retina_codec.targets.base import Sum, Target, Unit, as_target
from tests.reference import adaptive_paths as slow


def bent_net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    layers = (nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3))
    return nn.Sequential(*layers).double().requires_grad_(False)


def inputs(count: int = 4, seed: int = 0) -> torch.Tensor:
    drawn = torch.randn(
        count, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    return 3 * drawn


def explain(
    network: nn.Module,
    x: torch.Tensor,
    method: IntegratedGradients,
    layers: tuple[str, ...] = ("0", "2"),
    target: Target | None = None,
) -> UnitContributions:
    return method.explain(HookedFunction.open(network, x, layers), target or Sum(), x)


def kinked(places: list[float]) -> Target:
    """F = Σ_k relu(h − c_k) of the one unit h."""
    return as_target(lambda y: sum((y[:, 0] - c).clamp(min=0) for c in places))  # type: ignore[arg-type, return-value]


def line() -> nn.Sequential:
    network = nn.Linear(1, 1, bias=False).double().requires_grad_(False)
    network.weight.fill_(1.0)
    return nn.Sequential(network)


@pytest.mark.parametrize("kink", [0.3, 0.77, 1 / 3])
@pytest.mark.parametrize("steps", [2, 5, 10, 15])
def test_a_single_kink_is_halved_in(kink: float, steps: int) -> None:
    """h = αx, F = relu(h − c): only the segment around c has an error, ½ |Δg| L − the true part.

    steps − 1 halvings leave a segment of length 2^(1 − steps); its trapezoid is ½ L, the integral
    what lies right of c in it.
    """
    x = torch.tensor([[1.0]], dtype=torch.float64)
    found = explain(line(), x, IntegratedGradients(steps), ("0",), kinked([kink]))
    length = 2.0 ** (1 - steps)
    left = np.floor(kink / length) * length
    exact = (1 - left - length) + length / 2
    assert float(found.contribution["0"]) == pytest.approx(exact, abs=1e-12)
    assert abs(float(found.contribution["0"]) - (1 - kink)) <= length / 2
    uniform = explain(
        line(), x, IntegratedGradients(steps, placement="uniform"), ("0",), kinked([kink])
    )
    assert abs(float(uniform.contribution["0"]) - (1 - kink)) <= 1 / (2 * steps) + 1e-12


def test_many_kinks_get_points_each() -> None:
    kinks = [0.11, 0.42, 0.43, 0.9]
    x = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    found = explain(line(), x, IntegratedGradients(40), ("0",), kinked(kinks))
    exact = [sum(1 - c for c in kinks), sum(2 - c for c in kinks)]
    np.testing.assert_allclose(found.contribution["0"][:, 0], exact, atol=4e-3)
    for row, scale in ((0, 1.0), (1, 2.0)):
        places = found.places[0][row].numpy()
        for kink in kinks:  # a short segment around every kink
            after = int(np.searchsorted(places, kink / scale))
            assert places[after] - places[after - 1] < 0.02


@pytest.mark.parametrize("steps", [4, 20, 60])
def test_a_polynomial_has_the_error_of_its_segments(steps: int) -> None:
    """F = h³ on h = α: the trapezoid of a segment of length L is too large by L³/2."""
    x = torch.tensor([[1.0]], dtype=torch.float64)
    target = as_target(lambda y: y[:, 0] ** 3)
    found = explain(line(), x, IntegratedGradients(steps), ("0",), target)
    lengths = np.diff(found.places[0][0].numpy())
    assert len(lengths) == steps
    assert float(found.contribution["0"]) == pytest.approx(1 + (lengths**3).sum() / 2, abs=1e-12)
    assert (lengths**3).sum() / 2 < 6 / steps**2


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), steps=st.integers(2, 40))
def test_agrees_with_a_slow_second_implementation(seed: int, steps: int) -> None:
    network, x = bent_net(seed), inputs(3, seed)
    found = explain(network, x, IntegratedGradients(steps, baseline=0.2))
    for row in range(len(x)):

        def at(place: float, row: int = row) -> slow.Point:
            point = 0.2 + (x[row] - 0.2) * place
            chain = [network[:1], network[1:3]]
            return slow.evaluate(chain, lambda h: network[3:](h).sum(1), point)

        places = slow.own_places(at, steps, KEPT)
        np.testing.assert_allclose(found.places[0][row], places, atol=1e-12)
        for name, expected in zip(("0", "2"), slow.contributions(at, places), strict=True):
            np.testing.assert_allclose(
                found.contribution[name][row], expected, rtol=1e-9, atol=1e-11
            )


def test_comes_to_what_captum_finds_with_many_steps() -> None:
    network, x = bent_net(3), inputs(5, 1)
    target = Unit(1)
    found = explain(network, x, IntegratedGradients(300), ("0", "2"), target)
    for name in ("0", "2"):
        captum = LayerConductance(lambda batch: target(network(batch)), network[int(name)])
        many = captum.attribute(x.clone(), baselines=torch.zeros_like(x), n_steps=4000).detach()
        scale = float(many.abs().max())
        torch.testing.assert_close(found.contribution[name], many, rtol=0, atol=2e-3 * scale)


def test_is_nearer_than_uniform_steps_and_completeness_is_the_error() -> None:
    torch.manual_seed(5)
    layers = (nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3))
    network = nn.Sequential(*layers).double().requires_grad_(False)
    x = 10 * inputs(60, 2)  # saturates early on the path
    exact = explain(network, x, IntegratedGradients(3000, placement="uniform"))
    errors = {}
    for placement in ("uniform", "adaptive"):
        found = explain(network, x, IntegratedGradients(12, placement=placement))  # type: ignore[arg-type]
        miss = found.contribution["2"] - exact.contribution["2"]
        errors[placement] = float(miss.abs().sum(1).quantile(0.9))
        assert found.expected is not None
        torch.testing.assert_close(found.expected, found.value - Sum()(network(0 * x)))
    assert errors["adaptive"] < errors["uniform"] / 2


def test_the_hidden_path_takes_own_points_on_request() -> None:
    """h is straight in the layer, so C is Δh times the trapezoid mean of g over the points."""
    network, x = bent_net(5), 4 * inputs(6, 2)
    assert IntegratedGradients(12, "hidden").placement == "uniform"
    exact = explain(network, x, IntegratedGradients(4000, "hidden"))
    found = explain(network, x, IntegratedGradients(60, "hidden", placement="adaptive"))
    for name in ("0", "2"):
        scale = float(exact.contribution[name].abs().max())
        torch.testing.assert_close(
            found.contribution[name], exact.contribution[name], rtol=0, atol=5e-3 * scale
        )
    tight = IntegratedGradients(4, "hidden", placement="adaptive", tolerance=2e-3)
    sums = explain(network, x, tight)
    assert float((sums.contribution["2"].sum(1) - sums.expected).abs().max()) <= 2e-3


def test_tolerance_adds_points_where_they_are_needed() -> None:
    network, x = bent_net(1), inputs(12, 3)
    x[5] = 0  # nothing to integrate
    counted: list[int] = []
    network.register_forward_hook(lambda _module, _given, out: counted.append(len(out)))
    method = IntegratedGradients(4, tolerance=2e-3)
    found = explain(network, x, method)
    for name in ("0", "2"):
        error = found.contribution[name].sum(1) - found.expected
        assert float(error.abs().max()) <= 2e-3
    assert found.steps is not None
    assert int(found.steps[5]) == 4
    # every evaluation is told of: one more at the baseline that a half of the batch shares
    assert sum(counted[1:]) == int((found.steps + 1).sum()) - len(x) + 2
    ours = sum(counted)
    counted.clear()
    explain(network, x, IntegratedGradients(4, tolerance=2e-3, placement="uniform"))
    assert ours < sum(counted)
    alone = explain(network, x[3:4], method)
    torch.testing.assert_close(found.contribution["0"][3:4], alone.contribution["0"])


def test_a_target_that_jumps_stops_at_the_given_number() -> None:
    """No refinement reaches the change over a jump; the error says so, input by input."""

    def jumping(y: torch.Tensor) -> torch.Tensor:
        return torch.where(y[:, 0] > 0.37, y[:, 0] + 5, y[:, 0])

    x = torch.tensor([[1.0], [0.3]], dtype=torch.float64)
    method = IntegratedGradients(4, tolerance=1e-3, most_steps=30)
    found = explain(line(), x, method, ("0",), as_target(jumping))
    error = found.contribution["0"][:, 0] - found.expected
    assert float(error[0]) == pytest.approx(-5)
    assert float(error[1]) == pytest.approx(0)
    assert found.steps is not None
    assert found.steps[0] == 30
    assert found.steps[1] == 2  # nothing bends


def test_a_path_on_which_nothing_changes() -> None:
    network = bent_net(2)
    for steps in (2, 10, 40):
        x = torch.full((3, 5), 0.4, dtype=torch.float64)
        found = explain(network, x, IntegratedGradients(steps, baseline=0.4))
        for name in ("0", "2"):
            assert not found.contribution[name].any()


def test_a_linear_network_is_done_after_three_points() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 2)).double().requires_grad_(False)
    calls: list[int] = []
    network.register_forward_hook(lambda _module, _given, out: calls.append(len(out)))
    x = inputs(2)
    found = explain(network, x, IntegratedGradients(100), ("0",))
    assert len(calls) <= 1 + 2 * 3  # a look at the layers; two halves of the batch
    expected = (x @ network[0].weight.T) * network[1].weight.sum(0)
    torch.testing.assert_close(found.contribution["0"], expected)


def test_points_in_memory_do_not_grow_with_the_steps() -> None:
    alive: set[int] = set()
    most = 0

    class Watched(nn.Module):
        def forward(self, values: torch.Tensor) -> torch.Tensor:
            nonlocal most
            out = values.tanh()
            storage = out.untyped_storage()
            key = id(storage)
            alive.add(key)
            weakref.finalize(storage, alive.discard, key)
            most = max(most, len(alive))
            return out

    network = nn.Sequential(nn.Linear(5, 6), Watched(), nn.Linear(6, 3)).double()
    counts = []
    for steps in (10, 40, 160):
        gc.collect()
        alive.clear()
        most = 0
        explain(network, inputs(4), IntegratedGradients(steps), ("1",))
        counts.append(most)
    assert counts[0] == counts[1] == counts[2] <= 4


@pytest.mark.parametrize("steps", [3, 9, 25])
@pytest.mark.parametrize("layer", ["0", "2"])
def test_maps_follow_the_same_points(steps: int, layer: str) -> None:
    """Σ_i M_i = Σ_j C_j up to the quadrature of the map, which the result states."""
    network, x = bent_net(4), inputs(6, 5)
    method = rc.methods.IntegratedGradients(steps, baseline=[0.0, 0.3])
    found = rc.analysis.input_map(network, x, layer, target=rc.targets.Unit(0), method=method)
    explained = explain(network, x, method, ("0", "2"), Unit(0))
    many = rc.analysis.input_map(
        network, x, layer, target=rc.targets.Unit(0),
        method=rc.methods.IntegratedGradients(2000, baseline=[0.0, 0.3], placement="uniform"),
    )  # fmt: skip
    error = float(np.abs(found["map"] - many["map"]).max() / np.abs(many["map"]).max())
    assert error < {3: 0.6, 9: 0.2, 25: 0.06}[steps]
    if layer == "2":  # the only layer of the map rules its points, so "0" has others
        return
    np.testing.assert_allclose(found["total"], explained.contribution["0"].sum(1), rtol=0.3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"placement": "random"}, "'adaptive' or 'uniform'; got 'random'"),
        ({"placement": "adaptive", "steps": 1}, "at least 2 steps .* got 1 of 'trapezoid'"),
        ({"placement": "adaptive", "quadrature": "simpson"}, "got 20 of 'simpson'"),
    ],
)
def test_bad_parameters(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(RetinaCodecError, match=message):
        IntegratedGradients(**arguments)


def test_the_placement_is_part_of_the_description() -> None:
    assert IntegratedGradients(10).describe()["placement"] == "adaptive"
    assert IntegratedGradients(1).describe()["placement"] == "uniform"
    assert IntegratedGradients(8, quadrature="simpson").describe()["placement"] == "uniform"


def test_places_are_in_order_and_each_inputs_own() -> None:
    found = explain(bent_net(7), inputs(5, 8), IntegratedGradients(20))
    (places,) = found.places
    assert places.shape == (5, 21)
    for row in places.numpy():
        assert row[0] == 0
        assert row[-1] == 1
        assert all(a < b for a, b in pairwise(row))
    assert len({tuple(row) for row in places.numpy().round(12)}) == 5
