"""Prediction quality: plain correlations, streamed predictions, what the card says."""

import numpy as np
import pytest
import torch
import xarray as xr

from retina_codec.analysis.pathways.prediction import (
    agreement,
    cell_certainty,
    network_card,
    prediction_quality,
)
from retina_codec.errors import RetinaCodecError
from retina_codec.networks.retina.prediction import predict_rates
from retina_codec.recordings.quality.repeats import noise_ceiling
from retina_codec.statistics.power import count_variability
from tests.small import CELLS, HISTORY, small_network, small_recording

RECORD = {
    "settings": {"epochs": 3, "seed": 0},
    "train_windows": 100,
    "validation_windows": 10,
    "validation_loss": [0.5, 0.25],
    "best_epoch": 1,
    "centers": "estimated",
    "seconds": 90.0,
    "session": "small",
}


@pytest.fixture(scope="module")
def network():
    return small_network()


@pytest.fixture(scope="module")
def recording(network):
    return small_recording(network, bins=300)


def test_predictions_equal_the_network_on_each_window_alone(network, recording):
    frames = recording["test/stimulus"].values.astype(np.float32)
    mean, std = network.normalisation.mean, network.normalisation.std
    scaled = torch.from_numpy((frames - mean) / std)
    with torch.no_grad():
        expected = [network(scaled[t - HISTORY : t][None])[0].numpy() for t in (8, 50, 299)]
    found = predict_rates(network, recording["test"], batch_size=37)
    np.testing.assert_allclose(found.values[[0, 42, 291]], expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(found["time"], recording["test/time"][HISTORY:])
    assert found["cell"].values.tolist() == list(CELLS)


def test_predicting_leaves_the_network_as_it_was(network, recording):
    network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    predict_rates(network, recording["test"])
    assert network.training
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])
    network.eval()


def test_quality_is_the_plain_correlation(network, recording):
    quality = prediction_quality(network, recording)
    predicted = predict_rates(network, recording["test"]).values
    recorded = recording["test/rate"].values[HISTORY:]
    expected = [np.corrcoef(predicted[:, i], recorded[:, i])[0, 1] for i in range(len(CELLS))]
    np.testing.assert_allclose(quality["pearson"], expected, rtol=1e-5)
    later = recording["test/repeats/rate"].isel(time=slice(HISTORY, None))
    np.testing.assert_allclose(quality["noise_ceiling"], noise_ceiling(later))
    assert "pearson_noise_free" not in quality


def test_cells_in_another_order_are_matched_by_label(network, recording):
    prediction = predict_rates(network, recording["test"])
    turned = agreement(prediction.isel(cell=slice(None, None, -1)), recording["test"])
    straight = agreement(prediction, recording["test"])
    np.testing.assert_allclose(
        turned["pearson"].sel(cell=list(CELLS)), straight["pearson"], rtol=1e-6
    )


def test_a_recording_of_other_cells_is_refused(network, recording):
    other = recording["test"].to_dataset().isel(cell=slice(0, 3))
    with pytest.raises(RetinaCodecError, match="lacks"):
        predict_rates(network, other)


def test_the_card_says_what_was_measured(network, recording):
    network.training_record = RECORD
    quality = prediction_quality(network, recording)
    text = network_card(network, quality, title="Small")
    for value in quality["pearson"].values:
        assert f"{value:.3f}" in text
    share = float((quality["pearson"] / quality["noise_ceiling"]).mean())
    assert f"{100 * share:.1f} %" in text
    assert "epoch 2 were kept" in text
    assert "1.5 minutes" in text
    assert "no test split" in network_card(network, None, title="Small")


def test_types_are_those_of_the_recording(recording):
    untyped = small_network()
    untyped.cell_types = ("unknown",) * len(CELLS)
    part = xr.DataTree(recording["test"].to_dataset(), name="test")  # without repeats
    quality = prediction_quality(untyped, xr.DataTree.from_dict({"/test": part}))
    assert quality["type"].values.tolist() == recording["test/type"].values.tolist()


def test_a_cell_without_signal_has_no_share_of_its_ceiling(network, recording):
    quality = prediction_quality(network, recording)
    share = float((quality["pearson"] / quality["noise_ceiling"])[1:].mean())
    quality["noise_ceiling"][0] = 0.0
    network.training_record = RECORD
    assert f"{100 * share:.1f} %" in network_card(network, quality, title="Small")


def test_cells_that_the_recording_lacks_are_named(network, recording):
    prediction = predict_rates(network, recording["test"])
    prediction = prediction.assign_coords(cell=[*CELLS[:-1], "z"])
    with pytest.raises(RetinaCodecError, match="times and cells"):
        agreement(prediction, recording["test"])


@pytest.fixture(scope="module")
def seen():
    network = small_network()
    recording = small_recording(network, bins=450)
    prediction = predict_rates(network, recording["test"])
    return network, recording, prediction


def tree(prediction):
    return xr.DataTree.from_dict({"responses": xr.Dataset({"prediction": prediction})})


def test_variability_and_quality_are_those_of_the_repeats(seen):
    network, recording, prediction = seen
    factor, quality = cell_certainty(network, tree(prediction), recording["test"], 1.0)
    expected = count_variability(recording["test/repeats/rate"], 1.0, 100.0)
    np.testing.assert_allclose(factor, expected)
    fit = agreement(prediction, recording["test"])
    np.testing.assert_allclose(
        quality, np.minimum(fit["pearson"] / fit["noise_ceiling"], 1.0) ** 2, rtol=1e-6
    )
    assert quality.min() > 0.5  # the spikes are the network's own


def test_a_prediction_that_explains_nothing_counts_for_nothing(seen):
    network, recording, prediction = seen
    worse = prediction.copy(data=prediction.values[::-1])
    _, quality = cell_certainty(network, tree(worse), recording["test"], 1.0)
    _, best = cell_certainty(network, tree(prediction), recording["test"], 1.0)
    assert (quality < 0.2 * best).all()


def test_what_is_not_known_is_one(seen):
    network, recording, prediction = seen
    _, quality = cell_certainty(network, xr.DataTree(), recording["test"], 1.0)
    assert quality.tolist() == [1.0] * 6
    bare = xr.DataTree(recording["test"].to_dataset())
    factor, quality = cell_certainty(network, tree(prediction), bare, 1.0)
    assert factor.tolist() == quality.tolist() == [1.0] * 6
