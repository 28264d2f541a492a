"""Correlation of modes, channels and activations with classes, beside shuffled labels."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from retina_codec.errors import RetinaCodecError
from retina_codec.figures.lines import COLORS, band, layer_axis, line, room_below, sites_of
from retina_codec.figures.style import (
    MUTED,
    SIGNED,
    color_bar,
    draw_title,
    grid,
    layer_name,
    new_figure,
    styled,
)
from retina_codec.storage.results import layers_of

__all__ = ["plot_class_matrix", "plot_concepts"]

WORDS = {
    "modes": "modes",
    "contributions": "channels, contributions",
    "activations": "channels, activations",
    "activation_modes": "activation modes",
}


PANELS = (
    ("concept_correlation", "how well features tell a class", "mean largest Pearson r"),
    ("correlated", "class-correlated features", "features with r > {threshold:g} (%)"),
    ("coverage", "classes with a feature of their own", "classes with r > {threshold:g} (%)"),
)


@styled
def plot_concepts(
    found: xr.DataTree, level: str = "class", layers: Sequence[str] | None = None
) -> Figure:
    """Draw correlation with classes, number of correlated features and coverage by layer.

    Parameters
    ----------
    found : xr.DataTree
        From ``analysis.correlate_concepts``.
    level : str
        "class" or "superclass".
    layers : sequence of str, optional
        All when left out.

    Returns
    -------
    matplotlib.figure.Figure
        Dots with 95 % intervals, one colour per kind of feature; pale boxes: middle 95 % with
        shuffled labels.

    Raises
    ------
    RetinaCodecError
        If it is something else, or has no such level.
    """
    node = found.children.get("summary")
    if node is None or "concept_correlation" not in node.data_vars:
        raise RetinaCodecError("this figure needs what correlate_concepts() returned.")
    summary = node.to_dataset()
    known = [str(name) for name in summary["level"].values]
    if level not in known:
        raise RetinaCodecError(f"level must be one of {', '.join(known)}; got {level!r}.")
    here = summary.sel(level=level)
    if layers is not None:
        if missing := set(layers) - set(summary["layer"].values.tolist()):
            raise RetinaCodecError(
                f"layers must be among {', '.join(summary['layer'].values)}; got {min(missing)!r}."
            )
        here = here.sel(layer=list(layers))
    names = [layer_name(str(name)) for name in here["layer"].values]
    height = 3.6 + room_below(names)
    figure = new_figure(height)
    draw_title(figure, "", f"Concepts by layer: {level}")
    spec = grid(
        figure,
        [1],
        [1, 1, 1],
        left=0.6,
        right=0.15,
        top=0.95,
        bottom=room_below(names),
        gap_x=0.75,
    )
    first: Axes | None = None
    for number, (name, title, measure) in enumerate(PANELS):
        axes = figure.add_subplot(spec[number])
        _panel(axes, here, name)
        axes.set_title(title if level == "class" else title.replace("class", level), size=9)
        label = measure.format(threshold=summary.attrs["threshold"])
        axes.set_ylabel(label if level == "class" else label.replace("classes", "superclasses"))
        layer_axis(axes, names)
        first = first or axes
    if first is not None:
        first.fill_between([], [], [], color=MUTED, alpha=0.3, lw=0, label="shuffled labels")
        handles, words = first.get_legend_handles_labels()
        figure.legend(
            handles, words, loc="upper left", ncols=5, bbox_to_anchor=(0.005, 1 - 0.28 / height),
            handlelength=1.2, columnspacing=1.4,
        )  # fmt: skip
    return figure


def _panel(axes: Axes, here: xr.Dataset, name: str) -> None:
    """Draw one number of every kind, beside its null."""
    kinds = [str(kind) for kind in here["kind"].values]
    for number, kind in enumerate(kinds):
        one = here.sel(kind=kind)
        scale = np.full(one.sizes["layer"], 1.0 if name == "concept_correlation" else 100.0)
        if name == "correlated":
            scale = scale / one["features"].values
        shift = 0.17 * (number - (len(kinds) - 1) / 2)
        band(axes, one[f"{name}_null_interval"].values * scale[:, None], COLORS[kind], shift=shift)
        ends = one[f"{name}_interval"].values * scale[:, None]
        line(axes, one[name].values * scale, ends, COLORS[kind], sites=sites_of(here),
             shift=shift, label=WORDS[kind])  # fmt: skip
    axes.set_ylim(0, 1.02 if name == "concept_correlation" else 103)


KINDS = {"modes": "contribution modes", "activation_modes": "activation modes"}
MOST_NAMES = 30  # concepts named along the axis


@styled
def plot_class_matrix(found: xr.DataTree, layer: str | None = None, level: str = "class") -> Figure:
    """Draw Pearson r of every mode's loading with every concept.

    Parameters
    ----------
    found : xr.DataTree
        From ``analysis.correlate_concepts``, with "modes", and "activation_modes" if they are
        to be seen.
    layer : str, optional
        The last when left out.
    level : str
        "class" or "superclass".

    Returns
    -------
    matplotlib.figure.Figure
        A panel per kind of modes, modes along x, in order of the class that they go with most
        and then of r; the same colours in both. Modes that never vary are left out. A dot: q of
        the pair at most the ``false_discovery`` asked for.

    Raises
    ------
    RetinaCodecError
        If it is something else, or there is no such layer or level.
    """
    names = layers_of(found)
    chosen = names[-1] if layer is None else layer
    if chosen not in names:
        raise RetinaCodecError(f"layer must be one of {', '.join(names)}; got {layer!r}.")
    kinds = [kind for kind in KINDS if kind in found[f"layers/{chosen}"].children]
    if not kinds:
        raise RetinaCodecError(
            f"this figure needs correlations of modes; layer {chosen!r} has none. Ask "
            "correlate_concepts() for 'modes'."
        )
    tables = [_sorted(found[f"layers/{chosen}/{kind}"].to_dataset(), level) for kind in kinds]
    limit = max(float(np.abs(one["correlation"]).max()) for one in tables)
    concepts = [str(name) for name in tables[0]["concept"].values]
    height = 1.3 + min(4.5, 0.19 * len(concepts) + 0.6)
    figure = new_figure(height)
    limit_q = float(found["summary"].attrs["false_discovery"])
    draw_title(figure, "", f"Modes and {level}es, {layer_name(chosen)}; dot: q ≤ {limit_q:g}")
    longest = max(map(len, concepts)) if len(concepts) <= MOST_NAMES else 0
    left = max(0.75, 0.4 + 0.085 * longest)  # inches
    spec = grid(
        figure, [1], [*[1] * len(kinds), 0.025], left=left, right=0.65, top=0.65, bottom=0.5,
        gap_x=0.25,
    )  # fmt: skip
    for column, (kind, table) in enumerate(zip(kinds, tables, strict=True)):
        axes = figure.add_subplot(spec[column])
        image = axes.imshow(
            table["correlation"].T.values, cmap=SIGNED, vmin=-limit, vmax=limit, aspect="auto"
        )
        row, place = np.nonzero(table["q_value"].T.values <= limit_q)
        if len(concepts) <= MOST_NAMES:
            axes.plot(place, row, ".", ms=2.5, color="black")
        axes.set_title(f"{table.sizes['feature']} {KINDS[kind]}", size=9)
        axes.set_xlabel("mode, by class", labelpad=2)
        axes.set_xticks([])
        axes.set_yticks([])
        if column == 0:
            axes.set_ylabel(level)
            if len(concepts) <= MOST_NAMES:
                axes.set_yticks(range(len(concepts)), concepts)
    bar = figure.add_subplot(spec[len(kinds)])
    color_bar(figure, bar, image, "Pearson r", [-limit, 0, limit])
    return figure


def _sorted(table: xr.Dataset, level: str) -> xr.Dataset:
    """Choose the concepts of a level; order modes by their best concept, then by r."""
    here = table[["correlation", "q_value"]]
    if "level" in table.coords:
        known = list(dict.fromkeys(table["level"].values.astype(str).tolist()))
        if level not in known:
            raise RetinaCodecError(f"level must be one of {', '.join(known)}; got {level!r}.")
        here = here.isel(concept=np.flatnonzero(table["level"].values == level))
    r = here["correlation"].transpose("feature", "concept").values
    varies = np.flatnonzero(np.isfinite(r).all(axis=1))
    best = r[varies].argmax(axis=1)
    order = np.lexsort((-r[varies].max(axis=1), best))
    return here.isel(feature=varies[order])
