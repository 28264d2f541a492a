"""What the integral along a path costs: error against evaluations and seconds, by placement.

    python benchmarks/path_price.py --figure path_price.png > lines.jsonl
    python benchmarks/path_price.py --networks efficientnet --photographs FOLDER --cache FOLDER
    python benchmarks/path_price.py --networks resnet56 --resnet56 CLONE --cifar FOLDER
    python benchmarks/path_price.py --price
    python benchmarks/path_price.py --draw lines.jsonl --figure path_price.png

Channel sums by sign of all blocks, from the baseline to images that no method was developed or
calibrated on. Error of an image and layer: √Σ(found − truth)² / √Σ truth² over signs and channels;
truth: many even steps. One evaluation is a pass forward and one back; a pass forward alone, or a
derivative carried forward, counts as a third.

``seconds`` are those of the whole call of `rc.contribute`, which looks at one input again with more
steps where completeness fails: with few inputs that is most of it, so compare times by
``--price``. Prints one JSON line per network; tables go to standard error.
"""

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from matplotlib.figure import Figure
from measure import measure, parser, report
from path_networks import Case, digits, open_case, resnet_shape
from rivals import ByChange, EvenSteps, Roughness, SamePoints, optimised_points

import retina_codec as rc
from retina_codec.figures import style
from retina_codec.methods.base import Method
from retina_codec.networks.adapter import Adapter
from retina_codec.paper.timing import time_rounds
from retina_codec.reductions import sum_by_sign

HERE = Path(__file__).resolve()
EVALUATIONS = (6, 11, 21, 41, 81, 161)
CURVES = 0.64  # share of a panel's width; the rest is for the names
INTERVALS = 4  # of the first pass by change of the output

Arrays = dict[str, np.ndarray]
LOOKS = {
    "uniform": ("#1f2733", "-", "uniform steps"),
    "adaptive": ("#D55E00", "-", "adaptive"),
    "chords": ("#8a7500", "--", "chords, uniform"),
    "adaptive chords": ("#E69F00", "-", "chords, adaptive"),
    "gauss-legendre": ("#66707d", "--", "Gauss–Legendre"),
    "by change": ("#0072B2", "-", "by change"),
    "by root of change": ("#56B4E9", "-", "by √change"),
    "RiemannOpt": ("#009E73", "-", "RiemannOpt"),
    "captum": ("#CC79A7", ":", "captum, 1 layer"),
}


# Errors and prices.


def methods(case: Case, evaluations: int, roughness: np.ndarray) -> dict[str, Method]:
    """Return the methods that take about so many evaluations per input."""
    steps = evaluations - 1
    found: dict[str, Method] = {
        name: rc.methods.IntegratedGradients(steps, baseline=case.baseline, placement=name)
        for name in ("uniform", "adaptive")
    }
    for name, placement in (("chords", "uniform"), ("adaptive chords", "adaptive")):
        if case.chords:
            found[name] = rc.methods.IntegratedGradients(
                steps, baseline=case.baseline, quadrature="chords", placement=placement
            )
    nodes = max(1, round((evaluations - 2) * 3 / 4))  # each with a derivative carried forward
    found["gauss-legendre"] = rc.methods.IntegratedGradients(
        nodes, baseline=case.baseline, quadrature="gauss-legendre"
    )
    intervals = INTERVALS if evaluations > 2 * INTERVALS else 2
    left = steps - -(-(intervals + 1) // 3)  # after the first pass
    for name, weight in (("by change", "change"), ("by root of change", "root")):
        found[name] = ByChange(left, intervals, weight, case.classes, case.baseline)
    found["RiemannOpt"] = SamePoints(optimised_points(roughness, steps), case.baseline)
    return found


def evaluations_of(method: Method, layers: int) -> float:
    """Return the passes of a method; forward alone counts as a third."""
    passes = method.passes(layers)
    if passes is None:
        raise ValueError(f"{method} must say how many passes it takes.")
    return passes[0] / 3 + passes[1] * 2 / 3


def channel_sums(case: Case, method: Method, parts: Iterable[Any]) -> Arrays:
    """Return contributions by layer, (input, sign, channel)."""
    kept: dict[str, list[np.ndarray]] = {}
    for part in parts:
        found = rc.contribute(
            case.network, part, target=case.target, method=method, layers=case.layers,
            progress=False,
        )  # fmt: skip
        for name, node in found["layers"].children.items():
            kept.setdefault(name, []).append(node["contribution"].values)
    return {name: np.concatenate(values) for name, values in kept.items()}


def true_sums(case: Case, folder: Path | None) -> dict[int, Arrays]:
    """Return the sums of many even steps, and of `Case.fewer`, by number of steps.

    Batch by batch; a batch that is in the folder is read from there. The entry 0 is
    ``{"seconds": ...}``, processor seconds of every batch.
    """
    kept: list[dict[str, np.ndarray]] = []
    for part in case.parts:
        key = hashlib.sha256(f"{case.name} {case.truth_steps} {case.fewer}".encode() + _bytes(part))
        file = None if folder is None else folder / f"{case.name}-{key.hexdigest()[:16]}.npz"
        if file is not None and file.exists():
            with np.load(file) as arrays:
                kept.append({name: arrays[name] for name in arrays.files})
            continue
        kept.append(_true_part(case, part))
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            np.savez(file, **kept[-1])
    found: dict[int, Arrays] = {}
    for name in kept[0]:
        count, layer = name.split(" ", 1)
        found.setdefault(int(count), {})[layer] = np.concatenate([one[name] for one in kept])
    return found


def _true_part(case: Case, part: Any) -> dict[str, np.ndarray]:
    """Return arrays by "steps layer" of one batch."""
    method = EvenSteps(case.truth_steps, case.fewer, case.baseline)
    start = time.process_time()
    tree = rc.contribute(
        case.network, part, target=case.target, method=method, layers=case.layers,
        dtype=torch.float64 if case.double else None, progress=False,
    )  # fmt: skip
    seconds = time.process_time() - start
    nodes = tree["layers"].children
    found = {f"{case.truth_steps} {n}": node["contribution"].values for n, node in nodes.items()}
    for count, layers in method.found.items():
        for name, units in layers.items():
            axis = int(nodes[name].attrs["channel_axis"])
            found[f"{count} {name}"] = sum_by_sign(units.movedim(axis, 1)).numpy()
    return found | {"0 seconds": np.array([seconds])}


def _bytes(part: Any) -> bytes:
    if isinstance(part, xr.Dataset):
        return part["stimulus"].values.tobytes()
    tensors = part.values() if isinstance(part, dict) else [part]
    return b"".join(tensor.numpy().tobytes() for tensor in tensors)


def errors(found: Arrays, truth: Arrays, layers: Sequence[str] | None = None) -> np.ndarray:
    """Return ``√Σ(found − truth)² / √Σ truth²`` over signs and channels, (input, layer)."""

    def norm(values: np.ndarray) -> np.ndarray:
        return np.sqrt((values.astype(np.float64) ** 2).sum((1, 2)))

    names = layers or list(truth)
    return np.stack([norm(found[name] - truth[name]) / norm(truth[name]) for name in names], 1)


def row(found: Arrays, truth: Arrays, evaluations: float, seconds: float) -> dict[str, Any]:
    """Return one point of a curve."""
    wrong = errors(found, truth)
    middle = list(truth)[len(truth) // 2]
    return {
        "evaluations": evaluations,
        "median": float(np.median(wrong)),
        "p90": float(np.quantile(wrong, 0.9)),
        "p90_middle_layer": float(np.quantile(errors(found, truth, [middle]), 0.9)),
        "seconds": seconds,
    }


def timed(work: Callable[[], Arrays], count: int) -> tuple[Arrays, float]:
    """Return what work gives, and its processor seconds per input."""
    start = time.process_time()
    found = work()
    return found, (time.process_time() - start) / count


def conductance(case: Case, layer: str, axis: int, steps: int, method: str) -> Arrays:
    """Return the sums of captum's `LayerConductance` of one layer."""
    from captum.attr import LayerConductance

    adapter = case.network
    if not isinstance(adapter, Adapter):
        raise TypeError(f"captum needs an adapter; got {type(adapter).__name__}.")
    module = adapter.module.eval().requires_grad_(False)
    kept = []
    for part in case.parts:
        with torch.no_grad():
            chosen = adapter.call(part).argmax(1)

        def winning(inputs: torch.Tensor) -> torch.Tensor:
            return adapter.call(inputs)

        units = LayerConductance(winning, module.get_submodule(layer)).attribute(
            part, baselines=case.baseline, target=chosen, n_steps=steps, method=method,
            internal_batch_size=len(part),
        )  # fmt: skip
        units = units.detach().movedim(axis, 1).flatten(2)
        kept.append(torch.stack((units.clamp(max=0).sum(2), units.clamp(min=0).sum(2)), 1))
    return {layer: torch.cat(kept).numpy()}


def run_captum(case: Case, truth: Arrays, evaluations: Sequence[int]) -> dict[str, Any]:
    """Measure captum in the layer in the middle, by both of its methods."""
    layer = list(truth)[len(truth) // 2]
    some = case.parts[0][:1]
    tree = rc.contribute(
        case.network, some, target=case.target, method=rc.methods.ActGrad(), progress=False
    )
    axis = int(tree[f"layers/{layer}"].attrs["channel_axis"])
    count = len(truth[layer])
    only = {layer: truth[layer]}
    curves: dict[str, Any] = {"layer": layer}
    for method in ("gausslegendre", "riemann_trapezoid"):
        curves[method] = []
        for number in evaluations:
            work = lambda n=number, m=method: conductance(case, layer, axis, n - 1, m)  # noqa: E731
            found, seconds = timed(work, count)
            curves[method].append(row(found, only, number, seconds))
    return curves


def measure_case(case: Case, evaluations: Sequence[int], cache: Path | None) -> dict[str, Any]:
    """Measure every method on one network."""
    start = time.perf_counter()
    even = true_sums(case, cache)
    truth = even[case.truth_steps]
    count, layers = len(next(iter(truth.values()))), len(truth)
    rough = Roughness(baseline=case.baseline)
    channel_sums(case, rough, case.calibration)  # also the warm-up
    each = float(even[0]["seconds"].sum()) / count / (case.truth_steps + 1)  # s per evaluation
    curves: dict[str, list[dict[str, Any]]] = {}
    if case.fewer:
        curves["uniform"] = [row(even[n], truth, n + 1, each * (n + 1)) for n in case.fewer]
    for number in (*evaluations, *(n for n in case.extra if n > max(evaluations) > 100)):
        for name, method in methods(case, number, np.concatenate(rough.found)).items():
            if (name == "uniform" and case.fewer) or (name != "uniform" and number in case.extra):
                continue
            work = lambda m=method: channel_sums(case, m, case.parts)  # noqa: E731
            found, seconds = timed(work, count)
            cost = evaluations_of(method, layers)
            curves.setdefault(name, []).append(row(found, truth, cost, seconds))
            print(case.name, name, curves[name][-1], file=sys.stderr, flush=True)
    result: dict[str, Any] = {
        "benchmark": "path_price",
        "network": case.name,
        "title": case.title,
        "inputs": count,
        "layers": layers,
        "truth_steps": case.truth_steps,
        "seen": case.seen,
        "calibration_evaluations": sum(len(one) for one in rough.found) * (rough.grid + 1),
        "threads": torch.get_num_threads(),
        "seconds_per_evaluation": each,
        "curves": curves,
        "uniform_evaluations_over_ours": over_uniform(curves),
    }
    if case.captum:
        result["captum"] = run_captum(case, truth, evaluations)
    return result | {"wall_s": time.perf_counter() - start}


def over_uniform(curves: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, str]]:
    """Return evaluations that even steps need for the same 90th percentile, over the method's."""
    return {
        name: {
            f"{place['evaluations']:.3g}": "".join((sign, f"{number / place['evaluations']:.2g}"))
            for place in curve
            if place["evaluations"] < 25
            for sign, number in [needed(curves["uniform"], place["p90"])]
        }
        for name, curve in curves.items()
        if name != "uniform"
    }


def needed(uniform: Sequence[dict[str, Any]], error: float) -> tuple[str, float]:
    """Return the evaluations at which a curve comes down to an error, log-log between its points.

    ">" or "<" before the number where the curve ends above the error or begins below it.
    """
    number = [place["evaluations"] for place in uniform]
    height = np.minimum.accumulate([place["p90"] for place in uniform])
    if error > height[0]:
        return "<", number[0]
    if error < height[-1]:
        return ">", number[-1]
    after = int(np.argmax(height <= error))
    if after == 0:
        return "", number[0]
    ends = slice(after - 1, after + 1)
    logs = np.log(height[ends])[::-1], np.log(number[ends])[::-1]
    return "", float(np.exp(np.interp(np.log(error), *logs)))


# Time and memory at equal evaluations.


def explained(network: str, batch: int, steps: int, placement: str) -> Callable[[], None]:
    """Prepare one call of `rc.contribute`."""
    if network == "resnet18":
        case = resnet_shape(batch, pixels=112, basic=True)
        inputs = torch.cat(case.parts)
    else:
        case = digits(network, network, batch)
        inputs = case.parts[0]
    method = rc.methods.IntegratedGradients(steps, baseline=case.baseline, placement=placement)

    def run() -> None:
        rc.contribute(
            case.network, inputs, target=case.target, method=method, batch_size=batch,
            progress=False,
        )  # fmt: skip

    return run


def price(given: argparse.Namespace) -> dict[str, Any]:
    """Return time of adaptive over uniform points in interleaved rounds, and peak memory."""
    rows: dict[str, Any] = {}
    kinds = ("uniform", "adaptive")
    for network, batch in (("digits_cnn", 64), ("digits_vit", 64), ("resnet18", 8)):
        works = [explained(network, batch, 20, kind) for kind in kinds]
        times = time_rounds(works, given.repeats, progress=False)
        both = times["processor"].values
        ratios = both[1] / both[0]
        rows[network] = {
            "batch": batch,
            "seconds": dict(zip(kinds, np.median(both, 1).tolist(), strict=True)),
            "adaptive_over_uniform": float(np.median(ratios)),
            "all_rounds": ratios.tolist(),
            "peak_mb": {
                kind: {steps: peak_mb(network, batch, steps, kind) for steps in given.steps}
                for kind in kinds
            },
        }
        print(network, rows[network], file=sys.stderr, flush=True)
    return {"benchmark": "path_price", "price": rows, "rounds": given.repeats}


def peak_mb(network: str, batch: int, steps: int, placement: str) -> float:
    """Return the highest resident memory of a call above the level before it, a fresh process."""
    settings = {"network": network, "batch": batch, "steps": steps, "placement": placement}
    found, _ = measure(HERE, "explained_once", settings, repeats=1, threads=1)
    return float(found["peak_bytes"]) / 1e6


def explained_once(
    network: str, batch: int, steps: int, placement: str
) -> tuple[Callable[[], None], Callable[[], None]]:
    """Prepare one call without a warm-up, which would be a second one."""
    return (lambda: None), explained(network, batch, steps, placement)


# Tables and figure.


def tables(lines: Sequence[dict[str, Any]]) -> str:
    """Return errors at 11 and 21 evaluations and what uniform steps need, as markdown."""
    names = [name for name in LOOKS if any(name in line["curves"] for line in lines)]
    head = "| network | " + " | ".join(LOOKS[name][2] for name in names) + " |\n"
    rule = "|---" * (len(names) + 1) + "|\n"
    text = "Error, 90th percentile (median), at about 11 and 21 evaluations:\n\n" + head + rule
    for line in lines:
        cells = []
        for name in names:
            near = [_nearest(line["curves"].get(name, []), number) for number in (11, 21)]
            cells.append(", ".join(f"{_say(p['p90'])} ({_say(p['median'])})" for p in near if p))
        text += f"| {line['title']} | " + " | ".join(cells) + " |\n"
    names = names[1:]
    head = "| network | " + " | ".join(LOOKS[name][2] for name in names) + " |\n"
    text += "\nEvaluations that uniform steps need for the same 90th percentile, over the method's:"
    text += "\n\n" + head + "|---" * (len(names) + 1) + "|\n"
    for line in lines:
        ratios = [_ratios(line["curves"], name) for name in names]
        text += f"| {line['title']} | " + " | ".join(ratios) + " |\n"
    return text


def _nearest(curve: Sequence[dict[str, Any]], number: int) -> dict[str, Any] | None:
    """Return the point of a curve at about so many evaluations."""
    near = [place for place in curve if abs(place["evaluations"] - number) < 0.15 * number]
    return min(near, key=lambda p: abs(p["evaluations"] - number)) if near else None


def _ratios(curves: dict[str, Any], name: str) -> str:
    near = [_nearest(curves.get(name, []), number) for number in (11, 21)]
    found = [(place, needed(curves["uniform"], place["p90"])) for place in near if place]
    return ", ".join(f"{sign} {n / p['evaluations']:.2g}".strip() for p, (sign, n) in found)


def _say(value: float) -> str:
    return f"{value:.2g}".replace("0.", ".", 1) if value < 1 else f"{value:.2g}"


@style.styled
def draw(lines: Sequence[dict[str, Any]]) -> Figure:
    """Draw the 90th percentile against evaluations, one panel per network."""
    columns = {1: 1, 2: 2, 4: 2}.get(len(lines), 3)
    rows = -(-len(lines) // columns)
    figure = style.new_figure(0.75 + 2.35 * rows)
    cells = style.grid(
        figure, [1] * rows, [1] * columns,
        left=0.55, right=0.1, top=0.35, bottom=0.5, gap_y=0.5, gap_x=0.45,
    )  # fmt: skip
    for place, line in enumerate(lines):
        axes = figure.add_subplot(cells[place // columns, place % columns])
        _panel(axes, line)
        if place % columns == 0:
            axes.set_ylabel("error, 90th percentile")
        if place + columns >= len(lines):
            axes.set_xlabel("evaluations per input")
    return figure


def _panel(axes: Any, line: dict[str, Any]) -> None:
    """Draw the curves of one network and name each at its end."""
    curves = dict(line["curves"])
    if "captum" in line:
        curves["captum"] = line["captum"]["riemann_trapezoid"]
    ends = {}
    for name in (n for n in LOOKS if n in curves):
        color, dash, label = LOOKS[name]
        x, y = ([place[key] for place in curves[name]] for key in ("evaluations", "p90"))
        wide = 2.0 if name in ("adaptive", "uniform") else 1.2
        axes.plot(x, y, color=color, ls=dash, lw=wide, marker="o", ms=2.5, zorder=wide)
        ends[name] = (x[-1], y[-1], color, label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    last = max(x for x, *_ in ends.values())
    axes.set_xlim(5, 5 * (last / 5) ** (1 / CURVES))
    shown = [n for n in (*EVALUATIONS, 321) if n <= last]
    shown = shown[:: 1 if len(shown) < 5 else 2]
    axes.set_xticks(shown, shown)
    axes.minorticks_off()
    axes.set_title(line["title"], loc="left", weight="bold")
    _name_ends(axes, ends)


def _name_ends(axes: Any, ends: dict[str, tuple[float, float, str, str]]) -> None:
    """Write names right of all curves, spread so that none covers another, joined to the ends."""
    low, high = np.log(axes.get_ylim())
    begin, last = np.log(axes.get_xlim())
    order = sorted(ends.values(), key=lambda end: end[1])
    wanted = np.array([(np.log(y) - low) / (high - low) for _, y, *_ in order])
    places, gap = wanted.copy(), 0.085
    for _ in range(200):
        for k in range(len(places) - 1):
            short = max(0.0, gap - (places[k + 1] - places[k]))
            places[k] -= short / 2
            places[k + 1] += short / 2
        places = np.clip(places, 0.03, 0.97)
    for (x, _, color, label), from_, to in zip(order, wanted, places, strict=True):
        across = [(np.log(x) - begin) / (last - begin), CURVES + 0.05]
        axes.plot(
            across, [from_, to], transform=axes.transAxes, color=color, lw=0.5, ls=":", zorder=0
        )
        axes.text(
            CURVES + 0.07, to, label, transform=axes.transAxes, color=color, size=6.5, va="center"
        )


def main() -> None:
    """Run what was asked for."""
    line = parser(__doc__ or "")
    names = ("digits_cnn", "digits_vit", "retina", "resnet50", "vit_b", "gpt2")
    line.add_argument("--networks", nargs="+", choices=(*names, "efficientnet", "resnet56"))
    line.add_argument("--images", type=int, help="inputs of every network")
    line.add_argument("--evaluations", type=int, nargs="+", default=EVALUATIONS)
    line.add_argument("--efficientnet", action="store_true", help="also EfficientNet-Lite0")
    line.add_argument("--photographs", type=Path, help="folder of JPEGs for EfficientNet-Lite0")
    line.add_argument("--resnet56", type=Path, help="clone of akamaster/pytorch_resnet_cifar10")
    line.add_argument("--cifar", type=Path, help="folder with test/CLASS and train/CLASS")
    line.add_argument("--cache", type=Path, help="folder that keeps the truths")
    line.add_argument("--price", action="store_true", help="time and memory alone")
    line.add_argument("--steps", type=int, nargs="+", default=[10, 40, 160], help="of the memory")
    line.add_argument("--draw", type=Path, help="lines of earlier runs; nothing is measured")
    line.add_argument("--figure", type=Path)
    line.set_defaults(repeats=5, threads=1)
    given = line.parse_args()
    torch.set_num_threads(given.threads)
    if given.price:
        report(price(given))
        return
    if given.draw:
        lines = [json.loads(one) for one in given.draw.read_text().splitlines() if one]
        lines = [one for one in lines if "curves" in one]
    else:
        lines = []
        chosen = given.networks or [*names, *(["efficientnet"] if given.efficientnet else [])]
        if given.resnet56 and "resnet56" not in chosen:
            chosen.append("resnet56")
        for name in chosen:
            case = open_case(name, given.images, given.photographs, given.resnet56, given.cifar)
            lines.append(measure_case(case, given.evaluations, given.cache))
            report(lines[-1])
    print(tables(lines), file=sys.stderr)
    if given.figure:
        draw(lines).savefig(given.figure, dpi=150)


if __name__ == "__main__":
    main()
