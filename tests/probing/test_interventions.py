"""Channels held back: closed form, a slow second form, and sets that do not touch each other."""

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from retina_codec.errors import RetinaCodecError
from retina_codec.networks.adapter import adapt
from retina_codec.networks.pictures.small_resnet import SmallResNet
from retina_codec.networks.pictures.small_vit import SmallViT
from retina_codec.networks.retina.prediction import open_windows
from retina_codec.probing.interventions import Silencing, perturb, silenced_rates
from retina_codec.probing.retina.hidden import HiddenLayers
from tests.reference.control import held_back
from tests.small import small_network, small_recording


def linear() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2)).double().eval()


def cnn() -> SmallResNet:
    torch.manual_seed(0)
    network = SmallResNet(widths=(4, 6, 6, 8)).double().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.bias.data.normal_(0, 0.5)
    return network


def some_masks(count: int, channels: int) -> np.ndarray:
    random = np.random.default_rng(1)
    masks = random.choice([0.0, 0.25, 1.0], (count, channels))
    masks[0] = 1
    return masks


@pytest.mark.parametrize("held_at", [0.0, 0.7, "mean"])
def test_a_linear_network_loses_what_the_channel_added(held_at) -> None:
    network, x = linear(), torch.randn(7, 3).double()
    found = perturb(network, x, "0", np.vstack([np.ones(5), 1 - np.eye(5)]), held_at=held_at)
    h = network[0](x).detach().numpy()
    weight = network[1].weight.detach().numpy()
    whole = network(x).detach().numpy()
    level = h.mean(0) if held_at == "mean" else np.full(5, held_at)
    np.testing.assert_allclose(found["unperturbed"], whole)
    np.testing.assert_allclose(found["output"][0], whole)
    for channel in range(5):
        lost = (h[:, channel, None] - level[channel]) * weight[:, channel]
        np.testing.assert_allclose(found["output"][channel + 1], whole - lost)


@pytest.mark.parametrize("layer", ["stage1.0", "stage2.1.norm1", "stage4.1"])
@pytest.mark.parametrize("batch_size", [3, 40])
def test_equals_the_slow_second_form(layer, batch_size) -> None:
    network, x = cnn(), torch.rand(5, 3, 16, 16).double()
    module = network.get_submodule(layer)
    channels = {"stage1.0": 4, "stage2.1.norm1": 6, "stage4.1": 8}[layer]
    masks = some_masks(6, channels)
    found = perturb(network, x, layer, masks, held_at=0.3, batch_size=batch_size)
    assert found.attrs["resumed"] == 1
    for row, keep in enumerate(masks):
        expected = held_back(network, module, x, keep, held_at=0.3)
        np.testing.assert_allclose(found["output"][row], expected, rtol=1e-9)
    assert np.ptp(found["output"].values, axis=0).max() > 1e-3


def test_tokens_have_their_channels_last() -> None:
    torch.manual_seed(0)
    network = SmallViT(size=8, dim=8, depth=2, heads=2, hidden=12).double().eval()
    x, masks = torch.rand(4, 3, 8, 8).double(), some_masks(5, 8)
    before = adapt(network, ["blocks.0.attn.proj"], hook="input")
    for given, layer, module in (
        (network, "blocks.0", network.blocks[0]),
        (before, "blocks.0.attn.proj", None),
    ):
        found = perturb(given, x, layer, masks)
        for row, keep in enumerate(masks):
            if module is not None:
                expected = held_back(network, module, x, keep, axis=2)
            else:  # the input of a linear layer: its weights are scaled instead
                changed = SmallViT(size=8, dim=8, depth=2, heads=2, hidden=12).double().eval()
                changed.load_state_dict(network.state_dict())
                changed.blocks[0].attn.proj.weight.data *= torch.as_tensor(keep)
                expected = changed(x).detach()
            np.testing.assert_allclose(found["output"][row], expected, rtol=1e-9, atol=1e-12)


def test_sets_do_not_touch_each_other() -> None:
    network, x = cnn(), torch.rand(4, 3, 16, 16).double()
    masks = some_masks(6, 6)
    before = {name: values.clone() for name, values in network.state_dict().items()}
    network.train()
    found = perturb(network, x, "stage2.0", masks)["output"].values
    order = np.array([3, 0, 5, 1, 4, 2])
    np.testing.assert_allclose(
        perturb(network, x, "stage2.0", masks[order])["output"], found[order], rtol=1e-9
    )
    alone = [perturb(network, x, "stage2.0", mask[None])["output"][0] for mask in masks]
    np.testing.assert_allclose(np.stack(alone), found, rtol=1e-9)
    one = [perturb(network, x[i : i + 1], "stage2.0", masks)["output"] for i in range(4)]
    np.testing.assert_allclose(np.concatenate(one, 1), found, rtol=1e-9)
    assert network.training
    assert all(torch.equal(values, before[name]) for name, values in network.state_dict().items())
    assert not any(m._forward_hooks or "forward" in m.__dict__ for m in network.modules())


def test_equal_sets_are_run_once_and_labels_travel() -> None:
    network, rows = linear(), []
    masks = xr.DataArray(
        np.repeat(some_masks(2, 5), 3, axis=0),
        dims=("set", "channel"),
        coords={"set": list("abcdef")},
    )
    x = xr.DataArray(np.ones((4, 3)), dims=("sample", "color"), coords={"sample": [7, 8, 9, 10]})
    network[1].register_forward_hook(lambda *given: rows.append(len(given[-1])))
    found = perturb(network, x, "0", masks.T)
    assert found.attrs["different_sets"] == 2
    assert rows[-1] == 2 * 4
    assert found["set"].values.tolist() == list("abcdef")
    assert found["sample"].values.tolist() == [7, 8, 9, 10]
    np.testing.assert_array_equal(found["output"].sel(set="d"), found["output"].sel(set="f"))
    assert (found["output"].sel(set="a") != found["output"].sel(set="f")).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer": "2"}, "the network has no layer '2'"),
        ({"masks": np.ones((2, 4))}, r"with its 5 channels; got \(2, 4\)"),
        ({"masks": np.ones((0, 5))}, r"got \(0, 5\)"),
        ({"masks": np.full((1, 5), 2.0)}, r"in \[0, 1\]; got 2 to 2"),
        ({"masks": np.full((1, 5), np.nan)}, "got nan to nan"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"held_at": "median"}, "held_at must be a number or 'mean'; got 'median'"),
    ],
)
def test_bad_input_is_named(change, message) -> None:
    given = {"layer": "0", "masks": np.ones((1, 5))} | change
    with pytest.raises(RetinaCodecError, match=message):
        perturb(linear(), torch.ones(2, 3).double(), **given)


def test_silencing_in_the_retina_is_the_same_intervention() -> None:
    """Cut rectified channels by the fast way, and hold them at 0 by the way for any network."""
    network = small_network()
    split = small_recording(network, bins=40)["test"]
    windows = torch.cat([batch for _, batch in open_windows(network, split)[1].batches(64, "cpu")])
    cuts = [Silencing("conv1", (1,)), Silencing("conv1", (3, 0), 0.4), Silencing("conv2", (0, 2))]
    plain, *cut = silenced_rates(HiddenLayers(network), windows, cuts, {})
    torch.testing.assert_close(plain, network(windows).detach(), rtol=1e-4, atol=1e-3)
    for silencing, found in zip(cuts, cut, strict=True):
        masks = np.ones((1, 4))
        masks[0, list(silencing.channels)] -= silencing.strength
        layer = {"conv1": "relu1", "conv2": "relu2"}[silencing.layer]
        expected = perturb(network, windows, layer, masks, progress=False)["output"][0]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)
        assert float((found - plain).abs().max()) > 0.1
