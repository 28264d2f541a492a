"""Which interneurons, acting together, make a ganglion cell fire.

The public names of the toolkit; each is loaded from its room when it is first used, so that
``import retina_codec`` stays fast and has no side effect.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retina_codec.analysis.all_fields import all_fields
    from retina_codec.analysis.field_measures import field_measures
    from retina_codec.analysis.field_statistics import combination_effect
    from retina_codec.analysis.hypotheses import hypothesize
    from retina_codec.analysis.hypothesis_words import hypotheses_to_table
    from retina_codec.analysis.nulls import (
        CircularShift,
        LinearShift,
        OtherSessions,
        SegmentPermutation,
    )
    from retina_codec.analysis.own_contributions import own_contributions
    from retina_codec.analysis.pathways import find_pathways
    from retina_codec.analysis.pipeline import analyze
    from retina_codec.analysis.receptive_fields import receptive_fields
    from retina_codec.analysis.statistics import significance
    from retina_codec.contributions.classification import Contrast, Entropy, Probability, TopK
    from retina_codec.contributions.engine import contribute
    from retina_codec.contributions.integrated_gradients import IntegratedGradients
    from retina_codec.contributions.maps import input_map
    from retina_codec.contributions.methods import ActGrad, ActNormGrad, InputGrad, SmoothGrad
    from retina_codec.contributions.reduction import AllUnits, ChannelSums, HeadSums
    from retina_codec.contributions.results import completeness
    from retina_codec.contributions.surprisal import Surprisal
    from retina_codec.contributions.targets import Sum, Unit
    from retina_codec.errors import RecordingWarning, RetinaCodecError
    from retina_codec.figures.recording import plot_recording
    from retina_codec.modes.autoencoder import SparseAutoencoder
    from retina_codec.modes.clustering import KMeans
    from retina_codec.modes.decomposition import decompose
    from retina_codec.modes.factorisation import NMF, SemiNMF
    from retina_codec.modes.gated import GatedAutoencoder
    from retina_codec.modes.linear import PCA, RawChannels
    from retina_codec.modes.scoring import score_modes, score_table
    from retina_codec.modes.topk import BatchTopKAutoencoder, TopKAutoencoder
    from retina_codec.networks.adapter import adapt
    from retina_codec.networks.checkpoints import load_network, save_network
    from retina_codec.networks.evaluation import predict_rates
    from retina_codec.networks.maheswaranathan import Normalisation, RetinaCNN
    from retina_codec.networks.openretina import from_openretina
    from retina_codec.networks.training import TrainingSettings, fit_network
    from retina_codec.recordings.files import convert, open_recording, save_recording
    from retina_codec.recordings.generators import SeededFrames, register_generator
    from retina_codec.recordings.insilico import simulate_retina
    from retina_codec.recordings.interneurons import read_interneurons
    from retina_codec.recordings.leakage import find_leakage
    from retina_codec.recordings.quality import measure_quality
    from retina_codec.recordings.schema import make_recording, validate_recording
    from retina_codec.recordings.smoothing import smooth_rates
    from retina_codec.report import write_report
    from retina_codec.report.nwb_results import export_results, import_results
    from retina_codec.storage import open_tree, save_tree

_HOMES = {
    "ActGrad": "contributions.methods",
    "ActNormGrad": "contributions.methods",
    "AllUnits": "contributions.reduction",
    "BatchTopKAutoencoder": "modes.topk",
    "ChannelSums": "contributions.reduction",
    "CircularShift": "analysis.nulls",
    "Contrast": "contributions.classification",
    "Entropy": "contributions.classification",
    "GatedAutoencoder": "modes.gated",
    "HeadSums": "contributions.reduction",
    "InputGrad": "contributions.methods",
    "IntegratedGradients": "contributions.integrated_gradients",
    "KMeans": "modes.clustering",
    "LinearShift": "analysis.nulls",
    "NMF": "modes.factorisation",
    "Normalisation": "networks.maheswaranathan",
    "OtherSessions": "analysis.nulls",
    "PCA": "modes.linear",
    "Probability": "contributions.classification",
    "RawChannels": "modes.linear",
    "RecordingWarning": "errors",
    "RetinaCNN": "networks.maheswaranathan",
    "RetinaCodecError": "errors",
    "SeededFrames": "recordings.generators",
    "SegmentPermutation": "analysis.nulls",
    "SemiNMF": "modes.factorisation",
    "SmoothGrad": "contributions.methods",
    "SparseAutoencoder": "modes.autoencoder",
    "Sum": "contributions.targets",
    "Surprisal": "contributions.surprisal",
    "TopK": "contributions.classification",
    "TopKAutoencoder": "modes.topk",
    "TrainingSettings": "networks.training",
    "Unit": "contributions.targets",
    "adapt": "networks.adapter",
    "all_fields": "analysis.all_fields",
    "analyze": "analysis.pipeline",
    "combination_effect": "analysis.field_statistics",
    "completeness": "contributions.results",
    "contribute": "contributions.engine",
    "convert": "recordings.files",
    "decompose": "modes.decomposition",
    "export_results": "report.nwb_results",
    "field_measures": "analysis.field_measures",
    "find_leakage": "recordings.leakage",
    "find_pathways": "analysis.pathways",
    "fit_network": "networks.training",
    "from_openretina": "networks.openretina",
    "hypotheses_to_table": "analysis.hypothesis_words",
    "hypothesize": "analysis.hypotheses",
    "import_results": "report.nwb_results",
    "input_map": "contributions.maps",
    "load_network": "networks.checkpoints",
    "make_recording": "recordings.schema",
    "measure_quality": "recordings.quality",
    "open_recording": "recordings.files",
    "open_tree": "storage",
    "own_contributions": "analysis.own_contributions",
    "plot_recording": "figures.recording",
    "predict_rates": "networks.evaluation",
    "read_interneurons": "recordings.interneurons",
    "receptive_fields": "analysis.receptive_fields",
    "register_generator": "recordings.generators",
    "save_network": "networks.checkpoints",
    "save_recording": "recordings.files",
    "save_tree": "storage",
    "score_modes": "modes.scoring",
    "score_table": "modes.scoring",
    "significance": "analysis.statistics",
    "simulate_retina": "recordings.insilico",
    "smooth_rates": "recordings.smoothing",
    "validate_recording": "recordings.schema",
    "write_report": "report",
}

__version__ = "0.1.0"

__all__ = [
    "NMF",
    "PCA",
    "ActGrad",
    "ActNormGrad",
    "AllUnits",
    "BatchTopKAutoencoder",
    "ChannelSums",
    "CircularShift",
    "Contrast",
    "Entropy",
    "GatedAutoencoder",
    "HeadSums",
    "InputGrad",
    "IntegratedGradients",
    "KMeans",
    "LinearShift",
    "Normalisation",
    "OtherSessions",
    "Probability",
    "RawChannels",
    "RecordingWarning",
    "RetinaCNN",
    "RetinaCodecError",
    "SeededFrames",
    "SegmentPermutation",
    "SemiNMF",
    "SmoothGrad",
    "SparseAutoencoder",
    "Sum",
    "Surprisal",
    "TopK",
    "TopKAutoencoder",
    "TrainingSettings",
    "Unit",
    "__version__",
    "adapt",
    "all_fields",
    "analyze",
    "combination_effect",
    "completeness",
    "contribute",
    "convert",
    "decompose",
    "export_results",
    "field_measures",
    "find_leakage",
    "find_pathways",
    "fit_network",
    "from_openretina",
    "hypotheses_to_table",
    "hypothesize",
    "import_results",
    "input_map",
    "load_network",
    "make_recording",
    "measure_quality",
    "open_recording",
    "open_tree",
    "own_contributions",
    "plot_recording",
    "predict_rates",
    "read_interneurons",
    "receptive_fields",
    "register_generator",
    "save_network",
    "save_recording",
    "save_tree",
    "score_modes",
    "score_table",
    "significance",
    "simulate_retina",
    "smooth_rates",
    "validate_recording",
    "write_report",
]


def __getattr__(name: str) -> Any:
    """Load a public name from its room."""
    if name not in _HOMES:
        raise AttributeError(
            f"module 'retina_codec' has no {name!r}; it has {', '.join(sorted(_HOMES))}"
        )
    return getattr(import_module(f"retina_codec.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
