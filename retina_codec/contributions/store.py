"""Which run a store belongs to, in words and hashes that another process finds again.

Why this file exists: a store may only be continued by the very run that began it, and must say
what differs if it is another. Everything that decides a number is described here, functions by
their code. It knows nothing of files.
"""

import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn, Self

import numpy as np
import xarray as xr

from retina_codec.contributions.runner import Runner
from retina_codec.contributions.shards import Labelled, Phase, shard_length
from retina_codec.errors import RetinaCodecError
from retina_codec.probing.inputs import Source
from retina_codec.storage.provenance import (
    ADDRESS,
    _around,
    _modules_text,
    check_same,
    function_text,
)
from retina_codec.storage.runs import FolderLock
from retina_codec.storage.trees import open_tree, save_tree
from retina_codec.targets.base import Target

__all__ = ["ShardWriter", "StoreSink", "open_store", "run_identity"]

FORMAT = "retina-codec run 1"


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
        "modules": _modules_text(plan.network.module),
        "inputs": source.text(),
        "batch_size": str(plan.batch_size),
        "shard": str(shard_length(runner)),
        "device_type": plan.device.type,
        "versions": f"{settings.get('versions', '')}, zarr {version('zarr')}",
    }
    for key, value in found.items():
        if held := ADDRESS.search(value):
            raise RetinaCodecError(
                "a store must tell this run from others, so everything must be described by its "
                f"values; {key} holds {_around(value, held.start())}. "
                "Give its class a __repr__ that shows its values (a dataclass has one), use a "
                "plain function, or leave store out."
            )
    return found


OURS = {"lock", "done", "data.zarr", ".data.zarr.partial", "run.json.new"}  # of a half-made folder


AFTER = {"lock", "done", "run.json"}  # what is left when the arrays were moved to their place


_LOG = logging.getLogger(__name__)


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
        If something else is at ``path``, another process writes to it, or it belongs to another
        run or version; says what differs.
    """
    place = Path(path).expanduser().resolve()
    partial = place.with_name(place.name + ".partial")
    identity = run_identity(runner, source, settings)
    if os.path.lexists(place):
        return _finished(place, partial, identity)
    if os.path.lexists(partial) and not partial.is_dir():
        raise RetinaCodecError(
            f"results are kept in the folder {partial} until they are whole; there is a file of "
            "that name. Choose another name for store, or remove it."
        )
    with _clear_errors(partial):
        lock = FolderLock(partial)
    try:
        if os.path.lexists(place):  # finished by the process that held the lock until now
            lock.release()
            return _finished(place, partial, identity)
        sink = StoreSink(place, partial, runner, source, labelled, lock, identity)
        sink.begin()
    except BaseException:
        lock.release()
        with suppress(OSError):  # goes only if nothing was in it
            partial.rmdir()
        raise
    return sink


def _finished(place: Path, partial: Path, identity: Mapping[str, str]) -> xr.DataTree:
    """Open a finished store; remove what a crash after its last step left beside it."""
    tree = open_tree(place)
    try:
        check_same(tree.attrs.get("run"), identity, place)
    except RetinaCodecError:
        tree.close()
        raise
    if partial.is_dir() and {entry.name for entry in partial.iterdir()} <= AFTER:
        shutil.rmtree(partial, ignore_errors=True)
    return tree


@contextmanager
def _clear_errors(partial: Path, what: str = "") -> Iterator[None]:
    """Turn what the system says into one line; nothing that was written is touched."""

    def refuse(problem: str, way_out: str, error: BaseException) -> NoReturn:
        raise RetinaCodecError(
            f"could not write {what}to {partial}: {problem}. What is done is kept: {way_out}."
        ) from error

    try:
        yield
    except (FileNotFoundError, NotADirectoryError, KeyError) as error:
        way_out = "bring the folder back (every process must see it) and run the same again"
        refuse("the store is not there (any more)", way_out, error)
    except OSError as error:
        problem = error.strerror or str(error).splitlines()[0]
        refuse(problem, "free some space, or mend this, and run the same again", error)


class StoreSink:
    """Shards as chunks of Zarr arrays, with a mark for each one that is whole."""

    def __init__(
        self,
        place: Path,
        partial: Path,
        runner: Runner,
        source: Source,
        labelled: Labelled,
        lock: FolderLock,
        identity: Mapping[str, str],
    ) -> None:
        self.place, self.partial = place, partial
        self._identity = json.dumps(identity, sort_keys=True)
        addresses = {name: _address(name) for name in runner.arrays()}
        self.writer = ShardWriter(partial, addresses, self._identity)
        self._runner, self._source, self._labelled = runner, source, labelled
        self._lock = lock

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Let other processes in, and say where an interrupted run stands."""
        self._lock.release()
        if error[0] is not None and self.partial.exists():
            _LOG.warning(
                "stopped before the end; what is done is kept in %s, and the same call continues",
                self.partial,
            )

    def begin(self) -> None:
        """Continue this run, or begin it where nothing or a half-made folder is."""
        described = self.partial / "run.json"
        with _clear_errors(self.partial):
            if described.exists():
                check_same(described.read_text(encoding="utf-8"), self._identity_dict, self.partial)
                if not (self.writer.data / "zarr.json").exists():
                    raise RetinaCodecError(
                        f"the arrays of {self.partial} are gone, though it says that it holds this "
                        "run. Bring data.zarr back, or remove the folder and begin again."
                    )
                _remove_torn(self.partial)
                return
            strange = sorted({entry.name for entry in self.partial.iterdir()} - OURS)
            if strange:
                raise RetinaCodecError(
                    f"store must be new or hold this run; {self.partial} holds {strange[0]!r} and "
                    "does not say which run it is. Choose another name for store, or remove it."
                )
            try:
                self._create()
            except BaseException:
                self._empty()
                raise

    @property
    def _identity_dict(self) -> dict[str, str]:
        found: dict[str, str] = json.loads(self._identity)
        return found

    def _empty(self) -> None:
        """Remove what is in the folder, but not the lock."""
        for entry in self.partial.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            elif entry.name != "lock":
                entry.unlink(missing_ok=True)

    def _create(self) -> None:
        """Write everything but the shards; ``run.json`` comes last, so that half is nothing."""
        import zarr

        self._empty()
        arrays, total = self._runner.arrays(), len(self._source)
        empty = {
            name: np.broadcast_to(np.zeros((), array.dtype), (total, *array.shape))
            for name, array in arrays.items()
        }
        tree = self._labelled(empty, self._runner.plan.target)
        known = {_address(name): array for name, array in arrays.items()}
        static = {
            node.path: node.to_dataset(inherit=False).drop_vars(
                [n for n in node.data_vars if f"{node.path}/{n}" in known]
            )
            for node in tree.subtree
        }
        (self.partial / "done").mkdir()
        save_tree(xr.DataTree.from_dict(static), self.writer.data)
        root = zarr.open_group(str(self.writer.data), mode="r+")
        root.attrs["run"] = self._identity
        length = shard_length(self._runner)
        for address, array in known.items():
            root.create_array(
                address.strip("/"),
                shape=(total, *array.shape),
                chunks=(min(length, total), *(max(1, size) for size in array.shape)),
                dtype=array.dtype,
                fill_value=np.nan if array.dtype.startswith("float") else 0,
                dimension_names=(self._source.dim, *array.dims),
                attributes={str(k): v for k, v in tree[address].attrs.items()},
            )
        described = self.partial / "run.json.new"
        described.write_text(self._identity, encoding="utf-8")
        _to_disk(described)
        os.replace(described, self.partial / "run.json")

    def done(self, phase: Phase, shard: int) -> bool:
        """Whether the shard has its mark."""
        return self.writer.mark(phase, shard).exists()

    def write(self, phase: Phase, shard: int, start: int, found: dict[str, np.ndarray]) -> None:
        """Write the shard's chunks, then its mark."""
        self.writer.write(phase, shard, start, found)

    def read(self, name: str) -> np.ndarray:
        """Read a whole array."""
        return self.writer.read(name)

    def finish(self, target: Target) -> xr.DataTree:
        """Write what is only known at the end, and move the store to its place."""
        import zarr

        tree = self._labelled({}, target)
        with _clear_errors(self.partial, "the end "):
            root = zarr.open_group(str(self.writer.data), mode="r+")
            root.attrs["target"] = tree.attrs["target"]
            statistics = tree["responses"].to_dataset()
            for name in ("mean", "covariance", "condition_number"):
                if name in statistics:
                    late: Any = root[f"responses/{name}"]
                    late[...] = statistics[name].values
            _remove_torn(self.partial)
            if os.path.lexists(self.place):
                raise RetinaCodecError(
                    f"something was put at {self.place} while the run lasted. What is done is "
                    f"kept in {self.partial}: remove the other and run the same again."
                )
            os.replace(self.writer.data, self.place)
        self._lock.release()  # before its file goes; who takes it now finds the run finished
        shutil.rmtree(self.partial, ignore_errors=True)
        return open_tree(self.place)


class ShardWriter:
    """What a process, here or on a cluster, needs to write shards: a folder and addresses."""

    def __init__(self, partial: Path, addresses: Mapping[str, str], identity: str) -> None:
        self.partial, self.addresses, self.identity = partial, dict(addresses), identity
        self.data = partial / "data.zarr"

    def mark(self, phase: Phase, shard: int) -> Path:
        """Return the file that says that a shard is whole."""
        return self.partial / "done" / f"{phase}-{shard:06d}"

    def check(self) -> None:
        """Check that the folder is here and still that of this run."""
        with _clear_errors(self.partial):
            found = (self.partial / "run.json").read_text(encoding="utf-8")
        if found != self.identity:
            raise RetinaCodecError(
                f"{self.partial} now belongs to another run, begun while this one lasted. Give "
                "each run a store of its own."
            )

    def write(self, phase: Phase, shard: int, start: int, found: dict[str, np.ndarray]) -> None:
        """Write the shard's chunks, then its mark."""
        import zarr

        self.check()
        with _clear_errors(self.partial, f"shard {shard} "):
            root = zarr.open_group(str(self.data), mode="r+")
            for name, values in found.items():
                address = self.addresses[name].strip("/")
                array: Any = root[address]
                array[start : start + len(values)] = values
                # A mark that outlives a power cut must not stand for chunks that do not.
                _to_disk(self.data / address / "c" / str(start // array.chunks[0]))
            self.mark(phase, shard).touch()

    def read(self, name: str) -> np.ndarray:
        """Read a whole array."""
        import zarr

        with _clear_errors(self.partial):
            array: Any = zarr.open_group(str(self.data), mode="r")[self.addresses[name].strip("/")]
            return np.asarray(array[:])


def _remove_torn(folder: Path) -> None:
    """Remove the file that a killed writer was at; zarr writes beside and renames."""
    for left in folder.rglob("*.partial"):
        if left.is_file():
            left.unlink(missing_ok=True)


def _to_disk(place: Path) -> None:
    """Wait until a file, or all files of a folder, are on the disk; none if there is none."""
    files = place.rglob("*") if place.is_dir() else [place]
    for file in files:
        if file.is_file():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())


def _address(name: str) -> str:
    """Return where an array stands in the tree: ``/layers/<name>/<what>`` or ``/responses/...``."""
    layer, _, what = name.rpartition("/")
    return f"/layers/{layer}/{what}" if layer else f"/responses/{what}"
