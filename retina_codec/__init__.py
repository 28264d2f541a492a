"""Which interneurons, acting together, make a ganglion cell fire.

The public names of the toolkit; each is loaded from its room when it is first used, so that
``import retina_codec`` stays fast and has no side effect.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retina_codec.analysis.all_fields import all_fields
    from retina_codec.analysis.channel_kernels import separable_kernels
    from retina_codec.analysis.concepts import activation_tree, concept_table, correlate_concepts
    from retina_codec.analysis.contribution_statistics import contribution_statistics
    from retina_codec.analysis.control import control_curves
    from retina_codec.analysis.field_measures import field_measures
    from retina_codec.analysis.field_statistics import combination_effect
    from retina_codec.analysis.hypotheses import hypothesize
    from retina_codec.analysis.hypothesis_words import hypotheses_to_table
    from retina_codec.analysis.image_study import ImageStudy, open_study
    from retina_codec.analysis.mode_gallery import mode_gallery, top_images
    from retina_codec.analysis.mode_images import mode_maps
    from retina_codec.analysis.nulls import (
        CircularShift,
        LinearShift,
        OtherSessions,
        SegmentPermutation,
    )
    from retina_codec.analysis.overlays import overlay
    from retina_codec.analysis.own_contributions import own_contributions
    from retina_codec.analysis.pathways import find_pathways
    from retina_codec.analysis.perturbation import perturb
    from retina_codec.analysis.pipeline import analyze
    from retina_codec.analysis.receptive_fields import receptive_fields
    from retina_codec.analysis.sparsity import head_sparsity, hoyer_sparsity
    from retina_codec.analysis.statistics import significance
    from retina_codec.contributions.classification import Contrast, Entropy, Probability, TopK
    from retina_codec.contributions.engine import contribute
    from retina_codec.contributions.integrated_gradients import IntegratedGradients
    from retina_codec.contributions.maps import input_map
    from retina_codec.contributions.methods import ActGrad, ActNormGrad, InputGrad, SmoothGrad
    from retina_codec.contributions.reduction import AllUnits, ChannelSums, HeadSums
    from retina_codec.contributions.results import completeness
    from retina_codec.contributions.summary import summarize
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
    from retina_codec.networks.image_networks import load_image_network
    from retina_codec.networks.maheswaranathan import Normalisation, RetinaCNN
    from retina_codec.networks.openretina import from_openretina
    from retina_codec.networks.small_networks import SmallResNet, SmallViT
    from retina_codec.networks.training import TrainingSettings, fit_network
    from retina_codec.recordings.digit_scenes import digit_scenes
    from retina_codec.recordings.files import convert, open_recording, save_recording
    from retina_codec.recordings.generators import SeededFrames, register_generator
    from retina_codec.recordings.hierarchy import read_hierarchy
    from retina_codec.recordings.images import CenterCrop, open_images
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
    "CenterCrop": "recordings.images",
    "ChannelSums": "contributions.reduction",
    "CircularShift": "analysis.nulls",
    "Contrast": "contributions.classification",
    "Entropy": "contributions.classification",
    "GatedAutoencoder": "modes.gated",
    "HeadSums": "contributions.reduction",
    "ImageStudy": "analysis.image_study",
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
    "SmallResNet": "networks.small_networks",
    "SmallViT": "networks.small_networks",
    "SmoothGrad": "contributions.methods",
    "SparseAutoencoder": "modes.autoencoder",
    "Sum": "contributions.targets",
    "Surprisal": "contributions.surprisal",
    "TopK": "contributions.classification",
    "TopKAutoencoder": "modes.topk",
    "TrainingSettings": "networks.training",
    "Unit": "contributions.targets",
    "activation_tree": "analysis.concepts",
    "adapt": "networks.adapter",
    "all_fields": "analysis.all_fields",
    "analyze": "analysis.pipeline",
    "combination_effect": "analysis.field_statistics",
    "completeness": "contributions.results",
    "concept_table": "analysis.concepts",
    "contribute": "contributions.engine",
    "contribution_statistics": "analysis.contribution_statistics",
    "control_curves": "analysis.control",
    "convert": "recordings.files",
    "correlate_concepts": "analysis.concepts",
    "decompose": "modes.decomposition",
    "digit_scenes": "recordings.digit_scenes",
    "export_results": "report.nwb_results",
    "field_measures": "analysis.field_measures",
    "find_leakage": "recordings.leakage",
    "find_pathways": "analysis.pathways",
    "fit_network": "networks.training",
    "from_openretina": "networks.openretina",
    "head_sparsity": "analysis.sparsity",
    "hoyer_sparsity": "analysis.sparsity",
    "hypotheses_to_table": "analysis.hypothesis_words",
    "hypothesize": "analysis.hypotheses",
    "import_results": "report.nwb_results",
    "input_map": "contributions.maps",
    "load_image_network": "networks.image_networks",
    "load_network": "networks.checkpoints",
    "make_recording": "recordings.schema",
    "measure_quality": "recordings.quality",
    "mode_gallery": "analysis.mode_gallery",
    "mode_maps": "analysis.mode_images",
    "open_images": "recordings.images",
    "open_recording": "recordings.files",
    "open_study": "analysis.image_study",
    "open_tree": "storage",
    "overlay": "analysis.overlays",
    "own_contributions": "analysis.own_contributions",
    "perturb": "analysis.perturbation",
    "plot_recording": "figures.recording",
    "predict_rates": "networks.evaluation",
    "read_hierarchy": "recordings.hierarchy",
    "read_interneurons": "recordings.interneurons",
    "receptive_fields": "analysis.receptive_fields",
    "register_generator": "recordings.generators",
    "save_network": "networks.checkpoints",
    "save_recording": "recordings.files",
    "save_tree": "storage",
    "score_modes": "modes.scoring",
    "score_table": "modes.scoring",
    "separable_kernels": "analysis.channel_kernels",
    "significance": "analysis.statistics",
    "simulate_retina": "recordings.insilico",
    "smooth_rates": "recordings.smoothing",
    "summarize": "contributions.summary",
    "top_images": "analysis.mode_gallery",
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
    "CenterCrop",
    "ChannelSums",
    "CircularShift",
    "Contrast",
    "Entropy",
    "GatedAutoencoder",
    "HeadSums",
    "ImageStudy",
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
    "SmallResNet",
    "SmallViT",
    "SmoothGrad",
    "SparseAutoencoder",
    "Sum",
    "Surprisal",
    "TopK",
    "TopKAutoencoder",
    "TrainingSettings",
    "Unit",
    "__version__",
    "activation_tree",
    "adapt",
    "all_fields",
    "analyze",
    "combination_effect",
    "completeness",
    "concept_table",
    "contribute",
    "contribution_statistics",
    "control_curves",
    "convert",
    "correlate_concepts",
    "decompose",
    "digit_scenes",
    "export_results",
    "field_measures",
    "find_leakage",
    "find_pathways",
    "fit_network",
    "from_openretina",
    "head_sparsity",
    "hoyer_sparsity",
    "hypotheses_to_table",
    "hypothesize",
    "import_results",
    "input_map",
    "load_image_network",
    "load_network",
    "make_recording",
    "measure_quality",
    "mode_gallery",
    "mode_maps",
    "open_images",
    "open_recording",
    "open_study",
    "open_tree",
    "overlay",
    "own_contributions",
    "perturb",
    "plot_recording",
    "predict_rates",
    "read_hierarchy",
    "read_interneurons",
    "receptive_fields",
    "register_generator",
    "save_network",
    "save_recording",
    "save_tree",
    "score_modes",
    "score_table",
    "separable_kernels",
    "significance",
    "simulate_retina",
    "smooth_rates",
    "summarize",
    "top_images",
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
