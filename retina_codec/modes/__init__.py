"""Modes: groups of channels that act together, and how strongly each acts at each time."""

from retina_codec.modes.autoencoder import SparseAutoencoder
from retina_codec.modes.clustering import KMeans
from retina_codec.modes.decomposition import decompose
from retina_codec.modes.factorisation import NMF, SemiNMF
from retina_codec.modes.gated import GatedAutoencoder
from retina_codec.modes.linear import PCA, RawChannels
from retina_codec.modes.methods import METHODS, method_of
from retina_codec.modes.scorecard import explained_variance, scorecard
from retina_codec.modes.scoring import score_modes, score_table
from retina_codec.modes.topk import BatchTopKAutoencoder, TopKAutoencoder

__all__ = [
    "METHODS",
    "NMF",
    "PCA",
    "BatchTopKAutoencoder",
    "GatedAutoencoder",
    "KMeans",
    "RawChannels",
    "SemiNMF",
    "SparseAutoencoder",
    "TopKAutoencoder",
    "decompose",
    "explained_variance",
    "method_of",
    "score_modes",
    "score_table",
    "scorecard",
]
