"""Runs that are killed and resumed, for test_store.py: `python -m ... FOLDER KIND N`.

Every run is a child by fork, so that a kill costs no import. KIND `random`: N kills at random
moments, one in each N-th of the work. `writes`: killed in the middle of every N-th thing that it
does to the disk, each in a run of its own that is resumed once. `peaks`: no kills, but peak memory.
Prints one line of JSON.
"""

import hashlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import torch
import xarray as xr
import zarr
import zarr.storage._local as local_store
from torch import nn

from retina_codec.contributions import shards
from retina_codec.contributions.contribute import contribute
from retina_codec.methods.integrated_gradients import IntegratedGradients
from retina_codec.reductions import AllUnits
from retina_codec.targets.base import Sum
from retina_codec.targets.surprisal import Surprisal
from tests.contributions.tiny import tiny_retina

COUNT = 120


def small_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.ReLU(),
        nn.Conv2d(4, 3, 3),
        nn.Softplus(),
        nn.Flatten(),
        nn.Linear(48, 3),
    )


def run(store: Path | None, count: int = COUNT) -> None:
    """Two phases: predictions for the covariance, then contributions."""
    shards.FEWEST = shards.MOST = 8
    inputs = torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    contribute(
        small_network(),
        inputs,
        target=Surprisal(),
        method=IntegratedGradients(4),
        layers=["0", "2"],
        batch_size=4,
        store=store,
        progress=False,
    )


def contents(folder: Path) -> dict[str, str]:
    """Names and hashes of all files below a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def child(
    work: Callable[[], Any], ripe: Callable[[], bool] | None = None, seconds: float = 0.0
) -> bool:
    """Whether the work came to its end, in a process of its own; killed ``seconds`` after ripe."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    if ripe is not None:
        asked = os.WEXITED | os.WNOHANG | os.WNOWAIT
        while not ripe() and os.waitid(os.P_PID, pid, asked) is None:
            time.sleep(0.001)
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    if status and not os.WIFSIGNALED(status):
        raise SystemExit(f"a run failed by itself, status {status}")
    return status == 0


def log_shards(log: Path) -> None:
    """Note every shard that is begun."""
    plain = shards.run_shard

    def noted(runner: Any, part: Any, phase: Any, *rest: Any) -> Any:
        with log.open("a") as stream:
            stream.write(f"{phase} {part.offset}\n")
        return plain(runner, part, phase, *rest)

    shards.run_shard = noted


def die_at(moment: int, names: Path | None = None) -> None:
    """End this process in the middle of its n-th write; or note what each write is."""
    seen = 0

    def count(what: str) -> bool:
        nonlocal seen
        seen += 1
        if names is not None:
            with names.open("a") as stream:
                stream.write(what + "\n")
        return seen == moment

    def before(owner: Any, name: str) -> None:
        plain = getattr(owner, name)

        def counted(*args: Any, **options: Any) -> Any:
            if count(name):
                os.kill(os.getpid(), signal.SIGKILL)
            return plain(*args, **options)

        setattr(owner, name, counted)

    for owner, name in ((os, "replace"), (shutil, "rmtree"), (Path, "touch"), (Path, "mkdir")):
        before(owner, name)
    plain_put = local_store._put

    def put(path: Path, value: Any, exclusive: bool = False) -> int:
        if count("put"):
            data = bytes(value.as_buffer_like())
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_suffix(".dead.partial").write_bytes(data[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return plain_put(path, value, exclusive)

    local_store._put = put


def random_kills(folder: Path, kills: int) -> dict[str, Any]:
    """Wait for a random number of shards, then for a random part of one, and kill.

    Progress is waited for, not time: on a slow machine the kills are as spread as on a fast one.
    """
    whole, store, log = folder / "whole.zarr", folder / "killed.zarr", folder / "log"
    partial = store.with_name("killed.zarr.partial")
    started = time.monotonic()
    child(lambda: run(whole))
    seconds = time.monotonic() - started
    expected, moments = contents(whole), random.Random(0)
    shards_in_all = 2 * -(-COUNT // 8)
    done, finished, same = 0, 0, True
    marks: list[int] = []

    def work() -> None:
        log_shards(log)
        run(store)

    def marked() -> int:
        return len(list(partial.glob("done/*")))

    while done < kills or partial.exists():
        wanted = int((done + moments.random()) * shards_in_all / kills)
        late = moments.uniform(0, seconds / shards_in_all)
        if done < kills:
            ended = child(work, lambda wanted=wanted: marked() >= wanted, late)
        else:
            ended = child(work)
        if ended:
            finished += 1
            same &= contents(store) == expected and not partial.exists()
            if done < kills:
                shutil.rmtree(store)
        else:
            done += 1
            marks.append(marked())
    begun = Counter(log.read_text().splitlines())
    if not finished:
        child(work)
        finished, same = 1, contents(store) == expected
        begun = Counter(log.read_text().splitlines())
    return {
        "kills": done,
        "finished": finished,
        "same": same,
        "marks": marks,
        "shards": len(begun),
        "lost": sum(begun.values()) - finished * len(begun),
    }


def killed_writes(folder: Path, every: int) -> dict[str, Any]:
    whole, names = folder / "whole.zarr", folder / "names"
    few = 16  # two shards

    def watched() -> None:
        die_at(0, names)
        run(whole, few)

    child(watched)
    expected, total = contents(whole), len(names.read_text().splitlines())
    wrong = []
    for moment in range(1, total + 1, every):
        store = folder / f"killed-{moment}.zarr"

        def killed(moment: int = moment, store: Path = store) -> None:
            die_at(moment)
            run(store, few)

        # runs differ by a few writes, so the last moment may come after the end
        if child(killed) and moment <= total - every:
            wrong.append(f"{moment}: was not killed")
        child(lambda store=store: run(store, few))
        left = [path.name for path in folder.glob(f"*killed-{moment}.*")]
        if contents(store) != expected or left != [store.name]:
            wrong.append(f"{moment}: {left}")
    return {"writes": total, "tried": len(range(1, total + 1, every)), "wrong": wrong}


def peaks(folder: Path, number: int) -> dict[str, int]:
    """Peak memory, in MiB, of runs over lazy inputs and over ``number`` times as many."""
    few, frames = 1000, 4000
    return {
        "images": peak(folder / "a", write_images, explain_images, few, 4),
        "more images": peak(folder / "b", write_images, explain_images, number * few, 4),
        "more steps": peak(folder / "c", write_images, explain_images, few, 64),
        "in memory": peak(folder / "d", write_images, explain_images, number * few, 4, lazy=False),
        "frames": peak(folder / "e", write_frames, explain_frames, frames, 4),
        "more frames": peak(folder / "f", write_frames, explain_frames, number * frames, 4),
    }


def peak(
    folder: Path,
    write: Callable[[Path, int], None],
    explain: Callable[[Path, Path, int, bool], None],
    count: int,
    steps: int,
    *,
    lazy: bool = True,
) -> int:
    folder.mkdir()

    def measured() -> None:
        explain(folder / "inputs.zarr", folder / "run.zarr", steps, lazy)
        kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        (folder / "peak").write_text(str(kib // 1024))

    child(lambda: write(folder / "inputs.zarr", count))
    child(measured)
    return int((folder / "peak").read_text())


def write_images(place: Path, count: int) -> None:
    """16 KiB each."""
    array = zarr.create_array(place, shape=(count, 1, 64, 64), chunks=(50, 1, 64, 64), dtype="f4")
    for start in range(0, count, 1000):
        array[start : start + 1000] = np.random.default_rng(start).normal(size=(1000, 1, 64, 64))


def explain_images(place: Path, store: Path, steps: int, lazy: bool) -> None:
    images = dask.array.from_zarr(str(place))
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 8, 8, stride=8), nn.Softplus(), nn.Flatten(), nn.Linear(512, 2)
    )
    contribute(
        network,
        xr.DataArray(images if lazy else images.compute(), dims=("sample", "channel", "y", "x")),
        target=Sum(),
        method=IntegratedGradients(steps),
        layers=["0"],
        reduction=AllUnits(),
        store=store,
        progress=False,
    )


def write_frames(place: Path, count: int) -> None:
    """900 bytes each, 36 times that as windows of floats."""
    array = zarr.create_array(place, shape=(count, 30, 30), chunks=(500, 30, 30), dtype="u1")
    for start in range(0, count, 1000):
        frames = np.random.default_rng(start).integers(0, 256, (1000, 30, 30))
        array[start : start + 1000] = frames


def explain_frames(place: Path, store: Path, steps: int, lazy: bool) -> None:
    frames = dask.array.from_zarr(str(place))
    split = xr.Dataset(
        {"stimulus": (("time", "y", "x"), frames if lazy else frames.compute())},
        coords={"time": np.arange(len(frames)) / 100},
    )
    contribute(
        tiny_retina(frame_shape=(30, 30)),
        split,
        target=Sum(),
        method=IntegratedGradients(steps),
        store=store,
        progress=False,
    )


def main() -> None:
    folder, kind, number = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    torch.set_num_threads(1)
    # What is imported late, is now: a child should not spend its life importing.
    contribute(
        small_network(),
        torch.zeros(2, 1, 8, 8),
        target=Sum(),
        method=IntegratedGradients(1),
        layers=["0"],
        progress=False,
    )
    kinds = {"random": random_kills, "writes": killed_writes, "peaks": peaks}
    print(json.dumps(kinds[kind](folder, number)))  # noqa: T201


if __name__ == "__main__":
    main()
