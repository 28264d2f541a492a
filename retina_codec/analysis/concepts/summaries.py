"""Summarize correlations of a layer in a few numbers, with intervals and nulls.

Notation: r (F, C) correlations of features and concepts, NaN where undefined.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.analysis.concepts.correlations import Correlated
from retina_codec.statistics.resampling import percentiles, resampled_means

__all__ = ["Levels", "label_summaries", "summaries_of"]

Floats = npt.NDArray[np.float64]

WORDS = {
    "concept_correlation": "mean over concepts of the largest r of any feature",
    "feature_correlation": "mean over features of the largest r with any concept",
    "correlated": "features with r above the threshold for some concept",
    "coverage": "share of concepts with r above the threshold for some feature",
    "significant": "features correlated with some concept more than by chance",
}

COUNTS = ("correlated", "significant")


@dataclass
class Levels:
    """Levels of concepts (classes, superclasses), and the threshold on r."""

    level: list[str]
    threshold: float

    @property
    def names(self) -> list[str]:
        """Levels in the order of their first concepts."""
        return list(dict.fromkeys(self.level))

    def measure(self, correlation: Floats) -> dict[str, Floats]:
        """Summarise correlations (F, C), each number by level."""
        rows = [self._one(correlation[:, self.columns(name)]) for name in self.names]
        return {key: np.array([row[key] for row in rows]) for key in rows[0]}

    def columns(self, name: str) -> npt.NDArray[np.intp]:
        """Return the concepts of a level."""
        return np.flatnonzero(np.array(self.level) == name)

    def _one(self, r: Floats) -> dict[str, float]:
        by_concept, by_feature = largest(r, 0), largest(r, 1)
        return {
            "concept_correlation": _mean(by_concept),
            "feature_correlation": _mean(by_feature),
            "correlated": float((by_feature > self.threshold).sum()),
            "coverage": _mean(above(by_concept, self.threshold)),
        }


def largest(r: Floats, axis: int) -> Floats:
    """Return the largest r that is defined; NaN where none is."""
    low = np.where(np.isfinite(r), r, -np.inf).max(axis=axis, initial=-np.inf)
    return np.where(np.isfinite(low), low, np.nan)


def above(values: Floats, threshold: float) -> Floats:
    """Return 1 above the threshold and 0 below; NaN stays NaN."""
    return np.where(np.isfinite(values), (values > threshold).astype(float), np.nan)


def _mean(values: Floats) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def summaries_of(
    found: Correlated, q: Floats, levels: Levels, false_discovery: float, bootstraps: int, seed: int
) -> dict[str, Floats]:
    """Measure a layer: numbers, intervals, nulls and p, each by level; q (F,) of features."""
    r = found.correlation
    row = levels.measure(r)
    null = {key: np.array(found.null[key]) for key in row}  # (P, level)
    row["features"] = np.array(
        [np.isfinite(r[:, levels.columns(name)]).any(axis=1).sum() for name in levels.names], float
    )
    hits = q <= false_discovery
    cut = float(found.feature_p[hits].max()) if hits.any() else -np.inf
    by_chance = (found.feature_null <= cut * (1 + 1e-9)).sum(axis=1)
    row["significant"] = np.full(len(levels.names), float(hits.sum()))
    null["significant"] = np.repeat(by_chance[:, None].astype(float), len(levels.names), 1)
    intervals = _intervals(r, hits, levels, bootstraps, seed)
    data: dict[str, Floats] = {"features": row["features"]}
    for key in WORDS:
        value = row[key]
        data[key] = value
        data[f"{key}_interval"] = intervals[key]
        data[f"{key}_null"] = null[key].mean(axis=0)
        data[f"{key}_null_interval"] = percentiles(null[key])
        reached = (null[key] >= value - 1e-9 * np.abs(value)).sum(axis=0)
        data[f"{key}_p"] = np.where(
            np.isfinite(value), (1 + reached) / (1 + len(null[key])), np.nan
        )
    return data


def _intervals(
    r: Floats, hits: npt.NDArray[np.bool_], levels: Levels, draws: int, seed: int
) -> dict[str, Floats]:
    """Intervals of every number, (level, 2): bootstrap of means, Wilson of counts and shares."""
    random = np.random.default_rng(seed)
    found: dict[str, list[Floats]] = {key: [] for key in WORDS}
    for name in levels.names:
        columns = levels.columns(name)
        by_concept, by_feature = largest(r[:, columns], 0), largest(r[:, columns], 1)
        fine = np.isfinite(by_feature)
        by_concept, by_feature = by_concept[np.isfinite(by_concept)], by_feature[fine]
        features = len(by_feature)
        high = int((by_feature > levels.threshold).sum())
        hit = int(hits[fine].sum())
        reached = int((by_concept > levels.threshold).sum())
        found["concept_correlation"].append(_bootstrap(by_concept, random, draws))
        found["feature_correlation"].append(_bootstrap(by_feature, random, draws))
        found["coverage"].append(_wilson(reached, len(by_concept)))
        found["correlated"].append(features * _wilson(high, features))
        found["significant"].append(features * _wilson(hit, features))
    return {key: np.stack(values) for key, values in found.items()}


def _bootstrap(values: Floats, random: np.random.Generator, draws: int) -> Floats:
    """Return the middle 95 % of means over values drawn with replacement."""
    if not len(values):
        return np.full(2, np.nan)
    ends: Floats = percentiles(resampled_means(values[:, None], draws, random))[0]
    return ends


def _wilson(count: int, total: int) -> Floats:
    """Return the 95 % interval of a share (Wilson 1927, J. Am. Stat. Assoc. 22:209)."""
    from scipy.stats import binomtest

    if not total:
        return np.full(2, np.nan)
    ends = binomtest(count, total).proportion_ci(0.95, method="wilson")
    return np.array([ends.low, ends.high])


def label_summaries(
    rows: dict[tuple[str, str], dict[str, Floats]],
    layers: list[str],
    kinds: list[str],
    levels: Levels,
) -> xr.Dataset:
    """Put layers, kinds and levels on the numbers."""
    keys = list(next(iter(rows.values())))
    data: dict[str, Any] = {}
    for key in keys:
        values = np.array([[rows[layer, kind][key] for kind in kinds] for layer in layers])
        dims = ("layer", "kind", "level", *(("bound",) if values.ndim == 4 else ()))
        base = key.split("_null")[0].removesuffix("_interval").removesuffix("_p")
        counts = base in COUNTS and not key.endswith("_p")
        attrs = {"units": "count" if counts or key == "features" else "1"}
        if key in WORDS:
            attrs["long_name"] = WORDS[key]
        data[key] = (dims, values, attrs)
    coords = {"layer": layers, "kind": kinds, "level": levels.names, "bound": ["low", "high"]}
    return xr.Dataset(data, coords=coords)
