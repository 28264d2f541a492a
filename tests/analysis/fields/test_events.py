import numpy as np
import pytest
import torch
import xarray as xr

from retina_codec.analysis.fields.events import (
    choose_events,
    combination_labels,
    event_positions,
    event_reader,
)
from retina_codec.errors import RetinaCodecError
from tests.small import HISTORY, small_network, small_recording


def test_labels_name_the_active_modes_by_their_coordinate():
    active = np.array([[True, False, True], [False] * 3, [False, True, False]])
    assert combination_labels(active, [7, 8, 12]) == ["7+12", "", "8"]


def test_events_follow_the_written_rule():
    # Modes: 0 alone 4 times, 1 alone twice, 0+1 three times, all three once, none twice.
    sets = [{0}, {0}, {0, 1}, {0}, set(), {1}, {0, 1}, {0, 1, 2}, {0}, {1}, {0, 1}, set()]
    active = np.array([[mode in chosen for mode in range(3)] for chosen in sets])
    rates = np.array([5.0, 9, 1, 7, 99, 2, 3, 4, 8, 6, 2, 99])[:, None] * [1.0, 0.5]
    time = 0.1 * np.arange(12)
    found = choose_events(active, rates, time, combinations=3, per_combination=2)
    # Mode 0: 1 (9 × 1.5 Hz), then 8; 3 and 0 are slower. Mode 1: 9, then 5. 0+1: 6, then 10.
    assert found.tolist() == [1, 8, 9, 5, 6, 10]


def test_events_of_one_combination_are_at_least_200_ms_apart():
    time = np.arange(400) / 100
    rates = 10 + np.cos(time)[:, None]  # the highest rates stand side by side
    found = choose_events(np.ones((400, 1), bool), rates, time, per_combination=4)
    assert found.tolist() == [0, 20, 40, 60]


def test_other_kind_fills_up_when_there_are_no_single_modes():
    active = np.array([[1, 1, 0], [0, 1, 1], [1, 0, 1], [1, 1, 1]], dtype=bool)
    found = choose_events(active, np.full((4, 1), 5.0), np.arange(4.0), combinations=4)
    assert sorted(found.tolist()) == [0, 1, 2, 3]


def test_silent_times_and_more_than_five_modes_are_left_out():
    active = np.ones((3, 6), dtype=bool)
    active[1:, 0] = False
    rates = np.array([[9.0, 9.0], [0.5, 0.9], [0.1, 1.0]])
    assert choose_events(active, rates, np.arange(3.0)).tolist() == [2]
    assert choose_events(active, rates, np.arange(3.0), minimum_rate=0.6).tolist() == [1, 2]


@pytest.mark.parametrize(
    ("active", "settings", "message"),
    [
        (np.zeros((3, 2), bool), {}, "no time has 1 to 5 active modes"),
        (np.ones((3, 2), bool), {"minimum_rate": 50.0}, "at 50 Hz or more; the highest .* 9 Hz"),
    ],
)
def test_no_usable_time_is_one_clear_error(active, settings, message):
    with pytest.raises(RetinaCodecError, match=message):
        choose_events(active, np.full((3, 1), 9.0), np.arange(3.0), **settings)


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
