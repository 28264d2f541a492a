"""Receptive fields of the retina network: gradients of all cells at once.

The gradient goes down in the sight of each cell only, and through the first kernels by Fourier.

Notation: e events, n cells, p parts, l lags, c d channels of the first and second layer, s × s' a
cell's sight in the first layer, f frequencies; h output of a convolution, z after its norm.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import nn

from retina_codec.networks.retina.model import RetinaCNN
from retina_codec.networks.retina.modules import plain_convolution, surround_of

__all__ = ["Products", "RetinaFields", "Seen"]

CHUNK = {"cpu": 16}  # fields at a time, so that their spectra stay in the cache


class Seen(NamedTuple):
    """The network at some events, in the sight of each cell."""

    rate: torch.Tensor  # (e, n) Hz
    pull: torch.Tensor  # ∂rate/∂h of the third layer where it is read, (e, n)
    second: torch.Tensor  # ∂r/∂h of the second layer, (e, n, d, k, k)
    first: torch.Tensor  # ∂r/∂h of the first layer, (e, n, c, s, s')


class Products(NamedTuple):
    """Fields as products of images and time courses, see `RetinaFields.products`."""

    spatial: torch.Tensor  # (..., rank, y, x) of the sight
    temporal: torch.Tensor  # (..., rank, l)
    explained: torch.Tensor  # (..., rank)
    mean: torch.Tensor  # (...)


class RetinaFields:
    """Gradients of all rates of a retina network with respect to the stimulus window.

    ``∂rate_i/∂w = K₁ᵀ s₁ ∘ K₂ᵀ s₂ ∘ k₃ᵢ σ(z₃ᵢ)`` with K the convolutions and s the slopes of the
    nonlinearities times the scales of the norms. A cell reads one place of the third layer, so
    everything is kept in its sight only; with a wide field that is the whole frame.

    Parameters
    ----------
    network : RetinaCNN
        Evaluated without noise; not modified.

    Attributes
    ----------
    sides : (int, int)
        Pixels of a cell's sight along y and x.
    corners : torch.Tensor
        ``(n, 2)``, row and column of the first pixel in sight.
    """

    def __init__(self, network: RetinaCNN) -> None:
        plain = network.collapse()
        self.frame_shape, self.lags = network.frame_shape, network.history
        self._first, self._second = map(plain_convolution, (plain.conv1, plain.conv2))
        self._third = plain.conv3.weight.detach()  # (n, d, k, k)
        norms = (plain.norm1, plain.norm2, plain.norm3)
        self._scale, self._shift = zip(*(norm.scale_and_shift() for norm in norms), strict=True)
        self.corners = self._places = plain.readout.locations
        size, second = self._third.shape[-1], self._second.weight.shape[-1]
        self._wide, self._size = surround_of(self._second), size
        self._local = size + second - 1  # what the kernels of a cell see of the first layer
        self._sight = (self._local, self._local)  # what it sees in all
        kernels = self._first.weight.detach()  # (c, l, k, k)
        if self._wide is not None:
            first = kernels.shape[-1] - 1
            self._sight = (self.frame_shape[0] - first, self.frame_shape[1] - first)
            self.corners = torch.zeros_like(self._places)
        self._second_grid = self._local + self._local % 2
        middle = torch.fft.rfft2(self._second.weight.detach(), s=(self._second_grid,) * 2)
        self._second_kernels = middle.flatten(2).permute(2, 0, 1).contiguous()  # (f, d, c)
        rows, columns = (n + kernels.shape[-1] - 1 for n in self._sight)
        self.sides = (rows, columns)
        self._grid = (rows + rows % 2, columns + columns % 2)
        spectrum = torch.fft.rfft2(kernels, s=self._grid)
        self._columns = spectrum.shape[-1]
        spectrum = spectrum.flatten(2).permute(2, 0, 1)  # (f, c, l)
        # Weights with which the sum of squares over f is that over pixels.
        weight = torch.full((self._columns,), 2.0, dtype=kernels.dtype, device=kernels.device)
        weight[0] = 1.0
        weight[-1] = 1.0  # the grid is even
        rows, columns = self._grid
        self._weight = (weight / (rows * columns)).sqrt().repeat(rows)  # (f,)
        real, imaginary = spectrum.real, spectrum.imag
        by_real, by_imaginary = torch.cat((real, imaginary), 2), torch.cat((-imaginary, real), 2)
        kernel = torch.cat((by_real, by_imaginary), 1)  # (f, 2·c, 2·l)
        self._kernels = (kernel * self._weight[:, None, None]).contiguous()

    def evaluate(self, first: torch.Tensor) -> Seen:
        """Evaluate the network from outputs of the first convolution, ``(e, c, row, column)``."""
        with torch.no_grad():
            z = _normal(first, self._scale[0], self._shift[0])
            slope = torch.gt(z, 0).to(z.dtype) * self._scale[0][:, None, None]
            h = self._second(z.relu())
            z2 = _normal(h, self._scale[1], self._shift[1])
            slope2 = torch.gt(z2, 0).to(z.dtype) * self._scale[1][:, None, None]
            seen = self._patches(z2.relu(), self._size)  # (e, n, d, k, k)
            z3 = torch.einsum("endyx,ndyx->en", seen, self._third)
            z3 = z3 * self._scale[2] + self._shift[2]
            return Seen(
                nn.functional.softplus(z3),
                z3.sigmoid() * self._scale[2],
                self._patches(slope2, self._size),
                self._in_sight(slope),
            )

    def descend(
        self, seen: Seen, layer: str = "conv1", shares: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Go down to the first layer, through shares of the units of one layer.

        Parameters
        ----------
        seen : Seen
        layer : str
            ``conv1``, ``conv2`` or ``conv3``.
        shares : torch.Tensor, optional
            ``(e, p, channel, row, column)`` of that layer; one part with all units when left out.

        Returns
        -------
        torch.Tensor
            ``(e, n, p, c, s, s')``, Hz per unit of the first convolution.
        """
        with torch.no_grad():
            pull = seen.pull[:, :, None]  # (e, n, p)
            if shares is not None and layer == "conv3":
                pull = pull * self._read(shares)
            gradient = pull[..., None, None, None] * self._third[:, None]
            gradient = gradient * seen.second[:, :, None]  # (e, n, p, d, k, k)
            if shares is not None and layer == "conv2":
                cut = self._patches(shares.flatten(0, 1), self._size)
                gradient = gradient * _by_part(cut, shares)
            down = self._below_second(gradient) * seen.first[:, :, None]
            if shares is not None and layer == "conv1":
                down = down * _by_part(self._in_sight(shares.flatten(0, 1)), shares)
            return down

    def _below_second(self, gradient: torch.Tensor) -> torch.Tensor:
        """Transpose the second convolution, ``(e, n, p, d, k, k)`` to ``(e, n, p, c, s, s')``."""
        local = self._below_kernels(gradient.flatten(0, 2))
        local = local.reshape(*gradient.shape[:3], *local.shape[1:])
        if self._wide is None:
            return local
        rows, columns = self._sight
        mean = gradient.sum((-2, -1)) @ self._wide / (rows * columns)  # (e, n, p, c)
        maps = mean[..., None, None].repeat(1, 1, 1, 1, rows, columns)
        for cell, (row, column) in enumerate(self._places.tolist()):
            part = maps[:, cell, ..., row : row + self._local, column : column + self._local]
            part += local[:, cell]
        return maps

    def _below_kernels(self, gradient: torch.Tensor) -> torch.Tensor:
        """Apply the transpose of the second kernels, ``(b, d, k, k)`` to ``(b, c, s, s)``."""
        grid, side = self._second_grid, self._local
        spectrum = torch.fft.rfft2(gradient, s=(grid, grid)).flatten(2).permute(2, 0, 1)
        product = torch.bmm(spectrum, self._second_kernels).permute(1, 2, 0)  # (b, c, f)
        product = product.reshape(*product.shape[:2], grid, grid // 2 + 1)
        maps: torch.Tensor = torch.fft.irfft2(product, s=(grid, grid))
        return maps[..., :side, :side]

    def fields(self, gradient: torch.Tensor) -> torch.Tensor:
        """Go on to the stimulus: ``(..., c, s, s')`` to fields ``(..., l, y, x)`` in sight."""
        with torch.no_grad():
            found = [self._to_space(spectra.movedim(-1, 1)) for spectra in self._chunks(gradient)]
            whole = torch.cat(found)
            return whole.reshape(*gradient.shape[:-3], *whole.shape[1:])

    def products(self, gradient: torch.Tensor, rank: int = 1) -> Products:
        """Find the best products of an image and a time course, without making the fields.

        With A a field over the whole frame minus its mean: ``A Aᵀ`` (l × l) follows from the
        spectra (Parseval), its leading eigenvectors are the time courses, ``temporalᵀ A`` the
        images. The sign is such that the largest value of a time course is positive.

        Parameters
        ----------
        gradient : torch.Tensor
            ``(..., c, s, s')`` from `descend`.
        rank : int
            How many products.

        Returns
        -------
        Products
            Images in sight; outside they are ``−mean · Σ temporal`` everywhere. Time courses of
            unit length; NaN, like the share, where the field is constant.
        """
        pixels = self.frame_shape[0] * self.frame_shape[1]
        parts = []
        with torch.no_grad():
            for spectra in self._chunks(gradient):  # (b, f, 2, l)
                size = spectra.abs().amax((1, 2, 3))
                size = torch.where(size > 0, size, 1.0)  # squares of small fields must not vanish
                spectra = spectra / size[:, None, None, None]
                flat = spectra.flatten(1, 2)
                gram = flat.mT @ flat
                sums = spectra[:, 0, 0] / self._weight[0]  # (b, l), over pixels
                mean = sums.sum(-1) / (self.lags * pixels)
                cross = mean[:, None, None] * (sums[:, :, None] + sums[:, None, :])
                gram = gram - cross + (mean.square() * pixels)[:, None, None]
                values, vectors = torch.linalg.eigh(gram)
                values, temporal = values[:, -rank:].flip(-1), vectors[..., -rank:].flip(-1).mT
                peak = temporal.gather(-1, temporal.abs().argmax(-1, keepdim=True))
                temporal = temporal * torch.where(peak < 0, -1.0, 1.0).to(temporal.dtype)
                image = self._to_space((temporal @ flat.mT).reshape(*temporal.shape[:2], -1, 2))
                image = image - (mean[:, None] * temporal.sum(-1))[..., None, None]
                total = gram.diagonal(dim1=-2, dim2=-1).sum(-1, keepdim=True)
                zero = total <= 0
                explained = torch.where(zero, torch.nan, values.clamp(min=0) / total)
                temporal = torch.where(zero[..., None], torch.nan, temporal)
                image, mean = image * size[:, None, None, None], mean * size
                parts.append((image, temporal, explained, mean))
        shape = gradient.shape[:-3]
        whole = (torch.cat(part) for part in zip(*parts, strict=True))
        return Products(*(part.reshape(*shape, *part.shape[1:]) for part in whole))

    def place(self, values: torch.Tensor, outside: torch.Tensor | None = None) -> torch.Tensor:
        """Put fields in sight ``(e, n, ..., y, x)`` into frames of ``outside`` (or 0)."""
        frames = values.new_zeros(*values.shape[:-2], *self.frame_shape)
        if outside is not None:
            frames = frames + outside[..., None, None]
        for cell, (row, column) in enumerate(self.corners.tolist()):
            rows, columns = slice(row, row + self.sides[0]), slice(column, column + self.sides[1])
            frames[:, cell, ..., rows, columns] = values[:, cell]
        return frames

    def _chunks(self, gradient: torch.Tensor) -> Iterator[torch.Tensor]:
        """Spectra of the fields of ``(..., c, s, s')``, weighted: ``(b, f, 2, l)`` at a time."""
        flat, size = gradient.flatten(0, -4), CHUNK.get(gradient.device.type, 512)
        for start in range(0, len(flat), size):
            part = flat[start : start + size]
            seen = torch.fft.rfft2(part, s=self._grid).flatten(2)  # (b, c, f)
            seen = torch.view_as_real(seen).permute(2, 0, 3, 1).flatten(2)  # (f, b, 2·c)
            product = torch.bmm(seen, self._kernels)  # (f, b, 2·l)
            yield product.transpose(0, 1).reshape(len(part), len(product), 2, self.lags)

    def _to_space(self, spectra: torch.Tensor) -> torch.Tensor:
        """Transform ``(..., f, 2)`` back to ``(..., y, x)`` in sight."""
        spectrum = torch.view_as_complex((spectra / self._weight[:, None]).contiguous())
        spectrum = spectrum.reshape(*spectrum.shape[:-1], self._grid[0], self._columns)
        maps: torch.Tensor = torch.fft.irfft2(spectrum, s=self._grid)
        return maps[..., : self.sides[0], : self.sides[1]]

    def _patches(self, maps: torch.Tensor, size: int) -> torch.Tensor:
        """Cut every cell's sight out of ``(e, c, row, column)``: ``(e, n, c, size, size)``."""
        every = maps.unfold(2, size, 1).unfold(3, size, 1)  # (e, c, row, column, size, size)
        return every[:, :, self._places[:, 0], self._places[:, 1]].movedim(2, 1)

    def _in_sight(self, maps: torch.Tensor) -> torch.Tensor:
        """Give what every cell sees of the first layer ``(e, c, ...)``: ``(e, n, c, s, s')``."""
        if self._wide is None:
            return self._patches(maps, self._local)
        return maps[:, None].expand(-1, len(self._places), -1, -1, -1)

    def _read(self, maps: torch.Tensor) -> torch.Tensor:
        """Read ``(e, p, n, row, column)`` at each cell's own channel and place: ``(e, n, p)``."""
        cell = torch.arange(len(self._places), device=maps.device)
        return maps[:, :, cell, self._places[:, 0], self._places[:, 1]].movedim(1, 2)


def _by_part(cut: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """Give ``(e·p, n, c, ...)``, cut out of shares ``(e, p, ...)``, as ``(e, n, p, c, ...)``."""
    return cut.reshape(*shares.shape[:2], *cut.shape[1:]).movedim(2, 1)


def _normal(h: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    return h * scale[:, None, None] + shift[:, None, None]
