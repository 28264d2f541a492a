"""Which mode goes with which class, in one layer: contribution modes beside activation modes.

Why this file exists: how well a layer tells classes is one number; which mode is whose, and which
classes share one, is seen in the matrix. It shows what `correlate_concepts` found.
"""

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from retina_codec.errors import RetinaCodecError
from retina_codec.figures.style import (
    SIGNED,
    color_bar,
    draw_title,
    explained_layers,
    grid,
    layer_name,
    new_figure,
    styled,
)

__all__ = ["class_matrix"]

KINDS = {"modes": "contribution modes", "activation_modes": "activation modes"}
MOST_NAMES = 30  # concepts named along the axis


@styled
def class_matrix(found: xr.DataTree, layer: str | None = None, level: str = "class") -> Figure:
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
    names = explained_layers(found)
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
    spec = grid(
        figure, [1], [*[1] * len(kinds), 0.025], left=0.75, right=0.65, top=0.65, bottom=0.5,
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
