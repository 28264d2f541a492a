"""Integrated gradients against closed forms, explicit loops and captum."""

import numpy as np
import pytest
import torch
from captum.attr import LayerConductance
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from retina_codec.errors import RetinaCodecError
from retina_codec.methods.base import UnitContributions
from retina_codec.methods.integrated_gradients import IntegratedGradients
from retina_codec.probing.hooks import HookedFunction
from retina_codec.targets.base import Sum, Target, Unit, as_target
from retina_codec.targets.surprisal import Surprisal
from tests.reference.contributions import integrated_gradients


def linear_net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 6), nn.Linear(6, 3)).double().requires_grad_(False)


def curved_net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    first = (nn.Conv1d(2, 3, 3), nn.Tanh(), nn.Conv1d(3, 2, 2), nn.Softplus())
    return nn.Sequential(*first, nn.Flatten(), nn.Linear(8, 3)).double().requires_grad_(False)


def explain(
    network: nn.Module,
    inputs: torch.Tensor,
    target: Target,
    method: IntegratedGradients,
    layers: tuple[str, ...] = ("0",),
) -> UnitContributions:
    return method.explain(HookedFunction.open(network, inputs, layers), target, inputs)


@pytest.mark.parametrize("steps", [1, 2, 7, 20])
@pytest.mark.parametrize("baseline", [0.0, 0.3])
def test_linear_network_is_weights_times_change_at_any_step_count(
    steps: int, baseline: float
) -> None:
    network, x = linear_net(), torch.randn(4, 5, dtype=torch.float64)
    found = explain(network, x, Sum(), IntegratedGradients(steps, baseline=baseline), ("0", "1"))
    change = (x - baseline) @ network[0].weight.T  # (b, hidden)
    torch.testing.assert_close(found.contribution["0"], change * network[1].weight.sum(0))
    torch.testing.assert_close(found.contribution["1"], change @ network[1].weight.T)


@pytest.mark.parametrize("steps", [1, 3])
def test_surprisal_of_a_linear_network_has_a_quadratic_closed_form(steps: int) -> None:
    """g is affine along the path, so the trapezoid is exact: C = Δh ½ (g(x) + g(x′))."""
    network, x = linear_net(), torch.randn(50, 5, dtype=torch.float64)
    target = Surprisal().fit(network(x))
    found = explain(network, x, target, IntegratedGradients(steps, baseline=0.2))
    start = torch.full((1, 5), 0.2, dtype=torch.float64)
    precision = torch.linalg.inv(torch.tensor(target.covariance))
    mean = torch.tensor(target.mean)
    at_x = (network(x) - mean) @ precision @ network[1].weight
    at_start = (network(start) - mean) @ precision @ network[1].weight
    expected = (x - start) @ network[0].weight.T * (at_x + at_start) / 2
    # The whitened form squares the condition number's root once less than the inverse.
    torch.testing.assert_close(found.contribution["0"], expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.value, target(network(x)))
    torch.testing.assert_close(found.expected, found.value - target(network(start)))
    torch.testing.assert_close(found.output, network(x))


@pytest.mark.parametrize("steps", [1, 4, 20])
def test_a_cube_shows_the_known_error_of_the_trapezoid(steps: int) -> None:
    """F = h³, h = 2x: n steps of size d = 2x/n give x-independent error n d³/2 over (2x)³."""
    network = nn.Linear(1, 1, bias=False).double().requires_grad_(False)
    network.weight.fill_(2.0)
    x = torch.tensor([[0.5], [1.5]], dtype=torch.float64)
    target = as_target(lambda y: y[:, 0] ** 3)
    found = explain(
        nn.Sequential(network), x, target, IntegratedGradients(steps, placement="uniform")
    )
    exact = (2 * x) ** 3
    torch.testing.assert_close(found.contribution["0"], exact + steps * (2 * x / steps) ** 3 / 2)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 1000), steps=st.integers(1, 6))
def test_agrees_with_loops_over_units_and_differences(seed: int, steps: int) -> None:
    network = curved_net(seed)
    x = torch.randn(2, 2, 7, dtype=torch.float64)
    baseline = torch.randn(2, 7, dtype=torch.float64)
    target = Surprisal(np.array([0.1, -0.2, 0.3]), np.eye(3) + 0.4)
    method = IntegratedGradients(steps, baseline=baseline, placement="uniform")
    found = explain(network, x, target, method, ("0", "2", "5"))
    for name in ("0", "2", "5"):
        cut = int(name) + 1

        def below(one: torch.Tensor, cut: int = cut) -> torch.Tensor:
            return network[:cut](one[None])[0]

        def above(units: torch.Tensor, cut: int = cut) -> float:
            return float(target(network[cut:](units[None]) if cut < 6 else units[None]))

        for one, units in zip(x, found.contribution[name], strict=True):
            expected = integrated_gradients(below, above, one, baseline, steps)
            # Central differences of 1e-6 in float64 are good to about 1e-9.
            np.testing.assert_allclose(units, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", ["0", "2"])
@pytest.mark.parametrize("steps", [1, 5, 20])
def test_agrees_with_captum_step_for_step(name: str, steps: int) -> None:
    """Captum sums g^{s−1} (h^s − h^{s−1}), the left end of each interval.

    On the reversed path that is minus the sum of right ends, so half the difference of both
    directions is the trapezoid with the same points: equal to rounding, not only in the limit.
    """
    network, target = curved_net(3), Unit(1)
    x = torch.randn(3, 2, 7, dtype=torch.float64)
    start = torch.full_like(x, 0.4)
    captum = LayerConductance(lambda batch: target(network(batch)), network[int(name)])
    options = {"n_steps": steps, "method": "riemann_trapezoid"}
    there = captum.attribute(x.clone(), baselines=start, **options)
    back = captum.attribute(start.clone(), baselines=x, **options)
    method = IntegratedGradients(steps, baseline=0.4, placement="uniform")
    found = explain(network, x, target, method, (name,))
    # Captum makes its points in float32, so they sit up to 3e-8 off ours.
    torch.testing.assert_close(found.contribution[name], (there - back) / 2, rtol=1e-6, atol=1e-8)


def test_completeness_error_falls_with_the_square_of_the_steps() -> None:
    network, x = curved_net(), torch.randn(20, 2, 7, dtype=torch.float64)
    target = Surprisal(np.zeros(3), np.eye(3))
    errors = {}
    for steps in (10, 20, 400):
        method = IntegratedGradients(steps, placement="uniform")
        found = explain(network, x, target, method, ("0", "2"))
        change = found.expected
        for name, units in found.contribution.items():
            errors[name, steps] = float((units.flatten(1).sum(1) - change).abs().median())
    for name in ("0", "2"):
        assert errors[name, 10] / errors[name, 20] == pytest.approx(4, rel=0.2)
        assert errors[name, 400] < 1e-4 * float(change.abs().median())


def test_inputs_are_explained_one_by_one_and_left_alone() -> None:
    network, x = curved_net(), torch.randn(6, 2, 7, dtype=torch.float64)
    baseline = torch.randn(2, 7, dtype=torch.float64)
    before, baseline_before = x.clone(), baseline.clone()
    method = IntegratedGradients(4, baseline=baseline)
    together = explain(network, x, Sum(), method).contribution["0"]
    alone = torch.cat([explain(network, one[None], Sum(), method).contribution["0"] for one in x])
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-14)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    permuted = explain(network, x[order], Sum(), method).contribution["0"]
    torch.testing.assert_close(permuted, together[order], rtol=1e-12, atol=1e-14)
    assert torch.equal(x, before)
    assert torch.equal(baseline, baseline_before)


def on_hidden_path(
    network: nn.Sequential, cut: int, x: torch.Tensor, start: torch.Tensor, target: Target, n: int
) -> torch.Tensor:
    """(h − h′) times the mean of the gradient at the middles of n intervals of the layer's path."""
    units, first = network[:cut](x), network[:cut](start)
    total = torch.zeros_like(units)
    for k in range(n):
        at = (first + (units - first) * (k + 0.5) / n).detach().requires_grad_()
        total += torch.autograd.grad(target(network[cut:](at)).sum(), at)[0] / n
    return total * (units - first)


@pytest.mark.parametrize("quadrature", ["trapezoid", "simpson", "gauss-legendre"])
def test_the_hidden_path_is_straight_in_each_layer(quadrature: str) -> None:
    network, x = curved_net(2), torch.randn(3, 2, 7, dtype=torch.float64)
    target, start = Unit(2), torch.full((1, 2, 7), 0.3, dtype=torch.float64)
    method = IntegratedGradients(16, path="hidden", baseline=0.3, quadrature=quadrature)
    found = explain(network, x, target, method, ("0", "2"))
    for name in ("0", "2"):
        # Middles of 4000 intervals are good to 1e-7, the coarsest rule of 16 steps to 1e-3.
        expected = on_hidden_path(network, int(name) + 1, x, start, target, 4000)
        scale = float(expected.abs().max())
        accuracy = 3e-3 if quadrature == "trapezoid" else 1e-5
        torch.testing.assert_close(
            found.contribution[name], expected, rtol=0, atol=accuracy * scale
        )
        total = found.contribution[name].flatten(1).sum(1)
        torch.testing.assert_close(total, found.expected, rtol=0, atol=20 * accuracy * scale)


def test_paths_agree_where_the_layer_is_affine_in_the_input_and_differ_elsewhere() -> None:
    network, x = curved_net(2), torch.randn(3, 2, 7, dtype=torch.float64)
    target = Surprisal(np.zeros(3), np.eye(3))  # mixes units, so that the path matters
    straight = explain(network, x, target, IntegratedGradients(400), ("0", "2"))
    hidden = explain(network, x, target, IntegratedGradients(400, path="hidden"), ("0", "2"))
    torch.testing.assert_close(
        hidden.contribution["0"], straight.contribution["0"], rtol=1e-4, atol=1e-5
    )
    change = (hidden.contribution["2"] - straight.contribution["2"]).abs().max()
    assert float(change) > 1e-3 * float(straight.contribution["2"].abs().max())


@pytest.mark.parametrize(("quadrature", "order"), [("trapezoid", 2), ("simpson", 4)])
def test_the_error_falls_with_the_order_of_the_rule(quadrature: str, order: int) -> None:
    network, x = curved_net(1), torch.randn(10, 2, 7, dtype=torch.float64)
    errors = []
    for steps in (8, 16):
        method = IntegratedGradients(steps, quadrature=quadrature, placement="uniform")
        found = explain(network, x, Sum(), method, ("2",))
        total = found.contribution["2"].flatten(1).sum(1)
        errors.append(float((total - found.expected).abs().median()))
    assert errors[0] / errors[1] == pytest.approx(2**order, rel=0.35)


def test_gauss_and_legendre_need_few_points_on_a_smooth_network() -> None:
    network, x = curved_net(1), torch.randn(10, 2, 7, dtype=torch.float64)
    target = Surprisal(np.zeros(3), np.eye(3))
    found = explain(network, x, target, IntegratedGradients(8, quadrature="gauss-legendre"), ("2",))
    exact = explain(network, x, target, IntegratedGradients(4000), ("2",))
    scale = exact.contribution["2"].abs().max()
    error = (found.contribution["2"] - exact.contribution["2"]).abs().max()
    assert float(error) < 1e-5 * float(scale)


def test_simpson_is_exact_where_the_gradient_is_quadratic() -> None:
    """F = h³, h = 2x: g = 3h² is quadratic along the path. C = F(x), from two steps."""
    network = nn.Linear(1, 1, bias=False).double().requires_grad_(False)
    network.weight.fill_(2.0)
    x = torch.tensor([[0.5], [1.5]], dtype=torch.float64)
    target = as_target(lambda y: y[:, 0] ** 3)
    method = IntegratedGradients(2, quadrature="simpson")
    found = explain(nn.Sequential(network), x, target, method)
    torch.testing.assert_close(found.contribution["0"], (2 * x) ** 3)


def test_several_baselines_are_averaged_and_so_is_what_they_sum_to() -> None:
    network, x = curved_net(), torch.randn(4, 2, 7, dtype=torch.float64)
    baselines = [0.0, torch.randn(2, 7, dtype=torch.float64), 0.5]
    every = [explain(network, x, Sum(), IntegratedGradients(6, baseline=b)) for b in baselines]
    found = explain(network, x, Sum(), IntegratedGradients(6, baseline=baselines))
    mean = torch.stack([one.contribution["0"] for one in every]).mean(0)
    torch.testing.assert_close(found.contribution["0"], mean)
    torch.testing.assert_close(found.expected, torch.stack([o.expected for o in every]).mean(0))


def test_tolerance_refines_each_input_as_far_as_it_needs() -> None:
    network, x = curved_net(), torch.randn(12, 2, 7, dtype=torch.float64)
    x[3] *= 8  # a longer path with more bends
    x[5] = 0  # nothing to integrate
    method = IntegratedGradients(2, tolerance=1e-4, placement="uniform")
    found = explain(network, x, Sum(), method, ("0", "2"))
    for name in ("0", "2"):
        error = found.contribution[name].flatten(1).sum(1) - found.expected
        assert float(error.abs().max()) <= 1e-4
    assert found.steps is not None
    assert int(found.steps[5]) == 2
    assert int(found.steps[3]) > int(found.steps.float().median())
    for k in (0, 3):  # the values are those of a plain run with as many steps
        method = IntegratedGradients(int(found.steps[k]), placement="uniform")
        plain = explain(network, x[k : k + 1], Sum(), method)
        torch.testing.assert_close(found.contribution["0"][k : k + 1], plain.contribution["0"])
    method = IntegratedGradients(2, tolerance=1e-9, most_steps=8, placement="uniform")
    few = explain(network, x, Sum(), method)
    assert few.steps is not None
    assert int(few.steps.max()) == 8


def test_tolerance_needs_a_layer_that_can_be_complete() -> None:
    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.branch = nn.Linear(3, 3)

        def forward(self, values: torch.Tensor) -> torch.Tensor:
            return values + self.branch(values).tanh()

    with pytest.raises(RetinaCodecError, match="needs a layer that cuts"):
        explain(Around(), torch.ones(2, 3), Sum(), IntegratedGradients(tolerance=0.1), ("branch",))


def test_parameters_are_described_and_checked() -> None:
    described = IntegratedGradients(5, baseline=torch.zeros(2, 7)).describe()
    assert described["method"] == "IntegratedGradients"
    assert described["steps"] == 5
    assert described["path"] == "input"
    assert str(described["baseline"]).startswith("array (2, 7) float32 ")
    other = IntegratedGradients(5, baseline=torch.ones(2, 7)).describe()
    assert other["baseline"] != described["baseline"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "steps must be a whole number"),
        ({"steps": -3}, "steps must be a whole number"),
        ({"steps": 2.5}, "steps must be a whole number"),
        ({"steps": True}, "steps must be a whole number"),
        ({"steps": "20"}, "steps must be a whole number"),
        ({"path": "output"}, "path must be 'input' or 'hidden'; got 'output'"),
        ({"baseline": float("nan")}, "finite"),
        ({"baseline": "grey"}, "'mean'.* got 'grey'"),
        ({"baseline": []}, "at least one"),
        ({"quadrature": "midpoint"}, "one of 'trapezoid', 'simpson', .* got 'midpoint'"),
        ({"steps": 5, "quadrature": "simpson"}, "steps must be even; got 5"),
        ({"path": "hidden", "quadrature": "chords"}, "another quadrature"),
        ({"tolerance": 0.0}, "tolerance must be positive"),
        ({"tolerance": 0.1, "most_steps": 5}, "most_steps must be at least steps"),
    ],
)
def test_bad_parameters(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(RetinaCodecError, match=message):
        IntegratedGradients(**arguments)  # type: ignore[arg-type]


def test_a_baseline_of_another_shape_is_refused() -> None:
    with pytest.raises(RetinaCodecError, match=r"shape \(2, 7\); got \(7,\)"):
        explain(
            curved_net(),
            torch.zeros(1, 2, 7).double(),
            Sum(),
            IntegratedGradients(baseline=torch.zeros(7)),
        )


def test_the_trapezoid_of_a_relu_is_the_chord_of_the_layer_before_it() -> None:
    """C = w (r(x) − r(0)) for both; exact in one step at the ReLU, in the limit before it."""
    torch.manual_seed(3)
    network = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 1)).double()
    network.requires_grad_(False)
    inputs = torch.randn(8, 5).double() * 3
    change = network[1](network[0](inputs)) - network[1](network[0](torch.zeros(1, 5).double()))
    expected = change * network[2].weight[0]
    few = explain(network, inputs, Sum(), IntegratedGradients(steps=1), ("1",))
    torch.testing.assert_close(few.contribution["1"], expected)
    for steps, least, most in ((1, 1e-2, 10), (4000, 0, 2e-3)):
        method = IntegratedGradients(steps=steps, placement="uniform")
        before = explain(network, inputs, Sum(), method).contribution["0"]
        assert least <= float((before - expected).abs().max() / expected.abs().max()) < most
