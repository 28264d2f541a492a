"""The share that contributions miss, against sums by hand and the errors of single images."""

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

import retina_codec as rc
from retina_codec.analysis.layers.agreement import completeness_share


def tree_of(error, change, completeness="holds: so it does"):
    data = {"completeness_error": ("sample", error), "target_change": ("sample", change)}
    layer = xr.Dataset(data, attrs={"completeness": completeness})
    return xr.DataTree.from_dict({"/layers/a": layer})


def test_share_is_the_ratio_of_sums():
    found = completeness_share(tree_of([1.0, -2.0, 0.0], [10.0, 5.0, -15.0]))
    assert float(found["share"][0]) == pytest.approx(0.1)
    low, high = found["share_interval"].values[0]
    assert low == 0  # the third image alone is drawn now and then
    assert 0.1 < high <= 0.4
    same = completeness_share(tree_of([1.0, 2.0, 3.0], [10.0, 20.0, -30.0]))
    np.testing.assert_allclose(same["share_interval"], [[0.1, 0.1]])


def test_draws_are_those_of_images():
    random = np.random.default_rng(1)
    error, change = random.normal(size=(2, 25))
    found = completeness_share(tree_of(error, change), bootstraps=400, seed=5)
    draws = np.random.default_rng(2)
    some = [draws.integers(25, size=25) for _ in range(4000)]
    slow = [np.abs(error[k]).sum() / np.abs(change[k]).sum() for k in some]
    np.testing.assert_allclose(
        found["share_interval"][0], np.quantile(slow, [0.025, 0.975]), rtol=0.1
    )


def test_more_steps_miss_less_and_what_cannot_be_complete_has_no_share():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
        images = torch.randn(12, 6)
    shared = {"target": rc.targets.TopK(1), "layers": ["0"], "progress": False}
    shares = []
    for steps in (2, 4, 8):
        tree = rc.contribute(net, images, method=rc.methods.IntegratedGradients(steps), **shared)
        found = completeness_share(tree)
        error = np.abs(tree["layers/0"]["completeness_error"]).mean()
        change = np.abs(tree["layers/0"]["target_change"]).mean()
        assert float(found["share"][0]) == pytest.approx(float(error / change), rel=1e-5)
        shares.append(float(found["share"][0]))
    assert shares[0] > 3 * shares[1] > 9 * shares[2]  # of second order
    plain = rc.contribute(net, images, method=rc.methods.ActGrad(), **shared)
    assert np.isnan(completeness_share(plain)["share"]).all()
    beside = tree_of([1.0, 2.0], [3.0, 4.0], "cannot hold: some path does not cross this layer")
    assert np.isnan(completeness_share(beside)["share_interval"]).all()
