# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # A real retina: from published spikes to modes, and how far they can be believed
#
# For a recording of white noise:
#
# 1. spike-triggered averages choose the cells and the part of the screen;
# 2. networks of several sizes are fitted, the validation part chooses one, and it is fitted from
#    several seeds; a linear-nonlinear model of every cell is the baseline;
# 3. both are judged on times that neither saw, against the noise ceiling where frames repeat;
# 4. contributions, modes and pathways are computed for two parts of the recording, for the network
#    of another seed, and for a network with shuffled weights;
# 5. one table says what agrees, each number beside its null;
# 6. every channel of both layers, and every edge between them, is cut in the network on frames that
#    the fit never saw: how well do contributions foretell what the network then does?
#
#     python analyses/real_retina.py --recording cell_data_01_NC.mat --out salamander \
#         --set trials=48 --set region=35,85,95,145
#     python analyses/real_retina.py --recording 20080628_R3.mat --out mouse \
#         --sizes 5,5,3:10 7,5,5:15
#
# Every step keeps its result in `--out` and is skipped when it is there.

# %%
"""Fit, explain and check one recording of white noise; print what holds as tables."""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from matplotlib.figure import Figure
from scipy.cluster.vq import kmeans2

import retina_codec as rc
from retina_codec.paper.script import run_script

MARGIN = 8  # px between a centre and the edge of the part that is shown to the network
RESAMPLES = 2000


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recording", required=True, help="whatever rc.open_recording opens")
    parser.add_argument("--out", type=Path, required=True, help="folder of all results")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="options of the recording"
    )
    parser.add_argument(
        "--sizes",
        nargs="+",
        default=["9,7,7:12", "11,9,7:15"],
        help="kernel sizes of three layers and the history in frames, to choose from",
    )
    parser.add_argument("--margin", type=int, default=MARGIN, help="px to the edge of the screen")
    parser.add_argument("--trial-epochs", type=int, default=3, help="of the choice of the size")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--windows-per-epoch", type=int, default=16000)
    parser.add_argument("--weight-decay", type=float, default=1e-4, help="of the fits")
    parser.add_argument("--noise", type=float, default=0.05, help="before each ReLU, in training")
    parser.add_argument("--seeds", type=int, default=2, help="networks that are fitted, at least 2")
    parser.add_argument("--explain", type=int, default=6000, help="windows of each half")
    parser.add_argument("--layers", nargs="+", default=["conv1", "conv2"])
    parser.add_argument("--modes", type=int, default=32)
    parser.add_argument("--copies", type=int, default=5, help="with shifted features, the null")
    parser.add_argument("--cut", type=int, default=96, help="windows in which channels are cut")
    parser.add_argument("--quick", action="store_true", help="small fits, to try the script")
    return parser.parse_args(words)


def options_of(pairs: list[str]) -> dict[str, Any]:
    """Return NAME=VALUE as options: numbers, lists of numbers separated by commas, or text."""
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise rc.RetinaCodecError(f"--set must be NAME=VALUE; got {pair!r}.")
        try:
            numbers = [int(word) for word in value.split(",")]
            found[name] = numbers[0] if len(numbers) == 1 else numbers
        except ValueError:
            found[name] = value
    return found


# %% [markdown]
# ## 1. Cells with a receptive field, away from the edge


# %%
def choose_cells(options: argparse.Namespace) -> xr.DataTree:
    """Average spikes, draw the fields, and keep the cells that a network can read."""
    settings = options_of(options.set)
    recording = rc.open_recording(options.recording, **settings)
    path = options.out / "averages.nc"
    if not path.exists():
        averages = rc.recordings.spike_triggered_average(recording["train"])
        averages.to_netcdf(path)
        figure = rc.figures.plot_averages(averages)
        figure.savefig(options.out / "averages.png", dpi=120, bbox_inches="tight")
    averages = xr.open_dataset(path).load()
    keep = averages["polarity"].values != "none"
    for dim in ("y", "x"):
        pixels, center = recording["train"][dim].values, averages[f"center_{dim}"].values
        margin = min(options.margin, (len(pixels) - 1) // 3)
        keep &= (center >= pixels[0] + margin) & (center <= pixels[-1] - margin)
    cells = averages["cell"].values[keep].tolist()
    print(f"{len(cells)} of {keep.size} cells have a field, away from the edge")
    if len(cells) < 4:
        raise rc.RetinaCodecError(
            f"at least 4 cells must have a receptive field within the part shown; {len(cells)} "
            "have. Choose another region or a smaller --margin."
        )
    chosen = rc.open_recording(options.recording, **settings, cells=cells)
    return with_centers(chosen, averages.sel(cell=cells))


def with_centers(recording: xr.DataTree, averages: xr.Dataset) -> xr.DataTree:
    """Give the cells centres, in px of the frames, and the polarity as type."""
    nodes = {}
    for node in recording.subtree:
        part = node.to_dataset(inherit=False)
        if node.path in ("/train", "/test"):
            part = part.assign_coords(
                {
                    f"center_{dim}": (
                        "cell",
                        averages[f"center_{dim}"].values - float(part[dim][0]),
                        {"units": "px"},
                    )
                    for dim in ("y", "x")
                }
            )
        nodes[node.path] = part
    return xr.DataTree.from_dict(nodes).load()


# %% [markdown]
# ## 2. Networks and the baseline


# %%
def fit(options: argparse.Namespace, recording: xr.DataTree) -> dict[str, Any]:
    """Choose the size on the validation part, then fit from several seeds; fit the baseline."""
    choice = options.out / "choice.json"
    tried: dict[str, float] = json.loads(choice.read_text()) if choice.exists() else {}
    for size in options.sizes:
        if size not in tried:
            network = fit_one(options, recording, size, options.trial_epochs, seed=100)
            tried[size] = min(network.training_record["validation_loss"])
            choice.write_text(json.dumps(tried))
    best = min(options.sizes, key=lambda size: tried[size])
    print(f"validation loss (nats per bin): {tried}; taken: {best}")
    networks: dict[str, Any] = {}
    for seed in range(max(2, options.seeds)):
        folder = options.out / f"network_{seed}"
        if not folder.exists():
            network = fit_one(options, recording, best, options.epochs, seed, folder)
            rc.save_network(network, folder)
        networks[f"network {seed}"] = rc.load_network(folder)
    kernels, history = best.split(":")
    path = options.out / "baseline.pt"
    if path.exists():
        state = torch.load(path, weights_only=True)
        first = networks["network 0"]
        baseline = rc.networks.LinearNonlinear(
            state["filters"],
            state["offset"],
            state["gain"],
            cells=first.cells,
            normalisation=first.normalisation,
            frame_rate=first.frame_rate,
        ).eval()
    else:
        few = rc.networks.LnSettings((int(kernels.split(",")[0]) // 2,), (1,), (1e-4,), 3)
        settings = few if options.quick else None
        baseline = rc.networks.fit_ln(recording, history=int(history), settings=settings)
        torch.save(baseline.state_dict(), path)
    return networks | {"linear-nonlinear": baseline}


def fit_one(
    options: argparse.Namespace,
    recording: xr.DataTree,
    size: str,
    epochs: int,
    seed: int,
    folder: Path | None = None,
) -> Any:
    """Fit one network; training resumes where it was interrupted."""
    kernels, _, history = size.partition(":")
    settings = rc.networks.TrainingSettings(
        epochs=epochs,
        windows_per_epoch=options.windows_per_epoch,
        weight_decay=options.weight_decay,
        seed=seed,
    )
    return rc.fit_network(
        recording,
        history=int(history),
        kernel_sizes=[int(word) for word in kernels.split(",")],
        noise=options.noise,
        settings=settings,
        resume=None if folder is None else folder.with_suffix(".partial"),
    )


# %% [markdown]
# ## 3. Prediction of times that no fit saw


# %%
def judge(options: argparse.Namespace, recording: xr.DataTree, models: dict[str, Any]) -> None:
    """Print and draw r by cell, over the ceiling where there is one, with intervals over cells."""
    quality = {
        name: rc.analysis.prediction_quality(model, recording) for name, model in models.items()
    }
    table = xr.concat(quality.values(), xr.Variable("model", list(quality)))
    table.to_netcdf(options.out / "prediction.nc")
    random = np.random.default_rng(0)
    drawn = random.integers(0, table.sizes["cell"], (RESAMPLES, table.sizes["cell"]))
    baseline = table["pearson"].sel(model="linear-nonlinear").values

    def words(values: Any) -> str:
        means = values[drawn].mean(axis=1)
        low, high = np.quantile(means, [0.025, 0.975])
        return f"{values.mean():.3f} [{low:.3f} {high:.3f}]"

    print("| model | r | r / ceiling | r − r of the linear-nonlinear model |")
    print("|---|---|---|---|")
    for name in quality:
        r = table["pearson"].sel(model=name).values
        ceiling = (
            table["noise_ceiling"].sel(model=name).values if "noise_ceiling" in table else None
        )
        share = "no repeats" if ceiling is None else words(r / ceiling)
        print(f"| {name} | {words(r)} | {share} | {words(r - baseline)} |")
    figure = Figure(figsize=(4.2, 4.0))
    axis = figure.add_subplot()
    first = table["pearson"].sel(model="network 0").values
    axis.plot([0, 1], [0, 1], color="0.6", lw=0.8)
    axis.plot(baseline, first, "o", ms=5, color="#4c3f91", alpha=0.8)
    axis.set(xlim=(0, 1), ylim=(0, 1), xlabel="r, linear-nonlinear model", ylabel="r, network")
    axis.set_title("One dot per cell, held-out frames", loc="left", fontsize=10)
    figure.savefig(options.out / "prediction.png", dpi=130, bbox_inches="tight")


# %% [markdown]
# ## 4. Contributions, modes, pathways


# %%
def explain(options: argparse.Namespace, network: Any, part: xr.Dataset, name: str) -> xr.DataTree:
    """Return contributions, modes and pathways of one network on one part of the recording."""
    path = options.out / f"explained_{name}.nc"
    if not path.exists():
        found = rc.contribute(
            network,
            part,
            target=rc.targets.Surprisal(),
            method=rc.methods.IntegratedGradients(8, quadrature="chords"),
            layers=options.layers,
        )
        found = rc.decompose(found, decomposition(options))
        windows = 24 if options.quick else 240
        found = rc.analysis.own_contributions(network, part, found, windows=windows)
        resamples = 20 if options.quick else 200
        rc.save_tree(rc.find_pathways(found, resamples=resamples), path)
    return rc.open_tree(path, lazy=False)


def decomposition(options: argparse.Namespace) -> Any:
    """Return the sparse autoencoder of all comparisons."""
    few = {"restarts": 1, "epochs": 3, "encoder_epochs": 1, "exchanges": 0} if options.quick else {}
    return rc.modes.SparseAutoencoder(modes=options.modes, **few)


def with_shuffled_weights(network: Any, seed: int = 0) -> Any:
    """Return a copy whose weights are permuted within every parameter."""
    state = {name: value.clone() for name, value in network.state_dict().items()}
    generator = torch.Generator().manual_seed(seed)
    for name, _ in network.named_parameters():
        flat = state[name].flatten()
        state[name] = flat[torch.randperm(len(flat), generator=generator)].reshape_as(state[name])
    copy = type(network).from_config(network.config())
    copy.load_state_dict(state)
    return copy.eval()


# %% [markdown]
# ## 5. What agrees


# %%
def compare(options: argparse.Namespace, recording: xr.DataTree, models: dict[str, Any]) -> None:
    """Print the table of agreements, each beside its null."""
    train = recording["train"].to_dataset()
    count = options.explain + models["network 0"].history
    if 2 * count > train.sizes["time"]:
        raise rc.RetinaCodecError(
            f"--explain must leave two halves without common frames; the train split has "
            f"{train.sizes['time']} frames for 2 × {count}. Give a smaller number."
        )
    halves = train.isel(time=slice(0, count)), train.isel(time=slice(-count, None))
    first = explain(options, models["network 0"], halves[0], "first_half")
    second = explain(options, models["network 0"], halves[1], "second_half")
    other = explain(options, models["network 1"], halves[0], "other_seed")
    shuffled = explain(
        options, with_shuffled_weights(models["network 0"]), halves[0], "shuffled_weights"
    )
    null = rc.analysis.shifted_copies(second, decomposition(options), copies=options.copies)
    rows = {
        "other half of the recording": rc.analysis.reproducibility(
            first, second, compare="dictionary", null=null
        ),
        "network of another seed": rc.analysis.reproducibility(first, other),
        "network with shuffled weights": rc.analysis.reproducibility(first, shuffled),
    }
    print("| compared with | layer | what | agreement | null mean | null 95 % | p |")
    print("|---|---|---|---|---|---|---|")
    for name, found in rows.items():
        for layer in found["layer"].values:
            for quantity in found["quantity"].values:
                one = found.sel(layer=layer, quantity=quantity)
                low, high = one["interval"].values
                interval = f" [{low:.2f} {high:.2f}]" if np.isfinite(low) else ""
                print(
                    f"| {name} | {layer} | {quantity} | {float(one['agreement']):.2f}{interval} | "
                    f"{float(one['null_mean']):.2f} | {float(one['null_high']):.2f} | "
                    f"{float(one['p_value']):.3f} |"
                )
    table = xr.concat(rows.values(), xr.Variable("compared_with", list(rows)))
    table.to_netcdf(options.out / "agreement.nc")
    against_averages(options, first)
    draw_agreement(options, table)


def against_averages(options: argparse.Namespace, results: xr.DataTree) -> None:
    """Compare pathways with a grouping of cells by their averages, which no mode ever saw."""
    averages = xr.open_dataset(options.out / "averages.nc").load()
    random = np.random.default_rng(0)
    for layer in options.layers:
        pathway = results[f"layers/{layer}/pathways/pathway"]
        own = averages.sel(cell=pathway["cell"].values)
        course = own["time_course"].values
        course = course / np.linalg.norm(course, axis=1, keepdims=True)
        size = own["size"].values[:, None]
        features = np.hstack([course, 0.5 * (size - size.mean()) / max(size.std(), 1e-9)])
        groups = int(pathway.max()) + 1
        labels = kmeans2(features, groups, seed=0, minit="++")[1]
        agreed = rand(pathway.values, labels)
        by_chance = [rand(pathway.values, random.permutation(labels)) for _ in range(999)]
        p = (1 + sum(value >= agreed for value in by_chance)) / 1000
        print(
            f"{layer}: {groups} pathways against {groups} groups by time course and size: "
            f"ARI {agreed:.2f}, null 95 % {np.quantile(by_chance, 0.95):.2f}, p {p:.3f}"
        )


def rand(one: Any, other: Any) -> float:
    """Return the adjusted Rand index."""
    from sklearn.metrics import adjusted_rand_score

    return float(adjusted_rand_score(one, other))


def draw_agreement(options: argparse.Namespace, table: xr.Dataset) -> None:
    """Draw agreements as dots, and the 95 % of their nulls as bars."""
    figure = Figure(figsize=(9.6, 3.2))
    axes = figure.subplots(1, table.sizes["quantity"], sharey=True)
    names = [
        f"{name}, {layer}"
        for name in table["compared_with"].values
        for layer in table["layer"].values
    ]
    for axis, quantity in zip(axes, table["quantity"].values, strict=True):
        own = table.sel(quantity=quantity).stack(row=("compared_with", "layer"))
        place = np.arange(len(names))[::-1]
        axis.barh(place, own["null_high"], height=0.55, color="0.85", label="null, up to 95 %")
        axis.plot(own["agreement"], place, "o", color="#4c3f91", label="agreement")
        for row, (low, high) in zip(
            place, own["interval"].transpose("row", "bound").values, strict=True
        ):
            axis.plot([low, high], [row, row], color="#4c3f91", lw=1.2)
        axis.set_title(str(quantity), loc="left", fontsize=10)
        axis.set_xlim(min(-0.05, float(own["agreement"].min()) - 0.05), 1.02)
        axis.set_yticks(place, names, fontsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1].legend(loc="lower right", fontsize=7, frameon=False)
    figure.savefig(options.out / "agreement.png", dpi=130, bbox_inches="tight")


# %% [markdown]
# ## 6. Contributions against the network's own answer


# %%
def silence(options: argparse.Namespace, recording: xr.DataTree, network: Any) -> None:
    """Print how well contributions foretell what is lost when channels and edges are cut."""
    path = options.out / "silencing.nc"
    if not path.exists():
        cut(options, recording["test"].to_dataset(), network).to_netcdf(path)
    table = xr.load_dataset(path)
    print("| target, what is cut | number | slope | R² | dealt anew | right sign | dealt anew |")
    print("|---|---|---|---|---|---|---|")
    for row in table["row"].values:
        one = {name: float(values) for name, values in table.sel(row=row).items()}
        print(
            f"| {row} | {one['edges']:.0f} | {one['slope']:.2f} | "
            f"{one['r2']:.2f} | {one['r2_null']:.2f} (p {one['r2_p']:.3f}) | "
            f"{one['sign']:.2f} | {one['sign_null']:.2f} (p {one['sign_p']:.3f}) |"
        )


def cut(options: argparse.Namespace, test: xr.Dataset, network: Any) -> xr.Dataset:
    """Cut every channel, and every edge between layers, on frames that no fit saw."""
    windows = min(options.cut, test.sizes["time"] - network.history)
    part = test.isel(time=slice(0, network.history + windows))
    deals = 99 if options.quick else 999
    rows = {}
    for name, target in (("sum of rates", rc.targets.Sum()), ("surprisal", rc.targets.Surprisal())):
        found = rc.analysis.circuit(network, part, target=target)
        checked = rc.analysis.check_circuit(network, part, found, target=target, permutations=deals)
        for path in ("nodes/conv1", "nodes/conv2", "edges/conv2", "edges/output"):
            scores = checked[path].to_dataset()
            rows[f"{name}, {path}"] = scores.drop_dims(list(scores.dims))
    return xr.concat(rows.values(), xr.Variable("row", list(rows)))


# %%
def main(words: list[str] | None = None) -> None:
    """Run all steps."""
    options = arguments(words)
    options.out.mkdir(parents=True, exist_ok=True)
    recording = choose_cells(options)
    models = fit(options, recording)
    judge(options, recording, models)
    compare(options, recording, models)
    silence(options, recording, models["network 0"])


if __name__ == "__main__":
    run_script(main)
