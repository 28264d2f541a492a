"""The retina CNN: numpy reference, collapse, locations, config, noise only in training."""

import numpy as np
import pytest
import torch
from torch import nn

import retina_codec as rc
from retina_codec.networks.retina.modules import GaussianNoise, ScaleShiftNorm, StackedConv2d
from tests.reference.networks import retina_cnn


def test_outputs_equal_the_numpy_reference(small_network):
    windows = torch.randn(4, 5, 13, 14)
    state = {k: v.double().numpy() for k, v in small_network.state_dict().items()}
    locations = small_network.readout.locations.tolist()
    expected = [retina_cnn(w.double().numpy(), state, locations) for w in windows]
    np.testing.assert_allclose(small_network(windows).detach(), expected, rtol=1e-4, atol=1e-5)


def test_collapse_changes_nothing(small_network):
    plain = small_network.collapse()
    windows = torch.randn(6, 5, 13, 14)
    assert isinstance(plain.conv1, nn.Conv2d)
    assert plain.conv1.weight.shape == (3, 5, 5, 5)
    torch.testing.assert_close(plain(windows), small_network(windows), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        plain.first_layer(windows), small_network.first_layer(windows), rtol=1e-5, atol=1e-5
    )


def test_collapse_of_the_published_size():
    torch.manual_seed(1)
    network = rc.networks.RetinaCNN(range(2), [[3, 4], [15, 0]], stacked=True).eval()
    windows = torch.randn(2, 40, 50, 50)
    plain = network.collapse()
    assert plain.conv1.weight.shape == (8, 40, 15, 15)
    assert plain.map_shape == (16, 16)
    assert plain.margin == 17
    torch.testing.assert_close(plain(windows), network(windows), rtol=1e-5, atol=1e-5)


def test_first_layer_is_affine(small_network):
    one, other = torch.randn(2, 1, 5, 13, 14)
    middle = small_network.first_layer(0.3 * one + 0.7 * other)
    mixed = 0.3 * small_network.first_layer(one) + 0.7 * small_network.first_layer(other)
    torch.testing.assert_close(middle, mixed, rtol=1e-4, atol=1e-5)


def test_a_cell_sees_the_pixels_around_its_location(small_network):
    windows = torch.randn(1, 5, 13, 14, requires_grad=True)
    small_network(windows)[0, 1].backward()  # location (2, 3), receptive field 9 x 9
    seen = windows.grad[0].abs().sum(0) > 0
    rows, columns = torch.nonzero(seen, as_tuple=True)
    assert rows.min() >= 2
    assert rows.max() <= 10
    assert columns.min() >= 3
    assert columns.max() <= 11
    assert small_network.margin == 4


def test_noise_only_in_training(small_network):
    windows = torch.randn(8, 5, 13, 14)
    torch.testing.assert_close(small_network(windows), small_network(windows))
    noise = GaussianNoise(0.5).train()
    added = noise(torch.zeros(200_000))
    assert abs(float(added.std()) - 0.5) < 0.01


def test_normalisation_equals_torch_batch_norm():
    ours, theirs = ScaleShiftNorm(4, momentum=0.1), nn.BatchNorm2d(4, eps=1e-3, momentum=0.1)
    with torch.no_grad():
        ours.scale.copy_(torch.tensor([1.0, -2.0, 0.5, 3.0]))
        theirs.weight.copy_(ours.scale.abs())
        ours.shift.copy_(torch.arange(4.0))
        theirs.bias.copy_(ours.shift)
    for _ in range(3):
        values = torch.randn(16, 4, 3, 3) * 2 + 1
        torch.testing.assert_close(ours(values), theirs(values))
    ours.eval(), theirs.eval()
    torch.testing.assert_close(ours(values), theirs(values))


def test_config_round_trip(small_network):
    again = rc.networks.RetinaCNN.from_config(small_network.config())
    again.load_state_dict(small_network.state_dict())
    windows = torch.randn(2, 5, 13, 14)
    torch.testing.assert_close(again.eval()(windows), small_network(windows))
    assert again.config() == small_network.config()
    assert again.cells == (3, 7, 9)
    assert again.cell_types == ("a", "b", "a")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"locations": [[0, 1], [2, 3], [4, 6]]}, "must lie in the 5 × 6 map"),
        ({"locations": [[0, 1]]}, "one location"),
        ({"cells": [3, 3, 9]}, "distinct"),
        ({"frame_shape": (8, 8)}, "smaller kernel_sizes"),
        ({"normalisation": {"mean": 0.0, "std": 0.0}}, "std > 0"),
    ],
)
def test_bad_configurations(small_network, change, message):
    with pytest.raises(rc.RetinaCodecError, match=message):
        rc.networks.RetinaCNN.from_config(small_network.config() | change)


@pytest.mark.parametrize("stacked", [False, True])
def test_a_wide_field_adds_weighted_means_of_the_rectified_first_layer(stacked):
    network = wide_network(stacked=stacked)
    rectified = torch.relu(torch.randn(4, 3, 9, 10))
    found = network.conv2(rectified).detach().numpy()
    network.conv2.surround.data.zero_()
    local = network.conv2(rectified).detach().numpy()
    expected = local.copy()
    weight = wide_network(stacked=stacked).conv2.surround.detach().numpy()
    for b, o, i in np.ndindex(4, 2, 3):
        expected[b, o] += weight[o, i] * rectified[b, i].numpy().mean()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(found - local).max() > 0.1


def wide_network(**options):
    """Random weights; those of the wide field are 0 unless set here."""
    torch.manual_seed(3)
    network = rc.networks.RetinaCNN(
        [3, 7],
        [[0, 1], [2, 3]],
        history=5,
        frame_shape=(13, 14),
        channels=(3, 2),
        kernel_sizes=(5, 3, 3),
        **{"surround": True} | options,
    )
    if network.surround:
        network.conv2.surround.data.normal_()
    return network.eval()


@pytest.mark.parametrize("stacked", [False, True])
def test_a_new_wide_field_is_that_of_a_plain_network(stacked):
    """Weights 0, and the other first weights are drawn as without it."""
    windows, sizes = torch.randn(4, 5, 13, 14), dict(history=5, frame_shape=(13, 14))
    found = []
    for surround in (False, True):
        torch.manual_seed(3)
        network = rc.networks.RetinaCNN(
            [3], [[1, 1]], kernel_sizes=(5, 3, 3), stacked=stacked, surround=surround, **sizes
        )
        found.append(network.eval()(windows))
    assert torch.equal(*found)
    assert not network.conv2.surround.any()


def test_a_wide_field_survives_collapse_and_config():
    network, windows = wide_network(stacked=True), torch.randn(6, 5, 13, 14)
    plain = network.collapse()
    assert plain.surround
    assert not plain.stacked
    torch.testing.assert_close(plain(windows), network(windows), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(plain.conv2.surround, network.conv2.surround)
    again = rc.networks.RetinaCNN.from_config(plain.config(), plain.state_dict()).eval()
    assert again.config() == plain.config()
    torch.testing.assert_close(again(windows), plain(windows))


def test_a_plain_network_has_the_config_and_weights_it_always_had(small_network):
    assert "surround" not in small_network.config()
    assert not rc.networks.RetinaCNN.from_config(small_network.config()).surround
    assert not any("surround" in name for name in small_network.state_dict())
    assert "surround" not in rc.load_network("insilico").config()


def test_weights_without_a_wide_field_are_refused_where_one_is_asked_for(small_network):
    config = small_network.config() | {"surround": True}
    with pytest.raises(RuntimeError, match=r"conv2\.surround"):
        rc.networks.RetinaCNN.from_config(config, small_network.state_dict())


def test_stack_needs_an_odd_kernel():
    with pytest.raises(rc.RetinaCodecError, match="odd"):
        StackedConv2d(1, 1, 4)
