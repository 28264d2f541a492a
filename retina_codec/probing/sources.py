"""Sources of inputs: batches of tensors with labels, cut into parts for other processes.

A part travels with its own inputs only.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.probing.batches import Batch, map_tensors, tensors_of
from retina_codec.probing.rows import Rows, from_numpy, is_mapped
from retina_codec.recordings.windows import StimulusWindows
from retina_codec.storage.provenance import array_text

__all__ = ["ArraySource", "Source", "WindowSource", "check_finite"]

SAMPLED = 16  # places at which many inputs are hashed: enough to tell two runs apart


SMALL = 2**26  # bytes of inputs that are quick to read and hash as a whole


@dataclass(frozen=True)
class Source(ABC):
    """Inputs as batches of tensors, with the labels of their first dimension."""

    dim: str
    coords: dict[str, Any]
    rate: xr.DataArray | None = field(default=None, kw_only=True)
    types: Any = field(default=None, kw_only=True)
    consecutive: bool = field(default=False, kw_only=True)
    offset: int = field(default=0, kw_only=True)  # number of the first input, for messages
    whole: ClassVar[bool] = False  # a part of it takes all of it along to another process

    @property
    def in_memory(self) -> bool:
        """Whether all inputs are in memory, so that all are hashed, however many."""
        return False

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def part(self, start: int, stop: int) -> "Source":
        """Return inputs ``start`` to ``stop`` alone, without labels."""

    @abstractmethod
    def batches(self, size: int) -> Iterator[Batch]:
        """Go through all inputs in order, in batches as they are stored."""

    def mean(self) -> Batch:
        """Return the mean of all inputs as one input ``(...)``, floating parts only."""
        sums: Any = None
        for batch in self.batches(64):
            one = map_tensors(lambda x: x.cpu().double().sum(0), batch)
            sums = one if sums is None else map_tensors(torch.add, sums, one)
        mean: Batch = map_tensors(lambda x: x / len(self), sums)
        return mean

    def text(self) -> str:
        """Describe inputs by number, labels and a hash: of all, or of 16 of many in a file."""
        digest = hashlib.sha256()
        for values in self._to_hash():
            digest.update(array_text(values).encode())
        labels = [f"{name} {_label_text(values)}" for name, values in self.coords.items()]
        if self.rate is not None:
            labels.append(f"rate {array_text(self.rate.values)}")
        return f"{len(self)} along {self.dim}: {digest.hexdigest()[:16]}; {', '.join(labels)}"

    def _to_hash(self) -> Iterator[Any]:
        """Yield arrays that identify these inputs."""
        first = tensors_of(next(self.part(0, 1).batches(1)))
        small = len(self) * sum(values.nbytes for values in first) <= SMALL
        if small or self.in_memory:
            for batch in self.batches(64):
                yield from tensors_of(batch)
            return
        for start, stop in _places(len(self)):
            yield from tensors_of(next(self.part(start, stop).batches(1)))


def _places(count: int) -> list[tuple[int, int]]:
    """Return (start, stop) of a few single inputs, spread from first to last."""
    places = np.unique(np.linspace(0, count - 1, SAMPLED).astype(int))
    return [(int(place), int(place) + 1) for place in places]


def _label_text(labels: Any) -> str:
    values = np.asarray(getattr(labels, "values", labels))
    return array_text(values.astype(str) if values.dtype.kind == "O" else values)


@dataclass(frozen=True)
class ArraySource(Source):
    """Ready inputs in memory or in a file: one array, or several by name."""

    values: Any  # torch.Tensor, Rows, xr.DataArray, or a dict of these

    @property
    def in_memory(self) -> bool:
        """Whether all arrays are in memory."""
        whole = self.values.values() if isinstance(self.values, dict) else [self.values]
        return all(_is_in_memory(values) for values in whole)

    def __len__(self) -> int:
        first = next(iter(self.values.values())) if isinstance(self.values, dict) else self.values
        return len(first)

    def part(self, start: int, stop: int) -> "ArraySource":
        """Slice every array; what is in a file stays there."""

        def cut(values: Any) -> Any:
            piece = values[start:stop]
            # a view would take the whole tensor along to another process
            return piece.clone() if isinstance(piece, torch.Tensor) else piece

        values = _each(cut, self.values)
        return replace(self, values=values, coords={}, rate=None, offset=self.offset + start)

    def batches(self, size: int) -> Iterator[Batch]:
        """Read a batch at a time."""
        for start in range(0, len(self), size):

            def read(values: Any, start: int = start) -> torch.Tensor:
                piece = values[start : start + size]
                return piece if isinstance(piece, torch.Tensor) else from_numpy(piece.to_numpy())

            batch = _each(read, self.values)
            check_finite(batch, self.dim, self.offset + start)
            yield batch


def _is_in_memory(values: Any) -> bool:
    if isinstance(values, xr.DataArray):
        return values.chunks is None and values.variable._in_memory and not is_mapped(values.data)
    return not isinstance(values, Rows) or values.in_memory


@dataclass(frozen=True)
class WindowSource(Source):
    """The stimulus history of every response, cut from the frames of a recording."""

    stimulus: xr.DataArray
    history: int
    scale: tuple[float, float]
    dtype: torch.dtype = torch.float32

    def __len__(self) -> int:
        return int(self.stimulus.sizes["time"]) - self.history

    def _windows(self) -> StimulusWindows:
        mean, std = self.scale
        return StimulusWindows(self.stimulus, self.history, mean=mean, std=std, dtype=self.dtype)

    def _to_hash(self) -> Iterator[Any]:
        """Yield raw frames, each once, and how windows are made of them."""
        frames, count = self.stimulus, int(self.stimulus.sizes["time"])
        yield np.array([self.history, *self.scale])
        small = frames.nbytes <= SMALL
        runs = [(n, n + 256) for n in range(0, count, 256)] if small else _places(count)
        for start, stop in runs:
            yield frames[start:stop].to_numpy()

    def part(self, start: int, stop: int) -> "WindowSource":
        """Cut the frames that these windows need."""
        frames = self.stimulus.isel(time=slice(start, stop + self.history))
        return replace(self, stimulus=frames, coords={}, rate=None, offset=self.offset + start)

    def batches(self, size: int) -> Iterator[Batch]:
        """Go through the windows, reading every frame once."""
        for _, batch in self._windows().batches(size):
            yield batch

    def mean(self) -> Batch:
        """Return the mean frame, the same at every lag."""
        windows, total = self._windows(), None
        count = int(self.stimulus.sizes["time"])
        for start in range(0, count, 256):
            some = windows.frames(start, min(start + 256, count)).double().sum(0)
            total = some if total is None else total + some
        if total is None:
            raise RetinaCodecError("there are no frames to average.")
        return (total / count).expand(self.history, *total.shape)


def _each(function: Callable[[Any], Any], values: Any) -> Any:
    """Apply a function to an array, or to each of several by name."""
    if isinstance(values, dict):
        return {name: function(part) for name, part in values.items()}
    return function(values)


def check_finite(batch: Batch, dim: str, start: int) -> None:
    """Refuse inputs that are not finite; ``start`` is the number of the first."""
    for values in tensors_of(batch):
        if not values.is_floating_point():
            continue
        bad = ~torch.isfinite(values.flatten(1)).all(1)
        if bool(bad.any()):
            raise RetinaCodecError(
                f"inputs must be finite; {dim} number {start + int(bad.int().argmax())} is not."
            )
