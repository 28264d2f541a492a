"""Modes: groups of channels that act together, and how strongly each acts at each time."""

from retina_codec.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
