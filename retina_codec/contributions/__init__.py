"""Contributions: how much each hidden channel acted to make the network's target what it is."""

from retina_codec.contributions.classification import Contrast, Entropy, Probability, TopK
from retina_codec.contributions.engine import contribute
from retina_codec.contributions.integrated_gradients import IntegratedGradients
from retina_codec.contributions.maps import input_map
from retina_codec.contributions.methods import (
    ActGrad,
    ActNormGrad,
    InputGrad,
    Method,
    SmoothGrad,
)
from retina_codec.contributions.reduction import (
    AllUnits,
    ChannelSums,
    HeadSums,
    Reduction,
    mean_over_space,
    sum_by_sign,
)
from retina_codec.contributions.results import completeness
from retina_codec.contributions.surprisal import Surprisal
from retina_codec.contributions.targets import Sum, Target, Unit

__all__ = [
    "ActGrad",
    "ActNormGrad",
    "AllUnits",
    "ChannelSums",
    "Contrast",
    "Entropy",
    "HeadSums",
    "InputGrad",
    "IntegratedGradients",
    "Method",
    "Probability",
    "Reduction",
    "SmoothGrad",
    "Sum",
    "Surprisal",
    "Target",
    "TopK",
    "Unit",
    "completeness",
    "contribute",
    "input_map",
    "mean_over_space",
    "sum_by_sign",
]
