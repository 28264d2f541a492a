"""Analysis of modes: pathways, receptive fields, hypotheses, concepts, layers, control."""

from retina_codec.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
