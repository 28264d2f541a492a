"""ActGrad, ActNormGrad, InputGrad and SmoothGrad against closed forms, loops and captum."""

import numpy as np
import pytest
import torch
from captum.attr import LayerGradientXActivation
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from retina_codec.errors import RetinaCodecError
from retina_codec.methods.base import Method, UnitContributions
from retina_codec.methods.gradients import ActGrad, ActNormGrad, InputGrad, SmoothGrad
from retina_codec.methods.integrated_gradients import IntegratedGradients
from retina_codec.probing.hooks import HookedFunction
from retina_codec.targets.base import Sum, Target, Unit, as_target
from retina_codec.targets.surprisal import Surprisal
from tests.reference.contributions import act_grad, input_grad

EVERY = (
    IntegratedGradients(3),
    IntegratedGradients(2, quadrature="simpson"),
    IntegratedGradients(2, quadrature="gauss-legendre"),
    IntegratedGradients(2, path="hidden"),
    ActGrad(baseline=0.0),
    InputGrad(),
)


def curved_net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    first = (nn.Conv1d(2, 3, 3), nn.Tanh(), nn.Conv1d(3, 2, 2), nn.Softplus())
    return nn.Sequential(*first, nn.Flatten(), nn.Linear(8, 3)).double().requires_grad_(False)


def explain(
    network: nn.Module,
    inputs: torch.Tensor,
    method: Method,
    target: Target | None = None,
    layers: tuple[str, ...] = ("0",),
) -> UnitContributions:
    return method.explain(HookedFunction.open(network, inputs, layers), target or Sum(), inputs)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000))
def test_all_methods_are_equal_on_a_linear_network(seed: int) -> None:
    """Closed form: C = w Δh, whatever the method, for every layer."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(5, 6), nn.Linear(6, 3)).double().requires_grad_(False)
    x = torch.randn(4, 5, dtype=torch.float64)
    change = x @ network[0].weight.T  # (b, hidden)
    first, second = change * network[1].weight.sum(0), change @ network[1].weight.T
    for method in EVERY:
        found = explain(network, x, method, layers=("0", "1")).contribution
        torch.testing.assert_close(found["0"], first, msg=lambda m, n=method: f"{n}: {m}")
        torch.testing.assert_close(found["1"], second, msg=lambda m, n=method: f"{n}: {m}")
    unbiased = nn.Sequential(nn.Linear(5, 6, bias=False), nn.Linear(6, 3)).double()
    unbiased[0].weight.data.copy_(network[0].weight)
    unbiased[1].weight.data.copy_(network[1].weight)
    smooth = explain(unbiased, x, SmoothGrad(sigma=0.0)).contribution["0"]
    torch.testing.assert_close(smooth, first)
    norm = explain(unbiased, x, ActNormGrad()).contribution["0"]
    slope = network[1].weight.sum(0)
    torch.testing.assert_close(norm, change * slope / torch.linalg.vector_norm(slope))


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 1000))
def test_agree_with_loops_over_units_and_differences(seed: int) -> None:
    network = curved_net(seed)
    x = torch.randn(2, 2, 7, dtype=torch.float64)
    start = torch.randn(2, 7, dtype=torch.float64)
    target = Surprisal(np.array([0.1, -0.2, 0.3]), np.eye(3) + 0.4)
    layers = ("0", "2", "5")
    plain = explain(network, x, ActGrad(), target, layers).contribution
    moved = explain(network, x, ActGrad(baseline=start), target, layers).contribution
    passed = explain(network, x, InputGrad(baseline=start), target, layers).contribution
    for name in layers:
        cut = int(name) + 1

        def below(one: torch.Tensor, cut: int = cut) -> torch.Tensor:
            return network[:cut](one[None])[0]

        def above(units: torch.Tensor, cut: int = cut) -> float:
            return float(target(network[cut:](units[None]) if cut < 6 else units[None]))

        for k, one in enumerate(x):
            # Central differences of 1e-6 in float64 are good to about 1e-9.
            close = {"rtol": 1e-6, "atol": 1e-8}
            np.testing.assert_allclose(plain[name][k], act_grad(below, above, one, None), **close)
            np.testing.assert_allclose(moved[name][k], act_grad(below, above, one, start), **close)
            expected = input_grad(below, above, one, start)
            np.testing.assert_allclose(passed[name][k], expected, **close)


@pytest.mark.parametrize("name", ["0", "2"])
def test_act_grad_agrees_with_captum(name: str) -> None:
    network, target = curved_net(3), Unit(1)
    x = torch.randn(3, 2, 7, dtype=torch.float64)
    captum = LayerGradientXActivation(lambda batch: target(network(batch)), network[int(name)])
    found = explain(network, x, ActGrad(), target, (name,)).contribution[name]
    torch.testing.assert_close(found, captum.attribute(x.clone()).detach())


def test_input_grad_sums_to_the_derivative_along_the_input() -> None:
    network, x = curved_net(1), torch.randn(5, 2, 7, dtype=torch.float64)
    found = explain(network, x, InputGrad(baseline=0.2), Unit(0), ("0", "2", "5"))
    leaf = x.clone().requires_grad_()
    slope = torch.autograd.grad(network(leaf)[:, 0].sum(), leaf)[0]
    expected = (slope * (x - 0.2)).flatten(1).sum(1)
    torch.testing.assert_close(found.expected, expected)
    for units in found.contribution.values():
        torch.testing.assert_close(units.flatten(1).sum(1), expected)


def test_input_grad_and_act_grad_average_over_baselines() -> None:
    network, x = curved_net(1), torch.randn(5, 2, 7, dtype=torch.float64)
    for kind in (InputGrad, ActGrad):
        one, other = (explain(network, x, kind(baseline=b)).contribution["0"] for b in (0.0, 0.7))
        both = explain(network, x, kind(baseline=[0.0, 0.7])).contribution["0"]
        torch.testing.assert_close(both, (one + other) / 2)
        assert not torch.allclose(one, other)


def test_normalised_gradients_have_unit_length() -> None:
    """h = x, F = ½‖h‖², so C = h² / ‖h‖, which sums to ‖h‖."""
    network = nn.Sequential(nn.Identity())
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    target = as_target(lambda y: y.square().sum(1) / 2)
    found = explain(network, x, ActNormGrad(), target).contribution["0"]
    torch.testing.assert_close(found, torch.tensor([[9 / 5, 16 / 5], [0.0, 0.0]]))


def test_smooth_grad_is_the_mean_over_its_noise_and_knows_its_error() -> None:
    """h = x, F = ½ Σ h²: C_j = mean of (x_j + σ ε_nj)², with the same ε for every input."""
    network = nn.Sequential(nn.Identity())
    x = torch.tensor([[1.0, -2.0], [0.5, 3.0]])
    target = as_target(lambda y: y.square().sum(1) / 2)
    method = SmoothGrad(samples=5, sigma=0.3, seed=7)
    noise = torch.Generator().manual_seed(7)
    copies = torch.stack([x + 0.3 * torch.randn(2, generator=noise) for _ in range(5)])
    found = explain(network, x, method, target)
    torch.testing.assert_close(found.contribution["0"], copies.square().mean(0))
    sums = copies.square().sum(2)  # (sample, b)
    torch.testing.assert_close(found.standard_error["0"], sums.std(0) / 5**0.5)
    again = explain(network, x[1:], method, target)
    torch.testing.assert_close(again.contribution["0"], found.contribution["0"][1:])
    other = explain(network, x, SmoothGrad(samples=5, sigma=0.3, seed=8), target)
    assert not torch.allclose(other.contribution["0"], found.contribution["0"])
    many = explain(network, x, SmoothGrad(samples=4000, sigma=0.3), target)
    # E (x + σ ε)² = x² + σ²; 4000 copies leave an error of about 2 |x| σ / √4000 = 0.03.
    torch.testing.assert_close(many.contribution["0"], x**2 + 0.09, rtol=0, atol=0.1)
    within = (many.contribution["0"].sum(1) - (x**2 + 0.09).sum(1)).abs()
    assert bool((within < 4 * many.standard_error["0"]).all())


@pytest.mark.parametrize("method", [ActGrad(), ActNormGrad(), InputGrad(), SmoothGrad(2)])
def test_inputs_are_explained_one_by_one_and_left_alone(method: Method) -> None:
    network, x = curved_net(), torch.randn(6, 2, 7, dtype=torch.float64)
    before = x.clone()
    together = explain(network, x, method, layers=("2",)).contribution["2"]
    alone = [explain(network, one[None], method, layers=("2",)).contribution["2"] for one in x]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-12, atol=1e-14)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    permuted = explain(network, x[order], method, layers=("2",)).contribution["2"]
    torch.testing.assert_close(permuted, together[order], rtol=1e-12, atol=1e-14)
    assert torch.equal(x, before)


def test_parameters_are_checked_and_described() -> None:
    for wrong in (1, 2.5, True):
        with pytest.raises(RetinaCodecError, match="samples must be a whole number"):
            SmoothGrad(samples=wrong)  # type: ignore[arg-type]
    for wrong in (-0.1, float("nan"), float("inf")):
        with pytest.raises(RetinaCodecError, match="sigma must be finite"):
            SmoothGrad(sigma=wrong)
    for kind in (ActGrad, ActNormGrad, InputGrad):
        with pytest.raises(RetinaCodecError, match="finite"):
            kind(baseline=float("inf"))
    assert SmoothGrad(3, 0.1, 5).describe() == {
        "method": "SmoothGrad", "samples": 3, "sigma": 0.1, "seed": 5,
    }  # fmt: skip
    assert ActGrad().describe() == {"method": "ActGrad", "baseline": "None"}
