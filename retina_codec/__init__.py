"""Which interneurons, acting together, make a ganglion cell fire.

The verbs of the road from a recording to a report; everything else stands in the submodules. Names
are loaded when they are first used, so that ``import retina_codec`` is quick.
"""

from retina_codec.lazy import attach

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = attach(__name__, __file__)
