"""Integrate along paths whose points are each input's own: where gradient and activation bend.

Notation: b inputs, k points, u units of all layers side by side, α place on the path, h activation,
g = ∂F/∂h, F target, C contribution; e error of a segment, Δ its change from end to end.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from retina_codec.methods.base import at_least_float
from retina_codec.probing.points import Evaluation, Layers

__all__ = ["KEPT", "Found", "integrate"]

KEPT = 16  # points of an input that are held in memory; further ones are streamed


SPREAD = 0.3  # weight of what single units may miss


BLOCK = 2**14  # numbers of one array that are worked on at a time


At = Callable[[torch.Tensor, torch.Tensor], Evaluation]
"""Evaluate inputs ``rows`` (r,) at places ``(r,)`` of their paths."""


@dataclass(frozen=True)
class Found:
    """Integrals of some inputs."""

    contribution: Layers  # each (b, ...)
    places: torch.Tensor  # of the points, in order, (b, k); inputs with fewer repeat 1
    evaluations: torch.Tensor  # that were made, (b,)


def integrate(
    at: At,
    at_start: Evaluation,
    at_x: Evaluation,
    steps: int,
    *,
    tolerance: float | None = None,
    most_steps: int = 0,
    complete: tuple[str, ...] = (),
) -> Found:
    """Return ``Σ_s ½ (g_{s−1} + g_s)(h_s − h_{s−1})`` over the points of each input's own path.

    The error of a segment is that of the layer where it is largest,
    ``e = |Σ_u ½ (g₀ + g₁) Δh − ΔF| / |F(x) − F(x′)| + 0.3 Σ_u ½ |Δg Δh| / Σ_u |C_u|``: what the
    sum over the layer misses, which is known, and how much single units may (as far as they would
    where g and h are monotone in between; C from three points). From 0, ½ and 1 on, the next point
    halves the segment with the largest error. When `KEPT` points are there, the others are spread
    evenly within the segments, of which one with n more points is taken to have the error
    ``e / (n + 1)²``: each goes where it lowers the error most. Those are passed through from left
    to right, so that memory does not grow with their number.

    Parameters
    ----------
    at : callable
    at_start, at_x : Evaluation
        At places 0 and 1; the former may be of one input that all share.
    steps : int
        Points but one, at least 2. With a tolerance the least number.
    tolerance : float, optional
        In the unit of the target: the points of an input are spread until the sum of a layer named
        in ``complete`` misses F(x) − F(x′) by at most this.
    most_steps : int
        Where that ends.
    complete : tuple of str
        Layers whose contributions have a known sum; of others only the second part of e is known.

    Returns
    -------
    Found
    """
    path = _Path(at, at_start, at_x, min(steps + 1, KEPT), complete)
    more = torch.full((path.count,), steps + 1 - path.made, device=path.device)
    if path.straight:
        more.zero_()
    path.spread(more)
    while tolerance is not None and not path.straight:
        # the points within segments are placed anew, more of them; the kept ones stay
        miss, room = path.miss(complete), most_steps + 1 - path.evaluations
        path.open = (miss > tolerance) & (room > more)
        if not bool(path.open.any()):
            break
        # what is left of the error falls with the square of the points
        ratio = (miss / tolerance).clamp(1.5, 64).sqrt() * 1.1
        wanted = ((path.made + more) * ratio).ceil().long() - path.made
        more = torch.where(path.open, torch.minimum(wanted, room), 0)
        path.spread(more)
    return Found(path.contribution(), path.places(), path.evaluations)


class _Path:
    """The kept points of some inputs, and the sums over all points.

    Every new point n between two points, 0 and 1, changes the sum of trapezoids by
    ``½ ((h₀ − h_n)(g₁ − g_n) − (h₁ − h_n)(g₀ − g_n))``.
    """

    def __init__(
        self,
        at: At,
        at_start: Evaluation,
        at_x: Evaluation,
        room: int,
        complete: tuple[str, ...],
    ) -> None:
        self._at = at
        self._like = {name: at_least_float(h) for name, h in at_x.activation.items()}
        self._sizes = [h[0].numel() for h in self._like.values()]
        first = next(iter(self._like.values()))
        self.device, self.count = first.device, len(at_x.value)
        wide = max((h.dtype for h in self._like.values()), key=lambda kind: kind.itemsize)
        # two places more, for points that are passed through
        self._room = room
        self._h = first.new_empty((room + 2, self.count, sum(self._sizes)), dtype=wide)
        self._g = torch.empty_like(self._h)
        self._rows = torch.arange(self.count, device=self.device)
        self._blocks = list(_blocks(self.count, sum(self._sizes), self.device))
        longest = max(block.stop - block.start for block in self._blocks)
        self._scratch = [self._h.new_empty(longest, sum(self._sizes)) for _ in range(5)]
        self._sums = torch.tensor([float(name in complete) for name in self._like]).to(first)
        self._value = first.new_zeros(room + 2, self.count, dtype=at_x.value.dtype)
        self._place = first.new_zeros(self.count, room, dtype=wide)
        self._place[:, 1] = 1
        self._change = (at_x.value - at_start.value).to(wide)
        self._write(at_start, 0, self._rows)
        self._write(at_x, 1, self._rows)
        self._kept_sum = (self._g[0] + self._g[1]).mul_(self._h[1] - self._h[0]).mul_(0.5)
        self.made = 2
        self.open = torch.ones(self.count, dtype=torch.bool, device=self.device)
        self.evaluations = torch.zeros(self.count, dtype=torch.int64, device=self.device)
        self.straight = False
        self._rounding = 64 * torch.finfo(wide).eps
        self._spread_at: list[np.ndarray] = [np.empty(0, np.float32)] * self.count
        self._halve(room)
        self.evaluations += self.made
        self._total = self._kept_sum

    def _write(self, here: Evaluation, slot: int, rows: torch.Tensor) -> None:
        """Put the layers of an evaluation of some inputs side by side."""
        self._value[slot, rows] = here.value
        start = 0
        for (name, like), size in zip(self._like.items(), self._sizes, strict=True):
            for points, values in (
                (self._h, here.activation[name]),
                (self._g, here.gradient[name]),
            ):
                part = points[slot, :, start : start + size]
                if len(rows) < self.count:
                    part[rows] = values.to(points.dtype).reshape(len(rows), size)
                else:
                    part.view(self.count, *like.shape[1:]).copy_(values)
            start += size

    def _halve(self, room: int) -> None:
        """Halve the worst segment of every input until there is no room."""
        left = torch.zeros(self.count, room - 1, dtype=torch.int64, device=self.device)
        right = torch.ones_like(left)
        error = self._h.new_zeros(left.shape)
        rows = self._rows
        while self.made < room:
            new, last = self.made, self.made - 2
            worst = error[:, : last + 1].argmax(1)
            low, high = left[rows, worst], right[rows, worst]
            self._place[:, new] = (self._place[rows, low] + self._place[rows, high]) / 2
            self._write(self._at(rows, self._place[:, new]), new, rows)
            right[rows, worst], left[:, last + 1], right[:, last + 1] = new, new, high
            error[rows, worst], error[:, last + 1] = self._errors(low, new, high)
            self.made += 1
            if self.made == 3 and not bool((error[:, :2] > self._rounding).any()):
                self.straight = True  # more points change nothing
                break
        segments = self.made - 1
        self._left, self._right = left[:, :segments], right[:, :segments]
        self._segment_error = error[:, :segments]

    def _errors(self, low: torch.Tensor, new: int, high: torch.Tensor) -> torch.Tensor:
        """Put a kept point between two; return e of both segments, (2, b)."""
        sums, sizes = self._insert(self._kept_sum, low, new, high, measured=True)
        if new == 2:
            whole = self._by_layer(self._kept_sum.abs())
            self._whole = whole.clamp(min=torch.finfo(whole.dtype).tiny)
        value, rows = self._value, self._rows
        change = torch.stack((value[new] - value[low, rows], value[high, rows] - value[new]))
        miss = (sums - change[:, :, None]).abs()
        total = self._change.abs().clamp(min=torch.finfo(miss.dtype).tiny)
        share = miss / total[:, None] * self._sums + SPREAD * sizes / self._whole
        return share.amax(2)

    def _by_layer(self, values: torch.Tensor) -> torch.Tensor:
        """Return sums over the units of every layer, (rows, layer), of (rows, u)."""
        if values.device.type == "cpu":  # one call for all layers
            starts = np.cumsum([0, *self._sizes[:-1]])
            with np.errstate(invalid="ignore", over="ignore"):  # refused later, with its input
                return torch.from_numpy(np.add.reduceat(values.numpy(), starts, axis=1))
        return torch.stack([part.sum(1) for part in torch.split(values, self._sizes, 1)], 1)

    def _insert(
        self,
        total: torch.Tensor,
        low: torch.Tensor,
        new: int,
        high: torch.Tensor,
        *,
        measured: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Put a point between two and change the sum of every input.

        Returns
        -------
        sums, sizes : torch.Tensor, (2, b, layer)
            Trapezoids of both segments, and ``½ Σ_u |Δh Δg|``, if ``measured``.
        """
        sums = total.new_zeros(2, self.count, len(self._sizes))
        sizes = torch.zeros_like(sums)
        for rows in self._blocks:
            h, g = self._h[new, rows], self._g[new, rows]
            h0, g0, h1, g1, part = (one[: len(h)] for one in self._scratch)
            for end, changes in ((low, (h0, g0)), (high, (h1, g1))):
                for kept, here, out in zip(self._kept(end, rows), (h, g), changes, strict=True):
                    torch.sub(kept, here, out=out)
            total[rows].addcmul_(h0, g1, value=0.5).addcmul_(h1, g0, value=-0.5)
            if measured:
                for side, (dh, dg) in enumerate(((h0, g0), (h1, g1))):
                    torch.add(g, dg, alpha=0.5, out=part).mul_(dh)
                    sums[side, rows] = self._by_layer(part).mul_(2 * side - 1)
                    sizes[side, rows] = self._by_layer(dh.mul_(dg).abs_()).mul_(0.5)
        return sums, sizes

    def _kept(self, slot: torch.Tensor, rows: slice) -> tuple[torch.Tensor, torch.Tensor]:
        """Return activation and gradient at a kept point of some inputs, (rows, u) each."""
        if rows.stop - rows.start == 1:  # a view
            one = int(slot[rows])
            return self._h[one, rows], self._g[one, rows]
        which = slot[rows] * self.count + self._rows[rows]
        h, g = (points.flatten(0, 1).index_select(0, which) for points in (self._h, self._g))
        return h, g

    def spread(self, more: torch.Tensor) -> None:
        """Sum over the open inputs, with ``more`` (b,) points spread within their segments."""
        if not bool(more.any()):
            return
        if self._total is self._kept_sum:
            self._total = self._kept_sum.clone()
        else:
            self._total[self.open] = self._kept_sum[self.open]
        plans = self._plans(self._share_out(more))
        for step in range(max(map(len, plans.values()))):
            rows = torch.tensor([row for row, plan in plans.items() if step < len(plan)])
            table = np.stack([plans[int(row)][step] for row in rows]).T
            place = torch.from_numpy(table[0].copy()).to(self.device)
            low, high = torch.from_numpy(table[1:].astype(np.int64)).to(self.device)
            rows = rows.to(self.device)
            new, last = self._room + step % 2, self._room + (step + 1) % 2
            self._write(self._at(rows, place), new, rows)
            self.evaluations[rows] += 1
            low = torch.where(low < 0, last, low)
            if len(rows) == self.count:
                self._insert(self._total, low, new, high)
            else:
                self._insert_some(rows, low, new, high)

    def _insert_some(
        self, rows: torch.Tensor, low: torch.Tensor, new: int, high: torch.Tensor
    ) -> None:
        """Put a point between two and change the sum of some inputs."""
        now = self._h[new, rows], self._g[new, rows]
        h0, g0, h1, g1 = (
            points[end, rows].sub_(here)
            for end in (low, high)
            for points, here in zip((self._h, self._g), now, strict=True)
        )
        self._total.index_add_(0, rows, h0.mul_(g1).sub_(h1.mul_(g0)), alpha=0.5)

    def _share_out(self, more: torch.Tensor) -> torch.Tensor:
        """Return how many points go within every segment, (b, segment)."""
        error = self._segment_error
        extra = torch.zeros_like(error)
        left = more.clone()
        for _ in range(int(more.max())):
            gain = error / (extra + 1) ** 2 - error / (extra + 2) ** 2
            extra[self._rows, gain.argmax(1)] += (left > 0).to(error.dtype)
            left -= 1
        return extra.long()

    def _plans(self, extra: torch.Tensor) -> dict[int, np.ndarray]:
        """Return place and neighbours of the points within segments, for every open input.

        The left neighbour is a kept point, or −1 for the point before; the right one is kept.
        """
        place, counts = self._place.cpu().numpy(), extra.cpu().numpy()
        left, right = self._left.cpu().numpy(), self._right.cpu().numpy()
        plans = {}
        for row in np.flatnonzero(self.open.cpu().numpy()):
            lines = list(_within(place[row], left[row], right[row], counts[row]))
            table = np.array(lines, dtype=place.dtype).reshape(-1, 3)
            self._spread_at[row] = table[:, 0]
            plans[int(row)] = table
        return plans

    def miss(self, names: tuple[str, ...]) -> torch.Tensor:
        """Return the largest error of the sum over one of the layers, (b,)."""
        sums = dict(zip(self._like, torch.split(self._total, self._sizes, 1), strict=True))
        errors = [(sums[name].sum(1) - self._change).abs() for name in names]
        return torch.stack(errors).amax(0)

    def contribution(self) -> Layers:
        """Return the sums, layer by layer."""
        parts = torch.split(self._total, self._sizes, 1)
        return {
            name: part.view(like.shape).to(like.dtype)
            for (name, like), part in zip(self._like.items(), parts, strict=True)
        }

    def places(self) -> torch.Tensor:
        """Return the places of all points in order, (b, k); shorter rows end in ones."""
        kept = self._place[:, : self.made].cpu().numpy()
        every = [np.sort(np.r_[one, two]) for one, two in zip(kept, self._spread_at, strict=True)]
        longest = max(map(len, every))
        table = np.stack([np.pad(one, (0, longest - len(one)), "edge") for one in every])
        return torch.from_numpy(table).to(self.device)


def _blocks(count: int, units: int, device: torch.device) -> Iterator[slice]:
    """Yield blocks of inputs whose units stay in a processor's cache together."""
    size = count if device.type != "cpu" else max(1, BLOCK // units)
    for first in range(0, count, size):
        yield slice(first, min(first + size, count))


def _within(
    place: np.ndarray, left: np.ndarray, right: np.ndarray, extra: np.ndarray
) -> Iterator[tuple[float, int, int]]:
    """Yield the points within the segments of one input, from left to right."""
    for segment in np.argsort(place[left]):
        low, high, count = left[segment], right[segment], int(extra[segment])
        for number in range(1, count + 1):
            where = place[low] + (place[high] - place[low]) * number / (count + 1)
            yield where, low if number == 1 else -1, high
