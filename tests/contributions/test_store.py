"""Runs into a store: continued after any interruption, refused when they are another run's."""

import errno
import json
import logging
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
import zarr.storage._local as local_store
from torch import nn

from retina_codec.contributions import contribute as engine
from retina_codec.contributions import shards
from retina_codec.contributions import store as store_module
from retina_codec.contributions.contribute import contribute
from retina_codec.errors import RetinaCodecError
from retina_codec.methods.gradients import ActGrad
from retina_codec.methods.integrated_gradients import IntegratedGradients
from retina_codec.storage.trees import open_tree, save_tree
from retina_codec.targets.base import Sum, Target
from retina_codec.targets.surprisal import Surprisal
from tests.contributions.killed_run import contents, small_network
from tests.contributions.tiny import tiny_retina, tiny_split

ROOT = Path(__file__).resolve().parents[2]
INPUTS = torch.randn(40, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Five shards of eight inputs, and one thread: more only disturb so small a net."""
    monkeypatch.setattr(shards, "FEWEST", 8)
    monkeypatch.setattr(shards, "MOST", 8)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def explain(store: Path | str | None, inputs: Any = INPUTS, **options: Any) -> xr.DataTree:
    settings: dict[str, Any] = {
        "target": Surprisal(),
        "method": IntegratedGradients(4),
        "layers": ["0", "2"],
        "batch_size": 4,
        "progress": False,
    }
    network = options.pop("network", None) or small_network()
    return contribute(network, inputs, store=store, **(settings | options))


def partial(store: Path) -> Path:
    return store.with_name(store.name + ".partial")


@pytest.fixture
def interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that got to its third shard of contributions."""
    store = tmp_path / "run.zarr"
    interrupt(store, monkeypatch, 8)
    return store


def interrupt(
    store: Path, monkeypatch: pytest.MonkeyPatch, after: int, error: Any = KeyboardInterrupt
) -> None:
    plain, seen = shards.run_shard, []

    def stopped(*args: Any) -> Any:
        seen.append(1)
        if len(seen) == after:
            raise error
        return plain(*args)

    with monkeypatch.context() as patch:
        patch.setattr(shards, "run_shard", stopped)
        with pytest.raises(error if isinstance(error, type) else type(error)):
            explain(store)


def count_calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the batches that the network sees from now on."""
    sizes: list[int] = []
    plain = nn.Conv2d.forward

    def counted(self: nn.Conv2d, inputs: torch.Tensor) -> torch.Tensor:
        sizes.append(len(inputs))
        return plain(self, inputs)

    monkeypatch.setattr(nn.Conv2d, "forward", counted)
    return sizes


# What is written


def test_a_store_holds_what_a_run_in_memory_gives(tmp_path: Path) -> None:
    stored = explain(tmp_path / "run.zarr")
    assert os.listdir(tmp_path) == ["run.zarr"]
    run = stored.attrs.pop("run")
    xr.testing.assert_identical(stored.load(), explain(None))
    assert json.loads(run)["batch_size"] == "4"
    chunks = tmp_path / "run.zarr/layers/0/contribution/c"
    assert sorted(os.listdir(chunks)) == list("01234"), "one chunk per shard"


def test_a_recording_goes_into_a_store_with_its_labels(tmp_path: Path) -> None:
    network, split = tiny_retina(), tiny_split()
    stored = explain(tmp_path / "run.zarr", split, network=network, layers=None)
    del stored.attrs["run"]
    xr.testing.assert_identical(stored.load(), explain(None, split, network=network, layers=None))


def test_small_results_go_into_one_file(tmp_path: Path) -> None:
    found = explain(tmp_path / "run.nc")
    xr.testing.assert_identical(open_tree(tmp_path / "run.nc", lazy=False), found)
    with pytest.raises(RetinaCodecError, match=r"must not exist yet; .*run\.nc does"):
        explain(tmp_path / "run.nc")
    with pytest.raises(RetinaCodecError, match=r"must end in \.nc or \.zarr"):
        explain(tmp_path / "run.h5")


@dataclass(frozen=True)
class Centred(Target):
    """A target with a statistic of its own, which it knows once it is fitted."""

    centre: float | None = None

    def __call__(self, outputs: torch.Tensor) -> torch.Tensor:
        return (outputs - float(self.centre or 0)).square().sum(1)

    @property
    def incomplete(self) -> bool:
        return self.centre is None

    def prepare(self, *, responses: Any = None, cells: Any = None) -> "Centred":
        del cells
        return self if responses is None else Centred(float(np.mean(responses)))

    def statistics(self) -> dict[str, xr.Variable]:
        return {"centre": xr.Variable((), float(self.centre or np.nan), {"units": "Hz"})}


def test_statistics_of_a_new_target_are_stored(tmp_path: Path) -> None:
    stored = explain(tmp_path / "run.zarr", target=Centred())
    memory = explain(None, target=Centred())
    assert np.isfinite(memory["responses/centre"].item())
    xr.testing.assert_identical(stored["responses/centre"], memory["responses/centre"])


def test_shards_of_every_length_give_the_same_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lengths that do and do not divide 40 inputs, one shard for all, one batch per shard."""
    expected = explain(None)
    for length in (4, 12, 40, 400):
        monkeypatch.setattr(shards, "FEWEST", length)
        monkeypatch.setattr(shards, "MOST", length)
        stored = explain(tmp_path / f"{length}.zarr")
        del stored.attrs["run"]
        xr.testing.assert_identical(stored.load(), expected)


# Continued


def test_ten_kills_at_random_moments_end_with_the_same_bytes(tmp_path: Path) -> None:
    """In both phases; what a kill costs is no more than the shard it hit."""
    found = killed_run(tmp_path, "random", 10)
    assert found["kills"] == 10
    assert found["same"], "a resumed run must end with the bytes of an uninterrupted one"
    assert found["finished"] >= 1
    assert found["lost"] <= 10
    per_phase = found["shards"] // 2
    assert any(0 < marks < per_phase for marks in found["marks"]), "none hit the predictions"
    assert any(per_phase < marks for marks in found["marks"]), "none hit the contributions"


@pytest.mark.slow
def test_a_kill_in_the_middle_of_any_write_does_no_harm(tmp_path: Path) -> None:
    """Every seventh of some 400 writes, half-written chunks among them."""
    found = killed_run(tmp_path, "writes", 7)
    assert found["tried"] > 40
    assert not found["wrong"]


def killed_run(folder: Path, kind: str, number: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.contributions.killed_run", str(folder), kind]
    done = subprocess.run(
        [*command, str(number)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_finished_store_returns_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is computed."""
    first = explain(tmp_path / "run.zarr")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    sizes = count_calls(monkeypatch)
    xr.testing.assert_identical(explain(tmp_path / "run.zarr"), first)
    assert max(sizes) < 4, "a few inputs may be looked at"
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    explain(tmp_path / "other.zarr")
    assert max(sizes) == 4, "the counter must see a run that does compute"


def test_only_what_is_left_is_computed(interrupted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts: list[tuple[str, int]] = []
    plain = shards.run_shard

    def noted(runner: Any, part: Any, phase: Any, *rest: Any) -> Any:
        parts.append((phase, part.offset))
        return plain(runner, part, phase, *rest)

    monkeypatch.setattr(shards, "run_shard", noted)
    explain(interrupted)
    assert parts == [("contributions", offset) for offset in (16, 24, 32)]


def test_another_working_folder_continues_the_same_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative path is resolved once, where the call is made."""
    monkeypatch.chdir(tmp_path)
    plain = shards.run_shard

    def wander(*args: Any) -> Any:
        monkeypatch.chdir("/")
        return plain(*args)

    monkeypatch.setattr(shards, "run_shard", wander)
    explain("results/run.zarr")
    assert os.listdir(tmp_path / "results") == ["run.zarr"]


def test_an_interruption_says_where_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        interrupt(tmp_path / "run.zarr", monkeypatch, 3)
    (record,) = caplog.records
    assert str(partial(tmp_path / "run.zarr")) in record.message
    assert "the same call continues" in record.message


def test_the_bar_begins_at_what_is_done(
    interrupted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    explain(interrupted, progress=True)
    shown = capsys.readouterr().err.replace("\r", "\n").splitlines()
    assert any("predictions: 100%" in line and "40/40" in line for line in shown)
    begun = [line for line in shown if "contributions" in line and " 0/40" not in line]
    assert "16/40" in begun[0]
    assert "40/40" in begun[-1]


def test_leftovers_of_dead_writers_go(interrupted: Path, tmp_path: Path) -> None:
    torn = partial(interrupted) / "data.zarr/layers/0/contribution/c/5.dead.partial"
    torn.write_bytes(b"half")
    explain(interrupted)
    explain(tmp_path / "whole.zarr")
    assert contents(interrupted) == contents(tmp_path / "whole.zarr")


# Memory


@pytest.mark.slow
def test_memory_does_not_grow_with_inputs_or_steps(tmp_path: Path) -> None:
    """Eight times the inputs (131 MB more), or 16 times the steps.

    16 MiB is room for allocators; the same inputs held in memory must be seen to exceed it.
    """
    found = killed_run(tmp_path, "peaks", 8)
    assert found["in memory"] - found["images"] > 100, "the measure must see what is held"
    assert found["more images"] - found["images"] < 16
    assert found["more steps"] - found["images"] < 16
    assert found["more frames"] - found["frames"] < 16


# Refused


@dataclass(frozen=True)
class Scaled(Target):
    factor: float

    def __call__(self, outputs: torch.Tensor) -> torch.Tensor:
        return self.factor * outputs.sum(1)


def gelu_network() -> nn.Sequential:
    """The same weights, another function."""
    network = small_network()
    network[1] = nn.GELU()
    return network


def hooked_network() -> nn.Sequential:
    network = small_network()
    network[1].register_forward_hook(lambda module, inputs, output: output * 0.5)  # noqa: ARG005
    return network


def other_weights() -> nn.Sequential:
    network = small_network()
    with torch.no_grad():
        network[5].bias.add_(1)
    return network


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"method": IntegratedGradients(5)}, r"steps: 4 there, 5 here"),
        ({"method": IntegratedGradients(4, baseline="mean")}, "baseline: 0.0 there, mean here"),
        ({"method": ActGrad()}, "method: IntegratedGradients there, ActGrad here"),
        ({"target": Sum()}, r"target: Surprisal\(.* there, Sum\(\) here"),
        ({"target": Surprisal(shrinkage="ledoit-wolf")}, "target: .*None.* there, .*ledoit-wolf"),
        ({"batch_size": 8}, "batch_size: 4 there, 8 here"),
        ({"layers": ["0"]}, "layers: 0 .*, 2 .* there, 0 .* here"),
        ({"dtype": torch.float64}, "dtype: float32 there, float64 here"),
        ({"network": gelu_network}, r"network.1: .*ReLU there, .*GELU here"),
        ({"network": hooked_network}, r"hooks of network.1 .*: nothing there, hooked_network"),
        ({"network": other_weights}, r"network_sha256: .*network\.5\.bias: "),
        ({"inputs": INPUTS[:39]}, "inputs: 40 along sample.* there, 39 along"),
        ({"inputs": INPUTS.flip(0)}, "inputs: "),
    ],
)
def test_another_run_is_refused_and_nothing_is_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Any, says: str, finished: bool
) -> None:
    store = tmp_path / "run.zarr"
    if finished:
        explain(store)
    else:
        interrupt(store, monkeypatch, 7)
    before = contents(tmp_path)
    change = dict(change)
    if "network" in change:
        change["network"] = change["network"]()
    with pytest.raises(RetinaCodecError, match=says) as caught:
        explain(store, change.pop("inputs", INPUTS), **change)
    assert "\n" not in str(caught.value)
    assert "Choose another name for store, or remove it" in str(caught.value)
    assert contents(tmp_path) == before


def test_one_pixel_makes_another_run(interrupted: Path) -> None:
    other = INPUTS.clone()
    other[17, 0, 3, 3] += 1
    with pytest.raises(RetinaCodecError, match="belongs to another \\(inputs: "):
        explain(interrupted, other)


@pytest.mark.parametrize("package", ["retina-codec", "torch", "zarr"])
def test_another_version_is_refused(
    interrupted: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    plain = engine.versions()
    found = plain.replace(f"{package} ", f"{package} 0.0.7+")
    monkeypatch.setattr(engine, "versions", lambda: found)
    if package == "zarr":
        monkeypatch.setattr(store_module, "version", lambda _: "0.0.7")
    with pytest.raises(RetinaCodecError, match=rf"\(versions: .*{package} .* here\)"):
        explain(interrupted)


def test_functions_are_told_apart_by_their_code(tmp_path: Path) -> None:
    def scaled(factor: float) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda outputs: factor * outputs.sum(1)

    explain(tmp_path / "run.zarr", target=scaled(2.0))
    explain(tmp_path / "run.zarr", target=scaled(2.0))
    explain(tmp_path / "class.zarr", target=Scaled(2.0))
    for store, target in (
        ("run", scaled(3.0)),
        ("run", lambda outputs: outputs.sum(1)),
        ("class", Scaled(3.0)),
    ):
        with pytest.raises(RetinaCodecError, match=r"another \(target: "):
            explain(tmp_path / f"{store}.zarr", target=target)


def test_what_cannot_be_recognised_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Nameless(Target):
        def __call__(self, outputs: torch.Tensor) -> torch.Tensor:
            return outputs.sum(1)

    sizes = count_calls(monkeypatch)
    with pytest.raises(RetinaCodecError, match=r"target holds .*Nameless object at 0x.* __repr__"):
        explain(tmp_path / "run.zarr", target=Nameless())
    assert max(sizes) < 4
    assert not os.listdir(tmp_path)
    explain(None, target=Nameless())


def test_objects_that_can_be_called_are_told_apart_by_their_values(tmp_path: Path) -> None:
    class Weighted:
        def __init__(self, weight: float) -> None:
            self.weight = weight

        def __call__(self, outputs: torch.Tensor) -> torch.Tensor:
            return self.weight * outputs.sum(1)

    explain(tmp_path / "run.zarr", target=Weighted(1.0))
    explain(tmp_path / "run.zarr", target=Weighted(1.0))
    with pytest.raises(RetinaCodecError, match=r"another \(target: "):
        explain(tmp_path / "run.zarr", target=Weighted(2.0))


def garbage_file(place: Path) -> None:
    place.write_text("garbage")


def empty_folder(place: Path) -> None:
    place.mkdir()


def folder_of_notes(place: Path) -> None:
    place.mkdir()
    (place / "notes.txt").write_text("keep me")


def recording(place: Path) -> None:
    made = place.with_name("made.zarr")
    save_tree(xr.DataTree.from_dict({"/train": tiny_split()}), made)
    made.rename(place)


def broken_description(place: Path) -> None:
    place.mkdir()
    (place / "run.json").write_text('["half')


@pytest.mark.parametrize(
    ("make", "where", "says"),
    [
        (garbage_file, "run.zarr", "must be a readable Zarr folder"),
        (empty_folder, "run.zarr", "must be a readable Zarr folder"),
        (folder_of_notes, "run.zarr", "must be a readable Zarr folder"),
        (recording, "run.zarr", "does not say which run it is"),
        (garbage_file, "run.zarr.partial", "there is a file of that name"),
        (folder_of_notes, "run.zarr.partial", "holds 'notes.txt' and does not say which run"),
        (recording, "run.zarr.partial", "does not say which run"),
        (broken_description, "run.zarr.partial", "does not say which run"),
    ],
)
def test_what_is_no_store_is_refused_and_kept(
    tmp_path: Path, make: Callable[[Path], None], where: str, says: str
) -> None:
    make(tmp_path / where)
    before = contents(tmp_path)
    with pytest.raises(RetinaCodecError, match=says) as caught:
        explain(tmp_path / "run.zarr")
    assert "\n" not in str(caught.value)
    assert contents(tmp_path) == before


def test_arrays_that_are_gone_are_missed(interrupted: Path) -> None:
    (partial(interrupted) / "data.zarr").rename(interrupted.with_name("elsewhere"))
    with pytest.raises(RetinaCodecError, match=r"are gone.*Bring data\.zarr back"):
        explain(interrupted)
    interrupted.with_name("elsewhere").rename(partial(interrupted) / "data.zarr")
    explain(interrupted)


# The disk


@contextmanager
def one_line(says: str) -> Iterator[None]:
    """An error, if there is one, must say this in one line."""
    try:
        yield
    except RetinaCodecError as error:
        found = str(error)
        if says not in found or "\n" in found:
            pytest.fail(f"must say {says!r} in one line; says {found!r}")
        raise


def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At each of many moments: one line, and the same call goes on once there is space."""
    explain(tmp_path / "whole.zarr")
    plain, store = local_store._put, tmp_path / "run.zarr"
    room = 1000

    def put(path: Path, value: Any, exclusive: bool = False) -> int:
        nonlocal room
        room -= 1
        if room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return plain(path, value, exclusive)

    monkeypatch.setattr(local_store, "_put", put)
    interrupt(store, monkeypatch, 2)
    done: list[int] = []
    while not store.exists() and len(done) < 40:
        room = 10 * (len(done) + 1)  # the end needs more of it than a shard
        done.append(len(list(partial(store).glob("done/*"))))
        with suppress(RetinaCodecError), one_line("No space left on device"):
            explain(store)
    room = 1000
    assert done == sorted(done)
    assert len(done) > 5
    assert contents(store) == contents(tmp_path / "whole.zarr")


def test_a_folder_that_vanishes_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = tmp_path / "run.zarr"
    plain, seen = shards.run_shard, []

    def unplug(*args: Any) -> Any:
        seen.append(1)
        if len(seen) == 8:
            partial(store).rename(tmp_path / "unplugged")
        return plain(*args)

    with monkeypatch.context() as patch:
        patch.setattr(shards, "run_shard", unplug)
        with pytest.raises(RetinaCodecError, match=r"not there \(any more\).*bring the folder"):
            explain(store)
    assert not partial(store).exists(), "nothing may be made where the folder was"
    (tmp_path / "unplugged").rename(partial(store))
    explain(store)
    explain(tmp_path / "whole.zarr")
    assert contents(store) == contents(tmp_path / "whole.zarr")


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RetinaCodecError, match=r"could not write to .*run\.zarr\.partial"):
        explain(tmp_path / "file" / "run.zarr")


def test_what_is_put_in_the_way_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "run.zarr"
    plain = shards.run_shard

    def intrude(*args: Any) -> Any:
        store.mkdir(exist_ok=True)
        return plain(*args)

    with monkeypatch.context() as patch:
        patch.setattr(shards, "run_shard", intrude)
        with pytest.raises(RetinaCodecError, match=r"something was put at .*run\.zarr"):
            explain(store)
    store.rmdir()
    explain(store)
    explain(tmp_path / "whole.zarr")
    assert contents(store) == contents(tmp_path / "whole.zarr")


# One process at a time


def hold(store: str, held: Any, go: Any) -> None:
    """In another process: stop inside the first shard."""
    torch.set_num_threads(1)
    shards.FEWEST = shards.MOST = 8
    plain = shards.run_shard

    def wait(*args: Any) -> Any:
        held.set()
        go.wait()
        return plain(*args)

    shards.run_shard = wait
    explain(store)


def test_two_processes_do_not_share_a_store(tmp_path: Path) -> None:
    """The second is told of the first; when that is killed, its lock goes with it."""
    store = tmp_path / "run.zarr"
    context = multiprocessing.get_context("spawn")
    held, go = context.Event(), context.Event()
    other = context.Process(target=hold, args=(str(store), held, go))
    other.start()
    try:
        assert held.wait(120)
        before = contents(tmp_path)
        with pytest.raises(RetinaCodecError, match=rf"one process at a time.* {other.pid} on"):
            explain(store)
        assert contents(tmp_path) == before
    finally:
        other.kill()
        other.join()
    assert (partial(store) / "lock").exists()
    explain(store)
    assert os.listdir(tmp_path) == ["run.zarr"]


def test_one_process_does_not_write_twice_to_a_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, plain, told = tmp_path / "run.zarr", shards.run_shard, []

    def again(*args: Any) -> Any:
        if not told:
            told.append(1)
            with pytest.raises(RetinaCodecError, match=f"this process \\({os.getpid()}\\) does"):
                explain(store)
        return plain(*args)

    monkeypatch.setattr(shards, "run_shard", again)
    explain(store)
    assert told
    assert np.isfinite(open_tree(store)["layers/0/contribution"].values).all()
