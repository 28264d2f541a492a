"""What a wide field in layer 2 changes: prediction and suppression of object motion cells.

Each simulated retina has two networks of `models/train_insilico.py`, fitted alike but for
``--surround``. The retina is taken from the training record; the movie it was fitted to is refused.

- r over the noise ceiling by cell type, mean over movies and cells: ``plain``,
  ``wide``, ``gain`` (wide minus plain) with a 95 % interval from retinas and cells drawn anew, and
  the gain of each retina.
- change of the rate (Hz) when "wide-field amacrine" is silenced in the circuit (``true``), and when
  the input of the wide field is held at that to lasting grey (``network``), both without noise:
  mean over time and cells by type; ``r``, ``slope``: mean over cells of Pearson's r over time of
  the two, and of the least-squares slope through 0 of the network's on the true change.
- ``gratings``: object motion cells under object and background motion (`simple_stimuli`): rates of
  circuit and networks, the same two changes, and ``ratio``, background over object motion.
- ``match``: the largest correlation of a channel with the wide-field amacrine cells' potentials.

Prints one JSON line.

    python benchmarks/wide_field.py --plain retina_0 retina_1 retina_2 \
        --wide wide_0 wide_1 wide_2 --movies 2 3
"""

import argparse
import copy
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from measure import report
from pathways import retina_of

import retina_codec as rc
from retina_codec.analysis.hypotheses.interneurons import match_interneurons
from retina_codec.analysis.hypotheses.stimuli import simple_stimuli
from retina_codec.analysis.pathways.prediction import agreement
from retina_codec.networks.retina.model import RetinaCNN
from retina_codec.networks.retina.prediction import open_windows
from retina_codec.probing.retina.forward import RetinaFunction
from retina_codec.probing.retina.hidden import HiddenLayers

AMACRINE = "wide-field amacrine"
OBJECT_MOTION = "object motion"
DRAWS = 4000


def cut(network: RetinaCNN) -> RetinaCNN:
    """Copy a network and hold the input of its wide field at that to lasting grey."""
    copied = copy.deepcopy(network)
    grey = HiddenLayers(network).grey()["conv1"].mean((1, 2))
    with torch.no_grad():
        weight = copied.get_parameter("conv2.surround")
        copied.get_parameter("conv2.bias").add_(weight @ grey)
        weight.zero_()
    return copied


def rates(network: RetinaCNN, split: Any) -> xr.DataArray:
    """Predicted rates (time, cell) in Hz."""
    _, windows = open_windows(network, split)
    function = RetinaFunction(network, ("conv1",), consecutive=True)
    found = [function.outputs(function.start(part)) for _, part in windows.batches(128, "cpu")]
    coords = {"time": windows.time.values, "cell": list(network.cells)}
    return xr.DataArray(torch.cat(found).numpy(), dims=("time", "cell"), coords=coords)


def change_of(network: RetinaCNN, split: Any, before: np.ndarray) -> np.ndarray:
    """Change of predicted rates (time, cell) when the wide field is cut; nothing without one."""
    return rates(cut(network), split).values - before if network.surround else np.zeros(())


def one_movie(pair: Sequence[RetinaCNN], retina: int, movie: int) -> dict[str, Any]:
    """Prediction of both networks, and the changes, on one movie; arrays by cell."""
    options = {"stimulus_seed": movie, "train_duration": 0.0, "progress": False}
    recording, circuit = rc.simulate_retina(retina, **options)
    part = recording.children["test"]
    found: dict[str, Any] = {}
    for name, network in zip(("plain", "wide"), pair, strict=True):
        predicted = rates(network, part)
        quality = agreement(predicted, part)
        found[name] = (quality["pearson"] / quality["noise_ceiling"]).values
        found[f"match {name}"] = matched(network, part, recording["interneurons"])
    stimulus, skip = part["stimulus"].values, pair[1].history
    whole, without = (
        one.respond(stimulus, progress=False)["rate"].values[skip:]
        for one in (circuit, circuit.silence(AMACRINE))
    )
    ours, truth = change_of(pair[1], part, predicted.values), without - whole
    found |= {"true": truth.mean(0), "network": ours.mean(0)}
    with np.errstate(invalid="ignore"):  # NaN for cells without wide-field input
        found["r"] = [np.corrcoef(a, b)[0, 1] for a, b in zip(ours.T, truth.T, strict=True)]
        found["slope"] = (ours * truth).sum(0) / (truth**2).sum(0)
    return found


def matched(network: RetinaCNN, part: Any, interneurons: Any) -> float:
    """Largest mean correlation of a channel with the wide-field amacrine cells."""
    table = match_interneurons(network, part, interneurons, progress=False)
    return float(table["type_correlation"].sel(interneuron_type=AMACRINE).max())


def gratings(pair: Sequence[RetinaCNN], retina: int, count: int) -> dict[str, Any]:
    """Mean rates (Hz) of each object motion cell under object and background motion."""
    _, circuit = rc.simulate_retina(
        retina, train_duration=0.0, test_duration=2.0, repeats=1, progress=False
    )
    chosen = np.flatnonzero(np.array(pair[0].cell_types) == OBJECT_MOTION)
    networks = {"plain": pair[0], "wide": pair[1], "wide, cut": cut(pair[1])}
    circuits = {"circuit": circuit, "circuit, silenced": circuit.silence(AMACRINE)}
    found: dict[str, Any] = {}
    for seed in range(count):
        made = simple_stimuli(
            circuit.frame_shape,
            frame_rate=circuit.frame_rate,
            pixel_size=50.0,
            background=circuit.parameters.background,
            seed=seed,
        )
        for name in ("object motion", "background motion"):
            stimulus = made[name]
            begin = stimulus.attrs["grey"] + 0.1  # s
            for who, one in circuits.items():
                rate = one.respond(stimulus.values, progress=False)["rate"]
                mean = rate.sel(time=slice(begin, None)).mean("time").values[chosen]
                found.setdefault(f"{who}: {name}", []).append(mean)
            split = stimulus.to_dataset(name="stimulus")
            for who, network in networks.items():
                mean = rates(network, split).sel(time=slice(begin, None)).mean("time")
                found.setdefault(f"{who}: {name}", []).append(mean.values[chosen])
    return {name: np.mean(values, axis=0) for name, values in found.items()}


def interval(values: Sequence[np.ndarray], seed: int = 0) -> list[float]:
    """Middle 95 % of the mean over retinas of the mean over cells, both drawn anew."""
    random = np.random.default_rng(seed)
    drawn = np.empty(DRAWS)
    for row in range(DRAWS):
        some = [values[i] for i in random.integers(len(values), size=len(values))]
        drawn[row] = np.mean([one[random.integers(len(one), size=len(one))].mean() for one in some])
    return [float(np.quantile(drawn, share)) for share in (0.025, 0.975)]


def by_type(results: dict[int, dict[str, np.ndarray]], types: dict[int, np.ndarray]) -> Any:
    """Means by cell type over retinas; results of each retina are arrays by cell."""
    told = {}
    for kind in dict.fromkeys(np.concatenate(list(types.values())).tolist()):
        of = {
            seed: {k: v[types[seed] == kind] for k, v in r.items()} for seed, r in results.items()
        }
        gains = [one["wide"] - one["plain"] for one in of.values()]
        row = {k: float(np.mean([one[k].mean() for one in of.values()])) for k in of[min(of)]}
        row |= {"gain": row["wide"] - row["plain"], "gain_interval": interval(gains)}
        row["gain_of_each"] = [float(gain.mean()) for gain in gains]
        row["network_of_each"] = [float(one["network"].mean()) for one in of.values()]
        row["true_of_each"] = [float(one["true"].mean()) for one in of.values()]
        told[kind] = row
    return told


def main() -> None:
    """Run from the command line."""
    options = argparse.ArgumentParser(description="wide field against none")
    options.add_argument("--plain", nargs="+", required=True, help="folders of networks")
    options.add_argument("--wide", nargs="+", required=True, help="the same with --surround")
    options.add_argument("--movies", type=int, nargs="+", default=[2, 3], help="stimulus seeds")
    options.add_argument("--gratings", type=int, default=6, help="jitters of 2 s each")
    chosen = options.parse_args()
    torch.set_num_threads(1)
    begin, results, moving, types, matches = time.perf_counter(), {}, {}, {}, {}
    for folders in zip(chosen.plain, chosen.wide, strict=True):
        pair = [rc.load_network(folder) for folder in folders]
        retina, trained_on, _ = retina_of(pair[0])
        if retina_of(pair[1])[:2] != (retina, trained_on) or trained_on in chosen.movies:
            raise rc.RetinaCodecError(
                f"both networks must be of one retina and fitted to another movie than "
                f"{chosen.movies}; got {folders}. Name pairs in the same order."
            )
        every = [one_movie(pair, retina, movie) for movie in chosen.movies]
        numbers = [{k: v for k, v in one.items() if "match" not in k} for one in every]
        results[retina] = {k: np.mean([one[k] for one in numbers], axis=0) for k in numbers[0]}
        matches[retina] = [
            float(np.mean([one[f"match {name}"] for one in every])) for name in ("plain", "wide")
        ]
        moving[retina] = gratings(pair, retina, chosen.gratings)
        types[retina] = np.array(pair[0].cell_types)
    names = moving[min(moving)]
    mean = {k: float(np.mean([one[k].mean() for one in moving.values()])) for k in names}
    each = {k: [float(one[k].mean()) for one in moving.values()] for k in names}
    ratio = {
        who: mean[f"{who}: background motion"] / mean[f"{who}: object motion"]
        for who in ("circuit", "circuit, silenced", "plain", "wide", "wide, cut")
    }
    report(
        {
            "benchmark": "wide_field",
            "movies": chosen.movies,
            "retinas": list(results),
            "by_type": by_type(results, types),
            "all": by_type(results, {seed: np.full(len(t), "all") for seed, t in types.items()}),
            "gratings": {"mean": mean, "of_each": each, "ratio": ratio},
            "match": matches,
            "seconds": time.perf_counter() - begin,
        }
    )


if __name__ == "__main__":
    main()
