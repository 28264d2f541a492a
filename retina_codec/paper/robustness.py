"""What the paper says about the robustness of modes, judged from fits with one setting changed.

Why this file exists: sentences about penalties, thresholds, sizes, encoders and seeds are judged by
the same rules for two methods whose settings differ. It fits nothing; figure S3 does.

Notation: s similarity of a fit's sums of modes by class to the baseline's (without labels: of
single modes, over the baseline's leading ones); a unit is a class or such a mode.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import blended_transform_factory

from retina_codec.figures.style import MUTED, draw_title, grid, new_figure, styled
from retina_codec.paper.claims import Claim, judge
from retina_codec.statistics.differences import contrast
from retina_codec.statistics.resampling import percentiles, resampled_means

__all__ = [
    "BLOCK",
    "METHODS",
    "Fits",
    "fit_words",
    "method_claims",
    "robustness",
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
    penalty, threshold, size, encoder = ROLES[kind]
    first, last = fits[0], fits[-1]
    deep = len(fits) > 1 and last.labelled  # the same units in several layers
    depth = f"{last.layer} less {first.layer}" if deep else "needs two layers and labels"
    stand_in = "" if kind == "gated" else " (what stands for it)"
    unit = "s of sums by class" if last.labelled else "s of single modes"
    claims: list[Claim] = []

    def add(name: str, says: str, what: str, found: Any, source: str = "S3", **rule: Any) -> None:
        """Add a claim about one number, or about several, (place, number)."""
        several = found if isinstance(found, list) else [("", found)]
        numbers = [number or (np.nan, (np.nan, np.nan)) for _, number in several]
        claims.append(
            judge(
                f"{kind}: {name}",
                f"10.3, Fig. {source}",
                f"{METHODS[kind]}: {says}",
                [float(one[0]) for one in numbers],
                [one[1] for one in numbers],
                measure=what,
                places=[place for place, _ in several],
                **rule,
            )
        )

    def each(setting: str, what: str) -> list[Any]:
        return [
            (f"{one.layer}, {fit_words(one.found, fit)}", _mean(getattr(one, what)[fit]))
            for one in fits
            for fit in one.at(setting)
        ]

    def costs(setting: str) -> list[Any]:
        return [(one.layer, _mean(one.cost[one.at(setting)].mean(axis=0))) for one in fits]

    add("penalty", f"the L1 penalty{stand_in} has minimal impact.",
        f"cost of {WORDS[penalty]}, {unit}", each(penalty, "cost"), high=0.1)  # fmt: skip
    add("threshold", f"the threshold{stand_in} changes modes moderately.",
        f"cost of {WORDS.get(threshold, threshold)}, mean over values, {unit}", costs(threshold),
        low=0.1, high=0.5)  # fmt: skip
    lowest = [one.cost[one.at(threshold)[0]] for one in (first, last)]
    add("threshold, depth", "it does so particularly in middle layers, where it is too low.",
        f"cost of the lowest, {unit}, {depth}",
        _mean(lowest[1] - lowest[0]) if deep else None, high=0)  # fmt: skip
    small = [one.alike[one.at(size)[0]] - one.alike[one.at(size)[-1]] for one in (first, last)]
    add("dictionary", "small dictionaries are less stable in later layers.",
        f"{unit}, smallest less largest dictionary, {last.layer}", _mean(small[1]),
        high=0)  # fmt: skip
    add("dictionary, depth", "they are so in later layers more than in earlier ones.",
        f"the same, {depth}", _mean(small[1] - small[0]) if deep else None,
        high=0)  # fmt: skip
    add("seeds", "other seeds give near-identical modes.", unit, each("seed", "alike"), low=0.9)
    if last.labelled:
        add("seeds, control", "(not the paper's) the sum of a class is more like that of the same "
            "class than those of others.", "s, same class less others", each("seed", "gap"),
            low=0)  # fmt: skip
    for end, name, says, rule in (
        (0, "small encoder", "a small encoder rebuilds worse.", {"high": 0}),
        (-1, "large encoder", "one large enough need not be larger.", {"low": -0.05, "high": 0.05}),
    ):
        rebuilt = [(one.layer, one.r2(one.at(encoder)[end], 0)) for one in fits]
        add(
            name,
            says,
            f"R² less the baseline's, {fit_words(last.found, last.at(encoder)[end])}",
            rebuilt,
            **rule,
        )
    add("signs", "non-negative modes or free ones, a moderate effect.",
        f"cost of free signs, {unit}", costs("sign_consistent"), low=0.1, high=0.5)  # fmt: skip
    add("signs, depth", "positive modes are more like the baseline in deeper layers.",
        f"cost of free signs, {last.layer}, {unit}",
        costs("sign_consistent")[-1][1] if last.labelled else None,
        low=0)  # fmt: skip
    every = range(len(last.dead))
    add("rebuilt", "every fit rebuilds contributions well (0.7 to 0.95).", "R², held-out samples",
        [(f"{one.layer}, {fit_words(one.found, fit)}", one.r2(fit))
         for one in fits for fit in every],
        source="S4", low=0.7)  # fmt: skip
    if not last.labelled:
        return claims
    few, many = last.at(size)[0], last.at(size)[-1]
    count, r = last.values("class_modes"), last.values("class_correlation")
    add("dictionary, modes", "larger dictionaries have more modes per class.",
        f"modes with r > 0.2, largest less smallest, {last.layer}", _mean(count[many] - count[few]),
        source="S4", low=0)  # fmt: skip
    add("dictionary, sum", "but their sum goes with the class as much.",
        f"r of summed loadings, largest less smallest, {last.layer}", _mean(r[many] - r[few]),
        source="S4", low=-0.05, high=0.05)  # fmt: skip
    sparse = [one.found["class_sparsity"].transpose("fit", ...).values for one in (first, last)]
    deeper = [(fit_words(last.found, fit), _mean(sparse[1][fit] - sparse[0][fit]))
              for fit in every if not any(one.dead[fit] for one in fits)]  # fmt: skip
    add("depth", "in all fits, later layers have sparser sums of classes.",
        f"Hoyer sparsity, fits alive, {depth}",
        deeper if deep else None, low=0)  # fmt: skip
    return claims


def _mean(values: Floats) -> tuple[float, tuple[float, float]]:
    """Mean over units (classes or modes) and its interval."""
    found = contrast(np.atleast_2d(values).T, [1.0])
    return found.found, found.interval


def fit_words(found: xr.Dataset, fit: int) -> str:
    """Name a fit in few words."""
    setting, value = str(found["setting"].values[fit]), float(found["value"].values[fit])
    words = WORDS.get(setting, setting)
    return words if setting in ("baseline", "sign_consistent") else f"{words} {value:.3g}"


COLUMNS = {
    "r2": "R², held out",
    "live_modes": "live modes",
    "mean_active": "active at a time",
    "mode_match": "single modes\nfound again",
    "correlated": "modes with\na class (r > 0.2)",
    "coverage": "share of classes\nwith a mode",
    "similarity_mean": "sums by class,\nr with baseline's",
}


@styled
def robustness(tree: xr.DataTree) -> Figure:
    """Draw what `analyses/figure_s3_robustness.py` saved.

    Parameters
    ----------
    tree : xr.DataTree
        ``/<layer>/<method>``: measures along ``fit``, the baseline first; attributes ``layers``
        and ``model``.

    Returns
    -------
    matplotlib.figure.Figure
        A row per fit, a colour per layer; bars are 95 % intervals, pale boxes what chance gives.
        Columns about classes are left out where samples have no labels.
    """
    layers = str(tree.attrs["layers"]).split(" ")
    kinds = [kind for kind in METHODS if kind in tree[layers[0]].children]
    name = Path(str(tree.attrs["model"])).name[:32]
    names, heads, place = [], [], 0.0
    places: dict[str, Floats] = {}
    for kind in kinds:
        found = tree[f"{layers[0]}/{kind}"].to_dataset()
        heads.append((place, METHODS[kind]))
        setting = found["setting"].values
        apart = np.append(0, setting[1:] != setting[:-1])
        places[kind] = place + 1 + np.arange(len(setting)) + 0.35 * np.cumsum(apart)
        names += [fit_words(found, fit) for fit in range(found.sizes["fit"])]
        place = places[kind][-1] + 1.4
    some = tree[f"{layers[0]}/{kinds[0]}"].to_dataset()
    columns = [one for one in COLUMNS.items() if one[0] in some]
    labelled = "similarity" in some
    figure = new_figure(0.18 * place + 1.3)
    draw_title(figure, "", f"Robustness of modes, one setting changed at a time: {name}")
    spec = grid(figure, [1], [1] * len(columns), left=1.65, right=0.12, top=0.36, bottom=0.74,
                gap_x=0.14)  # fmt: skip
    colors = ("#5b3f8c", "#D55E00", "#009E73", "#0072B2")
    first: Any = None
    for column, (key, words) in enumerate(columns):
        axes = figure.add_subplot(spec[0, column], sharey=first)
        first = first or axes
        for number, layer in enumerate(layers):
            shift, color = 0.26 * (number - (len(layers) - 1) / 2), colors[number % len(colors)]
            for kind in kinds:
                _column(
                    axes, tree[f"{layer}/{kind}"].to_dataset(), key, places[kind] + shift, color
                )
        axes.set_xlabel(words, labelpad=3)
        axes.tick_params(axis="y", length=0, labelleft=column == 0)
        axes.grid(axis="y", color="#eceef1", lw=0.6)
        axes.set_axisbelow(True)
        axes.patch.set_visible(False)  # headings may pass under
        if key in ("r2", "mode_match", "coverage", "similarity_mean"):
            least = axes.get_xlim()[0] - 0.04 if key in ("r2", "similarity_mean") else 0.0
            axes.set_xlim(min(-0.05, least), 1.05)
            axes.set_xticks([0, 0.5, 1], ["0", "½", "1"])
        else:
            axes.set_xlim(left=0)
            axes.xaxis.set_major_locator(MaxNLocator(3, integer=True))
    first.set_yticks(np.concatenate(list(places.values())), names)
    first.set_ylim(place - 1, -0.7)
    for at, words in heads:
        side = blended_transform_factory(figure.transFigure, first.transData)
        first.text(0.01, at + 0.2, words, weight="bold", size=8.5, va="center", transform=side)
    marks: list[Any] = [Line2D([], [], marker="o", ls="", ms=4, color=color, label=layer)
                        for layer, color in zip(layers, colors, strict=False)]  # fmt: skip
    figure.legend(handles=marks, loc="upper right", ncols=len(marks), handletextpad=0.2)
    chance = "pale boxes: chance (entries of modes dealt out anew" + (
        "; shuffled labels; baseline's classes exchanged), middle 95 %"
        if labelled
        else "), middle 95 %"
    )
    small = "; small dots: classes" if labelled else "; no labels here: no sums by class"
    figure.text(0.01, 0.012, f"bars: 95 %; dotted: baseline; cross: no mode alive; {chance}{small}",
                size=7.5, color=MUTED)  # fmt: skip
    return figure


def _column(axes: Axes, found: xr.Dataset, key: str, place: Floats, color: str) -> None:
    """Draw one measure of one layer and method."""
    value = found[key].values
    stem = "similarity" if key == "similarity_mean" else key
    if f"{stem}_interval" in found:
        ends = found[f"{stem}_interval"].transpose("fit", "bound").values
        axes.hlines(place, ends[:, 0], ends[:, 1], color=color, lw=1.1)
    null = "null_interval" if key == "similarity_mean" else f"{key}_null_interval"
    if null in found:
        low, high = found[null].transpose("fit", "bound").values.T
        axes.barh(place, high - low, left=low, height=0.24, color=color, alpha=0.25, lw=0)
    if key == "similarity_mean":
        each = found["similarity"].transpose("fit", "concept").values
        axes.plot(each, np.repeat(place[:, None], each.shape[1], 1), ".", ms=2.2, color=color,
                  alpha=0.4, mew=0)  # fmt: skip
    axes.plot(value, place, "o", ms=3.4, color=color, mew=0)
    dead = found["live_modes"].values == 0
    axes.plot(np.zeros(dead.sum()), place[dead], "x", ms=4, color=color)
    axes.plot([value[0]] * 2, [place[0], place[-1]], color=color, lw=0.8, ls=":")
