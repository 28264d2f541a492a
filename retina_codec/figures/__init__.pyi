from .retina.contributions import contribution_heat_maps as contribution_heat_maps
from .retina.fields import irf_combinations as irf_combinations
from .retina.figure_8 import figure_8 as figure_8
from .retina.network import network_and_target as network_and_target
from .retina.pathways import mode_matrices as mode_matrices
from .retina.quality import quality_checks as quality_checks
from .retina.recording import plot_recording as plot_recording
from .retina.scorecard import scorecard as scorecard
