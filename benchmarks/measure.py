"""Time and memory of a piece of work, each measurement in a process of its own.

Why this file exists: libraries keep buffers, threads and compiled kernels, so that what runs second
in a process is measured differently from what runs first. All benchmarks measure through `measure`.
"""

import argparse
import gc
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["gemm_rate", "measure", "parser", "report"]

HERE = Path(__file__).resolve().parent


def measure(
    file: str | Path, name: str, arguments: Mapping[str, Any], *, repeats: int = 3, threads: int = 0
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Run ``file:name(**arguments)`` in a fresh process; measure the callable that it returns.

    Parameters
    ----------
    file : path
        Python file.
    name : str
        A function in it that prepares the work and returns ``work`` or ``(warm, work)``, callables
        without arguments. ``work`` may return arrays by name.
    arguments : mapping
        For the function; JSON types.
    repeats : int
        Measured calls, after one call of ``warm`` (``work`` when left out).
    threads : int
        Of torch; 0 leaves its default.

    Returns
    -------
    dict
        ``seconds`` (median), ``all_seconds``, ``cpu_seconds`` (median; of all threads and of child
        processes that ended), ``peak_bytes`` (highest resident memory during the
        work above the level before its warm-up), ``peak_source``, ``gemm_flops`` (per second, of a
        large product in the same process, right after the work).
    dict of np.ndarray
        What the last call returned.
    """
    with tempfile.TemporaryDirectory() as folder:
        task = {
            "file": str(file),
            "name": name,
            "arguments": dict(arguments),
            "repeats": repeats,
            "threads": threads,
            "arrays": str(Path(folder) / "arrays.npz"),
        }
        command = [sys.executable, str(HERE / "measure.py"), json.dumps(task)]
        done = subprocess.run(command, capture_output=True, text=True, env=_environment())
        if done.returncode:
            raise RuntimeError(f"{name} failed:\n{done.stderr[-4000:]}")
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        with np.load(task["arrays"]) as arrays:
            return found, {key: arrays[key] for key in arrays.files}


def report(row: Mapping[str, Any]) -> None:
    """Print one JSON line, floats to four digits."""
    print(json.dumps(_rounded(row)), flush=True)


def gemm_rate(size: int = 2048, repeats: int = 5) -> float:
    """Return the floating point operations per second of a large product in float32."""
    import torch

    left = torch.randn(size, size)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        left @ left
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)


def _environment() -> dict[str, str]:
    """Let threads that wait not spin for long, and find the package without an installation."""
    paths = [str(HERE.parent), str(HERE), os.environ.get("PYTHONPATH", "")]
    spin = os.environ.get("GOMP_SPINCOUNT", "20000")
    return os.environ | {"GOMP_SPINCOUNT": spin, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def _work(task: Mapping[str, Any]) -> dict[str, Any]:
    """Do the work of one process."""
    import torch

    if task["threads"]:
        torch.set_num_threads(task["threads"])
    spec = importlib.util.spec_from_file_location("benchmark", task["file"])
    if spec is None or spec.loader is None:
        raise RuntimeError(f"cannot read {task['file']}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    prepared = getattr(module, task["name"])(**task["arguments"])
    warm, work = prepared if isinstance(prepared, tuple) else (prepared, prepared)
    gc.collect()
    before, source = _start_watching()
    warm()
    seconds, busy, result = [], [], None
    for _ in range(task["repeats"]):
        start, start_busy = time.perf_counter(), _cpu_seconds()
        result = work()
        seconds.append(time.perf_counter() - start)
        busy.append(_cpu_seconds() - start_busy)
    peak = _highest(source) - before
    np.savez(task["arrays"], **(result if isinstance(result, dict) else {}))
    return {
        "seconds": statistics.median(seconds),
        "all_seconds": seconds,
        "cpu_seconds": statistics.median(busy),
        "peak_bytes": peak,
        "peak_source": source,
        "gemm_flops": gemm_rate(),
        "torch_threads": torch.get_num_threads(),
    }


def _start_watching() -> tuple[int, str]:
    """Return resident bytes now and what tells the highest from now on.

    Linux can start its high-water mark afresh; elsewhere the mark of the whole process is taken,
    which misses work that stays below what the preparation needed.
    """
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return _highest("ru_maxrss"), "ru_maxrss"
    return _status("VmRSS"), "VmHWM"


def _cpu_seconds() -> float:
    """Return the processor time of this process and of its children that ended."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def _highest(source: str) -> int:
    if source == "VmHWM":
        return _status("VmHWM")
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value


def parser(description: str) -> argparse.ArgumentParser:
    """Return the command line that all benchmarks share."""
    shared = argparse.ArgumentParser(description=description)
    shared.add_argument("--repeats", type=int, default=3, help="measured calls (median)")
    shared.add_argument("--threads", type=int, default=0, help="torch threads; 0: its default")
    return shared


if __name__ == "__main__":
    print(json.dumps(_work(json.loads(sys.argv[1]))))
