"""Events of modes: by rank written out, runs and back, and what is refused."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from retina_codec.analysis.hypotheses.effects import (
    event_mask,
    event_runs,
    events_of,
    in_events,
    overlap,
    pad_runs,
)
from retina_codec.errors import RetinaCodecError


def test_events_are_the_largest_positive_loadings():
    z = np.array([0.0, 3.0, 1.0, 2.0, -5.0, 2.0, 0.5, 0.0, 0.0, 0.0])
    assert np.flatnonzero(event_mask(z, 0.2)).tolist() == [1, 3]  # of equal ones the first
    assert np.flatnonzero(event_mask(z, 0.3)).tolist() == [1, 3, 5]
    assert np.flatnonzero(event_mask(z, 0.9)).tolist() == [1, 2, 3, 5, 6]  # only positive ones
    assert np.flatnonzero(event_mask(z, 0.01)).tolist() == [1]
    assert not event_mask(np.zeros(5), 0.5).any()


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=60), st.floats(0.01, 0.99))
def test_every_event_exceeds_every_other_time(values, share):
    z = np.array(values)
    found = event_mask(z, share)
    assert found.sum() <= max(1, round(share * len(z)))
    if found.any():
        assert z[found].min() >= np.max(z[~found], initial=-np.inf)
        assert z[found].min() > 0
    np.testing.assert_array_equal(found, event_mask(7 * z, share))  # no unit


@given(st.lists(st.booleans(), min_size=1, max_size=80))
def test_runs_hold_exactly_the_bins_of_the_mask(values):
    mask = np.array(values)
    time = 3.0 + np.arange(len(mask)) / 100
    start, stop = event_runs(mask, time, 0.01)
    assert np.round((stop - start) * 100).sum() == mask.sum()
    assert (start[1:] > stop[:-1] + 0.005).all()  # runs are apart
    padded = pad_runs([(start, stop), (time[:0], time[:0])])
    np.testing.assert_array_equal(in_events(padded[0][0], padded[1][0], time), mask)
    assert not in_events(padded[0][1], padded[1][1], time).any()


def test_overlap_is_the_share_of_all_times():
    one, other = np.array([1, 1, 0, 0], dtype=bool), np.array([0, 1, 1, 0], dtype=bool)
    assert overlap(one, other) == pytest.approx(1 / 3)
    assert overlap(one, one) == 1
    assert overlap(one, ~one) == 0
    assert overlap(one & ~one, other & ~other) == 1


def test_events_lie_on_the_clock_of_the_split():
    time = np.arange(40) / 100
    loading = xr.DataArray(np.sin(np.arange(40.0)), {"time": time + 0.002})
    found = events_of([loading, -loading], time, 0.01, 0.25)
    np.testing.assert_array_equal(found[0], event_mask(loading.values, 0.25))
    np.testing.assert_array_equal(found[1], event_mask(-loading.values, 0.25))
    for wrong in (loading[:30], loading.assign_coords(time=time + 0.004), None):
        with pytest.raises(RetinaCodecError, match="when='always'"):
            events_of([wrong], time, 0.01, 0.25)


@pytest.mark.parametrize(("z", "share"), [([1.0], 0.0), ([1.0], 1.0), ([np.nan, 1.0], 0.5)])
def test_impossible_events_are_refused(z, share):
    with pytest.raises(RetinaCodecError, match="share in"):
        event_mask(z, share)
