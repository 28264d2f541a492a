"""A borrowed network comes back as it was: modes of all submodules, gradients, device, weights."""

import pytest
import torch
import xarray as xr
from torch import nn

from retina_codec.analysis.fields.fields import instantaneous_fields
from retina_codec.analysis.fields.parts import split_fields
from retina_codec.analysis.hypotheses.kernels import separable_kernels
from retina_codec.analysis.hypotheses.silencing import silence_channels
from retina_codec.networks.retina.prediction import predict_rates
from retina_codec.probing.interventions import Silencing
from tests.small import HISTORY, small_network, small_recording

WINDOWS = torch.randn(2, HISTORY, 16, 16, generator=torch.Generator().manual_seed(0))
SHARES = torch.ones(2, 1, 4, 12, 12)
USES = {
    "predict_rates": lambda network, split: predict_rates(network, split),
    "silence_channels": lambda network, split: silence_channels(
        network, split, [Silencing("conv1", (0,))], block=0.1
    ),
    "separable_kernels": lambda network, split: separable_kernels(network, split, samples=2),
    "instantaneous_fields": lambda network, _: instantaneous_fields(network, WINDOWS),
    "split_fields": lambda network, _: split_fields(network, WINDOWS, "conv2", SHARES),
}


def state_of(network: nn.Module) -> list[object]:
    """All that a user can see of a network besides its numbers."""
    modules = [(m.training, sorted(m.__dict__), len(m._forward_hooks)) for m in network.modules()]
    return [modules, *((p.requires_grad, p.device, p.dtype) for p in network.parameters())]


@pytest.mark.parametrize("use", USES)
def test_a_network_whose_submodules_differ_in_mode_comes_back_as_it_was(use) -> None:
    network = small_network()
    split = small_recording(network, bins=60)["test"].to_dataset()
    network.train()
    network.norm1.eval()  # frozen while the rest is trained
    network.conv2.weight.requires_grad_(False)
    network.conv1.weight.grad = torch.ones_like(network.conv1.weight)
    before = state_of(network)
    numbers = {name: values.clone() for name, values in network.state_dict().items()}
    USES[use](network, split)
    assert state_of(network) == before
    assert torch.equal(network.conv1.weight.grad, torch.ones_like(network.conv1.weight))
    assert all(torch.equal(values, numbers[n]) for n, values in network.state_dict().items())


@pytest.mark.parametrize("use", USES)
def test_the_answer_is_that_of_evaluation_mode(use) -> None:
    network = small_network()
    split = small_recording(network, bins=60)["test"].to_dataset()
    expected = USES[use](network, split)
    found = USES[use](network.train(), split)
    assert network.training
    if isinstance(expected, torch.Tensor):
        torch.testing.assert_close(found, expected)
    else:
        xr.testing.assert_allclose(found, expected)
