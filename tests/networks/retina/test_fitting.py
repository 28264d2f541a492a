"""Training: the loss, what is learned, early stopping, resuming to the same weights."""

import numpy as np
import pytest
import torch
from scipy.stats import poisson

import retina_codec as rc
from retina_codec.networks.retina import fitting as training
from retina_codec.networks.retina.fitting import TrainingSettings, poisson_loss
from retina_codec.recordings.windows import StimulusWindows
from retina_codec.statistics.correlation import pearson

SMALL = dict(history=6, channels=(4, 4), kernel_sizes=(5, 3, 3), noise=0.0, progress=False)
QUICK = TrainingSettings(epochs=3, windows_per_epoch=1500, batch_size=100, learning_rate=0.02)


def predict(network, split):
    windows = StimulusWindows(
        split["stimulus"],
        network.history,
        mean=network.normalisation.mean,
        std=network.normalisation.std,
    )
    with torch.no_grad():
        return np.concatenate([network(batch).numpy() for _, batch in windows.batches(500)])


@pytest.fixture(scope="module")
def fitted(noise_recording):
    settings = TrainingSettings(epochs=8, batch_size=100, learning_rate=0.02)
    return rc.fit_network(noise_recording, settings=settings, **SMALL)


def test_loss_is_the_poisson_likelihood_up_to_a_constant():
    random = np.random.default_rng(0)
    rate = random.uniform(1, 90, (50, 3))
    count = random.poisson(rate / 100)
    ours = float(poisson_loss(torch.from_numpy(rate), torch.from_numpy(count), 0.01))
    scipys = -poisson.logpmf(count, rate / 100).mean()
    constant = -poisson.logpmf(count, np.maximum(count, 1e-12)).mean()
    saturated = np.where(count > 0, count - count * np.log(np.maximum(count, 1)), 0).mean()
    assert ours == pytest.approx(scipys - constant + saturated, rel=1e-6)


def test_the_network_learns_which_pixel_drives_which_cell(noise_recording, fitted):
    test = noise_recording["test"]
    prediction = predict(fitted, test)
    rate = test["spike_count"].values[6:]
    reached = [np.corrcoef(prediction[:, i], rate[:, i])[0, 1] for i in (0, 1)]
    # the best possible: the true rate against one Poisson trial
    contrast = test["stimulus"].values / 128.0 - 1.0
    drive = np.stack([contrast[:, 5, 6], -contrast[:, 7, 8]], axis=1)
    true = np.maximum(drive, 0)[3:-3]  # the response to the frame three bins earlier
    best = [np.corrcoef(true[:, i], rate[:, i])[0, 1] for i in (0, 1)]
    # a linear filter plus threshold from 54 s of spikes comes close to that, not to chance (0)
    assert min(np.array(reached) / best) > 0.75


def test_the_result_is_plain_in_evaluation_and_documented(fitted, noise_recording):
    assert not fitted.training
    assert not fitted.stacked
    assert fitted.cells == (4, 8)
    assert fitted.cell_types == ("ON", "OFF")
    assert fitted.training_record["centers"] == "estimated"
    assert fitted.training_record["session"] == "noise"
    losses = fitted.training_record["validation_loss"]
    assert losses[fitted.training_record["best_epoch"]] == min(losses)
    # centres (5, 6) and (7, 8), margin 4
    assert fitted.readout.locations.tolist() == [[1, 2], [3, 4]]
    stimulus = noise_recording["train"]["stimulus"][:5400].values.astype(float)
    assert fitted.normalisation.mean == pytest.approx(stimulus.mean(), rel=1e-9)
    assert fitted.normalisation.std == pytest.approx(stimulus.std(), rel=1e-9)


def test_an_interrupted_run_ends_with_the_same_weights(noise_recording, tmp_path, monkeypatch):
    whole = rc.fit_network(noise_recording, settings=QUICK, **SMALL)
    calls = []
    original = training._Loop._validate

    def crash_in_second_epoch(self, *arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(self, *arguments)

    state = tmp_path / "state.pt"
    monkeypatch.setattr(training._Loop, "_validate", crash_in_second_epoch)
    with pytest.raises(KeyboardInterrupt):
        rc.fit_network(noise_recording, settings=QUICK, resume=state, **SMALL)
    monkeypatch.undo()
    resumed = rc.fit_network(noise_recording, settings=QUICK, resume=state, **SMALL)
    same = {"seconds": 0.0}
    assert resumed.training_record | same == whole.training_record | same
    for key, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[key], value, rtol=1e-4, atol=1e-5)


def test_the_fourier_way_trains_the_same_network(noise_recording):
    """Same windows, same order: weights differ by rounding, which Adam's first steps amplify."""
    settings = TrainingSettings(epochs=2, windows_per_epoch=600, batch_size=100, learning_rate=2e-3)
    held, anew, plain = (
        rc.fit_network(noise_recording, settings=settings, **SMALL, **way)
        for way in ({}, {"spectra_bytes": 0}, {"fourier": False})
    )
    losses = [n.training_record["validation_loss"] for n in (held, anew, plain)]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
    # 1.7e-4 on a processor whose convolution rounds otherwise
    np.testing.assert_allclose(losses[2], losses[0], rtol=1e-3)
    # Adam turns rounding in the gradient of a bias before a normalisation (truly 0) into steps
    walking = ("conv1.bias", "conv2.bias", "norm1.running_mean", "norm2.running_mean")
    for other in (anew, plain):
        for name, value in held.state_dict().items():
            if name not in walking:
                torch.testing.assert_close(other.state_dict()[name], value, rtol=2e-3, atol=2e-4)
    prediction = [predict(network, noise_recording["test"]) for network in (held, plain)]
    np.testing.assert_allclose(prediction[1], prediction[0], rtol=2e-2)


def test_resuming_other_settings_is_refused(noise_recording, tmp_path):
    state = tmp_path / "state.pt"
    one = TrainingSettings(epochs=1, windows_per_epoch=200, batch_size=100)
    rc.fit_network(noise_recording, settings=one, resume=state, **SMALL)
    other = TrainingSettings(epochs=1, windows_per_epoch=200, batch_size=100, seed=1)
    with pytest.raises(rc.RetinaCodecError, match="other data or settings"):
        rc.fit_network(noise_recording, settings=other, resume=state, **SMALL)
    state.write_bytes(b"not a state")
    with pytest.raises(rc.RetinaCodecError, match="cannot be resumed"):
        rc.fit_network(noise_recording, settings=one, resume=state, **SMALL)


def test_early_stopping_keeps_the_best_epoch(noise_recording, monkeypatch):
    losses = iter([0.5, 0.4, 0.6, 0.7, 0.8, 0.9])
    states = []

    def scripted(self, *_):
        states.append({k: v.clone() for k, v in self.network.state_dict().items()})
        return next(losses)

    monkeypatch.setattr(training._Loop, "_validate", scripted)
    settings = TrainingSettings(epochs=20, windows_per_epoch=200, batch_size=100, patience=3)
    network = rc.fit_network(noise_recording, settings=settings, **SMALL)
    assert network.training_record["best_epoch"] == 1
    assert len(network.training_record["validation_loss"]) == 5
    torch.testing.assert_close(network.norm1.scale.detach(), states[1]["norm1.scale"])


def test_epochs_walk_through_all_windows():
    network = rc.networks.RetinaCNN([0], [[0, 0]])
    loop = training._Loop(network, QUICK, 100.0, torch.device("cpu"), progress=False)
    drawn = np.concatenate([np.concatenate(list(loop._order(10, 4, e))) for e in range(5)])
    assert sorted(drawn[:10]) == list(range(10))
    assert sorted(drawn[10:]) == list(range(10))
    assert drawn[:10].tolist() != drawn[10:].tolist()


def test_a_cell_that_the_stimulus_does_not_drive_keeps_its_mean_rate(noise_recording):
    """In Hz, its modulation must shrink as fast as that of a cell that fires rarely."""
    recording = noise_recording.copy(deep=True)
    counts = recording["train"]["spike_count"]
    counts[:, 0] = np.random.default_rng(0).poisson(0.4, len(counts))
    network = rc.fit_network(recording, settings=QUICK, **SMALL)
    train = recording["train"].to_dataset()
    rates = rc.networks.predict_rates(network, train, progress=False).isel(cell=0).values
    found = counts.values[-len(rates) :, 0]
    expected = rates / network.frame_rate
    loss = (expected - found * np.log(expected)).mean()
    mean = found.mean()
    assert loss - (mean - mean * np.log(mean)) < 0.01  # nats per bin; 0.29 with steps in Hz


def test_bad_recordings(noise_recording):
    silent = noise_recording.copy(deep=True)
    silent["train"]["spike_count"][:, 1] = 0
    with pytest.raises(rc.RetinaCodecError, match=r"cells \[8\] never do"):
        rc.fit_network(silent, settings=QUICK, **SMALL)
    no_train = noise_recording.copy()
    del no_train["train"]
    with pytest.raises(rc.RetinaCodecError, match="needs a train split"):
        rc.fit_network(no_train, settings=QUICK, **SMALL)


def test_pearson_of_prediction_needs_equal_labels(noise_recording):
    rate = noise_recording["test"]["rate"]
    with pytest.raises(rc.RetinaCodecError, match="same labels"):
        pearson(rate, rate.isel(time=slice(1, None)))


@pytest.mark.parametrize("rate", [0.2, 30.0, 150.0])
def test_the_untrained_network_fires_at_the_mean_rate_however_high(small_network, rate):
    training._start_at_mean_rate(small_network, np.full((4, 3), rate))
    fired = torch.nn.functional.softplus(small_network.norm3.shift)
    np.testing.assert_allclose(fired.detach(), [rate] * 3, rtol=1e-4)


def test_a_last_batch_of_one_window_does_not_stop_the_training(noise_recording):
    settings = TrainingSettings(epochs=1, windows_per_epoch=101, batch_size=50)
    network = rc.fit_network(noise_recording, settings=settings, **SMALL)
    assert np.isfinite(network.training_record["validation_loss"]).all()


@pytest.mark.parametrize(
    "wrong", [{"batch_size": 1}, {"cycles": 0}, {"windows_per_epoch": 0}, {"seed": -1}]
)
def test_settings_that_cannot_train_are_refused(wrong):
    with pytest.raises(rc.RetinaCodecError, match=f"{next(iter(wrong))} must be at least"):
        TrainingSettings(**wrong)


def test_a_wide_field_trains_by_the_same_call(noise_recording):
    settings = TrainingSettings(epochs=1, windows_per_epoch=600, batch_size=100, learning_rate=2e-3)
    plain, fast, slow = (
        rc.fit_network(noise_recording, settings=settings, **SMALL, **way)
        for way in ({}, {"surround": True}, {"surround": True, "fourier": False})
    )
    assert not plain.surround
    assert fast.surround
    weight = fast.conv2.surround.detach()
    assert float(weight.abs().max()) > 1e-3
    torch.testing.assert_close(weight, slow.conv2.surround.detach(), rtol=2e-2, atol=2e-4)
    losses = [n.training_record["validation_loss"] for n in (fast, slow, plain)]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-3)
    assert losses[2] != losses[0]


def test_a_training_state_from_before_wide_fields_goes_on(noise_recording, tmp_path):
    one = TrainingSettings(epochs=1, windows_per_epoch=100, batch_size=50)
    path = tmp_path / "state.pt"
    first = rc.fit_network(noise_recording, settings=one, resume=path, **SMALL)
    state = torch.load(path, weights_only=True)
    assert state["identity"].pop("surround") is False
    torch.save(state, path)
    again = rc.fit_network(noise_recording, settings=one, resume=path, **SMALL)
    assert again.training_record == first.training_record
    with pytest.raises(rc.RetinaCodecError, match="surround False, now True"):
        rc.fit_network(noise_recording, settings=one, resume=path, surround=True, **SMALL)


@pytest.mark.parametrize("other", [{"channels": (4, 3)}, {"noise": 0.3}, {"surround": True}])
def test_a_state_of_another_network_is_not_resumed(noise_recording, tmp_path, other):
    settings = TrainingSettings(epochs=1, windows_per_epoch=100, batch_size=50)
    path = tmp_path / "state.pt"
    rc.fit_network(noise_recording, settings=settings, resume=path, **SMALL)
    with pytest.raises(rc.RetinaCodecError, match=f"other data or settings.*{next(iter(other))}"):
        rc.fit_network(noise_recording, settings=settings, resume=path, **{**SMALL, **other})


def test_a_torch_file_that_is_no_training_state_is_refused(noise_recording, tmp_path):
    torch.save({"weights": torch.zeros(2)}, tmp_path / "state.pt")
    with pytest.raises(rc.RetinaCodecError, match="not a training state"):
        rc.fit_network(noise_recording, settings=QUICK, resume=tmp_path / "state.pt", **SMALL)
