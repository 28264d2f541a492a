import numpy as np
import pytest
import torch
import xarray as xr

from retina_codec.analysis.fields.events import event_positions, event_reader
from retina_codec.errors import RetinaCodecError
from tests.small import HISTORY, small_network, small_recording


def test_a_time_within_half_a_bin_is_found_and_others_are_refused():
    times = np.array([0.1, 0.2, 0.3, 0.4])
    found = event_positions(np.array([0.4, 0.1, 0.249, 0.251]), times, "the results")
    assert found.tolist() == [3, 0, 1, 2]
    for wanted in (0.04, 0.46, np.nan):
        with pytest.raises(RetinaCodecError, match=r"response times of the results \(0.100 to"):
            event_positions(np.array([wanted]), times, "the results")
    with pytest.raises(RetinaCodecError, match="at least one event"):
        event_positions(np.array([]), times, "the results")


def test_movies_and_ready_windows_are_read_alike_also_for_a_part_of_the_times():
    network = small_network()
    split = small_recording(network, bins=60)["test"]
    scale = network.normalisation
    frames = (split["stimulus"].values.astype("f4") - scale.mean) / scale.std
    windows = np.stack([frames[i : i + HISTORY] for i in range(60 - HISTORY)])
    times = split["time"].values[HISTORY:][10:]  # results of a part of the movie
    read, lag = event_reader(network, split, times, torch.float32)
    places = np.array([5, 0, 41])
    np.testing.assert_allclose(read(places), windows[places + 10], rtol=1e-6)
    np.testing.assert_allclose(lag, np.arange(HISTORY, 0, -1) / 100)
    ready = xr.DataArray(windows[10:], dims=("time", "lag", "y", "x"))
    again, lag_again = event_reader(network, ready, times, torch.float32)
    np.testing.assert_allclose(again(places), read(places), rtol=1e-6)
    np.testing.assert_allclose(lag_again, lag)
