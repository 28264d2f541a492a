"""Contributions in a Zarr store: shards are the pieces of a resumable run, labels come at the end.

A store is continued only by the run that began it: everything that decides a number is compared.
"""

import os
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, Self

import numpy as np
import xarray as xr

from retina_codec.contributions.runner import Runner
from retina_codec.contributions.shards import Labelled, Phase, shard_length
from retina_codec.probing.inputs import Source
from retina_codec.storage.identity import function_text
from retina_codec.storage.provenance import check_describable
from retina_codec.storage.runs import PieceWriter, Run, open_run
from retina_codec.targets.base import Target

__all__ = ["ShardWriter", "StoreSink", "open_store", "run_identity"]

FORMAT = "retina-codec run 2"


def run_identity(runner: Runner, source: Source, settings: Mapping[str, Any]) -> dict[str, str]:
    """Describe a run: settings, network, inputs and how they are cut.

    Parameters
    ----------
    runner : Runner
    source : Source
    settings : mapping
        What the result says of the run.

    Returns
    -------
    dict of str to str
        The same in every process that runs the same.

    Raises
    ------
    RetinaCodecError
        If something is only known by its place in memory, so that it cannot be recognised.
    """
    plan = runner.plan
    function = getattr(plan.target, "function", None)
    found = {
        "format": FORMAT,
        **{key: str(value) for key, value in settings.items()},
        "target": plan.target.describe() if function is None else function_text(function),
        "layers": ", ".join(f"{name} {layer.shape}" for name, layer in runner.layers.items()),
        "inputs": source.text(),
        "batch_size": str(plan.batch_size),
        "shard": str(shard_length(runner)),
        "device_type": plan.device.type,
        "versions": f"{settings.get('versions', '')}, zarr {version('zarr')}",
        **runner.description,
    }
    check_describable(found)
    return found


def open_store(
    path: str | os.PathLike[str],
    runner: Runner,
    source: Source,
    settings: Mapping[str, Any],
    labelled: Labelled,
) -> "StoreSink | xr.DataTree":
    """Open the store of a run: new, to be continued, or finished.

    Parameters
    ----------
    path : path
        Where the finished store shall be, ``name.zarr``.
    runner, source : Runner, Source
        What is run on what.
    settings : mapping
        What the run is, in words; together with the inputs, the batch size and the kind of device
        this must be the same when a run is continued.
    labelled : callable
        Puts labels on arrays.

    Returns
    -------
    StoreSink or xr.DataTree
        The tree, if the store holds this very run, finished. A sink holds the folder until its
        context is left.

    Raises
    ------
    RetinaCodecError
        See `open_run`.
    """

    def arrays() -> dict[str, xr.DataArray]:
        empty = {
            name: np.broadcast_to(np.zeros((), array.dtype), (len(source), *array.shape))
            for name, array in runner.arrays().items()
        }
        tree: Any = labelled(empty, runner.plan.target)
        return {_address(name): tree[_address(name)] for name in empty}

    identity = run_identity(runner, source, settings)
    opened = open_run(path, identity, arrays, shard_length(runner))
    return opened if isinstance(opened, xr.DataTree) else StoreSink(opened, labelled)


class StoreSink:
    """Shards as pieces of a run; a context that holds its folder."""

    def __init__(self, run: Run, labelled: Labelled) -> None:
        self._run, self._labelled = run, labelled
        self.writer = ShardWriter(run.pieces)

    def __enter__(self) -> Self:
        self._run.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        """Let other processes in."""
        self._run.__exit__(*error)

    def done(self, phase: Phase, shard: int) -> bool:
        """Whether the shard has its mark."""
        return self.writer.done(phase, shard)

    def write(self, phase: Phase, shard: int, start: int, found: dict[str, np.ndarray]) -> None:
        """Write the shard's chunks, then its mark."""
        self.writer.write(phase, shard, start, found)

    def read(self, name: str) -> np.ndarray:
        """Read a whole array."""
        return self._run.pieces.read(_address(name))

    def finish(self, target: Target) -> xr.DataTree:
        """Write labels and statistics of the fitted target, and move the store to its place."""
        return self._run.finish(self._labelled({}, target))


class ShardWriter:
    """Writes shards, in this process or on a cluster; can be pickled."""

    def __init__(self, pieces: PieceWriter) -> None:
        self._pieces = pieces

    def check(self) -> None:
        """Check that the folder is here and still that of this run."""
        self._pieces.check()

    def done(self, phase: Phase, shard: int) -> bool:
        """Whether the shard has its mark."""
        return self._pieces.done(_piece(phase, shard))

    def write(self, phase: Phase, shard: int, start: int, found: dict[str, np.ndarray]) -> None:
        """Write the shard's chunks, then its mark."""
        at = {_address(name): values for name, values in found.items()}
        self._pieces.write(_piece(phase, shard), start, at)


def _piece(phase: Phase, shard: int) -> str:
    return f"{phase}-{shard:06d}"


def _address(name: str) -> str:
    """Return where an array stands in the tree: ``/layers/<name>/<what>`` or ``/responses/...``."""
    layer, _, what = name.rpartition("/")
    return f"/layers/{layer}/{what}" if layer else f"/responses/{what}"
