"""Spike times in bins: the edges of bins, and bins that were not observed."""

import numpy as np

from retina_codec.recordings.binning import bin_spikes

NAN = np.nan


def test_a_spike_on_an_edge_belongs_to_the_bin_that_starts_there():
    times = np.arange(1000) * 0.01
    on_edges = np.array([round(0.01 * k, 2) for k in range(1000)])
    assert (on_edges < times).any()  # 0.29 < 29 · 0.01: naive comparison would misplace it
    found = bin_spikes(
        [on_edges, np.array([-0.5, 9.9999, 10.0, 11.0])], None, np.append(times, 10.0)
    )
    np.testing.assert_array_equal(found[:, 0], 1)
    assert np.flatnonzero(found[:, 1]).tolist() == [999]  # the end is not part of the session


def test_bins_outside_the_observation_are_missing():
    edges = np.arange(11) * 0.1
    observed = [np.array([[0.5, 0.7], [0.0, 0.3]]), np.zeros((0, 2))]
    found = bin_spikes([np.array([0.05, 0.62]), np.array([])], observed, edges)
    np.testing.assert_array_equal(found[:, 0], [1, 0, 0, NAN, NAN, 0, 1, NAN, NAN, NAN])
    assert np.isnan(found[:, 1]).all()
