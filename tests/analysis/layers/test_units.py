"""Sparsity of single units against loops, closed forms, and any size of batch."""

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

import retina_codec as rc
from retina_codec.analysis.layers.units import map_sparsity, spatial_sparsity

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
