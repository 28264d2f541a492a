"""Statistics of contributions a second time, slowly: one input, one class, one pair at a time."""

from itertools import permutations
from math import sqrt
from statistics import fmean

import numpy as np


def hoyer(vector):
    """(√n − ‖v‖₁/‖v‖₂) / (√n − 1), by loops; NaN for zeros."""
    absolute, square = 0.0, 0.0
    for value in vector:
        absolute += abs(float(value))
        square += float(value) ** 2
    if square == 0:
        return float("nan")
    root = sqrt(len(vector))
    return (root - absolute / sqrt(square)) / (root - 1)


def pearson(one, other):
    """Pearson r by loops; NaN where one is constant."""
    if len(set(map(float, one))) == 1 or len(set(map(float, other))) == 1:
        return float("nan")
    a, b = fmean(map(float, one)), fmean(map(float, other))
    top = sum((float(x) - a) * (float(y) - b) for x, y in zip(one, other, strict=True))
    left = sum((float(x) - a) ** 2 for x in one)
    right = sum((float(y) - b) ** 2 for y in other)
    return top / sqrt(left * right)


def class_averages(values, labels):
    """(class, channel) by alphabet, inputs without a label left out."""
    rows = []
    for name in sorted(set(labels) - {""}):
        members = [values[i] for i in range(len(labels)) if labels[i] == name]
        rows.append([fmean(float(row[j]) for row in members) for j in range(len(members[0]))])
    return np.array(rows)


def head_sums(vector, heads):
    """Sum of every head's dimensions, one head after the other."""
    size = len(vector) // heads
    return [sum(float(vector[h * size + d]) for d in range(size)) for h in range(heads)]


def exact_permutation_p(values, member):
    """Share of all orders of labels whose r is at least as large; a handful of inputs only."""
    observed = pearson(values, member)
    drawn = [pearson(values, order) for order in set(permutations(member))]
    return sum(r >= observed - 1e-12 for r in drawn) / len(drawn)


def permutation_moments(values, member):
    """Mean, variance and skewness of r over all orders of labels."""
    drawn = np.array([pearson(values, order) for order in set(permutations(member))])
    around = drawn - drawn.mean()
    return drawn.mean(), (around**2).mean(), (around**3).mean() / (around**2).mean() ** 1.5


def varying_hoyer(values):
    """Hoyer of every input less the mean of all the others, by loops."""
    found = []
    for i, row in enumerate(values):
        others = [other for j, other in enumerate(values) if j != i]
        means = [fmean(float(other[c]) for other in others) for c in range(len(row))]
        found.append(hoyer([float(value) - mean for value, mean in zip(row, means, strict=True)]))
    return found


def constant_share(values):
    """‖mean‖² / mean ‖v‖², by loops."""
    means = [fmean(float(row[c]) for row in values) for c in range(len(values[0]))]
    return sum(m**2 for m in means) / fmean(sum(float(v) ** 2 for v in row) for row in values)
