"""Refractory Poisson spike trains from firing rates."""

import numpy as np
import numpy.typing as npt

__all__ = ["expected_rate", "refractory_poisson"]


def expected_rate(hazard: npt.NDArray[np.float64], refractory: float) -> npt.NDArray[np.float64]:
    """Mean rate of a Poisson process with an absolute refractory period.

    ``rate = hazard / (1 + hazard * refractory)``, exact for a hazard that is constant over the
    refractory period.

    Parameters
    ----------
    hazard : numpy.ndarray
        Hz, rate of firing outside the refractory period.
    refractory : float
        s.

    Returns
    -------
    numpy.ndarray
        Hz, same shape.
    """
    return hazard / (1.0 + hazard * refractory)


def refractory_poisson(
    hazard: npt.NDArray[np.float64],
    *,
    bin_width: float,
    refractory: float,
    random: np.random.Generator,
) -> list[npt.NDArray[np.float64]]:
    """Draw one spike train per column, exactly, for a hazard that is constant within bins.

    Between refractory periods the integral of the hazard up to the next spike is exponentially
    distributed with mean 1 (time rescaling), so each spike is found by inverting the integral.

    Parameters
    ----------
    hazard : numpy.ndarray, (time, train)
        Hz, non-negative.
    bin_width : float
        s.
    refractory : float
        s, silence after every spike.
    random : numpy.random.Generator

    Returns
    -------
    list of numpy.ndarray
        Spike times of every train, s from the start of the first bin, ascending.

    References
    ----------
    Brown et al. 2002, Neural Computation 14:325 (time rescaling).
    """
    bins, trains = hazard.shape
    edges = np.arange(bins + 1) * bin_width
    spikes = []
    for train in range(trains):
        integral = np.concatenate([[0.0], np.cumsum(hazard[:, train]) * bin_width])
        total, times, reached = integral[-1], [], 0.0
        # the integral over each refractory period is skipped
        while True:
            reached += random.exponential()
            if reached >= total:
                break
            place = int(np.searchsorted(integral, reached, side="right")) - 1
            within = (reached - integral[place]) / hazard[place, train]
            spike = edges[place] + within
            times.append(spike)
            resume = spike + refractory
            place = min(int(resume / bin_width), bins)
            if place >= bins:
                break
            reached = integral[place] + (resume - edges[place]) * hazard[place, train]
        spikes.append(np.array(times))
    return spikes
