"""Inputs of every kind: the same batches, parts that are small, and what tells two apart."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from retina_codec.networks.adapter import adapt
from retina_codec.probing import sources
from retina_codec.probing.batches import tensors_of
from retina_codec.probing.inputs import Source, open_inputs
from retina_codec.storage.trees import open_tree, save_tree
from tests.contributions.tiny import HISTORY, tiny_retina, tiny_split

COUNT = 200
VALUES = torch.randn(COUNT, 3, 16, 16, generator=torch.Generator().manual_seed(0))
PLAIN = adapt(nn.Sequential(nn.Flatten()), "0")
RETINA = adapt(tiny_retina())


def array() -> xr.DataArray:
    return xr.DataArray(
        VALUES.numpy(), dims=("sample", "c", "y", "x"), coords={"sample": np.arange(COUNT) * 2}
    )


MAKERS: dict[str, Callable[[], Source]] = {
    "tensor": lambda: open_inputs(PLAIN, VALUES),
    "numpy": lambda: open_inputs(PLAIN, VALUES.numpy()),
    "labelled": lambda: open_inputs(PLAIN, array()),
    "lazy": lambda: open_inputs(PLAIN, array().chunk({"sample": 7})),
    "named": lambda: open_inputs(PLAIN, {"a": VALUES, "b": array()}),
    "dataset": lambda: open_inputs(PLAIN, TensorDataset(VALUES)),
    "loader": lambda: open_inputs(PLAIN, DataLoader(TensorDataset(VALUES, VALUES), 9)),
    "recording": lambda: open_inputs(RETINA, tiny_split(COUNT + HISTORY)),
    "lazy recording": lambda: open_inputs(RETINA, tiny_split(COUNT + HISTORY).chunk({"time": 7})),
}


def all_of(source: Source, size: int) -> torch.Tensor:
    return torch.cat(
        [torch.cat([v.flatten(1) for v in tensors_of(b)], 1) for b in source.batches(size)]
    )


@pytest.mark.parametrize("kind", MAKERS)
def test_parts_put_together_are_the_whole(kind: str) -> None:
    source = MAKERS[kind]()
    assert len(source) == COUNT
    whole = all_of(source, 64)
    cuts = (0, 1, 8, 13, 100, COUNT)
    parts = [source.part(a, b) for a, b in pairwise(cuts)]
    assert [len(part) for part in parts] == [1, 7, 5, 87, 100]
    assert [part.offset for part in parts] == list(cuts[:-1])
    torch.testing.assert_close(
        torch.cat([all_of(part, 6) for part in parts]), whole, rtol=0, atol=0
    )
    nested = source.part(8, 100).part(5, 9)
    torch.testing.assert_close(all_of(nested, 3), whole[13:17], rtol=0, atol=0)
    assert nested.offset == 13
    mean = torch.cat([values.flatten() for values in tensors_of(source.mean())])
    if "recording" not in kind:  # there the mean frame, over all frames
        torch.testing.assert_close(mean, whole.double().mean(0), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kind", [k for k in MAKERS if k not in ("dataset", "loader")])
def test_a_part_travels_with_its_own_inputs_only(kind: str) -> None:
    """Bytes on the way are those of the slice (with the history before it), and some kilobytes."""
    source = MAKERS[kind]()
    if kind.startswith("lazy"):
        return  # a graph over an array in memory holds it; over a file it holds the name
    part = source.part(40, 50)
    shares = 2 if kind == "named" else 1
    own = 10 * VALUES[0].nbytes * shares if kind != "recording" else (10 + HISTORY) * 72
    assert len(cloudpickle.dumps(part)) < own + 6000
    assert not source.whole


def test_a_part_of_a_file_travels_as_its_name(tmp_path: Path) -> None:
    save_tree(xr.DataTree.from_dict({"/train": tiny_split(20_000)}), tmp_path / "r.nc")
    with open_tree(tmp_path / "r.nc") as tree:
        part = open_inputs(RETINA, tree["train"]).part(5, 9000)
        sent = cloudpickle.dumps(part)
        assert len(sent) < 200_000 < 9000 * 72
        there = cloudpickle.loads(sent)
        torch.testing.assert_close(all_of(there, 500), all_of(part, 500))


def test_data_sets_travel_whole() -> None:
    assert MAKERS["dataset"]().whole


@pytest.mark.parametrize("kind", MAKERS)
def test_text_is_the_same_every_time_and_reveals_a_change(kind: str) -> None:
    assert MAKERS[kind]().text() == MAKERS[kind]().text()
    assert MAKERS[kind]().text().startswith(f"{COUNT} along ")


def changed(index: tuple[int, ...]) -> torch.Tensor:
    values = VALUES.clone()
    values[index] += 1
    return values


def test_text_tells_inputs_labels_rates_and_normalisation_apart() -> None:
    split = tiny_split()
    other_rate = split.assign(rate=split["rate"] + 1)
    other_frame = split.copy(deep=True)
    other_frame["stimulus"][31, 2, 2] += 1
    later = split.assign_coords(time=split["time"] + 1)
    whole = [
        open_inputs(PLAIN, VALUES),
        open_inputs(PLAIN, changed((77, 1, 3, 3))),
        open_inputs(PLAIN, VALUES[:-1]),
        open_inputs(PLAIN, VALUES.double()),
        open_inputs(PLAIN, array()),
        open_inputs(RETINA, split),
        open_inputs(RETINA, split, torch.float64),
        open_inputs(RETINA, other_rate),
        open_inputs(RETINA, other_frame),
        open_inputs(RETINA, later),
    ]
    texts = [source.text() for source in whole]
    same_numbers = 1  # the dtype of windows is not the inputs' (contribute names it)
    assert len(set(texts)) == len(texts) - same_numbers


def test_many_inputs_in_a_file_are_told_apart_by_a_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above a size, sixteen places from the first to the last input; no more is read."""
    monkeypatch.setattr(sources, "SMALL", 1000)
    read: list[tuple[int, int]] = []
    plain = sources.ArraySource.part

    def noted(self: Any, start: int, stop: int) -> Any:
        read.append((start, stop))
        return plain(self, start, stop)

    def text(values: torch.Tensor) -> str:
        lazy = xr.DataArray(values.numpy(), dims=("sample", "c", "y", "x")).chunk({"sample": 7})
        return open_inputs(PLAIN, lazy).text()

    monkeypatch.setattr(sources.ArraySource, "part", noted)
    plain_text = text(VALUES)
    assert len(set(read)) == sources.SAMPLED
    assert {0, COUNT - 1} <= {start for start, _ in read}
    assert all(stop - start == 1 for start, stop in read)
    assert text(changed((0, 0, 0, 0))) != plain_text
    assert text(changed((COUNT - 1, 2, 15, 15))) != plain_text
    seen = {start for start, _ in read}
    unseen = next(place for place in range(COUNT) if place not in seen)
    assert text(changed((unseen, 0, 0, 0))) == plain_text
    assert open_inputs(PLAIN, changed((unseen, 0, 0, 0))).text() != (
        open_inputs(PLAIN, VALUES).text()
    ), "inputs in memory are told apart by all"
    frames = open_inputs(RETINA, tiny_split(1000))
    other = tiny_split(1000)
    other["stimulus"][-1, 2, 2] += 1
    assert open_inputs(RETINA, other).text() != frames.text()
