"""Receptive field centres: known pixels come back; unmoved by chunks."""

import numpy as np
import pytest
import xarray as xr

import retina_codec as rc
from retina_codec.networks.retina.measure import estimate_centers


def test_centres_of_white_noise_cells(noise_recording):
    found = estimate_centers(noise_recording["train"].to_dataset(), history=8)
    np.testing.assert_array_equal(found["center_y"], [5, 7])
    np.testing.assert_array_equal(found["center_x"], [6, 8])
    assert (found["strength"] > 2).all()
    other = estimate_centers(noise_recording["train"].to_dataset(), history=8, chunk=333)
    xr.testing.assert_allclose(found, other)


def test_centres_of_the_simulated_retina_within_two_pixels():
    """Every type on natural scenes, the object motion cells (both signs) among them."""
    recording, circuit = rc.simulate_retina(
        0, stimulus_seed=5, train_duration=120, test_duration=1, repeats=1, progress=False
    )
    found = estimate_centers(recording["train"].to_dataset(), history=15)
    true = np.array(circuit.center)
    error = np.hypot(found["center_y"] - true[:, 0], found["center_x"] - true[:, 1])
    assert float(error.max()) < 2.0


def test_too_short(noise_recording):
    short = noise_recording["train"].to_dataset().isel(time=slice(0, 20))
    with pytest.raises(rc.RetinaCodecError, match="more than"):
        estimate_centers(short, history=40)


def test_missing_counts_are_refused(noise_recording):
    train = noise_recording["train"].to_dataset()
    gap = train.assign(spike_count=train["spike_count"].where(train["time"] > 1))
    with pytest.raises(rc.RetinaCodecError, match="must be finite to estimate centers"):
        estimate_centers(gap, history=8)
