"""Contributions of the retina network: the authors' code against this package.

Both explain the same windows of a natural movie in three layers to the same surprisal, reduced to
channel and sign; each in a fresh process. Prints one JSON line.

    python benchmarks/retina_contributions.py --reference ~/bscope
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from authors import load_scope
from measure import measure, parser, report

import retina_codec as rc

HERE = Path(__file__).resolve()
LAYERS = ("conv1", "conv2", "conv3")
PUBLISHED = [(3, 0), (6, 2), (4, 0), (9, 0), (13, 2)]  # cells of the published 15-10-07
AUTHORS_STEPS, AUTHORS_BATCH = 20, 16

Arrays = dict[str, np.ndarray]
Work = Callable[[], Arrays]


def prepare(network: str, windows: int) -> tuple[rc.networks.RetinaCNN, Any, rc.targets.Surprisal]:
    """Return network, a split of a simulated recording and a fitted target, always the same."""
    duration = max(8.0, windows / 100 + 1)
    recording, _ = rc.simulate_retina(
        train_duration=0, test_duration=duration, repeats=1, progress=False
    )
    split = recording["test"].to_dataset()
    model = random_published(split) if network == "published" else rc.load_network(network)
    model = model.collapse().eval()
    target = rc.targets.Surprisal().fit(_rates(model, split))
    start = max(0, split.sizes["time"] // 2 - windows // 2 - model.history)
    return model, split.isel(time=slice(start, start + windows + model.history)), target


def random_published(split: Any) -> rc.networks.RetinaCNN:
    """Return a network of published geometry with random weights, its norms set by the movie."""
    torch.manual_seed(0)
    raw = split["stimulus"].values
    normal = rc.networks.Normalisation(float(raw.mean()), float(raw.std()))
    network = rc.networks.RetinaCNN(
        range(len(PUBLISHED)), PUBLISHED, stacked=True, normalisation=normal
    )
    norms = (network.norm1, network.norm2, network.norm3)
    with torch.no_grad():
        network.norm3.scale.fill_(5.0)  # rates of a few Hz with pauses
        for norm in norms:
            norm.momentum = 1.0
        network.train()(_windows(network, split)[::3].contiguous())
    return network.eval()


def theirs(reference: str, network: str, windows: int) -> tuple[Work, Work]:
    """Prepare the authors' way: batches of 16, 20 steps, their reductions."""
    scope_class, _ = load_scope(reference)
    model, split, target = prepare(network, windows)
    inputs = _windows(model, split)
    model.requires_grad_(True)
    scope = scope_class(model, [getattr(model, name) for name in LAYERS])
    scope.use_int_grad(steps=AUTHORS_STEPS)
    scope.wrt_surprisal(softmax=False)
    inverse = np.linalg.inv(np.asarray(target.covariance, np.float64))
    scope.set_surprisal_stats(np.asarray(target.mean, np.float64), inverse)

    def run(count: int) -> Arrays:
        scope.log_start(reduction=["ei_split", "spatial_sum"])
        for start in range(0, count, AUTHORS_BATCH):
            scope(inputs[start : min(start + AUTHORS_BATCH, count)].contiguous())
        scope.log_stop()
        found = zip(LAYERS, scope.log_contributions, strict=True)
        return {name: both.reshape(len(both), 2, -1) for name, both in found}

    return lambda: run(AUTHORS_BATCH), lambda: run(windows)


def ours(
    network: str,
    windows: int,
    steps: int,
    quadrature: str,
    fitted: bool = True,
    double: bool = False,
    batch_size: int = 64,
) -> Work:
    """Prepare `contribute`; with the surprisal fitted beforehand, as the authors' is, or not."""
    model, split, target = prepare(network, windows)
    placement = "uniform" if quadrature == "trapezoid" else "adaptive"  # the published rule
    method = rc.methods.IntegratedGradients(steps, quadrature=quadrature, placement=placement)  # type: ignore[arg-type]

    def run() -> Arrays:
        found = rc.contribute(
            model,
            split,
            target=target if fitted else rc.targets.Surprisal(shrinkage="ledoit-wolf"),
            method=method,
            layers=LAYERS,
            batch_size=batch_size,
            dtype=torch.float64 if double else None,
            progress=False,
        )
        return {name: found[f"layers/{name}/contribution"].values for name in LAYERS}

    return run


def captum(network: str, windows: int, batch_size: int = 16) -> Work:
    """Prepare captum's layer conductance; one layer at a time, same steps."""
    from captum.attr import LayerConductance

    model, split, target = prepare(network, windows)
    inputs = _windows(model, split)
    model.requires_grad_(False)

    def value(stimulus: torch.Tensor) -> torch.Tensor:
        return target(model(stimulus))

    def run() -> Arrays:
        found: Arrays = {}
        for name in LAYERS:
            conductance = LayerConductance(value, getattr(model, name))
            parts = []
            for start in range(0, windows, batch_size):
                batch = inputs[start : start + batch_size].contiguous()
                units = conductance.attribute(
                    batch, n_steps=AUTHORS_STEPS, method="riemann_trapezoid"
                )
                units = units.detach().flatten(2)
                parts.append(torch.stack((units.clamp(max=0).sum(2), units.clamp(min=0).sum(2)), 1))
            found[name] = torch.cat(parts).numpy()
        return found

    return run


def operations(network: str, windows: int, steps: int) -> dict[str, float]:
    """Count what one window needs, floating point operations (two per multiply-add).

    ``in_space``: the first layer once, the second forward at ``steps`` points and backward as
    often, for units in sight of cells, all as sums over kernels in space. ``as_done``: the same
    through the matrices and transforms that are in fact applied.
    """
    model, _, _ = prepare(network, windows)
    first, second, third = model.kernel_sizes
    one, two = model.channels
    places = model.readout.locations
    rows, columns = (places.amax(0) - places.amin(0) + third).tolist()  # of the second layer
    height, width = (n - first + 1 for n in model.frame_shape)
    once = model.history * first**2 * one * height * width
    each = one * two * second**2 * rows * columns
    y, x = rows + second - 1, columns + second - 1
    half = y // 2 + 1
    each_done = (
        2 * half * (y * x * one + rows * columns * two)
        + half * 2 * x * (2 * x * one + 2 * columns * two)
        + half * x * 4 * one * two
    )
    frequencies = model.frame_shape[0] * (model.frame_shape[1] // 2 + 1)
    once_done = 4 * frequencies * (model.history + 3) * one
    return {
        "in_space": 2.0 * (once + 2 * steps * each),
        "as_done": 2.0 * (once_done + 2 * steps * each_done),
    }


def error(found: Arrays, truth: Arrays) -> dict[str, float]:
    """Return, per layer, ``√Σ(found − truth)² / √Σ truth²`` over windows, signs and channels."""
    return {
        name: float(np.linalg.norm(found[name] - truth[name]) / np.linalg.norm(truth[name]))
        for name in LAYERS
    }


def main() -> None:
    """Run all and print one line."""
    line = parser(__doc__ or "")
    line.add_argument("--reference", required=True, help="folder that holds the package bscope/")
    line.add_argument("--windows", type=int, default=128)
    line.add_argument("--network", default="insilico")
    line.add_argument("--steps", type=int, default=8, help="of the quadrature by chords")
    line.add_argument("--truth-steps", type=int, default=1000)
    line.add_argument("--rounds", type=int, default=1, help="of all measurements, in turn")
    line.add_argument("--captum", action="store_true")
    given = line.parse_args()
    common = {"network": given.network, "windows": given.windows}
    tasks: dict[str, tuple[str, dict[str, Any], int]] = {
        "authors": ("theirs", {"reference": given.reference}, 1),
        "trapezoid": ("ours", {"steps": 20, "quadrature": "trapezoid"}, given.repeats),
        "chords": ("ours", {"steps": given.steps, "quadrature": "chords"}, given.repeats),
        "chords_with_statistics": (
            "ours",
            {"steps": given.steps, "quadrature": "chords", "fitted": False},
            given.repeats,
        ),
    }
    if given.captum:
        tasks["captum"] = ("captum", {}, 1)
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in tasks}
    arrays: dict[str, Arrays] = {}
    for _ in range(given.rounds):
        for name, (function, more, repeats) in tasks.items():
            row, arrays[name] = measure(
                HERE, function, common | more, repeats=repeats, threads=given.threads
            )
            rows[name].append(row)
    exact = {"steps": given.truth_steps, "quadrature": "trapezoid", "double": True}
    truth = ours(**common, **exact)()  # type: ignore[arg-type]
    result: dict[str, Any] = {
        "benchmark": "retina_contributions",
        "network": Path(given.network).name,
        "windows": given.windows,
        "threads": rows["authors"][0]["torch_threads"],
        "truth_steps": given.truth_steps,
        "peak_source": rows["authors"][0]["peak_source"],
    }
    best = {name: min(row["seconds"] for row in found) for name, found in rows.items()}
    for name, found in rows.items():
        steps = tasks[name][1].get("steps", AUTHORS_STEPS)
        cost = operations(given.network, given.windows, steps)
        rate = max(row["gemm_flops"] for row in found)
        seconds = best[name] / given.windows
        result[name] = {
            "steps": steps,
            "ms_per_window": 1e3 * seconds,
            "all_ms_per_window": [
                1e3 * s / given.windows for row in found for s in row["all_seconds"]
            ],
            "times_faster": best["authors"] / best[name],
            "peak_mb": max(row["peak_bytes"] for row in found) / 1e6,
            "gemm_gflops": rate / 1e9,
            "share_of_floor_in_space": cost["in_space"] / rate / seconds,
            "share_of_floor_as_done": cost["as_done"] / rate / seconds,
        }
        if name != "chords_with_statistics":  # another target
            result[name]["error"] = error(arrays[name], truth)
    difference = {
        name: float(
            np.abs(arrays["trapezoid"][name] - arrays["authors"][name]).max()
            / np.abs(arrays["authors"][name]).max()
        )
        for name in LAYERS
    }
    result["trapezoid"]["largest_difference_from_authors"] = difference
    report(result)


def _windows(model: rc.networks.RetinaCNN, split: Any) -> torch.Tensor:
    """Return all windows, ``(b, lag, y, x)``, a view; the first ends before bin ``history``."""
    frames = torch.from_numpy(split["stimulus"].values[:-1].astype(np.float32))
    frames = (frames - model.normalisation.mean) / model.normalisation.std
    return frames.unfold(0, model.history, 1).movedim(-1, 1)


def _rates(model: rc.networks.RetinaCNN, split: Any) -> np.ndarray:
    with torch.no_grad():
        parts = [model(part.contiguous()) for part in _windows(model, split).split(64)]
    rates: np.ndarray = torch.cat(parts).double().numpy()
    return rates


if __name__ == "__main__":
    main()
