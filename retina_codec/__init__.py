"""Which interneurons, acting together, make a ganglion cell fire.

The public names of the toolkit; each is loaded from its room when it is first used, so that
``import retina_codec`` stays fast and has no side effect.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retina_codec.analysis.pathways import find_pathways
    from retina_codec.analysis.pipeline import analyze
    from retina_codec.analysis.receptive_fields import receptive_fields
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
    from retina_codec.modes.decomposition import decompose
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
    "ChannelSums": "contributions.reduction",
    "Contrast": "contributions.classification",
    "Entropy": "contributions.classification",
    "HeadSums": "contributions.reduction",
    "InputGrad": "contributions.methods",
    "IntegratedGradients": "contributions.integrated_gradients",
    "Normalisation": "networks.maheswaranathan",
    "Probability": "contributions.classification",
    "RecordingWarning": "errors",
    "RetinaCNN": "networks.maheswaranathan",
    "RetinaCodecError": "errors",
    "SeededFrames": "recordings.generators",
    "SmoothGrad": "contributions.methods",
    "SparseAutoencoder": "modes.autoencoder",
    "Sum": "contributions.targets",
    "Surprisal": "contributions.surprisal",
    "TopK": "contributions.classification",
    "TrainingSettings": "networks.training",
    "Unit": "contributions.targets",
    "adapt": "networks.adapter",
    "analyze": "analysis.pipeline",
    "completeness": "contributions.results",
    "contribute": "contributions.engine",
    "convert": "recordings.files",
    "decompose": "modes.decomposition",
    "export_results": "report.nwb_results",
    "find_leakage": "recordings.leakage",
    "find_pathways": "analysis.pathways",
    "fit_network": "networks.training",
    "from_openretina": "networks.openretina",
    "import_results": "report.nwb_results",
    "input_map": "contributions.maps",
    "load_network": "networks.checkpoints",
    "make_recording": "recordings.schema",
    "measure_quality": "recordings.quality",
    "open_recording": "recordings.files",
    "open_tree": "storage",
    "plot_recording": "figures.recording",
    "predict_rates": "networks.evaluation",
    "read_interneurons": "recordings.interneurons",
    "receptive_fields": "analysis.receptive_fields",
    "register_generator": "recordings.generators",
    "save_network": "networks.checkpoints",
    "save_recording": "recordings.files",
    "save_tree": "storage",
    "simulate_retina": "recordings.insilico",
    "smooth_rates": "recordings.smoothing",
    "validate_recording": "recordings.schema",
    "write_report": "report",
}

__version__ = "0.1.0"

__all__ = [
    "ActGrad",
    "ActNormGrad",
    "AllUnits",
    "ChannelSums",
    "Contrast",
    "Entropy",
    "HeadSums",
    "InputGrad",
    "IntegratedGradients",
    "Normalisation",
    "Probability",
    "RecordingWarning",
    "RetinaCNN",
    "RetinaCodecError",
    "SeededFrames",
    "SmoothGrad",
    "SparseAutoencoder",
    "Sum",
    "Surprisal",
    "TopK",
    "TrainingSettings",
    "Unit",
    "__version__",
    "adapt",
    "analyze",
    "completeness",
    "contribute",
    "convert",
    "decompose",
    "export_results",
    "find_leakage",
    "find_pathways",
    "fit_network",
    "from_openretina",
    "import_results",
    "input_map",
    "load_network",
    "make_recording",
    "measure_quality",
    "open_recording",
    "open_tree",
    "plot_recording",
    "predict_rates",
    "read_interneurons",
    "receptive_fields",
    "register_generator",
    "save_network",
    "save_recording",
    "save_tree",
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
