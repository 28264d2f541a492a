"""Shards: whole batches, all inputs once, small enough to hold and large enough to write."""

import weakref
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from retina_codec.contributions import shards
from retina_codec.contributions.runner import Plan, Runner, open_runner
from retina_codec.contributions.shards import MemorySink, Work, run_here, run_shard, shard_length
from retina_codec.methods.integrated_gradients import IntegratedGradients
from retina_codec.networks.adapter import adapt
from retina_codec.probing.inputs import open_inputs
from retina_codec.reductions import AllUnits, ChannelSums
from retina_codec.targets.base import Sum

NETWORK = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Softplus(), nn.Flatten(), nn.Linear(144, 2))
INPUTS = torch.randn(21, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def runner(batch_size: int = 4, reduction: Any = None) -> Runner:
    plan = Plan(
        adapt(NETWORK, ["0"]),
        Sum(),
        IntegratedGradients(2),
        reduction or ChannelSums(),
        batch_size,
        torch.device("cpu"),
        torch.float32,
        False,
    )
    with open_runner(plan, INPUTS[:1]) as opened:
        return opened


@dataclass
class Array:
    shape: tuple[int, ...]
    dtype: str = "float32"


@dataclass
class Sized:
    """What `shard_length` asks of a runner."""

    shapes: dict[str, tuple[int, ...]]
    batch_size: int
    plan: Any = field(init=False)

    def __post_init__(self) -> None:
        self.plan = self

    def arrays(self) -> dict[str, Array]:
        return {name: Array(shape) for name, shape in self.shapes.items()}


@pytest.mark.parametrize(
    ("numbers", "batch", "expected"),
    [
        (1, 64, 2048),  # tiny results: files worth opening, but not all in one
        (1000, 64, 1024),  # 4 kB per input: about 4 MiB
        (10_000, 64, 256),  # 4 MiB would be 104 inputs: no fewer than 256
        (1_000_000, 64, 64),  # 256 MiB are 67 inputs
        (100_000_000, 64, 64),  # never less than a batch
        (1, 5000, 5000),
        (1000, 100, 1000),  # whole batches
    ],
)
def test_length_of_a_shard(numbers: int, batch: int, expected: int) -> None:
    found: Any = Sized({"contribution": (numbers,)}, batch)
    assert shard_length(found) == expected


def test_every_input_is_in_one_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "FEWEST", 8)
    monkeypatch.setattr(shards, "MOST", 8)
    opened, source = runner(), open_inputs(adapt(NETWORK, ["0"]), INPUTS)
    sink = MemorySink(opened, source, lambda found, target: (found, target))  # type: ignore[arg-type, return-value]
    work = Work(opened, source, sink, False)
    assert work.shards == [(0, 8), (8, 16), (16, 21)]
    run_here(work, "contributions")
    found: Any = sink.finish(Sum())
    expected = run_shard(opened, source, "contributions", False, lambda _: None)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[0][name], values)
    assert len(expected["target"]) == 21


def test_no_shard_stays_in_memory_while_the_next_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "FEWEST", 8)
    monkeypatch.setattr(shards, "MOST", 8)
    opened, source = runner(), open_inputs(adapt(NETWORK, ["0"]), INPUTS)
    sink = MemorySink(opened, source, lambda found, target: (found, target))  # type: ignore[arg-type, return-value]
    written: list[weakref.ref[np.ndarray]] = []
    alive: list[int] = []

    def watching(*args: Any) -> dict[str, np.ndarray]:
        alive.append(sum(one() is not None for one in written))
        found = run_shard(*args)
        written.extend(weakref.ref(values) for values in found.values())
        return found

    monkeypatch.setattr(shards, "run_shard", watching)
    run_here(Work(opened, source, sink, False), "contributions")
    assert alive == [0, 0, 0]
    assert len(written) > 3


def test_a_shard_is_told_of_batch_by_batch_and_keeps_predictions_apart() -> None:
    opened, source = runner(), open_inputs(adapt(NETWORK, ["0"]), INPUTS)
    ticks: list[int] = []
    alone = run_shard(opened, source, "predictions", True, ticks.append)
    assert ticks == [4, 4, 4, 4, 4, 1]
    assert set(alone) == {"prediction"}
    later = run_shard(opened, source, "contributions", True, ticks.append)
    assert "prediction" not in later, "what an earlier phase wrote is not written again"
    at_once = run_shard(opened, source, "contributions", False, ticks.append)
    np.testing.assert_allclose(at_once["prediction"], alone["prediction"], rtol=1e-6)


def test_full_units_make_shorter_shards() -> None:
    """Through the real count of bytes: 4·36 units, two signs or none, and the scalars."""
    opened = runner(batch_size=1, reduction=AllUnits())
    bytes_each = sum(4 * int(np.prod(array.shape)) for array in opened.arrays().values())
    assert shard_length(opened) == min(2048, 2**22 // bytes_each)
