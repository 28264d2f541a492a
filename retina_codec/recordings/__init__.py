"""Recordings: stimulus and responses as labelled arrays, from files or a simulated retina."""

from retina_codec.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
