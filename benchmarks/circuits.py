"""Cut every edge of circuits of the shipped retina and digit networks, and compare with shares.

python benchmarks/circuits.py --windows 96 --scenes 32 --out circuits.csv
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr

import retina_codec as rc
from retina_codec.analysis.circuits.checks import compare_edges
from retina_codec.networks.retina.prediction import open_windows
from retina_codec.recordings.simulated.retina import simulate_retina
from retina_codec.statistics.resampling import percentiles

MOVIE = 2  # the demo shows movie 1; networks were fitted to others


def interval(share: Any, change: Any, score: str, draws: int) -> tuple[float, float]:
    """95 % percentile interval of a score over inputs drawn with replacement."""
    random = np.random.default_rng(0)
    rows = random.integers(len(share), size=(draws, len(share)))
    found = [compare_edges(share[one], change[one], permutations=0)[score] for one in rows]
    low, high = percentiles(np.array(found)[:, None], skip_missing=True)[0]
    return float(low), float(high)


def rows_of(found: xr.DataTree, checked: xr.DataTree, draws: int) -> Iterator[dict[str, Any]]:
    """Yield one row for every set of nodes and edges."""
    for kind in ("nodes", "edges"):
        for layer, node in checked[kind].children.items():
            table = node.to_dataset()
            share = found[f"{kind}/{layer}"].to_dataset()["contribution"].values
            change = table["change"].values
            share, change = (v.reshape(len(v), -1) for v in (share, change))
            row: dict[str, Any] = {"part": kind, "layer": layer}
            row |= {name: float(table[name]) for name in table.data_vars if name != "change"}
            for score in ("r2", "sign"):
                low, high = interval(share, change, score, draws)
                row |= {f"{score}_low": low, f"{score}_high": high}
            yield row


def retina_cases(windows: int, duration: float) -> Iterator[tuple[str, Any, Any, dict[str, Any]]]:
    """Yield the shipped retina, windows of a movie of its own, and three targets."""
    network = rc.load_network("insilico")
    recording, _ = simulate_retina(
        seed=0, stimulus_seed=MOVIE, train_duration=1.0, test_duration=duration, progress=False
    )
    _, whole = open_windows(network, recording["test"])
    with torch.no_grad():
        rates = np.concatenate([network.eval()(some).numpy() for _, some in whole.batches(64)])
    chosen = whole.at(np.linspace(0, len(whole) - 1, windows).round().astype(int)).numpy()
    surprisal = rc.targets.Surprisal().prepare(
        responses=rates.astype(np.float64), cells=network.cells
    )
    targets = {"surprisal": surprisal, "sum of rates": rc.targets.Sum()}
    targets["rate of a cell"] = rc.targets.Unit(network.cells[0])
    for name, target in targets.items():
        yield f"retina, {name}", network, chosen, {"target": target, "layers": None}


def digit_cases(scenes: int) -> Iterator[tuple[str, Any, Any, dict[str, Any]]]:
    """Yield the shipped digit network between blocks early and late."""
    network = rc.load_network("digits_cnn")
    pictures = rc.images.digit_scenes("test", count=scenes, seed=1)["image"]
    for layers in (["stage1.0", "stage1.1"], ["stage3.1", "stage4.0"]):
        options = {"target": rc.targets.TopK(1), "layers": layers}
        yield f"digits, {layers[0]} to {layers[1]}", network, pictures, options


def main(arguments: list[str] | None = None) -> pd.DataFrame:
    """Run all cases and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--windows", type=int, default=96)
    parser.add_argument("--scenes", type=int, default=32)
    parser.add_argument("--duration", type=float, default=20.0)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--out", type=Path, required=True)
    chosen = parser.parse_args(arguments)
    rows = []
    retina = retina_cases(chosen.windows, chosen.duration)
    for cases in (retina, digit_cases(chosen.scenes)):
        for name, network, inputs, options in cases:
            start = time.perf_counter()
            found = rc.analysis.circuit(network, inputs, steps=chosen.steps, **options)
            target = options["target"]
            checked = rc.analysis.check_circuit(network, inputs, found, target=target)
            first = found["nodes"].children[next(iter(found["nodes"].children))].to_dataset()
            error = np.abs(first["completeness_error"]).sum() / np.abs(found["target_change"]).sum()
            seconds = time.perf_counter() - start
            for row in rows_of(found, checked, chosen.draws):
                about = {"case": name, "incomplete": float(error), "seconds": seconds}
                rows.append(about | row)
    table = pd.DataFrame(rows)
    table.to_csv(chosen.out, index=False)
    return table


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
