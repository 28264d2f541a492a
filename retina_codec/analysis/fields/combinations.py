"""Test whether receptive fields change with the set of active modes, against shifted labels.

Notation: t times, n cells, c combinations, f unit-length images of one cell, k shift.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.nulls import q_values
from retina_codec.progress import progress_bar

__all__ = ["measure_combinations"]

Floats = npt.NDArray[np.float64]

NEGLIGIBLE = 1e-3  # share of the variation over times that is left out to save work
FEWEST_SHIFTS = 19  # to each side: p-values of 5 % can be reached

WORDS = {
    "effect": "share of the variation of fields that combinations explain",
    "null_mean": "mean effect of shifted combinations",
    "null_high": "95th percentile of the effect of shifted combinations",
    "p_value": "p of the effect, combinations shifted in time",
    "q_value": "false discovery rate over cells",
    "within": "mean 1 − r of fields with the same combination",
    "between": "mean 1 − r of fields with different combinations",
}


def measure_combinations(
    fields: xr.Dataset,
    combination: npt.NDArray[Any] | xr.DataArray,
    *,
    longest_shift: float | None = None,
    minimum_events: int = 4,
    minimum_rate: float = 1.0,
    progress: bool | None = None,
) -> xr.Dataset:
    """Test for every cell whether its field depends on the set of active modes.

    The mean of each image is subtracted, then it is scaled to unit length (its direction), so
    that ``1 − r`` of two images is half their squared distance. The effect is the share of the
    variation over times that the combinations explain,
    ``E = Σ_c n_c ‖f̄_c − f̄‖² / Σ_t ‖f_t − f̄‖²``, in the middle of the recording, N times away from
    both ends. Its null is the same with the labels of k times earlier or later, k = −N ... N, and
    ``p = #{k: E_k ≥ E_0} / (N + 1)``, at most 1 (k = 0 counts).

    Parameters
    ----------
    fields : xr.Dataset
        ``spatial`` (time or event, cell, y, x), ``temporal`` (..., lag) and ``prediction``
        (..., cell) Hz, with a ``time`` coordinate in s, evenly spaced; of a ``component`` dim the
        first is taken. Best the fields of `all_fields`.
    combination : array of str, (time,)
        Set of active modes of every time (`combination_labels`); ``""`` for none.
    longest_shift : float, optional
        s; a quarter of the recording when left out, so that half of it is the middle. It decides
        how small p can be, and must be long against the memory of stimulus and network.
    minimum_events : int
        Combinations with fewer times in the middle, or in one run only, are left out.
    minimum_rate : float
        Hz; times at which the cell stays below are left out.
    progress : bool, optional
        None: a bar after 2 s; False: never.

    Returns
    -------
    xr.Dataset
        By cell: ``effect`` E, in [0, 1]; ``null_mean`` and ``null_high`` (95th percentile) of E
        over shifts; ``p_value``; ``q_value`` (Benjamini–Hochberg over cells);
        ``within`` and ``between``, mean of ``1 − r`` over pairs of times with the same and with
        different combinations; ``combinations`` and ``times`` used. NaN where a cell has not two
        combinations left. Settings in the attributes.

    Raises
    ------
    RetinaCodecError
        If labels and fields differ in length, times are not evenly spaced, or there are fewer
        than 19 shifts to each side.

    Notes
    -----
    E grows by chance with the number of combinations, in the data and under the null alike:
    compare it with the null. The test holds if the labels are stationary, whatever the fields do;
    it is conservative, as neighbouring shifts resemble each other. Shifts keep the autocorrelation
    of labels and fields; shuffles of blocks of 2 s do not, and called 36 % of independent pairs
    significant at p = 0.05 where both had a memory of 1 s. Nothing is random.

    References
    ----------
    Anderson 2001, Austral Ecology 26:32 (analysis of variance of distances). Harris 2020, bioRxiv
    2020.11.29.402719 (linear shift). Benjamini and Hochberg 1995.
    """
    images, rates, time, dim = _values(fields)
    labels = np.asarray(getattr(combination, "values", combination)).astype(str)
    if labels.shape != time.shape:
        raise RetinaCodecError(
            f"every time needs the name of its combination; got {labels.shape} for {time.shape}."
        )
    most = _longest(time, longest_shift)
    middle = np.zeros(len(time), bool)
    middle[most : len(time) - most] = True
    cells = images.shape[1]
    found = {name: np.full(cells, np.nan) for name in WORDS}
    counts = np.zeros((2, cells), int)
    for cell in progress_bar(range(cells), description="combinations", progress=progress):
        directions, fine = _directions(images[:, cell])
        fine &= middle & (rates[:, cell] >= minimum_rate)
        known = _frequent(labels, fine, minimum_events)
        codes = np.array([known.get(label, -1) for label in labels])
        counts[:, cell] = len(known), int((fine & (codes >= 0)).sum())
        if len(known) >= 2:
            for name, value in _test_cell(directions, fine, codes, len(known), most).items():
                found[name][cell] = value
    found["q_value"] = q_values(found["p_value"])
    return xr.Dataset(
        {
            **{
                name: ("cell", found[name], {"units": "1", "long_name": text})
                for name, text in WORDS.items()
            },
            "combinations": ("cell", counts[0], {"units": "count"}),
            "times": ("cell", counts[1], {"units": "count"}),
        },
        coords={name: value for name, value in fields.coords.items() if value.dims == ("cell",)},
        attrs={
            "null": "combinations shifted in time, linear",
            "longest_shift": float(most * (time[1] - time[0])),
            "minimum_events": minimum_events,
            "minimum_rate": float(minimum_rate),
            "sampled_along": dim,
        },
    )


def _test_cell(
    directions: Floats,
    fine: npt.NDArray[np.bool_],
    codes: npt.NDArray[np.intp],
    count: int,
    most: int,
) -> dict[str, float]:
    """Compare the effect in one cell with that of labels shifted by up to ``most`` times."""
    points, where = _compress(directions, fine), np.flatnonzero(fine)
    effects = np.array([_effect(points, codes[where + k], count) for k in range(-most, most + 1)])
    observed, null = effects[most], np.delete(effects, most)
    # rounding must not make it look rarer than it is; a shift without any label counts
    reached = ~(effects < observed - 1e-12)
    used = fine & (codes >= 0)
    within, between = _distances(directions[used], codes[used])
    return {
        "effect": observed,
        "null_mean": np.nanmean(null),
        "null_high": np.nanquantile(null, 0.95),
        "p_value": min(1.0, reached.sum() / (most + 1)),
        "within": within,
        "between": between,
    }


def _values(fields: xr.Dataset) -> tuple[Floats, Floats, Floats, str]:
    """Return images (t, n, pixel) signed by their time courses, rates (t, n), times, the dim."""
    here = fields.isel(component=0) if "component" in fields.dims else fields
    dim = "event" if "event" in here.dims else "time"
    spatial = here["spatial"].transpose(dim, "cell", "y", "x").values.astype(np.float64)
    courses = here["temporal"].transpose(dim, "cell", "lag").values
    peak = np.take_along_axis(courses, np.abs(courses).argmax(-1)[..., None], -1)[..., 0]
    images = spatial.reshape(*spatial.shape[:2], -1) * np.where(peak < 0, -1.0, 1.0)[..., None]
    images[~np.isfinite(peak)] = np.nan  # no time course: no field
    rates = here["prediction"].transpose(dim, "cell").values
    return images, rates, np.asarray(here["time"].values, np.float64), dim


def _longest(time: Floats, longest_shift: float | None) -> int:
    """Return the longest shift as a number of times."""
    steps = np.diff(time)
    if len(time) < 2 or not np.allclose(steps, steps[0], rtol=1e-3) or not steps[0] > 0:
        raise RetinaCodecError(
            "shifts need times that rise in even steps; these do not. Use all_fields with every=."
        )
    most = len(time) // 4 if longest_shift is None else round(longest_shift / steps[0])
    if most < FEWEST_SHIFTS or len(time) - 2 * most < 2 * FEWEST_SHIFTS:
        raise RetinaCodecError(
            f"a test needs at least {FEWEST_SHIFTS} shifts to each side and twice as many times in "
            f"the middle; {len(time)} times with {most} shifts have {len(time) - 2 * most}. Use a "
            "longer recording or a smaller every."
        )
    return int(most)


def _directions(images: Floats) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Center each image and scale it to unit length; return which have a direction."""
    centered = images - images.mean(1, keepdims=True)
    size = np.linalg.norm(centered, axis=1)
    fine = np.isfinite(size) & (size > 1e-12 * np.nanmax(np.append(size, 1e-300)))
    scaled = np.divide(centered, size[:, None], out=np.zeros_like(centered), where=fine[:, None])
    return scaled, fine


def _frequent(
    labels: npt.NDArray[np.str_], fine: npt.NDArray[np.bool_], minimum: int
) -> dict[str, int]:
    """Give numbers to combinations that occur at enough times, in more than one run."""
    kept = []
    for name in np.unique(labels[fine]):
        here = labels == name
        runs = np.cumsum(np.diff(here, prepend=False) & here)
        if name and (fine & here).sum() >= minimum and len(np.unique(runs[fine & here])) > 1:
            kept.append(str(name))
    return {name: number for number, name in enumerate(kept)}


def _compress(directions: Floats, fine: npt.NDArray[np.bool_]) -> Floats:
    """Write directions in the few axes that hold all but a thousandth of their variation."""
    centered = directions[fine] - directions[fine].mean(0)
    vectors, values, _ = np.linalg.svd(centered, full_matrices=False)
    power = np.square(values)
    count = int((np.cumsum(power) <= (1 - NEGLIGIBLE) * power.sum()).sum()) + 1
    return np.asarray(vectors[:, :count] * values[:count], np.float64)


def _effect(points: Floats, codes: npt.NDArray[np.intp], count: int) -> float:
    """Return the share of the variation of the labelled points that their labels explain."""
    here, label = points[codes >= 0], codes[codes >= 0]
    if not len(here):
        return float("nan")
    number = np.bincount(label, minlength=count)
    one_hot = np.zeros((count, len(here)))
    one_hot[label, np.arange(len(here))] = 1.0
    sums = one_hot @ here
    common = np.square(sums.sum(0)).sum() / len(here)
    between = (np.square(sums).sum(1) / np.maximum(number, 1)).sum() - common
    whole = np.square(here).sum() - common
    return float(between / whole) if whole > 0 else float("nan")


def _distances(directions: Floats, codes: npt.NDArray[np.intp]) -> tuple[float, float]:
    """Return mean 1 − r over pairs with the same and with different labels."""
    correlation = directions @ directions.T
    same = codes[:, None] == codes
    pairs = ~np.eye(len(codes), dtype=bool)
    return float(1 - correlation[same & pairs].mean()), float(1 - correlation[~same].mean())
