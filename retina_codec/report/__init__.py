"""The report: results as one HTML page, and results written back to NWB."""

from retina_codec.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
