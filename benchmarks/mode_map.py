"""One map of a mode on a block of a ResNet-50 with 28 × 28 places: unit by unit, and at once.

What the authors show for one picture: a class probability, three channels of a block, InputGrad,
only units that contribute positively. Their script does one backward pass per unit, 3 × 28 × 28;
so does the loop here, which is ours, written from the formula (their script has fixed paths and
cannot be imported); with ``--reference`` their ``Inspector`` delivers the activations. Each in a
fresh process. Prints one JSON line.

    python benchmarks/mode_map.py --reference ~/bscope
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from authors import load_scope
from measure import measure, parser, report
from resnet_contributions import Logits, prepare

import retina_codec as rc

HERE = Path(__file__).resolve()
CHANNELS = (5, 100, 300)
CLASS = 7

Arrays = dict[str, np.ndarray]
Work = Callable[[], Arrays]


def scene(size: str) -> tuple[Logits, str, torch.Tensor, list[int]]:
    """Return network, block, one picture and the channels of the mode."""
    network, blocks, pictures = prepare(size, 2)
    layer = next(name for name in blocks if ".stages.1." in name)
    with torch.no_grad():
        width = network.network.config.hidden_sizes[1]
    return network, layer, pictures[:1], [channel % width for channel in CHANNELS]


def one_by_one(size: str, units: int, reference: str | None) -> Work:
    """Prepare the loop over ``units`` units spread over the map (0: all)."""
    network, layer, picture, channels = scene(size)
    module = network.get_submodule(layer)
    seen: dict[str, torch.Tensor] = {}
    inspector: Any = None
    if reference is None:
        module.register_forward_hook(lambda *call: seen.__setitem__("h", call[2]))
    else:
        _, inspector_class = load_scope(reference)
        inspector = inspector_class([module], to_numpy=False)

    def run() -> Arrays:
        x = picture.clone().requires_grad_()
        value = network(x).softmax(1)[:, CLASS].sum()
        h = seen["h"] if inspector is None else inspector.activations[0]
        (slope,) = torch.autograd.grad(value, h, retain_graph=True)
        total = torch.zeros_like(picture)
        places = [
            (channel, row, column)
            for channel in channels
            for row in range(h.shape[2])
            for column in range(h.shape[3])
        ]
        chosen = places if not units else places[:: max(1, len(places) // units)][:units]
        for place in chosen:
            (row_of_jacobian,) = torch.autograd.grad(h[(0, *place)], x, retain_graph=True)
            part = picture * row_of_jacobian * slope[(0, *place)]
            if float(part.sum()) > 0:
                total += part
        return {"map": total.numpy(), "units": np.array([len(chosen), len(places)])}

    return run


def at_once(size: str, double: bool = False) -> Work:
    """Prepare `input_map`."""
    network, layer, picture, channels = scene(size)
    width = network.network.config.hidden_sizes[1]
    weights = np.zeros(width)
    weights[channels] = 1
    picture = picture.to(memory_format=torch.channels_last)

    def run() -> Arrays:
        found = rc.analysis.input_map(
            network,
            picture,
            layer,
            target=rc.targets.Probability(CLASS),
            method=rc.methods.InputGrad(),
            weights=weights,
            positive_only=True,
            dtype=torch.float64 if double else None,
        )
        return {"map": found["map"].values}

    return run


def difference(found: np.ndarray, other: np.ndarray) -> float:
    """Return the largest difference relative to the largest value."""
    return float(np.abs(found - other).max() / np.abs(other).max())


def main() -> None:
    """Run both and print one line."""
    line = parser(__doc__ or "")
    line.add_argument("--reference", help="folder that holds the package bscope/")
    line.add_argument("--size", choices=("resnet50", "small"), default="resnet50")
    line.add_argument("--units", type=int, default=0, help="of the loop, then extrapolated; 0: all")
    given = line.parse_args()
    slow, loop = measure(
        HERE,
        "one_by_one",
        {"size": given.size, "units": given.units, "reference": given.reference},
        repeats=1,
        threads=given.threads,
    )
    fast, whole = measure(
        HERE, "at_once", {"size": given.size}, repeats=given.repeats, threads=given.threads
    )
    done, units = (int(value) for value in loop["units"])
    truth = at_once(given.size, double=True)()["map"]
    seconds = slow["seconds"] * units / done
    result: dict[str, Any] = {
        "benchmark": "mode_map",
        "size": given.size,
        "units": units,
        "threads": fast["torch_threads"],
        "peak_source": fast["peak_source"],
        "one_by_one": {
            "seconds": seconds,
            "units_timed": done,
            "extrapolated": done < units,
            "peak_mb": slow["peak_bytes"] / 1e6,
            "activations_by": "bscope.Inspector" if given.reference else "a hook",
        },
        "at_once": {
            "seconds": min(fast["all_seconds"]),
            "times_faster": seconds / min(fast["all_seconds"]),
            "peak_mb": fast["peak_bytes"] / 1e6,
            "times_less_memory": slow["peak_bytes"] / fast["peak_bytes"],
            "error": difference(whole["map"], truth),
        },
    }
    if done == units:
        result["one_by_one"]["error"] = difference(loop["map"], truth)
        result["at_once"]["largest_difference"] = difference(whole["map"], loop["map"])
    report(result)


if __name__ == "__main__":
    main()
