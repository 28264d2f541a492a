"""Figures: each function takes results and returns a matplotlib figure.

No function computes science, touches pyplot's state, or writes a file.
"""

from retina_codec.figures.contributions import contribution_heat_maps
from retina_codec.figures.figure_8 import figure_8
from retina_codec.figures.network_and_target import network_and_target
from retina_codec.figures.pathways import mode_matrices
from retina_codec.figures.quality import quality_checks
from retina_codec.figures.receptive_fields import irf_combinations
from retina_codec.figures.recording import plot_recording
from retina_codec.figures.scorecard import scorecard

__all__ = [
    "contribution_heat_maps",
    "figure_8",
    "irf_combinations",
    "mode_matrices",
    "network_and_target",
    "plot_recording",
    "quality_checks",
    "scorecard",
]
