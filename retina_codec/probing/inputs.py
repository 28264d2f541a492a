"""Turn every accepted kind of inputs into batches of tensors with labels.

A source can be cut into parts, which travel to other processes with only their own inputs.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
import xarray as xr
from torch.utils.data import DataLoader, Dataset, SequentialSampler, Subset

from retina_codec.errors import RetinaCodecError
from retina_codec.networks.adapter import Adapter
from retina_codec.networks.retina.model import RetinaCNN
from retina_codec.networks.retina.prediction import open_windows
from retina_codec.probing.batches import Batch, map_tensors, tensors_of
from retina_codec.probing.labels import array_labels, dataset_labels
from retina_codec.recordings.windows import StimulusWindows
from retina_codec.storage.provenance import array_text

__all__ = ["Source", "open_inputs"]

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
        """Describe inputs by number, labels and a hash: of all, or of 16 if they are many."""
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
        if len(self) * sum(values.nbytes for values in first) <= SMALL and not self.whole:
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

    values: Any  # torch.Tensor, xr.DataArray, or a dict of these

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
                return piece if isinstance(piece, torch.Tensor) else _from_numpy(piece.to_numpy())

            batch = _each(read, self.values)
            _check_finite(batch, self.dim, self.offset + start)
            yield batch


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


@dataclass(frozen=True)
class DatasetSource(Source):
    """A data set of torch that can be indexed, read as a loader reads it."""

    dataset: Any
    collate: Callable[[list[Any]], Any]
    workers: int
    whole: ClassVar[bool] = True

    def __len__(self) -> int:
        return len(self.dataset)

    def part(self, start: int, stop: int) -> "DatasetSource":
        """Restrict the data set to some of its indices."""
        some: Dataset[Any] = Subset(self.dataset, range(start, stop))
        return replace(self, dataset=some, coords={}, offset=self.offset + start)

    def batches(self, size: int) -> Iterator[Batch]:
        """Load batches in order, without labels."""
        loader = DataLoader(
            self.dataset, size, collate_fn=self.collate, num_workers=min(self.workers, len(self))
        )
        start = self.offset
        for item in loader:
            batch = item[0] if isinstance(item, tuple | list) else item
            if not isinstance(batch, torch.Tensor | Mapping):
                raise RetinaCodecError(
                    "a data set must give tensors, (tensor, label) or tensors by name; got "
                    f"{type(batch).__name__}."
                )
            batch = dict(batch) if isinstance(batch, Mapping) else batch
            _check_finite(batch, self.dim, start)
            start += len(tensors_of(batch)[0])
            yield batch


def open_inputs(network: Adapter, inputs: Any, dtype: torch.dtype = torch.float32) -> Source:
    """Turn every accepted kind of inputs into a source.

    Parameters
    ----------
    network : Adapter
    inputs : xr.DataTree, xr.Dataset, xr.DataArray, torch.Tensor, dict, DataLoader or Dataset
        As `contribute` takes them. A Dataset with ``image`` and without ``stimulus`` is that
        array; labels come along, see `retina_codec.probing.labels`.
    dtype : torch.dtype
        Of the windows of a recording.

    Returns
    -------
    Source

    Raises
    ------
    RetinaCodecError
        If the kind, the dims or the shape are not among the accepted ones, or there are none.
    """
    if isinstance(inputs, xr.Dataset) and "image" in inputs and "stimulus" not in inputs:
        inputs = inputs["image"]
    if isinstance(inputs, xr.DataTree | xr.Dataset):
        return _open_split(network, inputs, dtype)
    if isinstance(inputs, DataLoader | Dataset) and not isinstance(inputs, torch.Tensor):
        return _open_dataset(inputs)
    if isinstance(inputs, Mapping):
        return _open_named(dict(inputs))
    values, dim, coords = _open_array(inputs)
    if isinstance(network.module, RetinaCNN):
        retina = network.module
        window = (retina.history, *retina.frame_shape)
        if tuple(values.shape[1:]) != window:
            raise RetinaCodecError(
                f"windows for this network must be (lag, y, x) of {window}; "
                f"got {tuple(values.shape[1:])}."
            )
    return ArraySource(dim, coords, values)


def _open_array(inputs: Any) -> tuple[Any, str, dict[str, Any]]:
    """Check one array; return it, its first dim and the coordinates along that."""
    dim = "sample"
    coords: dict[str, Any] = {}
    if isinstance(inputs, xr.DataArray):
        dim = str(inputs.dims[0]) if inputs.dims else ""
        if dim not in ("time", "sample"):
            raise RetinaCodecError(
                f"the first dim of inputs must be 'time' or 'sample'; got dims {inputs.dims}. "
                "Transpose them, or rename the dim."
            )
        if set(inputs.dims[1:]) == {"lag", "y", "x"}:
            inputs = inputs.transpose(dim, "lag", "y", "x")
        coords = dict(array_labels(inputs, dim))
    elif isinstance(inputs, np.ndarray):
        inputs = _from_numpy(inputs)
    elif not isinstance(inputs, torch.Tensor):
        raise RetinaCodecError(
            "inputs must be a split of a recording, a DataArray, a tensor, tensors by name or a "
            f"data loader; got {type(inputs).__name__}."
        )
    if inputs.ndim < 2 or not len(inputs):
        raise RetinaCodecError(
            f"inputs must be at least one sample, (sample, ...); got shape {tuple(inputs.shape)}."
        )
    coords.setdefault(dim, np.arange(len(inputs)))
    return inputs, dim, coords


def _open_named(inputs: dict[str, Any]) -> Source:
    """Check several arrays by name: the same number of samples in each."""
    if not inputs:
        raise RetinaCodecError("inputs by name must hold at least one tensor; got an empty dict.")
    opened = {str(name): _open_array(values) for name, values in inputs.items()}
    lengths = {name: len(values) for name, (values, _, _) in opened.items()}
    if len(set(lengths.values())) > 1:
        raise RetinaCodecError(f"inputs by name must have the same length; got {lengths}.")
    _, dim, coords = next(iter(opened.values()))
    return ArraySource(dim, coords, {name: values for name, (values, _, _) in opened.items()})


def _open_dataset(inputs: Any) -> Source:
    """Open a data set, or that of a loader without shuffling."""
    collate, workers, dataset = torch.utils.data.default_collate, 0, inputs
    if isinstance(inputs, DataLoader):
        if not isinstance(inputs.sampler, SequentialSampler):
            raise RetinaCodecError(
                "a loader must go through its data set in order, so that results keep their "
                "labels and a run can be resumed; this one shuffles or samples. Use shuffle=False."
            )
        dataset, collate, workers = inputs.dataset, inputs.collate_fn, inputs.num_workers
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise RetinaCodecError(
            "a data set must have a length and be indexed, so that parts can be resumed; got "
            f"{type(dataset).__name__}."
        )
    if not len(dataset):
        raise RetinaCodecError("the data set is empty; at least one sample is needed.")
    coords = {"sample": np.arange(len(dataset)), **dataset_labels(dataset)}
    return DatasetSource("sample", coords, dataset, collate, workers)


def _open_split(network: Adapter, split: xr.DataTree | xr.Dataset, dtype: torch.dtype) -> Source:
    """Open a split of a recording as windows of the history that the network takes."""
    chosen, whole = open_windows(network.module, split, dtype)
    rate = None
    if "rate" in chosen:
        rate = chosen["rate"].isel(time=slice(whole.history, None)).transpose("time", "cell")
    types = chosen["type"].values if "type" in chosen.coords else None
    stimulus = chosen["stimulus"].reset_coords(drop=True).transpose("time", "y", "x")
    return WindowSource(
        "time",
        {"time": whole.time.variable},
        stimulus,
        whole.history,
        (whole.mean, whole.std),
        dtype,
        rate=rate,
        types=types,
        consecutive=True,
    )


def _each(function: Callable[[Any], Any], values: Any) -> Any:
    """Apply a function to an array, or to each of several by name."""
    if isinstance(values, dict):
        return {name: function(part) for name, part in values.items()}
    return function(values)


def _from_numpy(values: np.ndarray) -> torch.Tensor:
    """Return a tensor that shares no memory with the array."""
    native = values.astype(values.dtype.newbyteorder("="))
    if native.dtype in (np.uint16, np.uint32, np.uint64):
        native = native.astype(np.int64)
    return torch.from_numpy(native)


def _check_finite(batch: Batch, dim: str, start: int) -> None:
    for values in tensors_of(batch):
        if not values.is_floating_point():
            continue
        bad = ~torch.isfinite(values.flatten(1)).all(1)
        if bool(bad.any()):
            raise RetinaCodecError(
                f"inputs must be finite; {dim} number {start + int(bad.int().argmax())} is not."
            )
