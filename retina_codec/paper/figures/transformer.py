"""Figure S7: token features, MLP and attention of a transformer, site by site."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from retina_codec.errors import RetinaCodecError
from retina_codec.figures.lines import COLORS, band, layer_axis, line
from retina_codec.figures.style import MUTED, draw_title, grid, new_figure, styled
from retina_codec.paper.transformer import KINDS, SELECTIONS, SITES, site_layers

__all__ = ["plot_transformer"]

QUANTITIES = ("contribution", "activation")


NOTES = (
    "",
    "95 % over images",
    "95 % over classes\nboxes: shuffled labels,\nmiddle 95 %",
    "large: all images, 95 %\nsmall: trials,\ntheir mean ± SEM",
)


@styled
def plot_transformer(saved: xr.DataTree) -> Figure:
    """Draw four rows (one image, sparsity, correlation, ablation) of three sites.

    Parameters
    ----------
    saved : xr.DataTree
        From ``analysis.transformer_study``, in memory.

    Returns
    -------
    matplotlib.figure.Figure
        A to C, sizes of the channels in one image. D to F, Hoyer sparsity over channels, and
        (dashed) the same less the mean over images; 95 % bootstrap intervals. G to I, largest
        correlation with a class; boxes, shuffled labels. J to L, specificity of ablation; large,
        all images with 95 % intervals; small, trials with mean ± SEM.

    Raises
    ------
    RetinaCodecError
        If it is something else.
    """
    missing = {"statistics", "summary", "ablation", "example"} - set(saved.children)
    if missing:
        raise RetinaCodecError(
            f"this figure needs what transformer_study() returned; {', '.join(sorted(missing))} "
            "is missing."
        )
    layers = site_layers(saved)
    figure = new_figure(9.6)
    draw_title(figure, "", f"Contributions in a transformer: {saved.attrs['images']} images")
    spec = grid(figure, [1, 1, 1, 1], [1, 1, 1], left=0.75, right=1.9, top=0.62, bottom=0.5,
                gap_x=0.35, gap_y=0.72)  # fmt: skip
    rows = (_example, _sparsity, _correlation, _ablation)
    shared: dict[int, Axes] = {}
    for row, panel in enumerate(rows):
        for column, site in enumerate(SITES):
            axes = figure.add_subplot(spec[row, column], sharey=shared.get(row))
            shared.setdefault(row, axes)
            panel(axes, saved, site, layers[site])
            letter = "ABCDEFGHIJKL"[3 * row + column]
            where = "" if row else f", {saved[f'example/{site}'].attrs['layer']}"
            axes.set_title(f"{letter}  {SITES[site]}{where}", size=9, loc="left")
            if column:
                axes.set_ylabel("")
                axes.tick_params(labelleft=False)
            if row:
                layer_axis(axes, [str(n + 1) for n in range(len(layers[site]))])
                axes.set_xlabel("block", labelpad=2)
    for row in range(len(rows)):
        last = figure.axes[3 * row + 2]
        last.legend(loc="upper left", bbox_to_anchor=(1.02, 1.04), borderaxespad=0,
                    handlelength=1.4, fontsize=7.5)  # fmt: skip
        last.text(1.05, 0, NOTES[row], size=7.5, va="bottom", color=MUTED,
                  transform=last.transAxes)  # fmt: skip
    return figure


def _example(axes: Axes, saved: xr.DataTree, site: str, _: list[str]) -> None:
    """Sizes of one image's channels, the largest first."""
    here = saved[f"example/{site}"].to_dataset()
    for quantity in QUANTITIES:
        size = np.sort(np.abs(here[quantity].values))[::-1]
        share = 100 * (np.arange(len(size)) + 0.5) / len(size)
        axes.plot(share, size / size[0], color=COLORS[quantity], lw=1.4, label=f"{quantity}s")
    axes.set_xlabel("channels, largest first (%)", labelpad=2)
    axes.set_ylabel("size / largest, one image")
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 1.02)


def _sparsity(axes: Axes, saved: xr.DataTree, _: str, names: list[str]) -> None:
    for quantity in QUANTITIES:
        here = saved["statistics"].to_dataset().sel(layer=names, quantity=quantity)
        ends = here["sparsity_interval"].values
        line(axes, here["sparsity"].values, ends, COLORS[quantity], label=f"{quantity}s")
        ends = here["varying_sparsity_interval"].values
        line(axes, here["varying_sparsity"].values, ends, COLORS[quantity], ls="--", lw=0.9, ms=2.5,
             label=f"{quantity}s less mean")  # fmt: skip
    axes.set_ylabel("Hoyer sparsity over channels")
    axes.set_ylim(0, 1)


def _correlation(axes: Axes, saved: xr.DataTree, _: str, names: list[str]) -> None:
    summary = saved["summary"].to_dataset().sel(layer=names, level="class")
    for number, kind in enumerate(KINDS):
        here, shift = summary.sel(kind=kind), 0.16 * (number - 1.5)
        band(axes, here["concept_correlation_null_interval"].values, COLORS[kind], shift=shift)
        ends = here["concept_correlation_interval"].values
        line(axes, here["concept_correlation"].values, ends, COLORS[kind], shift=shift,
             label=KINDS[kind])  # fmt: skip
    axes.set_ylabel("largest r with a class, mean")
    axes.set_ylim(0, 1)


def _ablation(axes: Axes, saved: xr.DataTree, _: str, names: list[str]) -> None:
    found = saved["ablation"].to_dataset().sel(layer=names)
    axes.axhline(0, color=MUTED, lw=0.8, ls=":")
    for number, (selection, kind) in enumerate(SELECTIONS.items()):
        here, shift = found.sel(selection=selection), 0.3 * (number - 0.5)
        trials = here["specificity"].mean("concept").transpose("layer", "trial").values
        place = np.repeat(np.arange(len(names)) + shift + 0.09, trials.shape[1])
        axes.plot(place, trials.ravel(), ".", ms=3, color=COLORS[kind], alpha=0.5)
        mean, error = here["trial_mean"].values, here["trial_sem"].values
        ends = np.stack([mean - error, mean + error], -1)
        line(axes, mean, ends, COLORS[kind], shift=shift + 0.09, marker="_", ls="none", ms=7)
        line(axes, here["estimate"].values, here["estimate_interval"].values, COLORS[kind],
             shift=shift - 0.05, label=selection)  # fmt: skip
    axes.set_ylabel("area off target − on target")
