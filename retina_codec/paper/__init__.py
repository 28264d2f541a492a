"""What the scripts in analyses/ share: studies, claims, and parts of measurements and figures."""

from retina_codec.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
