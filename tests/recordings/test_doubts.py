"""Wrong numbers in arrays of the user's own are refused, or told."""

import numpy as np
import pytest
import xarray as xr

from retina_codec.errors import RecordingWarning, RetinaCodecError
from retina_codec.recordings.schema import make_recording
from tests.recordings.small_recording import make_parts, make_split


def changed(part, name, values):
    parts = make_parts()
    parts[part] = parts[part].assign({name: (parts[part][name].dims, values)})
    return parts


def test_negative_counts_and_rates_are_refused():
    parts = make_parts()
    counts = parts["train"]["spike_count"].to_numpy() - 1
    with pytest.raises(
        RetinaCodecError, match=r"/train spike_count must not be negative; \d+ .*-1"
    ):
        make_recording(**changed("train", "spike_count", counts))
    rates = parts["repeats"]["rate"].to_numpy().copy()
    rates[1, 2, 0] = -50
    with pytest.raises(RetinaCodecError, match=r"repeats rate must not be negative; 1 values"):
        make_recording(**changed("repeats", "rate", rates))
    rates[1, 2, 0] = np.inf
    with pytest.raises(RetinaCodecError, match=r"rate must be finite, or NaN where nothing was"):
        make_recording(**changed("repeats", "rate", rates))
    rates[1, 2, 0] = np.nan  # not recorded
    assert np.isnan(make_recording(**changed("repeats", "rate", rates))["test/repeats/rate"]).any()


def test_rates_that_smoothing_left_a_hair_below_zero_are_no_fault():
    rates = np.abs(np.random.default_rng(0).normal(20, 5, (37, 3)))
    rates[0, 0] = -1e-9
    parts = make_parts()
    parts["train"] = parts["train"].drop_vars("spike_count").assign(rate=(("time", "cell"), rates))
    assert make_recording(**parts)["train/rate"].values.min() < 0


def test_frames_that_are_not_finite_are_refused_by_number():
    frames = make_parts()["train"]["stimulus"].to_numpy().astype(np.float32)
    frames[5, 2, 1], frames[9] = np.nan, np.inf
    with pytest.raises(RetinaCodecError, match=r"2 hold NaN or infinity, the first is frame 5, at"):
        make_recording(**changed("train", "stimulus", frames))


@pytest.mark.parametrize("factor", [1 / 255, 257, 1 / 40])
def test_train_and_test_on_two_scales_are_a_doubt(factor):
    frames = make_parts()["train"]["stimulus"].to_numpy() * float(factor)
    with pytest.warns(RecordingWarning, match=r"frames of train lie in 0 to .* bring both to one"):
        make_recording(**changed("train", "stimulus", frames))


@pytest.mark.parametrize("factor", [1.0, 0.2])
def test_train_and_test_of_like_contrast_are_no_doubt(factor):
    frames = make_parts()["train"]["stimulus"].to_numpy() * float(factor)
    make_recording(**changed("train", "stimulus", frames))


def test_a_constant_movie_has_no_scale():
    make_recording(**changed("train", "stimulus", np.full((37, 5, 4), 127, np.uint8)))


def test_spikes_in_ms_that_were_binned_in_s_are_a_doubt():
    """60 s of 20 Hz: only the spikes of the first 60 ms fall into the bins."""
    random = np.random.default_rng(0)
    edges = np.arange(60 * 50 + 1) / 50
    counts = [np.histogram(random.uniform(0, 60e3, 1200), edges)[0] for _ in range(30)]
    train = xr.Dataset(
        {
            "stimulus": (("time", "y", "x"), random.integers(0, 255, (3000, 2, 2), dtype=np.uint8)),
            "spike_count": (("time", "cell"), np.transpose(counts)),
        },
        coords={"time": edges[:-1]},
    )
    own = {"pixel_size": np.nan, "session": "", "species": "", "source": ""}
    with pytest.warns(RecordingWarning, match=r"cells fire at 0\.0\d+ Hz in test .* in ms or"):
        make_recording(train=None, test=train, frame_rate=50.0, **own)


def test_rates_that_are_passed_as_counts_are_a_doubt():
    counts = make_parts()["train"]["spike_count"].to_numpy() * 50
    with pytest.warns(RecordingWarning, match=r"a cell fires at .* Hz in train; .*pass it as rate"):
        make_recording(**changed("train", "spike_count", counts))


@pytest.mark.parametrize("name", ["train", "test", "repeats", "interneurons"])
@pytest.mark.parametrize("value", [np.zeros((500, 300)), [1] * 10**5, {"stimulus": 1}, "a" * 10**5])
def test_what_is_no_dataset_is_refused_without_its_values(name, value):
    with pytest.raises(RetinaCodecError, match=rf"^{name} must be an xr.Dataset; got") as caught:
        make_recording(**{**make_parts(), name: value})
    assert "xr.Dataset({'stimulus': (('time', 'y', 'x'), frames)" in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_missing_test_split_is_named():
    with pytest.raises(RetinaCodecError, match=r"^test must be an xr\.Dataset; got NoneType"):
        make_recording(**{**make_parts(), "test": None})


def test_lengths_that_differ_are_told_with_the_way_out():
    parts = make_parts()
    parts["repeats"] = parts["repeats"].isel(time=slice(0, -1))
    with pytest.raises(
        RetinaCodecError, match=r"time differs, 23 in test and 22 in repeats. Cut both to the same"
    ):
        make_recording(**parts)


def test_a_dropped_frame_is_told_with_the_way_out():
    parts = make_parts()
    time = parts["train"]["time"].to_numpy().copy()
    time[20:] += 0.02
    parts["train"] = parts["train"].assign_coords(time=time)
    with pytest.raises(
        RetinaCodecError,
        match=r"off by 1 bins at index 20\. Where a frame was dropped, show .* session_time",
    ):
        make_recording(**parts)


def test_values_are_never_printed():
    parts = make_parts()
    parts["session"], parts["pixel_size"] = np.zeros(10**5), np.zeros(10**5)
    parts["test"] = make_split(23, 0.0, 2).drop_vars("spike_count")
    with pytest.raises((RetinaCodecError, TypeError)) as caught:
        make_recording(**parts)
    assert len(str(caught.value)) < 1000
