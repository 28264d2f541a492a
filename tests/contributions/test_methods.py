"""Integrated gradients against closed forms, explicit loops and captum."""

import numpy as np
import pytest
import torch
from captum.attr import LayerConductance
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from retina_codec.contributions.evaluation import HookedFunction
from retina_codec.contributions.methods import IntegratedGradients, UnitContributions
from retina_codec.contributions.targets import Sum, Surprisal, Target, Unit, as_target
from retina_codec.errors import RetinaCodecError
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
    return method.explain(HookedFunction(network, layers), target, inputs)


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
    torch.testing.assert_close(found.baseline_value, target(network(start)).expand(50))
    torch.testing.assert_close(found.output, network(x))


@pytest.mark.parametrize("steps", [1, 4, 20])
def test_a_cube_shows_the_known_error_of_the_trapezoid(steps: int) -> None:
    """F = h³, h = 2x: n steps of size d = 2x/n give x-independent error n d³/2 over (2x)³."""
    network = nn.Linear(1, 1, bias=False).double().requires_grad_(False)
    network.weight.fill_(2.0)
    x = torch.tensor([[0.5], [1.5]], dtype=torch.float64)
    target = as_target(lambda y: y[:, 0] ** 3)
    found = explain(nn.Sequential(network), x, target, IntegratedGradients(steps))
    exact = (2 * x) ** 3
    torch.testing.assert_close(found.contribution["0"], exact + steps * (2 * x / steps) ** 3 / 2)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 1000), steps=st.integers(1, 6))
def test_agrees_with_loops_over_units_and_differences(seed: int, steps: int) -> None:
    network = curved_net(seed)
    x = torch.randn(2, 2, 7, dtype=torch.float64)
    baseline = torch.randn(2, 7, dtype=torch.float64)
    target = Surprisal(np.array([0.1, -0.2, 0.3]), np.eye(3) + 0.4)
    method = IntegratedGradients(steps, baseline=baseline)
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
    found = explain(network, x, target, IntegratedGradients(steps, baseline=0.4), (name,))
    # Captum makes its points in float32, so they sit up to 3e-8 off ours.
    torch.testing.assert_close(found.contribution[name], (there - back) / 2, rtol=1e-6, atol=1e-8)


def test_completeness_error_falls_with_the_square_of_the_steps() -> None:
    network, x = curved_net(), torch.randn(20, 2, 7, dtype=torch.float64)
    target = Surprisal(np.zeros(3), np.eye(3))
    errors = {}
    for steps in (10, 20, 400):
        found = explain(network, x, target, IntegratedGradients(steps), ("0", "2"))
        change = found.value - found.baseline_value
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


def test_parameters_are_described_and_checked() -> None:
    described = IntegratedGradients(5, baseline=torch.zeros(2, 7)).describe()
    assert described == {
        "method": "IntegratedGradients", "steps": 5, "path": "input", "baseline": "array (2, 7)",
    }  # fmt: skip
    for wrong in (0, -3, 2.5, True, "20"):
        with pytest.raises(RetinaCodecError, match="steps must be a whole number"):
            IntegratedGradients(wrong)  # type: ignore[arg-type]
    with pytest.raises(RetinaCodecError, match="path must be 'input'; got 'output'"):
        IntegratedGradients(path="output")  # type: ignore[arg-type]
    with pytest.raises(RetinaCodecError, match="finite"):
        IntegratedGradients(baseline=float("nan"))
    with pytest.raises(RetinaCodecError, match=r"shape \(2, 7\); got \(7,\)"):
        explain(
            curved_net(), torch.zeros(1, 2, 7), Sum(), IntegratedGradients(baseline=torch.zeros(7))
        )
