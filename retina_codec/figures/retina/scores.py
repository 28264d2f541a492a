"""Scores of the modes: sparsity, controls, other seeds and silenced channels."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from retina_codec.figures import base
from retina_codec.figures.retina.quality import LAYER_COLORS
from retina_codec.figures.style import (
    MUTED,
    draw_title,
    grid,
    layer_name,
    new_figure,
    styled,
)
from retina_codec.modes.scores.score import above_shuffled
from retina_codec.storage.results import layers_of, layers_with, table

__all__ = ["Scores", "plot_scores"]

LOWEST = 0.0  # R²; worse controls are drawn here
MEASURES = (
    ("mode_match", "modes"),
    ("loading_match", "loadings"),
    ("mode_match_null", "modes, shuffled"),
    ("loading_match_null", "loadings, reversed"),
)


GAINS = (("insertion_gain", "insertion", "o"), ("deletion_gain", "deletion", "s"))


class Scores(base.Figure):
    """The scorecard of the modes, where it was measured."""

    name = "scorecard"
    title = (
        "R² against active modes; R² of controls; agreement of starting points; gain of silencing "
        "over random modes"
    )
    section = "trust"
    look_for = (
        "a ring where the curve bends, controls that stay left of “modes” (shuffled data need "
        "not), matches right of the shuffled ones, and gains above the dotted line."
    )
    caption = (
        "Top left: R² on held-out times for each limit of active modes. Top right: R² of the "
        "modes, and of controls with as many modes. Bottom left: how alike modes and loadings of "
        "{seeds} starting points are, and by chance. Bottom right: what the channels of a mode do "
        "in the network beyond those of a random mode, with 95 % intervals."
    )

    def needs(self, results: xr.DataTree) -> bool:
        """Return whether a layer has scores."""
        return bool(layers_with(results, "score"))

    def caption_of(self, results: xr.DataTree) -> str:
        """Say how many starting points were compared."""
        nodes = (results[f"layers/{name}/score"] for name in layers_of(results, part="score"))
        return self.caption.format(seeds=min(int(node.attrs["seeds"]) for node in nodes))

    def draw(self, results: xr.DataTree) -> Figure:
        """Draw `plot_scores`."""
        return plot_scores(results)


@styled
def plot_scores(results: xr.DataTree) -> Figure:
    """Draw the scorecard of every layer.

    Parameters
    ----------
    results : xr.DataTree
        Results of ``score_modes``.

    Returns
    -------
    matplotlib.figure.Figure
        R² on held-out times against modes active there, one point per limit, a dot per seed; R² of
        controls, equally sparse, and how far the modes lie above shuffled data; agreement of pairs
        of seeds, and by chance; area gained over random modes when the channels of a mode come or
        go in the network, with 95 % intervals.

    Raises
    ------
    RetinaCodecError
        If no layer was scored.
    """
    scores = {
        name: table(results, f"layers/{name}/score") for name in layers_of(results, part="score")
    }
    note = _shuffled_note(scores)
    room = 0.17 * (1 + note.count("\n")) if note else 0.0  # inches
    figure = new_figure(6.4 + room)
    draw_title(figure, "", "Scorecard of the modes")
    spec = grid(
        figure,
        [1, 1],
        [1, 1],
        left=1.25,
        right=0.2,
        top=0.62,
        bottom=0.55,
        gap_x=1.4,
        gap_y=0.95 + room,
    )
    _pareto(figure.add_subplot(spec[0, 0]), scores)
    _controls(figure.add_subplot(spec[0, 1]), scores, note)
    _stability(figure.add_subplot(spec[1, 0]), scores)
    _network(figure.add_subplot(spec[1, 1]), scores)
    return figure


def _colors(scores: dict[str, xr.Dataset]) -> list[tuple[str, xr.Dataset, str]]:
    """Give every layer its colour."""
    colors = LAYER_COLORS * len(scores)
    return [
        (name, score, color) for (name, score), color in zip(scores.items(), colors, strict=False)
    ]


def _pareto(axes: Axes, scores: dict[str, xr.Dataset]) -> None:
    axes.set_title("what sparsity costs", size=9)
    for name, score, color in _colors(scores):
        active, r2 = score["mean_active"], score["r2"]
        axes.plot(
            active.values.ravel(), r2.values.ravel(), "o", ms=3, color=color, alpha=0.5, mew=0
        )
        axes.plot(active.mean("seed"), r2.mean("seed"), color=color, lw=1.3, label=layer_name(name))
        own = int(score["limit_own"])
        axes.plot(
            float(active.sel(limit=own).mean()),
            float(r2.sel(limit=own).mean()),
            "o",
            ms=9,
            mfc="none",
            mec=color,
            mew=1.2,
        )
    axes.set_xlim(0, 1.1 * max(float(score["mean_active"].max()) for score in scores.values()))
    axes.set_xlabel("modes active at a time (mean; ring: as decomposed)")
    axes.set_ylabel("R² on held-out times")
    axes.legend(loc="lower right")


def _shuffled_note(scores: dict[str, xr.Dataset]) -> str:
    """Say how far R² lies above that of shuffled data, mean ± s.d. over seeds, layer by layer."""
    lines = []
    for name, score in scores.items():
        above = above_shuffled(score)
        if bool(above.notnull().all()):
            mean, spread = float(above.mean()), float(above.std(ddof=1))
            lines.append(f"{layer_name(name)}: {mean:+.3f} ± {spread:.3f}".replace("-", "−"))
    if not lines:
        return ""
    return "\n".join(["R² of modes − R² of shuffled data (R² proves no more):", *lines])


def _controls(axes: Axes, scores: dict[str, xr.Dataset], note: str) -> None:
    axes.set_title("controls, equally sparse", size=9)
    names = [str(name) for name in next(iter(scores.values()))["baseline"].values]
    low = 1.0
    for number, (_, score, color) in enumerate(_colors(scores)):
        values = score["baseline_r2"]
        place = np.arange(len(names)) + 0.2 * (number - (len(scores) - 1) / 2)
        mean, spread = values.mean("seed").values, values.std("seed", ddof=1).values
        low = min(low, float(mean.min()))
        axes.errorbar(
            mean.clip(LOWEST), place, xerr=spread, fmt="o", ms=4.5, color=color, lw=1.2, mew=0
        )
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(max(LOWEST, low - 0.1), 1.02)
    label = "R² on held-out times (bar: s.d. over seeds)"
    axes.set_xlabel(f"{label}\n{note}" if note else label)


def _stability(axes: Axes, scores: dict[str, xr.Dataset]) -> None:
    axes.set_title("other starting points", size=9)
    for number, (_, score, color) in enumerate(_colors(scores)):
        for row, (name, _) in enumerate(MEASURES):
            values = score[name].values
            place = row + 0.2 * (number - (len(scores) - 1) / 2)
            axes.plot(values, np.full(len(values), place), "o", ms=3, color=color, alpha=0.4, mew=0)
            axes.plot([values.mean()], [place], "|", ms=10, color=color, mew=2)
    axes.axhline(1.5, color=MUTED, lw=0.8, ls=":")
    axes.set_yticks(range(len(MEASURES)), [words for _, words in MEASURES])
    axes.set_ylim(len(MEASURES) - 0.5, -0.5)
    axes.set_xlim(-0.05, 1.02)
    axes.set_xlabel("match of two seeds (dot: pair, line: mean)")


def _network(axes: Axes, scores: dict[str, xr.Dataset]) -> None:
    axes.set_title("channels silenced in the network", size=9)
    start = 0
    ticks, words = [], []
    axes.axhline(0, color=MUTED, lw=0.8, ls=":")
    for name, score, color in _colors(scores):
        if "insertion_gain" not in score:
            continue
        count = score.sizes["mode"]
        for shift, (gain, words_of_gain, marker) in zip((-0.15, 0.15), GAINS, strict=True):
            middle, interval = score[gain].values, score[f"{gain}_interval"].values
            place = start + np.arange(count) + shift
            axes.vlines(place, interval[:, 0], interval[:, 1], color=color, lw=1.2)
            axes.plot(
                place,
                middle,
                marker,
                ms=4.5,
                color=color,
                mfc=color if marker == "o" else "white",
                label=words_of_gain if start == 0 else None,
            )
        ticks.append(start + (count - 1) / 2)
        words.append(layer_name(name))
        start += count + 1
    if not ticks:
        axes.text(0.5, 0.6, "not asked: no network given", transform=axes.transAxes, ha="center")
        axes.set_yticks([])
        axes.set_xticks([])
        return
    axes.set_xticks(ticks, words)
    axes.set_xlabel("leading modes of each layer (bar: 95 % interval)")
    axes.set_ylabel("area gained over random modes")
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.2 * (high - low))
    axes.legend(loc="upper left", ncols=2)
