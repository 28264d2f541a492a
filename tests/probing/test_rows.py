"""Arrays of many libraries: the rows of a batch are read, and no more."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array
import h5py
import numpy as np
import psutil
import pytest
import torch
import xarray as xr
import zarr
from torch import nn

from retina_codec.contributions.contribute import contribute
from retina_codec.errors import RetinaCodecError
from retina_codec.methods.gradients import ActGrad
from retina_codec.networks.adapter import adapt
from retina_codec.probing.inputs import open_inputs
from retina_codec.probing.rows import is_mapped
from retina_codec.targets.base import Sum

VALUES = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
NETWORK = adapt(nn.Sequential(nn.Linear(4, 2)), "0")


class OwnMap(np.memmap):
    """A subclass, as libraries make them."""


def mapped(folder: Path, kind: Any = np.memmap) -> Any:
    made = kind(folder / "inputs.dat", np.float32, "w+", shape=VALUES.shape)
    made[:] = VALUES
    made.flush()
    return kind(folder / "inputs.dat", np.float32, "r", shape=VALUES.shape)


def saved(folder: Path) -> Any:
    np.save(folder / "inputs.npy", VALUES)
    return np.load(folder / "inputs.npy", mmap_mode="r")


def in_hdf5(folder: Path) -> Any:
    file = h5py.File(folder / "inputs.h5", "w")
    return file.create_dataset("x", data=VALUES)


def in_zarr(folder: Path) -> Any:
    array = zarr.create_array(folder / "inputs.zarr", shape=VALUES.shape, chunks=(7, 4), dtype="f4")
    array[:] = VALUES
    return array


def tensor_of_a_file(folder: Path) -> torch.Tensor:
    torch.save(torch.from_numpy(VALUES), folder / "inputs.pt")
    return torch.load(folder / "inputs.pt", mmap=True)  # type: ignore[no-any-return]


ARRAYS: dict[str, Callable[[Path], Any]] = {
    "numpy": lambda _: VALUES.copy(),
    "a memory map": mapped,
    "a subclass of a memory map": lambda folder: mapped(folder, OwnMap),
    "a view of a memory map": lambda folder: np.asarray(mapped(folder))[:, ::1],
    "a file of numpy": saved,
    "xarray over a memory map": lambda folder: xr.DataArray(
        mapped(folder), dims=("sample", "channel")
    ),
    "h5py": in_hdf5,
    "zarr": in_zarr,
    "dask": lambda _: dask.array.from_array(VALUES, chunks=(7, 4)),
    "a tensor of a file": tensor_of_a_file,
    "other bytes": lambda _: VALUES.astype(">f4"),
    "read only": lambda _: np.broadcast_to(VALUES, VALUES.shape),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_every_array_gives_its_rows(kind: str, tmp_path: Path) -> None:
    source = open_inputs(NETWORK, ARRAYS[kind](tmp_path))
    assert len(source) == 50
    whole = torch.cat([batch for batch in source.batches(8)])  # type: ignore[misc]
    np.testing.assert_array_equal(whole, VALUES)
    part = source.part(10, 30).part(5, 9)
    sent = pickle.loads(pickle.dumps(part))
    for one in (part, sent):
        np.testing.assert_array_equal(next(one.batches(9)), VALUES[15:19])
    np.testing.assert_allclose(source.mean(), VALUES.mean(0, np.float64), rtol=1e-6)
    assert source.text() == open_inputs(NETWORK, VALUES).text()


@pytest.mark.parametrize("kind", ["a memory map", "h5py", "dask", "zarr"])
def test_results_are_those_of_the_array_in_memory(kind: str, tmp_path: Path) -> None:
    network = nn.Sequential(nn.Linear(4, 3), nn.Softplus(), nn.Linear(3, 2))
    options: dict[str, Any] = {"target": Sum(), "method": ActGrad(), "layers": ["0"]}
    found = contribute(network, {"input": ARRAYS[kind](tmp_path)}, **options)
    expected = contribute(network, VALUES, **options)
    np.testing.assert_allclose(
        found["layers/0/contribution"], expected["layers/0/contribution"], rtol=1e-6
    )


def private_bytes() -> int:
    told = psutil.Process().memory_info()
    return int(told.rss - told.shared)


@pytest.mark.parametrize("wrap", [False, True])
def test_a_memory_map_is_not_copied(wrap: bool, tmp_path: Path) -> None:
    shape = (20_000, 1000)
    np.memmap(tmp_path / "large.dat", np.float32, "w+", shape=shape).flush()
    values: Any = np.memmap(tmp_path / "large.dat", np.float32, "r", shape=shape)
    inputs = xr.DataArray(values, dims=("sample", "channel")) if wrap else values
    adapter = adapt(nn.Sequential(nn.Linear(1000, 2)), "0")
    before = private_bytes()
    source = open_inputs(adapter, inputs)
    source.text()
    next(source.part(100, 400).batches(8))
    assert private_bytes() - before < 20e6, "80 MB are in the map"


def test_only_rows_that_are_used_are_read(tmp_path: Path) -> None:
    read: list[Any] = []

    class Watched:
        shape, dtype = (10_000, 4), np.dtype("f4")

        def __getitem__(self, rows: slice) -> np.ndarray:
            read.append(rows)
            return np.zeros((rows.stop - rows.start, 4), np.float32)

    source = open_inputs(NETWORK, Watched())
    next(source.part(100, 400).batches(8))
    assert read == [slice(0, 1), slice(100, 108)]
    del tmp_path


def test_mapped_arrays_are_known_through_views(tmp_path: Path) -> None:
    assert is_mapped(mapped(tmp_path))
    assert is_mapped(np.asarray(mapped(tmp_path))[3:, ::2])
    assert not is_mapped(VALUES[3:])


def closed(folder: Path) -> Any:
    dataset = in_hdf5(folder)
    dataset.file.close()
    return dataset


def sparse_matrix(_: Path) -> Any:
    scipy_sparse = pytest.importorskip("scipy.sparse")
    return scipy_sparse.csr_array(VALUES)


REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "text": (lambda _: np.array([["a", "b"]]), "must be numbers"),
    "objects": (lambda _: np.array([[None, 1]]), "must be numbers"),
    "dates": (lambda _: np.zeros((2, 2), "M8[s]"), "must be numbers"),
    "records": (lambda _: np.zeros((2, 2), "i4,f4"), "must be numbers"),
    "long numbers": (lambda _: np.zeros((2, 2), np.longdouble), "at most 64 bits"),
    "dates of xarray": (
        lambda _: xr.DataArray(np.zeros((2, 2), "M8[ns]"), dims=("sample", "x")),
        "must be numbers",
    ),
    "masked": (lambda _: np.ma.masked_greater(VALUES, 0), "masked"),
    "scipy": (sparse_matrix, "slices are arrays of numbers"),
    "sparse": (lambda _: torch.eye(3).to_sparse(), "plain tensor.*sparse_coo"),
    "no values": (lambda _: torch.empty(2, 3, device="meta"), "plain tensor.*meta"),
    "no rows": (lambda _: np.zeros((0, 3)), "at least one sample"),
    "one number": (lambda _: np.float32(1), "at least one sample"),
    "an unknown length": (
        lambda _: (lambda a: a[a[:, 0] > 0])(dask.array.from_array(VALUES)),
        "known shape",
    ),
    "closed": (closed, "can be read; Dataset cannot.*Open its file"),
    "a list": (lambda _: [[1.0, 2.0]], "got list"),
    "a name": (lambda _: "inputs.npy", "got str"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_array_of_numbers_is_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    make, says = REFUSED[kind]
    with pytest.raises(RetinaCodecError, match=says) as caught:
        open_inputs(NETWORK, make(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_closed_meanwhile_is_told(tmp_path: Path) -> None:
    dataset = in_hdf5(tmp_path)
    source = open_inputs(NETWORK, dataset)
    dataset.file.close()
    with pytest.raises(RetinaCodecError, match=r"inputs 8 to 15 could not be read from Dataset"):
        next(source.part(8, 20).batches(8))
