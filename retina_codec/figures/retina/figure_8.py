"""The four panels of the paper's Figure 8 on one page.

Why this file exists: one picture of the whole analysis, to set beside the published one. Every
panel is drawn by its own file; this one only places them.
"""

import xarray as xr
from matplotlib.figure import Figure

from retina_codec.figures.retina.contributions import draw_contribution_heat_maps
from retina_codec.figures.retina.fields import draw_irf_combinations, height_needed
from retina_codec.figures.retina.network import draw_network_and_target
from retina_codec.figures.retina.pathways import draw_mode_matrices
from retina_codec.figures.style import new_figure, styled

__all__ = ["figure_8"]


@styled
def figure_8(results: xr.DataTree, start: float | None = None, stop: float | None = None) -> Figure:
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
    draw_contribution_heat_maps(b, results, start, stop, letter="B")
    draw_mode_matrices(c, results, letter="C")
    draw_irf_combinations(d, results, letter="D")
    return figure
