"""Events of modes: by rank written out, runs and back, and what is refused."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from retina_codec.analysis.hypotheses.effects import (
    event_effects,
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


OPTIONS = {
    "per_block": 10,
    "frame_rate": 100.0,
    "resamples": 200,
    "significance": 0.1,
    "seed": 0,
}


@pytest.fixture
def rates():
    """87 bins of 3 cells, whole and under two silencings; three events masks."""
    random = np.random.default_rng(1)
    before = random.gamma(2.0, 3.0, (87, 3))
    after = before + random.normal(1.0, 2.0, (2, 87, 3))
    return before, after, random.random((3, 87)) < 0.4


def test_means_are_those_of_the_bins_in_whole_blocks(rates):
    before, after, masks = rates
    which = np.array([1, 0, 1])
    found = event_effects(before, after, which, masks, **OPTIONS)
    for row, silencing in enumerate(which):
        for cell in range(3):
            bins = [t for t in range(80) if masks[row, t]]
            others = [t for t in range(80) if not masks[row, t]]
            inside = np.mean([after[silencing, t, cell] - before[t, cell] for t in bins])
            outside = np.mean([after[silencing, t, cell] - before[t, cell] for t in others])
            assert found.change[row, cell] == pytest.approx(inside)
            assert found.elsewhere[row, cell] == pytest.approx(outside)
            assert found.contrast[row, cell] == pytest.approx(inside - outside)
            assert found.rate[row, cell] == pytest.approx(before[bins, cell].mean())
            assert found.rate_elsewhere[row, cell] == pytest.approx(before[others, cell].mean())
        assert found.seconds[row] == pytest.approx(len(bins) / 100)
        assert found.seconds_elsewhere[row] == pytest.approx(len(others) / 100)


def test_each_row_alone_gives_the_same(rates):
    before, after, masks = rates
    found = event_effects(before, after, np.array([1, 0, 1]), masks, **OPTIONS)
    alone = event_effects(before, after, np.array([0]), masks[1:2], **OPTIONS)
    np.testing.assert_allclose(alone.contrast_low[0], found.contrast_low[1])
    chosen = found.rows(np.array([2, 1]))
    np.testing.assert_array_equal(chosen.low, found.low[[2, 1]])
    np.testing.assert_array_equal(chosen.seconds, found.seconds[[2, 1]])


def test_intervals_cover_the_truth_as_often_as_they_say():
    random = np.random.default_rng(0)
    inside, covered, errors = 0, 0, []
    mask = (np.arange(600) % 20 < 5)[None]
    for _ in range(150):  # cells are independent experiments; bins of one block are alike
        noise = np.repeat(random.normal(0, 2, (60, 4)), 10, axis=0) + random.normal(0, 1, (600, 4))
        after = (noise + np.where(mask[0], 3.0, 1.0)[:, None])[None]
        found = event_effects(np.zeros((600, 4)), after, np.array([0]), mask, **OPTIONS)
        inside += ((found.low <= 3) & (found.high >= 3)).sum()
        covered += ((found.contrast_low <= 2) & (found.contrast_high >= 2)).sum()
        errors.append(found.contrast_error)
    # percentile intervals of 60 blocks, a quarter of them with events, are a little narrow
    assert inside / 600 == pytest.approx(0.9, abs=0.06)
    assert covered / 600 == pytest.approx(0.9, abs=0.06)
    # half the blocks have events, in 5 of 10 bins: variances of means of 30 and 60 blocks, the
    # 30 with events counting 5 of 45 parts elsewhere
    shared = 4 * 30 * (1 / 30 - (5 / 450)) ** 2 + 4 * 30 * (10 / 450) ** 2
    own = 1 / 150 + 1 / 450
    assert np.mean(errors) == pytest.approx(np.sqrt(shared + own), rel=0.08)


def test_events_in_few_blocks_have_no_interval(rates):
    before, after, masks = rates
    few = np.zeros((1, 87), dtype=bool)
    few[0, [3, 4, 15, 27]] = True  # three blocks
    found = event_effects(before, after, np.array([0]), few, **OPTIONS)
    assert np.isfinite(found.change).all()
    for values in (found.low, found.high, found.error, found.contrast_low, found.contrast_error):
        assert np.isnan(values).all()
    few[0, 44] = True
    assert np.isfinite(event_effects(before, after, np.array([0]), few, **OPTIONS).low).all()
    always = event_effects(before, after, np.array([0]), few | True, **OPTIONS)
    assert np.isfinite(always.low).all()
    assert np.isnan(always.contrast).all()
    assert always.seconds_elsewhere == 0
    assert not masks.all()


@pytest.mark.parametrize("blocks", [1, 3])
def test_a_recording_of_few_blocks_has_no_interval(rates, blocks):
    """Draws from one block are all alike: their interval would have no width."""
    before, after, masks = rates
    bins = blocks * OPTIONS["per_block"]
    found = event_effects(
        before[:bins], after[:, :bins], np.array([0]), masks[:1, :bins] | True, **OPTIONS
    )
    assert np.isfinite(found.change).all()
    assert np.isnan(found.low).all()
    assert np.isnan(found.error).all()
