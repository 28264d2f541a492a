"""Rates of the retina network in training through Fourier transforms of the frames.

Notation: b windows, l lags, y x pixels, c channels, n cells, f frequencies. Maps lie as
(y, x, c, b).
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from retina_codec.networks.retina.fourier import FourierGrid, KernelSpectrum
from retina_codec.networks.retina.model import RetinaCNN
from retina_codec.networks.retina.modules import StackedConv2d, SurroundConv2d, SurroundStack
from retina_codec.recordings.windows import StimulusWindows

__all__ = ["FourierNetwork", "FrameSpectra", "Rates", "rates_of_windows"]

Integers = npt.NDArray[np.int64]
Rates = Callable[[Integers], torch.Tensor]

WIDE = (SurroundConv2d, SurroundStack)
CHUNK = 1000  # frames transformed at a time
BLOCK = 130  # frequencies copied at a time: more rows in turn are more pages than a CPU knows


def rates_of_windows(
    network: RetinaCNN, windows: StimulusWindows, spectra_bytes: int | None, device: torch.device
) -> Rates:
    """Return a function from response indices to the network's rates, ``(b, n)`` Hz.

    Mode and parameters are those at each call. ``spectra_bytes`` see `FrameSpectra`; None goes the
    plain way, window by window through the network, which is the faster one where convolutions are.
    """
    if spectra_bytes is not None:
        spectra, fast = FrameSpectra(windows, spectra_bytes), FourierNetwork(network)
        return lambda indices: fast(spectra.at(indices).to(device))

    def plain(indices: Integers) -> torch.Tensor:
        batch = windows.at(indices, device=device).contiguous(memory_format=torch.channels_last)
        rates: torch.Tensor = network(batch)
        return rates

    return plain


class FrameSpectra:
    """Fourier transforms of the frames of stimulus windows, held once or made for every batch.

    A frame belongs to up to ``history`` windows, so its transform is worth keeping: about 10 kB for
    50 × 50 pixels in single precision, 2.5 GB for 40 minutes at 100 Hz. All are ``held`` if they
    take at most ``limit`` bytes; otherwise those of a batch are made when asked for, which is
    slower.
    """

    def __init__(self, windows: StimulusWindows, limit: int = 2**32) -> None:
        self._windows = windows
        rows, columns = windows.frame_shape
        frames = len(windows) + windows.history - 1
        size = (rows // 2 + 1) * columns * frames * 2 * windows.dtype.itemsize
        self.held = size <= limit
        self._buffer = torch.empty(0, dtype=windows.dtype.to_complex())
        chunks = [(start, min(start + CHUNK, frames)) for start in range(0, frames, CHUNK)]
        self._all = self._transform(chunks) if self.held else None

    def __len__(self) -> int:
        return len(self._windows)

    def at(self, indices: Integers) -> torch.Tensor:
        """Return the transforms ``(f, b, l·2)`` of the frames of windows (indices of responses).

        (re, im) side by side. Valid until the next call, which writes to the same memory.
        """
        history = self._windows.history
        if self._all is not None:
            source, starts = self._all, indices
        else:
            needed, place = np.unique(indices[:, None] + np.arange(history), return_inverse=True)
            pieces = np.split(needed, np.flatnonzero(np.diff(needed) > 1) + 1)
            source = self._transform([(int(p[0]), int(p[-1]) + 1) for p in pieces])
            starts = place.reshape(-1, history)[:, 0]
        shape = (len(source), len(indices), history)
        if self._buffer.shape != shape:
            self._buffer = source.new_empty(shape)
        for first in range(0, len(source), BLOCK):
            block = source[first : first + BLOCK]
            runs = [block[:, start : start + history] for start in starts.tolist()]
            torch.stack(runs, 1, out=self._buffer[first : first + BLOCK])
        return torch.view_as_real(self._buffer).flatten(2)

    def _transform(self, runs: list[tuple[int, int]]) -> torch.Tensor:
        """Transform runs of frames, (f, frame), complex; y is the axis of which half is kept."""
        rows, columns = self._windows.frame_shape
        count = sum(stop - start for start, stop in runs)
        found = torch.empty(((rows // 2 + 1) * columns, count), dtype=self._buffer.dtype)
        done = 0
        for start, stop in runs:
            spectrum = torch.fft.rfft2(self._windows.frames(start, stop), dim=(2, 1))
            found[:, done : done + stop - start] = spectrum.flatten(1).T
            done += stop - start
        return found


class FourierNetwork:
    """A retina network as a function of transforms of frames; shares its parameters.

    Four facts are used. A convolution is a product at every frequency, and so is the gradient of
    its kernel. A stack of linear convolutions is one convolution. Nothing asks for the gradient of
    the stimulus. Rates see one place of the third layer per cell. Normalisation (in training over
    the whole maps of the batch, with running statistics), noise and rectifiers are the network's
    own modules; noise of the same seed lies at other places than by the plain way. Parameters are
    read at every call, so that they may be trained; type and device must stay. Mathieu, Henaff,
    LeCun 2014, arXiv:1312.5851: training of convolutions through Fourier transforms.
    """

    def __init__(self, network: RetinaCNN) -> None:
        self.network = network
        first, second, third = network.kernel_sizes
        like = network.norm1.scale.detach()
        inner = [n - first + 1 for n in network.frame_shape]
        outer = [n - second + 1 for n in inner]
        self._first = _Convolution(network.conv1, network.frame_shape, inner, like)
        self._second = _Convolution(network.conv2, inner, outer, like)
        # Where the weights of the third layer stand in a matrix from whole maps to cells.
        reach = torch.arange(third, device=like.device)
        y, x = network.readout.locations[:, :, None].unbind(1)
        cell = torch.arange(len(y), device=like.device)[:, None, None]
        self._sight = (cell, (y + reach)[:, :, None], (x + reach)[:, None])
        self._outer = outer

    def __call__(self, spectra: torch.Tensor) -> torch.Tensor:
        """Return the rates, ``(b, n)`` Hz, from what `FrameSpectra.at` gives."""
        network = self.network
        maps = self._first(spectra.transpose(1, 2), paired=True)
        maps = _rectified(maps, network.norm1, network.noise1)
        maps = self._second(self._second.grid.into(maps))
        maps = _rectified(maps, network.norm2, network.noise2)
        third = (self._reading() @ maps.flatten(0, 2)).T  # (b, n)
        rates: torch.Tensor = network.softplus(network.norm3(third))
        return rates

    def _reading(self) -> torch.Tensor:
        """Third convolution and readout as one matrix, ``(n, y·x·c)``."""
        weight = self.network.conv3.weight.permute(0, 2, 3, 1)  # (n, k, k, c)
        whole = weight.new_zeros(len(weight), *self._outer, weight.shape[-1])
        return whole.index_put(self._sight, weight).flatten(1)


class _Convolution:
    """A plain or stacked convolution without padding, at every frequency."""

    def __init__(
        self,
        module: nn.Conv2d | StackedConv2d,
        shape: Sequence[int],
        shape_out: Sequence[int],
        like: torch.Tensor,
    ) -> None:
        self._module = module
        self.grid = FourierGrid(shape, shape_out, like)
        self._spectrum = KernelSpectrum(self.grid, shape[0] - shape_out[0] + 1, like)

    def __call__(self, spectra: torch.Tensor, *, paired: bool = False) -> torch.Tensor:
        """Go from ``(f, 2·c, b)``, or ``(f, c·2, b)`` if paired, to maps."""
        if isinstance(self._module, StackedConv2d):
            weight, bias = self._module.kernel()
        else:
            weight, bias = self._module.weight, self._module.bias
        wide = self._module.surround if isinstance(self._module, WIDE) else None
        kernels = self._spectrum(weight, wide, paired=paired)
        maps = self.grid.back(torch.bmm(kernels, spectra))
        return maps if bias is None else maps.add_(bias[:, None])


def _rectified(maps: torch.Tensor, norm: nn.Module, noise: nn.Module) -> torch.Tensor:
    """Normalise per channel over windows and places, add noise, rectify."""
    normal = norm(maps.flatten(0, 1))  # (y·x, c, b): the channel is where the module wants it
    rectified: torch.Tensor = noise(normal).relu_()
    return rectified.view_as(maps)
