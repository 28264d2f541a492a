"""Analysis: what modes say about cells: pathways, receptive fields, agreement with a recording."""

from retina_codec.analysis.pathways import find_pathways
from retina_codec.analysis.pipeline import analyze
from retina_codec.analysis.receptive_fields import receptive_fields
from retina_codec.analysis.statistics import noise_ceiling, pearson

__all__ = ["analyze", "find_pathways", "noise_ceiling", "pearson", "receptive_fields"]
