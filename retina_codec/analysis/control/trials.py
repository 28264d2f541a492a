"""Turn right and wrong answers into accuracy ratios, areas under curves and their errors.

Every channel set is run on every image once; trials and resamples are weights of images.

Notation: N images, n classes, P points of a curve, T trials (or resamples), D random draws.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retina_codec.errors import RetinaCodecError

__all__ = ["Answers", "Draws", "areas", "draw_images", "draw_trials", "mean_known", "two_sided"]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

BYTES = 2**26  # of the images' weights times answers, at a time


@dataclass(frozen=True)
class Draws:
    """Images by weight, random channels by weight, and the classes that count as off target."""

    image: Floats  # (T, N)
    channel: Floats  # (T, concept, D), sums to 1 over D
    off: Bools  # (T, concept, class)


@dataclass(frozen=True)
class Answers:
    """Which images a network without intervention answers rightly, and their classes.

    ``right`` is (D, P, N): D random draws of channels, or one.
    """

    code: npt.NDArray[np.intp]  # (N,), number of the class
    member: Bools  # (concept, class)
    original: Bools  # (N,), of the network as it is

    def ratios(self, right: Bools, concept: int, draws: Draws) -> Floats:
        """Accuracy of each class over its original accuracy: (T, P, class); NaN for 0 of 0.

        ``Σ_i w_i right_i / Σ_i w_i original_i`` over the images i of the class.
        """
        mix = draws.channel[:, concept]
        whole = self._by_class(self.original[None, None].astype(np.float64), mix, draws)
        found = self._by_class(right.astype(np.float64), mix, draws)  # whole is (T, 1, class)
        return np.divide(found, whole, out=np.full_like(found, np.nan), where=whole > 0)

    def on_and_off(self, ratio: Floats, concept: int, draws: Draws) -> Floats:
        """Mean ratio over the concept's classes, and over off-target classes: (2, T, P)."""
        on = mean_known(ratio[..., self.member[concept]], axis=-1)
        off = mean_known(np.where(draws.off[:, None, concept], ratio, np.nan), axis=-1)
        return np.stack([on, off])

    def _by_class(self, right: Floats, mix: Floats, draws: Draws) -> Floats:
        """Sum right answers, weighted by images and draws, (D, P, N) to (T, P, class)."""
        count, classes = len(draws.image), self.member.shape[1]
        found = np.empty((count, right.shape[1], classes))
        for number in range(classes):
            inside = self.code == number
            weight, some = draws.image[:, inside], right[:, :, inside]
            if len(some) == 1:
                found[:, :, number] = weight @ some[0].T
                continue
            for part in _parts(count, 8 * some[0].size):
                mixed = np.tensordot(mix[part], some, 1)  # (T, P, N of the class)
                found[part, :, number] = np.einsum("tn,tpn->tp", weight[part], mixed)
        return found


def _parts(count: int, row: int) -> Iterator[slice]:
    step = max(1, BYTES // max(1, row))
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


def draw_trials(
    code: npt.NDArray[np.intp],
    member: Bools,
    *,
    trials: int,
    per_class: int,
    off_classes: int | None,
    draws: int,
    random: np.random.Generator,
) -> Draws:
    """Draw the images, off-target classes and random channels of trials.

    Of each class (``code`` (N,)) ``per_class`` images without replacement, or all of them; of the
    classes outside a concept (``member`` (concept, class)) ``off_classes``, or all; concept k of
    trial t uses number (t + k) mod ``draws`` of the random orders of channels.
    """
    classes = member.shape[1]
    image = np.zeros((trials, len(code)))
    off = np.repeat(~member[None], trials, axis=0)
    for trial in range(trials):
        for number in range(classes):
            own = np.flatnonzero(code == number)
            image[trial, random.choice(own, min(per_class, len(own)), replace=False)] = 1
        if off_classes is not None:
            for concept, inside in enumerate(member):
                outside = np.flatnonzero(~inside)
                chosen = random.choice(outside, min(off_classes, len(outside)), replace=False)
                off[trial, concept] = np.isin(np.arange(classes), chosen)
    channel = np.eye(draws)[np.add.outer(np.arange(trials), np.arange(len(member))) % draws]
    return Draws(image, channel, off)


def draw_images(
    code: npt.NDArray[np.intp],
    member: Bools,
    *,
    resamples: int,
    draws: int,
    random: np.random.Generator,
) -> Draws:
    """Draw images within their classes, and random channels, with replacement (bootstrap).

    Of n images of a class n − 1 are drawn (one where there is one), and so of random channels,
    which are drawn for each concept apart: the spread of means over resamples is then their
    standard error without bias, ``s / √n``, where n draws would make it ``√(1 − 1/n)`` times that.
    The first row is the sample as it is. All classes outside a concept are off target.
    Efron, Tibshirani 1993, An Introduction to the Bootstrap, chapter 13. Rao, Wu 1988, JASA 83:231,
    strata of few.
    """
    image = np.ones((1 + resamples, len(code)))
    for number in range(member.shape[1]):
        own = np.flatnonzero(code == number)
        few = max(1, len(own) - 1)
        image[1:, own] = random.multinomial(few, np.full(len(own), 1 / len(own)), resamples)
    channel = np.full((1 + resamples, len(member), draws), 1 / draws)
    few = max(1, draws - 1)
    channel[1:] = random.multinomial(few, channel[0, 0], (resamples, len(member))) / few
    return Draws(image, channel, np.repeat(~member[None], 1 + resamples, axis=0))


def areas(share: Floats, ratio: Floats) -> Floats:
    """Return areas (...) under curves (..., P) by the trapezoid rule; shares (P,) must not fall."""
    if (np.diff(share) < 0).any():
        raise RetinaCodecError(f"shares of channels must not fall; got {share}. Sort percentages.")
    return np.asarray(np.trapezoid(ratio, share, axis=-1))


def mean_known(values: Floats, axis: int) -> Floats:
    """Average what is not NaN; NaN where nothing is known."""
    known = np.isfinite(values)
    count = known.sum(axis)
    total = np.where(known, values, 0).sum(axis)
    mean: Floats = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return mean


def two_sided(resampled: Floats) -> Floats:
    """Return p of "no difference" from resamples (B, ...): 2 (1 + the fewer beyond 0) / (B + 1).

    NaN where no resample is known.
    """
    known = np.isfinite(resampled).sum(0)
    fewer = np.minimum((resampled <= 0).sum(0), (resampled >= 0).sum(0))
    p = np.minimum(1.0, 2 * (1 + fewer) / (known + 1))
    return np.where(known > 0, p, np.nan)
