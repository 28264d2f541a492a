"""Smoothed rates against fine sums, SciPy, and what a kernel must keep."""

import numpy as np
import pytest
import xarray as xr
from scipy.ndimage import uniform_filter1d

from retina_codec.errors import RetinaCodecError
from retina_codec.recordings.nwb.reader import read_nwb
from retina_codec.recordings.quality.cells import measure_quality
from retina_codec.recordings.schema import make_recording, validate_recording
from retina_codec.recordings.smoothing import smooth_rates
from tests.recordings.nwb_files import movie, write
from tests.recordings.quality.test_cells import changed_repeats, with_spikes
from tests.recordings.small_recording import CELLS, RATE, make_parts
from tests.reference.quality import smoothed_rate

KERNELS = ("gaussian", "boxcar", "exponential")
WIDTHS = {"gaussian": 0.03, "boxcar": 0.11, "exponential": 0.04}  # s; a bin has 0.02


def one_train(counts):
    """A recording whose train split has these counts (time, cell), cells as many as columns."""
    parts = make_parts(train_frames=len(counts))
    counts = np.repeat(np.asarray(counts, float)[:, None], 3, axis=1)
    train = parts["train"].drop_vars("spike_count")
    return make_recording(
        **{**parts, "train": train.assign(rate=(("time", "cell"), counts * RATE))}
    )


def train_rate(recording, **options):
    return smooth_rates(recording, **options)["train/rate"].values[:, 0].astype(float)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("width", [0.004, 0.05, 0.2])
def test_a_spike_far_from_edges_keeps_its_one(kernel, width):
    counts = np.zeros(1000)
    counts[500] = 1
    rate = train_rate(one_train(counts), kernel=kernel, width=width)
    assert rate.sum() / RATE == pytest.approx(1, abs=1e-6)
    assert (rate >= 0).all()
    if kernel == "exponential":
        assert (rate[:500] == 0).all()
    else:
        np.testing.assert_allclose(rate[250:500], rate[750:500:-1], atol=1e-5)


@pytest.mark.parametrize("kernel", KERNELS)
def test_counts_agree_with_a_fine_sum_over_spikes(kernel):
    counts = np.zeros(120)
    counts[[50, 51, 60]] = 1, 2, 1
    middle = (np.repeat([50, 51, 60], [1, 2, 1]) + 0.5) / RATE
    expected = smoothed_rate(middle, kernel, WIDTHS[kernel], 0.0, 120, RATE)
    rate = train_rate(one_train(counts), kernel=kernel, width=WIDTHS[kernel])
    # 400 steps per bin miss up to half a step where a kernel jumps
    np.testing.assert_allclose(rate, expected, atol=2e-3 * expected.max())


def counted(recording, times):
    """Exact times and the counts that go with them, in every presentation; NaN bins stay."""
    recording = with_spikes(recording, times)
    for path, starts in _starts(recording).items():
        data = recording[path].to_dataset()
        rates = data["rate"].values.reshape(len(starts), -1, len(CELLS)).copy()
        edges = np.arange(rates.shape[1] + 1) / RATE - 1e-9
        for index, start in enumerate(starts):
            for column, cell in enumerate(CELLS):
                found = np.histogram(np.asarray(times.get(cell, [])) - start, edges)[0] * RATE
                rates[index, :, column] = np.where(
                    np.isfinite(rates[index, :, column]), found, np.nan
                )
        recording[path].dataset = data.assign(
            rate=(data["rate"].dims, rates.reshape(data["rate"].shape), {"units": "Hz"})
        ).drop_vars([name for name in data.coords if name not in recording[path].dataset.coords])
    return recording


def _starts(recording):
    starts = {"train": recording["train/time"].values[:1]}
    return starts | {"test/repeats": recording["test/repeats/start_time"].values}


@pytest.mark.parametrize("kernel", KERNELS)
def test_exact_times_agree_with_a_fine_sum_in_every_presentation(kernel):
    recording = make_recording(**make_parts(train_frames=60, test_frames=60, repeats=2))
    times = {3: [0.5112, 0.5177, 0.7731], 7: [1.2 + 0.6433], 20: [2.4 + 0.5049, 2.4 + 0.60011]}
    smoothed = smooth_rates(counted(recording, times), kernel=kernel, width=WIDTHS[kernel])
    assert smoothed["train/rate"].attrs["exact_times"] == "of 3 of 3 spike trains"
    assert smoothed["test/rate"].attrs["exact_times"] == "of 6 of 6 spike trains"
    shown = {0.0: smoothed["train/rate"].values}
    for number, start in enumerate((1.2, 2.4)):
        shown[start] = smoothed["test/repeats/rate"].values[number]
    for start, rates in shown.items():
        for column, cell in enumerate(CELLS):
            own = [t for t in times[cell] if start <= t < start + 1.2]
            expected = smoothed_rate(own, kernel, WIDTHS[kernel], start, 60, RATE)
            away = slice(12, 48)  # of the edges
            found = rates[away, column]
            np.testing.assert_allclose(found, expected[away], atol=0.01 * max(1, expected.max()))


def test_exact_times_on_another_clock_are_not_used(recording):
    late = {cell: 1000.0 + np.arange(5.0) for cell in CELLS}  # no spike where counts have them
    smoothed = smooth_rates(with_spikes(recording, late), width=0.03)
    assert smoothed["train/rate"].attrs["exact_times"] == "of 0 of 3 spike trains"
    plain = smooth_rates(recording, width=0.03)
    for path in ("train/rate", "test/rate", "test/repeats/rate"):
        np.testing.assert_array_equal(smoothed[path], plain[path])


def test_blocks_that_were_joined_are_smoothed_apart_by_the_session_clock(parts):
    train = parts["train"].drop_vars("spike_count")
    blocks = np.repeat([0, 1], [20, 17])
    session = np.arange(37) / RATE + np.repeat([0, 50], [20, 17])
    counts = np.zeros((37, 3))
    counts[[19, 20, 30], 0] = 1
    train = train.assign(rate=(("time", "cell"), counts * RATE))
    train = train.assign_coords(block=("time", blocks), session_time=("time", session))
    recording = make_recording(**{**parts, "train": train})
    apart = smooth_rates(recording, width=0.03)["train/rate"].values[:, 0]
    for first, last in ((0, 20), (20, 37)):
        alone = np.zeros(37)
        alone[: last - first] = counts[first:last, 0]
        alone[last - first :] = np.nan
        expected = train_rate(one_train(alone), width=0.03)[: last - first]
        np.testing.assert_allclose(apart[first:last], expected, rtol=1e-5)
    middles = session[[19, 20, 30]] + 0.5 / RATE
    exact = smooth_rates(with_spikes(recording, {3: middles}), width=0.03)["train/rate"]
    assert exact.attrs["exact_times"] == "of 3 of 3 spike trains"
    np.testing.assert_allclose(exact[5:15, 0], apart[5:15], atol=1e-4)
    np.testing.assert_allclose(exact.values[25:33, 0].sum(), apart[25:33].sum(), rtol=0.05)


def test_a_boxcar_of_whole_bins_is_a_running_mean():
    counts = np.random.default_rng(0).poisson(1.0, 200).astype(float)
    recording = one_train(counts)
    np.testing.assert_allclose(
        train_rate(recording, kernel="boxcar", width=1 / RATE), counts * RATE, rtol=1e-6
    )
    rate = train_rate(recording, kernel="boxcar", width=5 / RATE)
    expected = uniform_filter1d(counts * RATE, 5)
    np.testing.assert_allclose(rate[2:-2], expected[2:-2], rtol=1e-5, atol=1e-4)
    # at the first bin only bins 0 to 2 of the five exist
    assert rate[0] == pytest.approx(counts[:3].mean() * RATE)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_constant_rate_stays_constant_at_edges_and_gaps(kernel):
    counts = np.full(200, 2.0)
    counts[40:47] = np.nan
    counts[100] = np.nan
    recording = one_train(counts)
    rate = train_rate(recording, kernel=kernel, width=WIDTHS[kernel])
    np.testing.assert_array_equal(np.isnan(rate), np.isnan(counts))
    np.testing.assert_allclose(rate[np.isfinite(counts)], 2 * RATE, rtol=1e-6)


@pytest.mark.filterwarnings("ignore:a cell fires at")
@pytest.mark.parametrize("kernel", KERNELS)
def test_dense_exact_times_give_their_rate_also_at_edges(kernel):
    recording = one_train(np.full(100, 20.0))
    times = (np.arange(2000 * 20) + 0.5) / 20_000  # 20 kHz, all over train
    smoothed = smooth_rates(counted(recording, {3: times}), kernel=kernel, width=0.004)
    assert smoothed["train/rate"].attrs["exact_times"] == "of 3 of 3 spike trains"
    np.testing.assert_allclose(smoothed["train/rate"][:, 0], 20_000, rtol=1e-3)


def test_spikes_in_missing_bins_and_outside_of_presentations_count_nowhere():
    counts = np.zeros(100)
    counts[50:60] = np.nan
    recording = one_train(counts)
    cell = {3: [1.1, -0.001, 17.0]}  # bin 55 is missing
    smoothed = smooth_rates(counted(recording, cell), width=0.1)
    rate = smoothed["train/rate"].values[:, 0]
    np.testing.assert_array_equal(np.isnan(rate), np.isnan(counts))
    assert np.nansum(rate) == 0
    assert np.nansum(smoothed["test/repeats/rate"].values[:, :, 0]) == 0


def test_everything_else_is_kept_and_the_result_is_a_recording(parts):
    def change(rates):
        rates[1, 5:9, 1] = np.nan

    recording = changed_repeats(parts, change)
    recording.attrs["laboratory"] = "ours"
    recording["clock"] = xr.DataTree(xr.Dataset({"jitter": 0.001}))
    recording = measure_quality(recording)
    before = recording.copy(deep=True)
    smoothed = smooth_rates(recording, kernel="boxcar", width=0.06)
    validate_recording(smoothed)
    xr.testing.assert_identical(recording, before)
    assert smoothed.attrs == recording.attrs
    for path in ("train", "test"):
        old, new = (tree[path].to_dataset() for tree in (recording, smoothed))
        xr.testing.assert_identical(
            new.drop_vars(["rate", "type_rate"]), old.drop_vars(["rate", "type_rate"])
        )
        member = new["type_membership"].values
        expected = new["rate"].values @ member / member.sum(axis=0)
        np.testing.assert_allclose(new["type_rate"], expected, rtol=1e-5)
        for name in ("rate", "type_rate"):
            assert new[name].attrs["kernel"] == "boxcar"
            assert new[name].attrs["width"] == 0.06
            assert new[name].attrs["units"] == "Hz"
            assert not np.array_equal(new[name], old[name], equal_nan=True)
    repeats = smoothed["test/repeats/rate"]
    assert repeats.attrs["kernel"] == "boxcar"
    np.testing.assert_allclose(smoothed["test/rate"], np.nanmean(repeats.values, axis=0), rtol=1e-5)
    np.testing.assert_array_equal(repeats["start_time"], recording["test/repeats/start_time"])
    for path in ("interneurons", "clock"):
        xr.testing.assert_identical(smoothed[path].to_dataset(), recording[path].to_dataset())
    assert "quality" not in smoothed.children


def test_without_train_and_repeats(parts):
    counts = np.random.default_rng(3).poisson(0.8, (23, 3))
    test = parts["test"].assign(spike_count=(("time", "cell"), counts))
    recording = make_recording(**{**parts, "train": None, "test": test, "repeats": None})
    rate = smooth_rates(recording, kernel="boxcar", width=3 / RATE)["test/rate"].values
    expected = uniform_filter1d(counts * RATE, 3, axis=0)
    np.testing.assert_allclose(rate[1:-1], expected[1:-1], atol=1e-4)


def test_rates_that_are_no_counts_are_not_smoothed_again(recording):
    smoothed = smooth_rates(recording, width=0.03)
    with pytest.raises(RetinaCodecError, match="perhaps smoothed before"):
        smooth_rates(smoothed)
    times = {cell: [0.11, 0.21, 0.75, 1.25] for cell in CELLS}
    first = counted(recording, times)
    total = (first["test/repeats/rate"].sum("repeat") / RATE).assign_attrs(units="count")
    first["test"].dataset = first["test"].to_dataset().assign(spike_count=total.astype("i4"))
    first["train"]["spike_count"].values[:] = first["train/rate"].values / RATE
    once = smooth_rates(first, kernel="boxcar")
    again = smooth_rates(smooth_rates(first, width=0.03), kernel="boxcar")  # exact times are kept
    for path in ("train/rate", "test/rate", "test/repeats/rate"):
        xr.testing.assert_identical(once[path], again[path])
    unnamed = smooth_rates(first, width=0.03)
    for path in ("train", "test", "test/repeats"):  # as a file may forget
        unnamed[path]["rate"].attrs = {"units": "Hz"}
    np.testing.assert_array_equal(
        smooth_rates(unnamed, kernel="boxcar")["train/rate"], once["train/rate"]
    )
    wrong = smooth_rates(first, width=0.03)
    wrong["spikes"] = xr.DataTree(wrong["spikes"].to_dataset().isel(spike=slice(3)))
    with pytest.raises(RetinaCodecError, match="perhaps smoothed before"):
        smooth_rates(wrong)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kernel": "gauss"}, "gaussian, boxcar, exponential; got 'gauss'"),
        ({"width": 0.0}, "positive number of seconds"),
        ({"width": float("nan")}, "positive number of seconds"),
    ],
)
def test_bad_options_are_named(recording, options, words):
    with pytest.raises(RetinaCodecError, match=words):
        smooth_rates(recording, **options)


def test_bins_at_unequal_steps_are_smoothed_where_their_spikes_are(tmp_path):
    """Repeats with jittered onsets: exact times count within their own bins."""
    random = np.random.default_rng(0)
    frames = random.integers(0, 255, (100, 4, 4), dtype=np.uint8)
    times = np.arange(200) / 50 + random.normal(0, 3e-4, 200)
    spikes = {cell: np.sort(random.uniform(0, 4, 150)).tolist() for cell in (1, 2)}
    shown = movie(data=np.concatenate([frames, frames]), timestamps=times)
    path = write(tmp_path / "a.nwb", stimulus=shown, spikes=spikes)
    recording = read_nwb(
        path, splits={"test": [(times[0], times[100]), (times[100], times[-1] + 0.02)]}
    )
    assert recording["test/repeats/session_time"].dims == ("repeat", "time")
    narrow = smooth_rates(recording, kernel="boxcar", width=1e-6)
    np.testing.assert_allclose(
        narrow["test/repeats/rate"], recording["test/repeats/rate"], rtol=1e-5, atol=1e-5
    )
    assert narrow["test/repeats/rate"].attrs["exact_times"] == "of 4 of 4 spike trains"
