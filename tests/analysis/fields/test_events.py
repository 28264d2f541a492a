import numpy as np
import pytest

from retina_codec.analysis.fields.events import choose_events, combination_labels
from retina_codec.errors import RetinaCodecError


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
        (np.ones((3, 2), bool), {"combinations": 0}, "at least one combination"),
    ],
)
def test_no_usable_time_is_one_clear_error(active, settings, message):
    with pytest.raises(RetinaCodecError, match=message):
        choose_events(active, np.full((3, 1), 9.0), np.arange(3.0), **settings)
