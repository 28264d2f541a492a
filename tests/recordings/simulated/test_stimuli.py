"""Natural movies: drift against an independent interpolation, no shared pixels, seeds."""

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from retina_codec.errors import RetinaCodecError
from retina_codec.recordings.simulated import stimuli as movies
from retina_codec.recordings.simulated.stimuli import natural_movie, photographs


def test_drift_equals_scipy_interpolation():
    random = np.random.default_rng(0)
    scene = random.uniform(0, 255, (30, 34)).astype(np.float32)
    offsets = random.uniform(0, 9, (6, 2))
    ours = movies._drift(scene, offsets, (20, 24))
    for frame, (down, right) in zip(ours, offsets, strict=True):
        rows, columns = np.mgrid[:20, :24]
        expected = map_coordinates(scene, [rows + down, columns + right], order=1)
        assert np.abs(frame - expected).max() <= 0.51  # rounding to grey levels


def test_scene_changes_every_second_and_drifts_between():
    movie = natural_movie(3, seed=0, progress=False).astype(float)
    change = np.abs(np.diff(movie, axis=0)).mean(axis=(1, 2))
    cuts = change[[99, 199]]
    within = np.delete(change, [99, 199])
    assert cuts.min() > 2 * within.max()
    assert within.max() > 0


def test_same_seed_same_movie_and_other_seed_other_movie():
    first = natural_movie(1, seed=[3, 1], progress=False)
    again = natural_movie(1, seed=[3, 1], progress=False)
    other = natural_movie(1, seed=[4, 1], progress=False)
    np.testing.assert_array_equal(first, again)
    assert np.abs(first.astype(float) - other).mean() > 5


def test_longer_movie_starts_with_the_shorter_one():
    np.testing.assert_array_equal(
        natural_movie(2, seed=5, progress=False), natural_movie(3, seed=5, progress=False)[:200]
    )


@pytest.mark.parametrize(("part", "allowed"), [("train", slice(0, 70)), ("test", slice(70, 100))])
def test_train_and_test_scenes_share_no_pixel(monkeypatch, part, allowed):
    """With photographs whose grey level tells the row, every frame shows allowed rows only."""
    height = 400
    rows = np.repeat(np.arange(height, dtype=np.float32)[:, None] % 2, 300, axis=1) * 60
    level = np.linspace(0, 180, height, dtype=np.float32)[:, None]
    monkeypatch.setattr(movies, "photographs", lambda: (rows + level,) * len(movies.PHOTOGRAPHS))
    monkeypatch.setattr(movies, "LOWEST_CONTRAST", 0.0)
    monkeypatch.setattr(movies, "LARGEST_ZOOM", 1.0)
    movie = natural_movie(5, seed=1, part=part, progress=False).astype(float)
    # the mean over a pair of rows is level + 30
    shown = (movie[:, ::2] + movie[:, 1::2]) / 2 - 30
    low, high = allowed.start / 100 * 180, allowed.stop / 100 * 180
    assert shown.min() > low - 3
    assert shown.max() < high + 3


def test_photographs_are_luminance():
    images = photographs()
    assert len(images) == len(movies.PHOTOGRAPHS)
    for image in images:
        assert image.ndim == 2
        assert 0 <= image.min()
        assert 100 < image.max() <= 255
        assert image.std() > 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"duration": 1, "part": "both"}, "part must be"), ({"duration": 0}, "at least one frame")],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(RetinaCodecError, match=message):
        natural_movie(seed=0, **arguments)
