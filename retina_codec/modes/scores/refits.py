"""Scores from decomposing the same data again: other seeds, other sparsity, controls."""

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import xarray as xr

from retina_codec.modes.base import Decomposition
from retina_codec.modes.decompositions.linear import PCA, RawChannels
from retina_codec.modes.decompositions.nmf import NMF
from retina_codec.modes.scores.controls import FrozenDecoder, FrozenEncoder, shuffle_features
from retina_codec.modes.scores.stability import agreement, correlation, cosine, shuffled_modes

__all__ = ["CONTROLS", "Fit", "control_scores", "pair_scores", "pareto_scores"]

Fit = Callable[[xr.DataArray, Decomposition], xr.Dataset]
"""Decompose contributions of one layer: labelled modes with their scores."""

CONTROLS = (
    "modes",
    "NMF",
    "PCA",
    "raw channels",
    "frozen decoder",
    "frozen encoder",
    "shuffled data",
)


def pareto_scores(
    fits: dict[tuple[int, int], xr.Dataset], limits: Sequence[int], seeds: Sequence[int]
) -> xr.Dataset:
    """Gather what every fit reached: R² on held-out samples against active modes.

    Returns
    -------
    xr.Dataset
        ``r2``, ``mean_active``, ``live_modes`` (limit, seed); ``r2_feature`` (limit, seed, sign,
        channel).
    """
    rows = []
    for limit in limits:
        row = [
            fits[limit, seed][["r2", "r2_feature", "mean_active", "live_modes"]] for seed in seeds
        ]
        rows.append(xr.concat(row, "seed", join="exact", coords="minimal", compat="equals"))
    found = xr.concat(rows, "limit", join="exact", coords="minimal", compat="equals")
    return found.assign_coords(
        limit=("limit", list(limits), {"long_name": "largest number of modes of one sample"}),
        seed=("seed", list(seeds)),
    )


def pair_scores(fits: Sequence[xr.Dataset], seeds: Sequence[int], seed: int) -> xr.Dataset:
    """Compare every two of the fits, which differ in their starting point alone.

    Returns
    -------
    xr.Dataset, dims (pair,)
        ``mode_match``: mean cosine of modes that explain 95 %, matched one to one;
        ``mode_match_all``: of all modes of the larger fit; ``mode_match_null``: ``mode_match``
        after the entries of every mode of one fit were permuted; ``collisions``: share of
        modes whose nearest is also the nearest of another; ``loading_match``: mean Pearson r of
        loadings on held-out samples, matched on their own; ``loading_match_null``: the same with
        the samples of one fit in reverse order.
    """
    generator = np.random.default_rng(seed)
    parts = [_numbers(modes) for modes in fits]
    pairs = list(combinations(range(len(fits)), 2))
    columns: dict[str, list[float]] = {}
    for a, b in pairs:
        (one, loads, share), (other, other_loads, other_share) = parts[a], parts[b]
        modes = agreement(cosine(one, other), share, other_share)
        null = agreement(cosine(one, shuffled_modes(other, generator)), share, other_share)
        both = agreement(correlation(loads, other_loads), share, other_share)
        reverse = agreement(correlation(loads, other_loads[::-1]), share, other_share)
        for name, value in (
            ("mode_match", modes.leading),
            ("mode_match_all", modes.whole),
            ("mode_match_null", null.leading),
            ("collisions", modes.collisions),
            ("loading_match", both.leading),
            ("loading_match_null", reverse.leading),
        ):
            columns.setdefault(name, []).append(value)
    return xr.Dataset(
        {name: ("pair", values, {"units": "1"}) for name, values in columns.items()},
        coords={
            "first_seed": ("pair", [seeds[a] for a, _ in pairs]),
            "second_seed": ("pair", [seeds[b] for _, b in pairs]),
        },
    )


def _numbers(modes: xr.Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return modes (mode, feature), held-out loadings (sample, mode), what each explains."""
    split = modes["split"].values
    dictionary = modes["dictionary"].values.reshape(modes.sizes["mode"], -1).astype(float)
    loading = modes["loading"].values.astype(float)
    share = np.abs(loading[split == "fit"]).sum(0) * np.abs(dictionary).sum(1)
    return dictionary, loading[split == "held_out"], share


def control_scores(
    contribution: xr.DataArray,
    fits: Sequence[xr.Dataset],
    decomposition: Decomposition,
    seeds: Sequence[int],
    fit: Fit,
    step: Callable[[], object],
) -> xr.Dataset:
    """Fit every control with as many modes, and as many active, as the fits have.

    The shuffled data are those of `shuffle_features`, decomposed in the same way and scored on
    shuffled held-out samples: the R² that the values of single features alone allow.

    Returns
    -------
    xr.Dataset, dims (baseline, seed)
        ``baseline_r2`` on held-out samples and ``baseline_active``, modes active there.
    """
    rows = []
    size = int(np.prod(contribution.shape[1:]))
    active = decomposition.settings().get("active")
    for seed, own in zip(seeds, fits, strict=True):
        live = own.sizes["mode"]
        common: dict[str, Any] = {"modes": live, "active": active, "seed": seed}
        shuffled = contribution.copy(
            data=shuffle_features(
                contribution.values, own["split"].values, np.random.default_rng(seed)
            )
        )
        controls: tuple[tuple[xr.DataArray, Decomposition], ...] = (
            (contribution, NMF(**common)),
            (contribution, PCA(modes=min(live, size), active=active)),
            (contribution, RawChannels(active=active)),
            (contribution, FrozenDecoder(**common)),
            (contribution, FrozenEncoder(**common)),
            (shuffled, decomposition.vary(seed=seed)),
        )
        row = [own]
        for data, control in controls:
            row.append(fit(data, control))
            step()
        rows.append([(float(one["r2"]), float(one["mean_active"])) for one in row])
    values = np.array(rows)  # (seed, baseline, 2)
    return xr.Dataset(
        {
            "baseline_r2": (("baseline", "seed"), values[..., 0].T, {"units": "1"}),
            "baseline_active": (("baseline", "seed"), values[..., 1].T, {"units": "count"}),
        },
        coords={"baseline": list(CONTROLS), "seed": list(seeds)},
    )
