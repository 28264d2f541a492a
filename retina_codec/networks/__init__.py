"""Networks: the models being explained, how they are fitted, saved and loaded."""

from retina_codec.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
