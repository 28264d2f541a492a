"""Order: by hand, against the sorted limit, and every row once."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from retina_codec.analysis.hypotheses.table import order_and_join


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
