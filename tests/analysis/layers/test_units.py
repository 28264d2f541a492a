"""Sparsity of single units against loops, closed forms, and any size of batch."""

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

import retina_codec as rc
from retina_codec.analysis.layers.units import map_sparsity, spatial_sparsity, unit_maps
from retina_codec.networks.pictures.small_vit import SmallViT

METHOD = rc.methods.IntegratedGradients(3)


def small_network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(1, 3, 3),
            nn.ReLU(),
            nn.Conv2d(3, 2, 2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32, 3),
        )
    return rc.adapt(net, ["1", "3"])


def pictures(count=7):
    values = np.random.default_rng(1).normal(size=(count, 1, 7, 7)).astype(np.float32)
    return xr.DataArray(values, dims=("sample", "color", "y", "x"))


def slow_hoyer(values):
    values = [abs(float(v)) for v in values]
    root, length = len(values) ** 0.5, sum(v * v for v in values) ** 0.5
    return (root - sum(values) / length) / (root - 1) if length else float("nan")


def test_every_image_layer_and_scope_against_loops():
    network, images = small_network(), pictures()
    found = spatial_sparsity(
        network, images, target=rc.targets.TopK(1), method=METHOD, progress=False
    )
    tree = rc.contribute(
        network,
        images,
        target=rc.targets.TopK(1),
        method=METHOD,
        reduction=rc.reductions.AllUnits(),
        progress=False,
    )
    for layer, places in (("1", 25), ("3", 16)):
        here = found.sel(layer=layer)
        assert int(here["places"]) == places
        units = {q: tree[f"layers/{layer}"][q].values for q in ("contribution", "activation")}
        for sample in range(7):
            maps = []
            for channel in range(units["activation"].shape[1]):
                pair = [slow_hoyer(values[sample, channel].ravel()) for values in units.values()]
                if not np.isnan(pair).any():
                    maps.append(pair)
            seen = here["sparsity_by_input"].isel(sample=sample)
            np.testing.assert_allclose(seen.sel(scope="places"), np.mean(maps, 0), rtol=1e-9)
            whole = [slow_hoyer(values[sample].ravel()) for values in units.values()]
            np.testing.assert_allclose(seen.sel(scope="units"), whole, rtol=1e-9)
        gap = here["sparsity_by_input"].diff("quantity").mean("sample").squeeze("quantity")
        np.testing.assert_allclose(here["difference"], -gap, rtol=1e-9)


def test_batches_and_data_sets_give_the_same():
    network, images = small_network(), pictures()
    options = {"target": rc.targets.TopK(1), "method": METHOD, "progress": False}
    before = images.copy(deep=True)
    whole = spatial_sparsity(network, images, **options)
    some = spatial_sparsity(network, images, batch_size=3, **options)
    pairs = [(torch.from_numpy(one), 0) for one in images.values]  # as a labelled data set gives
    listed = spatial_sparsity(network, pairs, batch_size=2, **options)
    for other in (some, listed):
        np.testing.assert_allclose(
            other["sparsity_by_input"], whole["sparsity_by_input"], rtol=1e-4, atol=1e-5
        )
    assert images.identical(before)


def test_one_place_of_many_is_as_sparse_as_it_gets_and_silent_maps_take_no_part():
    one, other = np.zeros((3, 2, 4)), np.ones((3, 2, 4))
    one[0, 0, 2] = -5.0
    one[1] = 2.0
    found, flat = map_sparsity(one, other)
    np.testing.assert_allclose(found[:2], [1, 0], atol=1e-12)
    np.testing.assert_allclose(flat[:2], 0, atol=1e-12)
    assert np.isnan(found[2])


def test_a_layer_without_places_and_one_image_are_refused():
    net = nn.Sequential(nn.Flatten(), nn.Linear(49, 4), nn.ReLU(), nn.Linear(4, 3))
    network = rc.adapt(net, ["2"])
    options = {"target": rc.targets.TopK(1), "method": METHOD, "progress": False}
    with pytest.raises(rc.RetinaCodecError, match="more than one place"):
        spatial_sparsity(network, pictures(), **options)
    with pytest.raises(rc.RetinaCodecError, match="at least two images"):
        spatial_sparsity(small_network(), pictures(1), **options)


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
        convolutional, picture, target=rc.targets.TopK(1), method=METHOD,
        reduction=rc.reductions.AllUnits(),
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
        network, picture, target=rc.targets.Probability(), method=METHOD,
        reduction=rc.reductions.AllUnits(),
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
