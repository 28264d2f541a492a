"""Evaluate the retina network above its first layer with less work and the same result.

`HookedFunction` does the same without knowing the network and is the reference in tests.

Notation: b windows, l lags, y x pixels, c channels, n cells; h output of a convolution, z = scale·h
+ shift the same after normalisation, r = relu(z) (softplus for the last layer), F target, g = ∂F/∂.
Inside, maps lie as (y, x, c, b): every linear step is then one matrix applied from the left.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from scipy.interpolate import CubicSpline
from torch import nn

from retina_codec.networks.retina.fourier import FourierConvolution, inward, outward
from retina_codec.networks.retina.model import RetinaCNN
from retina_codec.networks.retina.modules import plain_convolution
from retina_codec.probing.points import Bound, Evaluation, Layers, differentiate

__all__ = ["RetinaFunction"]

LAYERS = RetinaCNN.layers


RUN = 4  # windows per product in the first layer: less copying of frames, hardly more products


FINE = 2  # places per step, between the path's nodes, where chords evaluate rates and target


class _Seen(NamedTuple):
    """One layer at some points."""

    h: torch.Tensor
    z: torch.Tensor
    r: torch.Tensor


class RetinaFunction:
    """The retina network above its first layer: a `LayeredFunction` that costs less.

    Four facts are used. The first layer is affine, so a straight path of stimuli is a straight path
    of its outputs. Successive windows share all but one frame, so the first layer of a batch is a
    product of Fourier transforms of frames. The second layer's large kernels cost less in the
    Fourier domain too, forward and backward. Rates see one position of the third layer per cell, so
    convolution and readout are one matrix, only units in sight of a cell are computed, and the
    others contribute exactly nothing.

    Parameters
    ----------
    network : RetinaCNN
        In evaluation mode.
    layers : sequence of str
        Among ``conv1``, ``conv2``, ``conv3``.
    consecutive : bool
        Whether every batch holds windows of successive times.
    chords : bool
        Whether `integrate` goes by chords; otherwise by the published trapezoid.

    Attributes
    ----------
    whole : bool
        False: evaluations hold units in sight of cells, ``conv3`` one unit per cell (b, cell).
    """

    whole = False

    def __init__(
        self,
        network: RetinaCNN,
        layers: Sequence[str],
        *,
        consecutive: bool,
        chords: bool = False,
    ) -> None:
        self.network, self.layers, self.chords = network, tuple(layers), chords
        self.complete = dict.fromkeys(self.layers, True)
        self._lowest = min(LAYERS.index(name) for name in self.layers)
        norms = (network.norm1, network.norm2, network.norm3)
        pairs = [[values[:, None] for values in norm.scale_and_shift()] for norm in norms]
        self._scale, self._shift = zip(*pairs, strict=True)
        first, second = plain_convolution(network.conv1), plain_convolution(network.conv2)
        third = network.conv3.weight.detach()  # (n, c, k, k)
        self._bias = (_column(first), _column(second), _column(network.conv3))
        places, size, reach = network.readout.locations, third.shape[-1], second.kernel_size[0] - 1
        low, high = places.amin(0), places.amax(0) + size
        self._read = _reading_matrix(third, places - low, tuple((high - low).tolist()))
        # Units of the first layer in sight; those of the second begin at the same row and column.
        start, stop = low.tolist(), (high + reach).tolist()
        self._sight = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
        shape = [b - a for a, b in zip(start, stop, strict=True)]
        self._second = FourierConvolution(second.weight.detach(), shape)
        shape = [n - network.kernel_sizes[0] + 1 for n in network.frame_shape]
        self._whole_second = FourierConvolution(second.weight.detach(), shape)
        self._whole_third = FourierConvolution(third, [n - reach for n in shape])
        self._kernel = self._kernel_of_frames(first.weight.detach()) if consecutive else None

    # The first layer.

    def start(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the output of the first layer, whole maps ``(b, channel, row, column)``."""
        with torch.no_grad():
            if self._kernel is None or len(inputs) < RUN:
                return outward(inward(self.network.first_layer(inputs)))
            frames = torch.cat((inputs[0], inputs[1:, -1]))  # (b + l - 1, y, x)
            return self._first_layer_of_frames(frames, self._kernel)

    def _kernel_of_frames(self, weight: torch.Tensor) -> torch.Tensor:
        """Return transforms of the kernels of RUN windows, ``(frequency, frame, window·c)``."""
        spectrum = torch.fft.rfft2(weight, s=self.network.frame_shape).conj()
        spectrum = spectrum.permute(2, 3, 1, 0).flatten(0, 1).resolve_conj()  # (frequency, l, c)
        late = [nn.functional.pad(spectrum, (0, 0, w, RUN - 1 - w)) for w in range(RUN)]
        return torch.stack(late, 2).flatten(2)

    def _first_layer_of_frames(self, frames: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
        """Convolve all windows in ``frames`` (b + l - 1, y, x) through their transforms."""
        network = self.network
        count = len(frames) - network.history + 1
        spectrum = torch.fft.rfft2(frames)  # (frame, fy, fx)
        series = nn.functional.pad(spectrum.flatten(1).T, (0, -count % RUN))
        runs = series.unfold(1, network.history + RUN - 1, RUN)  # (frequency, run, frame)
        product = torch.bmm(runs, kernel).view(len(series), -1, network.channels[0])
        product = product[:, :count].permute(1, 2, 0).reshape(count, -1, *spectrum.shape[1:])
        maps = torch.fft.irfft2(product, s=network.frame_shape)  # (b, c, y, x)
        # What wraps around lies outside the valid part.
        rows, columns = (n - network.kernel_sizes[0] + 1 for n in network.frame_shape)
        return outward(inward(maps[..., :rows, :columns]).add_(self._bias[0]))

    # One point.

    def outputs(self, point: torch.Tensor) -> torch.Tensor:
        """Return the rates, ``(b, cell)`` Hz, without a graph."""
        with torch.no_grad():
            return outward(self._climb("conv1", self._in_sight(point))["conv3"].r).contiguous()

    def activations(self, point: torch.Tensor) -> Layers:
        """Return the output of every layer, whole maps, without a graph."""
        with torch.no_grad():
            maps, seen = inward(point), {"conv1": point}
            for number, layer in ((1, self._whole_second), (2, self._whole_third)):
                if any(LAYERS.index(name) >= number for name in self.layers):
                    maps = layer(self._normal(number - 1, maps).relu_()).add_(self._bias[number])
                    seen[LAYERS[number]] = outward(maps)
        return {name: seen[name] for name in self.layers}

    def __call__(self, point: torch.Tensor, target: Bound) -> Evaluation:
        """Evaluate at outputs of the first layer, units in sight of cells."""
        with torch.no_grad():
            return self._evaluate(self._climb("conv1", self._in_sight(point)), target)[0]

    def along(self, point: torch.Tensor, direction: torch.Tensor, target: Bound) -> Evaluation:
        """Evaluate, with the derivative of layers and target along a direction of points."""
        with torch.no_grad():
            seen = self._climb("conv1", self._in_sight(point))
            here, pull = self._evaluate(seen, target)
            tangents, way = {}, self._in_sight(direction)
            for number, name in enumerate(LAYERS):
                way = way if number == 0 else self._linear(number, way)
                tangents[name] = outward(way)
                way = way * self._slope(number, seen[name].z) * self._scale[number]
            slope = (pull * outward(way)).sum(1)
            kept = {name: tangents[name] for name in self.layers}
        return replace(here, tangent=kept, value_tangent=slope)

    def above(
        self, name: str, units: torch.Tensor, point: torch.Tensor, target: Bound
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Put ``units``, as evaluations hold them, in place of a layer; value and gradient."""
        del point  # every path crosses the layer
        with torch.no_grad():
            seen = self._climb(name, inward(units))
            value, pull = _pull(outward(seen["conv3"].r), target, self.layers)
            return value, self._descend(pull, seen, name)[name]

    def _evaluate(self, seen: dict[str, _Seen], target: Bound) -> tuple[Evaluation, torch.Tensor]:
        """Return the evaluation and ∂F/∂rates, ``(b, cell)``."""
        rates = outward(seen["conv3"].r).contiguous()
        value, pull = _pull(rates, target, self.layers)
        gradients = self._descend(pull, seen, LAYERS[self._lowest])
        shown = {name: outward(seen[name].h) for name in self.layers}
        return Evaluation(value, rates, shown, {n: gradients[n] for n in self.layers}), pull

    def _climb(self, lowest: str, units: torch.Tensor) -> dict[str, _Seen]:
        """Go from a layer's h to the rates."""
        seen: dict[str, _Seen] = {}
        for number in range(LAYERS.index(lowest), len(LAYERS)):
            name = LAYERS[number]
            h = units if name == lowest else self._linear(number, units).add_(self._bias[number])
            z = self._normal(number, h)
            units = z.relu() if number < 2 else self.network.softplus(z)
            seen[name] = _Seen(h, z, units)
        return seen

    def _descend(self, pull: torch.Tensor, seen: dict[str, _Seen], lowest: str) -> Layers:
        """Go from ∂F/∂rates down to a layer; returns its gradient and those above."""
        gradients, gradient = {}, inward(pull)
        for number in range(2, LAYERS.index(lowest) - 1, -1):
            name = LAYERS[number]
            inner = gradient * self._slope(number, seen[name].z) * self._scale[number]
            gradients[name] = outward(inner)
            if name != lowest:
                gradient = self._transposed(number, inner)
        return gradients

    # A whole path.

    def integrate(
        self, begin: torch.Tensor, end: torch.Tensor, steps: int, target: Bound
    ) -> tuple[Layers, Evaluation, Evaluation]:
        """Return contributions along the straight path between two points.

        The published trapezoid, summed by parts: ``C = Σ_s g_s ½ (h_{s+1} − h_{s−1})``. By chords:
        the integral is taken behind each nonlinearity r, ``∫ g_h dh = ∫ g_r dr``, and within a step
        a nonlinearity passes gradients on with the slope of its chord, ``Δr/Δz``, so that a unit
        that crosses its threshold counts with the share of the step in which it is active:
        ``C = Σ_s ḡ_s Δr_s``. Rates and target are also evaluated between nodes, on a cubic spline
        of the third layer. Both are of second order in the length of a step; chords have the
        smaller error.

        Parameters
        ----------
        begin, end : torch.Tensor, (b, channel, row, column)
            Outputs of the first layer; ``begin`` may be one for all.
        steps : int
        target : callable
            Called at ``end`` first.

        Returns
        -------
        contributions : dict of torch.Tensor
            Of units in sight of cells.
        at_end, at_begin : Evaluation
            Values and rates without gradients; at the end with the whole maps of `activations`.
        """
        with torch.no_grad():
            first, last = (self._normal(0, self._in_sight(point)) for point in (begin, end))
            way = last - first  # of z in the first layer
            second = []  # z of the second layer at every node
            third = torch.empty(steps + 1, len(self._read[0]), len(end), dtype=way.dtype)
            third = third.to(way.device)
            for node in range(steps + 1):
                r = torch.add(first, way, alpha=node / steps).relu_() if node else first.relu()
                second.append(self._normal(1, self._linear(1, r).add_(self._bias[1])))
                third[node] = self._normal(2, self._linear(2, second[-1].relu()))
            rule = self._chords if self.chords else self._trapezoid
            in_third, pulls, at_end, at_begin = rule(third, len(begin), target)
            in_first, in_second = torch.zeros_like(way), torch.zeros_like(second[-1])
            for number, pull in enumerate(pulls if self._lowest < 2 else ()):
                slope, rise = self._rise(second, number)
                gradient = self._transposed(2, pull)
                in_second.addcmul_(gradient, rise)
                if self._lowest == 0:
                    gradient = self._transposed(1, slope.mul_(self._scale[1]).mul(gradient))
                    in_first.addcmul_(gradient, self._rise_on_line(first, way, number, steps))
        found = {"conv1": in_first, "conv2": in_second, "conv3": in_third}
        at_end = replace(at_end, activation=self.activations(end))
        return {name: outward(found[name]) for name in self.layers}, at_end, at_begin

    def _trapezoid(self, z: torch.Tensor, begins: int, target: Bound) -> "_Top":
        """Contributions ``(n, b)`` of the third layer and ∂F/∂h there at every node."""
        ends, pulls = [], []
        total = torch.zeros_like(z[0])
        for node in range(len(z) - 1, -1, -1):  # the target decides at the end
            here = z[node] if node else z[0, :, :begins]
            rates = self.network.softplus(here)
            value, pull = _pull(outward(rates).contiguous(), target, self.layers)
            ends.append(Evaluation(value, outward(rates).contiguous(), {}, {}))
            gradient = inward(pull) * here.sigmoid()
            total.addcmul_(gradient, _change(z, node), value=0.5)
            pulls.append(gradient * self._scale[2])
        return _Top(total, pulls[::-1], ends[0], ends[-1])

    def _chords(self, z: torch.Tensor, begins: int, target: Bound) -> "_Top":
        """Contributions ``(n, b)`` of the third layer and the mean of ∂F/∂h there in every step."""
        steps = len(z) - 1
        between = torch.as_tensor(_spline(steps), dtype=z.dtype, device=z.device)
        z = torch.einsum("fs,snb->fnb", between, z)
        rates = self.network.softplus(z)
        ends, pulls = [], []
        for place in range(len(z) - 1, -1, -1):  # the target decides at the end
            here = rates[place] if place else rates[0, :, :begins]
            value, pull = _pull(outward(here).contiguous(), target, self.layers)
            ends.append(Evaluation(value, outward(here).contiguous(), {}, {}))
            pulls.append(inward(pull).expand_as(z[0]))
        pull = torch.stack(pulls[::-1])
        total = ((pull[1:] + pull[:-1]) * (rates[1:] - rates[:-1])).sum(0) / 2
        inner = pull * z.sigmoid() * self._scale[2]
        mean = ((inner[1:] + inner[:-1]) / 2).unflatten(0, (steps, FINE)).mean(1)
        return _Top(total, list(mean), ends[0], ends[-1])

    def _rise(self, z: list[torch.Tensor], number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Slope of the second layer's ReLU and slope times change of z, at a node or in a step."""
        if not self.chords:
            slope = _positive(z[number])
            return slope, _change(z, number).mul(slope).mul_(0.5)
        low, high = z[number], z[number + 1]
        rise, change = high.relu() - low.relu(), high - low
        still = torch.eq(change, 0, out=torch.empty_like(change))  # there the slope at the point
        slope = torch.addcmul(rise, still, _positive(high)).div_(change.add_(still))
        return slope, rise

    def _rise_on_line(
        self, first: torch.Tensor, way: torch.Tensor, number: int, steps: int
    ) -> torch.Tensor:
        """Slope of the first layer's ReLU times change of z, where z is on a straight line."""
        low = torch.add(first, way, alpha=number / steps)
        if self.chords:
            return torch.add(first, way, alpha=(number + 1) / steps).relu_() - low.relu_()
        share = (1.0 if 0 < number < steps else 0.5) / steps
        return _positive(low).mul_(way).mul_(share)

    # From layer to layer.

    def _in_sight(self, maps: torch.Tensor) -> torch.Tensor:
        rows, columns = self._sight
        return inward(maps[..., rows, columns])

    def _normal(self, number: int, h: torch.Tensor) -> torch.Tensor:
        return torch.addcmul(self._shift[number], h, self._scale[number])

    def _slope(self, number: int, z: torch.Tensor) -> torch.Tensor:
        return z.sigmoid() if number == 2 else _positive(z)

    def _linear(self, number: int, r: torch.Tensor) -> torch.Tensor:
        """Convolve; for the third layer, read the result at the cells, ``(n, b)``."""
        return self._second(r) if number == 1 else self._read.T @ r.flatten(0, 2)

    def _transposed(self, number: int, gradient: torch.Tensor) -> torch.Tensor:
        if number == 1:
            return self._second.transposed(gradient)
        maps = (*self._second.shape_out, len(self._bias[1]), gradient.shape[-1])
        return (self._read @ gradient).view(maps)


class _Top(NamedTuple):
    """Results of the last layer that the layers below need."""

    contribution: torch.Tensor  # (n, b)
    pulls: list[torch.Tensor]  # ∂F/∂h, (n, b) or (n, 1), at nodes or in steps
    at_end: Evaluation
    at_begin: Evaluation


@cache
def _spline(steps: int) -> np.ndarray:
    """Return the matrix from values at nodes to their cubic spline, FINE places per step."""
    nodes, places = np.arange(steps + 1), np.arange(steps * FINE + 1) / FINE
    matrix: np.ndarray = CubicSpline(nodes, np.eye(steps + 1))(places)
    return matrix


def _change(z: Sequence[torch.Tensor] | torch.Tensor, node: int) -> torch.Tensor:
    """Return ``z_{s+1} − z_{s−1}``, at the ends one-sided."""
    return z[min(node + 1, len(z) - 1)] - z[max(node - 1, 0)]


def _positive(z: torch.Tensor) -> torch.Tensor:
    """Return 1 where z > 0, else 0, as numbers: several times faster than through booleans."""
    return torch.gt(z, 0, out=torch.empty_like(z))


def _pull(rates: torch.Tensor, target: Bound, layers: tuple[str, ...]) -> tuple[torch.Tensor, ...]:
    """Return F, ``(b,)``, and its gradient with respect to rates, ``(b, cell)``."""
    with torch.enable_grad():
        leaf = rates.detach().requires_grad_()
        found = differentiate(leaf, target, dict.fromkeys(layers, leaf))
    return found.value, found.gradient[layers[0]]


def _reading_matrix(
    weight: torch.Tensor, places: torch.Tensor, shape: tuple[int, int]
) -> torch.Tensor:
    """Return convolution and readout as one matrix, ``(y·x·c, n)``."""
    matrix = weight.new_zeros(*shape, weight.shape[1], len(weight))
    size = weight.shape[-1]
    for cell, (row, column) in enumerate(places.tolist()):
        matrix[row : row + size, column : column + size, :, cell] = weight[cell].permute(1, 2, 0)
    return matrix.flatten(0, 2)


def _column(convolution: nn.Conv2d) -> torch.Tensor:
    """Return the bias ``(c, 1)``."""
    if convolution.bias is None:
        return convolution.weight.new_zeros(convolution.out_channels, 1)
    return convolution.bias.detach()[:, None]
