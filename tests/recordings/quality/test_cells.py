"""Quality of a recording: every number recomputed by hand, every flag provoked."""

import numpy as np
import pytest
import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.recordings.files import open_recording, save_recording
from retina_codec.recordings.quality.cells import QualitySettings, measure_quality
from retina_codec.recordings.quality.leakage import find_leakage
from retina_codec.recordings.quality.repeats import (
    noise_ceiling,
    reliability,
    signal_variance_fraction,
)
from retina_codec.recordings.schema import make_recording, validate_recording
from retina_codec.recordings.simulated.spikes import refractory_poisson
from tests.recordings.small_recording import CELLS, RATE, make_parts


def with_spikes(recording, times):
    """Add a node of exact times; ``times`` maps a cell to seconds."""
    cells = np.repeat(list(times), [len(each) for each in times.values()])
    every = np.concatenate([np.asarray(each, float) for each in times.values()])
    order = np.random.default_rng(0).permutation(every.size)  # no order is promised
    recording = recording.copy()
    recording["spikes"] = xr.DataTree(
        xr.Dataset({"spike_time": ("spike", every[order]), "spike_cell": ("spike", cells[order])})
    )
    return recording


def changed_repeats(parts, change):
    """A recording whose repeated rates (repeat, time, cell) were changed in place."""
    rate = parts["repeats"]["rate"].copy(deep=True)
    change(rate.values)
    return make_recording(**{**parts, "repeats": parts["repeats"].assign(rate=rate)})


def test_numbers_are_those_of_the_rates(recording):
    before = recording.copy(deep=True)
    measured = measure_quality(recording)
    quality = measured["quality"].to_dataset()
    for split in ("train", "test"):
        expected = recording[split]["spike_count"].values.mean(axis=0) * RATE
        if split == "test":
            expected = expected / 3  # presentations
        np.testing.assert_allclose(quality["mean_rate"].sel(split=split), expected, rtol=1e-6)
    rates = recording["test/repeats/rate"]
    np.testing.assert_array_equal(quality["noise_ceiling"], noise_ceiling(rates))
    np.testing.assert_array_equal(
        quality["signal_variance_fraction"], signal_variance_fraction(rates)
    )
    for name, values in reliability(rates).items():
        np.testing.assert_array_equal(quality[name], values)
    assert quality["mean_rate"].attrs["units"] == "Hz"
    assert quality["cell"].values.tolist() == CELLS
    assert quality["type"].values.tolist() == ["ON", "OFF", "ON"]
    assert not quality["empty"].any()
    assert (quality["missing"] == 0).all()
    assert quality["refractory_violations"].isnull().all()  # no exact times, no zero
    xr.testing.assert_identical(recording, before)
    validate_recording(measured)
    assert set(measured.children) == {*recording.children, "quality"}


def test_more_cells_than_a_step_and_every_parameter_is_recorded_and_used():
    random = np.random.default_rng(5)
    rate = np.exp(random.normal(size=(1, 300, 19)))
    counts = random.poisson(np.repeat(rate, 11, axis=0)).astype("f4")
    labels = {"time": np.arange(300) / RATE, "cell": [f"c{i}" for i in range(19)]}
    movie = xr.Dataset({"stimulus": (("time", "y", "x"), np.zeros((300, 2, 2)))}, coords=labels)
    recording = make_recording(
        train=None,
        test=movie,
        repeats=xr.Dataset({"rate": (("repeat", "time", "cell"), counts * RATE)}),
        **{k: v for k, v in make_parts().items() if k in _ATTRIBUTES},
    )
    quality = measure_quality(recording, settings=QualitySettings(splits=20, seed=6))[
        "quality"
    ].to_dataset()
    expected = reliability(recording["test/repeats/rate"], splits=20, seed=6)
    np.testing.assert_array_equal(quality["reliability"], expected["reliability"])
    assert quality["cell"].values.tolist() == labels["cell"]
    assert quality["split"].values.tolist() == ["test"]
    assert quality.attrs == {
        "lowest_rate": 0.1,
        "lowest_reliability": 0.25,
        "refractory_period": 0.0015,
        "highest_violations": 0.01,
        "splits": 20,
        "seed": 6,
    }


_ATTRIBUTES = ("frame_rate", "pixel_size", "session", "species", "source")


def test_flags_say_what_is_wrong():
    parts = make_parts(test_frames=400, train_frames=400, repeats=6)
    random = np.random.default_rng(1)
    parts["train"]["spike_count"][:, 1] = 0
    signal = np.exp(1.5 * random.normal(size=400))

    def change(rates):
        rates[:, :, 0] = random.poisson(np.broadcast_to(signal, (6, 400))) * RATE
        rates[:, :, 1] = 0

    recording = changed_repeats(parts, change)
    flags = measure_quality(recording)["quality/flag"].values
    assert flags[0] == ""
    assert flags[1] == "silent"
    assert flags[2].startswith("unreliable, ")  # noise without signal
    strict = measure_quality(
        recording, settings=QualitySettings(lowest_reliability=1.1, lowest_rate=1e6)
    )["quality"]
    value = float(strict["reliability"][0])
    fastest = float(strict["mean_rate"].max("split")[0])
    assert strict["flag"].values[0] == f"nearly silent, {fastest:.2g} Hz; unreliable, {value:.2f}"
    lax = measure_quality(recording, settings=QualitySettings(lowest_reliability=-2))[
        "quality/flag"
    ].values
    assert lax.tolist() == ["", "silent", ""]


def test_a_cell_with_one_spike_has_too_few():
    parts = make_parts(test_frames=100, repeats=4)

    def change(rates):
        rates[:, :, 2] = 0
        rates[1, 7, 2] = RATE

    flags = measure_quality(changed_repeats(parts, change))["quality/flag"].values
    assert flags[2] == "too few spikes for reliability"


def test_violations_are_short_intervals_of_the_same_cell(recording):
    times = {
        3: [0.5, 0.501, 0.51, 0.5114, 0.6],  # two of four
        7: [0.5005, 0.9],  # close to a spike of another cell
        20: [0.7],  # no interval
    }
    recording = with_spikes(recording, times)
    quality = measure_quality(recording)["quality"].to_dataset()
    np.testing.assert_array_equal(quality["refractory_violations"], [0.5, 0.0, np.nan])
    assert "refractory violations 50.0 %" in quality["flag"].values[0]
    assert "refractory" not in "".join(quality["flag"].values[1:])
    shorter = measure_quality(recording, settings=QualitySettings(refractory_period=0.0012))[
        "quality"
    ]
    np.testing.assert_array_equal(shorter["refractory_violations"], [0.25, 0.0, np.nan])
    allowed = measure_quality(recording, settings=QualitySettings(highest_violations=0.5))[
        "quality"
    ]
    assert "refractory" not in "".join(allowed["flag"].values)


def test_violations_of_poisson_spikes_follow_the_exponential_law(recording):
    # Poisson with 80 Hz: P(interval < 1.5 ms) = 1 - exp(-0.12); with a refractory period: none.
    random = np.random.default_rng(2)
    hazard = np.full((30_000, 1), 80.0)
    options = {"bin_width": 0.01, "random": random}
    (free,) = refractory_poisson(hazard, refractory=0.0, **options)
    (held,) = refractory_poisson(hazard, refractory=0.002, **options)
    quality = measure_quality(with_spikes(recording, {3: free, 7: held}))["quality"]
    expected = -np.expm1(-80 * 0.0015)
    found = quality["refractory_violations"].values
    error = np.sqrt(expected * (1 - expected) / (free.size - 1))
    assert abs(found[0] - expected) < 4 * error
    assert found[1] == 0
    assert np.isnan(found[2])


def test_missing_bins_are_counted_and_never_become_zero(parts):
    def change(rates):
        rates[2, 10:, 0] = np.nan  # 13 of 37 + 3 · 23 bins
        rates[:, :, 1] = np.nan

    recording = changed_repeats(parts, change)
    quality = measure_quality(recording)["quality"].to_dataset()
    np.testing.assert_allclose(quality["missing"], [13 / 106, 69 / 106, 0.0])
    assert np.isnan(quality["mean_rate"].sel(split="test")[1])
    assert np.isnan(quality["noise_ceiling"][1])
    assert not quality["empty"].any()  # the cell fired in training
    train = parts["train"].drop_vars("spike_count")
    rate = np.full((37, 3), np.nan)
    rate[:, [0, 2]] = 0.0
    parts["train"] = train.assign(rate=(("time", "cell"), rate))
    flags = measure_quality(changed_repeats(parts, change))["quality/flag"].values
    assert flags[1] == "not recorded"


def test_without_repeats_nothing_is_made_up(parts):
    test = parts["test"].assign(
        spike_count=(("time", "cell"), np.random.default_rng(0).poisson(0.5, (23, 3)))
    )
    recording = make_recording(**{**parts, "test": test, "repeats": None, "train": None})
    quality = measure_quality(recording)["quality"].to_dataset()
    for name in ("reliability", "reliability_error", "noise_ceiling", "signal_variance_fraction"):
        assert quality[name].dims == ("cell",)
        assert quality[name].isnull().all()
    assert quality["flag"].values.tolist() == ["", "", ""]


def test_leakage_is_looked_for_only_when_asked(parts):
    parts["test"]["stimulus"][3:18] = parts["train"]["stimulus"].values[5:20]
    recording = make_recording(**parts)
    assert "leaked_fraction" not in measure_quality(recording)["quality"]
    quality = measure_quality(recording, leakage=True)["quality"]
    assert int(quality["leaked_frames"]) == 15
    assert float(quality["leaked_fraction"]) == float(find_leakage(recording)["leaked_fraction"])


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_quality_survives_a_file(recording, tmp_path, suffix):
    measured = measure_quality(recording, leakage=True)
    save_recording(measured, tmp_path / f"q{suffix}")
    opened = open_recording(tmp_path / f"q{suffix}")
    try:
        found = opened["quality"].to_dataset().load()
    finally:
        opened.close()
    xr.testing.assert_identical(found, measured["quality"].to_dataset())
    again = measure_quality(measured, settings=QualitySettings(lowest_rate=0.2))[
        "quality"
    ]  # replaces what was there
    assert again.attrs["lowest_rate"] == 0.2
    assert "leaked_frames" not in again


def test_bad_input_is_named(recording):
    with pytest.raises(RetinaCodecError, match=r"unknown: \[99\]"):
        measure_quality(with_spikes(recording, {99: [0.1, 0.2]}))
    with pytest.raises(RetinaCodecError, match="lowest_rate must be a finite number"):
        QualitySettings(lowest_rate=float("nan"))
    with pytest.raises(RetinaCodecError, match="not a valid recording"):
        measure_quality(xr.DataTree())
