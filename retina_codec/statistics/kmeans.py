"""k-means, silhouette and adjusted Rand index of many small problems at once.

Bootstrap and gap statistic need thousands of clusterings of a few dozen cells.

Notation: b problems, s starts, n points, f features, k groups.
"""

import numpy as np
import numpy.typing as npt

__all__ = ["adjusted_rand", "fit_kmeans", "silhouettes"]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

ELEMENTS = 2**24  # of the largest array made at a time


def fit_kmeans(
    points: Floats, k: int, *, starts: int = 10, seed: int = 0, iterations: int = 100
) -> tuple[Integers, Floats]:
    """Group points (b, n, f) from several starts; return groups of int (b, s, n) and W (b, s).

    Minimises W = Σ_i ‖x_i − c_g(i)‖² by at most ``iterations`` of Lloyd's steps (1982) from
    k-means++ starts (Arthur, Vassilvitskii 2007). A group that loses all its points keeps its
    centre. Each problem needs at least k different points.
    """
    random = np.random.default_rng(seed)
    size = max(1, ELEMENTS // (starts * points.shape[1] * max(k, points.shape[2])))
    parts = [
        _fit_block(points[start : start + size], k, starts, random, iterations)
        for start in range(0, len(points), size)
    ]
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


def _fit_block(
    points: Floats, k: int, starts: int, random: np.random.Generator, iterations: int
) -> tuple[Integers, Floats]:
    x = points[:, None]  # (b, 1, n, f)
    centers = _first_centers(points, k, starts, random)  # (b, s, k, f)
    groups = np.full((len(points), starts, points.shape[1]), -1)
    for _ in range(iterations):
        # the squared length of the point is the same for every centre
        distance = (centers**2).sum(-1)[:, :, None] - 2 * x @ np.swapaxes(centers, -1, -2)
        nearest = distance.argmin(-1)  # (b, s, n)
        if (nearest == groups).all():
            break
        groups = nearest
        member = (groups[..., None] == np.arange(k)).astype(np.float64)  # (b, s, n, k)
        count = member.sum(-2)[..., None]
        mean = np.swapaxes(member, -1, -2) @ x / np.maximum(count, 1)
        centers = np.where(count > 0, mean, centers)
    own = np.take_along_axis(centers, groups[..., None], axis=2)  # (b, s, n, f)
    return groups.astype(np.int64), ((x - own) ** 2).sum((-1, -2))


def _first_centers(points: Floats, k: int, starts: int, random: np.random.Generator) -> Floats:
    """Draw points, each next one with a chance ∝ squared distance to the nearest drawn one."""
    problems, number, _ = points.shape
    which = np.arange(problems)[:, None]
    square = (points**2).sum(-1)
    product = points @ np.swapaxes(points, 1, 2)
    distance = np.maximum(square[:, :, None] + square[:, None] - 2 * product, 0.0)  # (b, n, n)
    distance[:, np.arange(number), np.arange(number)] = 0.0
    chosen = random.integers(number, size=(problems, starts, 1))
    nearest = distance[which, chosen[..., 0]]  # (b, s, n)
    for _ in range(1, k):
        total = nearest.cumsum(-1)
        place = random.random((problems, starts, 1)) * total[..., -1:]
        new = np.minimum((total <= place).sum(-1), number - 1)
        chosen = np.concatenate([chosen, new[..., None]], axis=-1)
        nearest = np.minimum(nearest, distance[which, new])
    centers: Floats = points[which[..., None], chosen]
    return centers


def silhouettes(points: Floats, groups: Integers) -> Floats:
    """Mean silhouette (b,) of points (b, n, f) in groups (b, n) from 0; NaN for a single group.

    mean_i (b_i − a_i) / max(a_i, b_i), a the mean distance to the others of one's group, b to the
    nearest other group; 0 for a point alone in its group. Rousseeuw 1987.
    """
    member = (groups[..., None] == np.arange(groups.max() + 1)).astype(np.float64)  # (b, n, k)
    distance = np.stack([np.linalg.norm(p[:, None] - p[None], axis=-1) for p in points])
    total, count = distance @ member, member.sum(1)[:, None]  # (b, n, k), (b, 1, k)
    size = (member * count).sum(-1)
    own = (total * member).sum(-1) / np.maximum(size - 1, 1)
    mean = np.divide(total, count, out=np.full_like(total, np.inf), where=count > 0)
    other = np.where(member > 0, np.inf, mean).min(-1)
    other = np.where(np.isfinite(other), other, 0.0)  # a single group, left out below
    scale = np.maximum(own, other)
    score = np.where(size > 1, (other - own) / np.where(scale > 0, scale, 1.0), 0.0)
    return np.where((count[:, 0] > 0).sum(-1) > 1, score.mean(-1), np.nan)


def adjusted_rand(groups: Integers, other: Integers) -> Floats:
    """Compute the adjusted Rand index (b,) of groupings (b, n) with others, (n,) or (b, n).

    (Σ_ab C(n_ab, 2) − e) / ((p + q) / 2 − e), p = Σ_a C(n_a, 2), q = Σ_b C(n_b, 2),
    e = p q / C(n, 2): 1 the same, 0 as by chance; two groupings that are both one group, or both
    all alone, have 1. Groups are numbered from 0. Hubert, Arabie 1985.
    """
    other = np.broadcast_to(other, groups.shape)
    one, two = (
        (labels[..., None] == np.arange(labels.max() + 1)).astype(np.float64)
        for labels in (groups, other)
    )

    def pairs(count: Floats) -> Floats:
        return count * (count - 1) / 2

    together = pairs(np.swapaxes(one, 1, 2) @ two).sum((1, 2))
    p, q = pairs(one.sum(1)).sum(-1), pairs(two.sum(1)).sum(-1)
    expected = p * q / pairs(np.full(1, groups.shape[1], dtype=np.float64))
    room = (p + q) / 2 - expected
    return np.where(room > 0, (together - expected) / np.where(room > 0, room, 1.0), 1.0)
