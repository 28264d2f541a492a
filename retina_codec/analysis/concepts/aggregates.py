"""Add up the modes of each class, and compare these sums between two fits.

Two fits may divide the same structure into different modes; their sums per class can agree.

Notation: D (mode, feature) modes of unit length, z (sample, mode) loadings, r (mode, concept)
Pearson r of loadings with classes; features are sign × channel.
"""

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.statistics.correlation import column_correlations
from retina_codec.statistics.differences import contrast
from retina_codec.statistics.resampling import percentiles
from retina_codec.storage.results import input_dim

__all__ = ["class_aggregates", "compare_aggregates"]

Floats = npt.NDArray[np.float64]

UNITS = {"units": "1"}


def class_aggregates(
    modes: xr.Dataset, correlation: xr.DataArray, *, threshold: float = 0.2, amplitudes: bool = True
) -> xr.Dataset:
    """Add up the modes that are correlated with each class.

    ``A_c = Σ_{m in M_c} a_m D_m`` and ``Z_c = Σ_{m in M_c} z_m``, where M_c are the modes with
    r > threshold, or the one with the largest r where there is none. The amplitude a_m is the mean
    size of the loading of a mode where it is not 0: modes of the published autoencoder are not of
    unit length but carry their amplitude, and are added up as they are.

    Parameters
    ----------
    modes : xr.Dataset
        ``/layers/<name>/modes`` of `decompose`: ``dictionary`` (mode, sign, channel) and
        ``loading`` (sample or time, mode).
    correlation : xr.DataArray (feature, concept)
        ``/layers/<name>/modes`` of `correlate_concepts` holds it; its features are these modes.
    threshold : float
        Smallest r of modes that count as the class's.
    amplitudes : bool
        False: a_m = 1.

    Returns
    -------
    xr.Dataset
        ``aggregate`` (concept, sign, channel), unit of the loadings, signs that were not decomposed
        left out; ``loading`` (sample or time, concept), Z; ``count`` (concept), modes with r >
        threshold, 0 where the best one is used. NaN for a concept whose r are all NaN.

    Raises
    ------
    RetinaCodecError
        If correlations are not of these modes.

    References
    ----------
    Melander et al. 2026, CODEC, 10.3, Fig. S3 to S5.
    """
    if set(correlation.dims) != {"feature", "concept"} or not np.array_equal(
        correlation["feature"].values, modes["mode"].values
    ):
        raise RetinaCodecError(
            f"correlation must be (feature, concept) of these {modes.sizes['mode']} modes; got "
            f"{dict(correlation.sizes)}, or other labels. Take it from correlate_concepts() of the "
            "same results."
        )
    dictionary = modes["dictionary"].transpose("mode", "sign", "channel")
    if "signs" in modes.attrs:
        dictionary = dictionary.sel(sign=str(modes.attrs["signs"]).split(","))
    loading = modes["loading"].transpose(..., "mode")
    z = loading.values.astype(np.float64)
    r = correlation.transpose("feature", "concept").values
    known = np.isfinite(r).any(axis=0)
    ranked = np.where(np.isfinite(r), r, -np.inf)
    own = ranked > threshold  # (mode, concept)
    count = own.sum(axis=0)
    alone = np.flatnonzero(known & (count == 0))
    own[ranked.argmax(axis=0)[alone], alone] = True
    weight = own.astype(np.float64)
    weight[:, ~known] = np.nan
    used = np.maximum((z != 0).sum(axis=0), 1)
    amplitude = np.abs(z).sum(axis=0) / used if amplitudes else np.ones(z.shape[1])
    flat = dictionary.values.astype(np.float64).reshape(len(amplitude), -1)
    total = weight.T @ (amplitude[:, None] * flat)
    units = {"units": loading.attrs.get("units", "1")} if amplitudes else UNITS
    dim = input_dim(loading)
    return xr.Dataset(
        {
            "aggregate": (
                ("concept", "sign", "channel"),
                total.reshape(-1, *dictionary.shape[1:]),
                units | {"long_name": "sum of the modes of a class"},
            ),
            "loading": (
                (dim, "concept"),
                z @ weight,
                {"units": loading.attrs.get("units", "1"), "long_name": "sum of their loadings"},
            ),
            "count": ("concept", np.where(known, count, np.nan), {"units": "count"}),
        },
        coords={
            "concept": correlation["concept"].values,
            "sign": dictionary["sign"].values,
            "channel": dictionary["channel"].values,
        },
        attrs={"threshold": threshold, "amplitudes": int(amplitudes)},
    )


def compare_aggregates(
    one: xr.Dataset, baseline: xr.Dataset, *, permutations: int = 1000, seed: int = 0
) -> xr.Dataset:
    """Correlate what the modes of each class add up to in two fits.

    ``s_c = Pearson(A_c, B_c)`` over sign × channel. Modes of all classes have much in common (all
    are >= 0, strong channels are strong in most), so s is large by chance too. Chance is given by
    the baseline's other classes, ``o_c = mean_{c' ≠ c} Pearson(A_c, B_c')``, and by exchanging the
    baseline's classes at random.

    Parameters
    ----------
    one, baseline : xr.Dataset
        From `class_aggregates`, with the same concepts, signs and channels.
    permutations : int
        P, random orders of the baseline's classes.
    seed : int

    Returns
    -------
    xr.Dataset
        ``similarity``, s, and ``other``, o (concept); ``similarity_mean``, ``other_mean``,
        ``difference_mean`` (of s − o) with ``..._interval`` (bound), 95 %, Student's over
        classes; ``null_mean`` and ``null_interval`` (bound), mean and middle 95 % of the mean s
        over P orders (which leave one class in place on average); ``p_value`` = (1 + #{null mean
        ≥ mean}) / (1 + P). A class that is NaN, or all of whose sums are equal, takes no part.

    Raises
    ------
    RetinaCodecError
        If labels differ, or permutations are below 1.

    Notes
    -----
    Classes share modes, so they are not independent, and the interval is one over classes only:
    other seeds are other fits, to be compared as such.

    References
    ----------
    Melander et al. 2026, CODEC, 10.3, Fig. S3.
    """
    if permutations < 1:
        raise RetinaCodecError(f"permutations must be at least 1; got {permutations}.")
    try:
        a, b = xr.align(one["aggregate"], baseline["aggregate"], join="exact")
    except ValueError as error:
        raise RetinaCodecError(
            "both fits must have the same concepts, signs and channels; got "
            f"{dict(one['aggregate'].sizes)} and {dict(baseline['aggregate'].sizes)}, or other "
            "labels. Compare fits of one layer."
        ) from error
    flat = (v.transpose("concept", ...).values.reshape(len(v), -1).T for v in (a, b))
    table = column_correlations(*flat)
    own = np.diagonal(table).copy()
    fine = np.isfinite(own)
    other = np.full(len(own), np.nan)
    inside = table[np.ix_(fine, fine)]
    if (few := int(fine.sum())) > 1:
        other[fine] = (inside.sum(axis=1) - np.diagonal(inside)) / (few - 1)
    random = np.random.default_rng(seed)
    orders = random.permuted(np.tile(np.arange(few), (permutations, 1)), axis=1)
    means = inside[np.arange(few), orders].mean(axis=1) if few else np.full(permutations, np.nan)
    data: dict[str, tuple[tuple[str, ...], object, dict[str, str]]] = {
        "similarity": (("concept",), own, UNITS | {"long_name": "Pearson r, same class"}),
        "other": (("concept",), other, UNITS | {"long_name": "Pearson r, other classes"}),
        "null_mean": ((), means.mean(), UNITS),
        "null_interval": (("bound",), percentiles(means), UNITS),
    }
    for name, values in (("similarity", own), ("other", other), ("difference", own - other)):
        found = contrast(values[:, None], [1.0])
        data[f"{name}_mean"] = ((), found.found, UNITS)
        data[f"{name}_interval"] = (("bound",), np.array(found.interval), UNITS)
    reached = int((means >= own[fine].mean() - 1e-9).sum()) if few else 0  # ties count
    data["p_value"] = ((), (1 + reached) / (1 + permutations) if few else np.nan, UNITS)
    return xr.Dataset(
        data,
        coords={"concept": a["concept"].values, "bound": ["low", "high"]},
        attrs={"permutations": permutations, "seed": seed, "classes": few},
    )
