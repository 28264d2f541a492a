import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retina_codec.errors import RetinaCodecError
from retina_codec.recordings.nwb.clock import (
    clock_from_intervals,
    clock_from_rate,
    clock_from_times,
)


def test_a_stated_rate_is_taken_as_it_is():
    clock = clock_from_rate(5, 1.5, 59.94, "here")
    np.testing.assert_array_equal(clock.onsets, 1.5 + np.arange(5) / 59.94)
    assert (clock.rate, clock.stop) == (59.94, pytest.approx(1.5 + 5 / 59.94))
    assert clock.report["offset"] == 1.5


@pytest.mark.parametrize(("rate", "digits"), [(60.0, 3), (59.94, 4), (100.0, 3), (15.0, 2)])
def test_rounded_timestamps_give_the_true_rate(rate, digits):
    """The median of the steps would say 58.8 Hz for 60 Hz in whole milliseconds."""
    times = np.round(np.arange(6000) / rate, digits)
    clock = clock_from_times(times, 6000, "here")
    assert clock.rate == pytest.approx(rate, rel=1e-7)
    assert clock.report["dropped_frames"] == clock.report["duplicated_frames"] == 0
    assert clock.report["jitter"] == pytest.approx((times - np.arange(6000) / rate).std(), abs=1e-6)


def noisy(count=8000, rate=59.94, start=-3.0, jitter=2e-4):
    random = np.random.default_rng(0)
    return start + np.arange(count) / rate + random.normal(0, jitter, count)


def test_drift_and_jitter_are_measured():
    clock = clock_from_times(noisy(), 8000, "here", nominal=60.0)
    slope = np.polyfit(np.arange(8000), noisy(), 1)[0]
    assert clock.rate == pytest.approx(1 / slope, rel=2e-7)
    assert clock.report["drift"] == pytest.approx(-1000.0, abs=0.5)  # 59.94 is 1000 ppm below 60
    assert clock.report["jitter"] == pytest.approx(2e-4, rel=0.03)
    assert clock.report["offset"] == noisy()[0]
    assert np.isnan(clock_from_times(noisy(), 8000, "here").report["drift"])


def defective():
    """Dropped frames 100, 101 and 500; frame 2000 shown twice within half a millisecond."""
    times = noisy()
    keep = np.ones(8000, dtype=bool)
    keep[[100, 101, 500]] = False
    kept = times[keep]
    return times, np.insert(kept, 1997, kept[1997] - 5e-4), keep


def test_dropped_and_duplicated_frames_are_counted_and_mended_only_on_demand():
    times, found, keep = defective()
    clock = clock_from_times(found, found.size, "here")
    assert (clock.report["dropped_frames"], clock.report["duplicated_frames"]) == (3, 1)
    assert clock.index is None
    np.testing.assert_array_equal(clock.onsets, found)
    mended = clock_from_times(found, found.size, "here", repair=True)
    assert mended.onsets.size == 8000
    assert np.abs(mended.onsets - times).max() < 1e-3
    # each bin shows the last frame that had come on
    expected = np.searchsorted(found, times + 2e-4, side="right") - 1
    np.testing.assert_array_equal(mended.index[keep], expected[keep])
    np.testing.assert_array_equal(mended.index[[99, 100, 101, 102]], [99, 99, 99, 100])


def test_pauses_are_no_dropped_frames():
    times = np.concatenate([np.arange(100) / 50, 10.003 + np.arange(80) / 50])
    clock = clock_from_times(times, 180, "here", repair=True)
    assert (clock.rate, clock.report["pauses"], clock.report["dropped_frames"]) == (50.0, 1, 0)
    np.testing.assert_allclose(clock.onsets, times)
    assert clock.report["largest_jitter"] < 1e-9  # each part has a line of its own


@given(
    st.integers(2, 400),
    st.floats(0.5, 500),
    st.floats(-1e4, 1e4),
    st.lists(st.integers(1, 398), max_size=5),
)
@settings(max_examples=60, deadline=None)
def test_any_regular_clock_comes_back(count, rate, start, dropped):
    times = start + np.arange(count) / rate
    keep = np.ones(count, dtype=bool)
    keep[[number for number in dropped if number < count - 1]] = False
    if keep.sum() < 2 or (np.diff(np.flatnonzero(keep)) > 5).any():
        return
    if np.median(np.diff(np.flatnonzero(keep))) > 1:
        return
    mended = clock_from_times(times[keep], int(keep.sum()), "here", repair=True)
    np.testing.assert_allclose(mended.onsets, times, atol=1e-6 / rate + 1e-9)
    assert mended.report["dropped_frames"] == count - keep.sum()
    assert mended.rate == pytest.approx(rate, rel=1e-6)


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ([0, 1, 2], r"one timestamp per frame; it has 3 for 4 frames\. Nothing is cut"),
        ([0, 1, np.nan, 3], "finite, increasing, at least two; 1 are NaN or infinite"),
        ([0, 2, 1, 3], "number 2 is before number 1"),
        ([1, 1, 1, 1], "must increase; all are 1.0"),
    ],
)
def test_times_that_cannot_be(times, message):
    with pytest.raises(RetinaCodecError, match=f"here.*{message}"):
        clock_from_times(times, 4, "here")


@pytest.mark.parametrize("rate", [0.0, -1.0, np.nan, np.inf])
def test_rates_that_cannot_be(rate):
    with pytest.raises(RetinaCodecError, match="stimulus rate must be positive"):
        clock_from_rate(4, 0.0, rate, "here")


def test_every_bin_shows_what_was_on_at_its_middle():
    random = np.random.default_rng(3)
    edges = np.cumsum(random.uniform(0.05, 0.4, 40)) + 7
    starts, stops = edges[::2], edges[1::2]
    clock = clock_from_intervals(starts, stops, "here", rate=100.0)
    for onset, number in zip(clock.onsets, clock.index, strict=True):
        on = [n for n in range(20) if starts[n] <= onset + 0.005 < stops[n]]
        assert number == (on[0] if on else -1)
    assert clock.stop == pytest.approx(stops[-1], abs=0.005)


def test_equal_pictures_are_their_own_bins():
    starts = 3 + np.arange(10) * 0.25
    clock = clock_from_intervals(starts, starts + 0.25, "here")
    assert (clock.rate, clock.index) == (4.0, None)
    np.testing.assert_array_equal(clock.onsets, starts)
    with pytest.raises(
        RetinaCodecError, match=r"0\.1 to 0\.1 s, perhaps with blanks.*frame_rate=HZ"
    ):
        clock_from_intervals(starts, starts + 0.1, "here")


@pytest.mark.parametrize(
    ("starts", "stops", "message"),
    [
        ([0, 1, 1], [1, 2, 3], "finite, increasing start times"),
        ([0, 1], [1, np.nan], "picture 1 starts at 1 s and ends at nan s"),
        ([0, 1], [1, 0.5], "must end after it starts"),
        (
            [0, 1, 2],
            [1, 2.5, 3],
            r"must not overlap; number 1 ends at 2\.5 s, the next starts at 2 s",
        ),
    ],
)
def test_intervals_that_cannot_be(starts, stops, message):
    with pytest.raises(RetinaCodecError, match=message):
        clock_from_intervals(starts, stops, "here", rate=10.0)


def test_divided_bins_keep_their_frames():
    clock = clock_from_times(np.concatenate([np.arange(4) / 10, 5 + np.arange(3) / 10]), 7, "here")
    fine = clock.divided(5)
    assert fine.rate == 50.0
    assert fine.index.tolist() == np.repeat(np.arange(7), 5).tolist()
    np.testing.assert_allclose(fine.onsets[:20], np.arange(20) / 50)
    assert fine.onsets[19] < 0.4  # the last frame before a pause does not reach into it
    assert clock.divided(1) is clock
    with pytest.raises(RetinaCodecError, match="bins_per_frame must be at least 1; got 0"):
        clock.divided(0)
