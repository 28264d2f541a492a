"""A language model: sparsity, groups of sentences and ablation, MLP and attention apart."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from retina_codec.errors import RetinaCodecError
from retina_codec.figures.lines import COLORS, line
from retina_codec.figures.style import MUTED, draw_title, grid, new_figure, styled
from retina_codec.paper.language.results import KINDS
from retina_codec.paper.language.study import SITES, TARGETS

__all__ = ["plot_language"]

TITLES = {"mlp": "MLP", "attention": "attention"}
STYLES = {"entropy": "--", "logit": "-"}
SELECTIONS = {"contribution modes": "modes", "activation modes": "activation_modes",
              "random channels": ""}  # fmt: skip


@styled
def plot_language(saved: xr.DataTree) -> Figure:
    """Draw three rows (sparsity, correlation with groups, ablation) of two sites.

    Parameters
    ----------
    saved : xr.DataTree
        From `language_study`, in memory.

    Returns
    -------
    matplotlib.figure.Figure
        A, B: Hoyer sparsity over channels. C, D: mean r with groups on sentences that were not
        fitted, contributions to the logit. E, F: area off target less area on target. Bars: 95 %
        over sentences.

    Raises
    ------
    RetinaCodecError
        If it is something else.
    """
    if not {"sentences", *TARGETS} <= set(saved.children):
        raise RetinaCodecError("this figure needs what language_study() returned.")
    figure = new_figure(8.4)
    draw_title(figure, "", f"Contributions in {saved.attrs['model']}: "
               f"{saved.attrs['sentences']} sentences")  # fmt: skip
    spec = grid(figure, [1, 1, 1], [1, 1], left=0.75, right=2.1, top=0.62, bottom=0.5,
                gap_x=0.35, gap_y=0.72)  # fmt: skip
    for row, panel in enumerate((_sparsity, _groups, _ablation)):
        first = None
        for column, site in enumerate(SITES):
            axes = figure.add_subplot(spec[row, column], sharey=first)
            panel(axes, saved, site)
            axes.set_title(f"{'ABCDEF'[2 * row + column]}  {TITLES[site]}", size=9, loc="left")
            axes.set_xlabel("block", labelpad=2)
            if first is None:
                first = axes
            else:
                axes.set_ylabel("")
                axes.tick_params(labelleft=False)
                axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1.04), borderaxespad=0,
                            handlelength=1.6, fontsize=7.5)  # fmt: skip
    return figure


def _blocks(axes: Axes, found: xr.Dataset, site: str) -> tuple[xr.Dataset, list[str]]:
    """Return the layers of a site, and write the numbers of their blocks, from 1."""
    sites = found["site"].values if "site" in found.coords else [
        "attention" if "attn" in name else "mlp" for name in found["layer"].values]  # fmt: skip
    here = found.isel(layer=np.asarray(sites) == site)
    numbers = [next(part for part in str(name).split(".") if part.isdigit())
               for name in here["layer"].values]  # fmt: skip
    step = max(1, len(numbers) // 6)
    axes.set_xticks(range(0, len(numbers), step))
    axes.set_xticklabels([str(int(one) + 1) for one in numbers[::step]])
    axes.set_xlim(-0.6, len(numbers) - 0.4)
    return here, numbers


def _sparsity(axes: Axes, saved: xr.DataTree, site: str) -> None:
    for target, style in STYLES.items():
        whole = saved[f"{target}/statistics"].to_dataset()
        here, _ = _blocks(axes, whole, site)
        one = here.sel(quantity="contribution")
        line(axes, one["sparsity"].values, one["sparsity_interval"].values,
             COLORS["contribution"], ls=style, lw=1, ms=2.5,
             label=f"contributions, {target}")  # fmt: skip
    one = here.sel(quantity="activation")
    line(axes, one["sparsity"].values, one["sparsity_interval"].values, COLORS["activation"],
         lw=1, ms=2.5, label="activations")  # fmt: skip
    axes.set_ylabel("Hoyer sparsity over channels")
    axes.set_ylim(0, 1)


def _groups(axes: Axes, saved: xr.DataTree, site: str) -> None:
    found = saved["logit/held_out"].to_dataset()
    whole = saved["logit/statistics"].to_dataset()["site"]
    found = found.assign_coords(site=whole.sel(layer=found["layer"].values))
    here, _ = _blocks(axes, found, site)
    axes.axhline(0, color=MUTED, lw=0.8, ls=":")
    for number, (kind, label) in enumerate(KINDS.items()):
        one = here.sel(kind=kind)
        line(axes, one["mean"].values, one["mean_interval"].values, COLORS[kind],
             shift=0.12 * (number - 1.5), label=label)  # fmt: skip
    axes.set_ylabel("r with groups, mean")


def _ablation(axes: Axes, saved: xr.DataTree, site: str) -> None:
    found = saved["logit/ablation"].to_dataset().sel(style="ablate")
    here, _ = _blocks(axes, found, site)
    axes.axhline(0, color=MUTED, lw=0.8, ls=":")
    for number, (selection, kind) in enumerate(SELECTIONS.items()):
        one = here.sel(selection=selection)
        color = COLORS[kind] if kind else MUTED
        line(axes, one["estimate"].values, one["estimate_interval"].values, color,
             shift=0.14 * (number - 1), label=selection)  # fmt: skip
    axes.set_ylabel("area off target − on target")
