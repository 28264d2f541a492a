"""Repeats, leakage and smoothing once more, slowly: one pair, one frame, one spike at a time."""

import itertools

import numpy as np
from scipy.stats import norm


def whole_powers(rates):
    """Signal and total power of whole repeats by Sahani and Linden's formula; (repeat, time)."""
    count = len(rates)
    total = np.mean([row.var(ddof=1) for row in rates])
    signal = (count * rates.mean(axis=0).var(ddof=1) - total) / (count - 1)
    return float(signal), float(total)


def holed_powers(rates):
    """Signal and noise power where bins are missing, bin by bin and pair by pair."""
    noises = []
    for one, other in itertools.combinations(rates, 2):
        both = [a - b for a, b in zip(one, other, strict=True) if np.isfinite(a + b)]
        if len(both) > 1:
            noises.append(np.var(both, ddof=1) / 2)
    bins = [[rate for rate in column if np.isfinite(rate)] for column in rates.T]
    means = [np.mean(column) for column in bins if column]
    inverse = np.mean([1 / len(column) for column in bins if column])
    noise = np.mean(noises)
    return float(np.var(means, ddof=1) - noise * inverse), float(noise)


def split_half(rates, target):
    """Mean correlation between means of halves, every split, carried to ``target`` repeats."""
    half, correlations = len(rates) // 2, []
    for order in itertools.permutations(range(len(rates))):
        halves = rates[list(order[:half])], rates[list(order[half : 2 * half])]
        seen = [np.isfinite(part).any(axis=0) for part in halves]
        means = [np.nanmean(part[:, seen[0] & seen[1]], axis=0) for part in halves]
        correlations.append(np.corrcoef(*means)[0, 1])
    r = np.mean(correlations)
    k = target / half
    return k * r / (1 + (k - 1) * r)


def jackknife_error(rates):
    """Standard error of `split_half` from leaving out one repeat after another."""
    count = len(rates)
    left = [split_half(np.delete(rates, i, axis=0), count) for i in range(count)]
    return float(np.sqrt((count - 1) / count * np.sum((left - np.mean(left)) ** 2)))


def leaked_frames(test, train, run, distinct, *, within=False):
    """Test frames in windows that train has too; frames are compared one by one."""
    leaked = np.zeros(len(test), dtype=bool)
    for begin in range(len(test) - 1):
        if np.array_equal(test[begin], test[begin + 1]):
            continue
        end = begin + run
        while end <= len(test) and len({f.tobytes() for f in test[begin:end]}) < distinct:
            end += 1
        if end > len(test):
            continue
        places = range(begin if within else len(train) - (end - begin) + 1)
        if any(np.array_equal(test[begin:end], train[s : s + end - begin]) for s in places):
            leaked[begin:end] = True
    return leaked


def smoothed_rate(times, kernel, width, start, bins, frame_rate):
    """Mean rate of every bin from the kernel around each spike, by a fine sum; Hz, no edges."""
    fine = 400
    step = 1 / (frame_rate * fine)
    at = start + (np.arange(bins * fine) + 0.5) * step
    total = np.zeros(bins * fine)
    for time in times:
        lag = at - time
        if kernel == "gaussian":
            total += norm.pdf(lag, scale=width)
        elif kernel == "boxcar":
            total += (np.abs(lag) < width / 2) / width
        else:
            total += np.where(lag >= 0, np.exp(-np.maximum(lag, 0) / width) / width, 0)
    return total.reshape(bins, fine).mean(axis=1)
