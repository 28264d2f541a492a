"""Ratios, areas and draws, against loops and closed forms."""

import numpy as np
import pytest
from scipy.integrate import trapezoid

from retina_codec.analysis.control.trials import (
    Answers,
    Draws,
    areas,
    draw_images,
    draw_trials,
    mean_known,
    two_sided,
)
from retina_codec.errors import RetinaCodecError
from tests.reference.control import area, weighted_ratio

CODE = np.repeat([0, 1, 2, 3], [6, 4, 5, 7])
MEMBER = np.array([[1, 0, 0, 0], [0, 1, 1, 0]], bool)


def made(seed: int = 0) -> tuple[Answers, np.ndarray]:
    random = np.random.default_rng(seed)
    original = random.random(len(CODE)) < 0.8
    original[CODE == 2] = False  # never right: no ratio
    return Answers(CODE, MEMBER, original), random.random((3, 5, len(CODE))) < 0.5


def test_ratios_equal_loops_over_images() -> None:
    answers, right = made()
    random = np.random.default_rng(1)
    draws = Draws(
        random.integers(0, 3, (4, len(CODE))).astype(float),
        np.eye(3)[[[1, 0], [0, 2], [0, 1], [2, 1]]],
        np.ones((4, 2, 4), bool),
    )
    found = answers.ratios(right, 1, draws)
    for trial, draw in enumerate([0, 2, 1, 1]):
        for point in range(5):
            for number in range(4):
                expected = weighted_ratio(
                    right[draw, point], answers.original, draws.image[trial], CODE, number
                )
                np.testing.assert_allclose(found[trial, point, number], expected)
    assert np.isnan(found[..., 2]).all()
    mixed = answers.ratios(right, 0, Draws(draws.image, np.full((4, 2, 3), 1 / 3), draws.off))
    each = [answers.ratios(right[d : d + 1], 0, draws) for d in range(3)]
    np.testing.assert_allclose(mixed, np.mean(each, axis=0))


def test_on_and_off_target_by_hand() -> None:
    answers, _ = made()
    ratio = np.array([[[0.5, 1.0, np.nan, 0.2]]])  # one trial, one point
    off = np.array([[[0, 1, 1, 1], [1, 0, 0, 0]]], bool)
    draws = Draws(np.ones((1, len(CODE))), np.ones((1, 2, 1)), off)
    np.testing.assert_allclose(answers.on_and_off(ratio, 0, draws)[:, 0, 0], [0.5, 0.6])
    np.testing.assert_allclose(answers.on_and_off(ratio, 1, draws)[:, 0, 0], [1.0, 0.5])


def test_areas_equal_scipy_and_loops() -> None:
    random = np.random.default_rng(0)
    share, ratio = np.sort(random.random(6)), random.random((2, 3, 6))
    found = areas(share, ratio)
    np.testing.assert_allclose(found, trapezoid(ratio, share))
    assert found[1, 2] == pytest.approx(area(share, ratio[1, 2]))
    assert areas(np.array([0.0, 1.0]), np.array([1.0, 0.0])) == 0.5
    with pytest.raises(RetinaCodecError, match="must not fall"):
        areas(np.array([0.0, 0.5, 0.2]), ratio[0, 0, :3])


def test_trials_draw_each_class_without_replacement() -> None:
    options = {"trials": 300, "per_class": 3, "off_classes": 1, "draws": 4}
    draws = draw_trials(CODE, MEMBER, random=np.random.default_rng(0), **options)
    for number in range(4):
        assert (draws.image[:, CODE == number].sum(1) == 3).all()
    assert set(np.unique(draws.image)) == {0.0, 1.0}
    share = draws.image.mean(0)  # each image of a class as often as another: 3 of 6, 4, 5, 7
    np.testing.assert_allclose(share, 3 / np.bincount(CODE)[CODE], atol=0.12)
    assert (draws.off.sum(2) == 1).all()
    assert not (draws.off & MEMBER).any()
    np.testing.assert_allclose(draws.off.mean(0)[0, 1:], 1 / 3, atol=0.1)
    assert draws.channel.argmax(2).tolist() == [[t % 4, (t + 1) % 4] for t in range(300)]
    again = draw_trials(CODE, MEMBER, random=np.random.default_rng(0), **options)
    np.testing.assert_array_equal(draws.image, again.image)
    every = draw_trials(CODE, MEMBER, random=np.random.default_rng(0), **(options | {
        "off_classes": None, "per_class": 99, "trials": 2}))  # fmt: skip
    assert (every.image == 1).all()
    assert (every.off == ~MEMBER).all()


def test_resamples_are_bootstraps_within_classes() -> None:
    draws = draw_images(CODE, MEMBER, resamples=4000, draws=5, random=np.random.default_rng(0))
    assert (draws.image[0] == 1).all()
    np.testing.assert_allclose(draws.channel[0], 1 / 5)
    sizes = np.bincount(CODE)
    for number, size in enumerate(sizes):
        assert (draws.image[1:, CODE == number].sum(1) == size - 1).all()
    variance = draws.image[1:].var(0)  # multinomial, n − 1 draws of n
    np.testing.assert_allclose(variance, ((1 - 1 / sizes) ** 2)[CODE], rtol=0.1)
    np.testing.assert_allclose(draws.channel.sum(2), 1)
    assert abs(np.corrcoef(draws.channel[1:, :, 0].T)[0, 1]) < 0.06  # concepts apart
    # the spread of a mean over resamples is its standard error
    values = np.random.default_rng(1).random(6)
    spread = (draws.image[1:, CODE == 0] @ values / 5).std()
    assert spread == pytest.approx(values.std(ddof=1) / np.sqrt(6), rel=0.05)
    by_chance = draws.channel[1:, 0] @ values[:5]
    assert by_chance.std() == pytest.approx(values[:5].std(ddof=1) / np.sqrt(5), rel=0.05)


def test_a_class_of_one_image_is_always_drawn() -> None:
    options = {"resamples": 3, "draws": 1, "random": np.random.default_rng(0)}
    draws = draw_images(np.array([0, 1, 1]), np.eye(2, dtype=bool), **options)
    assert (draws.image[:, 0] == 1).all()
    assert (draws.channel == 1).all()


@pytest.mark.slow
@pytest.mark.parametrize("lost", [(0.35, 0.05), (0.12, 0.01)])
def test_intervals_cover_the_truth(lost) -> None:
    """Ten classes of ten images; an image loses nearly all or nothing, on target more often.

    Areas are 0.05 + 0.5 kept, so the specificity is half the difference of both probabilities.
    """
    random = np.random.default_rng(0)
    code, member = np.repeat(np.arange(10), 10), np.eye(10, dtype=bool)
    answers, truth = Answers(code, member, np.ones(100, bool)), (lost[0] - lost[1]) / 2
    share, inside, runs = np.array([0, 0.1, 1.0]), 0, 500
    risk = np.where(member[:, code], *lost)  # (concept, N)
    for _ in range(runs):
        kept = random.random(risk.shape) >= risk
        right = np.stack([np.ones_like(kept), kept, np.zeros_like(kept)], 1)
        draws = draw_images(code, member, resamples=300, draws=1, random=random)
        means = np.zeros(301)
        for concept in range(10):
            ratio = answers.ratios(right[concept][None], concept, draws)
            on, off = areas(share, answers.on_and_off(ratio, concept, draws))
            means += (off - on) / 10
        low, high = np.quantile(means[1:], [0.025, 0.975])
        inside += low <= truth <= high
    assert 0.91 < inside / runs < 0.97  # one standard error: 0.011


def test_p_and_means_by_hand() -> None:
    resampled = np.array([[1.0, -1.0, np.nan], [2.0, 1.0, np.nan], [3.0, 2.0, np.nan]])
    np.testing.assert_allclose(two_sided(resampled), [2 / 4, 1.0, np.nan])
    assert two_sided(np.ones((999, 1)))[0] == pytest.approx(2 / 1000)
    values = np.array([[1.0, np.nan], [3.0, np.nan]])
    np.testing.assert_allclose(mean_known(values, 0), [2.0, np.nan])
