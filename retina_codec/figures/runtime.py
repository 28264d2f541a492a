"""What contributions cost: time by method, steps, batch, layers and images.

Why this file exists: `analyses/runtime.py` measures; this draws what it saved.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from retina_codec.figures.style import MUTED, PALETTE, draw_title, grid, new_figure, styled

__all__ = ["runtime"]

COLORS = {"IntegratedGradients": PALETTE[0], "ActNormGrad": PALETTE[1]}
SHORT = {
    "IntegratedGradients": "integrated\ngradients",
    "ActNormGrad": "activation × norm.\ngradient",
}


@styled
def runtime(
    table: xr.Dataset, hours: Mapping[str, Sequence[float]], paper: Mapping[str, float]
) -> Figure:
    """Draw time per image by method, steps, batch and layers, time of a run, and of 50,000 images.

    Parameters
    ----------
    table : xr.Dataset, dims (setting, round)
        ``seconds`` (s), ``memory`` (MB, along setting), and along ``setting``: ``sweep``,
        ``method``, ``steps``, ``batch``, ``layers``, ``images``. Attributes ``model``, ``device``.
    hours : mapping of str to (middle, low, high)
        Extrapolated hours of 50,000 images by method, with a 95 % interval.
    paper : mapping of str to float
        The paper's hours.

    Returns
    -------
    matplotlib.figure.Figure
        Points are means over rounds, bars 95 % intervals (t over rounds).

    References
    ----------
    Melander et al. 2026, CODEC, section 10.4.
    """
    figure = new_figure(6.2)
    areas = figure.subfigures(2, 3, squeeze=False)
    clock = "processor time" if table.attrs["device"] == "cpu" else "time"
    titles = ["Method", "Steps", "Batch", "Layers explained", "Images in a run", "50,000 images"]
    axes = []
    for area, letter, title in zip(areas.ravel(), "ABCDEF", titles, strict=True):
        draw_title(area, letter, title)
        right = 0.55 if letter == "C" else 0.12
        space = grid(area, [1], [1], left=0.62, right=right, top=0.4, bottom=0.62)
        axes.append(area.add_subplot(space[0]))
    for one in (0, 1, 2, 3):
        axes[one].set_ylabel(f"{clock} per image (ms)")
    _categories(axes[0], _sweep(table, "method"), "method")
    _curve(axes[1], _sweep(table, "steps"), "steps")
    _curve(axes[2], _sweep(table, "batch"), "batch")
    axes[2].set_xscale("log", base=2)
    axes[2].xaxis.set_major_formatter("{x:g}")
    _memory(axes[2].twinx(), _sweep(table, "batch"))
    _categories(axes[3], _sweep(table, "layers"), "layers")
    _run(axes[4], _sweep(table, "images"), clock)
    _projection(axes[5], hours, paper, table)
    return figure


def _sweep(table: xr.Dataset, name: str) -> xr.Dataset:
    return table.isel(setting=np.flatnonzero(table["sweep"].values == name))


def _bars(values: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return means and half widths of 95 % intervals over the last axis."""
    rounds = values.shape[-1]
    half = np.full(len(values), np.nan)
    if rounds > 1:
        half = stats.t.ppf(0.975, rounds - 1) * values.std(-1, ddof=1) / np.sqrt(rounds)
    return values.mean(-1), half


def _each(part: xr.Dataset) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return ms per image with half widths."""
    return _bars(1000 * part["seconds"].values / part["images"].values[:, None])


def _categories(axes: Axes, part: xr.Dataset, key: str) -> None:
    middle, half = _each(part)
    names = [str(name) for name in part[key].values]
    place = np.arange(len(names))
    colors = [COLORS.get(name, PALETTE[0]) for name in names]
    axes.bar(place, middle, 0.55, color=colors, alpha=0.85)
    axes.errorbar(place, middle, half, fmt="none", ecolor="black", elinewidth=1, capsize=2)
    axes.set_xticks(place, [SHORT.get(name, name.replace("layers.", "")) for name in names])
    axes.tick_params(axis="x", length=0)


def _curve(axes: Axes, part: xr.Dataset, key: str) -> None:
    middle, half = _each(part)
    axes.errorbar(part[key].values, middle, half, fmt="o-", color=PALETTE[0], ms=4, capsize=2)
    axes.set_ylim(bottom=0)
    axes.set_xlabel({"steps": "steps of the path", "batch": "images at a time"}[key])


def _memory(axes: Axes, part: xr.Dataset) -> None:
    """Draw the highest memory on an axis of its own, at the right."""
    axes.plot(part["batch"].values, part["memory"].values, "s--", color=MUTED, ms=4, lw=1)
    axes.set_ylim(bottom=0, top=1.15 * float(np.nanmax(part["memory"].values, initial=1)))
    axes.set_ylabel("highest memory (MB, dashed)", color=MUTED)
    axes.spines["right"].set_visible(True)


def _run(axes: Axes, part: xr.Dataset, clock: str) -> None:
    for name, color in COLORS.items():
        own = part.isel(setting=np.flatnonzero(part["method"].values == name))
        images, (middle, half) = own["images"].values.astype(float), _bars(own["seconds"].values)
        axes.errorbar(images, middle, half, fmt="o", color=color, ms=4, capsize=2)
        line = np.polynomial.Polynomial.fit(images, middle, 1)
        ends = np.array([0, images.max()])
        axes.plot(ends, line(ends), color=color, lw=1, label=SHORT[name].replace("\n", " "))
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.set_xlabel("images")
    axes.set_ylabel(f"{clock} (s)")
    axes.legend(loc="upper left")


def _projection(
    axes: Axes, hours: Mapping[str, Sequence[float]], paper: Mapping[str, float], table: xr.Dataset
) -> None:
    place = np.arange(len(hours))
    for shift, (name, (middle, low, high)) in zip(place, hours.items(), strict=True):
        axes.plot(shift, paper[name], "D", color=MUTED, ms=6)
        axes.errorbar(
            shift, middle, [[middle - low], [high - middle]],
            fmt="o", color=COLORS[name], ms=6, capsize=3,
        )  # fmt: skip
    axes.set_yscale("log")
    every = [*paper.values(), *(middle for middle, _, _ in hours.values())]
    axes.set_ylim(min(every) / 4, max(every) * 12)
    axes.set_xlim(-0.6, len(hours) - 0.4)
    axes.set_xticks(place, [SHORT[name] for name in hours])
    axes.set_ylabel("hours (extrapolated)")
    model = str(table.attrs["model"]).rsplit("/", 1)[-1]
    axes.plot([], [], "o", color="black", label=f"{model} on {table.attrs['device']}, along E")
    axes.plot([], [], "D", color=MUTED, label="paper: ResNet-50, RTX 6000")
    axes.legend(loc="upper left")
