"""Group cells by k-means; choose the number of groups by stability, silhouette and gap.

Stability is measured by grouping resampled descriptions of the same cells.

Notation: n cells, f features, k groups, B resamples.
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.statistics.kmeans import adjusted_rand, fit_kmeans, silhouettes
from retina_codec.statistics.resampling import percentiles

__all__ = ["cluster_cells", "gap_statistic", "in_order"]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

REFERENCES = 50  # uniform data sets of the gap statistic
RESAMPLED_STARTS = 4  # of each resample; the full data take more
EQUAL = 0.01  # silhouettes that differ by less depend on rounding


def cluster_cells(
    features: Floats,
    clusters: Iterable[int],
    *,
    resampled: Floats | None = None,
    starts: int = 20,
    seed: int = 0,
) -> xr.Dataset:
    """Group rows by k-means; the number of groups by stability, silhouette and gap, in this order.

    Stable are those k whose mean adjusted Rand index between the grouping of all data and those of
    the resamples is at most one standard deviation (over resamples, of the best k) below the best.
    Of these the k with the largest mean silhouette is taken; of silhouettes within 0.01 of it the
    k with the largest gap, of equal ones the smallest. Without resamples every k counts as stable.

    ``features`` (cell, feature), ``resampled`` (resample, cell, feature) the same description from
    resampled time; of ``clusters`` those from 2 to cells − 1 are tried; of the ``starts`` the one
    with the smallest sum of squares is kept.

    Returns
    -------
    xr.Dataset
        ``pathway`` (cell), numbered from 0 in order of first members. Along ``k``:
        ``silhouette``; ``gap`` and ``gap_error``, see `gap_statistic`; ``ari_starts``, the mean
        adjusted Rand index of all starts with the kept one; with resamples ``ari_bootstrap``, the
        mean, and ``ari_interval`` (k, bound), the middle 95 %. With resamples also ``consensus``
        (cell, other_cell), the share of resamples with both cells in one group, and
        ``confidence`` (cell), the share in which a cell is grouped with a larger share of its own
        group than of any other; and ``resampled_pathway`` (resample, cell), as numbered there. In
        attrs ``k`` and ``gap_k``, the smallest k, 1 included, whose gap is within one error of the
        largest.

    References
    ----------
    Rousseeuw 1987 (silhouette); Tibshirani, Walther, Hastie 2001 (gap); Hubert, Arabie 1985;
    Monti et al. 2003 (consensus); Hennig 2007, cluster-wise assessment of stability.
    """
    features = np.asarray(features, dtype=np.float64)
    tried = _numbers(features, clusters)
    kept: dict[int, Integers] = {}
    others: dict[int, Integers] = {}
    silhouette, ari_starts, agreement = [], [], []
    for k in tried:
        groups, within = fit_kmeans(features[None], k, starts=starts, seed=seed)
        kept[k] = in_order(groups[0, within[0].argmin()])
        silhouette.append(float(silhouettes(features[None], kept[k][None])[0]))
        ari_starts.append(float(adjusted_rand(groups[0], kept[k]).mean()))
        if resampled is not None:
            groups, within = fit_kmeans(resampled, k, starts=RESAMPLED_STARTS, seed=seed)
            others[k] = groups[np.arange(len(groups)), within.argmin(1)]
            agreement.append(adjusted_rand(others[k], kept[k]))
    gap, error = gap_statistic(features, [1, *tried], seed=seed)
    ari = np.array(agreement) if agreement else None
    number = _choose(tried, np.array(silhouette), gap[1:], ari)
    enough = gap >= gap.max() - error[gap.argmax()]
    found = xr.Dataset(
        {
            "pathway": ("cell", kept[number], {"units": "1", "long_name": "pathway number"}),
            "silhouette": _along(silhouette, "mean silhouette"),
            "gap": _along(gap[1:], "gap statistic"),
            "gap_error": _along(error[1:], "error of the gap statistic"),
            "ari_starts": _along(ari_starts, "adjusted Rand index over starts"),
        },
        coords={"k": ("k", tried, {"long_name": "number of pathways"})},
        attrs={
            "k": number,
            "gap_k": [1, *tried][int(enough.argmax())],
            "chosen_by": "stability over resamples, then silhouette, then gap",
        },
    )
    if ari is None:
        return found
    return found.assign(_stability(ari, others[number], kept[number]).variables)


def _stability(ari: Floats, groups: Integers, kept: Integers) -> xr.Dataset:
    """Label the agreement of the kept groups with those of resamples.

    ari (k, resample); groups (resample, cell) and kept (cell) of the chosen k.
    """
    both = "share of resamples with both cells in one pathway"
    stays = "share of resamples that put the cell where it is"
    consensus = (groups[:, :, None] == groups[:, None]).mean(axis=0)
    return xr.Dataset(
        {
            "ari_bootstrap": _along(ari.mean(1), "adjusted Rand index with resamples, mean"),
            "ari_interval": (
                ("k", "bound"),
                percentiles(ari.T),
                {"units": "1", "long_name": "middle 95 % of the adjusted Rand index"},
            ),
            "consensus": (("cell", "other_cell"), consensus, {"units": "1", "long_name": both}),
            "confidence": ("cell", _confidence(groups, kept), {"units": "1", "long_name": stays}),
            "resampled_pathway": (("resample", "cell"), groups, {"units": "1"}),
        },
        coords={"bound": ["low", "high"]},
    )


def gap_statistic(features: Floats, numbers: list[int], *, seed: int = 0) -> tuple[Floats, Floats]:
    """Gap and its error (k,) of features (cell, feature): the spread compared with uniform data.

    gap_k = mean_r ln W_k^r − ln W_k, W the sum of squares within groups, r 50 data sets uniform in
    the box along the principal axes; error_k = sd_r(ln W_k^r) √(1 + 1/50). Infinite where groups
    have no spread. Tibshirani, Walther, Hastie 2001, J. R. Stat. Soc. B 63:411, eq. 3, section 3.
    """
    centered = features - features.mean(axis=0)
    axes = np.linalg.svd(centered, full_matrices=False)[2]
    box = centered @ axes.T
    random = np.random.default_rng(seed)
    uniform = random.uniform(box.min(0), box.max(0), (REFERENCES, *box.shape))
    gap, error = np.empty(len(numbers)), np.empty(len(numbers))
    for place, k in enumerate(numbers):
        within = fit_kmeans(features[None], k, seed=seed)[1].min()
        drawn = np.log(fit_kmeans(uniform, k, seed=seed)[1].min(1))
        gap[place] = drawn.mean() - np.log(within) if within > 0 else np.inf
        error[place] = drawn.std() * np.sqrt(1 + 1 / REFERENCES)
    return gap, error


def in_order(group: Integers) -> Integers:
    """Give groups numbers from 0, in order of their first members."""
    _, first, place = np.unique(group, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[place].astype(np.int64)


def _numbers(features: Floats, clusters: Iterable[int]) -> list[int]:
    """Return the numbers of groups that can be tried."""
    wanted = sorted(set(clusters))
    distinct = len(np.unique(features, axis=0))
    tried = [k for k in wanted if 2 <= k <= min(len(features) - 1, distinct)]
    if not tried:
        raise RetinaCodecError(
            f"clusters must hold a number from 2 to cells − 1; got {wanted} for {len(features)} "
            f"cells, {distinct} of them different. Record more cells, or try fewer pathways."
        )
    return tried


def _choose(tried: list[int], silhouette: Floats, gap: Floats, ari: Floats | None) -> int:
    """Choose the number of groups, see `cluster_cells`."""
    stable = np.ones(len(tried), dtype=bool)
    if ari is not None:
        best = ari.mean(1).argmax()
        stable = ari.mean(1) >= ari[best].mean() - ari[best].std()
    good = stable & (silhouette >= silhouette[stable].max() - EQUAL)
    return (
        tried[int(np.where(good, gap, -np.inf).argmax())]
        if good.sum() > 1
        else tried[int(good.argmax())]
    )


def _confidence(groups: Integers, kept: Integers) -> Floats:
    """Share of resamples in which a cell stays with the others of its pathway."""
    same = (groups[:, :, None] == groups[:, None]).astype(np.float64)  # (B, n, n)
    same[:, np.arange(len(kept)), np.arange(len(kept))] = 0.0
    member = (kept[:, None] == np.arange(kept.max() + 1)).astype(np.float64)  # (n, k)
    size = np.maximum(member.sum(0) - member, 1)  # without the cell itself
    share = same @ member / size  # (B, n, k)
    own = (share * member).sum(-1)
    rest = np.where(member > 0, -np.inf, share).max(-1)
    alone = (member.sum(0) == 1) @ member.T > 0
    stays: Floats = np.where(alone, rest <= 0, own > rest).mean(axis=0)
    return stays


def _along(values: list[float] | Floats, words: str) -> tuple[str, Floats, dict[str, str]]:
    return "k", np.asarray(values, dtype=np.float64), {"units": "1", "long_name": words}
