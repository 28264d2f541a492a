"""Run shards on the workers of a dask.distributed cluster.

The network goes to each worker once; tasks write their own chunks: a lost worker costs one shard.
"""

import ctypes
import io
import pickle
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from itertools import islice
from typing import Any

import torch

from retina_codec.contributions.runner import Plan, Runner, first_input, open_runner
from retina_codec.contributions.shards import Phase, Work, run_shard
from retina_codec.contributions.store import ShardWriter, StoreSink
from retina_codec.errors import RetinaCodecError
from retina_codec.networks.borrowed import copied, settled
from retina_codec.probing.inputs import Source
from retina_codec.targets.base import Target

__all__ = ["check_client", "check_sendable", "open_workers"]

AHEAD = 3  # tasks in flight per worker thread: enough to keep it busy, few enough to hold in memory


KEPT = 2  # runs that a worker is prepared for at once; more would fill its memory


RETRIES = 2  # of a shard that fails for another reason than a wrong input


def check_client(client: Any) -> None:
    """Refuse what is no client of a cluster."""
    try:
        import distributed
    except ImportError:
        raise RetinaCodecError(
            "client needs dask.distributed: pip install 'retina-codec[cluster]'."
        ) from None
    if not isinstance(client, distributed.Client) or client.asynchronous:
        raise RetinaCodecError(
            f"client must be a (synchronous) dask.distributed.Client; got {type(client).__name__}."
        )


def check_sendable(plan: Plan, source: Source) -> None:
    """Refuse, before the work, what cannot be sent to the workers of a cluster.

    Parameters
    ----------
    plan : Plan
    source : Source

    Raises
    ------
    RetinaCodecError
        If network, method, target or inputs cannot be pickled.
    """
    import cloudpickle

    part = source if source.whole else source.part(0, 1)
    for what, value in (
        ("the network", plan.network),
        ("the method", (plan.method, plan.reduction)),
        ("the target", plan.target),
        ("the inputs", replace(part, coords={}, rate=None, types=None)),
    ):
        try:
            cloudpickle.dump(value, _Nowhere())
        except Exception as error:
            reason = (str(error).splitlines() or [""])[0]
            raise RetinaCodecError(
                f"{what} must be such as can be sent to the workers of a cluster (pickled); this "
                f"cannot ({type(error).__name__}: {reason}). Leave out client=, or keep locks, "
                "open files and parametrized weights out of it."
            ) from error


class _Nowhere(io.RawIOBase):
    """A file that keeps nothing."""

    def write(self, data: Any) -> int:
        """Take bytes and forget them."""
        return memoryview(data).nbytes


@contextmanager
def open_workers(client: Any, work: Work) -> Iterator[Callable[[Phase], None]]:
    """Use the workers of a client for a run.

    Parameters
    ----------
    client : dask.distributed.Client
        Workers may come and go while the run lasts; it waits for the first.
    work : Work
        With a `StoreSink`.

    Yields
    ------
    callable
        Works on all shards of a phase that are left. A `RetinaCodecError` tells of a shard that
        fails; shards that are done stay done.

    Raises
    ------
    RetinaCodecError
        If the client is none.
    """
    check_client(client)
    if not isinstance(work.sink, StoreSink):
        raise RetinaCodecError("a cluster writes to a store; give store='run.zarr' with client.")
    run = _Run(client, work, work.sink.writer)
    try:
        yield run.phase
    finally:
        run.close()


class _Run:
    """The part of a run on the cluster: network, target and submitted shards."""

    def __init__(self, client: Any, work: Work, writer: ShardWriter) -> None:
        self._client, self._work, self._writer = client, work, writer
        self._name = f"retina-codec-{uuid.uuid4().hex}"
        self._network: Any = None
        self._target: Any = None
        self._fitted: Target | None = None  # the target that was sent
        self._sent: list[Any] = []
        self._flying: dict[Any, tuple[int, int, int]] = {}

    def phase(self, phase: Phase) -> None:
        """Work on all shards of a phase that are left."""
        import distributed

        waiting = self._work.left(phase)
        with self._work.bar(phase) as bar:
            done: Any = distributed.as_completed([])  # type: ignore[no-untyped-call]
            self._submit(phase, waiting, done)
            for future in done:
                number, start, stop = self._flying[future]
                self._accept(future, f"shard {number} (inputs {start} to {stop - 1})")
                bar.update(stop - start)
                del self._flying[future], future  # or the cluster would keep it
                self._submit(phase, waiting, done)

    def _submit(self, phase: Phase, waiting: Iterator[tuple[int, int, int]], done: Any) -> None:
        """Submit shards until every thread of the cluster has work, as many as there are now."""
        import dask

        room = AHEAD * max(1, sum(self._client.nthreads().values())) - len(self._flying)
        shards = list(islice(waiting, max(0, room)))
        # Inputs travel with their task: silence dask's warning about a large graph.
        with dask.config.set({"distributed.admin.large-graph-warning-threshold": 2**62}):
            if shards:
                self._send()
            for number, start, stop in shards:
                future = self._client.submit(
                    _shard_task,
                    self._network,
                    self._target,
                    None if self._work.source.whole else self._work.source.part(start, stop),
                    (phase, number, start, stop),
                    self._work.predicted,
                    self._writer,
                    key=f"{self._name}-{phase}-{number}",
                    retries=RETRIES,
                    pure=False,
                )
                self._flying[future] = (number, start, stop)
                done.add(future)

    def _send(self) -> None:
        """Send the network once, and the target, which is fitted between the phases.

        Both are results of tasks, which the cluster makes again if all that hold them are lost.
        """
        source, plan = self._work.source, self._work.runner.plan
        if self._network is None:
            bare = _on_cpu(replace(plan, target=None))  # type: ignore[arg-type]
            whole = replace(source, coords={}, rate=None, types=None) if source.whole else None
            self._network = self._keep("network", _Package(self._name, _pickle((bare, whole))))
        if self._fitted is not plan.target:
            self._target = self._keep(f"target-{len(self._sent)}", _pickle(plan.target))
            self._fitted = plan.target

    def _keep(self, what: str, value: Any) -> Any:
        future = self._client.submit(_same, value, key=f"{self._name}-{what}", pure=False)
        self._sent.append(future)
        return future

    def _accept(self, future: Any, shard: str) -> None:
        """Raise what went wrong with a shard, in one line."""
        try:
            problem = future.result()
        except Exception as error:
            lines = str(error).splitlines() or [""]
            raise RetinaCodecError(
                f"{shard} could not be done by the cluster ({type(error).__name__}: {lines[0]}). "
                "What is done is kept: mend this and run the same again."
            ) from error
        if problem is not None:
            raise RetinaCodecError(problem)

    def close(self) -> None:
        """Remove tasks and network from the cluster."""
        held = [*self._flying, *self._sent]
        self._flying.clear()
        self._sent.clear()
        with suppress(Exception):  # a cluster that is gone holds nothing
            self._client.cancel(held, force=True)
            self._client.run(_forget, self._name, on_error="ignore")


class _Package:
    """Bytes that are unpickled only where they are needed, not by each process on the way."""

    def __init__(self, name: str, data: bytes) -> None:
        self.name, self.data = name, data


def _pickle(value: Any) -> bytes:
    """Return a value as bytes; functions of the caller's script included."""
    import cloudpickle

    data: bytes = cloudpickle.dumps(value)
    return data


def _on_cpu(plan: Plan) -> Plan:
    """Return a plan whose network can be opened by a worker without this process's GPU."""
    if plan.device.type == "cpu":
        return plan
    module = copied(plan.network.module, torch.device("cpu"))
    return replace(plan, network=replace(plan.network, module=module))


# From here on a worker's side.

_LOCK = threading.Lock()  # hooks and forward-mode derivatives are no threads' own


_READY: dict[str, "_Ready"] = {}


_OVER: set[str] = set()  # runs whose client is done; a task that still runs must not keep them


class _Ready:
    """A worker's network, opened for one run."""

    def __init__(self, package: _Package, part: Source | None) -> None:
        try:
            plan, self.whole = pickle.loads(package.data)
        except Exception as error:
            reason = (str(error).splitlines() or [""])[0]
            raise RetinaCodecError(
                "the network must be such as can be opened on the workers of a cluster; it cannot "
                f"({type(error).__name__}: {reason}). Install the module that defines it there, or "
                "leave out client=."
            ) from error
        first = self.whole if part is None else part
        self._context: AbstractContextManager[Runner] = open_runner(plan, first_input(first))
        self.runner = self._context.__enter__()
        _keep_freed_memory()
        self._target = b""

    def explain_to(self, target: bytes) -> None:
        """Take the target of a phase."""
        if target != self._target:
            opened: Target = pickle.loads(target)
            self.runner.explain_to(opened)
            self._target = target


def _keep_freed_memory() -> None:
    """Let the C library keep up to 256 MiB of freed memory for reuse.

    Workers of dask start with a threshold of 64 KiB, after which every temporary of a batch is
    fetched from the system anew, page by page: three times the time for the retina network.
    """
    with suppress(OSError, AttributeError, TypeError):  # a library without this setting
        set_option = ctypes.CDLL(None).mallopt
        set_option(-1, 2**28)  # M_TRIM_THRESHOLD
        set_option(-3, 2**25)  # M_MMAP_THRESHOLD, the largest there is


def _same(value: Any) -> Any:
    return value


def _shard_task(
    package: _Package,
    target: bytes,
    part: Source | None,
    shard: tuple[Phase, int, int, int],
    predicted: bool,
    writer: ShardWriter,
) -> str | None:
    """Work on one shard, on a worker; return what is wrong with it, if that is the user's."""
    import dask

    phase, number, start, stop = shard
    try:
        writer.check()
        if package.name in _OVER or writer.done(phase, number):
            return None
        # Lazy inputs are read in this thread: asking the cluster for them would wait for itself.
        with _LOCK, dask.config.set(scheduler="synchronous"), settled():
            ready = _ready(package, part)
            ready.explain_to(target)
            inputs = ready.whole.part(start, stop) if part is None else part
            found = run_shard(ready.runner, inputs, phase, predicted, lambda _: None)
        writer.write(phase, number, start, found)
    except RetinaCodecError as error:
        return str(error)
    finally:
        if package.name in _OVER:
            _READY.pop(package.name, None)
    return None


def _ready(package: _Package, part: Source | None) -> _Ready:
    """Return the network of this run, opened once per worker."""
    if package.name not in _READY:
        while len(_READY) >= KEPT:  # left by clients that were killed
            _READY.pop(next(iter(_READY)), None)
        _READY[package.name] = _Ready(package, part)
    return _READY[package.name]


def _forget(name: str) -> None:
    """Release the network of a run, also when a task still uses it."""
    _OVER.add(name)
    _READY.pop(name, None)
