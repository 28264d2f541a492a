"""Contribution methods: how much each hidden unit contributed to the target."""

from retina_codec.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
