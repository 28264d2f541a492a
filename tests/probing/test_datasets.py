"""Loaders of every kind: all samples in order, each once, or one line that says what must hold."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
)

from retina_codec.contributions.contribute import contribute
from retina_codec.errors import RetinaCodecError
from retina_codec.methods.gradients import ActGrad
from retina_codec.networks.adapter import adapt
from retina_codec.probing import sources
from retina_codec.probing.batches import tensors_of
from retina_codec.probing.inputs import open_inputs
from retina_codec.targets.base import Sum

COUNT = 13
X = torch.randn(COUNT, 3, generator=torch.Generator().manual_seed(0))
Y = torch.arange(COUNT)
NETWORK = adapt(nn.Sequential(nn.Linear(3, 2)), "0")


class Batches(Dataset[Any]):
    """Whole batches of these lengths; ``give`` makes an item of a slice."""

    def __init__(self, lengths: list[int], give: Callable[[slice], Any] = lambda s: X[s]) -> None:
        self.ends, self.give = np.cumsum([0, *lengths]).tolist(), give

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, index: int) -> Any:
        return self.give(slice(self.ends[index], self.ends[index + 1]))


class Bulk(TensorDataset):
    """Items for lists of indices."""

    def __getitem__(self, index: Any) -> Any:
        return super().__getitem__(index)


class Given(Dataset[Any]):
    def __init__(self, give: Callable[[int], Any]) -> None:
        self.give = give

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> Any:
        return self.give(index)


class Stream(IterableDataset[Any]):
    def __len__(self) -> int:
        return COUNT

    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter(X)


class Backwards(SequentialSampler):
    def __iter__(self) -> Iterator[int]:
        return reversed(range(COUNT))  # type: ignore[return-value]


LENGTHS = [4, 4, 4, 1]
PAIRS = TensorDataset(X, Y)

ACCEPTED: dict[str, Callable[[], Any]] = {
    "plain": lambda: DataLoader(PAIRS, 4),
    "last batch dropped by the loader": lambda: DataLoader(PAIRS, 4, drop_last=True),
    "whole batches": lambda: DataLoader(Batches(LENGTHS), batch_size=None),
    "whole batches of many lengths": lambda: DataLoader(Batches([1, 7, 2, 3]), batch_size=None),
    "whole batches and labels": lambda: DataLoader(
        Batches(LENGTHS, lambda s: (X[s], Y[s])), batch_size=None
    ),
    "lists of batch and labels": lambda: DataLoader(
        Batches(LENGTHS, lambda s: [X[s], Y[s]]), batch_size=None
    ),
    "whole batches by name": lambda: DataLoader(
        Batches(LENGTHS, lambda s: {"input": X[s]}), batch_size=None
    ),
    "whole batches of arrays": lambda: DataLoader(
        Batches(LENGTHS, lambda s: X[s].numpy()), batch_size=None
    ),
    "lists of indices": lambda: DataLoader(
        Bulk(X, Y), batch_size=None, sampler=BatchSampler(SequentialSampler(Y), 4, drop_last=False)
    ),
    "a batch sampler": lambda: DataLoader(
        PAIRS, batch_sampler=BatchSampler(SequentialSampler(PAIRS), 5, drop_last=False)
    ),
    "a batch sampler that drops the last": lambda: DataLoader(
        PAIRS, batch_sampler=BatchSampler(SequentialSampler(PAIRS), 5, drop_last=True)
    ),
    "batches of its own": lambda: DataLoader(PAIRS, batch_sampler=[[0, 1, 2], [*range(3, COUNT)]]),
    "a sampler in order": lambda: DataLoader(PAIRS, 4, sampler=range(COUNT)),
    "by name": lambda: DataLoader(Given(lambda i: {"input": X[i]}), 4),
    "by name, with a label": lambda: DataLoader(Given(lambda i: ({"input": X[i]}, "cat")), 4),
    "a data set": lambda: PAIRS,
}


def rows(source: Any, size: int) -> torch.Tensor:
    return torch.cat([tensors_of(batch)[0] for batch in source.batches(size)])


@pytest.mark.parametrize("kind", ACCEPTED)
def test_all_samples_come_in_order(kind: str) -> None:
    source = open_inputs(NETWORK, ACCEPTED[kind]())
    assert len(source) == COUNT
    for size in (1, 2, 5, 64):
        torch.testing.assert_close(rows(source, size), X, rtol=0, atol=0)
        lengths = [len(tensors_of(batch)[0]) for batch in source.batches(size)]
        assert max(lengths) <= size
    part = source.part(3, 11).part(2, 6)
    assert len(part) == 4
    assert part.offset == 5
    torch.testing.assert_close(rows(part, 3), X[5:9], rtol=0, atol=0)
    assert source.text() == open_inputs(NETWORK, ACCEPTED[kind]()).text()


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "shuffled": (lambda: DataLoader(PAIRS, 4, shuffle=True), "in order.*shuffles"),
    "drawn": (
        lambda: DataLoader(PAIRS, 4, sampler=RandomSampler(PAIRS, replacement=True)),
        "in order",
    ),
    "backwards": (lambda: DataLoader(PAIRS, 4, sampler=Backwards(PAIRS)), "in order.*shuffles"),
    "a part": (lambda: DataLoader(PAIRS, 4, sampler=range(5)), "5 of 13 samples.*Subset"),
    "a random part": (
        lambda: DataLoader(PAIRS, 4, sampler=SubsetRandomSampler([3, 1])),
        "2 of 13 samples",
    ),
    "batches that shuffle": (
        lambda: DataLoader(PAIRS, batch_sampler=BatchSampler(RandomSampler(PAIRS), 4, False)),
        "in order.*shuffles",
    ),
    "batches that leave samples out": (
        lambda: DataLoader(PAIRS, batch_sampler=[[0, 1], [3, 4]]),
        "4 of 13 samples",
    ),
    "batches that repeat": (
        lambda: DataLoader(PAIRS, batch_sampler=[[*range(COUNT)], [0]]),
        "some more than once",
    ),
    "whole batches, shuffled": (
        lambda: DataLoader(Batches([1] * 9), batch_size=None, shuffle=True),
        "in order",
    ),
    "single samples": (
        lambda: DataLoader(Given(lambda i: X[i]), batch_size=None),
        r"must give whole batches.*got \(3,\).*batch_size=8",
    ),
    "single samples and labels": (
        lambda: DataLoader(Given(lambda i: (X[:3], i)), batch_size=None),
        "it gives single samples.*batch_size=8",
    ),
    "a stream": (lambda: DataLoader(Stream(), 4), "must have a length and be indexed.*Stream"),
    "a stream of a data set": (Stream, "must have a length and be indexed"),
    "nothing": (lambda: DataLoader(TensorDataset(X[:0]), 4), "is empty"),
    "empty batches": (lambda: DataLoader(Batches([0, 0]), batch_size=None), "is empty"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_other_orders_are_refused_in_one_line(kind: str) -> None:
    make, says = REFUSED[kind]
    with pytest.raises(RetinaCodecError, match=says) as caught:
        open_inputs(NETWORK, make())
    assert "\n" not in str(caught.value)


UNREADABLE: dict[str, tuple[Callable[[], Any], str]] = {
    "a list of samples": (
        lambda: DataLoader(PAIRS, 4, collate_fn=lambda samples: [x for x, _ in samples]),
        r"one row for each of its \d samples",
    ),
    "two rows for one": (
        lambda: DataLoader(
            PAIRS, 4, collate_fn=lambda samples: torch.stack([s[0] for s in samples] * 2)
        ),
        r"one row for each of its \d samples",
    ),
    "text by name": (
        lambda: DataLoader(Given(lambda i: {"input": X[i], "file": f"{i}.png"}), 4),
        "'file' is list.*coords",
    ),
    "objects": (
        lambda: DataLoader(Given(lambda i: i), 4, collate_fn=lambda samples: object()),  # noqa: ARG005
        "got object",
    ),
    "text": (lambda: DataLoader(Given(str), 4), "got str"),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_batches_that_are_none_are_refused_in_one_line(kind: str) -> None:
    make, says = UNREADABLE[kind]
    with pytest.raises(RetinaCodecError, match=says) as caught:
        list(open_inputs(NETWORK, make()).batches(4))
    assert "\n" not in str(caught.value)


def test_labels_of_whole_batches_are_one_per_sample() -> None:
    batches = Batches(LENGTHS)
    batches.coords = {"word": np.array([f"w{i}" for i in range(COUNT)])}  # type: ignore[attr-defined]
    source = open_inputs(NETWORK, DataLoader(batches, batch_size=None))
    assert source.coords["word"].values.tolist() == [f"w{i}" for i in range(COUNT)]
    batches.coords = {"word": np.arange(len(LENGTHS))}  # type: ignore[attr-defined]
    with pytest.raises(RetinaCodecError, match=r"one word per sample; got \(4,\) for 13 samples"):
        open_inputs(NETWORK, DataLoader(batches, batch_size=None))


def test_whole_batches_of_different_shapes_are_not_joined() -> None:
    """Padded each to a length of its own."""
    shapes = [(2, 3), (2, 5), (1, 5)]
    values = [torch.ones(shape) for shape in shapes]
    loader = DataLoader(Batches([1, 1, 1], lambda s: values[s.start]), batch_size=None)
    source = open_inputs(NETWORK, loader)
    assert len(source) == 5
    assert [tuple(batch.shape) for batch in source.batches(4)] == [(2, 3), (3, 5)]  # type: ignore[union-attr]


def test_looking_at_an_order_draws_no_random_numbers() -> None:
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    with pytest.raises(RetinaCodecError, match="in order"):
        open_inputs(NETWORK, DataLoader(PAIRS, 4, shuffle=True))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_small_data_set_is_told_apart_by_all_samples() -> None:
    other = X.clone()
    other[7] += 1
    texts = [open_inputs(NETWORK, DataLoader(TensorDataset(v), 4)).text() for v in (X, X, other)]
    assert texts[0] == texts[1] != texts[2]


def test_a_subset_of_whole_batches_is_a_part() -> None:
    source = open_inputs(NETWORK, DataLoader(Subset(Batches(LENGTHS), [1, 2]), batch_size=None))
    torch.testing.assert_close(rows(source, 3), X[4:12])


def test_results_of_whole_batches_are_those_of_the_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "SMALL", 1)
    options: dict[str, Any] = {
        "target": Sum(),
        "method": ActGrad(),
        "layers": ["0"],
        "batch_size": 4,
        "progress": False,
    }
    network = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2))
    found = contribute(network, DataLoader(Batches([1, 7, 2, 3]), batch_size=None), **options)
    expected = contribute(network, X, **options)
    np.testing.assert_allclose(
        found["layers/0/contribution"], expected["layers/0/contribution"], rtol=1e-5
    )


@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=6).filter(any),
    st.integers(1, 9),
    st.data(),
)
@settings(deadline=None, max_examples=40)
def test_any_cut_of_whole_batches_is_that_of_the_samples(
    lengths: list[int], size: int, data: st.DataObject
) -> None:
    count = sum(lengths)
    values = torch.arange(2.0 * count).view(count, 2)
    source = open_inputs(
        NETWORK, DataLoader(Batches(lengths, lambda s: values[s]), batch_size=None)
    )
    start = data.draw(st.integers(0, count - 1))
    stop = data.draw(st.integers(start + 1, count))
    part = source.part(start, stop)
    torch.testing.assert_close(rows(part, size), values[start:stop], rtol=0, atol=0)
    lengths_out = [len(tensors_of(batch)[0]) for batch in part.batches(size)]
    assert lengths_out[:-1] == [size] * (len(lengths_out) - 1)
