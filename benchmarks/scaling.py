"""Two single-thread workers of a dask cluster against one; or an hour of recording as a stream.

The network of the simulated retina explains windows of a natural movie, simulated for half a
minute and repeated with shifts, which lies in a Zarr folder and is read in chunks. Prints one JSON
line.

    python benchmarks/scaling.py
    python benchmarks/scaling.py --hour --quadrature chords --steps 14
"""

import importlib
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import torch
import xarray as xr
from distributed import Client, LocalCluster
from measure import parser, report

import retina_codec as rc
from retina_codec.storage.trees import sha256_of

ROOT = Path(__file__).resolve().parents[1]
HOUR = 360_000  # frames of 50 × 50 at 100 Hz
SIMULATED = 30  # s


def write_movie(place: Path, frames: int) -> None:
    """Write frames of a natural movie, shifted a little in every repetition."""
    recording, _ = rc.simulate_retina(
        train_duration=0, test_duration=SIMULATED, repeats=1, progress=False
    )
    movie = recording["test/stimulus"].values
    tiles = [
        dask.array.from_delayed(dask.delayed(np.roll)(movie, n, 2), movie.shape, movie.dtype)
        for n in range(-(-frames // len(movie)))
    ]
    stimulus = dask.array.concatenate(tiles)[:frames]
    split = xr.Dataset(
        {"stimulus": (("time", "y", "x"), stimulus)}, coords={"time": np.arange(frames) / 100}
    )
    rc.save_tree(xr.DataTree.from_dict({"/train": split}), place)


def explain(
    movie: Path, store: Path, options: dict[str, Any], client: Client | None, frames: slice
) -> float:
    """Return the seconds that it takes to explain windows into a store."""
    with rc.open_tree(movie) as recording:
        start = time.perf_counter()
        rc.contribute(
            rc.load_network(options["network"]),
            recording["train"].to_dataset().isel(time=frames),
            target=rc.targets.Surprisal(),
            method=rc.methods.IntegratedGradients(
                options["steps"], quadrature=options["quadrature"]
            ),
            store=store,
            client=client,
            progress=options["progress"],
        )
        return time.perf_counter() - start


def stream(movie: Path, store: Path, options: dict[str, Any]) -> dict[str, float]:
    """Explain a whole movie in this process; tell time and peak memory of all that it holds."""
    if options["threads"]:
        torch.set_num_threads(options["threads"])
    seconds = explain(movie, store, options, None, slice(None))
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return {"seconds": seconds, "peak_bytes": float(peak), "torch_threads": torch.get_num_threads()}


def _import() -> None:
    importlib.import_module("retina_codec.contributions.cluster")


@contextmanager
def workers(count: int, movie: Path, options: dict[str, Any]) -> Iterator[Client]:
    """Start single-thread workers, with all slow imports done."""
    with (
        LocalCluster(
            n_workers=count, threads_per_worker=1, processes=True, dashboard_address=":0"
        ) as local,
        Client(local) as client,
    ):
        client.wait_for_workers(count)
        client.run(_import)
        explain(movie, movie.with_name(f"warm-{count}.zarr"), options, client, slice(0, 300))
        yield client


def in_new_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function where nothing else has taken memory."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


def main() -> None:
    """Measure and print."""
    line = parser(__doc__.splitlines()[0])
    line.set_defaults(repeats=1)
    line.add_argument("--network", default="insilico")
    line.add_argument("--steps", type=int, default=20)
    line.add_argument("--quadrature", default="trapezoid")
    line.add_argument("--windows", type=int, default=16_384, help="for the workers")
    line.add_argument("--hour", action="store_true", help="stream an hour instead")
    line.add_argument("--part", type=float, default=1.0, help="of the hour")
    line.add_argument("--progress", action="store_true")
    options = vars(line.parse_args())
    shown = {key: options[key] for key in ("steps", "quadrature")}
    with tempfile.TemporaryDirectory() as name:
        folder, movie = Path(name), Path(name) / "movie.zarr"
        if options["hour"]:
            frames = int(HOUR * options["part"])
            in_new_process(write_movie, movie, frames)
            found = in_new_process(stream, movie, folder / "run.zarr", options)
            size = sum(f.stat().st_size for f in (folder / "run.zarr").rglob("*") if f.is_file())
            report({"benchmark": "hour", "frames": frames, **shown, **found, "stored_bytes": size})
            return
        in_new_process(write_movie, movie, options["windows"] + 1000)
        seconds: dict[int, list[float]] = {1: [], 2: []}
        hashes = set()
        frames_used = slice(0, options["windows"] + rc.load_network(options["network"]).history)
        for turn in range(options["repeats"]):
            for count in (1, 2):
                store = folder / f"{count}-{turn}.zarr"
                with workers(count, folder / "movie.zarr", options) as client:
                    took = explain(movie, store, options, client, frames_used)
                seconds[count].append(took)
                hashes.add(sha256_of(store))
                for warm in folder.glob("warm-*"):
                    os.rename(warm, folder / f"old-{turn}-{warm.name}")
        report(
            {
                "benchmark": "workers",
                "windows": options["windows"],
                **shown,
                "seconds_one": min(seconds[1]),
                "seconds_two": min(seconds[2]),
                "ratio": min(seconds[1]) / min(seconds[2]),
                "all_seconds": [seconds[1], seconds[2]],
                "same_bytes": len(hashes) == 1,
                "load": os.getloadavg()[0],
            }
        )


if __name__ == "__main__":
    main()
