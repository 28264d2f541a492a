"""Turn every accepted kind of inputs into a source of batches with labels."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch.utils.data import DataLoader, Dataset

from retina_codec.errors import RetinaCodecError
from retina_codec.networks.adapter import Adapter
from retina_codec.networks.retina.model import RetinaCNN
from retina_codec.networks.retina.prediction import open_windows
from retina_codec.probing.datasets import open_dataset
from retina_codec.probing.labels import array_labels
from retina_codec.probing.rows import check_numbers, open_rows
from retina_codec.probing.sources import ArraySource, Source, WindowSource

__all__ = ["Source", "open_inputs"]


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
        return open_dataset(inputs)
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
        check_numbers(inputs.dtype)
        coords = dict(array_labels(inputs, dim))
    elif isinstance(inputs, torch.Tensor):
        _check_tensor(inputs)
    else:
        rows = open_rows(inputs)
        if rows is None:
            raise RetinaCodecError(
                "inputs must be a split of a recording, an array (of numpy, xarray, dask, h5py or "
                "Zarr), a tensor, tensors by name or a data loader; got "
                f"{type(inputs).__name__}."
            )
        inputs = rows
    if inputs.ndim < 2 or not len(inputs):
        raise RetinaCodecError(
            f"inputs must be at least one sample, (sample, ...); got shape {tuple(inputs.shape)}."
        )
    coords.setdefault(dim, np.arange(len(inputs)))
    return inputs, dim, coords


def _check_tensor(values: torch.Tensor) -> None:
    """Refuse a tensor that has no rows of numbers."""
    kind = (
        "without values (meta)"
        if values.is_meta
        else "quantised"
        if values.is_quantized
        else "nested"
        if values.is_nested
        else ""
        if values.layout == torch.strided
        else str(values.layout).removeprefix("torch.")
    )
    if kind:
        raise RetinaCodecError(
            f"inputs must be a plain tensor, (sample, ...); got one that is {kind}. Convert it: "
            "inputs.to_dense(), inputs.dequantize() or torch.stack(...)."
        )


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
