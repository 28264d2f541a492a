"""Time of contributions, autoencoders and texts, by everything that may change it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from retina_codec.figures.style import MUTED, PALETTE, draw_title, grid, new_figure, styled
from retina_codec.paper.timing import over_rounds

__all__ = ["plot_runtime"]

PATH, ONE = "IntegratedGradients", "ActNormGrad"


COLORS = {PATH: PALETTE[0], ONE: PALETTE[1]}


NAMES = {PATH: "integrated gradients", ONE: "act × norm. gradient"}


TITLES = (
    "Images: two methods",
    "Steps of the path",
    "Images in a run",
    "Layer explained alone",
    "Images at a time",
    "Fit of an autoencoder",
    "Language model: layer",
    "Language model: length of text",
    "50,000 images, extrapolated",
)


SITES = {"post_attention": ("o", "attention"), "post_mlp": ("s", "MLP")}


THEORY: dict[str, Any] = {"color": MUTED, "lw": 1, "ls": (0, (4, 2)), "zorder": 0}


Floats = npt.NDArray[np.float64]


@styled
def plot_runtime(table: xr.Dataset, card: Mapping[str, Any], paper: Mapping[str, float]) -> Figure:
    """Draw times of both methods over what is varied, and of 50,000 images.

    Parameters
    ----------
    table : xr.Dataset, dims (setting, round)
        ``processor`` and ``wall`` (s), ``memory`` (MB, along setting), and along ``setting``
        what was set: ``part`` (images, autoencoder or language), ``sweep``, ``method``, ``steps``,
        ``batch``, ``layers``, ``images``, ``tokens``, ``channels``, ``depth`` (0 first, 1 last
        block) and ``above`` (share of the weights above a layer). Attributes ``model``,
        ``device``, and ``clock``, which of the two counts.
    card : mapping
        By method ``seconds_per_image``, ``seconds_once``, ``hours_of_50000_extrapolated``;
        ``ratio``; by method in ``tokens`` exponents; each (middle, low, high).
    paper : mapping of str to float
        The paper's hours by method.

    Returns
    -------
    matplotlib.figure.Figure
        Points are medians over rounds, bars 95 % intervals from drawing rounds again (absent with
        few rounds); dashed grey is what is expected from the number of passes.

    References
    ----------
    Melander et al. 2026, CODEC, section 10.4.
    """
    table = table.assign(seconds=table[table.attrs["clock"]])
    clock = "processor time" if table.attrs["clock"] == "processor" else "time"
    figure = new_figure(8.6)
    axes = []
    for area, letter, title in zip(
        figure.subfigures(3, 3, squeeze=False).ravel(), "ABCDEFGHI", TITLES, strict=True
    ):
        draw_title(area, letter, title)
        right = 0.6 if letter == "E" else 0.15
        space = grid(area, [1], [1], left=0.66, right=right, top=0.42, bottom=0.55)
        axes.append(area.add_subplot(space[0]))
    _methods(axes[0], card, clock)
    _steps(axes[1], _part(table, sweep="steps"), card, clock)
    _run(axes[2], _part(table, sweep="images"), card, clock)
    _layers(axes[3], _part(table, sweep="layers"))
    _batch(axes[4], _part(table, sweep="batch"), clock)
    _widths(axes[5], _part(table, part="autoencoder"), clock)
    language = _part(table, part="language")
    _depth(axes[6], language)
    _tokens(axes[7], _part(language, sweep="tokens"), card, clock)
    _projection(axes[8], card, paper, table)
    return figure


def _part(table: xr.Dataset, **values: Any) -> xr.Dataset:
    keep = np.full(table.sizes["setting"], True)
    for key, value in values.items():
        keep &= table[key].values == value
    return table.isel(setting=np.flatnonzero(keep))


def _middles(seconds: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Return medians over rounds, and how far the ends of their intervals lie below and above."""
    found = [over_rounds([row], lambda m: float(m[0])) for row in np.asarray(seconds, float)]
    middle = np.array([one[0] for one in found])
    ends = np.array([one[1] for one in found]).reshape(-1, 2)
    return middle, np.abs(ends.T - middle)


def _arms(number: Sequence[float]) -> Floats:
    """Return how far the ends of one interval lie from its middle, (2, 1)."""
    ends: Floats = np.array(number[1:], np.float64)[:, None]
    arms: Floats = np.abs(ends - number[0])
    return arms


def _dots(axes: Axes, x: Any, seconds: Any, color: str, fmt: str = "o", **more: Any) -> Floats:
    middle, arms = _middles(seconds)
    axes.errorbar(x, middle, arms, fmt=fmt, color=color, ms=4, capsize=2, lw=1.2, **more)
    return middle


def _methods(axes: Axes, card: Mapping[str, Any], clock: str) -> None:
    for place, name in enumerate(COLORS):
        middle, *_ = each = [1000 * number for number in card[name]["seconds_per_image"]]
        axes.bar(place, middle, 0.7, color=COLORS[name], alpha=0.85)
        axes.errorbar(place, middle, _arms(each), fmt="none", ecolor="black", capsize=3, lw=1)
    one = 1000 * card[ONE]["seconds_per_image"][0]
    for times, word in ((11, "11 gradients"), (3.15, "paper's ratio")):
        axes.plot([-0.42, 0.42], [times * one] * 2, **THEORY | {"zorder": 3, "color": "black"})
        axes.text(0.45, times * one, f" {word} (×{times:g})", va="center", size=8, color=MUTED)
    ratio = card["ratio"]
    spread = f"\n{ratio[1]:.1f}–{ratio[2]:.1f}" if np.isfinite(ratio[1]) else ""
    half = 500 * card[PATH]["seconds_per_image"][0]
    axes.text(0, half, f"×{ratio[0]:.1f}{spread}", ha="center", va="center", color="white",
              weight="bold", size=8)  # fmt: skip
    axes.set_xlim(-0.55, 1.65)
    axes.set_ylim(0, 1.15 * max(11 * one, 1000 * np.nanmax(card[PATH]["seconds_per_image"])))
    axes.set_xticks([0, 1], ["integrated\ngradients", "act × norm.\ngradient"])
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel(f"{clock} per image (ms)")


def _steps(axes: Axes, part: xr.Dataset, card: Mapping[str, Any], clock: str) -> None:
    steps, images = part["steps"].values, float(part["images"].values[0])
    _dots(axes, steps, 1000 * part["seconds"].values / images, COLORS[PATH], "o-")
    ends = np.array([0, steps.max()])
    once, each = (card[ONE][key][0] for key in ("seconds_once", "seconds_per_image"))
    axes.plot(ends, 1000 * (once / images + (ends + 1) * each), **THEORY)
    axes.text(
        ends[1], 1000 * (once / images + (ends[1] + 1) * each), "steps + 1\ngradients ",
        ha="right", va="bottom", size=8, color=MUTED,
    )  # fmt: skip
    axes.set_xlim(0, 1.05 * ends[1])
    axes.set_ylim(bottom=0, top=1.18 * axes.get_ylim()[1])
    axes.set_xlabel("steps")
    axes.set_ylabel(f"{clock} per image (ms)")


def _run(axes: Axes, part: xr.Dataset, card: Mapping[str, Any], clock: str) -> None:
    for name, color in COLORS.items():
        own = _part(part, method=name)
        images = own["images"].values
        _dots(axes, images, own["seconds"].values, color)
        ends = np.array([0, images.max()])
        once, each = card[name]["seconds_once"][0], card[name]["seconds_per_image"][0]
        axes.plot(ends, once + each * ends, color=color, lw=1, label=NAMES[name])
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0, top=1.35 * axes.get_ylim()[1])
    axes.set_xlabel("images")
    axes.set_ylabel(f"{clock} (s)")
    axes.legend(loc="upper left")


def _layers(axes: Axes, part: xr.Dataset) -> None:
    names = [str(name) for name in dict.fromkeys(part["layers"].values.tolist()) if name != "all"]
    for shift, (name, color) in zip((-0.09, 0.09), COLORS.items(), strict=True):
        own = _part(part, method=name)
        single = own.isel(setting=np.flatnonzero(own["layers"].values != "all"))
        place = np.arange(len(names)) + shift
        _relative(axes, place, single, _part(own, layers="all"), color, "o", NAMES[name])
    axes.axhline(1, **THEORY)
    axes.text(len(names) - 0.52, 1.02, "all layers at once", ha="right", size=8, color=MUTED)
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_ylim(0, 1.6)
    axes.set_xticks(range(len(names)), [name.rpartition("layers.")[2] for name in names])
    axes.set_xlabel("block, from first to last")
    axes.set_ylabel("time / time of all layers")
    axes.legend(loc="upper left")


def _relative(
    axes: Axes, x: Any, part: xr.Dataset, whole: xr.Dataset, color: str, mark: str, label: str = ""
) -> None:
    """Draw times over the time of something measured in the same rounds."""
    rows = [np.stack([row, whole["seconds"].values[0]]) for row in part["seconds"].values]
    found = [over_rounds(pair, lambda m: float(m[0] / m[1])) for pair in rows]
    arms = np.hstack([_arms([middle, *ends]) for middle, ends in found])
    axes.errorbar(
        x, [one[0] for one in found], arms,
        fmt=mark, color=color, ms=4, capsize=2, lw=1.2, label=label or None,
    )  # fmt: skip


def _batch(axes: Axes, part: xr.Dataset, clock: str) -> None:
    """Draw time, and the highest memory on an axis of its own at the right."""
    batch = part["batch"].values
    each = 1000 * part["seconds"].values / part["images"].values[:, None]
    _dots(axes, batch, each, COLORS[ONE], "o-")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("images at a time")
    axes.set_ylabel(f"{clock} per image (ms)", color=COLORS[ONE])
    if not np.isfinite(part["memory"].values).any():
        return
    other = axes.twinx()
    other.tick_params(axis="x", bottom=False, labelbottom=False)
    other.plot(batch, part["memory"].values, "s--", color=MUTED, ms=4, lw=1)
    other.set_ylim(0, 1.15 * float(np.nanmax(part["memory"].values, initial=1)))
    other.set_ylabel("memory above the network (MB)", color=MUTED)
    other.spines["right"].set_visible(True)


def _widths(axes: Axes, part: xr.Dataset, clock: str) -> None:
    for name, color in zip(dict.fromkeys(part["sweep"].values.tolist()), PALETTE[2:], strict=False):
        own = _part(part, sweep=name)
        _dots(axes, own["channels"].values, own["seconds"].values, color, "o-", label=name)
    axes.set_xlim(0, 1.1 * float(part["channels"].max()))
    axes.set_ylim(bottom=0, top=1.3 * axes.get_ylim()[1])
    axes.set_xlabel("channels (64 modes, 2 alternations)")
    axes.set_ylabel(f"{clock} (s)")
    axes.legend(loc="upper left")


def _missing(axes: Axes, part: xr.Dataset) -> bool:
    """Say so where no language model was measured."""
    if part.sizes["setting"]:
        return False
    axes.text(0.5, 0.5, "not measured:\ntransformers is\nnot installed", ha="center", va="center",
              transform=axes.transAxes, color=MUTED)  # fmt: skip
    axes.set_axis_off()
    return True


def _depth(axes: Axes, part: xr.Dataset) -> None:
    if _missing(axes, part):
        return
    for shift, (name, color) in zip((-0.02, 0.02), COLORS.items(), strict=True):
        own = _part(part, method=name)
        for site, (mark, word) in SITES.items():
            here = _part(own, sweep=site)
            together = _part(_part(own, sweep="tokens"), tokens=here["tokens"].values[0])
            _relative(axes, here["depth"].values + shift, here, together, color, mark)
            if name == ONE:
                axes.plot(here["depth"], (1 + here["above"]) / 2, **THEORY)
                axes.plot([], [], mark, color=MUTED, ms=4, label=word)
    axes.plot([], [], label="forward + part of\nthe way back", **THEORY)
    axes.set_xlim(-0.1, 1.1)
    axes.set_ylim(0, 1.6)
    axes.set_xticks([0, 0.5, 1], ["first", "middle", "last"])
    axes.set_xlabel("block explained alone")
    axes.set_ylabel("time / time of all layers")
    axes.legend(loc="lower left", ncols=2, handlelength=1.8, columnspacing=1)


def _tokens(axes: Axes, part: xr.Dataset, card: Mapping[str, Any], clock: str) -> None:
    if _missing(axes, part):
        return
    for name, color in COLORS.items():
        own = _part(part, method=name)
        tokens = own["tokens"].values.astype(float)
        power, low, high = card["tokens"][name]
        spread = f" ({low:.2f} to {high:.2f})" if np.isfinite(low) else ""
        label = f"exponent {power:.2f}{spread}"
        middle = _dots(axes, tokens, own["seconds"].values, color, "o-", label=label)
        axes.plot(tokens, middle[0] * tokens / tokens[0], **THEORY)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    _plain(axes)
    low, high = axes.get_ylim()
    axes.set_ylim(low / 1.5, 12 * high)
    axes.plot([], [], label="in proportion", **THEORY)
    axes.set_xlabel("tokens")
    axes.set_ylabel(f"{clock} per text (s)")
    axes.legend(loc="upper left")


def _plain(axes: Axes) -> None:
    """Write powers of ten as numbers."""
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _projection(
    axes: Axes, card: Mapping[str, Any], paper: Mapping[str, float], table: xr.Dataset
) -> None:
    place = np.arange(len(COLORS))
    hours = {name: card[name]["hours_of_50000_extrapolated"] for name in COLORS}
    for shift, (name, number) in zip(place, hours.items(), strict=True):
        axes.plot(shift + 0.12, paper[name], "D", color=MUTED, ms=6)
        axes.errorbar(
            shift - 0.12, number[0], _arms(number), fmt="o", color=COLORS[name], ms=6, capsize=3
        )
    axes.set_yscale("log")
    every = [*paper.values(), *(number[0] for number in hours.values())]
    axes.set_ylim(min(every) / 4, max(every) * 30)
    _plain(axes)
    axes.set_xlim(-0.6, len(hours) - 0.4)
    axes.set_xticks(place, ["integrated\ngradients", "act × norm.\ngradient"])
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel("hours")
    model = str(table.attrs["model"]).rsplit("/", 1)[-1]
    axes.plot([], [], "o", color="black", label=f"{model} on {table.attrs['device']}, along C")
    axes.plot([], [], "D", color=MUTED, label="paper: ResNet-50, RTX 6000")
    axes.legend(loc="upper left")
