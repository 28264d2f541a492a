"""Convolution with large kernels and its transpose through the Fourier domain, as matrices.

Why this file exists: a kernel of 11 × 11 costs 121 products per place and channel pair in space
and a fraction of that at every frequency. Maps of a retina network are so small (36 × 36) that
transforms are fastest as products with matrices of cosines and sines, which need no reordering of
memory and are their own transpose backwards. It knows nothing of networks.

Notation: b windows, y x places, c channels, o channels out, fy fx frequencies.
"""

from collections.abc import Sequence

import torch

from retina_codec.networks.fourier import FourierGrid, KernelSpectrum

__all__ = ["FourierConvolution"]


class FourierConvolution:
    """A convolution without padding and its transpose, by products with cosines and sines.

    ``K ∗ r = I_y I_x K̂ F_x F_y r``: F transform y, then x, K̂ mixes channels at every frequency, I
    transform back to the places that nothing wraps around to. All are real matrices; real and
    imaginary part are one more axis of length 2.

    Parameters
    ----------
    weight : torch.Tensor, (channel out, channel in, k, k)
    shape : sequence of int
        Rows and columns of what comes in.
    """

    def __init__(self, weight: torch.Tensor, shape: Sequence[int]) -> None:
        rows, columns = shape
        size = weight.shape[-1]
        self.shape_in = (rows, columns)
        self.shape_out = (rows - size + 1, columns - size + 1)
        exact = weight.cpu().double()  # once, on the CPU; some devices have no double precision
        grid = FourierGrid(shape, self.shape_out, exact)
        self._frequencies = (grid.half, columns)
        into_y, into_x, from_x, from_y = grid.matrices
        mix = KernelSpectrum(grid, size, exact)(exact)  # (frequency, 2·o, 2·i)
        self._forward = [
            m.to(weight.dtype).contiguous().to(weight.device)
            for m in (into_y, into_x, mix, from_x, from_y)
        ]
        self._backward = [m.transpose(-1, -2).contiguous() for m in self._forward[::-1]]

    def __call__(self, maps: torch.Tensor) -> torch.Tensor:
        """Convolve ``(y, x, c, b)``."""
        return self._apply(self._forward, maps, self.shape_out)

    def transposed(self, maps: torch.Tensor) -> torch.Tensor:
        """Apply the transpose: from gradients of the output to gradients of the input."""
        return self._apply(self._backward, maps, self.shape_in)

    def _apply(
        self, matrices: list[torch.Tensor], maps: torch.Tensor, shape: tuple[int, int]
    ) -> torch.Tensor:
        into_y, into_x, mix, from_x, from_y = matrices
        windows, (half, columns) = maps.shape[-1], self._frequencies
        values = into_y @ maps.flatten(1)  # (fy·2, x·c·b)
        values = torch.matmul(into_x, values.view(half, into_x.shape[1], -1))  # (fy, fx·2, c·b)
        values = torch.bmm(mix, values.view(half * columns, -1, windows))  # (fy·fx, 2·c, b)
        values = torch.matmul(from_x, values.view(half, 2 * columns, -1))  # (fy, 2·x, c·b)
        values = from_y @ values.view(2 * half, -1)  # (y, x·c·b)
        return values.view(*shape, -1, windows)
