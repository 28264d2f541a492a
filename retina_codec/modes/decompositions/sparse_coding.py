"""Sparse non-negative coding: the few modes, and their amplitudes, that best rebuild a sample.

Notation: X (sample, feature) data; D (mode, feature) dictionary, rows of unit length; a code is a
pair S (sample, slot) of mode numbers and A (sample, slot) amplitudes >= 0, where an unused slot
has amplitude 0. A slot is one of the ``active`` places that a sample has for modes.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

__all__ = [
    "choose_directions",
    "reconstruct",
    "removal_costs",
    "sample_weights",
    "sparse_codes",
    "to_dense",
    "update_dictionary",
    "users_by_mode",
]

RIDGE = 1e-5  # added to the unit diagonal: two equal modes stay solvable
FLOOR = 0.1  # share of the root mean square length below which samples weigh alike
BLOCK_ELEMENTS = 2**24  # samples × modes handled at once


def to_dense(support: Tensor, amplitude: Tensor, modes: int) -> Tensor:
    """Spread a code (sample, slot) into loadings (sample, mode)."""
    dense = amplitude.new_zeros((len(support), modes))
    return dense.scatter_add_(1, support, amplitude)


def sample_weights(features: Tensor) -> Tensor:
    """Weigh samples (sample,) by 1/√(‖x‖² + floor): halfway between squared and relative error."""
    energy = features.square().sum(1)
    return 1 / (energy + FLOOR**2 * energy.mean()).sqrt()


def reconstruct(support: Tensor, amplitude: Tensor, dictionary: Tensor) -> Tensor:
    """Rebuild samples (sample, feature) from a code."""
    if support.shape[1] == 0:
        return dictionary.new_zeros((len(support), dictionary.shape[1]))
    return functional.embedding_bag(
        support, dictionary, per_sample_weights=amplitude.to(dictionary.dtype), mode="sum"
    )


def _amplitudes(
    projection: Tensor, gram: Tensor, support: Tensor, used: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Solve least squares on each support; drop, one by one, slots that would be negative.

    ``projection`` (sample, mode) is X Dᵀ, ``gram`` (mode, mode) is D Dᵀ. Returns amplitude
    (sample, slot), used (sample, slot), and the rise of the squared error (sample, slot) if a used
    slot were left out and the others solved again: A² / (G⁻¹) on the diagonal, G the Gram matrix
    of the support.
    """
    if support.shape[1] == 0:
        nothing = projection.new_zeros(support.shape)
        return nothing, used, nothing
    wanted = projection.gather(1, support)  # (sample, slot)
    own = gram[support[:, :, None], support[:, None, :]]  # (sample, slot, slot)
    identity = torch.eye(support.shape[1], dtype=gram.dtype, device=gram.device)
    amplitude, rise, used = wanted.clone(), wanted.clone(), used.clone()
    todo: Tensor | None = None  # all
    while True:
        mask = (used if todo is None else used[todo]).to(gram.dtype)
        both = mask[:, :, None] * mask[:, None, :]
        inside = own if todo is None else own[todo]
        inverse = torch.linalg.inv(inside * both + (identity - both * identity) + RIDGE * identity)
        target = (wanted if todo is None else wanted[todo]) * mask
        solved = (inverse @ target[:, :, None])[:, :, 0] * mask
        cost = solved**2 / inverse.diagonal(dim1=1, dim2=2)
        if todo is None:
            amplitude, rise = solved, cost
        else:
            amplitude[todo], rise[todo] = solved, cost
        lowest, slot = solved.masked_fill(mask == 0, torch.inf).min(1)
        negative = (lowest <= 0).nonzero()[:, 0]
        if len(negative) == 0:
            return amplitude, used, rise
        slot = slot[negative]
        todo = negative if todo is None else todo[negative]
        used[todo, slot] = False


def _append_best(
    problem: "_Problem", support: Tensor, amplitude: Tensor, used: Tensor
) -> tuple[Tensor, Tensor]:
    """Add to each support the mode that is most aligned with the residual."""
    residual = problem.features - reconstruct(support, amplitude, problem.dictionary)
    match = residual @ problem.dictionary.T  # (sample, mode)
    match.scatter_add_(1, support, torch.where(used, -torch.inf, 0.0).to(match.dtype))
    if problem.forbidden is not None:
        match.scatter_(1, problem.forbidden[:, None], -torch.inf)
    best, mode = match.max(1)
    return torch.cat([support, mode[:, None]], 1), torch.cat([used, (best > 0)[:, None]], 1)


class _Problem(NamedTuple):
    """Samples to be coded, and the fixed quantities of the search for their support."""

    features: Tensor
    dictionary: Tensor
    gram: Tensor
    """(mode, mode)"""
    forbidden: Tensor | None
    """(sample,): a mode that each sample must not use."""


def _code_block(
    problem: _Problem,
    active: int,
    support: Tensor,
    used: Tensor,
    exchanges: int,
    minimum_share: float,
) -> tuple[Tensor, Tensor]:
    features, dictionary, gram, _ = problem
    projection = features @ dictionary.T  # (sample, mode)
    amplitude, used, rise = _amplitudes(projection, gram, support, used)
    while support.shape[1] < active:  # grow: orthogonal matching pursuit
        support, used = _append_best(problem, support, amplitude, used)
        amplitude, used, rise = _amplitudes(projection, gram, support, used)

    def error(support: Tensor, amplitude: Tensor) -> Tensor:
        return (features - reconstruct(support, amplitude, dictionary)).square().sum(1)

    energy = features.square().sum(1)
    current = error(support, amplitude)
    for _ in range(exchanges):
        wider, allowed = _append_best(problem, support, amplitude, used)
        _, allowed, cost = _amplitudes(projection, gram, wider, allowed)
        worst = torch.where(allowed, cost, -1.0).argmin(1)
        keep = torch.ones_like(allowed).scatter_(1, worst[:, None], False)
        wider, allowed = wider[keep].view_as(support), allowed[keep].view_as(used)
        other, allowed, cost = _amplitudes(projection, gram, wider, allowed)
        candidate = error(wider, other)
        better = candidate < current - 1e-6 * energy
        if not better.any():
            break
        pick = better[:, None]
        support, amplitude = torch.where(pick, wider, support), torch.where(pick, other, amplitude)
        used, rise = torch.where(pick, allowed, used), torch.where(pick, cost, rise)
        current = torch.where(better, candidate, current)
    for _ in range(active if minimum_share > 0 else 0):  # shrink: leave out modes of little use
        cost, slot = torch.where(used, rise, torch.inf).min(1)
        idle = cost < minimum_share * energy
        if not idle.any():
            break
        used[idle, slot[idle]] = False
        amplitude, used, rise = _amplitudes(projection, gram, support, used)
    return support, amplitude


def sparse_codes(
    features: Tensor,
    dictionary: Tensor,
    active: int,
    *,
    support: Tensor | None = None,
    used: Tensor | None = None,
    forbidden: Tensor | None = None,
    exchanges: int = 2,
    minimum_share: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Find for each sample at most ``active`` modes and amplitudes that rebuild it.

    min ‖x − A D_S‖² over supports S of ``active`` modes and A >= 0. For a given support the
    amplitudes are least squares, with modes that would turn negative left out one at a time; the
    support is searched greedily: grown from ``support`` by orthogonal matching pursuit, then
    improved by exchanges (add the best further mode, drop the least useful, keep if the error
    falls). A local search: exchanges never make it worse, and it is not guaranteed to find the
    best support; since negative modes leave one at a time, one more mode can, rarely, rebuild a
    sample less well.

    Parameters
    ----------
    features : Tensor (sample, feature)
    dictionary : Tensor (mode, feature), rows of unit length
    active : int
        Largest number of modes per sample; more than there are modes means all.
    support : Tensor (sample, slot) of mode numbers, distinct within a sample, optional
        Where to start; None starts from nothing.
    used : Tensor (sample, slot), bool, optional
        Slots of ``support`` that count; all when left out.
    forbidden : Tensor (sample,), int64, optional
        A mode that each sample must not use.
    exchanges : int
        Largest number of exchanges per sample.
    minimum_share : float
        A mode stays only if without it the squared error would rise by more than this share of
        the sample's squared length.

    Returns
    -------
    support : Tensor (sample, slot), int64
    amplitude : Tensor (sample, slot), >= 0, 0 in unused slots

    References
    ----------
    Pati, Rezaiifar, Krishnaprasad 1993 (orthogonal matching pursuit); Jain, Tewari, Dhillon 2011
    (the same with replacement).
    """
    active = min(active, len(dictionary))
    if support is None:
        support = torch.zeros((len(features), 0), dtype=torch.int64, device=features.device)
    if used is None:
        used = torch.ones_like(support, dtype=torch.bool)
    gram = dictionary @ dictionary.T
    size = max(1, BLOCK_ELEMENTS // max(len(dictionary), active * features.shape[1]))
    parts = []
    for first in range(0, max(1, len(features)), size):
        block = slice(first, first + size)
        without = None if forbidden is None else forbidden[block]
        problem = _Problem(features[block], dictionary, gram, without)
        start = support[block, :active], used[block, :active]
        parts.append(_code_block(problem, active, *start, exchanges, minimum_share))
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


def users_by_mode(support: Tensor, amplitude: Tensor, modes: int) -> list[tuple[Tensor, Tensor]]:
    """List, for each mode, the (sample, slot) places where it has an amplitude above 0."""
    sample, slot = (amplitude > 0).nonzero(as_tuple=True)
    mode = support[sample, slot]
    order = mode.argsort(stable=True)
    counts = torch.bincount(mode, minlength=modes).tolist()
    samples, slots = torch.split(sample[order], counts), torch.split(slot[order], counts)
    return list(zip(samples, slots, strict=True))


def update_dictionary(
    features: Tensor,
    dictionary: Tensor,
    support: Tensor,
    amplitude: Tensor,
    weight: Tensor,
    *,
    non_negative: bool,
) -> tuple[Tensor, Tensor]:
    """Improve each mode and its amplitudes on the samples that use it.

    Mode by mode, with E the residual of the other modes: d ← E ᵀ(w a) (negative entries to 0 if
    ``non_negative``), scaled to unit length; a ← max(0, E d). Each half step minimises
    Σ w ‖E − a d‖², so the weighted error cannot rise.

    Parameters
    ----------
    features : Tensor (sample, feature)
    dictionary : Tensor (mode, feature)
    support, amplitude : Tensor (sample, slot)
    weight : Tensor (sample,)
        Importance of each sample, > 0.
    non_negative : bool

    Returns
    -------
    dictionary : Tensor (mode, feature)
        New tensor; a mode that no sample uses is unchanged.
    amplitude : Tensor (sample, slot)

    References
    ----------
    Aharon, Elad, Bruckstein 2006 (K-SVD and its non-negative form), with alternating steps in
    place of the singular value decomposition; Cichocki, Phan 2009 (hierarchical least squares).
    """
    dictionary, amplitude = dictionary.clone(), amplitude.clone()
    residual = features - reconstruct(support, amplitude, dictionary)
    for mode, (sample, slot) in enumerate(users_by_mode(support, amplitude, len(dictionary))):
        if len(sample) == 0:
            continue
        own = amplitude[sample, slot]
        left = residual[sample].addr_(own, dictionary[mode])  # (user, feature)
        direction = (own * weight[sample]) @ left
        if non_negative:
            direction = direction.clamp_(min=0)
        length = direction.norm()
        if length > 0:
            dictionary[mode] = direction / length
            own = (left @ dictionary[mode]).clamp_(min=0)
            amplitude[sample, slot] = own
            residual.index_copy_(0, sample, left.addr_(own, dictionary[mode], alpha=-1))
    return dictionary, amplitude


def removal_costs(
    features: Tensor,
    dictionary: Tensor,
    support: Tensor,
    amplitude: Tensor,
    active: int,
    weight: Tensor,
) -> tuple[Tensor, Tensor]:
    """Measure by how much the error rises when a mode is removed.

    The samples that use the mode are coded again without it: the best other mode is added, then one
    exchange.

    Returns
    -------
    cost : Tensor (mode,)
        Rise of Σ ‖x − x̂‖² over all samples.
    weighted : Tensor (mode,)
        Rise of Σ w ‖x − x̂‖².
    """
    before = (features - reconstruct(support, amplitude, dictionary)).square().sum(1)
    sample, slot = (amplitude > 0).nonzero(as_tuple=True)  # one row for each use of a mode
    mode, used = support[sample, slot], amplitude[sample] > 0
    used[torch.arange(len(slot), device=slot.device), slot] = False
    codes = sparse_codes(
        features[sample],
        dictionary,
        active,
        support=support[sample],
        used=used,
        forbidden=mode,
        exchanges=2,
    )
    after = (features[sample] - reconstruct(*codes, dictionary)).square().sum(1)
    rise = after - before[sample]
    cost = features.new_zeros((2, len(dictionary)))
    cost[0].index_add_(0, mode, rise)
    cost[1].index_add_(0, mode, rise * weight[sample])
    return cost[0], cost[1]


def choose_directions(
    features: Tensor, number: int, generator: torch.Generator, *, non_negative: bool
) -> Tensor:
    """Pick samples that point in different directions, as a first dictionary.

    k-means++ on directions: each next sample is drawn with probability ‖x‖ (1 − largest cosine to
    those already picked).

    Returns
    -------
    Tensor (mode, feature), rows of unit length; fewer than ``number`` if all data are used up.
    """
    points = features.clamp(min=0) if non_negative else features
    length = points.norm(dim=1)
    points = points / length.clamp(min=torch.finfo(points.dtype).tiny)[:, None]
    chosen: list[int] = []
    likeness = torch.zeros_like(length)
    while len(chosen) < number:
        chance = (length * (1 - likeness).clamp(min=0)).double().cpu()
        if chance.sum() <= 1e-6 * length.sum().item():
            break
        chosen.append(int(torch.multinomial(chance, 1, generator=generator).item()))
        likeness = torch.maximum(likeness, points @ points[chosen[-1]])
    picked: Tensor = points[chosen]
    return picked.clone()
