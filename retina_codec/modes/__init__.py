"""Modes: groups of channels that act together, and how strongly each acts at each time."""

from retina_codec.modes.autoencoder import SparseAutoencoder
from retina_codec.modes.decomposition import decompose
from retina_codec.modes.gated import GatedAutoencoder
from retina_codec.modes.scorecard import explained_variance, scorecard

__all__ = ["GatedAutoencoder", "SparseAutoencoder", "decompose", "explained_variance", "scorecard"]
