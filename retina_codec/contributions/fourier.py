"""Convolution with large kernels and its transpose through the Fourier domain, as matrices.

Why this file exists: a kernel of 11 × 11 costs 121 products per place and channel pair in space
and a fraction of that at every frequency. Maps of a retina network are so small (36 × 36) that
transforms are fastest as products with matrices of cosines and sines, which need no reordering of
memory and are their own transpose backwards. It knows nothing of networks.

Notation: b windows, y x places, c channels, o channels out, fy fx frequencies.
"""

from collections.abc import Sequence

import torch

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
        self.shape_in, self._frequencies = (rows, columns), (rows // 2 + 1, columns)
        self.shape_out = (rows - weight.shape[2] + 1, columns - weight.shape[3] + 1)
        half = self._frequencies[0]
        # In double precision on the CPU, once; some devices have none.
        spectrum = torch.fft.fft2(weight.cpu().double(), s=(rows, columns))[..., :half, :].conj()
        mix = _real(spectrum.permute(2, 3, 0, 1).resolve_conj())  # (fy, fx, 2, o, 2, i)
        along_y, along_x = (_fourier(n) for n in shape)
        twice = torch.full((half,), 2.0 / rows, dtype=torch.float64)
        twice[0] = 1.0 / rows
        if rows % 2 == 0:
            twice[-1] = 1.0 / rows
        back_y = along_y[:half, : self.shape_out[0]] * twice[:, None]  # Re(z·e^{ia}), by (re, im)
        back_x = along_x[:, : self.shape_out[1]].mH / columns  # (x, fx)
        forward = (
            torch.stack((along_y[:half].real, along_y[:half].imag), 1).flatten(0, 1),
            _real(along_x).permute(1, 0, 2, 3).flatten(2).flatten(0, 1),  # (fx, 2) by (2, x)
            mix.flatten(4).flatten(2, 3).flatten(0, 1),
            _real(back_x).permute(0, 1, 3, 2).flatten(2).flatten(0, 1),  # (2, x) by (fx, 2)
            torch.stack((back_y.real, back_y.imag), 1).flatten(0, 1).T,
        )
        self._forward = [m.to(weight.dtype).contiguous().to(weight.device) for m in forward]
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


def _fourier(size: int) -> torch.Tensor:
    """Return the matrix of the discrete Fourier transform, (frequency, place), complex."""
    places = torch.arange(size, dtype=torch.float64)
    angle = -2 * torch.pi / size * torch.outer(places, places)
    return torch.complex(angle.cos(), angle.sin())


def _real(matrix: torch.Tensor) -> torch.Tensor:
    """Write complex ``(..., i, j)`` as the real ``(..., 2, i, 2, j)`` that acts on (re, im)."""
    real, imaginary = matrix.real, matrix.imag
    upper = torch.stack((real, -imaginary), -2)
    return torch.stack((upper, torch.stack((imaginary, real), -2)), -4)
