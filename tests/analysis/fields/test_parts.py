import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

from retina_codec.analysis.fields.fields import instantaneous_fields, rank_one_parts
from retina_codec.analysis.fields.parts import (
    mode_shares,
    retina_field_parts,
    split_fields,
    summarize_parts,
    unit_shares,
)
from retina_codec.errors import RetinaCodecError
from tests.reference.receptive_fields import split_field_by_units
from tests.small import HISTORY, small_network

LAYERS = ("conv1", "conv2", "conv3")


@pytest.fixture(scope="module")
def network():
    return small_network().double()


@pytest.fixture(scope="module")
def windows():
    torch.manual_seed(5)
    return torch.randn(3, HISTORY, 16, 16, dtype=torch.float64)


def random_shares(network, windows, layer, parts=3):
    """Shares of every unit that add up to one."""
    seen = []
    with network.get_submodule(layer).register_forward_hook(lambda *call: seen.append(call[2])):
        network(windows)
    torch.manual_seed(1)
    return torch.rand(len(windows), parts, *seen[0].shape[1:], dtype=windows.dtype).softmax(1)


@pytest.mark.parametrize("layer", LAYERS)
def test_parts_add_up_to_the_field(network, windows, layer):
    shares = random_shares(network, windows, layer)
    whole = instantaneous_fields(network, windows)
    largest = whole.abs().max()
    for parts in (
        split_fields(network, windows, layer, shares),
        retina_field_parts(network, windows, layer, shares)[0],
    ):
        assert (parts.sum(2) - whole).abs().max() < 1e-10 * largest
        assert (parts[:, :, 0] - whole / 3).abs().max() > 0.01 * largest  # not just a third each


@pytest.mark.parametrize("layer", LAYERS)
def test_both_ways_give_the_same_parts_and_fields(network, windows, layer):
    shares = random_shares(network, windows, layer)
    slow = split_fields(network, windows, layer, shares)
    parts, whole = retina_field_parts(network, windows, layer, shares)
    torch.testing.assert_close(parts, slow, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(whole, instantaneous_fields(network, windows), rtol=1e-9, atol=1e-11)


def test_parts_match_a_sum_over_single_units(windows):
    torch.manual_seed(2)
    small = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    window = windows[:2, :3, :2, :2]
    shares = torch.rand(2, 4, 5, dtype=torch.float64).softmax(1)
    parts = split_fields(small, window, "1", shares)
    for event in range(2):
        expected = split_field_by_units(small[:2], small[2:], window[event], shares[event])
        np.testing.assert_allclose(parts[event], expected, atol=1e-12)


def test_images_courses_and_shares_of_parts_add_up(network, windows):
    shares = random_shares(network, windows, "conv2")
    parts, whole = retina_field_parts(network, windows, "conv2", shares)
    spatial, temporal, _, _ = rank_one_parts(whole)
    found = summarize_parts(parts, whole, spatial, temporal)
    torch.testing.assert_close(found.spatial.sum(2), spatial, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(found.temporal.sum(2), temporal, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(found.share.sum(2), torch.ones_like(found.share[..., 0]))
    assert float(found.error.max()) < 1e-10
    # A part that is a multiple of the field has its image, its course, and its share.
    copies = torch.stack((0.3 * whole, 0.7 * whole), 2)
    found = summarize_parts(copies, whole, spatial, temporal)
    torch.testing.assert_close(found.spatial[:, :, 0], 0.3 * spatial)
    torch.testing.assert_close(found.temporal[:, :, 1], 0.7 * temporal)
    torch.testing.assert_close(found.share[..., 0], torch.full((3, 6), 0.3).double())


def test_a_gap_in_the_parts_is_reported(network, windows):
    shares = random_shares(network, windows, "conv2")
    parts, whole = retina_field_parts(network, windows, "conv2", shares)
    spatial, temporal, _, _ = rank_one_parts(whole)
    short = summarize_parts(parts[:, :, :2], whole, spatial, temporal)
    missing = parts[:, :, 2].abs().amax((-3, -2, -1)) / whole.abs().amax((-3, -2, -1))
    torch.testing.assert_close(short.error, missing)


def test_network_is_left_alone_also_after_a_crash(windows):
    network = small_network().double().train()
    shares = torch.ones(3, 1, 4, 12, 12, dtype=torch.float64)
    split_fields(network, windows, "conv2", shares)
    with pytest.raises(RetinaCodecError, match=r"units \(3, 4, 14, 14\) of 'conv1'"):
        split_fields(network, windows, "conv1", shares)
    assert network.training
    assert not any(module._forward_hooks for module in network.modules())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_unknown_or_repeated_layer_is_one_clear_error(network, windows):
    shares = torch.ones(3, 1, 4, 12, 12, dtype=torch.float64)
    with pytest.raises(RetinaCodecError, match="has no layer 'conv9'"):
        split_fields(network, windows, "conv9", shares)
    tanh = nn.Tanh()
    twice = nn.Sequential(nn.Flatten(), nn.Linear(2048, 4), tanh, tanh).double()
    with pytest.raises(RetinaCodecError, match="was called 2 times"):
        split_fields(twice, windows, "2", torch.ones(3, 1, 4))


SIZES = st.floats(0, 100).filter(lambda v: v == 0 or v > 1e-6)


def slow_shares(loading, dictionary, contribution):
    """Go through the definition one number at a time."""
    events, modes = loading.shape
    found = np.zeros((events, modes + 1, *dictionary.shape[1:]))
    for e in range(events):
        for s, sigma in enumerate((-1, 1)):
            for k in range(dictionary.shape[2]):
                claims = [max(0, loading[e, m] * dictionary[m, s, k] * sigma) for m in range(modes)]
                whole = max(abs(contribution[e, s, k]), sum(claims))
                if whole > 0:
                    found[e, :-1, s, k] = [claim / whole for claim in claims]
                found[e, -1, s, k] = 1 - found[e, :-1, s, k].sum()
    return found


def test_modes_take_what_they_explain_and_the_remainder_the_rest():
    dictionary = np.zeros((2, 2, 2))
    dictionary[0, 1] = [0.5, 0.4]  # excitatory
    dictionary[1, 1] = [0.25, 0.8]
    dictionary[0, 0] = [-0.3, 0.0]  # inhibitory
    contribution = np.array([[[-0.6, -0.5], [1.0, 0.6]]])
    found = mode_shares(np.ones((1, 2)), dictionary, contribution)[0]
    np.testing.assert_allclose(found[:, 1, 0], [0.5, 0.25, 0.25])  # part of it is explained
    np.testing.assert_allclose(found[:, 1, 1], [1 / 3, 2 / 3, 0])  # twice as much is claimed
    np.testing.assert_allclose(found[:, 0, 0], [0.5, 0, 0.5])
    np.testing.assert_allclose(found[:, 0, 1], [0, 0, 1])  # nobody claims it


@settings(max_examples=30, deadline=None)
@given(
    arrays(np.float64, (3, 4), elements=SIZES),
    arrays(np.float64, (4, 2, 3), elements=SIZES),
    arrays(np.float64, (3, 2, 3), elements=SIZES),
)
def test_shares_follow_the_slow_rule_and_add_up_to_one(loading, dictionary, contribution):
    sigma = np.array([-1.0, 1.0])[:, None]
    dictionary, contribution = dictionary * sigma, contribution * sigma
    found = mode_shares(loading, dictionary, contribution)
    np.testing.assert_allclose(
        found, slow_shares(loading, dictionary, contribution), rtol=1e-12, atol=1e-12
    )
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-12)
    assert found.min() >= 0
    # A faithful reconstruction leaves nothing to the remainder.
    rebuilt = np.einsum("em,msk->esk", loading, dictionary)
    whole = mode_shares(loading, dictionary, rebuilt)
    np.testing.assert_allclose(whole[:, -1][rebuilt != 0], 0, atol=1e-12)


def test_claims_against_the_sign_count_as_none():
    dictionary = np.array([[[0.5], [-0.5]], [[-0.5], [0.5]]])
    found = mode_shares(np.ones((1, 2)), dictionary, np.array([[[-1.0], [1.0]]]))
    np.testing.assert_allclose(found[0, 0], 0)
    np.testing.assert_allclose(found[0, 1], 0.5)


def test_units_take_the_share_of_their_channel_and_sign():
    shares = torch.arange(2 * 3 * 2 * 4, dtype=torch.float64).reshape(2, 3, 2, 4)
    units = torch.randn(2, 4, 3, 2, dtype=torch.float64)
    units[1, 2, 0, 0] = 0
    found = unit_shares(shares, units)
    for e, k, y, x in np.ndindex(2, 4, 3, 2):
        value = float(units[e, k, y, x])
        expected = shares[e, :, int(value > 0), k].tolist() if value else [0, 0, 1]
        assert found[e, :, k, y, x].tolist() == expected


@pytest.mark.parametrize(
    ("loading", "dictionary", "contribution", "message"),
    [
        (np.ones((2, 3)), np.ones((4, 2, 5)), np.ones((2, 2, 5)), "fit each other"),
        (np.ones((2, 3)), np.ones((3, 2, 5)), np.ones((1, 2, 5)), "fit each other"),
        (np.full((1, 1), np.nan), np.ones((1, 2, 1)), np.ones((1, 2, 1)), "finite"),
    ],
)
def test_bad_input_is_one_clear_error(loading, dictionary, contribution, message):
    with pytest.raises(RetinaCodecError, match=message):
        mode_shares(loading, dictionary, contribution)
