"""The simulated recording: seeds, repeats, rates, silencing, labels."""

import numpy as np
import pytest

import retina_codec as rc
from retina_codec.recordings.quality.repeats import noise_ceiling
from retina_codec.statistics.correlation import pearson


@pytest.fixture(scope="module")
def simulated():
    return rc.simulate_retina(0, train_duration=3, test_duration=6, repeats=40, progress=False)


def test_the_recording_is_valid_and_labelled(simulated):
    recording, circuit = simulated
    rc.recordings.validate_recording(recording)
    test = recording["test"]
    assert test["type"].values.tolist() == list(circuit.cell_type)
    np.testing.assert_allclose(test["center_y"], [y for y, _ in circuit.center])
    assert recording["interneurons"].sizes["interneuron"] == 24
    assert recording.attrs["frame_rate"] == 100.0


def test_repeats_scatter_around_the_expected_rate(simulated):
    """Counts per cell over 40 repeats agree with the noise-free rate within 4 Poisson errors."""
    recording, _ = simulated
    test = recording["test"]
    count = test["spike_count"].sum("time").values
    expected = test["expected_rate"].sum("time").values / 100 * 40
    assert (np.abs(count - expected) < 4 * np.sqrt(expected) + 0.02 * expected).all()


def test_rate_is_the_mean_over_repeats(simulated):
    recording, _ = simulated
    repeats = recording["test/repeats"]["rate"]
    np.testing.assert_allclose(repeats.mean("repeat"), recording["test"]["rate"], rtol=1e-5)
    np.testing.assert_allclose(repeats.sum("repeat") / 100, recording["test"]["spike_count"])


def test_noise_ceiling_is_the_correlation_with_the_noise_free_rate(simulated):
    recording, _ = simulated
    test = recording["test"]
    ceiling = noise_ceiling(recording["test/repeats"]["rate"]).values
    reached = pearson(test["rate"], test["expected_rate"]).values
    np.testing.assert_allclose(ceiling, reached, atol=0.05)


def test_seeds_are_separate(simulated):
    recording, circuit = simulated
    other, same_retina = rc.simulate_retina(
        0, stimulus_seed=1, train_duration=0, test_duration=1, repeats=1, progress=False
    )
    assert same_retina.center == circuit.center
    assert "train" not in other.children
    first = recording["test"]["stimulus"][:100].values.astype(float)
    assert np.abs(first - other["test"]["stimulus"].values).mean() > 5
    new_retina, _ = rc.simulate_retina(
        1, train_duration=0, test_duration=1, repeats=1, progress=False
    )
    np.testing.assert_array_equal(new_retina["test"]["stimulus"], first)


def test_the_same_call_gives_the_same_recording():
    settings = dict(train_duration=1, test_duration=1, repeats=2, progress=False)
    first, _ = rc.simulate_retina(2, **settings)
    again, _ = rc.simulate_retina(2, **settings)
    assert first.identical(again)


def test_other_types_are_labelled_and_stated():
    recording, circuit = rc.simulate_retina(
        4,
        train_duration=0,
        test_duration=1,
        repeats=1,
        ganglion_types={"ON transient": 2, "OFF sustained": 1},
        progress=False,
    )
    expected = ["ON transient", "ON transient", "OFF sustained"]
    assert recording["test"]["type"].values.tolist() == expected == list(circuit.cell_type)
    assert recording.attrs["session"].endswith("2 ON transient, 1 OFF sustained")
    stated = "ganglion_types={'ON transient': 2, 'OFF sustained': 1})"
    assert recording.attrs["source"].endswith(stated)


def test_silencing_is_stated_and_works(simulated):
    recording, circuit = simulated
    quiet, _ = rc.simulate_retina(
        0,
        train_duration=3,
        test_duration=6,
        repeats=2,
        silenced=["ON slow bipolar"],
        progress=False,
    )
    np.testing.assert_array_equal(quiet["test"]["stimulus"], recording["test"]["stimulus"])
    on = np.array(circuit.cell_type) == "ON sustained"
    rate = quiet["test"]["expected_rate"].mean("time").values
    before = recording["test"]["expected_rate"].mean("time").values
    assert (rate[on] < 0.4 * before[on]).all()
    assert "ON slow bipolar" in quiet.attrs["session"]


def test_interneuron_potentials_are_those_of_the_circuit(simulated):
    recording, circuit = simulated
    response = circuit.respond(recording["test"]["stimulus"].values, progress=False)
    np.testing.assert_array_equal(recording["interneurons"]["potential"], response["potential"])
    assert set(recording["interneurons"]["type"].values) == set(
        circuit.weight["interneuron_type"].values
    )


def test_bad_arguments():
    with pytest.raises(rc.RetinaCodecError, match="at least once"):
        rc.simulate_retina(repeats=0)
    with pytest.raises(rc.RetinaCodecError, match="crossover amacrine"):
        rc.simulate_retina(silenced=["bipolar"], train_duration=0, test_duration=1)
