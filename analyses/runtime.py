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
# After section 10.4 of Melander et al. (ICLR 2026): time of integrated gradients and of
# activation × normalised gradient, and how it grows.
#
# - **A** time per image, two methods; **B** with the steps of the path; **C** of a whole run, with
#   the number of images, which separates what is paid once;
# - **D** by the layer that is explained alone; **E** with the batch, beside the highest memory;
#   **F** the sparse autoencoder at the widths of ResNet-50's and ViT-B's layers;
# - **G**, **H** a language model of GPT-2's shape with random weights: by depth and site of the
#   layer, and by the length of the text; **I** what 50,000 images would take, extrapolated along C,
#   beside the times of the paper on an RTX 6000.
#
# The same code serves the small networks of this repository and ImageNet:
#
#     python analyses/runtime.py --out out
#     python analyses/runtime.py --out out_resnet --data ILSVRC --model resnet50 --device cuda
#
# ## What is to be expected
#
# One *evaluation* is the network forward and back, from the target to the lowest layer that is
# explained and no further. Activation × normalised gradient takes one, integrated gradients with n
# steps take n + 1 (both ends of the path). With e seconds per evaluation and r for what every image
# needs whatever the method (reading, sums over space, labels, writing) the ratio of the two is
#
#     ((n + 1) e + r) / (e + r),  n + 1 = 11 at most.
#
# The paper's 293 ms and 93 ms are a ratio of 3.2, which is r = 3.7 e: most of its time per image
# would not be gradients. For its language model it states 8 s and 0.72 s, a ratio of 11. All layers
# share one evaluation, so all together cost what the lowest costs; a late layer alone is cheaper,
# since the way back to it is shorter.
#
# ## How it is measured
#
# Processor time with one thread on a CPU, so that other work on the machine counts little (wall
# time is kept beside it); wall time on a GPU. Every round measures all settings, in an order of
# its own. Numbers are made of medians over rounds, growth by Theil and Sen's slopes, intervals
# (95 %) by drawing rounds again; with fewer than 5 rounds there are none.

# %%
"""Measure and draw what contributions of an image network and of a language model cost."""

import argparse
import ctypes
import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

import retina_codec as rc
from retina_codec.paper import HookedFunction, borrow, some_inputs
from retina_codec.paper.claims import Claim, judge
from retina_codec.paper.script import run_figure, run_script
from retina_codec.paper.study import ImageStudy, study_arguments, study_of
from retina_codec.paper.timing import exponent, growth, over_rounds, slope, time_rounds

NAME = "runtime"
PAPER = {"IntegratedGradients": 0.293, "ActNormGrad": 0.093}  # s per image, ResNet-50, RTX 6000
IMAGES, STEPS = 50_000, 10
PATH, ONE = PAPER  # the two methods
SITES = ("post_attention", "post_mlp")
BASE = {"part": "images", "sweep": "", "method": PATH, "steps": STEPS, "batch": 0, "layers": "all",
        "images": 0, "tokens": 0, "channels": 0, "depth": np.nan, "above": np.nan}  # fmt: skip
WIDTHS = {"ResNet-50": (256, 2048), "ViT-B": (768, 3072)}  # channels: early and late; others, MLP
GPT2 = {"n_embd": 192, "n_layer": 6, "n_head": 6, "vocab_size": 2048}

Row = dict[str, Any]
Work = Callable[[], Any]


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    study_arguments(parser, count=64)
    parser.add_argument("--rounds", type=int, default=5, help="times everything is measured")
    parser.add_argument("--batch", type=int, default=8, help="images at a time, where not varied")
    parser.add_argument("--tokens", type=int, nargs="+", default=[32, 64, 128, 256])
    return parser.parse_args(words)


def method_of(row: Row) -> Any:
    """Return the method of a setting."""
    return (
        rc.methods.IntegratedGradients(row["steps"])
        if row["method"] == PATH
        else rc.methods.ActNormGrad()
    )


# %% [markdown]
# ## Step 1: measure and save
#
# Images go through `contribute`, as a user's would; more than ``--count`` are the same ones again.


# %%
def image_rows(study: ImageStudy, batch: int) -> list[Row]:
    """List the settings of images: number, steps, batch, layers."""
    base = BASE | {"batch": batch, "images": 2 * batch}
    rows = [
        base | {"sweep": "images", "method": method, "images": batch * number}
        for method, numbers in ((PATH, (1, 2, 4, 8)), (ONE, (4, 8, 16, 32, 64)))
        for number in numbers
    ]
    rows += [base | {"sweep": "steps", "steps": steps} for steps in (2, 5, 10, 20, 40)]
    rows += [
        base | {"sweep": "batch", "method": ONE, "images": 8 * batch, "batch": size}
        for size in (1, 4, 16, 64)
    ]
    blocks = study.layers_of("blocks")
    places = (blocks[0], blocks[len(blocks) // 2], blocks[-1], "all")
    return rows + [
        base | {"sweep": "layers", "layers": name, "method": method, "images": number * batch}
        for method, number in ((PATH, 2), (ONE, 8))
        for name in places
    ]


def image_work(study: ImageStudy, row: Row) -> Work:
    """Return a whole run over some images."""
    layers = study.network.layers if row["layers"] == "all" else [row["layers"]]
    images = some_inputs(study.images, [n % len(study.labels) for n in range(row["images"])])
    options: dict[str, Any] = {"target": study.target, "method": method_of(row)}
    options |= {"layers": list(layers), "batch_size": row["batch"], "device": study.device}
    return lambda: rc.contribute(study.network, images, **options, progress=False)


def training_rows() -> list[Row]:
    """List the widths at which an autoencoder is fitted."""
    return [
        BASE | {"part": "autoencoder", "sweep": name, "method": "", "channels": width}
        for name, widths in WIDTHS.items()
        for width in widths
    ]


def training_work(row: Row, seed: int) -> Work:
    """Return a fit of 64 modes, 5 at a time, to 128 random sparse contributions, 2 alternations."""
    random = np.random.default_rng(seed)
    values = random.gamma(1, 1, (128, row["channels"]))
    values *= random.random(values.shape) < 0.2
    fit = rc.modes.SparseAutoencoder(
        modes=64, active=5, seed=seed, restarts=1, epochs=2, patience=2, encoder_epochs=1
    )
    features = torch.tensor(values, dtype=torch.float32)
    return lambda: fit.fit(features, progress=False)


# %% [markdown]
# Of the language model the method alone is timed, without the look at the layers that comes once
# per run. ``above`` is the share of the weights that work above the layer.


# %%
def language_model(longest: int, seed: int, device: str | None) -> Any:
    """Return a language model of GPT-2's shape with random weights; None without transformers."""
    try:
        from transformers import GPT2Config, GPT2LMHeadModel
    except ImportError:
        return None
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        ends = {"bos_token_id": 0, "eos_token_id": 0}
        return GPT2LMHeadModel(GPT2Config(**GPT2, **ends, n_positions=longest)).eval().to(device)


def language_rows(network: Any, tokens: list[int]) -> list[Row]:
    """List the settings of texts: depth and site at the middle length, then lengths."""
    if network is None:
        return []
    base = BASE | {"part": "language", "images": 1, "batch": 1}
    words = {"input_ids": torch.zeros(1, 4, dtype=torch.long)}
    rows = []
    for site in SITES:
        weights = rc.summarize(network, words, layers=site).table["parameters_above"].values
        names = rc.adapt(network, site).layers
        for depth in dict.fromkeys((0, len(names) // 2, len(names) - 1)):
            share = weights[depth] / sum(p.numel() for p in network.transformer.h.parameters())
            place = {"layers": names[depth], "depth": depth / max(1, len(names) - 1)}
            rows.append(base | place | {"sweep": site, "above": share})
    total = 1 + network.lm_head.weight.numel() / sum(
        p.numel() for p in network.transformer.h.parameters()
    )
    middle = tokens[len(tokens) // 2]
    rows = [row | {"above": row["above"] / total, "tokens": middle} for row in rows]
    rows += [base | {"sweep": "tokens", "tokens": number} for number in tokens]
    return [row | {"method": method} for method in PAPER for row in rows]


def language_work(network: Any, row: Row, seed: int) -> Work:
    """Return the explanation of the entropy of the next word of one text."""
    generator = torch.Generator().manual_seed(seed)
    words = torch.randint(0, GPT2["vocab_size"], (1, row["tokens"]), generator=generator)
    inputs: Any = {"input_ids": words.to(network.device)}
    every = [name for site in SITES for name in rc.adapt(network, site).layers]
    layers = every if row["layers"] == "all" else [row["layers"]]
    function = HookedFunction.open(network, inputs, layers)
    method = method_of(row).prepare(lambda: inputs, function)  # its baseline: the first word
    return lambda: method.explain(function, rc.targets.Entropy(), function.enter(inputs))


def compute(options: argparse.Namespace, path: Path) -> None:
    """Measure all settings in rounds, then the highest memory by batch; save them."""
    study = study_of(options)
    on_gpu = study.device is not None and torch.device(study.device).type == "cuda"
    threads = torch.get_num_threads()
    network = language_model(max(options.tokens), options.seed, study.device)
    rows = image_rows(study, options.batch) + training_rows()
    rows += language_rows(network, options.tokens)
    with ExitStack() as open_:
        if not on_gpu:
            open_.callback(torch.set_num_threads, threads)
            torch.set_num_threads(1)
        if network is not None:
            network = open_.enter_context(borrow(network))
        makers: dict[str, Callable[[Row], Work]] = {
            "images": lambda row: image_work(study, row),
            "autoencoder": lambda row: training_work(row, options.seed),
            "language": lambda row: language_work(network, row, options.seed),
        }
        works = [makers[row["part"]](row) for row in rows]
        memory = [
            highest_memory(work, on_gpu) if row["sweep"] == "batch" else np.nan
            for row, work in zip(rows, works, strict=True)
        ]
        finish = torch.cuda.synchronize if on_gpu else None
        table = time_rounds(works, options.rounds, seed=options.seed, finish=finish)
    table["memory"] = ("setting", memory, {"units": "MB"})
    table = table.assign_coords({key: ("setting", [row[key] for row in rows]) for key in BASE})
    table.attrs |= {
        "model": study.name,
        "device": study.device or "cpu",
        "clock": "wall" if on_gpu else "processor",
        "threads": threads if on_gpu else 1,
        "layers": len(study.network.layers),
        "language": " ".join(f"{key}={value}" for key, value in GPT2.items()),
    }
    rc.save_tree(xr.DataTree(table), path, overwrite=True)


def highest_memory(work: Work, on_gpu: bool) -> float:
    """Return the highest memory of a work above the level before; NaN where nothing tells. MB."""
    marks, status = Path("/proc/self/clear_refs"), Path("/proc/self/status")

    def level(key: str) -> float:
        lines = [line.split() for line in status.read_text().splitlines()]
        return next(int(words[1]) / 1e3 for words in lines if words[0] == f"{key}:")

    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return float(torch.cuda.max_memory_allocated() - before) / 1e6
    if not marks.exists():
        return float("nan")
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)  # what earlier work left free would be used again and not be seen
    marks.write_text("5")  # starts the highest level afresh
    before = level("VmRSS")
    work()
    return level("VmHWM") - before


# %% [markdown]
# ## Step 2: compare with what the paper says
#
# The rules stood before the numbers: "linear" is an exponent of growth above the smallest size, 1
# where time is a + b · size, whose interval lies within 0.9 to 1.1 (of images by one gradient,
# where the range is widest); "invariant" a ratio of the
# slowest over the fastest within 0.9 to 1.1; "sub-linear" an exponent below 1. A wide interval, as
# on a busy machine, gives "no": it means not shown, not the opposite.
#
# What is said of the length of a text holds for lengths at which not all time is arithmetic: on a
# small network or a fast device short texts cost what every operation costs at least. Long texts
# must grow in proportion, and faster where attention counts.
#
# Not comparable, and so not tested: times in seconds of other networks on other devices; and the
# minutes that an autoencoder trains, since ours is fitted in another way (alternating exact steps
# that stop when nothing is gained, not a fixed number of epochs of gradient descent).


# %%
def chosen(table: xr.Dataset, **values: Any) -> xr.Dataset:
    """Return the settings that have these values, ``seconds`` by the clock that counts."""
    keep = np.full(table.sizes["setting"], True)
    for key, value in values.items():
        keep &= np.isin(table[key].values, value)
    part = table.isel(setting=np.flatnonzero(keep))
    return part.assign(seconds=part[table.attrs["clock"]])


def estimate(
    parts: list[xr.Dataset], number: Callable[[list[np.ndarray]], float]
) -> tuple[float, tuple[float, float]]:
    """Return a number made of the medians of several parts, with its interval over rounds."""
    seconds = np.concatenate([part["seconds"].values for part in parts])
    ends = np.cumsum([part.sizes["setting"] for part in parts])[:-1]
    if not len(seconds) or not all(part.sizes["setting"] for part in parts):
        return np.nan, (np.nan, np.nan)
    return over_rounds(seconds, lambda medians: number(np.split(medians, ends)))


def grown(part: xr.Dataset, key: str, fit: Callable[[Any, Any], float]) -> Any:
    """Return a fit of time over one size, with its interval."""
    return estimate([part], lambda medians: fit(part[key].values, medians[0]))


def by_method(table: xr.Dataset, sweep: str) -> list[xr.Dataset]:
    """Return a sweep of both methods, the path first."""
    return [chosen(table, sweep=sweep, method=method) for method in PAPER]


def over_images(parts: list[xr.Dataset]) -> Callable[[list[np.ndarray]], float]:
    """Return the ratio of the slopes of two parts over images."""
    sizes = [part["images"].values for part in parts]
    return lambda medians: slope(sizes[0], medians[0]) / slope(sizes[1], medians[1])


def every(numbers: list[Any]) -> dict[str, Any]:
    """Turn pairs of number and interval into arguments of `judge`."""
    return {"found": [n[0] for n in numbers], "interval": [n[1] for n in numbers]}


def language_claims(table: xr.Dataset) -> list[Claim]:
    """Judge the language model."""
    source, whole = "section 10.4, language", by_method(table, "tokens")
    middle, ends = estimate(whole, lambda m: float(np.median(m[0] / m[1])))
    lengths = [grown(part, "tokens", exponent) for part in whole]
    return [
        judge(
            "language ratio", source,
            "8 s by integrated gradients, 0.72 s by one gradient: 11 times as long.",
            middle, ends, low=9, high=13, measure="ratio, median over lengths",
        ),
        *layer_claims(table, source, whole),
        judge(
            "tokens", source, "Time grows sub-linearly with the length of the text.",
            **every(lengths), high=1, measure="exponent over tokens", places=list(PAPER),
        ),
    ]  # fmt: skip


def layer_claims(table: xr.Dataset, source: str, whole: list[xr.Dataset]) -> list[Claim]:
    """Judge how time depends on the layer of the language model."""
    single = {
        name: chosen(chosen(table, part="language", method=name), sweep=SITES) for name in PAPER
    }
    depths = [(name, depth) for name in PAPER for depth in np.unique(single[name]["depth"].values)]
    sites = [
        estimate(
            [chosen(single[name], sweep=site, depth=depth) for site in SITES],
            lambda m: float(m[0][0] / m[1][0]),
        )
        for name, depth in depths
    ]
    places = [f"{name} at depth {depth:.1f}" for name, depth in depths]
    if not depths:
        sites, places = [(np.nan, (np.nan, np.nan))], [""]
    spread = [
        estimate([part], lambda m: float(m[0].max() / m[0].min())) for part in single.values()
    ]
    bound = []
    for part, lengths in zip(single.values(), whole, strict=True):
        together = chosen(lengths, tokens=part["tokens"].values)
        bound.append(estimate([part, together], lambda m: float(m[0].max() / m[1][0])))
    return [
        judge(
            "hook location", source, "Time does not depend on the site, attention or MLP.",
            **every(sites), low=0.9, high=1.1, measure="attention over MLP, one block",
            places=places,
        ),
        judge(
            "depth", source, "Time does not depend on the depth of the layer.",
            **every(spread), low=0.9, high=1.1, measure="slowest over fastest layer",
            places=list(PAPER),
        ),
        judge(
            "bound", "ours", "No layer alone costs more than all layers together.",
            **every(bound), high=1.1, measure="slowest layer over all layers at once",
            places=list(PAPER),
        ),
    ]  # fmt: skip


def claims_of(table: xr.Dataset) -> list[Claim]:
    """Judge what was measured."""
    source, parts = "section 10.4", by_method(table, "images")
    middle, ends = estimate(parts, over_images(parts))
    found = [
        judge(
            "ratio", source,
            "Integrated gradients with 10 steps take about 3 times as long as one gradient.",
            middle, ends, low=2, high=4, measure="ratio of times per image",
        )
    ]  # fmt: skip
    for key, part in (("steps", chosen(table, sweep="steps")), ("images", parts[1])):
        middle, ends = grown(part, key, growth)
        found.append(
            judge(
                f"linear in {key}", source, f"Time grows linearly with the number of {key}.",
                middle, ends, low=0.9, high=1.1, measure="exponent of growth",
            )
        )  # fmt: skip
    same = "resnet50" in table.attrs["model"] and table.attrs["device"] != "cpu"
    none = (np.nan, (np.nan, np.nan))
    for (name, seconds), part in zip(PAPER.items(), parts, strict=True):
        middle, ends = grown(part, "images", slope) if same else none
        found.append(
            judge(
                name, source,
                f"{name}: {1000 * seconds:.0f} ms per image (ResNet-50, RTX 6000); no more here.",
                middle, ends, high=seconds,
                measure="s per image" if same else "not comparable: another network",
            )
        )  # fmt: skip
    says = ("Autoencoders of early layers train faster: fewer channels.",
            "Autoencoders of a ViT's MLP (3072 wide) take longer than others (768).")  # fmt: skip
    for text, (name, widths) in zip(says, WIDTHS.items(), strict=True):
        fits = [chosen(table, sweep=name, channels=width) for width in widths[::-1]]
        middle, ends = estimate(fits, lambda m: float(m[0][0] / m[1][0]))
        measure = f"time at {widths[1]} over {widths[0]} channels, 64 modes"
        found.append(judge(f"width {name}", source, text, middle, ends, low=1, measure=measure))
    found.append(
        judge(
            "minutes", source, "Autoencoders train 3 to 7 minutes per layer, 200 epochs.",
            high=7, measure="not comparable: another device, fitted in another way",
        )
    )  # fmt: skip
    return found + language_claims(table)


def card_of(table: xr.Dataset) -> dict[str, Any]:
    """Return time per image and per run, steps in gradients, and 50,000 images extrapolated."""
    card: dict[str, Any] = dict(table.attrs)
    parts, steps = by_method(table, "images"), chosen(table, sweep="steps")

    def both(found: tuple[float, tuple[float, float]], unit: float = 1.0) -> list[float]:
        return [unit * found[0], unit * found[1][0], unit * found[1][1]]

    def once(sizes: Any, seconds: Any) -> float:
        return float(np.median(seconds - slope(sizes, seconds) * sizes))

    for name, part in zip(PAPER, parts, strict=True):
        each = grown(part, "images", slope)
        card[name] = {
            "seconds_per_image": both(each),
            "seconds_once": both(grown(part, "images", once)),
            "hours_of_50000_extrapolated": both(each, IMAGES / 3600),
        }
    count = steps["images"].values[0]
    one_more = estimate(
        [steps, parts[1]],
        lambda m: (
            slope(steps["steps"].values, m[0]) / count / slope(parts[1]["images"].values, m[1])
        ),
    )
    card["ratio"] = both(estimate(parts, over_images(parts)))
    card["one_more_step_over_one_gradient"] = both(one_more)
    card["tokens"] = {
        name: both(grown(part, "tokens", exponent))
        for name, part in zip(PAPER, by_method(table, "tokens"), strict=True)
    }
    card["all_numbers"] = "middle, low and high of 95 %"
    return card


# %% [markdown]
# ## Step 3: draw what was saved


# %%
def draw(options: argparse.Namespace, tree: xr.DataTree) -> list[Path]:
    """Write the card and draw the nine panels; return both paths."""
    from retina_codec.paper.figures.runtime import plot_runtime

    table = tree.to_dataset()
    card, picture = (options.out / f"{NAME}{suffix}" for suffix in (".json", ".png"))
    numbers = card_of(table)
    card.write_text(json.dumps(numbers, indent=1, default=float) + "\n", encoding="utf-8")
    paper = {name: seconds * IMAGES / 3600 for name, seconds in PAPER.items()}
    plot_runtime(table, numbers, paper).savefig(picture, dpi=150)
    return [card, picture]


# %%
def main(words: list[str] | None = None) -> None:
    """Run all steps."""
    print(run_figure(NAME, arguments(words), compute, lambda t: claims_of(t.to_dataset()), draw))


if __name__ == "__main__":
    run_script(main)
