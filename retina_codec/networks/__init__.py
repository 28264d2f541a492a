"""The networks being explained: the retina CNN, how it is fitted, saved and matched."""

from retina_codec.networks.checkpoints import load_network, save_network
from retina_codec.networks.locations import estimate_centers
from retina_codec.networks.maheswaranathan import Normalisation, RetinaCNN
from retina_codec.networks.matching import check_match
from retina_codec.networks.training import TrainingSettings, fit_network

__all__ = [
    "Normalisation",
    "RetinaCNN",
    "TrainingSettings",
    "check_match",
    "estimate_centers",
    "fit_network",
    "load_network",
    "save_network",
]
