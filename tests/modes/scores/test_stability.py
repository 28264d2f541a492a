from itertools import permutations

import numpy as np
import pytest

from retina_codec.modes.scores.stability import (
    agreement,
    correlation,
    cosine,
    leading,
    matched,
    shuffled_modes,
)


@pytest.fixture
def generator():
    return np.random.default_rng(0)


def test_the_same_modes_in_another_order_agree_wholly(generator):
    modes, share = generator.random((6, 16)), generator.random(6)
    order = generator.permutation(6)
    found = agreement(cosine(modes, modes[order]), share, share[order])
    np.testing.assert_allclose(found, (1, 1, 0), atol=1e-12)


def test_matching_is_the_best_of_all(generator):
    likeness = generator.random((4, 5))
    best = max(
        sum(likeness[i, p] for i, p in enumerate(chosen)) for chosen in permutations(range(5), 4)
    )
    assert matched(likeness).sum() == pytest.approx(best)
    assert matched(likeness.T).sum() == pytest.approx(best)


def test_modes_without_a_partner_count_as_nothing():
    found = agreement(np.array([[1.0], [1.0]]), np.ones(2), np.ones(1))
    assert found.leading == pytest.approx((0.5 + 1) / 2)
    assert found.whole == 0.5
    assert found.collisions == 0.5  # both of the first, none of the second


def test_collisions_are_seen_where_matching_looks_fine():
    likeness = np.array([[0.9, 0.8, 0.0], [0.9, 0.1, 0.0], [0.0, 0.0, 1.0]])
    found = agreement(likeness, np.ones(3), np.ones(3))
    assert found.collisions == pytest.approx((2 / 3 + 2 / 3) / 2)
    assert found.whole == pytest.approx((0.8 + 0.9 + 1) / 3)


def test_only_leading_modes_count():
    share = np.array([1.0, 60.0, 4.0, 35.0])
    assert leading(share).tolist() == [False, True, False, True]  # 95 of 100
    assert leading(np.array([50.0, 44.0, 6.0])).tolist() == [True, True, True]
    likeness = np.diag([0.0, 1.0, 0.0, 0.5])
    assert agreement(likeness, share, share).leading == pytest.approx(0.75)


def test_likeness_against_numpy(generator):
    one, other = generator.normal(size=(50, 3)), generator.normal(size=(50, 4))
    np.testing.assert_allclose(correlation(one, other), np.corrcoef(one.T, other.T)[:3, 3:])
    one[:, 1] = 2.0
    assert (correlation(one, other)[1] == 0).all()
    assert cosine(np.array([[3.0, 4.0]]), np.array([[1.0, 0.0]])) == pytest.approx(0.6)


def test_shuffled_modes_keep_their_entries(generator):
    modes = generator.random((5, 16))
    dealt = shuffled_modes(modes, np.random.default_rng(1))
    np.testing.assert_array_equal(np.sort(dealt, 1), np.sort(modes, 1))
    assert not np.array_equal(dealt, modes)
