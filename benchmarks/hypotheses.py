"""Are the hypotheses right? Predicted changes against true silencing in the simulated circuit.

For each movie: contributions of the shipped network, modes, pathways, `hypothesize`; then the
interneuron that a row names is silenced in the circuit and the same movie is shown to it, without
noise. A row is right if

- it names an interneuron,
- every cell that is both predicted and truly affected changes in the predicted direction, and there
  is at least one such cell, and
- F1 of predicted and truly affected cells is at least 0.7 (affected: by more than 10 % of the
  cell's mean rate; for the prediction the interval must exclude 0 as well).

Rows are distinct sets of channels of one layer. The circuit has six types of interneurons, so
several of the first ten rows name the same type; ``types`` tells how many different ones, and
``types_right`` for how many of these most rows are right. ``r`` pools row × cell of the first ten
rows (mean change in Hz), ``r_mean`` is the mean of each row's r over cells.

Controls, by the same call: modes of activations in place of contributions, every channel as a mode
alone, and modes whose weights stand on randomly exchanged channels (mean of ``--draws``). Movie 1
was used to write the method; the figure takes movies 2 and 3. With ``--scope interneuron`` every
channel of the named type is cut, whichever mode named it, so that rows of one type make the same
prediction and controls that name the same types do as well; ``--scope mode`` cuts what the mode
groups and tells whether modes group better than the controls. Prints one JSON line.

    python benchmarks/hypotheses.py --movies 2 3
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from measure import report

import retina_codec as rc
from retina_codec.analysis.hypotheses import hypothesize
from retina_codec.analysis.interneuron_matching import match_interneurons
from retina_codec.recordings.circuit import Circuit

MODELS = Path(__file__).resolve().parents[1] / "models"
LAYERS = ("conv1", "conv2")
THRESHOLD = 0.1
ENOUGH = 0.7  # F1


def true_changes(circuit: Circuit, movie: np.ndarray, history: int) -> xr.Dataset:
    """Mean rate (cell) and change (interneuron, cell) in Hz, without noise."""
    rate = circuit.respond(movie, progress=False)["rate"][history:].mean("time")
    kinds = circuit.weight["interneuron_type"].values
    changes = [
        circuit.silence(str(kind)).respond(movie, progress=False)["rate"][history:].mean("time")
        - rate
        for kind in kinds
    ]
    change = xr.concat(changes, xr.DataArray(kinds, dims="interneuron", name="interneuron"))
    return xr.Dataset({"rate": rate, "change": change})


def judge(claims: xr.Dataset, truth: xr.Dataset, first: int = 10) -> dict[str, Any]:
    """Hold the first rows against the truth."""
    right, named, rs, pairs = [], [], [], []
    for i in range(min(first, claims.sizes["hypothesis"])):
        row = claims.isel(hypothesis=i)
        name = str(row["interneuron"].values)
        named.append(name)
        if not name:
            right.append(False)
            continue
        true = truth["change"].sel(interneuron=name, cell=row["cell"].values).values
        rate = truth["rate"].sel(cell=row["cell"].values).values
        predicted, said = row["change"].values, row["affected"].values.astype(bool)
        is_so = np.abs(true) > THRESHOLD * rate
        both = said & is_so
        score = 2 * both.sum() / max(1, said.sum() + is_so.sum())
        sign = both.any() and bool((np.sign(predicted[both]) == np.sign(true[both])).all())
        right.append(bool(sign and score >= ENOUGH))
        pairs.append((predicted, true))
        rs.append(np.corrcoef(predicted, true)[0, 1] if np.ptp(true) > 0 else np.nan)
    types = sorted({name for name in named if name})
    votes = {t: [r for r, n in zip(right, named, strict=True) if n == t] for t in types}
    pooled = (
        np.concatenate([np.stack(pair) for pair in pairs], axis=1) if pairs else np.zeros((2, 0))
    )
    return {
        "right": sum(right),
        "of": len(right),
        "rows": claims.sizes["hypothesis"],
        "r": float(np.corrcoef(pooled)[0, 1]) if pooled.shape[1] > 1 else np.nan,
        "r_mean": float(np.nanmean(rs)) if rs else np.nan,
        "types": len(types),
        "types_right": sum(bool(np.mean(vote) > 0.5) for vote in votes.values()),
        "wrong": [n or "none" for n, good in zip(named, right, strict=True) if not good],
    }


def of_activations(explained: xr.DataTree) -> xr.DataTree:
    """Put activations, split by sign, in the place of contributions."""
    tree = explained.copy()
    for layer in LAYERS:
        node = tree[f"layers/{layer}"].to_dataset()
        a = node["activation"]
        parts = [np.minimum(a, 0), np.maximum(a, 0)]
        split = xr.concat(parts, node["sign"]).transpose(*node["contribution"].dims)
        node["contribution"] = split.assign_attrs(node["contribution"].attrs)
        tree[f"layers/{layer}"] = xr.DataTree(node)
    return tree


def with_dictionaries(modes: xr.DataTree, make: Any) -> xr.DataTree:
    """Exchange the dictionaries of all layers; loadings are left out, nothing here needs them."""
    tree = xr.DataTree.from_dict({"responses": modes["responses"].to_dataset()})
    for layer in LAYERS:
        dictionary = modes[f"layers/{layer}/modes"].to_dataset()["dictionary"]
        values = make(dictionary.transpose("mode", "sign", "channel").values)
        new = xr.DataArray(values, dims=("mode", "sign", "channel"))
        new = new.assign_coords(mode=np.arange(len(values)))
        tree[f"layers/{layer}/modes"] = xr.DataTree(xr.Dataset({"dictionary": new}))
    return tree


def single(dictionary: np.ndarray) -> np.ndarray:
    """Every channel alone."""
    return np.stack([np.eye(dictionary.shape[2])] * 2, axis=1)


def one_movie(
    movie: int, seed: int, draws: int, scope: str, explained: xr.DataTree | None = None
) -> dict[str, dict[str, Any]]:
    """Score ours and the controls on one movie."""
    network = rc.load_network(MODELS / "insilico")
    recording, circuit = rc.simulate_retina(0, stimulus_seed=movie, train_duration=0)
    truth = true_changes(circuit, recording["test/stimulus"].values, network.history)
    if explained is None:
        explained = rc.contribute(
            network,
            recording["test"],
            target=rc.Surprisal(),
            method=rc.IntegratedGradients(steps=20),
            layers=list(LAYERS),
        )
    matches = match_interneurons(network, recording["test"], recording["interneurons"])
    method = rc.SparseAutoencoder(modes=32, active=3, seed=seed)
    modes = rc.find_pathways(rc.decompose(explained, method), seed=seed)
    active = rc.find_pathways(rc.decompose(of_activations(explained), method), seed=seed)
    random = np.random.default_rng(seed)

    def exchanged(dictionary: np.ndarray) -> np.ndarray:
        return np.stack([d[:, random.permutation(d.shape[1])] for d in dictionary])

    trees = {
        "contributions": modes,
        "activations": active,
        "single channels": with_dictionaries(modes, single),
        **{f"random {i}": with_dictionaries(modes, exchanged) for i in range(draws)},
    }
    options = {"interneurons": matches, "threshold": THRESHOLD, "seed": seed, "scope": scope}
    return {
        name: judge(hypothesize(network, recording, tree, tree, **options), truth)
        for name, tree in trees.items()
    }


def mean_of(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean over draws of what is a number."""
    numbers = [key for key, value in results[0].items() if not isinstance(value, list)]
    return {key: float(np.mean([result[key] for result in results])) for key in numbers}


def summary(movie: int, scores: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Join the draws of the random control."""
    draws = [score for name, score in scores.items() if name.startswith("random")]
    kept = {name: score for name, score in scores.items() if not name.startswith("random")}
    return {"movie": movie, **kept, **({"random modes": mean_of(draws)} if draws else {})}


def main() -> None:
    """Run from the command line."""
    options = argparse.ArgumentParser(description="hypotheses against true silencing")
    options.add_argument("--movies", type=int, nargs="+", default=[2, 3], help="stimulus seeds")
    options.add_argument("--seed", type=int, default=0, help="of modes, bootstrap and controls")
    options.add_argument("--draws", type=int, default=3, help="random controls per movie")
    options.add_argument(
        "--scope", choices=["interneuron", "mode"], default="interneuron", help="what is cut"
    )
    chosen = options.parse_args()
    rows = [
        summary(movie, one_movie(movie, chosen.seed, chosen.draws, chosen.scope))
        for movie in chosen.movies
    ]
    report({"benchmark": "hypotheses", "seed": chosen.seed, "scope": chosen.scope, "movies": rows})


if __name__ == "__main__":
    main()
