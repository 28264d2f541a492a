"""Maps of one image against the units themselves."""

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

import retina_codec as rc
from retina_codec.analysis.layers.units import unit_maps
from retina_codec.networks.pictures.small_vit import SmallViT

METHOD = rc.methods.IntegratedGradients(3)


@pytest.fixture(scope="module")
def picture():
    values = np.random.default_rng(0).uniform(size=(1, 3, 32, 32)).astype(np.float32)
    return xr.DataArray(values, dims=("sample", "color", "y", "x"))


@pytest.fixture(scope="module")
def convolutional():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(3, 5, 8, 8), nn.ReLU(), nn.Conv2d(5, 4, 2), nn.Flatten(), nn.Linear(36, 3)
        )
    return rc.adapt(net, ["1", "2"])


def test_leading_channels_and_sums_are_those_of_the_units(convolutional, picture):
    found = unit_maps(convolutional, picture, target=rc.targets.TopK(1), method=METHOD, shown=2)
    tree = rc.contribute(
        convolutional, picture, target=rc.targets.TopK(1), method=METHOD, reduction=rc.reductions.AllUnits(),
        progress=False,
    )  # fmt: skip
    for place, name in enumerate(("1", "2")):
        units, here = tree[f"layers/{name}"].isel(sample=0), found[f"layers/{place}"]
        assert here.attrs["layer"] == name
        net = units["contribution"].sum(("row", "column"))
        np.testing.assert_allclose(here["net"], net, rtol=1e-5, atol=1e-7)
        order = sorted(range(net.size), key=lambda c: -abs(float(net[c])))[:2]
        assert here["shown"].values.tolist() == order
        for key in ("activation", "contribution"):
            np.testing.assert_array_equal(here[key], units[key].values[order])
        total = float(here["net"].sum() - here["target_change"])
        assert total == pytest.approx(float(here["completeness_error"]), abs=1e-5)
    assert float(found["target"]) == pytest.approx(float(found["prediction"].max()), rel=1e-5)
    np.testing.assert_array_equal(found["image"], picture[0])
    tensor = torch.from_numpy(picture.values)
    again = unit_maps(convolutional, tensor, target=rc.targets.TopK(1), method=METHOD, shown=2)
    xr.testing.assert_allclose(again["layers/1"].to_dataset(), found["layers/1"].to_dataset())
    np.testing.assert_array_equal(again["image"], picture[0])


def test_tokens_of_patches_lie_as_they_cut_the_image(picture):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = SmallViT(depth=2, dim=16)
    network = rc.adapt(net, "blocks")
    found = unit_maps(network, picture, target=rc.targets.Probability(), method=METHOD, shown=16)
    tree = rc.contribute(
        network, picture, target=rc.targets.Probability(), method=METHOD, reduction=rc.reductions.AllUnits(),
        progress=False,
    )  # fmt: skip
    for place, name in enumerate(network.layers):
        here = found[f"layers/{place}"].to_dataset()
        units = tree[f"layers/{name}"]["activation"].isel(sample=0)
        side = here.sizes["row"]
        assert side * here.sizes["column"] + 1 == units.sizes["token"]
        for row, column in ((0, 0), (1, 2), (side - 1, side - 1)):
            token = 1 + row * side + column
            chosen = units.transpose("channel", "token").values[here["shown"].values, token]
            np.testing.assert_array_equal(here["activation"][:, row, column], chosen)
    last = here["contribution"]
    assert not last.values.any()  # after the last block only the class token is read
    assert np.abs(here["net"].values).max() > 0
