"""Slow second implementations of the nulls of a correlation, by loops over draws."""

from itertools import permutations

import numpy as np


def linear_shift(rate, loading, largest, step=1):
    """p = m / (n + 1) of one rate and one loading, with np.corrcoef at every shift."""
    bins = len(rate)
    middle = loading[largest : bins - largest]
    at = {}
    for shift in range(-(largest // step) * step, largest + 1, step):
        moved = rate[largest + shift : bins - largest + shift]
        at[shift] = abs(np.corrcoef(moved, middle)[0, 1])
    reached = sum(value >= at[0] - 1e-9 for value in at.values())
    return min(1.0, reached / (largest // step + 1))


def segment_permutation(rate, loading, segments):
    """p over all pairings of segments, each around its mean: the limit of many draws."""
    length = len(rate) // segments

    def cut(values):
        parts = [values[s * length : (s + 1) * length] for s in range(segments)]
        return [part - part.mean() for part in parts]

    x, z = cut(rate), cut(loading)
    every = [
        abs(sum(np.dot(x[order[s]], z[s]) for s in range(segments)))
        for order in permutations(range(segments))
    ]
    return np.mean([value >= every[0] - 1e-9 for value in every])


def random_walks(random, bins, count):
    """Slow series without any relation: cumulative sums of independent steps."""
    return np.cumsum(random.normal(size=(bins, count)), axis=0)


def bursts(random, bins, count, *, every=25, decay=10.0):
    """Responses with heavy tails: sudden onsets at independent random times, slow decay."""
    onsets = random.pareto(2.5, (bins, count)) * (random.random((bins, count)) < 1 / every)
    onsets += 0.02 * random.random((bins, count))  # never quite silent
    kernel = np.exp(-np.arange(4 * decay) / decay)
    return np.apply_along_axis(lambda one: np.convolve(one, kernel)[:bins], 0, onsets)
