"""Evaluate the retina network above its first layer with less work and the same result.

`HookedFunction` does the same without knowing the network and is the reference in tests.

Notation: b windows, l lags, y x pixels, c channels, n cells; h output of a convolution, z = scale·h
+ shift the same after normalisation, r = relu(z) (softplus for the last layer), F target, g = ∂F/∂.
Inside, maps lie as (y, x, c, b): every linear step is then one matrix applied from the left.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import nn

from retina_codec.networks.retina.fourier import FourierConvolution, inward, outward
from retina_codec.networks.retina.model import RetinaCNN
from retina_codec.networks.retina.modules import plain_convolution, surround_of
from retina_codec.probing.points import Bound, Evaluation, Layers
from retina_codec.probing.retina.paths import (
    SHARES,
    Top,
    between,
    by_chords,
    by_trapezoid,
    half_changes,
    lean_of,
    points_of,
    pull_of,
    shares_of_steps,
    weights_of_differences,
)

__all__ = ["RetinaFunction"]

LAYERS = RetinaCNN.layers


RUN = 4  # windows per product in the first layer: less copying of frames, hardly more products


VALUES = 864  # units times nodes of the second layer at once
LINES = 1000  # units of the first layer at once


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
    others contribute exactly nothing. With a wide field (``RetinaCNN(surround=True)``) all are in
    sight.

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
    all_units : bool
        Whether `integrate` returns whole layers, with zeros for units out of sight.

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
        all_units: bool = False,
    ) -> None:
        self.network, self.layers, self.chords = network, tuple(layers), chords
        self.all_units = all_units
        self.complete = dict.fromkeys(self.layers, True)
        self._lowest = min(LAYERS.index(name) for name in self.layers)
        norms = (network.norm1, network.norm2, network.norm3)
        pairs = [[values[:, None] for values in norm.scale_and_shift()] for norm in norms]
        self._scale, self._shift = zip(*pairs, strict=True)
        first, second = plain_convolution(network.conv1), plain_convolution(network.conv2)
        third = network.conv3.weight.detach()  # (n, c, k, k)
        self._bias = (_column(first), _column(second), _column(network.conv3))
        places, size, reach = network.readout.locations, third.shape[-1], second.kernel_size[0] - 1
        wide, first_size = surround_of(second), network.kernel_sizes[0]
        whole = [n - first_size + 1 for n in network.frame_shape]
        low, high = places.amin(0), places.amax(0) + size
        if wide is not None:
            low, high = torch.zeros_like(low), torch.tensor(whole).to(high) - reach
        self._read = _reading_matrix(third, places - low, tuple((high - low).tolist()))
        # Units of the first layer in sight; those of the second begin at the same row and column.
        start, stop = low.tolist(), (high + reach).tolist()
        self._sight = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
        shape = [b - a for a, b in zip(start, stop, strict=True)]
        self._second = FourierConvolution(second.weight.detach(), shape, wide)
        self._whole_second = FourierConvolution(second.weight.detach(), whole, wide)
        self._whole_third = FourierConvolution(third, [n - reach for n in whole])
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
            value, pull = pull_of(outward(seen["conv3"].r), target, self.layers)
            return value, self._descend(pull, seen, name)[name]

    def _evaluate(self, seen: dict[str, _Seen], target: Bound) -> tuple[Evaluation, torch.Tensor]:
        """Return the evaluation and ∂F/∂rates, ``(b, cell)``."""
        rates = outward(seen["conv3"].r).contiguous()
        value, pull = pull_of(rates, target, self.layers)
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
        self,
        begin: torch.Tensor,
        end: torch.Tensor,
        steps: int,
        target: Bound,
        *,
        own_points: bool = False,
    ) -> tuple[Layers, Evaluation, Evaluation]:
        """Return contributions along the straight path between two points.

        The published trapezoid, summed by parts: ``C = Σ_s g_s ½ (h_{s+1} − h_{s−1})``. By chords:
        the integral is taken behind each nonlinearity r, ``∫ g_h dh = ∫ g_r dr``, and passes
        gradients on with the slope of the nonlinearity's chord, ``Δr / Δz``, so that a unit that
        crosses its threshold counts with the share of the step in which it is active:
        ``C = Σ_s ḡ_s Δr_s``. Steps are divided in `paths.SHARES` parts, between which z of the
        second layer and the target's gradient follow cubics: only what goes through the
        second layer's kernels is computed once per step. In the first layer ḡ is a line in each
        step, through the means of its neighbours, and r bends where z crosses zero.

        Parameters
        ----------
        begin, end : torch.Tensor, (b, channel, row, column)
            Outputs of the first layer; ``begin`` may be one for all.
        steps : int
        target : callable
            Called at ``end`` first.
        own_points : bool
            Whether each window's points follow the bends of its path, see `paths.lean_of`;
            otherwise they lie evenly.

        Returns
        -------
        contributions : dict of torch.Tensor
            Of units in sight of cells, or of whole layers.
        at_end, at_begin : Evaluation
            Values and rates without gradients; at the end with the whole maps of `activations`.
        """
        with torch.no_grad():
            first, last = (self._normal(0, self._in_sight(point)) for point in (begin, end))
            way = last.sub_(first)
            first = first.expand_as(way).contiguous()  # sums with views that repeat are slow
            lean = lean_of(first, way) if own_points else way.new_zeros(way.shape[-1])
            nodes = points_of(steps, lean)
            second = self._second_on_line(first, way, nodes)
            top = self._top(second, len(begin), target)
            found = {"conv3": top.contribution}
            if self._lowest < 2:
                found["conv2"] = self._through_second(second, lean, top.pulls)
            if self._lowest == 0:
                through = self._chords_of_first if self.chords else self._trapezoids_of_first
                found["conv1"] = through(second, first, way, nodes)
        at_end = replace(top.at_end, activation=self.activations(end))
        units = {name: outward(found[name]) for name in self.layers}
        if self.all_units:
            units = {name: self._whole(h, units[name]) for name, h in at_end.activation.items()}
        return units, at_end, top.at_begin

    def _whole(self, layer: torch.Tensor, units: torch.Tensor) -> torch.Tensor:
        """Put units in sight into zeros of the shape of a whole layer."""
        whole = torch.zeros_like(layer)
        if units.ndim == 2:
            row, column = self.network.readout.locations.T
            whole[:, torch.arange(len(row), device=row.device), row, column] = units
        else:
            (top, left), (rows, columns) = (s.start for s in self._sight), units.shape[2:]
            whole[..., top : top + rows, left : left + columns] = units
        return whole

    def _second_on_line(
        self, first: torch.Tensor, way: torch.Tensor, nodes: torch.Tensor
    ) -> torch.Tensor:
        """Return z of the second layer, ``(node, y, x, c, b)``, where the first is on a line."""
        shape = (*self._second.shape_out, len(self._bias[1]), way.shape[-1])
        second, r = way.new_empty(len(nodes), *shape), torch.empty_like(way)
        scale = self._scale[1].expand(shape).contiguous()
        shift = self._normal(1, self._bias[1]).expand(shape).contiguous()
        for z, node in zip(second, nodes, strict=True):
            torch.addcmul(first, way, node, out=r).relu_()
            torch.addcmul(shift, self._linear(1, r), scale, out=z)
        return second

    def _blocks(
        self, second: torch.Tensor
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Yield matrices from units to cells, and z of these units at nodes and on the path.

        All but the second layer's kernels acts on each unit alone: blocks of units stay in the
        processor's cache, and nothing but values at nodes is kept for all units.
        """
        count, batch = len(second), second.shape[-1]
        nodes = second.view(count, -1, batch)
        units = max(VALUES * self._wider(second) // count, 8)
        for start in range(0, nodes.shape[1], units):
            z = nodes[:, start : start + units]
            path = between(z, SHARES) if self.chords else z
            yield self._read[start : start + units], z, path

    @staticmethod
    def _wider(values: torch.Tensor) -> int:
        """How many times more an accelerator takes at once."""
        return 1 if values.device.type == "cpu" else 64

    def _top(self, second: torch.Tensor, begins: int, target: Bound) -> Top:
        """Follow z of the third layer along the path, and integrate there."""
        third = sum(read.T @ path.relu() for read, _, path in self._blocks(second))
        z = self._normal(2, third + self._bias[2])
        known = (z, begins, self._scale[2], self.network.softplus)

        def pull_at(rates: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return pull_of(rates, target, self.layers)

        return by_chords(*known, pull_at) if self.chords else by_trapezoid(*known, pull_at)

    def _through_second(
        self, second: torch.Tensor, lean: torch.Tensor, pulls: torch.Tensor
    ) -> torch.Tensor:
        """Return contributions of the second layer; put ∂F/∂h there in place of z.

        Gradients are at nodes, or means over steps: then one less, and the last z stays.
        """
        total = torch.empty_like(second[0])
        sums, start = total.view(-1, total.shape[-1]), 0
        scale = self._scale[1].repeat(len(sums) // len(self._scale[1]), 1)
        scale = scale.expand_as(sums).contiguous()
        shares = shares_of_steps(len(second) - 1, lean)
        for read, z, path in self._blocks(second):
            gradient = read @ pulls
            if self.chords:
                change = path.diff(dim=0)
                gradient.mul_(_slope_of_chord(path, change))
            else:
                change = half_changes(path)
                gradient.mul_(_positive(path))
            torch.sum(change.mul_(gradient), 0, out=sums[start : start + len(read)])
            if self._lowest == 0:
                if self.chords:
                    gradient = gradient.mul_(shares).view(-1, SHARES, *gradient.shape[1:]).sum(1)
                torch.mul(gradient, scale[start : start + len(read)], out=z[: len(gradient)])
            start += len(read)
        return total

    def _trapezoids_of_first(
        self, second: torch.Tensor, first: torch.Tensor, way: torch.Tensor, nodes: torch.Tensor
    ) -> torch.Tensor:
        """Return contributions of the first layer, given ∂F/∂h of the second at nodes."""
        total, z = torch.zeros_like(way), torch.empty_like(way)
        for gradient, node, length in zip(second, nodes, half_changes(nodes), strict=True):
            torch.addcmul(first, way, node, out=z)
            total.addcmul_(self._transposed(1, gradient), _positive(z).mul_(length))
        return total.mul_(way)

    def _chords_of_first(
        self, second: torch.Tensor, first: torch.Tensor, way: torch.Tensor, nodes: torch.Tensor
    ) -> torch.Tensor:
        """Return contributions of the first layer, given means of ∂F/∂h of the second over steps.

        ``Σ_s ḡ_s Δr_s + g′_s ∫ (α − α_s) dr`` with α_s the middle of a step and g′ a difference of
        means. The integral is ``½ |Δr| (Δα − |Δr / way|)``: zero but where r bends.
        """
        tiny, lines = torch.finfo(way.dtype).tiny, LINES * self._wider(way)
        shape, lengths, (earlier, later) = (
            way.shape,
            nodes.diff(dim=0),
            weights_of_differences(nodes),
        )
        first, way = first.flatten(0, 2), way.flatten(0, 2)
        total, bends, before = torch.zeros_like(way), torch.zeros_like(way), None
        for step, length in enumerate(lengths):
            gradients = self._transposed(1, second[step]).flatten(0, 2)
            for start in range(0, len(way), lines):  # a part of the units: see `_blocks`
                part = slice(start, start + lines)
                sums, gradient, line = total[part], gradients[part], way[part]
                low = torch.addcmul(first[part], line, nodes[step]).relu_()
                rise = torch.addcmul(first[part], line, nodes[step + 1]).relu_().sub_(low)
                sums.addcmul_(gradient, rise)
                active = torch.div(rise.abs_(), line.abs().add_(tiny), out=low)
                bend = torch.sub(length, active, out=low).clamp_(min=0).mul_(rise)
                if before is not None:
                    weight = bends[part].mul_(earlier[step - 1]).addcmul_(bend, later[step - 1])
                    sums.addcmul_(gradient - before[part], weight)
                bends[part] = bend
            before = gradients
        return total.view(shape)

    # From layer to layer.

    def _in_sight(self, maps: torch.Tensor) -> torch.Tensor:
        rows, columns = self._sight
        return inward(maps[..., rows, columns])

    def _normal(self, number: int, h: torch.Tensor) -> torch.Tensor:
        return torch.mul(h, self._scale[number]).add_(self._shift[number])

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


def _positive(z: torch.Tensor) -> torch.Tensor:
    """Return 1 where z > 0, else 0, as numbers: several times faster than through booleans."""
    return torch.gt(z, 0, out=torch.empty_like(z))


def _slope_of_chord(z: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
    """Return ``Δr / Δz`` of r = relu(z) from place to place; where z stands still, r′(z)."""
    width = change.abs().add_(torch.finfo(z.dtype).tiny)
    return torch.maximum(z[1:], z[:-1]).div_(width).clamp_(0, 1)


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
