"""Spike-triggered averages against explicit loops, planted fields and movies without any."""

import dask.array as da
import numpy as np
import pytest
import xarray as xr

from retina_codec.errors import RecordingWarning, RetinaCodecError
from retina_codec.recordings.quality.averages import spike_triggered_average


def split_of(frames, counts, **coords):
    return xr.Dataset(
        {
            "stimulus": (("time", "y", "x"), frames),
            "spike_count": (("time", "cell"), counts),
        },
        coords={
            "time": np.arange(len(frames)) / 30,
            "cell": np.arange(counts.shape[1]),
            "y": np.arange(frames.shape[1]) + 100,
            "x": np.arange(frames.shape[2]) + 40,
            **coords,
        },
    )


def planted(seed=0, frames=6000, sign=(1, -1)):
    """Cells that fire after a bright or dark square of 3 px, three frames before."""
    random = np.random.default_rng(seed)
    movie = random.integers(0, 2, (frames, 20, 24)).astype(np.uint8) * 255
    drive = (movie[:, 5:8, 10:13].mean((1, 2)) / 255 - 0.5) * 2
    later = np.concatenate([np.zeros(3), drive[:-3]])
    rates = [0.3 * np.exp(2 * each * later) for each in sign]
    return split_of(movie, random.poisson(np.stack(rates, axis=1)))


def slow(split, history):
    """z and average by the formula, pair by pair."""
    movie = split["stimulus"].values.astype(float)
    counts = split["spike_count"].values.astype(float)
    block = split["block"].values if "block" in split.coords else np.zeros(len(movie))
    mean, spread = movie.mean(), movie.std()
    z = np.zeros((counts.shape[1], history, *movie.shape[1:]))
    average = np.zeros_like(z)
    for cell in range(counts.shape[1]):
        own = counts[:, cell] - np.nanmean(counts[:, cell])
        for lag in range(1, history + 1):
            square = 0.0
            for t in range(lag, len(movie)):
                if np.isnan(own[t]) or block[t] != block[t - lag]:
                    continue
                z[cell, lag - 1] += own[t] * (movie[t - lag] - mean)
                square += own[t] ** 2
            average[cell, lag - 1] = z[cell, lag - 1] / np.nansum(counts[:, cell])
            z[cell, lag - 1] /= spread * np.sqrt(square)
    return z, average


@pytest.mark.filterwarnings("ignore:no cell has:retina_codec.errors.RecordingWarning")
@pytest.mark.filterwarnings("ignore:neighbouring:retina_codec.errors.RecordingWarning")
@pytest.mark.parametrize("joined", [False, True])
def test_agrees_with_the_formula(joined):
    random = np.random.default_rng(1)
    counts = random.poisson(0.4, (90, 2)).astype(float)
    counts[20:25, 1] = np.nan
    split = split_of(random.integers(0, 255, (90, 4, 5)), counts)
    if joined:
        split = split.assign_coords(block=("time", np.repeat([0, 1, 2], 30)))
    found = spike_triggered_average(split, history=4, smooth=1)
    z, average = slow(split, 4)
    np.testing.assert_allclose(found["z"], z, atol=1e-4)
    np.testing.assert_allclose(found["average"], average, atol=1e-3)
    assert found["lag"].values == pytest.approx(np.arange(1, 5) / 30)


def test_planted_fields_are_found():
    found = spike_triggered_average(planted(), history=6, smooth=3)
    assert found["polarity"].values.tolist() == ["ON", "OFF"]
    np.testing.assert_array_equal(found["center_y"], [106, 106])
    np.testing.assert_array_equal(found["center_x"], [51, 51])
    np.testing.assert_allclose(found["peak_lag"], 3 / 30)
    assert (np.abs(found["peak_z"]) > 20).all()
    np.testing.assert_allclose(found["size"], 2 * 3 / np.sqrt(np.pi), atol=1.2)  # 9 px
    assert np.abs(found["time_course"]).argmax("lag").values.tolist() == [2, 2]


def test_chunks_do_not_change_it(monkeypatch):
    split = planted(frames=700)
    whole = spike_triggered_average(split, history=5)
    monkeypatch.setattr("retina_codec.recordings.quality.averages.CHUNK_BYTES", 4 * 480 * 37)
    lazy = split.copy()
    lazy["stimulus"] = (
        split["stimulus"].dims,
        da.from_array(split["stimulus"].values, (50, 20, 24)),
    )
    xr.testing.assert_allclose(spike_triggered_average(lazy, history=5), whole, atol=1e-3)


def test_z_of_spikes_without_a_field_is_normal():
    split = planted(frames=3000)
    random = np.random.default_rng(5)
    loose = split_of(split["stimulus"].values, random.poisson(0.3, (3000, 40)))
    with pytest.warns(RecordingWarning, match=r"no cell has a receptive field above chance.*seed"):
        found = spike_triggered_average(loose, history=6, smooth=3)
    assert float(found["z"].std()) == pytest.approx(1, abs=0.02)
    assert (found["polarity"] == "none").all()
    assert np.isnan(found["size"]).all()


def test_a_silent_cell_is_nan_and_spoils_no_other():
    split = planted(frames=2000)
    counts = np.column_stack([split["spike_count"].values, np.zeros(2000)])
    found = spike_triggered_average(split_of(split["stimulus"].values, counts), history=4)
    assert found["polarity"].values.tolist() == ["ON", "OFF", "none"]
    assert np.isnan(found["center_y"][2])


def test_other_movies_are_reported_or_refused():
    split = planted(frames=800)
    smooth = np.repeat(np.repeat(split["stimulus"].values[:, ::2, ::2], 2, 1), 2, 2)
    with pytest.warns(RecordingWarning, match="neighbouring pixels of the movie correlate"):
        spike_triggered_average(split.assign(stimulus=(("time", "y", "x"), smooth)), history=3)
    flat = split.assign(stimulus=split["stimulus"] * 0 + 7)
    with pytest.raises(RetinaCodecError, match="must change from pixel to pixel"):
        spike_triggered_average(flat, history=3)
    with pytest.raises(RetinaCodecError, match="longer than the history"):
        spike_triggered_average(split.isel(time=slice(0, 4)), history=5)
