"""Contributions: how much each hidden channel acted to make the network's target what it is."""

from retina_codec.contributions.engine import contribute
from retina_codec.contributions.methods import IntegratedGradients, Method
from retina_codec.contributions.reduction import mean_over_space, sum_by_sign
from retina_codec.contributions.results import completeness
from retina_codec.contributions.targets import Sum, Surprisal, Target, Unit

__all__ = [
    "IntegratedGradients",
    "Method",
    "Sum",
    "Surprisal",
    "Target",
    "Unit",
    "completeness",
    "contribute",
    "mean_over_space",
    "sum_by_sign",
]
