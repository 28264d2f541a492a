"""Figures: each function takes results and returns a matplotlib figure; none writes a file."""

from retina_codec.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
