import json

import h5py
import numpy as np
import pytest
import xarray as xr
from nwbinspector import Importance, inspect_nwbfile
from pynwb import NWBHDF5IO

from retina_codec.recordings.nwb.extras import dataset_from_notes, dataset_to_notes
from retina_codec.recordings.nwb.reader import read_nwb
from retina_codec.recordings.nwb.writer import write_nwb
from retina_codec.recordings.schema import make_recording
from retina_codec.recordings.smoothing import smooth_rates
from tests.recordings.nwb.test_writer_spikes import jittered, with_spikes
from tests.recordings.nwb_files import ALL_TEST, write
from tests.recordings.small_recording import RATE

pytestmark = pytest.mark.filterwarnings(ALL_TEST)


def smooth(counts, width=1.5):
    """Filter counts along time (the last dim but one), as an independent rate estimate would."""
    frames = counts.shape[-2]
    distance = np.arange(frames)[:, None] - np.arange(frames)
    kernel = np.exp(-0.5 * (distance / width) ** 2)
    kernel /= kernel.sum(1, keepdims=True)
    return np.einsum("ts,...sc->...tc", kernel, np.asarray(counts, float)) * RATE


def misc_of(path):
    """Every series of the module misc: values, unit, description, times."""
    with NWBHDF5IO(path, "r") as stream:
        module = stream.read().processing.get("misc")
        return (
            {}
            if module is None
            else {
                name: (
                    series.data[:],
                    series.unit,
                    series.description,
                    series.starting_time + np.arange(len(series.data)) / series.rate
                    if series.timestamps is None
                    else series.timestamps[:],
                )
                for name, series in module.data_interfaces.items()
            }
        )


def notes_of(path):
    with h5py.File(path) as file:
        return json.loads(file["general/notes"][()])["retina_codec"]


def test_nothing_further_is_written_where_spikes_say_it_all(recording, tmp_path):
    write_nwb(recording, tmp_path / "session.nwb")
    assert misc_of(tmp_path / "session.nwb") == {}
    assert notes_of(tmp_path / "session.nwb")["spikes"] == "placed evenly in their bins"
    assert "clock" not in notes_of(tmp_path / "session.nwb")


def test_smoothed_rates_stand_beside_the_spikes(parts, tmp_path):
    counts = parts["train"]["spike_count"]
    rate = smooth(counts.values).astype("f4")
    attrs = {"units": "Hz", "long_name": "firing rate, Gaussian of 30 ms"}
    parts["train"] = parts["train"].assign(rate=(("time", "cell"), rate, attrs))
    write_nwb(make_recording(**parts), tmp_path / "session.nwb")
    found = misc_of(tmp_path / "session.nwb")
    assert list(found) == ["train_rate"]
    values, unit, description, times = found["train_rate"]
    np.testing.assert_array_equal(values, rate)
    assert values.dtype == np.float32
    assert (unit, description) == ("Hz", attrs["long_name"])
    np.testing.assert_allclose(times, parts["train"]["time"])
    with h5py.File(tmp_path / "session.nwb") as file:
        spikes = file["units/spike_times"][: file["units/spike_times_index"][0]]
    train = spikes[spikes < 37 / RATE]
    by_hand = np.floor(train * RATE).astype(int)
    np.testing.assert_array_equal(np.bincount(by_hand, minlength=37), counts[:, 0])


@pytest.mark.parametrize("pauses", [False, True])
def test_smoothed_repeats_need_spike_times_and_stand_in_order_of_time(parts, tmp_path, pauses):
    whole = make_recording(**parts)
    starts = whole["test/repeats/start_time"].values
    if pauses:
        starts = starts + np.array([0.0, 5.0, 11.0])
        parts["repeats"] = parts["repeats"].assign_coords(start_time=("repeat", starts))
        whole = make_recording(**parts)
    rate = smooth(parts["repeats"]["rate"].values / RATE).astype("f4")
    parts["repeats"] = parts["repeats"].assign(rate=(("repeat", "time", "cell"), rate))
    recording = with_spikes(make_recording(**parts), jittered(whole))
    write_nwb(recording, tmp_path / "session.nwb")
    found = misc_of(tmp_path / "session.nwb")
    values, unit, _, times = found["repeats_rate"]
    np.testing.assert_array_equal(values.reshape(3, 23, 3), rate)
    assert unit == "Hz"
    expected = (starts[:, None] + np.arange(23) / RATE).ravel()
    np.testing.assert_allclose(times, expected, rtol=0, atol=1e-12)
    # What the recording itself made of the smoothed repeats is kept as well.
    np.testing.assert_array_equal(found["test_rate"][0], recording["test/rate"])
    np.testing.assert_array_equal(found["test_spike_count"][0], recording["test/spike_count"])
    assert notes_of(tmp_path / "session.nwb")["spikes"] == "exact times"
    messages = list(inspect_nwbfile(nwbfile_path=tmp_path / "session.nwb"))
    assert messages
    serious = [m for m in messages if m.importance != Importance.BEST_PRACTICE_SUGGESTION]
    assert [f"{m.check_function_name}: {m.message}" for m in serious] == []


def test_rates_and_counts_that_disagree_are_both_kept(parts, tmp_path):
    rate = (parts["train"]["spike_count"] * RATE).astype("f4")
    rate[3, 0] += RATE  # still whole, but one spike more than was counted
    parts["train"] = parts["train"].assign(rate=rate.assign_attrs(units="Hz"))
    recording = make_recording(**parts)
    write_nwb(recording, tmp_path / "session.nwb")
    values, _, description, _ = misc_of(tmp_path / "session.nwb")["train_rate"]
    np.testing.assert_array_equal(values, rate)
    assert description == "axes: time, unit"


def test_bins_that_were_not_recorded_need_no_further_values(parts, tmp_path):
    rate = (parts["train"]["spike_count"] * RATE).astype("f4")
    rate[5:8, 2] = np.nan
    parts["train"] = parts["train"].drop_vars("spike_count").assign(rate=rate)
    parts["repeats"]["rate"].values[0, 20:, 1] = np.nan
    write_nwb(make_recording(**parts), tmp_path / "session.nwb")
    assert misc_of(tmp_path / "session.nwb") == {}


def test_clock_and_reading_are_kept_in_the_notes(recording, tmp_path):
    clock = xr.Dataset(
        {"drift": ((), 1e-6, {"units": "1"}), "outside": ("cell", [0, 1, 2], {"units": "count"})},
        coords={"cell": [3, 7, 20]},
        attrs={"method": "median of steps"},
    )
    recording = recording.copy()
    recording["clock"] = xr.DataTree(clock)
    recording.attrs["reading"] = "frames from timestamps; units µV"
    write_nwb(recording, tmp_path / "session.nwb")
    notes = notes_of(tmp_path / "session.nwb")
    assert notes["reading"] == "frames from timestamps; units µV"
    xr.testing.assert_identical(dataset_from_notes(notes["clock"]), clock)


def test_a_smoothed_rate_says_its_kernel_and_width_when_it_comes_back(tmp_path):
    random = np.random.default_rng(0)
    spikes = {cell: np.sort(random.uniform(0, 1.2, 60)).tolist() for cell in (1, 2)}
    smooth = smooth_rates(read_nwb(write(tmp_path / "a.nwb", spikes=spikes)), width=0.04)
    write_nwb(smooth, tmp_path / "b.nwb")
    found = read_nwb(tmp_path / "b.nwb")["test/rate"]
    np.testing.assert_array_equal(found, smooth["test/rate"])
    assert found.attrs == smooth["test/rate"].attrs
    assert (found.attrs["kernel"], found.attrs["width"]) == ("gaussian", 0.04)


@pytest.fixture
def clock():
    return xr.Dataset(
        {
            "offset": ((), 1 / 3, {"units": "s", "long_name": "movie after spikes"}),
            "drift": ((), np.float32(np.nan), {"units": "1"}),
            "dropped": ((), 4, {"units": "count"}),
            "outside": ("cell", np.array([0, 2, 5], dtype=np.int32), {"units": "count"}),
            "is_regular": ((), True),
            "source": ((), "timestamps"),
        },
        coords={"cell": ["a", "b", "µ"]},
        attrs={"method": "median", "tolerance": np.float64(0.1), "frames": np.array([1, 2])},
    )


def test_a_dataset_comes_back_through_json(clock):
    kept = clock.copy(deep=True)
    text = json.dumps(dataset_to_notes(clock), ensure_ascii=False)
    found = dataset_from_notes(json.loads(text))
    clock.attrs["frames"] = [1, 2]  # JSON has lists, no arrays
    xr.testing.assert_identical(found, clock)
    assert {name: found[name].dtype for name in found.variables} == {
        name: clock[name].dtype for name in clock.variables
    }
    clock.attrs["frames"] = np.array([1, 2])
    assert clock.attrs.keys() == kept.attrs.keys()
    np.testing.assert_array_equal(clock.attrs["frames"], kept.attrs["frames"])


def test_the_notes_are_what_a_person_would_write(clock):
    notes = dataset_to_notes(clock[["outside"]])
    assert notes["data_vars"] == {
        "outside": {
            "dims": ["cell"],
            "dtype": "int32",
            "data": [0, 2, 5],
            "attrs": {"units": "count"},
        }
    }
    assert notes["coords"]["cell"]["data"] == ["a", "b", "µ"]


def test_an_empty_dataset_stays_empty():
    xr.testing.assert_identical(dataset_from_notes(dataset_to_notes(xr.Dataset())), xr.Dataset())
