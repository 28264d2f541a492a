"""Convolutions of the retina network through the Fourier domain, differentiable in their kernels.

The maps are so small (50 × 50) that Fourier transforms are fastest as matrix products.

Notation: b windows, y x places, i channels in, o channels out, fy fx frequencies (fy only the half
that a real map needs). Maps lie as (y, x, channel, b); a complex number is one more axis of length
2, (re, im).
"""

from collections.abc import Sequence

import torch

__all__ = ["FourierConvolution", "FourierGrid", "KernelSpectrum", "inward", "outward"]


def inward(values: torch.Tensor) -> torch.Tensor:
    """``(b, c, y, x)`` to ``(y, x, c, b)``, contiguous; ``(b, n)`` to ``(n, b)``."""
    return values.T if values.ndim == 2 else values.permute(2, 3, 1, 0).contiguous()


def outward(values: torch.Tensor) -> torch.Tensor:
    """Invert `inward`, as a view."""
    return values.T if values.ndim == 2 else values.permute(3, 2, 0, 1)


class FourierGrid:
    """Transforms of maps of one size, ``shape``, to all frequencies and back to the first places.

    ``shape_out``: rows and columns that are wanted back; for a convolution without padding
    ``shape - kernel + 1``, where nothing wraps around. ``like`` gives dtype and device.
    """

    def __init__(self, shape: Sequence[int], shape_out: Sequence[int], like: torch.Tensor) -> None:
        rows, columns = shape
        self.shape, self.shape_out = (rows, columns), (shape_out[0], shape_out[1])
        self.half, self.columns = rows // 2 + 1, columns
        along_y, along_x = (_transform(n) for n in shape)  # in double precision, once
        twice = torch.full((self.half,), 2.0 / rows, dtype=torch.float64)
        twice[0] = 1.0 / rows
        if rows % 2 == 0:
            twice[-1] = 1.0 / rows
        back_y = along_y[: self.half, : shape_out[0]] * twice[:, None]  # Re(z·e^{ia}), by (re, im)
        back_x = along_x[:, : shape_out[1]].mH / columns  # (x, fx)
        matrices = (
            torch.stack((along_y[: self.half].real, along_y[: self.half].imag), 1).flatten(0, 1),
            _pairs(along_x).permute(1, 0, 2, 3).flatten(2).flatten(0, 1),  # (fx, 2) by (2, x)
            _pairs(back_x).permute(0, 1, 3, 2).flatten(2).flatten(0, 1),  # (2, x) by (fx, 2)
            torch.stack((back_y.real, back_y.imag), 1).flatten(0, 1).T,
        )
        # (fy·2, y), (fx·2, 2·x), (2·x, fx·2), (y, fy·2)
        self._matrices = [m.to(like.dtype).contiguous().to(like.device) for m in matrices]

    def transposed(self) -> "FourierGrid":
        """Return the grid whose `into` is the transpose of `back`, and the reverse."""
        turned = object.__new__(FourierGrid)
        turned.shape, turned.shape_out = self.shape_out, self.shape
        turned.half, turned.columns = self.half, self.columns
        turned._matrices = [m.T.contiguous() for m in self._matrices[::-1]]
        return turned

    def into(self, maps: torch.Tensor) -> torch.Tensor:
        """Transform ``(y, x, channel, b)`` to ``(frequency, 2·channel, b)``, (re, im) outermost."""
        into_y, into_x = self._matrices[:2]
        values = into_y @ maps.flatten(1)  # (fy·2, x·channel·b)
        values = torch.matmul(into_x, values.view(self.half, 2 * self.shape[1], -1))
        return values.view(self.half * self.columns, -1, maps.shape[-1])

    def back(self, spectrum: torch.Tensor) -> torch.Tensor:
        """Transform ``(frequency, 2·channel, b)`` back to ``(y, x, channel, b)``."""
        from_x, from_y = self._matrices[2:]
        values = torch.matmul(from_x, spectrum.view(self.half, 2 * self.columns, -1))
        values = from_y @ values.view(2 * self.half, -1)  # (y, x·channel·b)
        return values.view(*self.shape_out, -1, spectrum.shape[-1])


class KernelSpectrum:
    """A kernel of ``size`` px at every frequency of ``grid``, as differentiable matrices.

    K(fy, fx) = Σ w(u, v) e^{2πi(fy·u/rows + fx·v/columns)}; the output's transform is Σ_i K X. As a
    real matrix: ``(re, o), (im, o)`` by ``(re, i), (im, i)``. ``like`` gives dtype and device.
    """

    def __init__(self, grid: FourierGrid, size: int, like: torch.Tensor) -> None:
        along_y, along_x = (_transform(n)[:, :size].conj() for n in grid.shape)
        rows = (
            torch.stack((along_y.real, -along_y.imag), -1),
            torch.stack((along_y.imag, along_y.real), -1),
        )
        along_y = torch.stack(rows)[:, : grid.half].flatten(2).flatten(0, 1)  # (2, fy) by (u, 2)
        along_x = torch.cat((along_x.real, along_x.imag))  # (2, fx) by v
        self._along_y = along_y.to(like.dtype).to(like.device)
        self._along_x = along_x.to(like.dtype).to(like.device)

    def __call__(
        self,
        weight: torch.Tensor,
        surround: torch.Tensor | None = None,
        *,
        paired: bool = False,
    ) -> torch.Tensor:
        """Return the matrices ``(frequency, 2·o, 2·i)`` of a kernel ``(o, i, size, size)``.

        ``surround`` (o, i) weighs the mean of the whole map, which is its transform at frequency 0
        over the number of places. ``paired``: the input has (re, im) side by side, ``(i, 2)``, and
        not outermost.
        """
        channels, size = weight.shape[:2], weight.shape[-1]
        values = weight.permute(2, 3, 0, 1).flatten(2)  # (u, v, o·i)
        values = torch.matmul(self._along_x, values).view(2 * size, -1)  # (u·2, fx·o·i)
        real, imaginary = (self._along_y @ values).view(2, -1, *channels)  # (2, f, o, i)
        if surround is not None:
            real = torch.cat((real[:1] + surround, real[1:]))
        axis = -1 if paired else -2
        upper = torch.stack((real, -imaginary), axis).flatten(2)
        lower = torch.stack((imaginary, real), axis).flatten(2)
        return torch.cat((upper, lower), 1)


class FourierConvolution:
    """A convolution without padding and its transpose, by products with cosines and sines.

    ``K ∗ r = I_y I_x K̂ F_x F_y r``: F transforms along y, then x, K̂ mixes channels at every
    frequency, I transforms back to the places where nothing wraps around. ``weight`` (channel out,
    channel in, k, k); ``shape``: rows and columns of the input; ``surround`` (channel out, channel
    in), if there is one, weighs the mean of the input over all of them.
    """

    def __init__(
        self, weight: torch.Tensor, shape: Sequence[int], surround: torch.Tensor | None = None
    ) -> None:
        size = weight.shape[-1]
        self.shape_out = (shape[0] - size + 1, shape[1] - size + 1)
        self._grid = FourierGrid(shape, self.shape_out, weight)
        self._turned = self._grid.transposed()
        exact = weight.cpu().double()  # once, on the CPU; some devices have no double precision
        wide = None if surround is None else surround.cpu().double()
        mix = KernelSpectrum(self._grid, size, exact)(exact, wide)  # (frequency, 2·o, 2·i)
        self._mix = mix.to(weight.dtype).contiguous().to(weight.device)
        self._mix_turned = self._mix.mT.contiguous()

    def __call__(self, maps: torch.Tensor) -> torch.Tensor:
        """Convolve ``(y, x, c, b)``."""
        return self._grid.back(torch.bmm(self._mix, self._grid.into(maps)))

    def transposed(self, maps: torch.Tensor) -> torch.Tensor:
        """Apply the transpose: from gradients of the output to gradients of the input."""
        return self._turned.back(torch.bmm(self._mix_turned, self._turned.into(maps)))


def _transform(size: int) -> torch.Tensor:
    """Return the matrix of the discrete Fourier transform, (frequency, place), complex."""
    places = torch.arange(size, dtype=torch.float64)
    angle = -2 * torch.pi / size * torch.outer(places, places)
    return torch.complex(angle.cos(), angle.sin())


def _pairs(matrix: torch.Tensor) -> torch.Tensor:
    """Write complex ``(..., i, j)`` as the real ``(..., 2, i, 2, j)`` that acts on (re, im)."""
    real, imaginary = matrix.real, matrix.imag
    upper = torch.stack((real, -imaginary), -2)
    return torch.stack((upper, torch.stack((imaginary, real), -2)), -4)
