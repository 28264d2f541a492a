"""The whole road on a tiny retina, for classes that a newcomer writes in one file."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import xarray as xr

import retina_codec as rc
from tests.small import small_network, small_recording


def import_file(folder: Path, name: str, source: str) -> ModuleType:
    """Write a file outside the package and import it."""
    path = folder / f"{name}.py"
    path.write_text(source, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def explain_retina(folder: Path, target: Any, method: Any) -> tuple[xr.DataTree, xr.DataTree]:
    """Contributions in memory, and the same from a store that was opened again."""
    network, inputs = small_network(), small_recording().children["test"]
    options = {"target": target, "method": method, "progress": False}
    here = rc.contribute(network, inputs, **options)
    rc.contribute(network, inputs, **options, store=folder / "run.zarr")
    stored = rc.open_tree(folder / "run.zarr")
    again = rc.contribute(network, inputs, **options, store=folder / "run.zarr")
    for node in here.subtree:
        for name, values in node.to_dataset(inherit=False).variables.items():
            for other in (stored, again):
                found = other[node.path].to_dataset(inherit=False)[name]
                np.testing.assert_array_equal(found.values, values.values, err_msg=str(name))
                assert found.attrs.get("units") == values.attrs.get("units"), name
    return here, stored


def report_retina(
    folder: Path,
    explained: xr.DataTree,
    *,
    decomposition: Any = None,
    target: Any = None,
    method: Any = None,
) -> tuple[xr.DataTree, str]:
    """Modes, scores with the network, pathways, fields and the page: results and its text."""
    network, recording = small_network(), small_recording()
    inputs = recording.children["test"]
    kind = decomposition or rc.modes.SparseAutoencoder(modes=6, active=2, epochs=5)
    results = rc.decompose(explained, kind, progress=False)
    results = rc.score_modes(
        results,
        network=network,
        inputs=inputs,
        target=target,
        method=method,
        seeds=2,
        settings=rc.modes.ScoreSettings(limits=(2,), times=3, leading=2),
        progress=False,
    )
    results = rc.find_pathways(results, clusters=(2, 3), progress=False)
    fields = rc.receptive_fields(network, inputs, results, layer="conv2", progress=False)
    results["receptive_fields"] = xr.DataTree(fields)
    rc.write_report(results, folder / "report.html")
    return results, (folder / "report.html").read_text(encoding="utf-8")
