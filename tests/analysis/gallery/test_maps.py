"""Maps of modes: closed forms on a linear network, unit by unit on a curved one, and selection."""

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from retina_codec.analysis.gallery.maps import MapSettings, mode_channels, mode_maps
from retina_codec.errors import RetinaCodecError
from retina_codec.methods.gradients import InputGrad
from retina_codec.targets.base import Sum
from retina_codec.targets.classification import Probability
from tests.reference import maps as slow

SIGNS = ["inhibitory", "excitatory"]
WEIGHTS = np.array([0.1, 0.9, 0.0, 0.5, 0.2, 0.0])


def modes_of(channels=6, layer="1"):
    dictionary = np.zeros((2, 2, channels))
    dictionary[0, 1] = WEIGHTS
    dictionary[1, 0], dictionary[1, 1] = -WEIGHTS[::-1], 0.05
    loading = np.random.default_rng(0).random((5, 2))
    data = xr.Dataset(
        {
            "dictionary": (("mode", "sign", "channel"), dictionary),
            "loading": (("sample", "mode"), loading),
        },
        coords={"mode": [3, 8], "sign": SIGNS},
    )
    return xr.DataTree.from_dict({f"/layers/{layer}/modes": data})


def linear_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.Linear(6, 3)).double()


def curved_net():
    torch.manual_seed(1)
    first = (nn.Conv2d(1, 6, 2), nn.Tanh())
    return nn.Sequential(*first, nn.Flatten(), nn.Linear(36, 3)).double()


def pictures(shape, seed=2):
    random = np.random.default_rng(seed)
    return xr.DataArray(
        random.normal(size=shape),
        dims=("sample", "color", "y", "x"),
        coords={"sample": np.arange(shape[0]) + 20},
    )


# Selection ----------------------------------------------------------------------------------


def test_channels_with_the_largest_weights():
    assert np.flatnonzero(mode_channels(modes_of(), "1", 3, top=2)).tolist() == [1, 3]
    third = mode_channels(modes_of(), "1", 3, share=0.35)  # 2.1 channels, rounded up
    np.testing.assert_allclose(third, [0, 0.9, 0, 0.5, 0.2, 0])


def test_channels_without_weight_are_not_selected():
    whole = mode_channels(modes_of(), "1", 3, share=1.0)
    assert np.flatnonzero(whole).tolist() == [0, 1, 3, 4]


def test_signs_count_alone_or_together():
    other = mode_channels(modes_of(), "1", 8, top=2, sign="inhibitory")
    np.testing.assert_allclose(other, [0, 0, 0.5, 0, 0.9, 0])
    both = mode_channels(modes_of(), "1", 8, top=2, sign="both")
    np.testing.assert_allclose(both, [0, 0, 0.55, 0, 0.95, 0])


# Maps ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("positive_only", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_on_a_linear_network_a_map_is_known(positive_only, weighted):
    """F = Σ y: C_ij = v_j W_ji x_i, over the units of the mode with Σ_i C_ij > 0."""
    network, images = linear_net(), pictures((5, 1, 3, 4))
    found = mode_maps(
        network, images, modes_of(), "1", 3, target=Sum(),
        settings=MapSettings(share=1.0, positive_only=positive_only, weighted=weighted),
    )  # fmt: skip
    v, w = network[2].weight.sum(0).detach().numpy(), network[1].weight.detach().numpy()
    parts = v[:, None] * w * images.values.reshape(5, 1, 12)  # (image, unit, pixel)
    size = WEIGHTS if weighted else (WEIGHTS > 0) * 1.0
    chosen = size * ((parts.sum(2) > 0) if positive_only else 1.0)
    expected = (parts * np.broadcast_to(chosen, (5, 6))[..., None]).sum(1)
    np.testing.assert_allclose(found["map"].values.reshape(5, 12), expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found["total"], expected.sum(1), rtol=1e-9, atol=1e-12)
    assert found["sample"].values.tolist() == [20, 21, 22, 23, 24]
    assert found.attrs["channels"] == [0, 1, 3, 4]


def test_default_is_the_probability_of_the_predicted_class():
    """∂p_c/∂y_k = p_c (δ_ck − p_k), then as above."""
    network, images = linear_net(), pictures((5, 1, 3, 4))
    found = mode_maps(network, images, modes_of(), "1", 3, settings=MapSettings(top=1))
    with torch.no_grad():
        p = network(torch.from_numpy(images.values)).softmax(1).numpy()
    v, w = network[2].weight.detach().numpy(), network[1].weight.detach().numpy()
    for i in range(5):
        c = p[i].argmax()
        slope = (p[i, c] * ((np.arange(3) == c) - p[i])) @ v[:, 1]
        expected = slope * w[1] * images.values[i].ravel()
        expected = expected * (expected.sum() > 0)
        np.testing.assert_allclose(found["map"][i].values.ravel(), expected, atol=1e-12)


def test_on_a_curved_network_it_equals_one_pass_per_unit():
    network, images = curved_net(), pictures((3, 1, 4, 3))
    below, rest = network[:2], network[2:]
    found = mode_maps(
        network, images, modes_of(), "1", 3, target=Probability(1), settings=MapSettings(top=3)
    )
    for i in range(3):
        x = torch.from_numpy(images.values[i : i + 1])
        units = slow.input_grad(
            below, lambda h: rest(h).softmax(1)[:, 1].sum(), x, torch.zeros_like(x)
        )
        units = units.reshape(6, 6, 12)  # (channel, place, pixel)
        kept = units[[1, 3, 4]].reshape(18, 12)
        expected = kept[kept.sum(1) > 0].sum(0)
        np.testing.assert_allclose(found["map"][i].values.ravel(), expected, atol=1e-12)


def test_some_images_give_what_all_give():
    network, images = curved_net(), pictures((30, 1, 4, 3))
    tree = modes_of()
    whole = mode_maps(network, images, tree, "1", 3, settings=MapSettings(batch_size=30))
    some = mode_maps(
        network, images, tree, "1", 3, samples=[17, 2], settings=MapSettings(batch_size=1)
    )
    xr.testing.assert_allclose(some["map"], whole["map"].isel(sample=[17, 2]))
    blocks = mode_maps(
        network, images, tree, "1", 3, settings=MapSettings(batch_size=2)
    )  # 16 at a time
    xr.testing.assert_allclose(blocks["map"], whole["map"])


def test_tensors_arrays_and_data_sets_give_the_same():
    network, images = curved_net(), pictures((4, 1, 4, 3))
    expected = mode_maps(network, images, modes_of(), "1", 3, samples=[3, 1])["map"].values
    tensor = torch.from_numpy(images.values)
    for other in (tensor, images.values, torch.utils.data.TensorDataset(tensor)):
        found = mode_maps(network, other, modes_of(), "1", 3, samples=[3, 1])
        np.testing.assert_allclose(found["map"], expected)
        assert found["sample"].values.tolist() == [3, 1]


def test_the_mean_is_that_of_all_images():
    network, images = linear_net(), pictures((30, 1, 3, 4))
    mean = torch.from_numpy(images.values.mean(0))
    options = {"samples": [29, 3], "settings": MapSettings(batch_size=1)}
    found = mode_maps(network, images, modes_of(), "1", 3, method=InputGrad("mean"), **options)
    expected = mode_maps(network, images, modes_of(), "1", 3, method=InputGrad(mean), **options)
    np.testing.assert_allclose(found["map"], expected["map"])
    plain = mode_maps(network, images, modes_of(), "1", 3, **options)
    assert (abs(found["map"] - plain["map"]) > 1e-3).any()


def test_inputs_are_left_alone_and_no_hook_stays():
    network, images, tree = curved_net(), pictures((4, 1, 4, 3)), modes_of()
    before = images.copy(deep=True), tree.copy(deep=True)
    mode_maps(network, images, tree, "1", 3)
    assert images.identical(before[0])
    assert tree.identical(before[1])
    with pytest.raises(RetinaCodecError):
        mode_maps(network, images * np.nan, tree, "1", 3)
    assert not any(module._forward_hooks for module in network.modules())


@pytest.mark.parametrize(
    ("mode", "options", "message"),
    [
        (4, {}, "has the modes 3, 8; got 4"),
        (3, {"settings": MapSettings(share=0.0)}, "between 1 and 6 channels"),
        (3, {"settings": MapSettings(top=7)}, "between 1 and 6 channels"),
        (3, {"settings": MapSettings(sign="net")}, "sign must be one of"),
        (3, {"settings": MapSettings(sign="inhibitory")}, "no inhibitory weight"),
        (3, {"samples": [4]}, "positions from 0 to 3"),
        (3, {"samples": []}, "at least one"),
    ],
)
def test_mistakes_are_named(mode, options, message):
    with pytest.raises(RetinaCodecError, match=message):
        mode_maps(curved_net(), pictures((4, 1, 4, 3)), modes_of(), "1", mode, **options)


def test_settings_are_validated():
    with pytest.raises(RetinaCodecError, match="batch_size must be at least 1; got 0"):
        MapSettings(batch_size=0)


def test_layers_without_modes_are_named():
    with pytest.raises(RetinaCodecError, match=r"of \['0'\]; they hold modes of \['1'\]"):
        mode_channels(modes_of(), "0", 3)
