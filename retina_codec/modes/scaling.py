"""Shift and scale features before a fit, so that constant or extreme values do not decide it.

Notation: x (sample, feature), o (feature,) offset, g (feature,) gain in (0, 1], s () scale;
the fit sees y = (x − o) g / s.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

__all__ = ["Loaded", "Scaling", "load_modes", "measure_scaling", "without_scaling"]

Floats = npt.NDArray[np.float64]

ROWS = 4096  # quantiles are taken from at most this many samples
LOW, HIGH, TOP = 0.05, 0.95, 0.99  # quantiles of a feature: its offset, its usual largest value
OF_MEDIAN = 0.5  # an offset is at least this share of the feature's median,
OF_FEATURE = 0.1  # this share of its root mean square without its largest values,
OF_ALL = 0.1  # and, scaled as in the fit, this share of the standard deviation of all features
LONGEST, FEWEST = 0.01, 10  # the longest samples: share, or number where there are few
LONG = 100.0  # samples this many times as long as others are outliers
LARGEST = 0.9  # share of the squares that the largest features may hold together
PART = 8  # the largest features: one in so many, at least one
LEAST_GAIN = 1e-3
STRETCHES = 20  # of the fitted part, in each of which a constant part is taken to be constant
BADLY = 0.1  # squares of the error of a sample, as a share of its own
IMPUTED = 3  # times that modes are loaded again on what they rebuild
OPPOSITE = 0.01  # squares of the wrong sign in a feature, as a share of the variance of all


@dataclass(frozen=True, kw_only=True, eq=False)
class Scaling:
    """Offset and scale of every feature, from the fitted part; `apply` and `invert` use them.

    Where no value is constant or extreme, offset is 0, gain is 1 and no sample is an outlier:
    the features are divided by one global standard deviation.
    """

    offset: Floats
    """(feature,), unit of the features: the part that is always there."""
    gain: Floats
    """(feature,), 1e-3 to 1: how much a feature is scaled down because it dominates the others."""
    scale: float
    """Standard deviation of all values (x − o) g, samples shortened to `limit`."""
    limit: float
    """Length of y above which a sample is an outlier; infinite if nothing bounds it."""
    non_negative: bool
    """Whether features, their offsets and the modes are >= 0."""
    highest: Floats
    """(feature,), unit of x − o: largest value of a feature with an offset; infinite for others."""
    opposite: npt.NDArray[np.bool_]
    """(feature,): has values below 0 that count though it should have none."""

    def level(self, values: Floats) -> Floats:
        """Return consecutive values (sample, feature) as if constant parts had never changed.

        The part that is there at a time is the largest 5 % quantile of the stretch of samples
        around and of its neighbours that does not exceed the value; it is set to the offset.
        """
        changing = np.flatnonzero(self.offset)
        count = min(STRETCHES, len(values) // STRETCHES)
        if not len(changing) or count < 2:
            return values
        own = values[:, changing] * np.sign(self.offset[changing])
        part = np.arange(len(values)) * count // len(values)
        floor = np.stack([np.quantile(own[part == n], LOW, axis=0) for n in range(count)])
        around = [floor[(part + step).clip(0, count - 1)] for step in (-1, 0, 1)]
        fitting = np.where(np.stack(around) <= own, around, -np.inf).max(axis=0)
        there = np.where(np.isfinite(fitting), fitting, np.min(around, axis=0))
        even = values.copy()
        even[:, changing] = (own - there) * np.sign(self.offset[changing]) + self.offset[changing]
        return even

    def apply(self, values: Floats) -> Floats:
        """Return y (sample, feature) of values (sample, feature), dimensionless."""
        shifted = values
        if self.offset.any():
            shifted = values - self.offset
        if self.non_negative:  # what lies below is left to modes of its own
            own = (self.offset > 0) | self.opposite
            if own.any():
                shifted = np.where(own, shifted.clip(min=0), shifted)
        if (self.gain < 1).any():
            shifted = shifted * self.gain
        scaled: Floats = shifted / self.scale
        return scaled

    def shorten(self, scaled: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return y with outliers shortened to `limit`; their direction stays."""
        length = np.linalg.norm(scaled.astype(np.float64), axis=1)
        if not (length > self.limit).any():
            return scaled
        share = np.minimum(1.0, self.limit / np.maximum(length, self.limit))
        short: npt.NDArray[np.float32] = (scaled * share[:, None]).astype(np.float32)
        return short

    def invert(
        self, loading: npt.NDArray[np.float32], dictionary: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Bring loadings (sample, mode) and modes (mode, feature) of y to units of x − o.

        Rows of the dictionary have unit length; their product is x − o.
        """
        loading = loading * np.float32(self.scale)
        if not (self.gain < 1).any():
            return loading, dictionary
        wide = dictionary / self.gain
        length = np.linalg.norm(wide, axis=1)
        unit = wide / np.where(length > 0, length, 1.0)[:, None]
        return (loading * length).astype(np.float32), unit.astype(np.float32)


def without_scaling(values: Floats, sign: Floats) -> Scaling:
    """Divide all features by one global standard deviation, whatever the values are."""
    width = values.shape[1]
    return Scaling(
        offset=np.zeros(width),
        gain=np.ones(width),
        scale=float((values * sign).std()),
        limit=np.inf,
        non_negative=False,
        highest=np.full(width, np.inf),
        opposite=np.zeros(width, dtype=bool),
    )


def measure_scaling(values: Floats, sign: Floats, *, non_negative: bool) -> Scaling:
    """Measure offset, gain and scale of features, robust to constant and extreme values.

    Offset: the 5 % quantile of a feature (the 95 % quantile of one that is negative), if it is at
    least half of the median, a tenth of the root mean square without the largest 1 % of the values,
    and, in what the fit sees, a tenth of the standard deviation of all features; else 0.
    Limit: a sample is an outlier if it is 100 times as long as the others (root mean square length
    without silent samples and the longest: 1 %, or 10 of few samples but at most 5 %). Gain: below
    1 for the largest features, one in eight, where they hold more than 90 % of the squares; it
    brings them to 90 %.

    Parameters
    ----------
    values : array (sample, feature)
        The fitted part, in units of the contributions; inhibitory ones turned positive if
        ``non_negative``.
    sign : array (feature,)
        -1 for features that were turned, 1 for others; the scale is that of the values as they
        were.
    non_negative : bool
        Whether offsets must be >= 0.

    Returns
    -------
    Scaling
        Its ``scale`` is 0 if nothing is left that varies.
    """
    offset = _offsets(values, non_negative)
    none = np.zeros(len(offset), dtype=bool)
    found = _without(values, sign, offset, none, non_negative)
    kept = np.abs(offset) * found.gain >= OF_ALL * found.scale
    below = (values.clip(max=0) * found.gain) ** 2
    opposite = none
    if non_negative and found.scale > 0:
        opposite = below.mean(axis=0) > OPPOSITE * found.scale**2
    if (offset[~kept] != 0).any() or opposite.any():
        found = _without(values, sign, np.where(kept, offset, 0.0), opposite, non_negative)
    return found


def _without(
    values: Floats,
    sign: Floats,
    offset: Floats,
    opposite: npt.NDArray[np.bool_],
    non_negative: bool,
) -> Scaling:
    """Measure limit, gain and scale of what is left without offsets and opposite values."""
    plain = Scaling(
        offset=offset,
        gain=np.ones(len(offset)),
        scale=1.0,
        limit=np.inf,
        non_negative=non_negative,
        highest=np.full(len(offset), np.inf),
        opposite=opposite,
    )
    shifted = plain.apply(plain.level(values))
    highest = np.where(offset > 0, shifted.max(axis=0), np.inf)
    length = np.linalg.norm(shifted, axis=1)
    limit = LONG * _ordinary(length)
    if (length > limit).any():
        shifted = shifted * np.minimum(1.0, limit / np.maximum(length, limit))[:, None]
    gain = _gains(np.mean(shifted**2, axis=0))
    if (gain < 1).any():
        shifted = shifted * gain
    scale = float((shifted * sign).std())
    limit = LONG * _ordinary(np.linalg.norm(shifted, axis=1)) / scale if scale > 0 else np.inf
    return replace(plain, gain=gain, scale=scale, limit=limit, highest=highest)


def _offsets(values: Floats, non_negative: bool) -> Floats:
    """Return the offsets (feature,) of features that are rarely near 0; 0 for the others."""
    few = values[:: -(-len(values) // ROWS)]
    low, median, high = np.quantile(few, [LOW, 0.5, HIGH], axis=0)
    found = np.where(low > 0, low, 0.0)
    if not non_negative:
        found = np.where(high < 0, high, found)
    size = np.abs(few)
    usual = np.sqrt(np.mean(np.minimum(size, np.quantile(size, TOP, axis=0)) ** 2, axis=0))
    least = np.maximum(OF_MEDIAN * np.abs(median), OF_FEATURE * usual)
    return np.where(np.abs(found) >= least, found, 0.0)


def _ordinary(length: Floats) -> float:
    """Return the root mean square length of samples, without silent ones and the longest."""
    kept = np.sort(length[length > 0])
    without = max(LONGEST * len(kept), min(FEWEST, len(kept) / 20))
    kept = kept[: len(kept) - int(np.ceil(without))]
    return float(np.sqrt(np.mean(kept**2))) if len(kept) else np.inf


def _gains(power: Floats) -> Floats:
    """Return the gains (feature,) that bring the largest mean squares to their share at most."""
    gain = np.ones(len(power))
    largest = np.argsort(-power, kind="stable")[: max(1, len(power) // PART)]
    top = power[largest]
    allowed = LARGEST / (1 - LARGEST) * (power.sum() - top.sum())
    if not 0 < allowed < top.sum():
        return gain
    for count in range(1, len(top) + 1):
        level = (allowed - top[count:].sum()) / count
        if count == len(top) or level >= top[count]:
            break
    gain[largest[:count]] = np.sqrt(level / top[:count]).clip(LEAST_GAIN, 1)
    return gain


@dataclass(frozen=True, eq=False)
class Loaded:
    """Modes (mode, feature) in units of the features, their loadings, and where they come from."""

    dictionary: npt.NDArray[np.float32]
    loading: npt.NDArray[np.float32]
    """(sample, mode)"""
    unpolished: npt.NDArray[np.float32]
    """(sample, mode), straight from the encoder."""
    origin: npt.NDArray[np.str_]
    """(mode,): "fit", "constant", "outlier" or "opposite"."""


Encode = Callable[[npt.NDArray[np.float32]], tuple[npt.NDArray[np.float32], ...]]
EncodeWeighted = Callable[
    [npt.NDArray[np.float32], npt.NDArray[np.float32]], npt.NDArray[np.float32]
]


def load_modes(
    values: Floats,
    scaling: Scaling,
    dictionary: npt.NDArray[np.float32],
    encode: Encode,
    encode_weighted: EncodeWeighted | None = None,
) -> Loaded:
    """Load modes of scaled features on values, and give what was set aside modes of its own.

    Offsets are carried by further modes, one for each of the largest (one feature in eight) and one
    for all others; their loadings are what is left of the values along them. Where a constant part
    has changed since the fit, the modes are loaded without it. Where a sample is not rebuilt to
    within the limit of outliers, its extreme features are carried by modes of one feature each, and
    the modes are loaded on the others. So are values of the wrong sign. Where features were scaled
    down and the squares of a sample's error exceed a tenth of its own (in units of the values,
    constant parts apart), modes are chosen anew for the sample in these units, if that makes the
    error smaller; a sample still rebuilt so badly has its loadings shortened by one factor, that of
    least squares.

    Parameters
    ----------
    values : array (sample, feature)
        Inhibitory ones turned positive as for `measure_scaling`.
    scaling : Scaling
    dictionary : array (mode, feature)
        Found in the scaled features.
    encode : callable
        Returns loadings, polished and unpolished, of scaled features.
    encode_weighted : callable, optional
        Returns loadings of scaled features whose errors count so many times (feature,).

    Returns
    -------
    Loaded
        loading @ dictionary ≈ values.
    """
    scaled = scaling.apply(values).astype(np.float32)
    codes = list(encode(scaled))
    _impute(values, scaled, codes, scaling, dictionary, encode)
    if encode_weighted is not None and (scaling.gain < 1).any():
        codes[0] = _chosen_anew(codes[0], scaled, scaling, dictionary, encode_weighted)
    single = np.zeros((0, values.shape[1]))
    extra = [np.zeros((len(values), 0))] * 2
    left = scaled - codes[0].astype(np.float64) @ dictionary
    far = np.flatnonzero(np.linalg.norm(left, axis=1) > scaling.limit)
    if len(far):
        single, again, carried = _alien(scaled[far], scaling, dictionary, encode)
        for number, found in enumerate(again):
            codes[number] = codes[number].copy()
            codes[number][far] = found
            extra[number] = np.zeros((len(values), len(single)))
            extra[number][far] = carried[number]
    modes = dictionary
    loadings = []
    for code in codes:
        loading, modes = scaling.invert(code, dictionary)
        loadings.append(_shortened(loading, modes, scaled, scaling))
    single_scale = np.abs(single) @ (scaling.scale / scaling.gain)
    parts = [modes, single.astype(np.float32)]
    origin = ["fit"] * len(modes) + ["outlier"] * len(single)
    loadings = [
        np.hstack([loading, (more * single_scale).astype(np.float32)])
        for loading, more in zip(loadings, extra, strict=True)
    ]
    below = np.flatnonzero(scaling.opposite)
    if len(below):
        rebuilt = np.vstack(parts)[:, below]
        wrong = values[:, below] < 0
        loadings = [
            np.hstack([own, np.where(wrong, own @ rebuilt - values[:, below], 0).clip(min=0)])
            for own in loadings
        ]
        parts.append(-np.eye(values.shape[1], dtype=np.float32)[below])
        origin += ["opposite"] * len(below)
    constant = _constant_modes(scaling.offset)
    if len(constant):
        along, shared = values @ constant.T, np.vstack(parts).astype(np.float64) @ constant.T
        loadings = [np.hstack([own, (along - own @ shared).clip(min=0)]) for own in loadings]
        parts.append(constant.astype(np.float32))
        origin += ["constant"] * len(constant)
    one, other = (loading.astype(np.float32) for loading in loadings)
    return Loaded(np.vstack(parts), one, other, np.array(origin))


def _shortened(
    loading: npt.NDArray[np.float32],
    modes: npt.NDArray[np.float32],
    scaled: npt.NDArray[np.float32],
    scaling: Scaling,
) -> npt.NDArray[np.float32]:
    """Shorten the loadings of samples that are rebuilt badly in units of x − o."""
    if not (scaling.gain < 1).any():
        return loading
    constant = _constant_modes(scaling.offset)
    wide = _without_rows(scaled * (scaling.scale / scaling.gain), constant)
    rebuilt = _without_rows(loading.astype(np.float64) @ modes, constant)
    along, square = (wide * rebuilt).sum(axis=1), (rebuilt**2).sum(axis=1)
    worse = _error(rebuilt, wide) > BADLY
    share = np.where(worse, (along / np.where(square > 0, square, 1.0)).clip(0, 1), 1.0)
    return (loading * share[:, None]).astype(np.float32)


def _chosen_anew(
    code: npt.NDArray[np.float32],
    scaled: npt.NDArray[np.float32],
    scaling: Scaling,
    dictionary: npt.NDArray[np.float32],
    encode_weighted: EncodeWeighted,
) -> npt.NDArray[np.float32]:
    """Choose modes for badly rebuilt samples anew in units of x − o, where this helps there."""
    wider, constant = scaling.scale / scaling.gain, _constant_modes(scaling.offset)
    wide = _without_rows(scaled * wider, constant)

    def rebuilt(code: npt.NDArray[np.float32]) -> Floats:
        return _without_rows(code.astype(np.float64) @ dictionary * wider, constant)

    before = _error(rebuilt(code), wide)
    rows = np.flatnonzero(before > BADLY)
    if not len(rows):
        return code
    found = encode_weighted(scaled[rows], (1 / scaling.gain).astype(np.float32))
    after = _error(rebuilt(found), wide[rows])
    better = after < before[rows]
    code = code.copy()
    code[rows[better]] = found[better]
    return code


def _without_rows(values: Floats, unit: Floats) -> Floats:
    """Take away what lies along orthogonal directions (row, feature), which are carried apart."""
    return values - values @ unit.T @ unit if len(unit) else values


def _error(rebuilt: Floats, values: Floats) -> Floats:
    """Return |x − r|² over |x|² of every sample; 0 for samples of zeros."""
    size = (values**2).sum(axis=1)
    left = ((values - rebuilt) ** 2).sum(axis=1)
    share: Floats = left / np.where(size > 0, size, np.inf)
    return share


def _impute(
    values: Floats,
    scaled: npt.NDArray[np.float32],
    codes: list[npt.NDArray[np.float32]],
    scaling: Scaling,
    dictionary: npt.NDArray[np.float32],
    encode: Encode,
) -> None:
    """Load modes (in place) without features whose constant part is not the one fitted.

    These lie below their offset or above all that was fitted; what the modes rebuild stands in,
    where this rebuilds the sample better.
    """
    shifted = values - scaling.offset
    least = -OF_ALL * scaling.scale / scaling.gain
    foreign = (scaling.offset > 0) & ((shifted < least) | (shifted > scaling.highest))
    rows = np.flatnonzero(foreign.any(axis=1)) if scaling.non_negative else np.zeros(0, int)
    if not len(rows):
        return
    whole = shifted[rows] * scaling.gain / scaling.scale
    constant = _constant_modes(scaling.offset * scaling.gain)

    def left(code: npt.NDArray[np.float32]) -> Floats:
        rest = _without_rows(whole - code.astype(np.float64) @ dictionary, constant)
        size: Floats = np.linalg.norm(rest, axis=1)
        return size

    for number, before in enumerate(codes):
        found = np.zeros_like(before[rows])
        for _ in range(IMPUTED):
            known = np.where(foreign[rows], found @ dictionary, scaled[rows])
            found = encode(known.astype(np.float32))[number]
        better = left(found) < left(before[rows])
        codes[number] = before.copy()
        codes[number][rows[better]] = found[better]


def _constant_modes(offset: Floats) -> Floats:
    """Return modes (mode, feature) of the offsets: one each for the largest, one for the others."""
    largest = np.argsort(-np.abs(offset), kind="stable")[: max(1, len(offset) // PART)]
    rows = np.zeros((len(largest) + 1, len(offset)))
    rows[np.arange(len(largest)), largest] = offset[largest]
    rows[-1] = offset
    rows[-1, largest] = 0
    length = np.linalg.norm(rows, axis=1)
    unit: Floats = rows[length > 0] / length[length > 0, None]
    return unit


def _alien(
    scaled: npt.NDArray[np.float32],
    scaling: Scaling,
    dictionary: npt.NDArray[np.float32],
    encode: Encode,
) -> tuple[Floats, list[npt.NDArray[np.float32]], list[Floats]]:
    """Split outliers into modes of one feature (mode, feature), loadings of both, each twice."""
    width = scaled.shape[1]
    size = scaled if scaling.non_negative else np.abs(scaled)
    extreme = size > scaling.limit / np.sqrt(width)
    again = list(encode(np.where(extreme, np.float32(0), scaled)))
    signed = [np.where(extreme, scaled - code.astype(np.float64) @ dictionary, 0) for code in again]
    both = [np.hstack([one, -one]).clip(min=0) for one in signed]  # loadings are >= 0
    if scaling.non_negative:
        both = [one[:, :width] for one in both]
    used = np.flatnonzero(np.any([one.any(axis=0) for one in both], axis=0))
    unit = np.vstack([np.eye(width), -np.eye(width)])
    return unit[used], again, [one[:, used] for one in both]
