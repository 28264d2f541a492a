"""Receptive fields of all cells at all times, as products of an image and a time course.

Notation: t times, n cells, r components, l lags, y x pixels in a cell's sight.
"""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr
from torch import nn

from retina_codec.errors import RetinaCodecError
from retina_codec.networks.adapter import as_adapter
from retina_codec.networks.borrowed import borrow, when_free
from retina_codec.networks.retina.model import RetinaCNN
from retina_codec.probing.inputs import Source, open_inputs
from retina_codec.probing.retina.fields import RetinaFields
from retina_codec.probing.retina.forward import RetinaFunction
from retina_codec.progress import progress_bar
from retina_codec.storage.context import Context
from retina_codec.storage.identity import describe_network
from retina_codec.storage.provenance import state_hash, versions
from retina_codec.storage.runs import open_run

__all__ = ["all_fields", "whole_frames"]

GRADIENT_UNITS = "Hz per standard deviation of intensity"

PIECE = 64  # times in one piece of the results

CLOSE = 4  # up to this distance between times, the first layer of all times costs less

MOST_BYTES = 2**32  # of results in memory

Arrays = dict[str, npt.NDArray[Any]]


def all_fields(
    network: nn.Module,
    inputs: xr.Dataset | xr.DataTree | xr.DataArray | torch.Tensor,
    *,
    rank: int = 1,
    every: int = 1,
    batch_size: int = 16,
    store: str | os.PathLike[str] | None = None,
    device: str | torch.device | None = None,
    progress: bool | None = None,
) -> xr.Dataset:
    """Compute the receptive fields of all cells at all times as products of space and time.

    With A the field ``∂rate/∂window`` (lag, pixel) minus its mean, ``A ≈ Σ_r temporal_r ⊗
    spatial_r`` in least squares (first singular vectors).

    Parameters
    ----------
    network : RetinaCNN
        Not modified.
    inputs : split of a recording, xr.DataArray or torch.Tensor
        A split with ``stimulus`` (time, y, x), or windows (time, lag, y, x) as the network takes
        them.
    rank : int
        Number of products per field.
    every : int
        Use every n-th time.
    batch_size : int
        Times at a time; with the cells it decides the memory, about 8 MB per time and 16 cells.
    store : path, optional
        A ``.zarr`` folder to write to, piece by piece; the same call continues an interrupted run.
        In memory when left out.
    device : str or torch.device, optional
        Where to compute; the network's own device when left out.
    progress : bool, optional
        None: a bar after 2 s; False: never; True: at once.

    Returns
    -------
    xr.Dataset
        ``spatial`` (time, cell, component, y, x), Hz per standard deviation of intensity, in the
        cell's sight, whose first pixel is ``first_y``, ``first_x`` (cell): outside a field has
        no entry but its mean, see `whole_frames`; with a wide field it is the whole frame.
        ``temporal`` (time, cell, component, lag), unit
        length, its largest value positive. ``explained`` (time, cell, component), share of the
        sum of squares of A, exact. ``mean`` (time, cell), removed before. ``prediction``
        (time, cell) Hz. NaN time course and share where a field is constant.

    Raises
    ------
    RetinaCodecError
        If the network is no `RetinaCNN`, the inputs do not fit it, the results are too large for
        memory, or the store belongs to another run.

    Notes
    -----
    No approximation beyond the rank: kernels are used whole. For other networks, fields at chosen
    events come from `receptive_fields`.

    References
    ----------
    Melander et al. 2026, section 7 (instantaneous receptive field).
    """
    if not isinstance(network, RetinaCNN):
        raise RetinaCodecError(
            "fields at all times use the structure of a RetinaCNN; got "
            f"{type(network).__name__}. Use receptive_fields at chosen events."
        )
    for name, value in (("rank", rank), ("every", every), ("batch_size", batch_size)):
        if value < 1:
            raise RetinaCodecError(f"{name} must be at least 1; got {value}.")
    if rank > network.history:
        raise RetinaCodecError(
            f"rank must be at most the number of lags, {network.history}; got {rank=}."
        )
    weights = network.conv3.weight
    described = {} if store is None else when_free(network, describe_network)
    source = open_inputs(as_adapter(network, None), inputs, weights.dtype)
    with borrow(network, device) as lent:
        worker = _Worker(lent, source, rank, every, batch_size)
        template = _template(network, source, worker)
        if store is None:
            return _in_memory(worker, template, progress)
        identity = {
            "format": "retina-codec fields 2",
            "network_sha256": state_hash(network),
            "inputs": source.text(),
            "settings": f"{rank=}, {every=}, {weights.dtype}",
            "versions": versions(),
            **Context.here().describe(),
            **described,
        }
        return _in_store(worker, template, store, identity, progress)


def _in_store(
    worker: "_Worker",
    template: xr.Dataset,
    store: str | os.PathLike[str],
    identity: dict[str, str],
    progress: bool | None,
) -> xr.Dataset:
    """Compute the pieces that the store lacks; open it when it is whole."""
    arrays = {f"/{name}": array for name, array in template.data_vars.items()}
    run = open_run(store, identity, lambda: arrays, PIECE)
    if isinstance(run, xr.DataTree):
        return run.to_dataset()
    with run:
        left = [n for n in worker.pieces if not run.pieces.done(f"{n:06d}")]
        for n in progress_bar(left, description="receptive fields", progress=progress):
            found = {f"/{name}": values for name, values in worker.piece(n).items()}
            run.pieces.write(f"{n:06d}", n * PIECE, found)
        return run.finish(xr.DataTree(template.drop_vars(list(template.data_vars)))).to_dataset()


def _in_memory(worker: "_Worker", template: xr.Dataset, progress: bool | None) -> xr.Dataset:
    """Compute all pieces."""
    size = sum(array.size * array.dtype.itemsize for array in template.data_vars.values())
    if size > MOST_BYTES:
        raise RetinaCodecError(
            f"these fields take {size / 1e9:.0f} GB, more than {MOST_BYTES / 1e9:.0f} GB are not "
            "kept in memory. Give store='fields.zarr', or a larger every."
        )
    found = {str(name): np.empty(a.shape, a.dtype) for name, a in template.data_vars.items()}
    for n in progress_bar(worker.pieces, description="receptive fields", progress=progress):
        for name, values in worker.piece(n).items():
            found[name][n * PIECE : n * PIECE + len(values)] = values
    return template.assign(
        {name: (template[name].dims, v, template[name].attrs) for name, v in found.items()}
    )


class _Worker:
    """Computes the fields of one piece of the times."""

    def __init__(
        self, network: Any, source: Source, rank: int, every: int, batch_size: int
    ) -> None:
        plain: RetinaCNN = network.collapse().eval()
        close = source.consecutive and every <= CLOSE
        self.function = RetinaFunction(plain, ["conv1"], consecutive=close)
        self.fields, self.source, self.rank, self.every = RetinaFields(plain), source, rank, every
        self.batch_size, self.device, self.close = batch_size, plain.conv3.weight.device, close
        self.count = len(range(0, len(source), every))
        self.pieces = range(-(-self.count // PIECE))

    def piece(self, number: int) -> Arrays:
        """Return every array of piece ``number``."""
        found: list[Arrays] = []
        for first in self._first_layer(number):
            with torch.no_grad():
                seen = self.fields.evaluate(first)
                gradient = self.fields.descend(seen)[:, :, 0]
                image, course, explained, mean = self.fields.products(gradient, self.rank)
            values = (image, course, explained, mean, seen.rate)
            names = ("spatial", "temporal", "explained", "mean", "prediction")
            found.append({n: v.cpu().numpy() for n, v in zip(names, values, strict=True)})
        return {name: np.concatenate([part[name] for part in found]) for name in found[0]}

    def _first_layer(self, number: int) -> Iterator[torch.Tensor]:
        """Give outputs of the first layer, a batch of kept times at a time."""
        start = number * PIECE * self.every
        stop = min(start + PIECE * self.every, len(self.source))
        size = self.batch_size if self.close else 1 if self.every > 1 else self.batch_size
        size = size * self.every
        for windows in self.source.part(start, stop).batches(size):
            if not isinstance(windows, torch.Tensor):
                raise RetinaCodecError("fields are of one array of windows; got several by name.")
            if self.close:
                yield self.function.start(windows.to(self.device))[:: self.every]
            else:
                with torch.no_grad():
                    kept = windows[:: self.every].to(self.device)
                    yield self.function.network.first_layer(kept)


def _template(network: RetinaCNN, source: Source, worker: _Worker) -> xr.Dataset:
    """Return labels, units and shapes of the results, with nothing in them."""
    cells, lags, count = len(network.cells), network.history, worker.count
    rows, columns = worker.fields.sides
    dtype = np.dtype(str(network.conv3.weight.dtype).removeprefix("torch."))
    pair = (source.dim, "cell")
    shapes = {
        "spatial": ((*pair, "component", "y", "x"), (worker.rank, rows, columns), GRADIENT_UNITS),
        "temporal": ((*pair, "component", "lag"), (worker.rank, lags), "1"),
        "explained": ((*pair, "component"), (worker.rank,), "1"),
        "mean": (pair, (), GRADIENT_UNITS),
        "prediction": (pair, (), "Hz"),
    }
    words = {
        "spatial": "receptive field, spatial part",
        "temporal": "receptive field, temporal part",
        "explained": "share explained by space × time",
        "mean": "mean of the field, removed",
        "prediction": "predicted rate",
    }
    empty = {
        name: xr.Variable(
            dims,
            np.broadcast_to(np.zeros((), dtype), (count, cells, *shape)),
            {"units": units, "long_name": words[name]},
        )
        for name, (dims, shape, units) in shapes.items()
    }
    labels = source.coords[source.dim]
    times = np.asarray(getattr(labels, "values", labels))[:: worker.every]
    corners = worker.fields.corners.cpu().numpy()
    lag = np.arange(lags, 0, -1) / network.frame_rate
    pixels = {"units": "px", "long_name": "from the first pixel in sight"}
    return xr.Dataset(
        empty,
        coords={
            source.dim: (source.dim, times, {"units": "s"} if source.dim == "time" else {}),
            "cell": list(network.cells),
            "type": ("cell", list(network.cell_types)),
            "first_y": ("cell", corners[:, 0], {"units": "px"}),
            "first_x": ("cell", corners[:, 1], {"units": "px"}),
            "component": np.arange(worker.rank),
            "lag": ("lag", lag, {"units": "s", "long_name": "time before the response"}),
            "y": ("y", np.arange(rows), pixels),
            "x": ("x", np.arange(columns), pixels),
        },
        attrs={
            "rank": worker.rank,
            "every": worker.every,
            "frame_shape": list(network.frame_shape),
            "network_sha256": state_hash(network),
            "versions": versions(),
        },
    )


def whole_frames(fields: xr.Dataset) -> xr.DataArray:
    """Put images of `all_fields`, or a selection of them, into whole frames (y, x), px.

    Outside a cell's sight ``−mean · Σ temporal``, as the mean was removed from the whole frame. NaN
    there where a field is constant.
    """
    rows, columns = (int(size) for size in fields.attrs["frame_shape"])
    outside = -fields["mean"] * fields["temporal"].sum("lag", skipna=False)
    lead = [dim for dim in fields["spatial"].dims if dim not in ("y", "x")]
    spatial = fields["spatial"].transpose(*lead, "y", "x")
    around = outside.transpose(*lead).values[..., None, None]
    frames = np.broadcast_to(around, (*around.shape[:-2], rows, columns)).copy()
    at = lead.index("cell")
    for cell in range(fields.sizes["cell"]):
        y, x = int(fields["first_y"][cell]), int(fields["first_x"][cell])
        place = (slice(None),) * at + (cell,)
        patch = (..., slice(y, y + spatial.sizes["y"]), slice(x, x + spatial.sizes["x"]))
        frames[place][patch] = spatial.values[place]
    pixels = {"units": "px"}
    return xr.DataArray(
        frames,
        dims=(*lead, "y", "x"),
        coords={
            **{name: value for name, value in spatial.coords.items() if name not in ("y", "x")},
            "y": ("y", np.arange(rows), pixels),
            "x": ("x", np.arange(columns), pixels),
        },
        attrs=dict(spatial.attrs),
    )
