"""The whole road: the same numbers as the steps by hand, and a record of what was done."""

import copy

import numpy as np
import pytest
import torch
import xarray as xr

from retina_codec.analysis.own_contributions import own_contributions
from retina_codec.analysis.pathways import find_pathways
from retina_codec.analysis.pipeline import analyze
from retina_codec.contributions import IntegratedGradients, Surprisal, contribute
from retina_codec.errors import RetinaCodecError
from retina_codec.modes import SparseAutoencoder, decompose
from retina_codec.networks.maheswaranathan import RetinaCNN
from retina_codec.storage import open_tree, save_tree
from tests.small import CELLS, HISTORY, small_network, small_recording

WINDOWS = 60
SETTINGS = {
    "steps": 4,
    "modes": 6,
    "active": 2,
    "clusters": range(2, 4),
    "own_windows": WINDOWS,
    "progress": False,
}


@pytest.fixture(scope="module")
def network():
    return small_network()


@pytest.fixture(scope="module")
def recording(network):
    return small_recording(network, bins=500)


@pytest.fixture(scope="module")
def results(recording, network):
    return analyze(recording, network, seed=3, provenance={"command": "by hand"}, **SETTINGS)


def test_equals_the_steps_by_hand(results, recording, network):
    explained = contribute(
        network,
        recording["test"],
        target=Surprisal(),
        method=IntegratedGradients(steps=4),
        progress=False,
    )
    found = decompose(explained, SparseAutoencoder(modes=6, active=2, seed=3), progress=False)
    found = own_contributions(
        network, recording["test"], found, windows=WINDOWS, seed=3, progress=False
    )
    found = find_pathways(found, clusters=range(2, 4), seed=3, progress=False)
    for layer in network.layers:
        for node in ("", "/modes", "/pathways"):
            xr.testing.assert_equal(
                results[f"layers/{layer}{node}"].to_dataset(inherit=False),
                found[f"layers/{layer}{node}"].to_dataset(inherit=False),
            )


def test_agreement_is_the_plain_correlation(results, recording):
    responses = results["responses"]
    recorded = recording["test/rate"].values[HISTORY:]
    predicted = responses["prediction"].values
    expected = [np.corrcoef(recorded[:, i], predicted[:, i])[0, 1] for i in range(len(CELLS))]
    np.testing.assert_allclose(responses["pearson"].values, expected, rtol=1e-4)
    # The network made the spikes: it predicts as well as the repeats allow, up to chance.
    ceiling = responses["noise_ceiling"].values
    assert np.all(ceiling > 0.5)
    np.testing.assert_allclose(responses["pearson"].values, ceiling, atol=0.08)


def test_result_says_what_was_done(results, recording, network):
    assert results.attrs["split"] == "test"
    assert results.attrs["session"] == "small"
    assert results.attrs["seed"] == 3
    assert results.attrs["command"] == "by hand"
    assert results.attrs["method"] == "IntegratedGradients"
    assert results.attrs["steps"] == 4
    changed = copy.deepcopy(network)
    with torch.no_grad():
        changed.conv2.bias[0] += 1e-3
    other = analyze(recording, changed, layers=["conv3"], **SETTINGS)
    assert results.attrs["network_sha256"] != other.attrs["network_sha256"]
    assert list(other["layers"].children) == ["conv3"]


def test_same_seed_same_result_and_inputs_untouched(results, recording, network):
    state = copy.deepcopy(network.state_dict())
    before = recording.copy(deep=True)
    again = analyze(recording, network, seed=3, provenance={"command": "by hand"}, **SETTINGS)
    xr.testing.assert_identical(again, results)
    xr.testing.assert_identical(recording, before)
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in state.items())


def test_seed_reaches_the_decomposition(results, recording, network):
    other = analyze(recording, network, seed=4, layers=["conv1"], **SETTINGS)
    a = results["layers/conv1/modes/dictionary"].values
    b = other["layers/conv1/modes/dictionary"].values
    assert a.shape != b.shape or not np.allclose(a, b)


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_saving_and_loading_changes_nothing(results, tmp_path, suffix):
    path = tmp_path / f"results{suffix}"
    save_tree(results, path)
    opened = open_tree(path, lazy=False)
    xr.testing.assert_identical(opened, results)


def test_receptive_fields_come_from_the_explained_split(results):
    fields = results["receptive_fields"]
    times = results["responses/time"].values
    assert np.isin(fields["time"].values, times).all()
    assert list(fields["cell"].values) == list(CELLS)


def test_fitted_and_held_out_share_no_frame(recording):
    network = RetinaCNN.from_config(small_network().config() | {"history": 60})
    with torch.no_grad():
        network.norm3.scale.fill_(40.0)
    results = analyze(recording, network, layers=["conv1"], shrinkage="ledoit-wolf", **SETTINGS)
    modes = results["layers/conv1/modes"]
    last = modes["time"].values[modes["split"].values == "fit"].max()
    first = modes["time"].values[modes["split"].values == "held_out"].min()
    assert first - last > (network.history - 0.5) / network.frame_rate


def test_too_few_cells_for_pathways_are_refused_before_the_long_work(recording, network):
    with pytest.raises(RetinaCodecError, match=r"got \[6, 7\] for 6 cells") as caught:
        analyze(recording, network, **(SETTINGS | {"clusters": range(6, 8), "steps": 0}))
    assert "steps" not in str(caught.value)


def test_unknown_split_names_the_splits(recording, network):
    with pytest.raises(RetinaCodecError, match=r"split='train'.*\['test'\]"):
        analyze(recording, network, split="train")
