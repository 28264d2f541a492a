"""Are the hypotheses right? Predicted changes against true silencing in the simulated circuit.

For each movie: contributions of the shipped network, modes, pathways, `hypothesize`; then the
interneuron that a row names is silenced in the circuit and the same movie is shown to it, without
noise. A row says what changes in its events. It is right if it names an interneuron and

- cells: F1 of predicted and truly affected cells is at least 0.7, and every cell that is both
  changes in the predicted direction, at least one; affected is a change above 10 % of the cell's
  rate (the larger of that in the events and over the movie), for the prediction beyond its error;
- when: the same for timed cells, whose change is larger in the events than elsewhere.

Rows are distinct: the same silencing in the same events is one row. A row without timed cells
makes no claim about time. The first ten rows with a claim count; if there are fewer, the missing
ones are not right. ``r`` pools row × cell (change in
the events, Hz), ``r_contrast`` the same for the change in the events minus that elsewhere, each
over the rows that claim. ``found`` is the true Σ d² per second over the cells that a row names, in
its events, ``elsewhere`` the same cells at other times, mean over the first ten (0 for a missing
row): what an experimenter would see. ``claims`` is the number of distinct rows with a claim,
``right_claims`` how many of them all are right; ``found_all`` is ``found`` over all distinct rows,
before anything is chosen.

Controls, by the same call, each with the same time per row:

- ``activations``: modes of activations in place of contributions;
- ``single channels``, ``single activations``: every channel and sign alone, its contribution or
  its activation as loading;
- ``wrong channels``: our loadings, channels exchanged at random; ``wrong times``: our channels,
  loadings shifted in time by random steps (means over ``--draws``);
- ``network alone``: no modes; for every interneuron the times of the largest predicted Σ d². Not a
  control but what could be found at best by the same network with these silencings.

Movie 1 was used to write the method; the figure takes movies 2 and 3. With ``--when
always`` rows speak of the whole movie: then modes play no part but naming interneurons.
``by_interneuron`` counts right claims and all claims about each. ``--keep`` writes trees to a
folder and reads them from there in the next run; empty it after a change of networks, contributions
or modes. ``--network`` names another network of retina 0. Prints one JSON line.

    python benchmarks/hypotheses.py --movies 2 3
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from hypothesis_controls import exchanged, network_alone, of_activations, shifted, single
from measure import report

import retina_codec as rc
from retina_codec.analysis.hypotheses.effects import in_events
from retina_codec.analysis.hypotheses.hypothesize import HypothesisSettings, hypothesize
from retina_codec.analysis.hypotheses.interneurons import match_interneurons
from retina_codec.recordings.simulated.circuit import Circuit
from retina_codec.statistics.power import detectability

LAYERS = ("conv1", "conv2")
THRESHOLD = 0.1
ENOUGH = 0.7  # F1
FIRST = 10


def true_rates(circuit: Circuit, movie: np.ndarray, history: int) -> xr.Dataset:
    """Rates without noise, whole (time, cell) and silenced (interneuron, time, cell), Hz."""
    kinds = circuit.weight["interneuron_type"].values
    rate = circuit.respond(movie, progress=False)["rate"][history:]
    cut = [
        circuit.silence(str(kind)).respond(movie, progress=False)["rate"][history:]
        for kind in kinds
    ]
    silenced = xr.concat(cut, xr.DataArray(kinds, dims="interneuron", name="interneuron"))
    return xr.Dataset({"rate": rate, "silenced": silenced})


def agrees(said: np.ndarray, is_so: np.ndarray, predicted: np.ndarray, true: np.ndarray) -> bool:
    """F1 of two sets of cells is enough, and the signs of those in both are equal."""
    both = said & is_so
    score = 2 * both.sum() / max(1, said.sum() + is_so.sum())
    sign = both.any() and (np.sign(predicted[both]) == np.sign(true[both])).all()
    return bool(sign and score >= ENOUGH)


def hold(row: xr.Dataset, truth: xr.Dataset, start: float) -> dict[str, Any]:
    """Hold one row against the truth; ``start`` (s) is the first bin of its clock."""
    name = str(row["interneuron"].values)
    found: dict[str, Any] = {"name": name, "claims": bool(name) and bool(row["timed"].any())}
    if not name:
        return found | {"cells": False, "when": False, "found": 0.0, "elsewhere": 0.0}
    bins = round(row.attrs["duration"] * 100)
    time = start + np.arange(bins) / 100
    inside = in_events(row["event_start"].values, row["event_stop"].values, time)
    cells = row["cell"].values
    rate = truth["rate"].sel(cell=cells).values[:bins]
    cut = truth["silenced"].sel(interneuron=name, cell=cells).values[:bins]
    here, after = rate[inside].mean(0), cut[inside].mean(0)
    change = after - here
    least = THRESHOLD * np.maximum(here, rate.mean(0))
    affected = row["affected"].values.astype(bool)
    is_so = np.abs(change) > least
    found |= {
        "cells": agrees(affected, is_so, row["change"].values, change),
        "change": (row["change"].values, change),
        "found": float((detectability(here, after, 1.0) * affected).sum()),
        "when": False,
        "elsewhere": float("nan"),
    }
    if inside.all():
        return found
    there, without = rate[~inside].mean(0), cut[~inside].mean(0)
    contrast = change - (without - there)
    more = np.abs(change) > np.abs(without - there)
    timed = is_so & (np.abs(contrast) > least) & more
    return found | {
        "when": agrees(row["timed"].values.astype(bool), timed, row["contrast"].values, contrast),
        "contrast": (row["contrast"].values, contrast),
        "elsewhere": float((detectability(there, without, 1.0) * affected).sum()),
    }


def judge(claims: xr.Dataset, truth: xr.Dataset, start: float) -> dict[str, Any]:
    """Score a list of hypotheses."""
    rows = [
        hold(claims.isel(hypothesis=i), truth, start) for i in range(claims.sizes["hypothesis"])
    ]
    timed = claims.attrs["when"] == "active"
    claiming = [row for row in rows if row["claims"] or (row["name"] and not timed)]
    first = claiming[:FIRST]
    good = [row["cells"] and (row["when"] or not timed) for row in first]

    def pooled(name: str) -> float:
        pairs = [np.stack(row[name]) for row in first if name in row]
        return float(np.corrcoef(np.concatenate(pairs, axis=1))[0, 1]) if pairs else np.nan

    return {
        "right": sum(good),
        "of": FIRST,
        "right_cells": sum(row["cells"] for row in first),
        "right_when": sum(row["when"] for row in first),
        "r": pooled("change"),
        "r_contrast": pooled("contrast"),
        "types": len({row["name"] for row in first}),
        "types_right": len({row["name"] for row, is_so in zip(first, good, strict=True) if is_so}),
        "found": sum(row["found"] for row in first) / FIRST,
        "elsewhere": sum(row["elsewhere"] for row in first) / FIRST,
        "rows": len(rows),
        "claims": len(claiming),
        "right_claims": sum(row["cells"] and (row["when"] or not timed) for row in claiming),
        "found_all": float(np.mean([row["found"] for row in rows])),
        "named": [row["name"] for row in first],
        "wrong": [row["name"] for row, is_so in zip(first, good, strict=True) if not is_so],
        "by_interneuron": by_interneuron(claiming, timed=timed),
    }


def by_interneuron(rows: list[dict[str, Any]], *, timed: bool) -> dict[str, list[int]]:
    """Count right rows, and all rows, of each interneuron that is named."""
    found: dict[str, list[int]] = {}
    for row in rows:
        count = found.setdefault(row["name"], [0, 0])
        count[0] += row["cells"] and (row["when"] or not timed)
        count[1] += 1
    return found


def kept(folder: Path | None, name: str, make: Callable[[], Any]) -> Any:
    """Read a tree or dataset from the folder, or make it and write it there."""
    path = None if folder is None else folder / f"{name}.nc"
    if path is not None and path.exists():
        tree = xr.load_datatree(path)
        return tree if tree.children else tree.to_dataset()
    made = make()
    if path is not None:
        made.to_netcdf(path)
    return made


def one_movie(
    movie: int,
    seed: int,
    draws: int,
    options: dict[str, Any],
    folder: Path | None,
    name: str = "insilico",
) -> dict[str, dict[str, Any]]:
    """Score ours and the controls on one movie."""
    network = rc.load_network(name)
    recording, circuit = rc.simulate_retina(0, stimulus_seed=movie, train_duration=0)
    split, history = recording["test"], network.history
    truth = kept(
        folder,
        f"truth-{movie}",
        lambda: true_rates(circuit, split["stimulus"].values, history),
    )
    explained = kept(
        folder,
        f"explained-{movie}",
        lambda: rc.contribute(
            network,
            split,
            target=rc.targets.Surprisal(),
            method=rc.methods.IntegratedGradients(steps=20),
            layers=list(LAYERS),
        ),
    )
    matches = kept(
        folder,
        f"matches-{movie}",
        lambda: match_interneurons(network, split, recording["interneurons"]),
    )
    method = rc.modes.SparseAutoencoder(modes=32, active=3, seed=seed)

    def fitted(name: str, tree: xr.DataTree) -> xr.DataTree:
        return kept(
            folder,
            f"{name}-{movie}-{seed}",
            lambda: rc.find_pathways(rc.decompose(tree, method), seed=seed),
        )

    modes = fitted("contributions", explained)
    alone, of_modes = of_activations(explained, LAYERS), rc.find_pathways
    trees: dict[str, Callable[[], xr.DataTree]] = {
        "contributions": lambda: modes,
        "activations": lambda: fitted("activations", alone),
        "single channels": lambda: of_modes(single(explained, LAYERS), seed=seed),
        "single activations": lambda: of_modes(single(alone, LAYERS), seed=seed),
        "network alone": lambda: network_alone(network, split, matches, modes),
    }
    for number in range(draws):
        random = np.random.default_rng([seed, number])
        trees[f"wrong channels {number}"] = lambda r=random: exchanged(modes, LAYERS, r)
        trees[f"wrong times {number}"] = lambda r=random: shifted(modes, LAYERS, r)
    if options["when"] == "always":
        trees = {name: make for name, make in trees.items() if "times" not in name}
        del trees["network alone"]
    settings = HypothesisSettings(threshold=THRESHOLD, scope=options["scope"])
    options = {"interneurons": matches, "when": options["when"], "seed": seed, "settings": settings}
    start = float(modes["responses/time"][0])
    scores = {}
    for name, make in trees.items():
        tree = make()
        scores[name] = judge(hypothesize(network, recording, tree, tree, **options), truth, start)
    return scores


def mean_of(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean over draws of what is a number."""
    numbers = [key for key, value in results[0].items() if not isinstance(value, list)]
    return {key: float(np.mean([result[key] for result in results])) for key in numbers}


def summary(movie: int, scores: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Join the draws of the random controls."""
    drawn = ("wrong channels", "wrong times")
    joined = {name: score for name, score in scores.items() if not name.startswith(drawn)}
    for word in drawn:
        draws = [score for name, score in scores.items() if name.startswith(word)]
        joined |= {word: mean_of(draws)} if draws else {}
    return {"movie": movie, **joined}


def main() -> None:
    """Run from the command line."""
    options = argparse.ArgumentParser(description="hypotheses against true silencing")
    options.add_argument("--movies", type=int, nargs="+", default=[2, 3], help="stimulus seeds")
    options.add_argument("--seed", type=int, default=0, help="of modes, bootstrap and controls")
    options.add_argument("--draws", type=int, default=3, help="random controls per movie")
    options.add_argument(
        "--scope", choices=["interneuron", "mode"], default="interneuron", help="what is cut"
    )
    options.add_argument("--when", choices=["active", "always"], default="active", help="events")
    options.add_argument("--network", default="insilico", help="of retina 0, another folder")
    options.add_argument("--keep", type=Path, help="folder for trees")
    chosen = options.parse_args()
    what = {"scope": chosen.scope, "when": chosen.when}
    rows = [
        summary(
            movie, one_movie(movie, chosen.seed, chosen.draws, what, chosen.keep, chosen.network)
        )
        for movie in chosen.movies
    ]
    report({"benchmark": "hypotheses", "seed": chosen.seed, **what, "movies": rows})


if __name__ == "__main__":
    main()
