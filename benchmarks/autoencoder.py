"""Sparse autoencoders: the authors' training loop against this package.

Both are given the same data at the published size, 6000 × 16 features and 160 modes: planted
modes that are known, and contributions of a layer of the simulated retina's network. Both are
fitted to the first part and judged on the last; each in a fresh process with one thread. Ratios are
of processor time, so other work on the machine counts little. Prints one JSON line.

    python benchmarks/autoencoder.py --reference ~/bscope
    python benchmarks/autoencoder.py --reference ~/bscope --kinds retina --contributions some.nc

Planted data are drawn anew with every seed, and every data set is given to both sides; the
retina's contributions (``--layer``) are fitted with every seed by ours, for stability, and once by
theirs.

The authors' loop is written anew from the settings of their retina script, around their own
network class. ``--workers 4`` reads batches through four processes, as the script does; the default
reads them in the same process.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from authors import load_autoencoder
from measure import measure, parser, report

import retina_codec as rc
from retina_codec.modes.scores.stability import agreement, cosine, matched

HERE = Path(__file__).resolve()
HELD_OUT, GAP, MODES, ACTIVE = 0.25, 40, 160, 3

Arrays = dict[str, np.ndarray]


def planted(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return data (sample, feature) of 12 sparse modes, 2 % noise, and the modes."""
    generator = np.random.default_rng(seed)
    modes = generator.gamma(1.0, 1.0, (12, 16)) * (generator.random((12, 16)) < 0.35)
    for mode in modes:
        if (mode > 0).sum() < 2:
            mode[generator.choice(16, 3, replace=False)] = generator.gamma(1.0, 1.0, 3) + 0.2
    modes /= np.linalg.norm(modes, axis=1, keepdims=True)
    loading = (generator.random((6000, 12)) < 0.12) * generator.lognormal(0, 1, (6000, 12))
    clean = loading @ modes
    return clean + 0.02 * clean.std() * generator.normal(size=clean.shape), modes


def data_of(kind: str, seed: int, contributions: str, layer: str) -> np.ndarray:
    """Return the data, scaled by the standard deviation of the fitted part."""
    if kind == "planted":
        values = planted(seed)[0]
    else:
        explained = rc.open_tree(contributions, lazy=False)[f"layers/{layer}"].to_dataset()
        array = explained["contribution"].transpose("time", "sign", "channel").values.astype(float)
        sign = np.array([-1.0, 1.0])[:, None]  # inhibitory first
        values = (array * sign).reshape(len(array), -1)
    return values / values[: fitted_count(len(values))].std()


def fitted_count(samples: int) -> int:
    """Return how many samples are fitted; the rest are left out or held out."""
    return samples - round(HELD_OUT * samples) - GAP


def theirs(
    reference: str,
    kind: str,
    seed: int,
    contributions: str,
    layer: str,
    epochs: int,
    workers: int,
) -> tuple[Callable[[], Arrays], Callable[[], Arrays]]:
    """Prepare the authors' way: their network, their loop, their settings for the retina."""
    build = load_autoencoder(reference)
    values = torch.tensor(data_of(kind, seed, contributions, layer), dtype=torch.float32)
    train = values[: fitted_count(len(values))]

    def run(count: int) -> Arrays:
        torch.manual_seed(seed)
        width = train.shape[1]
        network = build(width, num_atoms=MODES, threshold=0.9, mlp_hidden_dim=width)
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-5)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=25, gamma=0.98)
        loader = torch.utils.data.DataLoader(
            torch.utils.data.TensorDataset(train),
            batch_size=128,
            shuffle=True,
            drop_last=True,
            num_workers=workers,
        )
        for _ in range(count):
            network.train()
            for (batch,) in loader:
                optimizer.zero_grad()
                _, _, rebuilt = network(batch)
                loss = torch.nn.functional.mse_loss(rebuilt, batch)
                loss = loss + 1e-4 * network.dictionary.get_dictionary().abs().mean()
                loss.backward()
                optimizer.step()
            schedule.step()
        network.eval()
        with torch.no_grad():
            _, loading, _ = network(values)
        modes = network.dictionary.get_dictionary().detach()
        return {"loading": loading.numpy(), "dictionary": modes.numpy()}

    return lambda: run(1), lambda: run(epochs)


def ours(
    kind: str, seed: int, contributions: str, layer: str
) -> tuple[Callable[[], Arrays], Callable[[], Arrays]]:
    """Prepare this package's default with as many modes."""
    values = torch.tensor(data_of(kind, seed, contributions, layer), dtype=torch.float32)
    train = values[: fitted_count(len(values))]

    def run(epochs: int) -> Arrays:
        method = rc.modes.SparseAutoencoder(modes=MODES, active=ACTIVE, seed=seed, epochs=epochs)
        fitted = method.fit(train, progress=False)
        return {
            "loading": fitted.encode(values).numpy(),
            "dictionary": fitted.dictionary.numpy(),
        }

    return lambda: run(1), lambda: run(rc.modes.SparseAutoencoder().epochs)


def judge(values: np.ndarray, found: Arrays, modes: np.ndarray | None) -> dict[str, Any]:
    """Score a fit on held-out samples: R² per feature weighted by variance, sparsity, modes."""
    fitted, last = fitted_count(len(values)), round(HELD_OUT * len(values))
    held = values[-last:]
    left = held - (found["loading"] @ found["dictionary"])[-last:]
    loading = found["loading"] * np.linalg.norm(found["dictionary"], axis=1)
    live = (loading[:fitted] > 0.01).any(0)
    row = {
        "r2": 1 - (left**2).sum() / ((held - held.mean(0)) ** 2).sum(),
        "live_modes": int(live.sum()),
        "mean_active": float((loading[-last:] > 0.01).sum(1).mean()),
    }
    if modes is not None:
        likeness = matched(cosine(modes, found["dictionary"][live]))
        row["recovered_of_12"] = int((likeness >= 0.95).sum())
    return row


def stability(values: np.ndarray, found: list[Arrays]) -> float:
    """Return the mean matched cosine of modes that explain 95 %, over pairs of seeds."""
    fitted = fitted_count(len(values))
    share = [
        np.abs(one["loading"][:fitted]).sum(0) * np.abs(one["dictionary"]).sum(1) for one in found
    ]
    pairs = [
        agreement(cosine(a["dictionary"], b["dictionary"]), share[i], share[i + 1 + j]).leading
        for i, a in enumerate(found)
        for j, b in enumerate(found[i + 1 :])
    ]
    return float(np.mean(pairs))


def compare(kind: str, options: Any) -> dict[str, Any]:
    """Run both sides on one kind of data."""
    kept = {"kind": kind, "contributions": str(options.contributions or ""), "layer": options.layer}
    settings = {
        "reference": str(options.reference),
        "epochs": options.epochs,
        "workers": options.workers,
    }
    seeds = range(options.seeds)
    tasks = [("ours", kept | {"seed": seed}) for seed in seeds]
    tasks += [
        ("theirs", kept | settings | {"seed": seed})
        for seed in (seeds if kind == "planted" else seeds[:1])
    ]
    with ThreadPoolExecutor(options.jobs) as pool:
        measured = list(
            pool.map(lambda t: measure(HERE, *t, threads=options.threads, repeats=1), tasks)
        )
    rows: dict[str, list[dict[str, Any]]] = {"ours": [], "theirs": []}
    for (side, task), (time, arrays) in zip(tasks, measured, strict=True):
        modes = planted(task["seed"])[1] if kind == "planted" else None
        score = judge(data_of(seed=task["seed"], **kept), arrays, modes)
        rows[side].append(score | {name: time[name] for name in ("cpu_seconds", "seconds")})
    found = [
        arrays for (side, _), (_, arrays) in zip(tasks, measured, strict=True) if side == "ours"
    ]
    row: dict[str, Any] = {side: gathered(scores) for side, scores in rows.items()}
    if kind != "planted" and len(found) > 1:  # other seeds of planted data are other data
        row["ours"]["stability"] = stability(data_of(seed=0, **kept), found)
    row["times_less_processor_time"] = row["theirs"]["cpu_seconds"] / row["ours"]["cpu_seconds"]
    return row


def gathered(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Put the scores of several seeds into one row: every value, but times as medians."""
    row: dict[str, Any] = {name: [one[name] for one in rows] for name in rows[0]}
    times = {name: float(np.median(row[name])) for name in ("cpu_seconds", "seconds")}
    return row | times


def main() -> None:
    """Print one JSON line."""
    shared = parser(__doc__ or "")
    shared.add_argument("--reference", type=Path, required=True, help="folder with bscope/")
    shared.add_argument("--epochs", type=int, default=800, help="of the authors' loop")
    shared.add_argument("--workers", type=int, default=0, help="of the authors' loop")
    shared.add_argument("--seeds", type=int, default=5, help="of the planted data, and of our fits")
    shared.add_argument("--contributions", type=Path, help=".nc of `contribute`; the retina's fit")
    kinds = ["planted", "retina"]
    shared.add_argument("--kinds", nargs="+", choices=kinds, default=kinds[:1], help="of the data")
    shared.add_argument("--jobs", type=int, default=1, help="processes side by side")
    shared.add_argument("--layer", default="conv1", help="of the contributions")
    shared.set_defaults(threads=1)
    options = shared.parse_args()
    if "retina" in options.kinds and not options.contributions:
        shared.error("--kinds retina needs --contributions, a file of retina_codec.contribute")
    report(
        {
            "benchmark": "autoencoder",
            "samples": 6000,
            "features": 16,
            "modes": MODES,
            "epochs_of_theirs": options.epochs,
            "workers_of_theirs": options.workers,
            "threads": options.threads,
            "jobs": options.jobs,
            "times": "processor time, user and system, children included; median over seeds",
        }
        | {kind: compare(kind, options) for kind in options.kinds}
    )


if __name__ == "__main__":
    main()
