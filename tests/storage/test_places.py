"""Results are written to this machine: addresses and other things are refused before any work."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

import retina_codec as rc
from retina_codec.analysis.fields.all_fields import all_fields
from retina_codec.analysis.hypotheses.table import hypotheses_to_table
from retina_codec.storage.trees import local_path
from tests.contributions.tiny import tiny_retina, tiny_split

ADDRESSES: list[Any] = [
    "s3://bucket/run.zarr",
    "gs://bucket/run.nc",
    "https://example.org/run.zarr",
    "file:///tmp/run.zarr",
    "memory://run.zarr",
    "simplecache::s3://bucket/run.zarr",
    Path("s3://bucket/run.zarr"),
    Path("file:///tmp/run.zarr"),
]

NOTHING = xr.Dataset({"hypothesis": ("hypothesis", np.arange(0))})

TREE = xr.DataTree(xr.Dataset({"x": ("y", [1.0])}))


def contribute(place: Any) -> Any:
    network = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    options: dict[str, Any] = {"target": rc.targets.Sum(), "method": rc.methods.ActGrad()}
    return rc.contribute(network, torch.ones(2, 3), layers=["0"], store=place, **options)


WRITERS: dict[str, Callable[[Any], Any]] = {
    "contribute": contribute,
    "all_fields": lambda place: all_fields(tiny_retina(), tiny_split(), store=place),
    "save_tree": lambda place: rc.save_tree(TREE, place),
    "open_tree": rc.open_tree,
    "save_network": lambda place: rc.save_network(tiny_retina(), place),
    "write_report": lambda place: rc.write_report(TREE, f"{place}/report.html"),
    "hypotheses_to_table": lambda place: hypotheses_to_table(NOTHING, f"{place}/table.csv"),
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("address", ADDRESSES, ids=str)
def test_an_address_is_refused_and_nothing_is_made(
    writer: str, address: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(rc.RetinaCodecError, match="got the address") as caught:
        WRITERS[writer](address)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("thing", [io.BytesIO(), {}, 3, TREE])
@pytest.mark.parametrize("writer", ["contribute", "save_tree", "open_tree"])
def test_what_is_no_path_is_refused(writer: str, thing: Any) -> None:
    with pytest.raises(rc.RetinaCodecError, match="must be a path; got"):
        WRITERS[writer](thing)


@pytest.mark.parametrize("name", ["run.zarr", "a:b/run.zarr", "C:/run.zarr", b"run.zarr", "~/x"])
def test_names_of_this_machine_are_paths(name: Any) -> None:
    assert "~" not in str(local_path(name))
