import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retina_codec.errors import RetinaCodecError
from retina_codec.recordings.binning import bin_spikes
from retina_codec.recordings.nwb.session import (
    Presentation,
    join_session,
    observed_intervals,
    place_spikes,
    presentations_of,
)
from retina_codec.recordings.schema import make_recording
from tests.recordings.small_recording import RATE

NAN = np.nan


def shown(counts, start=0.0, rate=100.0, repeat=-1):
    counts = np.asarray(counts, dtype=float)
    return Presentation("test", repeat, start, rate, counts.reshape(len(counts), -1))


def test_spikes_are_placed_evenly_in_their_bins():
    spikes = place_spikes(shown([0, 2, 0, 4, 1], start=3.0, rate=10.0), 0)
    by_hand = [3.125, 3.175, 3.3125, 3.3375, 3.3625, 3.3875, 3.45]
    np.testing.assert_allclose(spikes, by_hand)


@settings(max_examples=50, deadline=None)
@given(
    counts=st.lists(st.integers(0, 12), min_size=1, max_size=60),
    start=st.floats(0, 1e5),
    rate=st.sampled_from([100.0, 50.0, 59.94, 85.0, 30.0, 1000.0]),
)
def test_placed_spikes_are_found_in_their_bins_again(counts, start, rate):
    entry = shown(counts, start, rate)
    found = bin_spikes([place_spikes(entry, 0)], None, entry.edges)
    np.testing.assert_array_equal(found[:, 0], counts)


@settings(max_examples=40, deadline=None)
@given(
    first=st.lists(st.sampled_from([0.0, 1.0, NAN]), min_size=1, max_size=20),
    second=st.lists(st.sampled_from([0.0, 2.0, NAN]), min_size=1, max_size=20),
    gap=st.sampled_from([0.0, 0.5]),
)
def test_missing_bins_survive_the_way_through_intervals(first, second, gap):
    one = shown(first, 1.0)
    two = shown(second, one.stop + gap)
    intervals = observed_intervals([one, two], 0)
    assert (intervals[:, 1] > intervals[:, 0]).all()
    assert (intervals[1:, 0] > intervals[:-1, 1]).all()
    for entry in (one, two):
        found = bin_spikes([place_spikes(entry, 0)], [intervals], entry.edges)
        np.testing.assert_array_equal(found, entry.counts)


def test_presentations_that_touch_need_no_timestamps():
    one = shown([0, 1, 2], 1.0)
    assert join_session([one, shown([1], 1.03)]) == (1.0, None)
    start, timestamps = join_session([one, shown([1, 1], 2.0)])
    assert start == 1.0
    np.testing.assert_allclose(timestamps, [1.0, 1.01, 1.02, 2.0, 2.01])


def test_presentations_are_listed_in_order_of_time(recording, parts):
    found = presentations_of(recording)
    assert [(entry.split, entry.repeat, entry.frames) for entry in found] == [
        ("train", -1, 37),
        ("test", 0, 23),
        ("test", 1, 23),
        ("test", 2, 23),
    ]
    np.testing.assert_array_equal(found[0].counts, parts["train"]["spike_count"])
    np.testing.assert_array_equal(found[2].counts * RATE, parts["repeats"]["rate"][1])
    np.testing.assert_allclose(found[3].stop, (37 + 3 * 23) / RATE)


def test_overlapping_presentations_are_refused(parts):
    parts["repeats"] = parts["repeats"].assign_coords(start_time=("repeat", [0.74, 1.1, 9.0]))
    with pytest.raises(RetinaCodecError, match=r"must not overlap .* ends at 1\.2 s and test st"):
        presentations_of(make_recording(**parts))


def smooth(counts, seed=5):
    """A rate like that of a filtered spike train: no whole number of spikes per bin."""
    noise = np.random.default_rng(seed).uniform(0.1, 0.9, counts.shape)
    return (0.6 * counts + 0.4 * counts.mean() + 0.1 * noise) * RATE


def test_counts_stand_for_smoothed_rates_beside_them(parts):
    counts = parts["train"]["spike_count"]
    parts["train"] = parts["train"].assign(rate=smooth(counts))
    found = presentations_of(make_recording(**parts))
    np.testing.assert_array_equal(found[0].counts, counts)


@pytest.mark.parametrize("part", ["train", "repeats"])
def test_smoothed_rates_alone_are_not_spikes(parts, part):
    name = {"train": "spike_count", "repeats": "rate"}[part]
    rate = smooth(parts[part][name] / (RATE if part == "repeats" else 1))
    parts[part] = parts[part].drop_vars(name).assign(rate=rate)
    recording = make_recording(**parts)  # it rounds the rates: nobody counted those spikes
    split = "train" if part == "train" else "test"
    words = rf"whole numbers of spikes per bin.*of the {split} split .*/spikes.*\.nc or \.zarr"
    with pytest.raises(RetinaCodecError, match=words):
        presentations_of(recording)


def test_a_bin_without_a_rate_is_missing_whatever_its_count(parts):
    rate = (parts["train"]["spike_count"] * RATE).astype("f4")
    rate[4, 1] = NAN
    parts["train"] = parts["train"].assign(rate=rate)
    found = presentations_of(make_recording(**parts))
    assert np.argwhere(np.isnan(found[0].counts)).tolist() == [[4, 1]]


def test_spike_times_are_counted_for_every_presentation(recording):
    shown = presentations_of(recording)
    spikes = [np.concatenate([place_spikes(entry, cell) for entry in shown]) for cell in range(3)]
    for found, entry in zip(presentations_of(recording, spikes), shown, strict=True):
        np.testing.assert_array_equal(found.counts, entry.counts)
    bin_ = int(np.argmax(shown[2].counts[:, 1] > 0))  # take the first spike of cell 7 away
    gone = np.searchsorted(spikes[1], shown[2].start + bin_ / RATE)
    spikes[1] = np.delete(spikes[1], gone)
    words = rf"1 bins differ, the first at {shown[2].start + bin_ / RATE:.6g} s: cell 7 has"
    with pytest.raises(RetinaCodecError, match=words):
        presentations_of(recording, spikes)


def test_spike_times_where_nothing_was_recorded_are_refused(parts):
    parts["repeats"]["rate"].values[1, 20:, 2] = NAN
    recording = make_recording(**parts)
    shown = presentations_of(recording)
    spikes = [np.concatenate([place_spikes(entry, cell) for entry in shown]) for cell in range(3)]
    inside = shown[2].start + 21.5 / RATE
    spikes[2] = np.sort(np.append(spikes[2], inside))
    with pytest.raises(RetinaCodecError, match=r"cell 20 has 1 spikes and .* not recorded \(NaN\)"):
        presentations_of(recording, spikes)
