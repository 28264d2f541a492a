"""Contributions along a path through the retina network, slowly: one window, one step at a time."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from scipy.interpolate import BarycentricInterpolator

from retina_codec.networks.retina.model import RetinaCNN

PARTS, FINE, LEAN = 3, 2, 1.5

Target = Callable[[torch.Tensor], torch.Tensor]


def first_layer(network: RetinaCNN, window: torch.Tensor) -> torch.Tensor:
    """z of the first layer, whole maps (channel, row, column)."""
    return network.norm1(network.conv1(window[None]))[0]


def second_layer(network: RetinaCNN, z: torch.Tensor) -> torch.Tensor:
    """z of the second layer at z of the first."""
    return network.norm2(network.conv2(z[None].relu()))[0]


def third_layer(network: RetinaCNN, z: torch.Tensor) -> torch.Tensor:
    """z of the third layer at the cells, (cell,), at z of the second."""
    return network.norm3(network.readout(network.conv3(z[None].relu())))[0]


def lean(network: RetinaCNN, begin: torch.Tensor, end: torch.Tensor) -> float:
    """1.5 (½ − β): β is the mean place of zeros of z in the first layer, weighted by |Δz|.

    Units count that lie in the rectangle that the cells see.
    """
    places = network.readout.locations
    reach = network.kernel_sizes[1] + network.kernel_sizes[2] - 1
    low, high = places.amin(0).tolist(), (places.amax(0) + reach).tolist()
    weights = total = 0.0
    for channel in range(len(begin)):
        for row in range(low[0], high[0]):
            for column in range(low[1], high[1]):
                before = float(begin[channel, row, column])
                change = float(end[channel, row, column]) - before
                if before * (before + change) < 0:
                    weights += abs(change)
                    total += abs(change) * (-before / change)
    return LEAN * (0.5 - total / weights) if weights else 0.0


def place(u: float, leaning: float) -> float:
    """Share of the path that belongs to the counted place u in 0..1."""
    return (1 - leaning) * u + leaning * u**2


def by_chords(
    network: RetinaCNN,
    begin: torch.Tensor,
    end: torch.Tensor,
    steps: int,
    target: Target,
    *,
    own_points: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Contributions of one window (lag, row, column) from another: whole maps, and cells."""
    z_begin, z_end = first_layer(network, begin), first_layer(network, end)
    leaning = lean(network, z_begin, z_end) if own_points else 0.0
    count = steps * PARTS
    shares = [place(i / count, leaning) for i in range(count + 1)]
    nodes = shares[::PARTS]
    at_nodes = [second_layer(network, z_begin + a * (z_end - z_begin)).numpy() for a in nodes]
    z2 = [torch.from_numpy(_cubic(at_nodes, i / PARTS)) for i in range(count + 1)]
    pulls, third = _top(network, z2, target)
    one, two, three = torch.zeros_like(z_begin), torch.zeros_like(z2[0]), torch.zeros(len(third[0]))
    three = three.double()
    means = []  # of the gradient at r of the first layer, over each step
    for step in range(steps):
        mean = torch.zeros_like(z_begin)
        for part in range(step * PARTS, (step + 1) * PARTS):
            inner = torch.zeros_like(three)  # mean of the gradient at h of the third layer
            for fine in range(part * FINE, (part + 1) * FINE):
                low, high = _softplus(third[fine]), _softplus(third[fine + 1])
                three += (pulls[fine] + pulls[fine + 1]) / 2 * (high - low)
                for place_ in (fine, fine + 1):
                    inner += pulls[place_] * torch.sigmoid(third[place_]) / (2 * FINE)
            gradient = _back(lambda z: third_layer(network, z), inner)(z2[part].relu())
            two += gradient * (z2[part + 1].relu() - z2[part].relu())
            gradient *= _chord(z2[part], z2[part + 1])
            share = (shares[part + 1] - shares[part]) / (nodes[step + 1] - nodes[step])
            mean += share * _back(lambda z: second_layer(network, z), gradient)(z_begin.relu())
        means.append(mean)
    for step in range(steps):
        slope = _slope(means, nodes, step)
        one += _along_line(z_begin, z_end, nodes[step], nodes[step + 1], means[step], slope)
    return one.numpy(), two.numpy(), three.numpy()


def _softplus(z: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.softplus(z)


def _top(
    network: RetinaCNN, z2: list[torch.Tensor], target: Target
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """∂F/∂rates and z of the third layer at finer places, both by cubics through the parts."""
    z3 = [third_layer(network, z) for z in z2]
    pulls = []
    for z in z3:
        rates = _softplus(z)[None].requires_grad_()
        pulls.append(torch.autograd.grad(target(rates).sum(), rates)[0][0])
    finer = [i / FINE for i in range((len(z2) - 1) * FINE + 1)]
    found = []
    for several in (pulls, z3):
        values = [one.detach().numpy() for one in several]
        found.append([torch.from_numpy(_cubic(values, at)) for at in finer])
    return found[0], found[1]


def _cubic(values: list[np.ndarray], at: float) -> np.ndarray:
    """Value at a place among 0, 1, ..., of the polynomial through the four nearest points."""
    last = len(values) - 1
    first = max(min(int(at) - 1, last - 3), 0)
    near = list(range(first, min(first + 3, last) + 1))
    polynomial = BarycentricInterpolator(near, np.stack([values[k] for k in near]))
    found: np.ndarray = polynomial(at)
    return found


def _back(
    function: Callable[[torch.Tensor], torch.Tensor], gradient: torch.Tensor
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Gradient at r, which is not negative, of the linear function behind the rectifier."""

    def at(r: torch.Tensor) -> torch.Tensor:
        r = (r + 1).requires_grad_()  # the function is linear where r is positive
        found: torch.Tensor = torch.autograd.grad(function(r), r, gradient)[0]
        return found

    return at


def _chord(low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    moved = high != low
    chord = (high.relu() - low.relu()) / torch.where(moved, high - low, 1.0)
    return torch.where(moved, chord, (high > 0).double())


def _slope(means: list[torch.Tensor], nodes: list[float], step: int) -> torch.Tensor:
    """Derivative along the path of the gradient, from means of neighbouring steps."""
    middles = [(a + b) / 2 for a, b in pairwise(nodes)]

    def secant(a: int, b: int) -> torch.Tensor:
        return (means[b] - means[a]) / (middles[b] - middles[a])

    last = len(means) - 1
    if last == 0:
        return torch.zeros_like(means[0])
    if step in (0, last):
        return secant(0, 1) if step == 0 else secant(last - 1, last)
    before, after = middles[step] - middles[step - 1], middles[step + 1] - middles[step]
    near = after * secant(step - 1, step) + before * secant(step, step + 1)
    return near / (before + after)


def _along_line(
    begin: torch.Tensor,
    end: torch.Tensor,
    low: float,
    high: float,
    mean: torch.Tensor,
    slope: torch.Tensor,
) -> torch.Tensor:
    """∫ (mean + slope (α − middle)) dr of one step, unit by unit, where z is above zero."""
    total = torch.zeros_like(begin)
    middle = (low + high) / 2
    for unit in np.ndindex(*begin.shape):
        z, change = float(begin[unit]), float(end[unit]) - float(begin[unit])
        start, stop = low, high
        if change == 0:
            continue
        zero = min(max(-z / change, low), high)
        if change > 0:
            start = zero
        else:
            stop = zero
        line = ((stop - middle) ** 2 - (start - middle) ** 2) / 2
        total[unit] = change * (mean[unit] * (stop - start) + slope[unit] * line)
    return total
