"""Training through Fourier transforms: the same rates, loss, gradients and statistics."""

import copy

import numpy as np
import pytest
import torch
import xarray as xr

import retina_codec as rc
from retina_codec.networks.retina.fitting import poisson_loss
from retina_codec.networks.retina.fourier_fitting import FourierNetwork, FrameSpectra
from retina_codec.recordings.windows import StimulusWindows
from tests.reference.networks import retina_cnn

INDICES = np.array([17, 3, 40, 4, 41, 29, 3])


@pytest.fixture(scope="module")
def windows():
    frames = np.random.default_rng(1).integers(0, 256, (60, 13, 14)).astype(np.uint8)
    stimulus = xr.DataArray(frames, dims=("time", "y", "x"), coords={"time": np.arange(60) / 100})

    def make(dtype):
        return StimulusWindows(stimulus, 5, mean=128.0, std=74.0, dtype=dtype)

    return make


def network_of(dtype, **options):
    torch.manual_seed(0)
    choices = {"channels": (3, 2), "kernel_sizes": (5, 3, 3), "stacked": True, "noise": 0.0}
    network = rc.networks.RetinaCNN(
        [3, 7, 9], [[0, 1], [2, 3], [4, 4]], history=5, frame_shape=(13, 14), **choices | options
    )
    with torch.no_grad():
        for norm in (network.norm1, network.norm2, network.norm3):
            norm.running_mean.copy_(torch.randn_like(norm.running_mean) / 10)
            norm.running_var.copy_(torch.rand_like(norm.running_var) + 0.5)
            norm.scale.copy_(torch.randn_like(norm.scale))
            norm.shift.copy_(torch.rand_like(norm.shift) + 0.5)
        if network.surround:
            network.conv2.surround.copy_(torch.randn_like(network.conv2.surround))
    return network.to(dtype)


def one_step(network, rates):
    counts = torch.from_numpy(np.random.default_rng(2).poisson(0.4, (len(INDICES), 3)))
    loss = poisson_loss(rates, counts.to(rates.dtype), 0.01)
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in network.named_parameters()}


OTHERS = [
    {},
    {"stacked": False},
    {"kernel_sizes": (3, 5, 3)},
    {"kernel_sizes": (4, 3, 2), "stacked": False},
    {"surround": True},
    {"surround": True, "stacked": False},
]


@pytest.mark.parametrize("options", OTHERS)
@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_loss_gradients_and_statistics_are_those_of_the_network(
    windows, options, mode, dtype, tolerance
):
    network = network_of(dtype, **options).train(mode)
    plain = copy.deepcopy(network)
    chosen = windows(dtype)
    rates = FourierNetwork(network)(FrameSpectra(chosen).at(INDICES))
    other = plain(chosen.at(INDICES))
    torch.testing.assert_close(rates, other, rtol=tolerance, atol=tolerance)
    loss, gradients = one_step(network, rates)
    plain_loss, plain_gradients = one_step(plain, other)
    torch.testing.assert_close(loss, plain_loss, rtol=tolerance, atol=tolerance)
    largest = max(float(gradient.abs().max()) for gradient in plain_gradients.values())
    for name, gradient in plain_gradients.items():
        # a bias before a normalisation has the gradient 0, but for rounding
        atol = tolerance * max(float(gradient.abs().max()), largest / 10)
        torch.testing.assert_close(gradients[name], gradient, rtol=0, atol=atol, msg=name)
    for name, value in plain.named_buffers():
        torch.testing.assert_close(
            dict(network.named_buffers())[name], value, rtol=tolerance, atol=tolerance
        )
    changed = (plain.norm1.running_mean != network_of(dtype, **options).norm1.running_mean).any()
    assert bool(changed) == mode


def test_rates_are_those_of_the_loops(windows):
    network = network_of(torch.float64).eval()
    chosen = windows(torch.float64)
    with torch.no_grad():
        rates = FourierNetwork(network)(FrameSpectra(chosen).at(INDICES))
    state = {name: value.numpy() for name, value in network.state_dict().items()}
    places = network.readout.locations.numpy()
    for row, window in zip(rates, chosen.at(INDICES).numpy(), strict=True):
        np.testing.assert_allclose(row, retina_cnn(window, state, places), rtol=1e-10)


def test_it_follows_the_parameters_as_they_train(windows):
    network = network_of(torch.float64).train()
    plain = copy.deepcopy(network)
    chosen, fast = windows(torch.float64), FourierNetwork(network)
    spectra = FrameSpectra(chosen)
    for trained, rates in (
        (network, lambda: fast(spectra.at(INDICES))),
        (plain, lambda: plain(chosen.at(INDICES))),
    ):
        optimizer = torch.optim.SGD(trained.parameters(), lr=0.05)
        for _ in range(5):
            optimizer.zero_grad()
            one_step(trained, rates())
            optimizer.step()
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(network.state_dict()[name], value, rtol=1e-8, atol=1e-9)


def test_noise_stands_before_both_rectifiers_and_only_in_training(windows):
    network = network_of(torch.float32, noise=0.3)
    spectra = FrameSpectra(windows(torch.float32)).at(np.arange(50))
    fast, added = FourierNetwork(network), {}
    for name in ("noise1", "noise2"):
        network.get_submodule(name).register_forward_hook(
            lambda _, given, out, name=name: added.update({name: (out - given[0]).detach().clone()})
        )
    network.train()
    torch.manual_seed(1)
    noisy = fast(spectra)
    for values in added.values():
        # 50 windows × 2 or 3 channels × 99 or more places: the error of a std is below 1 %
        assert float(values.std()) == pytest.approx(0.3, rel=0.03)
        assert abs(float(values.mean())) < 0.01
    torch.manual_seed(1)
    torch.testing.assert_close(fast(spectra), noisy, rtol=0, atol=0)
    network.eval()
    fast(spectra)
    assert all(float(values.abs().max()) == 0 for values in added.values())


@pytest.mark.parametrize("indices", [INDICES, np.arange(12, 30), np.array([54])])
def test_spectra_are_numpys_transforms_held_or_made_anew(windows, indices):
    chosen = windows(torch.float64)
    held, anew = FrameSpectra(chosen), FrameSpectra(chosen, 0)
    assert held.held
    assert not anew.held
    values = np.fft.fft2(chosen.at(indices).numpy())[:, :, :7]  # y is 13: half is 7
    theirs = np.moveaxis(values, (2, 3), (0, 1)).reshape(7 * 14, len(indices), 5)
    for spectra in (held, anew):
        ours = spectra.at(indices).view(7 * 14, len(indices), 5, 2).numpy()
        np.testing.assert_allclose(ours[..., 0], theirs.real, atol=1e-10)
        np.testing.assert_allclose(ours[..., 1], theirs.imag, atol=1e-10)


def test_all_spectra_are_held_up_to_the_limit(windows):
    chosen = windows(torch.float32)
    size = 7 * 14 * 59 * 8  # the last frame is in no window: its response would come after the end
    assert FrameSpectra(chosen, size).held
    assert not FrameSpectra(chosen, size - 1).held


def test_windows_do_not_mix_in_evaluation(windows):
    network = network_of(torch.float64).eval()
    spectra, fast = FrameSpectra(windows(torch.float64)), FourierNetwork(network)
    with torch.no_grad():
        together = fast(spectra.at(INDICES))
        alone = torch.cat([fast(spectra.at(INDICES[i : i + 1])) for i in range(len(INDICES))])
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-12)
