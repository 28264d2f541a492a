"""Own contributions: the steps by hand on a small network, and cells told by what drives them."""

import numpy as np
import pytest
import xarray as xr
from scipy.optimize import nnls

from retina_codec.analysis.pathways.own import choose_windows, own_contributions
from retina_codec.contributions.contribute import contribute
from retina_codec.errors import RetinaCodecError
from retina_codec.methods.integrated_gradients import IntegratedGradients
from retina_codec.modes.decompose import decompose
from retina_codec.modes.decompositions.sparse_autoencoder import SparseAutoencoder
from retina_codec.targets.base import Unit
from retina_codec.targets.surprisal import Surprisal
from tests.small import small_network, small_recording


@pytest.fixture(scope="module")
def made():
    network = small_network()
    split = small_recording(network, bins=300)["test"]
    method = IntegratedGradients(steps=3)
    explained = contribute(
        network, split, target=Surprisal(), method=method, layers=["conv2"], progress=False
    )
    return network, split, decompose(explained, SparseAutoencoder(modes=5), progress=False)


def test_equals_the_projection_of_contributions_to_each_rate(made):
    network, split, tree = made
    found = own_contributions(network, split, tree, windows=25, steps=6, progress=False)
    own = found["layers/conv2/own"].to_dataset(inherit=False)
    modes = tree["layers/conv2/modes/dictionary"].values.astype(float)
    modes = modes.reshape(len(modes), -1)
    for cell in (0, 4):
        whole = contribute(
            network,
            split,
            target=Unit(network.cells[cell]),
            method=IntegratedGradients(steps=6, quadrature="chords"),
            layers=["conv2"],
            progress=False,
        )["layers/conv2/contribution"]
        values = whole.sel(time=own["window_time"].values).values.astype(float)
        values = values.reshape(len(values), -1)
        loading = np.array([nnls(modes.T, one)[0] for one in values])
        scale = np.abs(loading).max()
        np.testing.assert_allclose(own["own_loading"][cell], loading, atol=2e-3 * scale)
        share = loading.sum(0) / loading.sum()
        np.testing.assert_allclose(own["share"][cell], share, atol=2e-3)
        left = ((values - loading @ modes) ** 2).sum() / ((values - values.mean(0)) ** 2).sum()
        assert float(own["r2"][cell]) == pytest.approx(1 - left, abs=2e-3)
    np.testing.assert_allclose(own["share"].sum("mode"), 1)
    assert "own" not in tree["layers/conv2"].children


def test_windows_stand_for_equal_activity():
    random = np.random.default_rng(0)
    rate = random.pareto(2.5, (4000, 3)) + 0.01
    picked = choose_windows(rate, 200, seed=1)
    activity = (rate / rate.mean(0)).mean(1)
    # one of each stratum of equal activity: 1 / activity is then an unbiased weight of a time
    filled = np.cumsum(np.sort(activity)) / activity.sum()
    rank = np.argsort(np.argsort(activity, kind="stable"))[picked]
    strata = np.minimum(filled[rank] * 200, 199.999).astype(int)
    assert len(np.unique(strata)) > 180
    assert (np.diff(picked) > 0).all()
    assert activity[picked].mean() > 1.3
    assert (choose_windows(rate, 200, seed=2) != picked[:1]).any()
    np.testing.assert_array_equal(choose_windows(rate[:9], 20), np.arange(9))


def test_refusals(made):
    network, split, tree = made
    with pytest.raises(RetinaCodecError, match="Pass the same split"):
        own_contributions(network, split.to_dataset().isel(time=slice(0, 200)), tree)
    with pytest.raises(RetinaCodecError, match="windows must be at least 1"):
        own_contributions(network, split, tree, windows=0)
    with pytest.raises(RetinaCodecError, match=r"run decompose\(\)"):
        own_contributions(network, split, xr.DataTree())
