"""Which interneurons, acting together, make a ganglion cell fire.

The verbs from a recording to a report; everything else stands in the submodules.
"""

from retina_codec.lazy import attach

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = attach(__name__, __file__)
