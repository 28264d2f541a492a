"""Do modes find the subunits of real cells? Share recovered, beside STNMF, fields and chance.

    python benchmarks/subunits.py --parameters ~/subunit_grid_model --keep runs --figure out.png

Prints a JSON line per cell and one per list of maps, with intervals over cells. `docs/subunits.md`.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr
from scipy.optimize import linear_sum_assignment
from subunit_cells import LAGS, Cell, centres, draw_cells, record

import retina_codec as rc
from retina_codec.analysis.fields.fields import instantaneous_fields, rank_one_parts

Floats = npt.NDArray[np.float64]

RECOVERED = 0.7  # correlation of a map with a true subunit
LOOSE = 0.5  # the same, reported beside
LOCAL = 0.25  # Moran's I above which a map counts as one place (the default of stnmf)
DRAWS = 20  # of every null
SPARSITY = 1.7  # of stnmf; all three are its defaults
STNMF_MODULES, STNMF_STEPS = 20, 1000
LISTS = ("unit_modes", "fields_by_unit_mode", "fields_by_channel_mode", "fields", "stnmf")


def correlations(maps: Floats, truth: Floats) -> Floats:
    """Pearson r of every true subunit with every map, (subunit, map); 0 for a constant map."""
    rows = []
    for images in (truth, maps):
        flat = images.reshape(len(images), -1)
        flat = flat - flat.mean(1, keepdims=True)
        size = np.linalg.norm(flat, axis=1, keepdims=True)
        rows.append(flat / np.where(size > 0, size, 1))
    return np.asarray(rows[0] @ rows[1].T)


def match(maps: Floats, truth: Floats) -> Floats:
    """Correlation of every true subunit with its own map, (subunit,); 0 for one without a map.

    One map per subunit: the pairs with the largest sum of correlations (Hungarian method).
    """
    found = np.zeros(len(truth))
    if len(maps):
        all_pairs = correlations(maps, truth)
        subunit, partner = linear_sum_assignment(-all_pairs)
        found[subunit] = all_pairs[subunit, partner]
    return found


def moran(image: Floats) -> float:
    """Moran's I of an image, neighbours left, right, above and below; 0 for a constant image."""
    z = image - image.mean()
    pairs = z[1:].size + z[:, 1:].size
    near = (z[1:] * z[:-1]).sum() + (z[:, 1:] * z[:, :-1]).sum()
    total = np.square(z).sum()
    return float(z.size / pairs * near / total) if total > 0 else 0.0


def upright(maps: Floats) -> Floats:
    """Turn the sign of every map so that its largest value in size is above 0."""
    flat = maps.reshape(len(maps), -1)
    peak = flat[np.arange(len(flat)), np.abs(flat).argmax(1)]
    return np.asarray(maps * np.where(peak < 0, -1, 1)[:, None, None])


def local_maps(maps: Floats) -> Floats:
    """Keep the upright maps that show one place."""
    return upright(maps)[[moran(image) > LOCAL for image in maps]]


def somewhere(sta: Floats, count: int, random: np.random.Generator) -> Floats:
    """Return Gaussians of a subunit's size where the cell responds, (count, y, x).

    Places are drawn by the spike-triggered average above a fifth of its peak.
    """
    chance = np.clip(sta - 0.2 * sta.max(), 0, None).ravel()
    place = random.choice(chance.size, count, p=chance / chance.sum())
    y, x = np.divmod(place, sta.shape[1])
    rows, columns = (np.arange(size)[None, :] for size in sta.shape)
    down, along = np.square(rows - y[:, None]), np.square(columns - x[:, None])
    return np.asarray(np.exp(-(down[:, :, None] + along[:, None]) / 2))


def turned(cell: Cell, side: int, angle: float) -> Floats:
    """Return the true subunits turned around their middle by an angle in radians, (n, y, x)."""
    c, s = np.cos(angle), np.sin(angle)
    places = cell.places @ np.array([[c, s], [-s, c]])
    moved = Cell(**{**vars(cell), "places": places})
    return centres(moved, side)[cell.true]


def spike_triggered(train: xr.Dataset, cell: str) -> tuple[Floats, Floats, Floats, Floats]:
    """Return STA (l, y, x), its time course at the peak, frames filtered by it, and counts."""
    frames = train["stimulus"].values
    flat = frames.reshape(len(frames), -1).astype(np.float32) / 127.5 - 1
    counts = train["spike_count"].sel(cell=cell).values[LAGS:]
    steps = len(counts)
    sta = np.stack([counts @ flat[lag : lag + steps] for lag in range(LAGS)]) / counts.sum()
    course = sta[:, np.abs(sta).max(0).argmax()]
    course = course / np.linalg.norm(course) * np.sign(course[np.abs(course).argmax()])
    filtered = sum(np.float32(course[lag]) * flat[lag : lag + steps] for lag in range(LAGS))
    shape = frames.shape[1:]
    return sta.reshape(LAGS, *shape), course, np.reshape(filtered, (-1, *shape)), counts


def open_stnmf() -> Any:
    """Return the class of the factorisation."""
    try:
        from stnmf import STNMF
    except ImportError as error:
        raise rc.RetinaCodecError(
            f"the comparison needs the package stnmf ({error}). Install stnmf and shapely, or "
            "leave it out with --no-stnmf."
        ) from error
    return STNMF


def stnmf_maps(filtered: Floats, counts: Floats) -> Floats:
    """Return the modules of spike-triggered factorisation, (module, y, x).

    Every spike has its own column. The whole frame is given: the window that the package cuts
    around the STA left half of the subunits out in one pilot cell.
    """
    ensemble = np.repeat(filtered, counts.astype(int), axis=0).transpose(1, 2, 0)
    model = open_stnmf()(
        np.ascontiguousarray(ensemble),
        r=STNMF_MODULES,
        sparsity=SPARSITY,
        num_iter=STNMF_STEPS,
        disp=False,
    )
    return np.array(model.modules, np.float64)


def alone(network: rc.networks.RetinaCNN, cell: str) -> rc.networks.RetinaCNN:
    """Return the network of one of its cells."""
    place = list(network.cells).index(cell)
    state = {
        name: value[place : place + 1] if value.shape[:1] == (len(network.cells),) else value
        for name, value in network.state_dict().items()
        if name.startswith(("conv3", "readout", "norm3"))
    }
    config = network.config()
    for name in ("cells", "cell_types", "locations"):
        config[name] = [config[name][place]]
    found = rc.networks.RetinaCNN.from_config(config, network.state_dict() | state)
    return found.eval()


def best_windows(network: rc.networks.RetinaCNN, train: xr.Dataset, count: int) -> torch.Tensor:
    """Return the windows with the highest predicted rates, (b, l, y, x), in order of time."""
    predicted = rc.networks.predict_rates(network, train, progress=False).values[:, 0]
    later = train.sizes["time"] - len(predicted)
    chosen = np.sort(np.argsort(-predicted)[:count]) + later
    scale = network.normalisation
    frames = (train["stimulus"].values.astype(np.float32) - scale.mean) / scale.std
    return torch.as_tensor(np.stack([frames[t - network.history : t] for t in chosen]))


def unit_modes(
    network: rc.networks.RetinaCNN, windows: torch.Tensor, modes: int, steps: int
) -> tuple[Floats, Floats]:
    """Decompose what every unit of the first layer contributed; maps and loadings.

    Maps (mode, y, x): the fields of the units, each with the sign of its effect on the rate, summed
    with the weights of a mode; the image of their best product of image and time course.
    """
    (cell,) = network.cells
    explained = rc.contribute(
        network,
        windows,
        target=rc.targets.Unit(cell),
        method=rc.methods.IntegratedGradients(steps),
        layers=["conv1"],
        reduction=rc.reductions.AllUnits(),
        progress=False,
    )["layers/conv1"]
    contribution = explained["contribution"].values  # (b, channel, row, column)
    features = torch.as_tensor(contribution.reshape(len(contribution), -1))
    used = (features > 0).any(0)
    dictionary, loading = factorise(features[:, used], modes)
    weights = torch.zeros(modes, features.shape[1])
    weights[:, used] = dictionary.float()
    kernel = network.conv1.weight.detach()
    with torch.no_grad():
        at_rest = network.first_layer(torch.zeros_like(windows[:1])).numpy()
    effect = np.sign((contribution * (explained["activation"].values - at_rest)).mean(0))
    signed = weights.reshape(modes, *effect.shape) * torch.as_tensor(effect).float()
    fields = torch.nn.functional.conv_transpose2d(signed, kernel)
    image = rank_one_parts(fields)[0].nan_to_num(0)  # a mode that is never used has no field
    return image.double().numpy(), loading.double().numpy()


def factorise(features: torch.Tensor, modes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return modes (mode, feature) and loadings (sample, mode), largest mean loading first."""
    fitted = rc.modes.NMF(modes=modes, seed=0).fit(features)
    loading = fitted.encode(features)
    order = loading.mean(0).argsort(descending=True)
    return fitted.dictionary[order], loading[:, order]


def channel_fields(
    network: rc.networks.RetinaCNN, windows: torch.Tensor, modes: int, steps: int, events: int
) -> Floats:
    """Return the parts of fields that active modes of channels made, mean over events, as maps.

    The road of the paper: contributions summed over space by sign, modes, fields split by mode.
    """
    target = rc.targets.Unit(network.cells[0])
    method = rc.methods.IntegratedGradients(steps)
    inputs = xr.DataArray(  # not successive: the order alone counts
        windows.numpy(),
        dims=("time", "lag", "y", "x"),
        coords={"time": np.arange(len(windows)) / network.frame_rate},
    )
    explained = rc.contribute(
        network, inputs, target=target, method=method, layers=["conv1"], progress=False
    )
    found = rc.decompose(explained, rc.modes.NMF(modes=modes, active=4), gap=0, progress=False)
    settings = rc.analysis.FieldSettings(target=target, method=method, samples=0, parts=True)
    times = inputs["time"].values[:: max(1, len(windows) // events)]
    fields = rc.receptive_fields(
        network, inputs, found, layer="conv1", events=times, settings=settings, progress=False
    )
    parts = fields["part"].isel(cell=0)
    return np.asarray(parts.mean("event").transpose("mode", "y", "x").values, np.float64)


def field_maps(
    network: rc.networks.RetinaCNN, windows: torch.Tensor, loading: Floats, modes: int
) -> tuple[Floats, Floats]:
    """Return fields by mode and a factorisation of the fields without modes, (mode, y, x) each.

    Fields are gradients of the rate at every window, written along the time course of their mean.
    By mode: their mean weighted by its loadings, minus their mean.
    """
    fields = torch.cat([instantaneous_fields(network, part)[:, 0] for part in windows.split(256)])
    _, course, _, _ = rank_one_parts(fields.mean(0))
    images = torch.einsum("l,elyx->eyx", course, fields).double().numpy()
    total = loading.sum(0)
    share = loading / np.where(total > 0, total, 1)
    by_mode = np.tensordot(share.T, images, 1) - images.mean(0)
    facing = upright(images.mean(0)[None])[0]
    sign = np.sign((facing * images.mean(0)).sum())
    features = torch.as_tensor(sign * images.reshape(len(images), -1))
    dictionary, _ = factorise(features, modes)
    return by_mode, dictionary.numpy().reshape(modes, *images.shape[1:])


def maps_of(
    cell: str, network: rc.networks.RetinaCNN, train: xr.Dataset, options: argparse.Namespace
) -> dict[str, Floats]:
    """Compute all lists of maps of one cell, and the image of its STA as ``sta``."""
    single = alone(network, cell)
    windows = best_windows(single, train, options.windows)
    modes, steps = options.modes, options.steps
    found: dict[str, Floats] = {}
    found["unit_modes"], loading = unit_modes(single, windows, modes, steps)
    by_mode, plain = field_maps(single, windows, loading, modes)
    found["fields_by_unit_mode"] = by_mode
    found["fields_by_channel_mode"] = channel_fields(single, windows, modes, steps, options.events)
    found["fields"] = plain
    sta, course, filtered, counts = spike_triggered(train, cell)
    if not options.no_stnmf:
        found["stnmf"] = stnmf_maps(filtered, counts)
    found["sta"] = upright(np.tensordot(course, sta, 1)[None])[0]
    return found


def score(cell: Cell, maps: Floats, sta: Floats, seed: int) -> dict[str, float]:
    """Return how many true subunits the maps recover, beside both nulls with as many maps.

    ``maps``: those that show one place. ``recovered``, ``loose`` and ``correlation``: share of true
    subunits above either threshold and mean correlation with the own map (`match`); with
    ``_places``, of random places; with ``_turned``, of the maps with the turned truth.
    ``precision``: share of the maps that recover a subunit; missing without maps.
    """
    random = np.random.default_rng(seed)
    kept, side = local_maps(maps), len(sta)
    truth = centres(cell, side)[cell.true]
    own = match(kept, truth)
    places = [match(somewhere(sta, len(kept), random), truth) for _ in range(DRAWS)]
    angles = random.uniform(np.pi / 9, 2 * np.pi - np.pi / 9, DRAWS)
    rotated = [match(kept, turned(cell, side, angle)) for angle in angles]
    found: dict[str, float] = {"maps": len(kept)}
    for name, values in (("", own), ("_places", places), ("_turned", rotated)):
        found[f"recovered{name}"] = float((np.asarray(values) > RECOVERED).mean())
        found[f"loose{name}"] = float((np.asarray(values) > LOOSE).mean())
        found[f"correlation{name}"] = float(np.mean(values))
    # as many maps as there are subunits, the strongest, beside as many places
    few = min(len(kept), len(truth))
    found["recovered_first"] = float((match(kept[:few], truth) > RECOVERED).mean())
    guesses = [match(somewhere(sta, few, random), truth) > RECOVERED for _ in range(DRAWS)]
    found["recovered_first_places"] = float(np.mean(guesses))
    if len(kept):
        found["precision"] = float((own > RECOVERED).sum() / len(kept))
    return found


def interval(values: Sequence[float], seed: int = 0, draws: int = 2000) -> list[float]:
    """Return mean and 95 % interval over cells, from cells drawn with replacement."""
    given = np.asarray(values)
    random = np.random.default_rng(seed)
    means = given[random.integers(len(given), size=(draws, len(given)))].mean(1)
    return [round(float(x), 3) for x in (given.mean(), *np.percentile(means, [2.5, 97.5]))]


def summary(
    name: str, scores: dict[str, list[dict[str, float]]], species: Sequence[str]
) -> dict[str, Any]:
    """Return one line for one list of maps over all cells; differences cell by cell."""
    rows = scores[name]
    line: dict[str, Any] = {"benchmark": "subunits", "maps": name, "cells": len(rows)}
    for key in rows[0]:
        values = [row[key] for row in rows if key in row]
        line["kept" if key == "maps" else key] = interval(values)
    for null in ("places", "turned"):
        gain = [row["recovered"] - row[f"recovered_{null}"] for row in rows]
        line[f"recovered_above_{null}"] = interval(gain)
    if name != "stnmf" and "stnmf" in scores:
        pairs = zip(rows, scores["stnmf"], strict=True)
        line["recovered_above_stnmf"] = interval(
            [a["recovered"] - b["recovered"] for a, b in pairs]
        )
    for kind in sorted(set(species)):
        some = [row["recovered"] for row, other in zip(rows, species, strict=True) if other == kind]
        line[f"recovered_{kind}"] = interval(some)
    return line


def fit(recording: xr.DataTree, options: argparse.Namespace) -> rc.networks.RetinaCNN:
    """Fit one network to all cells of a group; 4 + 4 channels, the third kernel as it fits."""
    first, second = options.kernels
    third = options.side - (first - 1) - (second - 1)
    return rc.fit_network(
        recording,
        history=LAGS,
        channels=(options.channels, options.channels),
        kernel_sizes=(first, second, third - (third + 1) % 2),
        settings=rc.networks.TrainingSettings(
            epochs=options.epochs, learning_rate=5e-3, weight_decay=options.weight_decay
        ),
        progress=False,
    )


def run_group(cells: list[Cell], number: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Simulate, fit and decompose some cells; kept per group, so that a stopped run goes on."""
    kept = Path(options.keep) / f"group{number}.npz" if options.keep else None
    names = [f"{cell.recording}/{cell.name}" for cell in cells]
    if kept and kept.exists():
        with np.load(kept, allow_pickle=False) as stored:
            if stored["names"].tolist() != names:
                raise rc.RetinaCodecError(
                    f"{kept} must hold the cells of this run; it holds {stored['names'].tolist()}. "
                    "Give another folder as --keep."
                )
            return [_unpack(stored, k) for k in range(len(names))]
    recording = record(cells, options.minutes, options.side, options.seed)
    started = time.process_time()
    network = fit(recording, options)
    seconds = (time.process_time() - started) / len(cells)
    test = recording["test"].to_dataset()
    predicted = rc.networks.predict_rates(network, test, progress=False)
    expected = test["expected"].sel(time=predicted["time"], cell=predicted["cell"])
    found = []
    for name in names:
        pair = (predicted.sel(cell=name).values, expected.sel(cell=name).values)
        started = time.process_time()
        maps = maps_of(name, network, recording["train"].to_dataset(), options)
        spent = seconds + time.process_time() - started
        maps["r"], maps["seconds"] = np.corrcoef(*pair)[0, 1], np.array(spent)
        found.append(maps)
    if kept:
        kept.parent.mkdir(parents=True, exist_ok=True)
        arrays = {f"{k}/{key}": value for k, row in enumerate(found) for key, value in row.items()}
        np.savez_compressed(kept, names=np.array(names), **arrays)
    return found


def _unpack(stored: Any, number: int) -> dict[str, Any]:
    """Return the maps of one cell of a stored group."""
    prefix = f"{number}/"
    return {key.removeprefix(prefix): stored[key] for key in stored if key.startswith(prefix)}


def draw_figure(path: str, cells: list[Cell], found: list[dict[str, Any]]) -> None:
    """Draw true subunits, STA and the outlines of all maps of some cells."""
    import matplotlib.pyplot as plt

    shown = [name for name in LISTS if name in found[0]]
    figure, axes = plt.subplots(
        len(cells), 1 + len(shown), figsize=(1.9 * (1 + len(shown)), 2.05 * len(cells)),
        squeeze=False, layout="constrained",
    )  # fmt: skip
    titles = {
        "unit_modes": "unit modes",
        "fields_by_unit_mode": "fields by unit mode",
        "fields_by_channel_mode": "fields by channel mode",
        "fields": "fields, no contributions",
        "stnmf": "STNMF",
    }
    for row, (cell, maps) in enumerate(zip(cells, found, strict=True)):
        side = len(maps["sta"])
        middle = (side - 1) / 2
        truth = centres(cell, side)[cell.true]
        for column, name in enumerate(["sta", *shown]):
            axis = axes[row, column]
            axis.imshow(maps["sta"], cmap="gray_r", alpha=1 if name == "sta" else 0.35)
            for place in cell.places[cell.true] + middle:
                axis.add_patch(plt.Circle(place, 1, fill=False, color="#c1272d", lw=1.1))
            if name == "sta":
                axis.set_ylabel(f"{cell.species}, {len(truth)} subunits", fontsize=9)
                label = "STA and truth"
            else:
                kept = local_maps(maps[name])
                for image in kept:
                    axis.contour(image, [image.max() / 2], colors="#1f6fb4", linewidths=0.8)
                share = (match(kept, truth) > RECOVERED).sum()
                axis.set_xlabel(f"{share} of {len(truth)}, {len(kept)} maps", fontsize=8)
                label = titles[name]
            if row == 0:
                axis.set_title(label, fontsize=9)
            axis.set_xticks([])
            axis.set_yticks([])
    figure.savefig(path, dpi=100)
    plt.close(figure)


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    line = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    line.add_argument("--parameters", required=True, help="clone of subunit_grid_model")
    line.add_argument("--cells", type=int, default=24, help="that are reported")
    line.add_argument("--pilot", type=int, default=3, help="drawn before, for choosing settings")
    line.add_argument("--report-pilot", action="store_true", help="run these instead")
    line.add_argument("--group", type=int, default=12, help="cells that share a network")
    line.add_argument("--minutes", type=float, default=40)
    line.add_argument("--side", type=int, default=23, help="px of a frame; 1 px is 1 sigma")
    line.add_argument("--channels", type=int, default=4, help="of both layers")
    line.add_argument("--kernels", type=int, nargs=2, default=[7, 3], help="of both layers, px")
    line.add_argument("--epochs", type=int, default=7)
    line.add_argument("--weight-decay", type=float, default=0.2)
    line.add_argument("--windows", type=int, default=2000, help="explained, highest rates")
    line.add_argument("--steps", type=int, default=10, help="of integrated gradients")
    line.add_argument("--modes", type=int, default=12)
    line.add_argument("--events", type=int, default=40, help="for fields by channel mode")
    line.add_argument("--seed", type=int, default=0)
    line.add_argument("--no-stnmf", action="store_true", help="leave the comparison out")
    line.add_argument("--keep", help="folder for maps; a stopped run goes on from there")
    line.add_argument("--figure", help="PNG of four cells")
    return line.parse_args(given)


def main(given: Sequence[str] | None = None) -> None:
    """Run it."""
    options = arguments(given)
    if not options.no_stnmf:
        open_stnmf()  # before the long work
    wanted = options.pilot + (0 if options.report_pilot else options.cells)
    drawn = draw_cells(options.parameters, wanted, seed=options.seed, side=options.side)
    cells = drawn if options.report_pilot else drawn[options.pilot :]
    found: list[dict[str, Any]] = []
    scores: dict[str, list[dict[str, float]]] = {}
    for start in range(0, len(cells), options.group):
        some = cells[start : start + options.group]
        found += run_group(some, start // options.group, options)
        for cell, maps in zip(cells[start:], found[start:], strict=False):
            line = {
                "cell": f"{cell.recording}/{cell.name}",
                "subunits": int(cell.true.sum()),
                "sigma": round(cell.sigma, 1),
                "r": round(float(maps["r"]), 3),
                "cpu_seconds": round(float(maps["seconds"]), 1),
            }
            for name in (name for name in LISTS if name in maps):
                scores.setdefault(name, []).append(
                    score(cell, maps[name], maps["sta"], options.seed)
                )
                line[name] = round(scores[name][-1]["recovered"], 2)
            print(json.dumps(line), flush=True)
    for name in scores:
        print(json.dumps(summary(name, scores, [cell.species for cell in cells])))
    if options.figure:
        step = max(1, len(cells) // 4)
        draw_figure(options.figure, cells[::step][:4], found[::step][:4])


if __name__ == "__main__":
    try:
        main()
    except rc.RetinaCodecError as error:
        sys.exit(str(error))
