"""Claims: each rule alone, information and detectability written out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retina_codec.analysis.hypotheses.claims import (
    claim_cells,
    detectabilities,
    information_of_cells,
    order_and_join,
)
from retina_codec.analysis.hypotheses.effects import EventEffects


def effects(change, elsewhere, rate, width=0.1, seconds=2.0):
    """One row; every interval is value ± width."""
    change, elsewhere, rate = (np.array([v], dtype=float) for v in (change, elsewhere, rate))
    contrast = change - elsewhere
    return EventEffects(
        rate=rate,
        change=change,
        low=change - width,
        high=change + width,
        error=np.full_like(change, width / 2),
        rate_elsewhere=rate / 2,
        elsewhere=elsewhere,
        contrast=contrast,
        contrast_low=contrast - width,
        contrast_high=contrast + width,
        contrast_error=np.full_like(change, width / 2),
        seconds=np.array([seconds]),
        seconds_elsewhere=np.array([8.0]),
    )


#          plain  small  sure?  rate²  same   more elsewhere
CHANGE = [-2.0, -0.9, 0.05, 1.5, -2.0, 1.5]
ELSEWHERE = [-0.5, 0.0, 0.0, 0.0, -1.5, -3.0]
RATE = [10.0, 10.0, 0.1, 10.0, 10.0, 10.0]
MEAN = np.array([5.0, 5.0, 0.1, 20.0, 5.0, 5.0])


def test_a_cell_is_claimed_by_each_rule():
    found = claim_cells(effects(CHANGE, ELSEWHERE, RATE), MEAN, np.ones(1), 0.1)
    assert found.affected[0].tolist() == [True, False, False, False, True, True]
    assert found.undecided[0].tolist() == [False, False, True, False, False, False]
    assert found.timed[0].tolist() == [True, False, False, False, False, False]
    assert found.match_error.tolist() == [0.0]
    assert found.rows(np.array([0, 0])).timed.shape == (2, 6)


def test_what_the_channels_do_not_share_with_the_neuron_leaves_cells_undecided():
    r = np.sqrt(np.array([0.2]))  # m = 0.8 · 2 Hz = 1.6 Hz
    found = claim_cells(effects(CHANGE, ELSEWHERE, RATE), MEAN, r, 0.1)
    assert found.match_error == pytest.approx(1.6)
    assert found.affected[0].tolist() == [True, False, False, False, True, False]
    assert found.undecided[0].tolist() == [False, False, True, False, False, True]


def test_an_unknown_interval_affects_no_cell():
    found = claim_cells(effects(CHANGE, ELSEWHERE, RATE, width=np.nan), MEAN, np.ones(1), 0.1)
    assert not found.affected.any()
    assert found.undecided[0].tolist() == [True, False, True, False, True, True]


def test_information_is_that_of_a_gaussian_channel():
    row, factor = effects(CHANGE, ELSEWHERE, RATE), np.array([1.0, 1, 1, 1, 1, 2])
    claimed = claim_cells(row, MEAN, np.full(1, np.sqrt(0.9)), 0.1)
    found = information_of_cells(row, claimed, factor, active=True)[0]
    # cell 0: λ 10 → 8 Hz in 2 s of events, 5 → 4.5 Hz in 8 s elsewhere; s 0.05, m 0.2 Hz
    noise = (10 + 8) / 2 + (5 + 4.5) / 8
    assert found[0] == pytest.approx(0.5 * np.log(1 + 1.5**2 / (0.05**2 + 0.2**2 + noise)))
    assert (found[1:] == 0).all()
    always = information_of_cells(row, claimed, factor, active=False)[0]
    noise = 2 * (10 + 11.5) / 2  # cell 5, F = 2
    assert always[5] == pytest.approx(0.5 * np.log(1 + 1.5**2 / (0.05**2 + 0.2**2 + noise)))


def test_without_a_standard_error_information_is_not_known_and_comes_last():
    row = effects([1.0, 0.5], [0.0, 0.0], [10.0, 10.0])
    claimed = claim_cells(row, np.full(2, 10.0), np.ones(1), 0.01)
    row.error[:] = np.nan
    assert np.isnan(information_of_cells(row, claimed, np.ones(2), active=False)).all()
    apart = masks({0}, {1}, {2})
    assert order_and_join(np.array([np.nan, 0.0, 2.0]), "abc", apart) == [[2], [1], [0]]


def test_detectability_adds_the_affected_cells():
    row, factor = effects(CHANGE, ELSEWHERE, RATE), np.ones(6)
    affected = np.array([[True, False, False, False, True, False]])
    of_cell, inside, outside = detectabilities(row, affected, factor)
    assert of_cell[0, 0] == pytest.approx(2**2 * 2 / (10 + 8))  # 2 s
    assert inside[0] == pytest.approx(2 * 2**2 / (10 + 8))  # cells 0 and 4, in 1 s
    assert outside[0] == pytest.approx(0.5**2 / (5 + 4.5) + 1.5**2 / (5 + 3.5))
    every = detectabilities(row, affected & False, factor)
    assert every[1] == pytest.approx(every[0].sum(axis=1) / 2)


def masks(*events):
    return np.array([[t in times for t in range(8)] for times in events])


def test_a_further_row_about_the_same_neuron_counts_less():
    apart = masks({0}, {1}, {2}, {3})
    assert order_and_join(np.array([9.0, 8.0, 5.0, 3.0]), "aabb", apart) == [[0], [2], [1], [3]]
    # 8 / 2 = 4 against 5; then 4 against 3 / 2
    assert order_and_join(np.array([9.0, 8.0, 3.0, 2.9]), "aabb", apart) == [[0], [1], [2], [3]]


def test_the_same_neuron_in_the_same_events_is_one_row():
    times = masks({0, 1, 2}, {1, 2}, {1, 2}, {5})
    information = np.array([1.0, 4.0, 3.0, 2.0])
    assert order_and_join(information, "aaba", times) == [[1, 0], [2], [3]]
    assert order_and_join(information, "aaba", times, alike=0.7) == [[1], [2], [3], [0]]


@given(
    st.lists(st.tuples(st.floats(0, 10), st.integers(0, 3)), min_size=1, max_size=12),
    st.randoms(use_true_random=False),
)
def test_every_row_comes_once_and_joins_its_like(rows, random):
    information, experiment = np.array([i for i, _ in rows]), [e for _, e in rows]
    events = np.array([[random.random() < 0.5 for _ in range(10)] for _ in rows])
    found = order_and_join(information, experiment, events)
    assert sorted(row for group in found for row in group) == list(range(len(rows)))
    for group in found:
        assert len({experiment[row] for row in group}) == 1
    different = order_and_join(information, range(len(rows)), events)
    assert [group[0] for group in different] == np.argsort(-information, kind="stable").tolist()
