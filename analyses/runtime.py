# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Runtime: what contributions cost
#
# After section 10.4 of Melander et al. (ICLR 2026): time per image of integrated gradients and of
# activation × normalised gradient, and how it grows.
#
# - **A** time per image, two methods; **B** with the steps of the path;
# - **C** with the batch, beside the highest memory; **D** with the layers that are explained;
# - **E** of a whole run, with the number of images; **F** what 50,000 images would take,
#   extrapolated along E, beside the times of the paper on an RTX 6000.
#
# The same code serves the small networks of this repository and ImageNet:
#
#     python analyses/runtime.py --out out
#     python analyses/runtime.py --out out_resnet --data ILSVRC --model resnet50 --device cuda
#
# Times are processor time on a CPU, so that other work on the machine counts little, and wall time
# on a GPU. All settings are measured in turn, again and again; intervals (95 %) are over these
# rounds. Times of the paper are of ResNet-50 on a GPU: no other network is held against them.

# %%
"""Measure and draw what contributions of an image network cost."""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from scipy import stats

import retina_codec as rc
from retina_codec.analysis.claims import Claim, claims_table, judge, save_claims
from retina_codec.analysis.image_study import ImageStudy, study_arguments, study_of
from retina_codec.analysis.spatial_sparsity import some_inputs
from retina_codec.progress import progress_bar

NAME = "runtime"
PAPER = {"IntegratedGradients": 0.293, "ActNormGrad": 0.093}  # s per image, ResNet-50, RTX 6000
IMAGES = 50_000
STEPS = 10
SWEEPS = {"steps": (2, 5, 10, 20), "batch": (1, 4, 8, 24)}


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    study_arguments(parser, count=24)
    parser.add_argument("--rounds", type=int, default=5, help="times everything is measured")
    parser.add_argument("--batch", type=int, default=16, help="images at a time, where not varied")
    return parser.parse_args(words)


# %% [markdown]
# ## Step 1: measure and save


# %%
def settings_of(study: ImageStudy, batch: int) -> list[dict[str, Any]]:
    """List everything that is measured: sweep, value, method, steps, batch, layers, images."""
    blocks, count = study.layers_of("blocks"), len(study.labels)
    base = {"method": "IntegratedGradients", "steps": STEPS, "batch": batch, "images": count}
    base |= {"layers": "all"}
    rows = [base | {"sweep": "method", "method": name} for name in PAPER]
    for key, values in SWEEPS.items():
        rows += [base | {"sweep": key, key: value} for value in values]
    middle = blocks[len(blocks) // 2]
    rows += [
        base | {"sweep": "layers", "layers": name}
        for name in (blocks[0], middle, blocks[-1], "all")
    ]
    whole = max(1, count // batch)  # whole batches: a last, smaller one costs more per image
    parts = dict.fromkeys(min(count, batch * -(-whole * part // 3)) for part in (1, 2, 3))
    return rows + [
        base | {"sweep": "images", "images": number, "method": name}
        for name in PAPER
        for number in parts
    ]


def timed(study: ImageStudy, row: dict[str, Any]) -> tuple[float, float]:
    """Explain once; return seconds, and the highest memory during it, MB."""
    several = rc.IntegratedGradients(row["steps"])
    method = several if row["method"] == "IntegratedGradients" else rc.ActNormGrad()
    layers = study.network.layers if row["layers"] == "all" else [row["layers"]]
    images = some_inputs(study.images, list(range(row["images"])))
    on_gpu = study.device is not None and torch.device(study.device).type == "cuda"
    clock = time.perf_counter if on_gpu else time.process_time
    start_memory(on_gpu)
    start = clock()
    rc.contribute(
        study.network,
        images,
        target=study.target,
        method=method,
        layers=list(layers),
        batch_size=row["batch"],
        device=study.device,
        progress=False,
    )
    if on_gpu:
        torch.cuda.synchronize()
    return clock() - start, highest_memory(on_gpu)


def start_memory(on_gpu: bool) -> None:
    """Start the highest memory afresh."""
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    elif Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")


def highest_memory(on_gpu: bool) -> float:
    """Return the highest memory since then, MB; NaN where the system does not tell."""
    if on_gpu:
        return torch.cuda.max_memory_allocated() / 1e6
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(w.split()[1]) / 1e3 for w in lines if w.startswith("VmHWM")), np.nan)


def compute(options: argparse.Namespace, path: Path) -> None:
    """Measure all settings in turn, several times; save times and memory."""
    study = study_of(options)
    rows = settings_of(study, options.batch)
    for row in rows[:2]:
        timed(study, row)  # kernels are chosen and memory is taken the first time
    order = np.random.default_rng(options.seed)
    seconds = np.full((len(rows), options.rounds), np.nan)
    memory = np.full(len(rows), np.nan)
    for turn in progress_bar(range(options.rounds), description="rounds"):
        for place in order.permutation(len(rows)):
            seconds[place, turn], high = timed(study, rows[place])
            memory[place] = np.fmax(memory[place], high)
    table = xr.Dataset(
        {
            "seconds": (("setting", "round"), seconds, {"units": "s"}),
            "memory": ("setting", memory, {"units": "MB"}),
        },
        coords={key: ("setting", np.array([row[key] for row in rows])) for key in rows[0]},
        attrs={
            "model": study.name,
            "device": study.device or "cpu",
            "threads": torch.get_num_threads(),
            "layers": len(study.network.layers),
            "seed": options.seed,
        },
    )
    rc.save_tree(xr.DataTree(table), path, overwrite=True)


# %% [markdown]
# ## Step 2: compare with what the paper says
#
# Linear growth holds if the interval of the exponent of growth above the first point lies between
# 0.8 and 1.2; 1 where time is a + b · steps. A wide interval, as on a busy machine, gives "no": it
# means not shown, not the opposite. Training of autoencoders is not measured here.


# %%
def interval(values: Any) -> tuple[float, float, float]:
    """Return mean and 95 % interval over rounds (t)."""
    values = np.asarray(values, float)
    middle, half = values.mean(), np.nan
    if len(values) > 1:
        half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(middle), float(middle - half), float(middle + half)


def chosen(table: xr.Dataset, sweep: str, **values: Any) -> xr.Dataset:
    """Return the settings of one sweep."""
    keep = table["sweep"].values == sweep
    for key, value in values.items():
        keep &= table[key].values == value
    return table.isel(setting=np.flatnonzero(keep))


def growth(part: xr.Dataset, key: str) -> np.ndarray:
    """Return, round by round, the exponent of growth from the first to the middle and last value.

    ``log((t₃ − t₁) / (t₂ − t₁)) / log((v₃ − v₁) / (v₂ − v₁))``: 1 where time is a + b · value.
    """
    value, spent = part[key].values.astype(float), part["seconds"].values
    places = [0, len(value) // 2, len(value) - 1]
    first, middle, last = value[places]
    begin, half, whole = spent[places]
    with np.errstate(invalid="ignore", divide="ignore"):
        rise = np.log((whole - begin) / (half - begin))
    return np.asarray(rise / np.log((last - first) / (middle - first)))


def per_image(table: xr.Dataset, method: str) -> np.ndarray:
    """Return the slope of time over images of every round, s per image."""
    part = chosen(table, "images", method=method)
    return np.polyfit(part["images"].values.astype(float), part["seconds"].values, 1)[0]


def claims_of(table: xr.Dataset) -> list[Claim]:
    """Judge what was measured."""
    source = "section 10.4"
    same = "resnet50" in table.attrs["model"] and table.attrs["device"] != "cpu"
    cost = {name: per_image(table, name) for name in PAPER}
    ratio, *ends = interval(cost["IntegratedGradients"] / cost["ActNormGrad"])
    found = [
        judge(
            "ratio", source,
            "Integrated gradients with 10 steps take about 3 times as long as one gradient.",
            ratio, ends, low=2, high=4, measure="ratio of times per image",
        )
    ]  # fmt: skip
    lines = (("steps", chosen(table, "steps")),
             ("images", chosen(table, "images", method="IntegratedGradients")))  # fmt: skip
    for key, part in lines:
        middle, *ends = interval(growth(part, key))
        found.append(
            judge(
                f"linear in {key}", source, f"Time grows linearly with the number of {key}.",
                middle, ends, low=0.8, high=1.2, measure="exponent of growth",
            )
        )  # fmt: skip
    for name, seconds in PAPER.items():
        middle, *ends = interval(cost[name]) if same else (np.nan,) * 3
        found.append(
            judge(
                name, source,
                f"{name}: {1000 * seconds:.0f} ms per image (ResNet-50, RTX 6000); no more here.",
                middle, ends, high=seconds, measure="s per image" if same else "another network",
            )
        )  # fmt: skip
    return found


def card_of(table: xr.Dataset) -> dict[str, Any]:
    """Return times per image, and what 50,000 images would take, extrapolated."""
    card: dict[str, Any] = dict(table.attrs)
    for name in PAPER:
        middle, low, high = interval(per_image(table, name))
        hours = IMAGES / 3600
        card[name] = {
            "seconds_per_image": middle,
            "interval": [low, high],
            "hours_of_50000_extrapolated": middle * hours,
            "hours_interval": [low * hours, high * hours],
        }
    return card


# %% [markdown]
# ## Step 3: draw what was saved


# %%
def draw(options: argparse.Namespace, table: xr.Dataset) -> Path:
    """Draw the six panels; return the picture's path."""
    from retina_codec.figures.runtime import runtime

    picture: Path = options.out / f"{NAME}.png"
    hours = {name: np.multiply(interval(per_image(table, name)), IMAGES / 3600) for name in PAPER}
    paper = {name: seconds * IMAGES / 3600 for name, seconds in PAPER.items()}
    runtime(table, hours, paper).savefig(picture, dpi=150)
    return picture


# %%
def main(words: list[str] | None = None) -> None:
    """Run all steps."""
    options = arguments(words)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"{NAME}.nc"
    if not (options.reuse and path.exists()):
        compute(options, path)
    table = rc.open_tree(path, lazy=False).to_dataset()
    claims = claims_of(table)
    save_claims(claims, options.out / f"{NAME}_claims.csv")
    card = json.dumps(card_of(table), indent=1, default=float)
    (options.out / f"{NAME}.json").write_text(card + "\n", encoding="utf-8")
    print(card)
    print(claims_table(claims))
    print(draw(options, table))


if __name__ == "__main__":
    main()
