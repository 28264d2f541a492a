"""Hidden layers by Fourier transforms: the plain network is the oracle."""

import numpy as np
import pytest
import torch

from retina_codec.networks.retina.model import Normalisation, RetinaCNN
from retina_codec.networks.retina.prediction import open_windows
from retina_codec.probing.retina.hidden import HiddenLayers
from tests.small import HISTORY, small_network, small_recording


def second_activation(network, first):
    return network.norm2(network.conv2(first))


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "surround"])
def network(request):
    return small_network(surround=request.param)


@pytest.fixture(scope="module")
def windows(network):
    split = small_recording(network, bins=40)["test"]
    return torch.cat([batch for _, batch in open_windows(network, split)[1].batches(64, "cpu")])


@pytest.mark.parametrize("count", [1, 3, 7, 32])
def test_layers_and_rates_are_those_of_the_plain_network(network, windows, count):
    layers, seen = HiddenLayers(network), windows[:count]
    with torch.no_grad():
        first = network.norm1(network.conv1(seen))
        second = second_activation(network, torch.relu(first))
        rates = network(seen)
    torch.testing.assert_close(layers.first(seen), first, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(layers.second(torch.relu(first)), second, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(layers.rates(torch.relu(second)), rates, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("channels", [(2,), (3, 0), (0, 1, 2, 3)])
def test_a_change_of_the_first_layer_moves_the_second_by_the_difference(network, windows, channels):
    layers = HiddenLayers(network)
    random = np.random.default_rng(0)
    first = torch.relu(layers.first(windows[:5]))
    change = torch.zeros_like(first)
    change[:, list(channels)] = torch.as_tensor(
        random.normal(size=(5, len(channels), *first.shape[2:])).astype("f4")
    )
    before, after = (second_activation(network, maps).detach() for maps in (first, first + change))
    found = layers.change_of_second(channels, change[:, list(channels)])
    torch.testing.assert_close(found, after - before, rtol=1e-3, atol=1e-4)
    again = layers.change_of_second(channels, change[:, list(channels)])
    torch.testing.assert_close(again, found, rtol=0, atol=0)


def test_layers_of_a_batch_are_those_of_each_run(network, windows):
    layers = HiddenLayers(network)
    whole = layers.first(windows)
    parts = torch.cat([layers.first(windows[:13]), layers.first(windows[13:])])
    torch.testing.assert_close(whole, parts, rtol=1e-4, atol=1e-4)


def test_a_stacked_network_gives_the_layers_of_its_plain_copy(windows):
    torch.manual_seed(3)
    stacked = RetinaCNN(
        ("a", "b"),
        [(1, 1), (3, 3)],
        history=HISTORY,
        frame_shape=(16, 16),
        channels=(4, 4),
        kernel_sizes=(5, 5, 3),
        normalisation=Normalisation(mean=127.5, std=60.0),
        stacked=True,
    ).eval()
    layers = HiddenLayers(stacked)
    second = layers.second(torch.relu(layers.first(windows)))
    with torch.no_grad():
        expected = stacked(windows)
    torch.testing.assert_close(layers.rates(torch.relu(second)), expected, rtol=1e-4, atol=1e-4)


def test_network_and_windows_are_left_as_they_were(network, windows):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    kept = windows.clone()
    layers = HiddenLayers(network)
    layers.rates(torch.relu(layers.second(torch.relu(layers.first(windows)))))
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])
    assert torch.equal(windows, kept)
