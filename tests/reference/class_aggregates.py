"""Sums of the modes of a class, one mode, one class and one channel at a time."""

import math


def best_modes(correlations, threshold):
    """Modes of one class: all with r > threshold, or the one with the largest."""
    chosen = [m for m, r in enumerate(correlations) if r > threshold]
    return chosen or [max(range(len(correlations)), key=lambda m: correlations[m])]


def summed_mode(dictionary, loading, chosen):
    """Sum of modes (mode, feature), each times the mean of its loadings that are not 0."""
    total = [0.0] * len(dictionary[0])
    for m in chosen:
        used = [abs(row[m]) for row in loading if row[m] != 0]
        amplitude = sum(used) / len(used)
        for feature, entry in enumerate(dictionary[m]):
            total[feature] += amplitude * entry
    return total


def pearson(one, other):
    """Pearson r of two lists."""
    mean, other_mean = sum(one) / len(one), sum(other) / len(other)
    top = sum((a - mean) * (b - other_mean) for a, b in zip(one, other, strict=True))
    square = sum((a - mean) ** 2 for a in one)
    other_square = sum((b - other_mean) ** 2 for b in other)
    return top / math.sqrt(square * other_square)
