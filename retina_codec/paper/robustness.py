"""Claims of the paper about the robustness of modes, judged from fits with one setting changed.

Notation: the reference is the fit with no setting changed; s similarity of a fit's sums of modes by
class to the reference's (without labels: of single modes, over the reference's leading ones); a
unit is a class or such a mode.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.paper.claims import Claim, judge
from retina_codec.statistics.differences import contrast
from retina_codec.statistics.resampling import percentiles, resampled_means

__all__ = [
    "BLOCK",
    "METHODS",
    "Fits",
    "fit_words",
    "method_claims",
    "robustness_claims",
]

Floats = npt.NDArray[np.float64]


METHODS = {"gated": "gated autoencoder", "default": "default"}  # published; this package's


ROLES = {  # which setting stands for which of the paper's
    "gated": ("dictionary_penalty", "threshold", "modes_per_feature", "hidden"),
    "default": ("active", "minimum_share", "modes", "encoder_steps"),
}


WORDS = {
    "dictionary_penalty": "penalty of modes",
    "loading_penalty": "penalty of loadings",
    "modes_per_feature": "modes per feature",
    "hidden": "encoder width ×",
    "active": "active at most",
    "minimum_share": "smallest share",
    "modes": "modes ×",
    "encoder_steps": "encoder steps",
    "sign_consistent": "free signs",
    "baseline": "reference",  # no setting changed
}


BLOCK = 100  # times of a movie that are drawn together for intervals


class Fits:
    """What was measured of one layer and method, by setting."""

    def __init__(self, layer: str, found: xr.Dataset, bootstraps: int, seed: int) -> None:
        self.layer, self.found, self.draws = layer, found, (bootstraps, seed)
        self.labelled = "similarity" in found
        self.dead = found["live_modes"].values == 0
        self.alike = self.values("similarity" if self.labelled else "mode_similarity")
        self.cost = self.alike[self.at("seed")].mean(axis=0) - self.alike  # (fit, unit)
        self.gap = self.alike - self.values("other") if self.labelled else self.alike

    def values(self, name: str) -> Floats:
        """Return a measure (fit, unit), 0 where all modes are dead."""
        values = self.found[name].transpose("fit", ...).values
        return np.where(self.dead[:, None], 0.0, values)

    def at(self, setting: str) -> list[int]:
        """Return the fits in which a setting was changed, smallest value first."""
        here = np.flatnonzero(self.found["setting"].values == setting)
        return sorted(here.tolist(), key=lambda fit: float(self.found["value"][fit]))

    def r2(self, *fits: int) -> tuple[float, Floats]:
        """R² of a fit, or of the first less the second, with its interval."""
        block = 1 if self.labelled else BLOCK
        spread = self.found["spread"].values[0]
        error = self.found["error"].values
        columns = [np.where(self.dead[fit], spread, error[fit]) for fit in fits] + [spread]
        table = np.stack(columns, axis=1)
        drawn = resampled_means(table, *self.draws, block)
        whole, drawn = (1 - v[..., :-1] / v[..., -1:] for v in (table.mean(axis=0), drawn))
        signs = np.array([1.0, -1.0])[: len(fits)]
        return float(whole @ signs), percentiles(drawn @ signs)


def robustness_claims(tree: xr.DataTree) -> list[Claim]:
    """Judge what was measured, of both methods by the same rules."""
    layers = str(tree.attrs["layers"]).split(" ")
    draws = int(tree.attrs["bootstraps"]), int(tree.attrs["seed"])
    claims: list[Claim] = []
    for kind in METHODS:
        if kind in tree[layers[0]].children:
            fits = [Fits(name, tree[f"{name}/{kind}"].to_dataset(), *draws) for name in layers]
            claims += method_claims(kind, fits)
    return claims


def method_claims(kind: str, fits: list[Fits]) -> list[Claim]:
    """Judge one method in all its layers."""
    judged = _Judged(kind, fits)
    judged.settings()
    judged.seeds()
    judged.encoders()
    judged.signs()
    judged.rebuilt()
    if judged.last.labelled:
        judged.classes()
    return judged.claims


class _Judged:
    """Claims about one method; each method below adds those about one subject."""

    def __init__(self, kind: str, fits: list[Fits]) -> None:
        self.kind, self.fits, self.claims = kind, fits, list[Claim]()
        self.first, self.last = first, last = fits[0], fits[-1]
        self.deep = len(fits) > 1 and last.labelled  # the same units in several layers
        self.depth = "needs two layers and labels"
        if self.deep:
            self.depth = f"{last.layer} less {first.layer}"
        self.unit = "s of sums by class" if last.labelled else "s of single modes"

    def add(
        self, name: str, says: str, what: str, found: Any, source: str = "S3", **rule: Any
    ) -> None:
        """Add a claim about one number, or about several, (place, number)."""
        several = found if isinstance(found, list) else [("", found)]
        numbers = [number or (np.nan, (np.nan, np.nan)) for _, number in several]
        self.claims.append(
            judge(
                f"{self.kind}: {name}",
                f"10.3, Fig. {source}",
                f"{METHODS[self.kind]}: {says}",
                [float(one[0]) for one in numbers],
                [one[1] for one in numbers],
                measure=what,
                places=[place for place, _ in several],
                **rule,
            )
        )

    def each(self, setting: str, what: str) -> list[Any]:
        """Return the mean of a measure in every layer and fit with this setting changed."""
        return [
            (f"{one.layer}, {fit_words(one.found, fit)}", _mean(getattr(one, what)[fit]))
            for one in self.fits
            for fit in one.at(setting)
        ]

    def costs(self, setting: str) -> list[Any]:
        """Return the mean cost over values of a setting in every layer."""
        return [(one.layer, _mean(one.cost[one.at(setting)].mean(axis=0))) for one in self.fits]

    def settings(self) -> None:
        """Penalty, threshold and size of the dictionary."""
        penalty, threshold, size, _ = ROLES[self.kind]
        stand_in = "" if self.kind == "gated" else " (what stands for it)"
        both = (self.first, self.last)
        self.add("penalty", f"the L1 penalty{stand_in} has minimal impact.",
                 f"cost of {WORDS[penalty]}, {self.unit}", self.each(penalty, "cost"),
                 high=0.1)  # fmt: skip
        self.add("threshold", f"the threshold{stand_in} changes modes moderately.",
                 f"cost of {WORDS.get(threshold, threshold)}, mean over values, {self.unit}",
                 self.costs(threshold), low=0.1, high=0.5)  # fmt: skip
        lowest = [one.cost[one.at(threshold)[0]] for one in both]
        self.add("threshold, depth",
                 "it does so particularly in middle layers, where it is too low.",
                 f"cost of the lowest, {self.unit}, {self.depth}",
                 _mean(lowest[1] - lowest[0]) if self.deep else None, high=0)  # fmt: skip
        small = [one.alike[one.at(size)[0]] - one.alike[one.at(size)[-1]] for one in both]
        self.add("dictionary", "small dictionaries are less stable in later layers.",
                 f"{self.unit}, smallest less largest dictionary, {self.last.layer}",
                 _mean(small[1]), high=0)  # fmt: skip
        self.add("dictionary, depth", "they are so in later layers more than in earlier ones.",
                 f"the same, {self.depth}", _mean(small[1] - small[0]) if self.deep else None,
                 high=0)  # fmt: skip

    def seeds(self) -> None:
        """Compare fits from other starting points."""
        self.add("seeds", "other seeds give near-identical modes.", self.unit,
                 self.each("seed", "alike"), low=0.9)  # fmt: skip
        if self.last.labelled:
            self.add("seeds, control", "(not the paper's) the sum of a class is more like that of "
                     "the same class than those of others.", "s, same class less others",
                     self.each("seed", "gap"), low=0)  # fmt: skip

    def encoders(self) -> None:
        """Compare small and large encoders with the reference."""
        setting = ROLES[self.kind][3]
        for end, name, says, low, high in (
            (0, "small encoder", "a small encoder rebuilds worse.", -np.inf, 0),
            (-1, "large encoder", "one large enough need not be larger.", -0.05, 0.05),
        ):
            found = [(one.layer, one.r2(one.at(setting)[end], 0)) for one in self.fits]
            fit = fit_words(self.last.found, self.last.at(setting)[end])
            self.add(name, says, f"R² less the reference's, {fit}", found, low=low, high=high)

    def signs(self) -> None:
        """Compare non-negative modes with modes of free sign."""
        found = self.costs("sign_consistent")
        self.add("signs", "non-negative modes or free ones, a moderate effect.",
                 f"cost of free signs, {self.unit}", found, low=0.1, high=0.5)  # fmt: skip
        self.add("signs, depth", "positive modes are more like the reference in deeper layers.",
                 f"cost of free signs, {self.last.layer}, {self.unit}",
                 found[-1][1] if self.last.labelled else None, low=0)  # fmt: skip

    def rebuilt(self) -> None:
        """Judge R² of every fit."""
        found = [
            (f"{one.layer}, {fit_words(one.found, fit)}", one.r2(fit))
            for one in self.fits
            for fit in range(len(self.last.dead))
        ]
        self.add("rebuilt", "every fit rebuilds contributions well (0.7 to 0.95).",
                 "R², held-out samples", found, source="S4", low=0.7)  # fmt: skip

    def classes(self) -> None:
        """Judge modes of classes, by size of the dictionary and by depth."""
        last, size = self.last, ROLES[self.kind][2]
        few, many = last.at(size)[0], last.at(size)[-1]
        count, r = last.values("class_modes"), last.values("class_correlation")
        self.add("dictionary, modes", "larger dictionaries have more modes per class.",
                 f"modes with r > 0.2, largest less smallest, {last.layer}",
                 _mean(count[many] - count[few]), source="S4", low=0)  # fmt: skip
        self.add("dictionary, sum", "but their sum goes with the class as much.",
                 f"r of summed loadings, largest less smallest, {last.layer}",
                 _mean(r[many] - r[few]), source="S4", low=-0.05, high=0.05)  # fmt: skip
        sparse = [one.found["class_sparsity"].transpose("fit", ...).values
                  for one in (self.first, last)]  # fmt: skip
        deeper = [(fit_words(last.found, fit), _mean(sparse[1][fit] - sparse[0][fit]))
                  for fit in range(len(last.dead))
                  if not any(one.dead[fit] for one in self.fits)]  # fmt: skip
        self.add("depth", "in all fits, later layers have sparser sums of classes.",
                 f"Hoyer sparsity, fits alive, {self.depth}", deeper if self.deep else None,
                 low=0)  # fmt: skip


def _mean(values: Floats) -> tuple[float, tuple[float, float]]:
    """Mean over units (classes or modes) and its interval."""
    found = contrast(np.atleast_2d(values).T, [1.0])
    return found.found, found.interval


def fit_words(found: xr.Dataset, fit: int) -> str:
    """Name a fit in few words."""
    setting, value = str(found["setting"].values[fit]), float(found["value"].values[fit])
    words = WORDS.get(setting, setting)
    return words if setting in ("baseline", "sign_consistent") else f"{words} {value:.3g}"
