"""Targets: the one number per input that contributions explain."""

from retina_codec.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
