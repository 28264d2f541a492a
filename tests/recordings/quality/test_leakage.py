"""Leaked frames against a comparison of every frame with every frame."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from retina_codec.errors import RetinaCodecError
from retina_codec.recordings.quality import leakage
from retina_codec.recordings.quality.leakage import find_leakage
from retina_codec.recordings.schema import make_recording
from tests.reference.quality import leaked_frames

RATE = 50.0


def recording_of(train, test, *, start=2.0, gap=7.0):
    """A silent recording with these movies (time, y, x)."""
    later = start + (0 if train is None else len(train) / RATE) + gap
    begins = {"train": start, "test": later}
    splits = {
        name: None
        if movie is None
        else xr.Dataset(
            {
                "stimulus": (("time", "y", "x"), movie),
                "spike_count": (("time", "cell"), np.zeros((len(movie), 1), int)),
            },
            coords={"time": begins[name] + np.arange(len(movie)) / RATE, "cell": [0]},
        )
        for name, movie in (("train", train), ("test", test))
    }
    return make_recording(
        **splits, frame_rate=RATE, pixel_size=50.0, session="", species="", source=""
    )


def movie_of(letters):
    """One frame of 2 × 2 px per letter."""
    values = np.array([ord(letter) for letter in letters], dtype=np.uint8)
    return np.repeat(values, 4).reshape(-1, 2, 2)


def noise(frames, seed):
    return np.random.default_rng(seed).integers(0, 256, (frames, 3, 2), dtype=np.uint8)


def assert_agrees(found, train, test, run, distinct):
    """Same frames as the slow comparison, and segments that hold exactly these."""
    expected = leaked_frames(test, train, run, distinct)
    np.testing.assert_array_equal(found["leaked"], expected)
    assert int(found["leaked_frames"]) == expected.sum()
    repeated = leaked_frames(test, test, run, distinct, within=True)
    assert int(found["repeated_frames"]) == repeated.sum()
    tables = (
        ("test_start", "train_start", "duration", 2.0, train, expected),
        ("second_start", "first_start", "repeated_duration", found["time"][0], test, repeated),
    )
    for first, second, duration, origin, other, marks in tables:
        covered = np.zeros(len(test), dtype=bool)
        rows = (found[first], found[second], found[duration])
        for a, b, length in zip(*(row.values * RATE for row in rows), strict=True):
            i, j = round(a - float(found["time"][0]) * RATE), round(b - float(origin) * RATE)
            number = round(length)
            np.testing.assert_array_equal(test[i : i + number], other[j : j + number])
            covered[i : i + number] = True
        np.testing.assert_array_equal(covered, marks)


def test_a_shared_stretch_is_found_with_its_times():
    train, test = noise(300, 0), noise(100, 1)
    test[40:65] = train[200:225]
    found = find_leakage(recording_of(train, test))
    assert int(found["leaked_frames"]) == int(found["matched_frames"]) == 25
    assert float(found["leaked_fraction"]) == 0.25
    np.testing.assert_allclose(found["test_start"], [2 + 6 + 7 + 40 / RATE])
    np.testing.assert_allclose(found["train_start"], [2 + 200 / RATE])
    np.testing.assert_allclose(found["duration"], [25 / RATE])
    assert found["duration"].attrs["units"] == "s"
    assert found.sizes["repeated_segment"] == 0
    assert_agrees(found, train, test, 10, 3)


def test_run_and_distinct_decide_what_counts():
    train, test = noise(50, 0), noise(50, 1)
    test[10:19] = train[20:29]
    recording = recording_of(train, test)
    assert int(find_leakage(recording)["leaked_frames"]) == 0
    assert int(find_leakage(recording)["matched_frames"]) == 9
    assert int(find_leakage(recording, run=9)["leaked_frames"]) == 9
    two = movie_of("abababababababcd")
    recording = recording_of(two, two[:13])
    assert int(find_leakage(recording, run=5)["leaked_frames"]) == 0  # only two frames
    assert int(find_leakage(recording_of(two, two), run=5)["leaked_frames"]) == 16
    assert int(find_leakage(recording_of(two, two), run=5, distinct=5)["leaked_frames"]) == 0


@pytest.mark.parametrize(
    ("train", "test", "leaked"),
    [
        ("gggggggggggggggabcdefghijkl", "ggggggggggggggggmnopqrstuvw", 0),  # a grey screen
        ("ggggggiiiiiiggggg", "gggggiiiiiigggggg", 0),  # a still image between grey
        ("aaabbbcccdddeeefff", "xxxbbbcccdddeeexxx", 10),  # held frames; the first b counts once
        ("ggggggggggabcdefghijk", "ggggggggabcdefghijx", 11),  # of the grey only the last frame
        ("abcdefghijklm", "abcdefghijklm", 13),
        ("mlkjihgfedcba", "abcdefghijklm", 0),  # backwards is another movie
    ],
)
def test_still_screens_are_no_movie(train, test, leaked):
    train, test = movie_of(train), movie_of(test)
    found = find_leakage(recording_of(train, test))
    assert int(found["leaked_frames"]) == leaked
    assert int(found["matched_frames"]) > 0
    assert_agrees(found, train, test, 10, 3)


@settings(max_examples=25, deadline=None)
@given(
    train=st.text("abc", min_size=2, max_size=40),
    test=st.text("abc", min_size=2, max_size=30),
    run=st.integers(3, 6),
)
def test_any_movies_agree_with_brute_force(train, test, run):
    train, test = movie_of(train), movie_of(test)
    found = find_leakage(recording_of(train, test), run=run)
    assert_agrees(found, train, test, run, 3)
    alone = [bool((train == frame).all((1, 2)).any()) for frame in test]
    assert int(found["matched_frames"]) == sum(alone)


def test_a_movie_shown_twice_within_test_is_found():
    test = noise(90, 3)
    test[60:80] = test[5:25]
    found = find_leakage(recording_of(None, test))
    assert int(found["repeated_frames"]) == 20
    assert float(found["repeated_fraction"]) == 20 / 90
    np.testing.assert_allclose(found["second_start"] - found["first_start"], [55 / RATE])
    assert int(found["matched_frames"]) == int(found["leaked_frames"]) == 0
    assert found.attrs["train_frames"] == 0


def test_a_long_cycle_is_one_segment():
    movie = movie_of("abcd" * 500)
    found = find_leakage(recording_of(movie, movie))
    np.testing.assert_allclose(found["duration"], [2000 / RATE])
    np.testing.assert_allclose(found["train_start"], [2.0])
    np.testing.assert_allclose(found["repeated_duration"], [1996 / RATE])


def test_types_of_numbers_and_signs_of_zero_do_not_hide_a_leak():
    train = noise(60, 5)
    test = train[10:40].astype(np.float64)
    test[test == 0] = -0.0
    test[3, 0, 0], train[13, 0, 0] = -0.0, 0
    found = find_leakage(recording_of(train, test))
    assert int(found["leaked_frames"]) == 30
    test[7, 1, 1] += 0.25  # one pixel of one frame
    found = find_leakage(recording_of(train, test))
    assert int(found["matched_frames"]) == 29
    assert int(found["leaked_frames"]) == 22


def test_lazy_movies_are_read_in_blocks_and_once(monkeypatch):
    import dask.array as da

    train, test = noise(400, 6), noise(200, 7)
    test[50:100] = train[300:350]
    monkeypatch.setattr(leakage, "READ_BYTES", 6 * 64)
    reads = []

    def block(values, first):
        reads.append((first, len(values)))
        return values

    def lazy(movie):
        parts = [movie[i : i + 16] for i in range(0, len(movie), 16)]
        return da.concatenate(
            [
                da.map_blocks(block, da.from_array(part, chunks=-1), number, dtype=part.dtype)
                for number, part in enumerate(parts)
            ]
        )

    reads.clear()
    recording = recording_of(lazy(train), lazy(test))
    reads.clear()  # building asks dask for a sample
    found = find_leakage(recording)
    assert sum(length for _, length in reads) == 600
    xr.testing.assert_identical(found, find_leakage(recording_of(train, test)))
    assert int(found["leaked_frames"]) == 50


def test_the_recording_stays_and_bad_input_is_named():
    recording = recording_of(noise(30, 0), noise(30, 1))
    before = recording.copy(deep=True)
    find_leakage(recording)
    xr.testing.assert_identical(recording, before)
    for options in ({"distinct": 2}, {"run": 5, "distinct": 6}):
        with pytest.raises(RetinaCodecError, match="at least 3 different frames"):
            find_leakage(recording, **options)
    with pytest.raises(RetinaCodecError, match="not a valid recording"):
        find_leakage(xr.DataTree())


@pytest.mark.slow
def test_an_hour_needs_little_time_and_memory():
    import time
    import tracemalloc

    import dask.array as da

    random = da.random.default_rng(0)
    train = random.integers(0, 256, (360_000, 10, 10), dtype=np.uint8, chunks=(2000, 10, 10))
    recording = recording_of(train, train[10_000:16_000])
    tracemalloc.start()
    begin = time.process_time()
    found = find_leakage(recording)
    seconds, peak = time.process_time() - begin, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert int(found["leaked_frames"]) == 6000
    assert peak < 400e6
    assert seconds < 60
