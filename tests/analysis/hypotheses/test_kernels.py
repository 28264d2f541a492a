"""Kernels: planted ones are described as they are; the first layer's is its weight."""

import numpy as np
import pytest
import torch

from retina_codec.analysis.hypotheses.kernels import (
    _mean_kernels,
    channel_kernels,
    separable_kernels,
    summarise_kernel,
)
from retina_codec.errors import RetinaCodecError
from tests.small import HISTORY, small_network, small_recording

LAGS = np.arange(12, 0, -1) / 100


def planted(sign=1.0, peak=4, rebound=0.3, width=1.5):
    """Time course with a peak and a rebound, times a Gaussian."""
    course = np.zeros(12)
    course[peak], course[peak - 3] = sign, -sign * rebound
    y, x = np.indices((21, 21)) - 10
    return course[:, None, None] * np.exp(-(y**2 + x**2) / (2 * width**2))


@pytest.mark.parametrize(("sign", "name"), [(1.0, "ON"), (-1.0, "OFF")])
def test_a_planted_kernel_is_described(sign, name):
    polarity, lag, biphasic, width = summarise_kernel(planted(sign), LAGS)
    assert polarity == name
    assert lag == pytest.approx(LAGS[4])
    assert biphasic == pytest.approx(0.3)
    assert width == pytest.approx(2 * 1.5, rel=1e-3)  # g² has the variance σ²/2 in y and in x


def test_scale_changes_nothing_and_noise_little():
    kernel = planted()
    assert summarise_kernel(7 * kernel, LAGS) == pytest.approx(summarise_kernel(kernel, LAGS))
    noisy = kernel + np.random.default_rng(0).normal(0, 0.01, kernel.shape)
    found = summarise_kernel(noisy, LAGS)
    assert found[:2] == ("ON", LAGS[4])
    assert found[2] == pytest.approx(0.3, abs=0.05)


def test_a_kernel_of_zeros_has_no_polarity():
    polarity, *numbers = summarise_kernel(np.zeros((12, 5, 5)), LAGS)
    assert polarity == "none"
    assert np.isnan(numbers).all()


def test_the_kernels_of_the_first_layer_are_its_weights():
    network = small_network()
    found = channel_kernels(network, small_recording(network, bins=60)["test"], samples=3)
    lags = np.arange(HISTORY, 0, -1) / 100
    for channel in range(4):
        weight = network.conv1.weight[channel].detach().double().numpy()
        row = found.sel(channel=f"conv1/{channel}")
        polarity, lag, biphasic, width = summarise_kernel(weight, lags)  # the norm keeps the sign
        assert row["polarity"] == polarity
        expected = [lag, biphasic, width]
        got = [float(row[name]) for name in ("peak_lag", "biphasic_index", "width")]
        np.testing.assert_allclose(got, expected, rtol=1e-4)


def test_the_kernels_of_the_second_layer_follow_from_finite_differences():
    network = small_network().double()
    split = small_recording(bins=60)["test"]
    frames = torch.from_numpy((split["stimulus"].values[: HISTORY + 1] - 127.5) / 60.0)
    windows = torch.stack([frames[t : t + HISTORY] for t in (0, 1)])[..., 5:10, 5:10]

    def unit(stack):
        return network.norm2(network.conv2(torch.relu(network.norm1(network.conv1(stack)))))[
            :, 2, 0, 0
        ].mean()

    kernel = np.zeros((HISTORY, 5, 5))
    with torch.no_grad():
        for place in np.ndindex(kernel.shape):
            step = torch.zeros(kernel.shape, dtype=torch.float64)
            step[place] = 1e-5
            kernel[place] = (unit(windows + step) - unit(windows - step)) / 2e-5
    short = split.to_dataset()[["stimulus"]].isel(time=slice(0, HISTORY + 2))
    found = channel_kernels(small_network(), short, samples=2).sel(channel="conv2/2")
    polarity, lag, biphasic, width = summarise_kernel(kernel, np.arange(HISTORY, 0, -1) / 100)
    assert found["polarity"] == polarity
    got = [float(found[name]) for name in ("peak_lag", "biphasic_index", "width")]
    np.testing.assert_allclose(got, [lag, biphasic, width], rtol=1e-3)


def test_kernels_reach_over_the_whole_frame_with_a_wide_field():
    """Outside the local kernels the change of the unit follows from finite differences."""
    network = small_network(surround=True)
    split = small_recording(network, bins=60)["test"].to_dataset()[["stimulus"]]
    split = split.isel(time=slice(0, HISTORY + 2))
    kernels, _, count = _mean_kernels(network, split, 2, None)
    kernel = kernels["conv2/2"]
    assert count == 2
    assert kernel.shape == (HISTORY, 16, 16)
    assert not kernels["conv1/1"][:, :6].any()
    network = network.double()
    frames = torch.from_numpy((split["stimulus"].values - 127.5) / 60.0)
    windows = torch.stack([frames[t : t + HISTORY] for t in (0, 1)])

    def unit(stack):
        first = torch.relu(network.norm1(network.conv1(stack)))
        return network.norm2(network.conv2(first))[:, 2, 6, 6].mean()

    for place in [(7, 1, 2), (3, 12, 14), (5, 8, 8), (0, 15, 0)]:
        step = torch.zeros(windows.shape[1:], dtype=torch.float64)
        step[place] = 1e-6
        with torch.no_grad():
            slope = float(unit(windows + step) - unit(windows - step)) / 2e-6
        assert kernel[place] == pytest.approx(slope, rel=1e-3, abs=1e-6)
        assert slope
    drawn = separable_kernels(small_network(surround=True), split, samples=2)
    assert drawn["field_y"].values.tolist() == list(range(-8, 8))


def test_the_part_to_draw_is_the_nearest_product_of_time_and_space():
    network = small_network()
    with torch.no_grad():
        network.conv1.weight[1] = 0.0
        network.conv1.weight[3] = -network.conv1.weight[0]
    split = small_recording(network, bins=60)["test"]
    found = separable_kernels(network, split, samples=3)
    assert found["lag"].values.tolist() == pytest.approx((np.arange(HISTORY, 0, -1) / 100).tolist())
    zeros = found.sel(channel="conv1/1")
    assert not zeros["time_course"].any()
    assert not zeros["field"].any()
    weight = network.conv1.weight[0].detach().double().numpy()
    part = found.sel(channel="conv1/0", field_y=[-1, 0, 1], field_x=[-1, 0, 1])
    assert float(part["time_course"].max()) == 1 or float(part["time_course"].min()) == -1
    assert float(part["field"].max()) == 1
    product = part["time_course"].values[:, None, None] * part["field"].values
    scale = (product * weight).sum() / (product**2).sum()
    left = ((weight - scale * product) ** 2).sum() / (weight**2).sum()
    values = np.linalg.svd(weight.reshape(HISTORY, -1), compute_uv=False)
    assert left == pytest.approx((values[1:] ** 2).sum() / (values**2).sum(), rel=1e-4)
    assert scale > 0  # the norm keeps the sign
    other = found.sel(channel="conv1/3")
    np.testing.assert_allclose(other["time_course"], -part["time_course"], rtol=1e-4)  # float32
    described = channel_kernels(network, split, samples=3)
    peak = abs(found["time_course"]).idxmax("lag").sel(channel="conv2/2")
    assert float(peak) == pytest.approx(float(described["peak_lag"].sel(channel="conv2/2")))


def test_no_window_is_refused():
    network = small_network()
    with pytest.raises(RetinaCodecError, match="at least one window"):
        channel_kernels(network, small_recording(network, bins=60)["test"], samples=0)
