"""The same bytes from the workers of a cluster as from this process, whatever happens to them."""

import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask.array
import distributed
import numpy as np
import pytest
import torch
import xarray as xr
from distributed import Client, LocalCluster
from torch import nn
from torch.utils.data import Dataset

from retina_codec.contributions import cluster, shards
from retina_codec.contributions.contribute import contribute
from retina_codec.errors import RetinaCodecError
from retina_codec.methods.integrated_gradients import IntegratedGradients
from retina_codec.networks.adapter import adapt
from retina_codec.storage.runs import PieceWriter
from retina_codec.targets.base import Sum
from retina_codec.targets.surprisal import Surprisal
from tests.contributions.killed_run import contents
from tests.contributions.tiny import tiny_retina, tiny_split

# distributed closes its sockets and loops late; nothing of ours is meant by these.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

COUNT = 80  # ten shards of eight
INPUTS = torch.randn(COUNT, 1, 8, 8, generator=torch.Generator().manual_seed(1))


class Watched(nn.Sequential):
    """A network that notes in a file where it is unpickled and run; it can take its time."""

    log: str = ""
    delay: float = 0.0

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._note("opened")

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if len(inputs) > 1:  # one input is a look at the layers
            self._note("run")
            time.sleep(self.delay)
        return super().forward(inputs)

    def _note(self, what: str) -> None:
        if self.log:
            with open(self.log, "a", encoding="utf-8") as stream:
                stream.write(f"{what} {os.getpid()}\n")


def watched(log: Path | None = None, delay: float = 0.0) -> Watched:
    torch.manual_seed(0)
    network = Watched(
        nn.Conv2d(1, 4, 3),
        nn.ReLU(),
        nn.Conv2d(4, 3, 3),
        nn.Softplus(),
        nn.Flatten(),
        nn.Linear(48, 3),
    )
    network.log, network.delay = str(log or ""), delay
    return network


def explain(store: Path, inputs: Any = INPUTS, **options: Any) -> xr.DataTree:
    settings: dict[str, Any] = {
        "target": Surprisal(),
        "method": IntegratedGradients(4),
        "layers": ["0", "2"],
        "batch_size": 4,
        "progress": False,
    }
    network = options.pop("network", None) or watched()
    return contribute(network, inputs, store=store, **(settings | options))


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Shards of eight, and one thread as the workers have."""
    monkeypatch.setattr(shards, "FEWEST", 8)
    monkeypatch.setattr(shards, "MOST", 8)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def two() -> Iterator[Client]:
    """Two worker processes of one thread each."""
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
        ) as local,
        Client(local) as client,
    ):
        yield client


@pytest.fixture
def threads() -> Iterator[Client]:
    """One worker, in this process, of two threads."""
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, dashboard_address=":0"
        ) as local,
        Client(local) as client,
    ):
        yield client


def assert_nothing_is_left(client: Client) -> None:
    def kept() -> list[str]:
        return list(cluster._READY)

    for _ in range(50):  # releases travel on their own, and a shard at work comes to its end
        if not client.who_has() and not any(client.run(kept).values()):
            return
        time.sleep(0.1)
    pytest.fail(f"left on the cluster: {client.who_has()}, {client.run(kept)}")


def arrays(store: Path) -> dict[str, str]:
    """Hashes of all files but the root, which describes the network, its delay and its log too."""
    return {name: value for name, value in contents(store).items() if name != "zarr.json"}


def test_two_workers_write_the_bytes_of_one_process(two: Client, tmp_path: Path) -> None:
    """Both phases; the network is opened once per worker, nothing stays."""
    explain(tmp_path / "here.zarr")
    log = tmp_path / "log"
    explain(tmp_path / "there.zarr", network=watched(log), client=two)
    assert arrays(tmp_path / "there.zarr") == arrays(tmp_path / "here.zarr")
    assert sorted(os.listdir(tmp_path)) == ["here.zarr", "log", "there.zarr"]
    noted = Counter(log.read_text().splitlines())
    workers = two.run(os.getpid).values()
    assert {line: n for line, n in noted.items() if line.startswith("opened")} == {
        f"opened {pid}": 1 for pid in workers
    }
    assert all(noted[f"run {pid}"] > 1 for pid in workers), "both must have worked"
    assert_nothing_is_left(two)


def dictionary_network() -> nn.Module:
    class Named(nn.Module):
        """Known to no import: it travels by value."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = watched()

        def forward(self, image: torch.Tensor, scale: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"other": scale, "answer": self.inner(image) * scale}

    return Named()


def test_functions_and_adapters_of_the_caller_travel(two: Client, tmp_path: Path) -> None:
    network = adapt(dictionary_network(), ["inner.0", "inner.2"], output="answer")
    inputs = {"image": INPUTS, "scale": torch.linspace(1, 2, COUNT)[:, None]}
    factor = 3.0
    options: dict[str, Any] = {
        "target": lambda outputs: (outputs * factor).square().sum(1),
        "layers": None,
        "network": network,
    }
    explain(tmp_path / "here.zarr", inputs, **options)
    explain(tmp_path / "there.zarr", inputs, **options, client=two)
    assert contents(tmp_path / "there.zarr") == contents(tmp_path / "here.zarr")


def test_a_recording_and_lazy_inputs(two: Client, tmp_path: Path) -> None:
    """Lazy inputs are read by the worker itself: a task that asks the cluster would wait on it."""
    retina: dict[str, Any] = {"network": tiny_retina(), "layers": None}
    split = tiny_split()
    explain(tmp_path / "a.zarr", split, **retina)
    explain(tmp_path / "b.zarr", split.chunk({"time": 7}), **retina, client=two)
    assert contents(tmp_path / "b.zarr") == contents(tmp_path / "a.zarr")
    lazy = xr.DataArray(
        dask.array.from_array(INPUTS.numpy(), chunks=(5, 1, 8, 8)), dims=("sample", "c", "y", "x")
    )
    explain(tmp_path / "c.zarr")
    explain(tmp_path / "d.zarr", lazy, client=two)
    assert contents(tmp_path / "d.zarr") == contents(tmp_path / "c.zarr")


class Images(Dataset[torch.Tensor]):
    """A data set that notes where it is unpickled."""

    def __init__(self, log: str) -> None:
        self.log, self.images = log, INPUTS

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.images[index]

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        with open(self.log, "a", encoding="utf-8") as stream:
            stream.write(f"{os.getpid()}\n")


def test_a_data_set_reaches_each_worker_once(two: Client, tmp_path: Path) -> None:
    log = tmp_path / "log"
    explain(tmp_path / "here.zarr", Images(str(log)))
    explain(tmp_path / "there.zarr", Images(str(log)), client=two)
    assert contents(tmp_path / "there.zarr") == contents(tmp_path / "here.zarr")
    assert sorted(log.read_text().split()) == sorted(
        str(pid) for pid in two.run(os.getpid).values()
    )


def kill_when(store: Path, marks: int, pids: list[int]) -> threading.Thread:
    """Kill processes as soon as so many shards are done."""
    done = store.with_name(store.name + ".partial") / "done"

    def watch() -> None:
        while not done.exists() or len(os.listdir(done)) < marks:
            time.sleep(0.005)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


@pytest.mark.slow
@pytest.mark.parametrize(("marks", "lost"), [(5, 1), (15, 1), (14, 2)])
def test_lost_workers_cost_their_shards(two: Client, tmp_path: Path, marks: int, lost: int) -> None:
    """One killed in each phase, then both at once, with all that they held of the network."""
    plain, log = tmp_path / "plain", tmp_path / "log"
    explain(tmp_path / "here.zarr", network=watched(plain))
    pids = list(two.run(os.getpid).values())
    thread = kill_when(tmp_path / "there.zarr", marks, pids[:lost])
    explain(tmp_path / "there.zarr", network=watched(log, delay=0.02), client=two)
    thread.join(10)
    here, there = (contents(tmp_path / f"{name}.zarr") for name in ("here", "there"))
    # attributes of the network (its file, its delay) are part of what a store answers
    assert here.pop("zarr.json") != there.pop("zarr.json")
    assert there == here
    runs = [
        sum(line.startswith("run") for line in noted.read_text().splitlines())
        for noted in (plain, log)
    ]
    per_shard = runs[0] / 10  # of both phases: an upper bound for a shard of one of them
    assert runs[0] <= runs[1] <= runs[0] + lost * per_shard
    two.wait_for_workers(2, timeout=60)
    assert set(two.run(os.getpid).values()) & set(pids) == set(pids[lost:])
    assert_nothing_is_left(two)


def test_what_is_wrong_with_an_input_is_told_as_here(two: Client, tmp_path: Path) -> None:
    inputs = INPUTS.clone()
    inputs[43] = 3e38
    with pytest.raises(RetinaCodecError, match="not finite for input 43") as here:
        explain(tmp_path / "here.zarr", inputs, target=Sum())
    with pytest.raises(RetinaCodecError) as there:
        explain(tmp_path / "there.zarr", inputs, target=Sum(), client=two)
    assert str(there.value) == str(here.value)
    assert_nothing_is_left(two)


class Heeding(nn.Sequential):
    """A network whose numbers depend on the default dtype."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return super().forward(inputs) * (1 + torch.finfo(torch.get_default_dtype()).bits)


def test_workers_compute_in_the_context_of_the_caller(two: Client, tmp_path: Path) -> None:
    options: dict[str, Any] = {"network": Heeding(*watched()), "target": Sum()}
    plain = explain(tmp_path / "plain.zarr", **options)["layers/0/contribution"].values
    torch.set_default_dtype(torch.float64)
    try:
        explain(tmp_path / "here.zarr", **options).close()
        there = explain(tmp_path / "there.zarr", client=two, **options)
    finally:
        torch.set_default_dtype(torch.float32)
    assert contents(tmp_path / "there.zarr") == contents(tmp_path / "here.zarr")
    np.testing.assert_allclose(there["layers/0/contribution"], plain * 65 / 33, rtol=1e-4)


def test_a_worker_that_fails_is_told_in_one_line(two: Client, tmp_path: Path) -> None:
    def broken(outputs: torch.Tensor) -> torch.Tensor:
        if distributed.worker._global_workers:
            raise ZeroDivisionError("first line\nsecond line")
        return outputs.sum(1)

    says = r"shard \d \(inputs \d+ to \d+\) could not be done .*ZeroDivisionError: first line\)"
    with pytest.raises(RetinaCodecError, match=says) as caught:
        explain(tmp_path / "run.zarr", target=broken, client=two)
    assert "\n" not in str(caught.value)
    assert_nothing_is_left(two)


def test_threads_of_a_worker_take_turns(threads: Client, tmp_path: Path) -> None:
    """Hooks and derivatives belong to the process, not to a thread."""
    explain(tmp_path / "here.zarr")
    explain(tmp_path / "there.zarr", network=watched(delay=0.001), client=threads)
    assert arrays(tmp_path / "there.zarr") == arrays(tmp_path / "here.zarr")
    assert_nothing_is_left(threads)


def test_few_shards_are_in_flight(
    threads: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many there are, the client holds the inputs of three per thread."""
    flying: list[int] = []
    plain = cluster._Run._submit

    def counted(self: Any, *args: Any) -> None:
        plain(self, *args)
        flying.append(len(self._flying))

    monkeypatch.setattr(cluster._Run, "_submit", counted)
    explain(tmp_path / "run.zarr", client=threads)
    assert max(flying) == cluster.AHEAD * 2 < COUNT // 8
    assert flying[-1] == 0


def test_a_run_goes_from_here_to_a_cluster_and_back(
    threads: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted here, there, and here: each time what is done stays done."""
    store = tmp_path / "run.zarr"
    plain_shard, plain_accept, seen = shards.run_shard, cluster._Run._accept, Counter[str]()

    def stop(*args: Any) -> Any:
        seen["here"] += 1
        if seen["here"] in (4, 7):
            raise KeyboardInterrupt
        return plain_shard(*args)

    def stop_client(*args: Any) -> None:
        seen["there"] += 1
        if seen["there"] == 3:
            raise KeyboardInterrupt
        plain_accept(*args)

    monkeypatch.setattr(shards, "run_shard", stop)
    monkeypatch.setattr(cluster._Run, "_accept", stop_client)
    for client in (None, threads, None):
        with pytest.raises(KeyboardInterrupt):
            explain(store, client=client)
        assert_nothing_is_left(threads)
    assert seen["there"] == 3
    explain(store)
    assert seen["here"] < 20 + 3
    explain(tmp_path / "here.zarr")
    assert contents(store) == contents(tmp_path / "here.zarr")


def test_a_worker_that_does_not_see_the_folder_says_so(tmp_path: Path) -> None:
    """Before it has computed anything."""
    writer = cluster.ShardWriter(PieceWriter(tmp_path / "not here", "{}"))
    package = cluster._Package("a run", b"")  # never opened
    problem = cluster._shard_task(package, b"", None, ("contributions", 0, 0, 8), False, writer)
    assert problem is not None
    assert "not there (any more)" in problem
    assert "every process must see it" in problem


def test_a_client_must_be_one(tmp_path: Path, threads: Client) -> None:
    with pytest.raises(RetinaCodecError, match=r"must be a .*distributed\.Client; got str"):
        explain(tmp_path / "run.zarr", client="tcp://127.0.0.1:8786")
    for store in (None, tmp_path / "run.nc"):
        with pytest.raises(RetinaCodecError, match=r"give store='run\.zarr' with client"):
            contribute(
                watched(), INPUTS, target=Sum(), method=IntegratedGradients(2), layers=["0"],
                store=store, client=threads,
            )  # fmt: skip
    assert not os.listdir(tmp_path)


def test_large_networks_and_inputs_raise_no_noise(threads: Client, tmp_path: Path) -> None:
    """Dask warns of more than 10 MB in a task; here that is how inputs travel."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(1_000_000, 4), nn.Linear(4, 1))
    inputs = torch.from_numpy(np.random.default_rng(0).normal(size=(8, 1_000_000))).float()
    found = contribute(
        network,
        inputs,
        target=Sum(),
        method=IntegratedGradients(1),
        layers=["1"],
        batch_size=8,
        store=tmp_path / "run.zarr",
        client=threads,
        progress=False,
    )
    assert np.isfinite(found["layers/1/contribution"].values).all()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Port .* is already in use:UserWarning")
def test_the_page_on_scaling_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its local examples as they stand; the others need what no test has, but must be Python."""
    page = Path(__file__).resolve().parents[2] / "docs" / "scaling.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    local = [block for block in blocks if "jobqueue" not in block and "kubernetes" not in block]
    assert len(local) == 2
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks:
        code = compile(block, str(page), "exec")
        if block in local:
            exec(code, names)
    assert sorted(os.listdir()) == ["run.zarr", "run_on_two.zarr"]
    assert contents(tmp_path / "run.zarr") == contents(tmp_path / "run_on_two.zarr")


def parametrized() -> nn.Module:
    """Torch pickles no parametrized modules."""
    network = watched()
    nn.utils.parametrizations.weight_norm(network[0])
    return network


def locked() -> nn.Module:
    network = watched()
    network.lock = threading.Lock()
    return network


class Locked(IntegratedGradients):
    """A method that holds a lock."""

    def __getstate__(self) -> Any:
        raise TypeError("cannot pickle a lock")


class Unpicklable(Dataset):
    """A data set that holds an open file."""

    def __init__(self) -> None:
        self.file = open(os.devnull, "rb")

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> torch.Tensor:
        return INPUTS[index]


@pytest.mark.parametrize(
    ("what", "options"),
    [
        ("the network", {"network": parametrized}),
        ("the network", {"network": locked}),
        ("the method", {"method": lambda: Locked(4)}),
        ("the inputs", {"inputs": Unpicklable}),
    ],
)
def test_what_cannot_be_sent_is_told_before_the_work(
    threads: Client, tmp_path: Path, what: str, options: dict[str, Any]
) -> None:
    made = {name: make() for name, make in options.items()}
    with pytest.raises(RetinaCodecError, match=rf"{what} must be such .*Leave out client=") as told:
        explain(tmp_path / "run.zarr", client=threads, **made)
    assert "same" not in str(told.value)
    assert not list(tmp_path.iterdir())
    assert_nothing_is_left(threads)
    if hasattr(made.get("inputs"), "file"):
        made["inputs"].file.close()


class Here(nn.Sequential):
    """A network that only the process that made it can open."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        if distributed.worker._global_workers:
            raise ModuleNotFoundError("No module named 'my_laboratory'")
        super().__setstate__(state)


def test_a_network_that_workers_cannot_open(two: Client, tmp_path: Path) -> None:
    says = r"opened on the workers.*my_laboratory.*Install the module.*leave out client="
    with pytest.raises(RetinaCodecError, match=says) as told:
        explain(tmp_path / "run.zarr", network=Here(*watched()), client=two)
    assert "\n" not in str(told.value)
    assert_nothing_is_left(two)
