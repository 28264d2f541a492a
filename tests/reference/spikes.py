"""Refractory Poisson spikes by brute force: one small step after another."""

import numpy as np


def refractory_bernoulli(hazard, bin_width, refractory, random, step):
    """Spike times of one train; correct as ``step`` goes to 0."""
    times, silent_until = [], 0.0
    for number in range(round(len(hazard) * bin_width / step)):
        now = (number + 0.5) * step
        if now >= silent_until and random.random() < hazard[int(now / bin_width)] * step:
            times.append(now)
            silent_until = now + refractory
    return np.array(times)
