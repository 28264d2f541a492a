"""Convolutions by matrices of cosines and sines against torch's own, forward and backward."""

import pytest
import torch
from torch.nn.functional import conv2d, conv_transpose2d

from retina_codec.networks.retina.fourier import FourierConvolution


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
