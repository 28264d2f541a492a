"""The four panels of the paper's Figure 8 on one page."""

import xarray as xr
from matplotlib.figure import Figure

from retina_codec.figures import base
from retina_codec.figures.retina.contributions import draw_contributions
from retina_codec.figures.retina.fields import draw_fields, height_needed
from retina_codec.figures.retina.network import draw_network_and_target
from retina_codec.figures.retina.pathways import draw_pathways
from retina_codec.figures.style import new_figure, styled
from retina_codec.storage.results import layers_with

__all__ = ["Figure8", "plot_figure_8"]


class Figure8(base.Figure):
    """All panels on one page; the report shows them one by one."""

    name = "figure_8"
    title = "The network, contributions over time, pathways and receptive fields"
    caption = (
        "The panels of Figure 8 of Melander et al. 2026; each is explained where it stands alone."
    )
    section = ""

    def needs(self, results: xr.DataTree) -> bool:
        """Return whether there are pathways and receptive fields."""
        return bool(layers_with(results, "pathways")) and "receptive_fields" in results.children

    def draw(self, results: xr.DataTree) -> Figure:
        """Draw `plot_figure_8`."""
        return plot_figure_8(results)


@styled
def plot_figure_8(
    results: xr.DataTree, start: float | None = None, stop: float | None = None
) -> Figure:
    """Draw network and target, contributions over time, mode matrices, receptive fields.

    Parameters
    ----------
    results : xr.DataTree
        Results of ``analyze``.
    start, stop : float, optional
        Stretch of time for panel B, s; the liveliest 4 s when left out.

    Returns
    -------
    matplotlib.figure.Figure
        Panels A to D.

    References
    ----------
    Melander et al. 2026, Figure 8.
    """
    heights = [3.2, 8.4, 4.4, height_needed(results)]
    figure = new_figure(sum(heights))
    parts = figure.subfigures(4, 1, height_ratios=heights, hspace=0, squeeze=False)
    a, b, c, d = (part for (part,) in parts)
    draw_network_and_target(a, results, letter="A")
    draw_contributions(b, results, start, stop, letter="B")
    draw_pathways(c, results, letter="C")
    draw_fields(d, results, letter="D")
    return figure
