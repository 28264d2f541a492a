"""Which list finds the strongest interactions of interneurons first? Modes against simpler lists.

The truth is exact: pairs of channels silenced together and alone in the network, pairs of
interneuron types silenced in the simulated circuit. `docs/rivals.md` explains the lists.

    python benchmarks/interactions.py --networks insilico retina_1 retina_2 --movies 2 3 4 5
"""

import argparse
import json
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from hypothesis_controls import of_activations
from measure import report
from scipy.stats import spearmanr

import retina_codec as rc
from retina_codec.analysis import circuit, measure_interactions, pair_scores
from retina_codec.analysis.hypotheses.interneurons import match_interneurons, name_channels
from retina_codec.analysis.hypotheses.silencing import silence_channels
from retina_codec.probing.interventions import Silencing
from retina_codec.recordings.simulated.circuit import Circuit

Floats = npt.NDArray[np.float64]
LAYERS = ("conv1", "conv2")
FIRST = 0.1  # share of the pairs that an experimenter would try
DRAWS = 2000  # of the bootstrap over retinas and movies
RANDOM = 200  # random orders per case


def channels_of(network: Any) -> list[tuple[str, int]]:
    """All channels of both hidden layers."""
    return [(layer, c) for layer, n in zip(LAYERS, network.channels, strict=True) for c in range(n)]


def series(tree: xr.DataTree) -> Floats:
    """Signed contribution (or activation) of every channel of both layers, (time, channel)."""
    parts = [
        tree[f"layers/{layer}/contribution"].sum("sign").transpose("time", "channel").values
        for layer in LAYERS
    ]
    return np.concatenate(parts, axis=1).astype(np.float64)


def of_pairs(matrix: Floats) -> Floats:
    """Values of a symmetric matrix, in the order of `itertools.combinations`."""
    return np.array([matrix[i, j] for i, j in combinations(range(len(matrix)), 2)])


def changes(network: Any, split: Any, channels: list[tuple[str, int]]) -> Floats:
    """Root mean square change of the rates when one channel is silenced, Hz, (channel,)."""
    cuts = [Silencing(layer, (c,)) for layer, c in channels]
    answer = silence_channels(network, split, cuts, block=1 / network.frame_rate, progress=False)
    change = answer["silenced_rate"].values - answer["rate"].values
    return np.sqrt((change.astype(np.float64) ** 2).mean(axis=1).sum(axis=1))


def lists_of(network: Any, split: Any, seed: int) -> dict[str, Floats]:
    """Scores of all pairs of channels by every list."""
    explained = rc.contribute(
        network,
        split,
        target=rc.targets.Surprisal(),
        method=rc.methods.IntegratedGradients(steps=14),
        layers=list(LAYERS),
        progress=False,
    )
    activations = of_activations(explained, LAYERS)
    method = rc.modes.SparseAutoencoder(modes=32, active=3, seed=seed)
    channels = channels_of(network)
    found = {}
    for name, tree in (("contributions", explained), ("activations", activations)):
        modes = rc.decompose(tree, method, progress=False)
        found[f"modes of {name}"] = pair_scores(modes, channels).values
        found[f"shared by modes of {name}"] = shared(modes, channels)
        values = series(tree)
        size = np.sqrt(np.mean(values**2, axis=0))
        found[f"single channels, {name}"] = of_pairs(np.outer(size, size))
        found[f"correlated {name}"] = of_pairs(np.abs(np.corrcoef(values.T)))
        found[f"{name} at the same times"] = of_pairs(values.T**2 @ values**2)
    found["edges of the circuit"] = edges_of(network, split, channels)
    single = changes(network, split, channels)
    found["single silencings"] = of_pairs(np.outer(single, single))
    return found


def shared(modes: xr.DataTree, channels: list[tuple[str, int]]) -> Floats:
    """Σ over modes i, j of (n_ia n_jb)² mean_t z_i² z_j²; a pair within a layer counts i = j."""
    norms, squares = {}, {}
    for layer in LAYERS:
        node = modes[f"layers/{layer}/modes"].to_dataset()
        dictionary = node["dictionary"].transpose("mode", "sign", "channel").values
        norms[layer] = (dictionary.astype(np.float64) ** 2).sum(axis=1)
        loading = node["loading"].transpose("time", "mode").values
        squares[layer] = loading.astype(np.float64) ** 2
    together = {}
    for a in LAYERS:
        for b in LAYERS:
            product = squares[a].T @ squares[b] / len(squares[a])
            together[a, b] = np.diag(np.diag(product)) if a == b else product
    return np.array(
        [
            norms[a][:, i] @ together[a, b] @ norms[b][:, j]
            for (a, i), (b, j) in combinations(channels, 2)
        ]
    )


def edges_of(network: Any, split: Any, channels: list[tuple[str, int]]) -> Floats:
    """Root mean square of the edge between two channels over the first 4 s; 0 within a layer."""
    bins = network.history + round(4 * network.frame_rate)
    part = split.to_dataset().isel(time=slice(0, bins))
    tree = circuit(network, part, target=rc.targets.Surprisal(), steps=6, progress=False)
    edges = tree["edges/conv2/contribution"].transpose("time", "source", "target").values
    size = np.sqrt(np.mean(edges.astype(np.float64) ** 2, axis=0))
    pairs = combinations(channels, 2)
    return np.array([size[i, j] if one != other else 0.0 for (one, i), (other, j) in pairs])


def judge(score: Floats, truth: Floats, random: np.random.Generator) -> dict[str, float]:
    """Rank correlation with the truth, and share of the strongest pairs among the first.

    A pair that a list cannot score (NaN: a channel in no mode) comes last.
    """
    score = np.where(np.isnan(score), -np.inf, score)
    first = max(1, round(FIRST * len(truth)))
    order = np.lexsort((random.random(len(score)), -score))[:first]
    best = set(np.argsort(-truth)[:first].tolist())
    moves = len(np.unique(score)) > 1
    return {
        "rho": float(spearmanr(score, truth).statistic) if moves else float("nan"),
        "found": len(best & set(order.tolist())) / first,
    }


def circuit_truth(retina: Circuit, movie: Floats, history: int) -> tuple[list[str], Floats]:
    """Interaction of every pair of interneuron types in the circuit without noise, Hz."""
    kinds = sorted({str(kind) for kind in retina.weight["interneuron_type"].values})

    def rates(*cut: str) -> Floats:
        changed = retina
        for kind in cut:
            changed = changed.silence(kind)
        answer = changed.respond(movie, progress=False)["rate"][history:]
        return np.asarray(answer.values, dtype=np.float64)

    plain, alone = rates(), {kind: rates(kind) for kind in kinds}
    strength = []
    for a, b in combinations(kinds, 2):
        change = rates(a, b) - alone[a] - alone[b] + plain
        strength.append(np.sqrt((change**2).mean(axis=0).sum()))
    return kinds, np.array(strength)


def by_kind(score: Floats, named: list[str], kinds: list[str]) -> Floats:
    """Best score of any pair of channels named after two types; 0 where a type has no channel."""
    best = {pair: 0.0 for pair in combinations(kinds, 2)}
    for value, (a, b) in zip(score, combinations(named, 2), strict=True):
        pair = tuple(sorted((a, b)))
        if pair in best:
            best[pair] = float(np.fmax(best[pair], value))
    return np.array(list(best.values()))


def one_case(name: str, movie: int, seconds: float, seed: int) -> list[dict[str, Any]]:
    """Score all lists on one movie of one retina: network and circuit."""
    network = rc.load_network(name)
    retina = int(Path(name).name.split("_")[-1]) if "_" in Path(name).name else 0
    recording, simulated = rc.simulate_retina(
        retina, stimulus_seed=movie, train_duration=0, test_duration=seconds, progress=False
    )
    split, channels = recording["test"], channels_of(network)
    pairs = list(combinations(channels, 2))
    truth = measure_interactions(network, split, pairs, progress=False)["strength"].values
    lists = lists_of(network, split, seed)
    matches = match_interneurons(network, split, recording["interneurons"], progress=False)
    kinds_of = name_channels(matches)
    named = [kinds_of.get(f"{layer}/{c}", "") for layer, c in channels]
    kinds, in_circuit = circuit_truth(simulated, split["stimulus"].values, network.history)
    within = np.array([a[0] == b[0] for a, b in pairs])
    parts: dict[str, tuple[Floats, dict[str, Floats]]] = {
        "all pairs": (truth, lists),
        "one layer": (truth[within], {key: value[within] for key, value in lists.items()}),
        "two layers": (truth[~within], {key: value[~within] for key, value in lists.items()}),
        "interneuron types": (
            in_circuit,
            {key: by_kind(value, named, kinds) for key, value in lists.items()},
        ),
    }
    rows = []
    for part, (values, scores) in parts.items():
        random = np.random.default_rng([seed, movie, retina])
        for key, score in scores.items():
            rows.append(_row(part, key, retina, movie, judge(score, values, random)))
        drawn = [judge(random.random(len(values)), values, random) for _ in range(RANDOM)]
        mean = {key: float(np.mean([one[key] for one in drawn])) for key in drawn[0]}
        rows.append(_row(part, "random pairs", retina, movie, mean))
    return rows


def kept(
    folder: Path | None, name: str, movie: int, seconds: float, seed: int
) -> list[dict[str, Any]]:
    """Read a finished case from the folder, or score it and keep it there."""
    if folder is None:
        return one_case(name, movie, seconds, seed)
    path = folder / f"{Path(name).name}-{movie}-{seconds:g}-{seed}.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(one_case(name, movie, seconds, seed)), encoding="utf-8")
    rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return rows


def _row(part: str, key: str, retina: int, movie: int, found: dict[str, float]) -> dict[str, Any]:
    return {"pairs": part, "list": key, "retina": retina, "movie": movie, **found}


def interval(table: Floats, random: np.random.Generator) -> list[float]:
    """95 % interval of the mean of (retina, movie): retinas and movies drawn with replacement."""
    means = []
    for _ in range(DRAWS):
        rows = random.integers(0, len(table), len(table))
        columns = random.integers(0, table.shape[1], table.shape[1])
        means.append(np.nanmean(table[np.ix_(rows, columns)]))
    return [float(value) for value in np.percentile(means, [2.5, 97.5])]


def summary(rows: list[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
    """Mean over retinas and movies of every list, and its difference from modes, with intervals."""
    retinas = sorted({row["retina"] for row in rows})
    movies = sorted({row["movie"] for row in rows})
    tables: dict[tuple[str, str, str], Floats] = {}
    for row in rows:
        for what in ("rho", "found"):
            table = tables.setdefault(
                (row["pairs"], row["list"], what), np.full((len(retinas), len(movies)), np.nan)
            )
            table[retinas.index(row["retina"]), movies.index(row["movie"])] = row[what]
    found = []
    for part, name in dict.fromkeys((part, name) for part, name, _ in tables):
        line: dict[str, Any] = {"pairs": part, "list": name}
        for what in ("rho", "found"):
            own, ours = tables[part, name, what], tables[part, "modes of contributions", what]
            random = np.random.default_rng(seed)
            line[what] = [float(np.nanmean(own)), *interval(own, random)]
            line[f"{what}_modes_minus"] = [
                float(np.nanmean(ours - own)),
                *interval(ours - own, random),
            ]
        found.append(line)
    return found


def main() -> None:
    """Run from the command line."""
    options = argparse.ArgumentParser(description="which list finds interactions first")
    options.add_argument(
        "--networks", nargs="+", default=["insilico"], help="folders that end in _SEED, or insilico"
    )
    options.add_argument("--movies", type=int, nargs="+", default=[2, 3, 4, 5])
    options.add_argument("--seconds", type=float, default=20.0, help="of each movie")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--keep", type=Path, help="folder for finished cases; a run goes on there")
    chosen = options.parse_args()
    rows = [
        row
        for name in chosen.networks
        for movie in chosen.movies
        for row in kept(chosen.keep, name, movie, chosen.seconds, chosen.seed)
    ]
    report({"benchmark": "interactions", "cases": rows, "lists": summary(rows, chosen.seed)})


if __name__ == "__main__":
    main()
