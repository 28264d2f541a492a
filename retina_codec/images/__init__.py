"""Images: labelled pictures from folders, with classes and superclasses."""

from retina_codec.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
