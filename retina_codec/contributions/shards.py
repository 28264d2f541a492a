"""Shards: successive inputs that are computed and written together.

A shard is a whole number of batches and a chunk of a store; in memory the shards are the same.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self

import numpy as np
import xarray as xr

from retina_codec.contributions.runner import Runner
from retina_codec.probing.inputs import Source
from retina_codec.progress import progress_bar
from retina_codec.targets.base import Target

__all__ = ["MemorySink", "Phase", "Sink", "Work", "run_here", "run_shard", "shard_length"]

Phase = Literal["predictions", "contributions"]


Labelled = Callable[[dict[str, Any], Target], xr.DataTree]


SHARD_BYTES = 2**22  # of results, so that files of a store are not too small


FEWEST, MOST = 256, 2048  # inputs in a shard: what a crash costs, and how many files there are


LARGEST_BYTES = 2**28  # of results in memory at once, where one batch does not exceed it


class Sink(Protocol):
    """Where shards go; an implementation must accept them in any order.

    It is open, and closed to others, while its context lasts.
    """

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...

    def done(self, phase: Phase, shard: int) -> bool:
        """Whether a shard was written by an earlier run."""

    def write(self, phase: Phase, shard: int, start: int, found: dict[str, np.ndarray]) -> None:
        """Write a shard's arrays, the first input being number ``start``."""

    def read(self, name: str) -> np.ndarray:
        """Return an array over all inputs."""

    def finish(self, target: Target) -> xr.DataTree:
        """Close the result, now that all shards are there, and return it."""


@dataclass
class Work:
    """A runner, its inputs and where results go."""

    runner: Runner
    source: Source
    sink: Sink
    progress: bool | None
    predicted: bool = False  # predictions have a phase of their own, before the target is known

    @property
    def shards(self) -> list[tuple[int, int]]:
        """First and last (excluded) input of every shard."""
        length = shard_length(self.runner)
        return [
            (start, min(start + length, len(self.source)))
            for start in range(0, len(self.source), length)
        ]

    def left(self, phase: Phase) -> Iterator[tuple[int, int, int]]:
        """Give number, first and last (excluded) input of the shards that are still to do."""
        for number, (start, stop) in enumerate(self.shards):
            if not self.sink.done(phase, number):
                yield number, start, stop

    def bar(self, phase: Phase) -> Any:
        """Return a progress bar over inputs, those of earlier runs included."""
        bar = progress_bar((), description=phase, total=len(self.source), progress=self.progress)
        left = sum(stop - start for _, start, stop in self.left(phase))
        # Set, not counted: the rate that is shown must be that of this run.
        bar.n = bar.initial = bar.last_print_n = len(self.source) - left
        if self.progress:
            bar.refresh()
        return bar


def shard_length(runner: Runner) -> int:
    """Return how many inputs make a shard, a multiple of the batch.

    About 4 MiB of results, but between 256 and 2048 inputs, and not more than 256 MiB of results
    where one batch has less.
    """
    per_input = sum(
        int(np.prod(array.shape, dtype=np.int64)) * np.dtype(array.dtype).itemsize
        for array in runner.arrays().values()
    )
    wanted = min(max(SHARD_BYTES // per_input, FEWEST), MOST, LARGEST_BYTES // per_input)
    batch = runner.plan.batch_size
    return max(1, wanted // batch) * batch


def run_shard(
    runner: Runner, part: Source, phase: Phase, predicted: bool, tick: Callable[[int], Any]
) -> dict[str, np.ndarray]:
    """Work on the inputs of one shard; ``tick`` is told of every batch.

    Returns
    -------
    dict of np.ndarray
        As `Runner.arrays` names them, inputs first.
    """
    with runner.plan.context.entered():  # in another process, say
        return _run_shard(runner, part, phase, predicted, tick)


def _run_shard(
    runner: Runner, part: Source, phase: Phase, predicted: bool, tick: Callable[[int], Any]
) -> dict[str, np.ndarray]:
    whole: dict[str, np.ndarray] = {}
    start = 0
    for found in runner.predict(part) if phase == "predictions" else runner.explain(part):
        count = len(next(iter(found.values())))
        for name, values in found.items():
            if predicted and phase == "contributions" and name == "prediction":
                continue
            if name not in whole:
                whole[name] = np.empty((len(part), *values.shape[1:]), values.dtype)
            whole[name][start : start + count] = values
        start += count
        tick(count)
    return whole


def run_here(work: Work, phase: Phase) -> None:
    """Work on all shards that are left, one after the other, in this process."""
    with work.bar(phase) as bar:
        for number, start, stop in work.left(phase):
            part = work.source.part(start, stop)
            found = run_shard(work.runner, part, phase, work.predicted, bar.update)
            work.sink.write(phase, number, start, found)
            del found  # or it would stay while the next shard is made


class MemorySink:
    """Arrays in memory."""

    def __init__(self, runner: Runner, source: Source, labelled: Labelled) -> None:
        self._labelled = labelled
        self._arrays = {
            name: np.empty((len(source), *array.shape), array.dtype)
            for name, array in runner.arrays().items()
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def done(self, phase: Phase, shard: int) -> bool:
        """Nothing is there when a run begins."""
        del phase, shard
        return False

    def write(self, phase: Phase, shard: int, start: int, found: dict[str, np.ndarray]) -> None:
        """Copy a shard to its place."""
        del phase, shard
        for name, values in found.items():
            self._arrays[name][start : start + len(values)] = values

    def read(self, name: str) -> np.ndarray:
        """Return an array."""
        return self._arrays[name]

    def finish(self, target: Target) -> xr.DataTree:
        """Label the arrays."""
        return self._labelled(self._arrays, target)
