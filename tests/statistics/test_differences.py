"""Paired contrasts against scipy and by hand."""

import numpy as np
import pytest
from scipy import stats

import retina_codec as rc
from retina_codec.statistics.differences import contrast, depth_weights, thirds


def test_a_difference_is_that_of_a_paired_t_test():
    values = np.random.default_rng(0).normal(size=(12, 3))
    found = contrast(values, [1, 0, -1])
    other = stats.ttest_rel(values[:, 0], values[:, 2])
    ends = other.confidence_interval(0.95)
    np.testing.assert_allclose(found.interval, (ends.low, ends.high), rtol=1e-12)
    assert found.found == pytest.approx((values[:, 0] - values[:, 2]).mean())
    assert found.units == 12


def test_what_units_have_in_common_cancels():
    random = np.random.default_rng(1)
    values = random.normal(size=(8, 2))
    shifted = values + 100 * random.normal(size=(8, 1))
    np.testing.assert_allclose(
        contrast(values, [1, -1])[:2][1], contrast(shifted, [1, -1])[:2][1], atol=1e-10
    )


def test_the_interval_covers_the_truth_in_95_of_100():
    values = np.random.default_rng(2).normal(0.3, 1, size=(2000, 10, 1))
    ends = np.array([contrast(one, [1]).interval for one in values])
    covered = ((ends[:, 0] < 0.3) & (ends[:, 1] > 0.3)).mean()
    assert 0.935 < covered < 0.965  # three standard errors of 2000 draws


def test_a_unit_without_a_value_takes_no_part_only_where_it_counts():
    values = np.array([[1.0, 2.0, np.nan], [2.0, 4.0, 1.0], [3.0, np.nan, 0.0], [0.0, 3.0, 0.0]])
    found = contrast(values, [-1, 1, 0])
    assert (found.found, found.units) == (2.0, 3)
    assert np.isnan(contrast(values[:1], [1, 0, 0]).interval).all()


@pytest.mark.parametrize(("places", "sizes"), [(3, (1, 1, 1)), (6, (2, 2, 2)), (8, (2, 4, 2))])
def test_thirds_cover_all_layers_once(places, sizes):
    parts = thirds(places)
    assert tuple(part.stop - part.start for part in parts) == sizes
    assert np.concatenate([np.arange(places)[part] for part in parts]).tolist() == [*range(places)]


def test_depth_weights_give_the_difference_of_means():
    v = np.array([5.0, 3.0, 0.0, 1.0, 4.0, 8.0])
    assert depth_weights(6, "late", "early") @ v == pytest.approx(6 - 4)
    assert depth_weights(6, "early", "middle") @ v == pytest.approx(4 - 0.5)
    assert depth_weights(6, "late", "middle").sum() == pytest.approx(0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: contrast(np.zeros((3, 2)), [1]),
        lambda: contrast(np.zeros((3, 2)), [0, 0]),
        lambda: contrast(np.zeros(3), [1]),
        lambda: thirds(2),
        lambda: depth_weights(6, "late", "first"),
    ],
)
def test_what_does_not_fit_is_refused(make):
    with pytest.raises(rc.RetinaCodecError):
        make()
