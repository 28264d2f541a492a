"""Data sets of torch and their loaders as sources: all samples, in order, each once.

A loader batches samples itself, or its data set gives whole batches; others are refused.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, chain, islice, pairwise
from typing import Any, ClassVar

import numpy as np
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    SequentialSampler,
    Subset,
    default_collate,
)

from retina_codec.errors import RetinaCodecError
from retina_codec.probing.batches import Batch, map_tensors, tensors_of
from retina_codec.probing.labels import dataset_labels
from retina_codec.probing.sources import Source, check_finite

__all__ = ["BatchesSource", "DatasetSource", "open_dataset"]

Collate = Callable[[Any], Any]


@dataclass(frozen=True)
class DatasetSource(Source):
    """A data set of torch that can be indexed, read as a loader reads it."""

    dataset: Any
    collate: Collate
    options: Mapping[str, Any] = field(default_factory=dict)  # of the loader: workers and so on
    whole: ClassVar[bool] = True

    def __len__(self) -> int:
        return len(self.dataset)

    def part(self, start: int, stop: int) -> "DatasetSource":
        """Restrict the data set to some of its indices."""
        some: Dataset[Any] = Subset(self.dataset, range(start, stop))
        return replace(self, dataset=some, coords={}, offset=self.offset + start)

    def batches(self, size: int) -> Iterator[Batch]:
        """Load batches in order, without labels."""
        count, done = len(self), 0
        loader = _loader(self.dataset, self.collate, self.options, count, batch_size=size)
        for item in _stacked(loader):
            expected = min(size, count - done)
            batch = _batch(_inputs_of(item))
            if any(len(values) != expected for values in tensors_of(batch)):
                shapes = map_tensors(lambda values: tuple(values.shape), batch)
                raise RetinaCodecError(
                    f"the loader's collate_fn must give one row for each of its {expected} "
                    f"samples; got {shapes}. Leave collate_fn out, or give one row for a sample."
                )
            check_finite(batch, self.dim, self.offset + done)
            done += expected
            yield batch


@dataclass(frozen=True)
class BatchesSource(Source):
    """A data set of torch that gives whole batches, for a loader with ``batch_size=None``."""

    dataset: Any
    keys: Sequence[Any]  # of the batches: numbers, or lists of numbers
    ends: Sequence[int]  # number of samples up to the end of every batch
    collate: Collate
    options: Mapping[str, Any]
    first: int  # sample
    last: int  # excluded
    whole: ClassVar[bool] = True

    def __len__(self) -> int:
        return self.last - self.first

    def part(self, start: int, stop: int) -> "BatchesSource":
        """Keep to some of the samples."""
        first, last = self.first + start, self.first + stop
        return replace(self, coords={}, first=first, last=last, offset=self.offset + start)

    def batches(self, size: int) -> Iterator[Batch]:
        """Cut and join the batches of the data set, those of one shape, to batches of a size."""
        waiting: Batch | None = None
        number = self.offset
        for piece in chain(self._pieces(), [None]):
            if waiting is not None and (piece is None or not _can_join(waiting, piece)):
                yield waiting
                waiting = None
            if piece is None:
                return
            check_finite(piece, self.dim, number)
            number += len(tensors_of(piece)[0])
            waiting = piece if waiting is None else map_tensors(_join, waiting, piece)
            whole = len(tensors_of(waiting)[0]) // size * size
            for start in range(0, whole, size):
                yield map_tensors(lambda v, start=start: v[start : start + size], waiting)
            left: Batch = map_tensors(lambda v, whole=whole: v[whole:], waiting)
            waiting = left if len(tensors_of(left)[0]) else None

    def _pieces(self) -> Iterator[Batch]:
        """Read the batches that hold these samples, cut to them."""
        begin = bisect_right(self.ends, self.first)
        end = bisect_right(self.ends, self.last - 1) + 1
        keys, ends = self.keys[begin:end], [0, *self.ends][begin : end + 1]
        loader = _loader(
            self.dataset, self.collate, self.options, len(keys), batch_size=None, sampler=keys
        )
        for item, (start, stop) in zip(loader, pairwise(ends), strict=True):
            batch, _ = _whole_batch(item)
            if len(tensors_of(batch)[0]) != stop - start:
                raise RetinaCodecError(
                    f"a batch must have the same samples at each reading; one had {stop - start} "
                    f"and now {len(tensors_of(batch)[0])}. Give a data set that does not change."
                )
            low, high = max(self.first - start, 0), min(self.last, stop) - start
            yield map_tensors(lambda v, low=low, high=high: v[low:high], batch)


def open_dataset(inputs: Any) -> Source:
    """Open a data set that can be indexed, or that of a loader which goes through it in order.

    Parameters
    ----------
    inputs : torch.utils.data.Dataset or DataLoader
        Of a loader with ``batch_size=None`` every item is a batch; all are read once to count
        their samples.

    Raises
    ------
    RetinaCodecError
        If samples would come in another order, more than once or not at all, if the data set
        cannot be indexed or is empty, or gives single samples where batches are expected.
    """
    loader = inputs if isinstance(inputs, DataLoader) else None
    dataset = inputs if loader is None else loader.dataset
    if isinstance(dataset, IterableDataset) or not (
        hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")
    ):
        raise RetinaCodecError(
            "a data set must have a length and be indexed, so that parts can be resumed; got "
            f"{type(dataset).__name__}. Read its samples into one that can: "
            "torch.utils.data.TensorDataset(torch.stack(list(...)))."
        )
    if not len(dataset):
        raise RetinaCodecError("the data set is empty; at least one sample is needed.")
    if loader is None:
        coords = {"sample": np.arange(len(dataset)), **dataset_labels(dataset)}
        return DatasetSource("sample", coords, dataset, default_collate)
    names = ("num_workers", "worker_init_fn", "multiprocessing_context", "timeout")
    options = {name: getattr(loader, name) for name in names}
    if loader.batch_sampler is None:
        return _open_batches(loader, dataset, options)
    _check_order(_order(loader, len(dataset)), len(dataset))
    coords = {"sample": np.arange(len(dataset)), **dataset_labels(dataset)}
    return DatasetSource("sample", coords, dataset, loader.collate_fn, options)


def _open_batches(loader: Any, dataset: Any, options: dict[str, Any]) -> Source:
    """Open a data set that gives whole batches; read each once to count its samples."""
    keys = _order(loader, len(dataset))
    _check_order(keys, len(dataset))
    lengths, one_each = [], 0
    for item in _loader(dataset, loader.collate_fn, options, len(keys), None, sampler=keys):
        batch, labels_of_one = _whole_batch(item)
        lengths.append(len(tensors_of(batch)[0]))
        one_each += labels_of_one
    if one_each:
        raise RetinaCodecError(
            "with batch_size=None the data set must give whole batches; it gives single samples "
            "(a label that is one number for each). Let the loader batch them: batch_size=8, say."
        )
    if not sum(lengths):
        raise RetinaCodecError("the data set is empty; at least one sample is needed.")
    ends, count = list(accumulate(lengths)), sum(lengths)
    coords = {"sample": np.arange(count), **dataset_labels(dataset, count)}
    return BatchesSource(
        "sample", coords, dataset, keys, ends, loader.collate_fn, options, 0, count
    )


def _order(loader: Any, count: int) -> list[Any]:
    """Return the indices that a loader goes through; no more than one beyond the length."""
    sampler = loader.sampler
    if loader.batch_sampler is not None and loader.batch_size is None:  # given by the user
        given = loader.batch_sampler
        if type(given) is not BatchSampler:
            with torch.random.fork_rng(devices=[]):
                return list(islice(chain.from_iterable(given), count + 1))
        sampler = given.sampler
    if type(sampler) is SequentialSampler and len(sampler) == count:
        return list(range(count))
    with torch.random.fork_rng(devices=[]):
        return list(islice(sampler, count + 1))


def _check_order(keys: list[Any], count: int) -> None:
    """Refuse an order in which labels and parts would not fit the samples."""
    flat = list(chain.from_iterable(k if isinstance(k, list | tuple) else [k] for k in keys))
    if flat == list(range(count)):
        return
    told = (
        "shuffles or samples"
        if sorted(map(str, flat)) == sorted(map(str, range(count)))
        else (f"gives {min(len(flat), count)} of {count} samples, or some more than once")
    )
    raise RetinaCodecError(
        "a loader must go through its data set in order, so that results keep their labels and a "
        f"run can be resumed; this one {told}. Use shuffle=False and no sampler, and for a part of "
        "the samples torch.utils.data.Subset(dataset, indices)."
    )


def _loader(
    dataset: Any,
    collate: Collate,
    options: Mapping[str, Any],
    count: int,
    batch_size: int | None,
    sampler: Any = None,
) -> DataLoader[Any]:
    """Return a loader like the user's, with another batch size."""
    options = dict(options)
    options["num_workers"] = min(options.get("num_workers", 0), count)
    if not options["num_workers"]:
        options = {}
    return DataLoader(
        dataset, batch_size=batch_size, sampler=sampler, collate_fn=collate, **options
    )


def _stacked(loader: DataLoader[Any]) -> Iterator[Any]:
    """Go through batches; say in one line that samples of several shapes are none."""
    try:
        yield from loader
    except RuntimeError as error:
        if "equal size" not in str(error):
            raise
        raise RetinaCodecError(
            "samples must have one shape, to stand in one batch; these differ "
            f"({str(error).splitlines()[-1]}). Pad all to one length, give a DataLoader whose "
            "collate_fn pads, or use batch_size=1."
        ) from error


def _inputs_of(item: Any) -> Any:
    """Return the inputs of (inputs, label)."""
    return item[0] if isinstance(item, tuple | list) and len(item) else item


def _batch(found: Any) -> Batch:
    """Return a batch of tensors; by name, all must be tensors."""
    if isinstance(found, torch.Tensor) and found.ndim:
        return found
    if not isinstance(found, Mapping) or not found:
        raise RetinaCodecError(
            "a data set must give tensors, (tensor, label) or tensors by name; got "
            f"{type(found).__name__}{' of no dims' if isinstance(found, torch.Tensor) else ''}."
        )
    for name, values in found.items():
        if not isinstance(values, torch.Tensor) or not values.ndim:
            raise RetinaCodecError(
                "samples by name must hold tensors, the arguments of the network; "
                f"{name!r} is {type(values).__name__}. Leave it out of the samples, or give it as "
                "a label: the data set's attribute coords."
            )
    return {str(name): values for name, values in found.items()}


def _whole_batch(item: Any) -> tuple[Batch, bool]:
    """Return an item that is a batch, and whether its label is that of one sample."""
    batch = _batch(_inputs_of(item))
    lengths = {len(values) for values in tensors_of(batch)}
    if len(lengths) > 1 or any(values.ndim < 2 for values in tensors_of(batch)):
        shapes = map_tensors(lambda values: tuple(values.shape), batch)
        raise RetinaCodecError(
            "with batch_size=None the data set must give whole batches, (sample, ...); got "
            f"{shapes}. If these are single samples, let the loader batch them: batch_size=8, say."
        )
    labels = item[1:] if isinstance(item, tuple | list) else ()
    of_one = any(
        isinstance(label, int | float | str) or (isinstance(label, torch.Tensor) and not label.ndim)
        for label in labels
    )
    return batch, of_one and lengths != {1}


def _can_join(one: Batch, other: Batch) -> bool:
    """Return whether two batches differ in their number of samples only."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() != other.keys():
        return False
    pairs = zip(tensors_of(one), tensors_of(other), strict=True)
    return all(a.shape[1:] == b.shape[1:] and a.dtype == b.dtype for a, b in pairs)


def _join(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return torch.cat([one, other])
