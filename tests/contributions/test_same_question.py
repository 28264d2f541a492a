"""A store answers only the same question: one change of anything that decides a number is refused.

Networks and the change are drawn at random; without a change, the store is opened, not computed.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from retina_codec.contributions import shards
from retina_codec.contributions.contribute import contribute
from retina_codec.errors import RetinaCodecError
from retina_codec.methods.gradients import ActGrad, InputGrad
from retina_codec.methods.integrated_gradients import IntegratedGradients
from retina_codec.reductions import AllUnits
from retina_codec.targets.base import Sum
from retina_codec.targets.classification import TopK

UNITS = 8


class Block(nn.Module):
    """Weights, a mask, and settings that stand in attributes alone."""

    def __init__(self, spec: dict[str, Any]) -> None:
        super().__init__()
        self.linear = nn.Linear(UNITS, UNITS)
        self.heads, self.temperature = spec["heads"], spec["temperature"]
        self.powers = list(spec["powers"])
        self.config = SimpleNamespace(shift={"by": spec["shift"]})
        self.table = np.array(spec["table"], np.float32)
        self.spare = [nn.Linear(UNITS, UNITS)]
        self.act = spec["act"]
        mask = torch.ones(UNITS)
        self.register_buffer("mask", mask, persistent=spec["persistent"])
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1  # written by every run: no part of what the network is
        split = self.linear(x).view(len(x), self.heads, -1)
        mixed = ((split / self.temperature).softmax(-1) * split).flatten(1) * self.mask
        raised = torch.stack([self.act(mixed).abs() ** power for power in self.powers]).sum(0)
        shifted = raised + self.config.shift["by"] + torch.from_numpy(self.table.copy()).to(x.dtype)
        spare = self.spare[0]  # torch does not know it, and does not convert it
        return nn.functional.linear(shifted, spare.weight.to(x.dtype), spare.bias.to(x.dtype))


class OtherBlock(Block):
    """The same parts, another function."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * 2


class Net(nn.Module):
    def __init__(self, spec: dict[str, Any]) -> None:
        super().__init__()
        torch.manual_seed(spec["seed"])
        self.first = nn.Linear(UNITS, UNITS)
        self.blocks = nn.ModuleList(Block(spec) for _ in range(spec["depth"]))
        self.last = nn.Linear(UNITS, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        return self.last(x)


SPECS = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 9),
        "depth": st.integers(1, 2),
        "heads": st.sampled_from([1, 2, 4]),
        "temperature": st.sampled_from([0.5, 1.0, 2.0]),
        "powers": st.lists(st.integers(1, 3), min_size=1, max_size=3),
        "shift": st.sampled_from([0.0, 0.1]),
        "table": st.lists(st.sampled_from([0.0, 0.5]), min_size=UNITS, max_size=UNITS),
        "act": st.sampled_from([torch.tanh, torch.sin, nn.functional.softplus]),
        "persistent": st.booleans(),
    }
)


class Question:
    """One call, ready to be changed."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.network = Net(spec)
        self.inputs = torch.randn(5, UNITS, generator=torch.Generator().manual_seed(1))
        self.options: dict[str, Any] = {
            "target": TopK(1),
            "method": IntegratedGradients(2),
            "layers": ["first"],
            "batch_size": 4,
            "progress": False,
        }
        self.context: Callable[[], AbstractContextManager[Any]] = nullcontext

    def ask(self, store: Path) -> Any:
        with self.context():
            return contribute(self.network, self.inputs, store=store, **self.options)


def add(values: torch.Tensor) -> None:
    with torch.no_grad():
        values[-1] += 0.5


class DefaultDtype(AbstractContextManager[None]):
    def __enter__(self) -> None:
        torch.set_default_dtype(torch.float64)

    def __exit__(self, *error: object) -> None:
        torch.set_default_dtype(torch.float32)


def last_block(question: Question) -> Any:
    return question.network.blocks[-1]


def patch(question: Question) -> None:
    plain = question.network.first.forward
    question.network.first.forward = lambda x: plain(x) + 1  # type: ignore[method-assign]


def hook(question: Question) -> None:
    question.network.last.register_forward_hook(lambda module, inputs, output: output * 2)  # noqa: ARG005


def option(**changed: Any) -> Callable[[Question], None]:
    return lambda question: question.options.update(changed)


# The change, and what the message must name
CHANGES: dict[str, tuple[Callable[[Question], Any], str]] = {
    "a weight": (lambda q: add(q.network.last.weight), r"network\.last\.weight"),
    "a mask": (lambda q: add(last_block(q).mask), r"network\.blocks\.\d\.mask"),
    "heads": (lambda q: setattr(last_block(q), "heads", 8), r"network\.blocks\.\d\.heads"),
    "temperature": (
        lambda q: setattr(last_block(q), "temperature", 3.0),
        r"network\.blocks\.\d\.temperature: \d\.\d there, 3\.0 here",
    ),
    "a list": (lambda q: last_block(q).powers.append(4), r"network\.blocks\.\d\.powers"),
    "an object": (
        lambda q: last_block(q).config.shift.update(by=0.7),
        r"network\.blocks\.\d\.config",
    ),
    "an array": (lambda q: last_block(q).table.fill(0.25), r"network\.blocks\.\d\.table"),
    "a function": (lambda q: setattr(last_block(q), "act", torch.cos), r"network\.blocks\.\d\.act"),
    "a module in a list": (
        lambda q: add(last_block(q).spare[0].bias),
        r"network\.blocks\.\d\.spare",
    ),
    "code": (
        lambda q: setattr(last_block(q), "__class__", OtherBlock),
        r"network\.blocks\.\d: Block there, OtherBlock here",
    ),
    "a patch": (patch, r"network\.first\.forward"),
    "a hook": (hook, r"hooks of network\.last"),
    "a cut": (
        lambda q: setattr(q.network, "blocks", q.network.blocks[:0]),
        r"network\.blocks\.0",
    ),
    "an input": (lambda q: add(q.inputs[:, 0]), "inputs: "),
    "one input less": (lambda q: setattr(q, "inputs", q.inputs[:-1]), "inputs: "),
    "target": (option(target=TopK(2)), "target: "),
    "another target": (option(target=Sum()), "target: "),
    "a function as target": (option(target=lambda y: y[:, 0]), "target: "),
    "method": (option(method=ActGrad()), "method: "),
    "other method": (option(method=InputGrad()), "method: "),
    "steps": (option(method=IntegratedGradients(3)), "steps: 2 there, 3 here"),
    "reduction": (option(reduction=AllUnits()), "reduction: "),
    "batch size": (option(batch_size=5), "batch_size: 4 there, 5 here"),
    "dtype": (option(dtype=torch.float64), "dtype: float32 there, float64 here"),
    "layers": (option(layers=["first", "last"]), "layers: "),
    "default dtype": (
        lambda q: setattr(q, "context", DefaultDtype),
        "default_dtype: float32 there, float64 here",
    ),
}

SAME: dict[str, Callable[[Question], Any]] = {
    "nothing": lambda q: None,  # noqa: ARG005
    "the network has been used": lambda q: q.network(q.inputs),
    "the network is in training mode": lambda q: q.network.train(),
    "a note that nothing reads": lambda q: setattr(q.network, "made_at", 17.5),
    "no gradients": lambda q: setattr(q, "context", torch.no_grad),
    "inference mode": lambda q: setattr(q, "context", torch.inference_mode),
    "autocast, which a borrowed network does not heed": lambda q: setattr(
        q, "context", lambda: torch.autocast("cpu", torch.bfloat16)
    ),
    "weights are fixed": lambda q: q.network.requires_grad_(False),
    "a gradient is there": lambda q: q.network(q.inputs).sum().backward(),
    "another seed": lambda q: torch.manual_seed(99),  # noqa: ARG005
    "inputs of numpy": lambda q: setattr(q, "inputs", q.inputs.numpy()),
    "another order of layers' gradient": lambda q: q.network.last.bias.requires_grad_(False),
}


SPEC = {
    "seed": 0,
    "depth": 2,
    "heads": 2,
    "temperature": 1.0,
    "powers": [1, 2],
    "shift": 0.1,
    "table": [0.5] * UNITS,
    "act": torch.tanh,
    "persistent": False,
}


@pytest.fixture(scope="module")
def answered() -> Iterator[Path]:
    """A finished store."""
    with tempfile.TemporaryDirectory() as folder:
        Question(SPEC).ask(Path(folder) / "run.zarr").close()
        yield Path(folder) / "run.zarr"


def check_reused(spec: dict[str, Any], store: Path, same: str) -> None:
    question, computed = Question(spec), list[int]()
    SAME[same](question)
    with pytest.MonkeyPatch.context() as watched:
        watched.setattr(shards, "run_shard", lambda *_: computed.append(1))
        found = question.ask(store)["layers/first/contribution"].values
    assert not computed, same
    fresh = Question(spec)
    SAME[same](fresh)
    with fresh.context():
        memory = contribute(fresh.network, fresh.inputs, **fresh.options)
    np.testing.assert_array_equal(found, memory["layers/first/contribution"].values)


def check_refused(spec: dict[str, Any], store: Path, change: str) -> None:
    question = Question(spec)
    CHANGES[change][0](question)
    with pytest.raises(RetinaCodecError, match=f"belongs to another .*{CHANGES[change][1]}"):
        question.ask(store)


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_is_named(answered: Path, change: str) -> None:
    check_refused(SPEC, answered, change)


@pytest.mark.parametrize("same", SAME)
def test_what_decides_no_number_is_no_change(answered: Path, same: str) -> None:
    check_reused(SPEC, answered, same)


def check(spec: dict[str, Any], change: str, same: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "run.zarr"
        Question(spec).ask(store).close()
        check_reused(spec, store, same)
        check_refused(spec, store, change)


DRAWN = {"spec": SPECS, "change": st.sampled_from([*CHANGES]), "same": st.sampled_from([*SAME])}


@given(**DRAWN)
@settings(deadline=None, max_examples=6)
def test_a_store_answers_only_the_same_question(
    spec: dict[str, Any], change: str, same: str
) -> None:
    check(spec, change, same)


@pytest.mark.slow
@given(**DRAWN)
@settings(deadline=None, max_examples=2000)
def test_a_store_answers_only_the_same_question_in_many_draws(
    spec: dict[str, Any], change: str, same: str
) -> None:
    check(spec, change, same)
