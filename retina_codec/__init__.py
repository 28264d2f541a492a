"""Find groups of hidden units that act together in models of the retina and other networks.

The verbs from a recording to a report; everything else stands in the submodules.
"""

from importlib.metadata import PackageNotFoundError, version

from retina_codec.lazy import attach

try:
    __version__ = version("retina-codec")
except PackageNotFoundError:  # a clone on the path that was never installed
    __version__ = "0+unknown"

__getattr__, __dir__, __all__ = attach(__name__, __file__)
