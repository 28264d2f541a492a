"""Receptive fields of all cells over time: the authors' script, and products in bounded memory.

The script does one forward and one backward pass per cell and time with a batch of one, keeps every
field in compressed HDF5, and splits the fields that it shows by a singular value decomposition. Its
``batch_irf`` is taken from the file (the rest has fixed paths and cannot be imported), and is run
here on the same network and windows; so is a plain decomposition, on every field, for the factors
to be compared. Each in a fresh process. Prints one JSON line; time per cell and time point.

    python benchmarks/receptive_fields.py --reference ~/CODEC_ICLR_2026
"""

import ast
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
import xarray as xr
from measure import measure, parser, report

import retina_codec as rc
from retina_codec.analysis.fields.all_fields import all_fields, whole_frames

HERE = Path(__file__).resolve()
SCRIPT = "figures/figure_8_retina/preprocessing/3_save_irfs.py"

Arrays = dict[str, np.ndarray]
Work = Callable[[], Arrays]


def scene(times: int) -> tuple[Any, torch.Tensor]:
    """Return the network and so many successive windows of smooth noise, (time, lag, y, x)."""
    network = rc.load_network("insilico")
    noise = np.random.default_rng(0).normal(size=(times + network.history, *network.frame_shape))
    for axis in (1, 2):
        noise = sum(np.roll(noise, shift, axis) for shift in range(5))
    frames = torch.as_tensor(noise / noise.std(), dtype=torch.float32)
    return network, frames.unfold(0, network.history, 1).movedim(-1, 1)[:times]


def batch_irf(reference: str) -> Any:
    """Take the authors' function out of their script, which cannot be imported as a whole."""
    path = Path(reference) / SCRIPT
    if not path.is_file():
        raise SystemExit(
            f"--reference must name a clone of CODEC_ICLR_2026 with {SCRIPT}; got {reference}."
        )
    tree = ast.parse(path.read_text(encoding="utf-8"))
    (function,) = (
        node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "batch_irf"
    )
    names: dict[str, Any] = {"torch": torch, "np": np}
    exec(compile(ast.Module([function], []), str(path), "exec"), names)  # the user's own clone
    return names["batch_irf"]


def theirs(times: int, cells: int, reference: str) -> Work:
    """Prepare the loop of the script over the first cells, with its storing, then the factors."""
    network, windows = scene(times)
    irf = batch_irf(reference)

    def run() -> Arrays:
        shape = (times, cells)
        spatial = np.zeros((*shape, *network.frame_shape), np.float32)
        temporal = np.zeros((*shape, network.history), np.float32)
        decomposing = 0.0
        with tempfile.TemporaryDirectory() as folder, h5py.File(f"{folder}/irf.h5", "w") as file:
            for cell in range(cells):
                found = [
                    irf(network, windows[t : t + 1].clone(), cell, "cpu") for t in range(times)
                ]
                fields = np.concatenate([field.cpu().numpy() for field in found])
                file.create_dataset(f"cell_{cell}", data=fields, compression="gzip")
                start = time.perf_counter()
                for t, field in enumerate(fields):
                    matrix = (field - field.mean()).reshape(len(field), -1)
                    left, size, right = np.linalg.svd(matrix, full_matrices=False)
                    temporal[t, cell] = left[:, 0]
                    spatial[t, cell] = (size[0] * right[0]).reshape(network.frame_shape)
                decomposing += time.perf_counter() - start
        return {"spatial": spatial, "temporal": temporal, "decomposing": np.array(decomposing)}

    return run


def ours(times: int, shown: int, shown_cells: int) -> Work:
    """Prepare `all_fields`, all cells, written to a store; returns the first few for comparison."""
    network, windows = scene(times)
    frames = torch.cat((windows[0], windows[1:, -1]))
    stimulus = np.concatenate((frames.numpy(), frames[-1:].numpy()))  # the last bin is answered too
    scale = network.normalisation
    movie = xr.Dataset(
        {"stimulus": (("time", "y", "x"), (stimulus * scale.std + scale.mean).astype("f4"))},
        coords={"time": np.arange(len(stimulus)) / network.frame_rate},
    )

    def run() -> Arrays:
        with tempfile.TemporaryDirectory() as folder:
            found = all_fields(network, movie, store=f"{folder}/fields.zarr", progress=False)
            some = found.isel(time=slice(shown), cell=slice(shown_cells)).load()
            return {
                "spatial": whole_frames(some).values[:, :, 0],
                "temporal": some["temporal"].values[:, :, 0],
            }

    return run


def difference(found: Arrays, other: Arrays) -> dict[str, float]:
    """Largest difference of products, relative to the largest value of each; signs as they fit."""
    sign = np.sign((found["temporal"] * other["temporal"]).sum(-1))
    image = found["spatial"] * sign[..., None, None] - other["spatial"]
    largest = np.abs(other["spatial"]).max((-2, -1))
    course = found["temporal"] * sign[..., None] - other["temporal"]
    by_field = np.abs(image).max((-2, -1)) / largest
    return {
        "image_median": float(np.median(by_field)),
        "image_largest": float(by_field.max()),
        "time_course_largest": float(np.abs(course).max()),
    }


def main() -> None:
    """Run both and print one line."""
    line = parser(__doc__ or "")
    line.add_argument("--reference", required=True, help="clone of CODEC_ICLR_2026")
    line.add_argument("--times", type=int, default=512, help="of ours")
    line.add_argument("--their-times", type=int, default=24)
    line.add_argument("--their-cells", type=int, default=3)
    given = line.parse_args()
    few, cells = given.their_times, given.their_cells
    arguments = {"times": few, "cells": cells, "reference": given.reference}
    slow, loop = measure(HERE, "theirs", arguments, repeats=given.repeats, threads=given.threads)
    arguments = {"times": given.times, "shown": few, "shown_cells": cells}
    fast, whole = measure(HERE, "ours", arguments, repeats=given.repeats, threads=given.threads)
    everyone = len(rc.load_network("insilico").cells)
    each = slow["seconds"] / (few * cells)
    bare = each - float(loop["decomposing"]) / (few * cells)
    our_each = fast["seconds"] / (given.times * everyone)
    report(
        {
            "benchmark": "receptive_fields",
            "threads": fast["torch_threads"],
            "peak_source": fast["peak_source"],
            "theirs": {
                "times": few,
                "cells": cells,
                "ms_per_cell_and_time": 1e3 * each,
                "ms_without_decomposition": 1e3 * bare,
                "peak_mb": slow["peak_bytes"] / 1e6,
            },
            "ours": {
                "times": given.times,
                "cells": everyone,
                "ms_per_cell_and_time": 1e3 * our_each,
                "peak_mb": fast["peak_bytes"] / 1e6,
            },
            "times_faster": each / our_each,
            "times_faster_without_their_decomposition": bare / our_each,
            "difference": difference(whole, loop),
        }
    )


if __name__ == "__main__":
    main()
