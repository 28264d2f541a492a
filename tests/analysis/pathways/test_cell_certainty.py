"""Certainty of cells: from repeats and prediction, and where they are missing."""

import numpy as np
import pytest
import xarray as xr

from retina_codec.analysis.pathways.prediction import agreement, cell_certainty
from retina_codec.networks.retina.prediction import predict_rates
from retina_codec.statistics.power import count_variability
from tests.small import small_network, small_recording


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
