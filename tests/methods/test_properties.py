"""What must hold for any network: hypothesis draws small convolutional ones and their inputs."""

from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import retina_codec as rc

METHODS = (
    rc.methods.IntegratedGradients(4),
    rc.methods.IntegratedGradients(25),
    rc.methods.IntegratedGradients(4, placement="uniform"),
    rc.methods.IntegratedGradients(4, quadrature="simpson"),
    rc.methods.IntegratedGradients(3, quadrature="gauss-legendre"),
    rc.methods.IntegratedGradients(4, path="hidden"),
    rc.methods.IntegratedGradients(2, tolerance=0.01),
    rc.methods.InputGrad(baseline=0.1),
    rc.methods.ActGrad(),
    rc.methods.ActGrad(baseline="mean"),
    rc.methods.ActNormGrad(),
    rc.methods.SmoothGrad(3),
)
TARGETS = (
    rc.targets.Sum(),
    rc.targets.Unit(1),
    rc.targets.TopK(2),
    rc.targets.Probability(),
    rc.targets.Entropy(),
    rc.targets.Contrast(),
)
LAYERS = ["first", "second"]

methods = st.sampled_from(METHODS)
targets = st.sampled_from(TARGETS)
seeds = st.integers(0, 10**6)


class Small(nn.Module):
    """Two convolutions with a smooth nonlinearity, then three outputs."""

    def __init__(self, seed: int, channels: int = 4) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first = nn.Conv2d(2, channels, 3)
        self.second = nn.Conv2d(channels, 3, 2)
        self.last = nn.Linear(3 * 3 * 2, 3)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        hidden = self.second(self.first(values).tanh())
        out: torch.Tensor = self.last(nn.functional.softplus(hidden).flatten(1))
        return out


def inputs(seed: int, count: int = 5) -> torch.Tensor:
    return torch.randn(count, 2, 6, 5, generator=torch.Generator().manual_seed(seed))


def explain(network: nn.Module, x: Any, method: Any, target: Any, **options: Any) -> xr.DataTree:
    settings_ = {"layers": LAYERS, "dtype": torch.float64, "progress": False}
    return rc.contribute(network, x, target=target, method=method, **(settings_ | options))


@settings(max_examples=12, deadline=None)
@given(seed=seeds, target=targets)
def test_completeness(seed: int, target: Any) -> None:
    """Both paths sum to F(x) − F(x′), InputGrad to the derivative, in every layer."""
    network, x = Small(seed), inputs(seed)
    for method in (
        rc.methods.IntegratedGradients(12, quadrature="gauss-legendre"),
        rc.methods.IntegratedGradients(64, path="hidden", quadrature="simpson"),
        rc.methods.IntegratedGradients(64, quadrature="simpson"),
        rc.methods.InputGrad(),
    ):
        found = explain(network, x, method, target)
        for name in LAYERS:
            layer = found["layers"].children[name].to_dataset()
            change = np.abs(layer["target_change"].values)
            total = layer["contribution"].sum(("sign", "channel")).values
            np.testing.assert_allclose(
                total - layer["target_change"], layer["completeness_error"], atol=1e-12
            )
            assert (np.abs(layer["completeness_error"]) < 1e-4 * (change.max() + 1)).all()
    value = found["responses/target"].values
    at_zero = explain(network, torch.zeros(1, 2, 6, 5), rc.methods.ActGrad(), target)[
        "responses/target"
    ]
    if not target.decides:
        ig = explain(network, x, rc.methods.IntegratedGradients(4), target)
        np.testing.assert_allclose(
            ig["layers/first/target_change"], value - at_zero.values, rtol=1e-9, atol=1e-12
        )


@settings(max_examples=12, deadline=None)
@given(seed=seeds, method=methods, target=targets)
def test_sign_parts_add_up_to_the_whole(seed: int, method: Any, target: Any) -> None:
    network, x = Small(seed), inputs(seed)
    parts = explain(network, x, method, target)
    units = explain(network, x, method, target, reduction=rc.reductions.AllUnits())
    for name in LAYERS:
        whole = units[f"layers/{name}/contribution"].sum(("row", "column"))
        both = parts[f"layers/{name}/contribution"].sum("sign")
        np.testing.assert_allclose(both, whole, rtol=1e-9, atol=1e-12)


@settings(max_examples=12, deadline=None)
@given(seed=seeds, method=methods, target=targets, size=st.integers(1, 5))
def test_a_batch_is_each_input_alone(seed: int, method: Any, target: Any, size: int) -> None:
    network, x = Small(seed), inputs(seed)
    if getattr(method, "baseline", None) == "mean":  # of the inputs, so it is fixed here
        method = rc.methods.ActGrad(baseline=x.double().mean(0))
    whole = explain(network, x, method, target)
    again = explain(network, x, method, target, batch_size=size)
    one = explain(network, x[3:4], method, target)
    for name in LAYERS:
        expected = whole[f"layers/{name}/contribution"]
        close = {"rtol": 1e-7, "atol": 1e-10}
        np.testing.assert_allclose(again[f"layers/{name}/contribution"], expected, **close)
        np.testing.assert_allclose(one[f"layers/{name}/contribution"][0], expected[3], **close)


@settings(max_examples=10, deadline=None)
@given(seed=seeds, method=methods, target=targets, order=st.permutations(range(4)))
def test_permuted_channels_give_permuted_contributions(
    seed: int, method: Any, target: Any, order: list[int]
) -> None:
    network, x = Small(seed), inputs(seed)
    expected = explain(network, x, method, target)
    with torch.no_grad():
        network.first.weight.copy_(network.first.weight[order].clone())
        assert network.first.bias is not None
        network.first.bias.copy_(network.first.bias[order].clone())
        network.second.weight.copy_(network.second.weight[:, order].clone())
    found = explain(network, x, method, target)
    close = {"rtol": 1e-6, "atol": 1e-10}
    np.testing.assert_allclose(
        found["layers/first/contribution"],
        expected["layers/first/contribution"][..., order],
        **close,
    )
    np.testing.assert_allclose(
        found["layers/second/contribution"], expected["layers/second/contribution"], **close
    )


@pytest.mark.parametrize("method", METHODS)
def test_inputs_and_network_stay_as_they_were(method: Any) -> None:
    network, x = Small(0).train(), inputs(0)
    state = {name: value.clone() for name, value in network.state_dict().items()}
    network.last.weight.grad = torch.ones_like(network.last.weight)
    before = x.clone()
    explain(network, x, method, rc.targets.TopK(1), dtype=None)
    assert torch.equal(x, before)
    assert network.training
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert torch.equal(network.last.weight.grad, torch.ones_like(network.last.weight))
    assert network.first.weight.grad is None
    assert network.first.weight.requires_grad
