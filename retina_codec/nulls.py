"""Nulls that keep autocorrelation: p- and q-values of correlations between slow series.

Permuting repeats of one movie is not among them: loadings are the same in every repeat.

Notation: T bins, x (T, cell) rates, z (T, mode) loadings, n draws.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.errors import RecordingWarning, RetinaCodecError
from retina_codec.progress import progress_bar

__all__ = [
    "CircularShift",
    "LinearShift",
    "Null",
    "OtherSessions",
    "SegmentPermutation",
    "assess_significance",
    "benjamini_hochberg",
]

Floats = npt.NDArray[np.float64]

ROUNDING = 1e-9  # a drawn |r| this little below the observed one counts as reaching it
TOGETHER = 256  # permutations that are drawn at a time


class Null(ABC):
    """One way to draw correlations as they would be without any relation.

    Each null breaks the pairing of rates and loadings and keeps every series as it is.

    Must: be a frozen dataclass whose fields are its settings; implement `p_values`, two-sided and
    never 0, and `draws_of`; say which condition makes it valid.

    Should: set ``needs``, the smallest number of bins, and refuse recordings that are too short.
    """

    needs: ClassVar[int] = 4  # bins

    @abstractmethod
    def p_values(self, rate: Floats, loading: Floats, progress: bool | None = None) -> Floats:
        """Return p (cell, mode).

        Parameters
        ----------
        rate : array (time, cell)
            Finite, none of them constant; any unit.
        loading : array (time, mode)
            The same times; finite, none of them constant.
        progress : bool, optional
            None shows a bar after 2 s, False never, True at once.

        Returns
        -------
        array (cell, mode), in (0, 1]

        Raises
        ------
        RetinaCodecError
            If the recording is too short for this null.
        """

    @abstractmethod
    def draws_of(self, bins: int) -> int:
        """Return how many correlations without a relation each pair is compared with."""

    def describe(self, bins: int) -> dict[str, Any]:
        """Return name, settings and number of draws in a form that files can hold."""
        settings = {k: v for k, v in asdict(self).items() if isinstance(v, int | float | str)}  # type: ignore[call-overload]
        return {"null": type(self).__name__} | settings | {"draws": self.draws_of(bins)}


@dataclass(frozen=True)
class LinearShift(Null):
    """Shift the rates against the middle part of the loadings, without wrapping.

    With N the largest shift and the loadings of bins N to T − N, r_v is their correlation with the
    rates v bins later, v = −N..N in equal steps, n to each side. p = m / (n + 1), at most 1, with m
    the number of v, 0 included, for which |r_v| >= |r_0|.

    Parameters
    ----------
    share : float
        N as a share of the recording, above 0 and below 0.5. More shifts, shorter middle part.
    shifts : int
        Largest n, to limit the time it takes; with N < n every bin is a shift.

    Notes
    -----
    r depends on a rate only up to an additive constant, so it is enough that the increments of the
    rates are stationary; the loadings may be anything. A random walk qualifies. Where scenes change
    by the clock, shifts by whole scenes are compared with too, so more scenes are needed.

    Why not m / (2n + 1): with stationary increments (r_v) is stationary in v. Among n + 1
    successive v at most m can be among the m largest of the 2n + 1 around them, so the chance that
    v = 0 is one of them is at most m / (n + 1). Valid at any length, and conservative. Shifts
    shorter than the autocorrelation give nearly the same r, so the smallest p of a true relation
    is about twice its correlation time over N.

    References
    ----------
    Harris 2020, arXiv:2012.06862, a shift test for independence in generic time series. There one
    series must be stationary; for Pearson's r stationary increments are enough, see the notes.
    """

    share: float = 0.25
    shifts: int = 2000

    def __post_init__(self) -> None:
        """Validate the parameters."""
        if not 0 < self.share < 0.5 or self.shifts < 1:
            raise RetinaCodecError(
                f"share must lie between 0 and 0.5 and shifts be at least 1; got {self.share=}, "
                f"{self.shifts=}. LinearShift() takes a quarter to each side."
            )

    def p_values(self, rate: Floats, loading: Floats, progress: bool | None = None) -> Floats:
        """Count the shifts that reach the correlation without a shift."""
        bins, (largest, step) = len(rate), self._range(len(rate))
        if largest < 1 or bins - 2 * largest < self.needs:
            raise RetinaCodecError(
                f"a linear shift needs one shift and {self.needs} bins in the middle; {bins} bins "
                f"with {self.share=} leave {largest} and {bins - 2 * largest}. Explain a longer "
                "recording."
            )
        middle = _centered(loading[largest : bins - largest])
        around = rate - rate.mean(axis=0)

        def shifted(start: int) -> Floats:
            return _magnitude(around[start : start + len(middle)], middle)

        count = largest // step
        starts = largest + step * np.arange(-count, count + 1)
        drawn = (shifted(start) for start in starts.tolist())
        reached = _count(drawn, shifted(largest), len(starts), progress)
        return np.minimum(reached / (count + 1), 1.0)

    def _range(self, bins: int) -> tuple[int, int]:
        """Return the largest shift and the step between shifts, in bins."""
        largest = int(self.share * bins)
        step = max(1, -(-largest // self.shifts))
        return largest, step

    def draws_of(self, bins: int) -> int:
        """Return the number of shifts but 0."""
        largest, step = self._range(bins)
        return 2 * (largest // step)


@dataclass(frozen=True)
class SegmentPermutation(Null):
    """Pair segments of the rates with other segments of the loadings.

    The recording is cut into S segments of equal length; r = Σ_s Σ_t x̃ z̃ / √(Σ x̃² Σ z̃²) with x̃,
    z̃ around their means in each segment, so that changes slower than a segment do not count. r_π
    pairs segment s of the loadings with segment π(s) of the rates.
    p = (1 + #{|r_π| >= |r|}) / (1 + n) over n random permutations π.

    Parameters
    ----------
    segments : int
        S; a rest of less than S bins at the end is left out.
    draws : int
        n.
    seed : int
        Of the permutations.

    Notes
    -----
    r is not Pearson's r of the whole recording. Segments, each around its own mean, must be
    exchangeable: those of a random walk are, those of an oscillation that outlasts a segment are
    not. Neighbouring segments are not quite independent: a segment should last several
    autocorrelation times.
    """

    segments: int = 12
    draws: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        """Validate the parameters."""
        if self.segments < 5 or self.draws < 1:
            raise RetinaCodecError(
                "segments must be at least 5 (fewer have too few permutations for p < 0.01) and "
                f"draws at least 1; got {self.segments=}, {self.draws=}."
            )

    def p_values(self, rate: Floats, loading: Floats, progress: bool | None = None) -> Floats:
        """Count the permutations that reach the correlation of segments as they were."""
        length = len(rate) // self.segments
        if length < self.needs:
            raise RetinaCodecError(
                f"a segment needs {self.needs} bins; {len(rate)} bins in {self.segments} segments "
                f"leave {length}. Use fewer segments, or explain a longer recording."
            )
        x, z = (
            _cut(values, self.segments, length) for values in (rate, loading)
        )  # (segment, time, ...)
        product = np.einsum("atc,btm->abcm", x, z, optimize=True)
        every = np.arange(self.segments)
        observed = abs(product[every, every].sum(0))
        random = np.random.default_rng(self.seed)

        def drawn() -> Iterator[Floats]:
            for start in range(0, self.draws, TOGETHER):
                count = min(TOGETHER, self.draws - start)
                order = random.permuted(np.tile(every, (count, 1)), axis=1)
                total = np.zeros((count, *observed.shape))
                for segment in every:
                    total += product[order[:, segment], segment]
                yield np.abs(total)

        blocks = -(-self.draws // TOGETHER)
        return (1 + _count(drawn(), observed, blocks, progress)) / (1 + self.draws)

    def draws_of(self, bins: int) -> int:
        """Return the number of permutations."""
        del bins
        return self.draws


@dataclass(frozen=True, eq=False)
class OtherSessions(Null):
    """Put rates under other, independent movies in the place of those under this one.

    p = (1 + #{j: |r_j| >= |r|}) / (1 + n), r_j the correlation of the loadings with the rates of
    session j, n sessions: also called pseudosessions.

    Parameters
    ----------
    rates : array (session, time, cell)
        Rates of the same cells under movies of the same kind, length and bin as the explained one.

    Notes
    -----
    Exact if the movies are independent draws of one kind. The smallest p is 1 / (1 + n), so about
    100 sessions are needed; a model that predicts rates can give them for made movies.

    References
    ----------
    Harris 2020, bioRxiv 2020.11.29.402719, nonsense correlations in neuroscience.
    """

    rates: npt.NDArray[Any]

    def __post_init__(self) -> None:
        """Validate the parameters."""
        if np.ndim(self.rates) != 3 or not np.isfinite(self.rates).all():
            raise RetinaCodecError(
                "rates of other sessions must be finite with dims (session, time, cell); got shape "
                f"{np.shape(self.rates)}. Leave sessions with missing values out."
            )

    def p_values(self, rate: Floats, loading: Floats, progress: bool | None = None) -> Floats:
        """Count the sessions that reach the correlation of this one."""
        if self.rates.shape[1:] != rate.shape:
            raise RetinaCodecError(
                f"other sessions must have the explained times and cells, {rate.shape}; got "
                f"{self.rates.shape[1:]}. Cut them to the same length."
            )
        z = _centered(loading)
        drawn = (_magnitude(np.asarray(other, np.float64), z) for other in self.rates)
        reached = _count(drawn, _magnitude(rate, z), len(self.rates), progress)
        return (1 + reached) / (1 + len(self.rates))

    def draws_of(self, bins: int) -> int:
        """Return the number of other sessions."""
        del bins
        return len(self.rates)


@dataclass(frozen=True)
class CircularShift(Null):
    """Rotate the rates in time, the end joined to the beginning; not valid for slow series.

    p = (1 + #{|r_v| >= |r|}) / (1 + n), r_v after a rotation by v bins, n rotations in equal steps.

    Parameters
    ----------
    shifts : int
        Largest n, to limit the time it takes.

    Warns
    -----
    RecordingWarning
        Always: the p-values are too small where a series changes slowly.

    References
    ----------
    Harris 2020, bioRxiv 2020.11.29.402719: up to 100 % false positives.
    """

    shifts: int = 2000

    def __post_init__(self) -> None:
        """Validate the parameters."""
        if self.shifts < 1:
            raise RetinaCodecError(f"shifts must be at least 1; got {self.shifts=}.")

    def p_values(self, rate: Floats, loading: Floats, progress: bool | None = None) -> Floats:
        """Count the rotations that reach the correlation without one."""
        warnings.warn(
            "a circular shift joins the end of the recording to its beginning; where rates or "
            "loadings are slow its p-values are far too small. LinearShift() is valid there.",
            RecordingWarning,
            stacklevel=3,
        )
        z = _centered(loading)
        places = self._places(len(rate))
        drawn = (_magnitude(np.roll(rate, v, axis=0), z) for v in places.tolist())
        reached = _count(drawn, _magnitude(rate, z), len(places), progress)
        return (1 + reached) / (1 + len(places))

    def _places(self, bins: int) -> npt.NDArray[np.int64]:
        return np.arange(1, bins, max(1, -(-(bins - 1) // self.shifts)))

    def draws_of(self, bins: int) -> int:
        """Return the number of rotations."""
        return len(self._places(bins))


def assess_significance(
    rate: xr.DataArray,
    loading: xr.DataArray,
    *,
    null: Null | None = None,
    progress: bool | None = None,
) -> xr.Dataset:
    """Give every pair of cell and mode a p-value, and a q-value over all pairs.

    q_(i) = min over j >= i of p_(j) M / j, p sorted, M pairs: calling all pairs with q < 0.05 found
    makes on average at most 5 % false ones among them (Benjamini and Hochberg).

    Parameters
    ----------
    rate : xr.DataArray, dims (time, cell)
        Any unit; finite and nowhere constant.
    loading : xr.DataArray, dims (time, mode)
        At the same times; finite and nowhere constant.
    null : Null, optional
        `LinearShift` when left out.
    progress : bool, optional
        None shows a bar after 2 s, False never, True at once.

    Returns
    -------
    xr.Dataset
        ``p_value`` and ``q_value`` (cell, mode), dimensionless; the null, its settings and the
        number of draws in the attrs of both.

    Raises
    ------
    RetinaCodecError
        If times differ, or the recording is too short for the null.

    References
    ----------
    Benjamini, Hochberg 1995, J. R. Stat. Soc. B 57:289, eq. 1; q-values as in Yekutieli,
    Benjamini 1999.
    """
    null = LinearShift() if null is None else null
    if not isinstance(null, Null):
        raise RetinaCodecError(
            "null must be one of LinearShift(), SegmentPermutation(), OtherSessions(rates), "
            f"CircularShift(); got {null!r}."
        )
    dim = next(str(name) for name in loading.dims if name != "mode")
    try:
        rate, loading = xr.align(rate, loading, join="exact")
    except ValueError as error:
        reason = " ".join(str(error).split())[:160]
        raise RetinaCodecError(
            f"rates and loadings must have the same labels; {reason}. Select common times."
        ) from error
    p = null.p_values(
        rate.transpose(dim, "cell").values.astype(np.float64),
        loading.transpose(dim, "mode").values.astype(np.float64),
        progress,
    )
    attrs = {"units": "1"} | null.describe(rate.sizes[dim])
    coords = {"cell": rate["cell"], "mode": loading["mode"]}
    return xr.Dataset(
        {
            "p_value": (("cell", "mode"), p, attrs | {"long_name": "p of the correlation"}),
            "q_value": (
                ("cell", "mode"),
                benjamini_hochberg(p),
                attrs | {"long_name": "q, Benjamini-Hochberg over cells and modes"},
            ),
        },
        coords=coords,
    )


def benjamini_hochberg(p: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Adjust p-values so that a threshold on them bounds the share of false findings.

    q_(i) = min over j >= i of p_(j) M / j, at most 1.

    Parameters
    ----------
    p : array of any shape, in [0, 1]

    Returns
    -------
    array of the same shape
    """
    values = np.asarray(p, dtype=np.float64)
    if not ((values >= 0) & (values <= 1)).all():
        raise RetinaCodecError(
            "p-values must lie in [0, 1]; got values outside or NaN. Leave undefined pairs out."
        )
    order = np.argsort(values, axis=None)
    scaled = values.ravel()[order] * values.size / np.arange(1, values.size + 1)
    adjusted = np.empty(values.size)
    adjusted[order] = np.minimum.accumulate(scaled[::-1])[::-1]
    return np.minimum(adjusted, 1.0).reshape(values.shape)


def q_values(p: Floats) -> Floats:
    """Return q of the p-values that are known, see `benjamini_hochberg`; NaN stays NaN."""
    q, known = np.full_like(p, np.nan), np.isfinite(p)
    q[known] = benjamini_hochberg(p[known])
    return q


def _centered(values: Floats) -> Floats:
    centered: Floats = values - values.mean(axis=0)
    return centered


def _magnitude(rate: Floats, centered: Floats) -> Floats:
    """|Pearson r| (cell, mode) up to the loadings' norm, the same for every draw; 0 if constant."""
    x = _centered(rate)
    norm = np.sqrt((x**2).sum(axis=0))[:, None]
    product: Floats = abs(x.T @ centered)
    magnitude: Floats = np.divide(product, norm, out=np.zeros_like(product), where=norm > 0)
    return magnitude


def _cut(values: Floats, segments: int, length: int) -> Floats:
    """Cut into (segment, time, ...), each around its mean."""
    cut = values[: segments * length].reshape(segments, length, -1)
    around: Floats = cut - cut.mean(axis=1, keepdims=True)
    return around


def _count(drawn: Iterable[Floats], observed: Floats, total: int, progress: bool | None) -> Floats:
    """Count the draws, (cell, mode) or (draw, cell, mode) each, that reach the observed value."""
    reached = np.zeros(observed.shape)
    for magnitude in progress_bar(drawn, description="null", total=total, progress=progress):
        more = magnitude >= observed * (1 - ROUNDING)
        reached += more.reshape(-1, *observed.shape).sum(axis=0)
    return reached
