"""Fourier grids and kernel spectra: against numpy, scipy and torch convolutions."""

import numpy as np
import pytest
import torch
from scipy.signal import correlate
from torch.nn.functional import conv2d, conv_transpose2d

from retina_codec.networks.retina.fourier import FourierConvolution, FourierGrid, KernelSpectrum

SHAPES = [(12, 12), (11, 13), (10, 7)]


def random(*shape):
    return torch.from_numpy(np.random.default_rng(0).normal(size=shape))


@pytest.mark.parametrize("shape", SHAPES)
def test_into_is_numpys_transform(shape):
    maps = random(*shape, 3, 2)
    grid = FourierGrid(shape, shape, maps)
    ours = grid.into(maps).view(grid.half, shape[1], 2, 3, 2).numpy()
    theirs = np.fft.fft2(maps.numpy(), axes=(0, 1))[: grid.half]
    np.testing.assert_allclose(ours[:, :, 0], theirs.real, atol=1e-12)
    np.testing.assert_allclose(ours[:, :, 1], theirs.imag, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_back_gives_the_first_places_of_what_went_in(shape):
    maps = random(*shape, 3, 2)
    grid = FourierGrid(shape, (6, 5), maps)
    np.testing.assert_allclose(grid.back(grid.into(maps)), maps[:6, :5], atol=1e-13)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [2, 5])
def test_a_kernel_is_a_product_at_every_frequency(shape, size):
    weight, maps = random(4, 3, size, size), random(*shape, 3, 2)
    grid = FourierGrid(shape, [n - size + 1 for n in shape], maps)
    spectrum = KernelSpectrum(grid, size, weight)
    into = grid.into(maps)
    ours = grid.back(torch.bmm(spectrum(weight), into))
    for window in range(2):
        for out in range(4):
            planes = [
                correlate(maps[:, :, i, window], weight[out, i], mode="valid") for i in range(3)
            ]
            np.testing.assert_allclose(ours[:, :, out, window], np.sum(planes, 0), atol=1e-12)
    side_by_side = into.view(len(into), 2, 3, 2).transpose(1, 2).flatten(1, 2)
    paired = grid.back(torch.bmm(spectrum(weight, paired=True), side_by_side))
    np.testing.assert_allclose(paired, ours, atol=1e-12)


def test_gradients_of_kernel_and_maps_are_those_of_torchs_convolution():
    weight, maps, pull = random(4, 3, 5, 5), random(9, 10, 3, 2), random(5, 6, 4, 2)
    weight.requires_grad_()
    maps.requires_grad_()
    grid = FourierGrid((9, 10), (5, 6), maps)
    spectrum = KernelSpectrum(grid, 5, weight.detach())
    ours = torch.autograd.grad(
        grid.back(torch.bmm(spectrum(weight), grid.into(maps))), (weight, maps), pull
    )
    plain = torch.nn.functional.conv2d(maps.permute(3, 2, 0, 1), weight).permute(2, 3, 1, 0)
    theirs = torch.autograd.grad(plain, (weight, maps), pull)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("shape", [(9, 8), (8, 9), (5, 5), (3, 7), (36, 36)])
@pytest.mark.parametrize("size", [1, 3])
def test_products_with_waves_are_the_convolution(shape: tuple[int, int], size: int) -> None:
    random = torch.Generator().manual_seed(size)
    weight = torch.randn(3, 2, size, size, generator=random, dtype=torch.float64)
    maps = torch.randn(4, 2, *shape, generator=random, dtype=torch.float64)
    convolution = FourierConvolution(weight, shape)
    expected = conv2d(maps, weight)
    found = convolution(maps.permute(2, 3, 1, 0).contiguous())
    torch.testing.assert_close(found.permute(3, 2, 0, 1), expected, atol=1e-12, rtol=1e-9)
    back = convolution.transposed(expected.permute(2, 3, 1, 0).contiguous())
    torch.testing.assert_close(
        back.permute(3, 2, 0, 1), conv_transpose2d(expected, weight), atol=1e-11, rtol=1e-9
    )
