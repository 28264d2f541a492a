"""The inputs of an analysis, whatever their kind, as batches of tensors with labels.

Why this file exists: a recording split, labelled windows and a bare tensor differ only in how
batches are made and what their first dimension is called. It runs no network.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import nn

from retina_codec.errors import RetinaCodecError
from retina_codec.networks.maheswaranathan import RetinaCNN
from retina_codec.networks.matching import open_windows
from retina_codec.progress import progress_bar

__all__ = ["Source", "open_inputs"]

Batches = Callable[[int, torch.device, torch.dtype], Iterator[tuple[slice, torch.Tensor]]]


@dataclass(frozen=True)
class Source:
    """Inputs as batches of tensors, with the labels of their first dimension."""

    length: int
    dim: str
    coords: dict[str, Any]
    batches: Batches
    rate: xr.DataArray | None
    types: Any
    consecutive: bool

    def bar(
        self, size: int, device: torch.device, dtype: torch.dtype, what: str, show: bool | None
    ) -> Iterable[tuple[slice, torch.Tensor]]:
        """Iterate over batches behind a progress bar."""
        total = -(-self.length // size)
        batches = self.batches(size, device, dtype)
        bar: Iterable[tuple[slice, torch.Tensor]] = progress_bar(
            batches, description=what, total=total, progress=show
        )
        return bar


def open_inputs(network: nn.Module, inputs: Any) -> Source:
    """Turn every accepted kind of inputs into one.

    Parameters
    ----------
    network : torch.nn.Module
    inputs : xr.DataTree, xr.Dataset, xr.DataArray or torch.Tensor
        As `contribute` takes them.

    Returns
    -------
    Source

    Raises
    ------
    RetinaCodecError
        If the kind, the dims or the shape are not among the accepted ones.
    """
    if isinstance(inputs, xr.DataTree | xr.Dataset):
        return _open_split(network, inputs)
    dim, coords = "sample", {}
    if isinstance(inputs, xr.DataArray):
        dim = str(inputs.dims[0]) if inputs.dims else ""
        if dim not in ("time", "sample"):
            raise RetinaCodecError(
                f"the first dim of inputs must be 'time' or 'sample'; got dims {inputs.dims}. "
                "Transpose them, or rename the dim."
            )
        if set(inputs.dims[1:]) == {"lag", "y", "x"}:
            inputs = inputs.transpose(dim, "lag", "y", "x")
        coords = {
            str(key): value.variable for key, value in inputs.coords.items() if value.dims == (dim,)
        }
    elif not isinstance(inputs, torch.Tensor):
        raise RetinaCodecError(
            "inputs must be a split of a recording, a DataArray or a tensor; got "
            f"{type(inputs).__name__}."
        )
    if inputs.ndim < 2 or not len(inputs):
        raise RetinaCodecError(
            f"inputs must be at least one sample, (sample, ...); got shape {tuple(inputs.shape)}."
        )
    if isinstance(network, RetinaCNN):
        window = (network.history, *network.frame_shape)
        if tuple(inputs.shape[1:]) != window:
            raise RetinaCodecError(
                f"windows for this network must be (lag, y, x) of {window}; "
                f"got {tuple(inputs.shape[1:])}."
            )
    if dim not in coords:
        coords[dim] = np.arange(len(inputs))

    def batches(
        size: int, device: torch.device, dtype: torch.dtype
    ) -> Iterator[tuple[slice, torch.Tensor]]:
        for start in range(0, len(inputs), size):
            part = inputs[start : start + size]
            values = part if isinstance(part, torch.Tensor) else torch.from_numpy(np.array(part))
            values = values.detach().to(device, dtype)
            bad = ~torch.isfinite(values.flatten(1)).all(1)
            if bool(bad.any()):
                raise RetinaCodecError(
                    f"inputs must be finite; {dim} number {start + int(bad.int().argmax())} is not."
                )
            yield slice(start, start + len(values)), values

    return Source(len(inputs), dim, coords, batches, None, None, False)


def _open_split(network: nn.Module, split: xr.DataTree | xr.Dataset) -> Source:
    """Open a split of a recording as windows of the history that the network takes."""
    split, whole = open_windows(network, split)

    def batches(
        size: int, device: torch.device, dtype: torch.dtype
    ) -> Iterator[tuple[slice, torch.Tensor]]:
        return open_windows(network, split, dtype)[1].batches(size, device)

    rate = split["rate"].isel(time=slice(whole.history, None)) if "rate" in split else None
    types = split["type"].values if "type" in split.coords else None
    coords = {"time": whole.time.variable}
    return Source(len(whole), "time", coords, batches, rate, types, True)
