"""Digit scenes: what is drawn is what is labelled, and train and test share nothing."""

import itertools

import numpy as np
import pytest
from PIL import Image
from scipy.stats import chi2_contingency, ks_2samp
from sklearn.datasets import load_digits, load_sample_images

from retina_codec.errors import RetinaCodecError
from retina_codec.images.digits import BACKGROUNDS, LUMINANCE, digit_scenes

DIGITS = load_digits()


@pytest.fixture(scope="module")
def scenes():
    return {part: digit_scenes(part, count=150, seed=3) for part in ("train", "test")}


def luminance(image):
    return np.tensordot(LUMINANCE, image, (0, 0))


def test_the_label_is_that_of_the_collection(scenes):
    for part in scenes.values():
        np.testing.assert_array_equal(part["digit"], DIGITS.target[part["digit_index"]])
        assert part["label"].values.tolist() == [str(digit) for digit in part["digit"].values]


def test_the_named_digit_stands_at_the_named_place(scenes):
    """The picture's own change of luminance there is the digit of the collection, enlarged.

    The background is unknown here, so that only smooth ones are used: sky and blurred leaves,
    where the sides of the patch hardly vary.
    """
    part = scenes["train"]
    agreement = []
    for number in range(part.sizes["sample"]):
        one = part.isel(sample=number)
        side = int(one["digit_size"])
        y, x = (int(one[f"digit_{axis}"] - (side - 1) / 2) for axis in "yx")
        patch = luminance(one["image"].values)[y : y + side, x : x + side]
        border = np.concatenate([patch[:, 0], patch[:, -1]])
        if border.std() > 0.02:
            continue
        digit = DIGITS.images[int(one["digit_index"])].astype(np.float32)
        enlarged = np.asarray(Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC))
        sign = 1 if one["tone"] == "light" else -1
        agreement.append(sign * np.corrcoef(enlarged.ravel(), patch.ravel())[0, 1])
    assert len(agreement) > 10
    assert np.median(agreement) > 0.95
    assert min(agreement) > 0.7


def test_train_and_test_share_no_digit():
    train = set(digit_scenes("train")["digit_index"].values.tolist())
    test = set(digit_scenes("test")["digit_index"].values.tolist())
    assert len(train) == 1297
    assert len(test) == 500
    assert not train & test
    assert train | test == set(range(1797))


@pytest.mark.parametrize(("part", "half"), [("train", 0), ("test", 1)])
def test_backgrounds_come_from_one_half_of_a_photograph(part, half, monkeypatch):
    """Painting the other half of every photograph changes nothing; painting this one does."""
    from retina_codec.images import digits as module

    before = digit_scenes(part, count=20, seed=1)["image"].values
    opened = Image.open

    def painted(which):
        def open_painted(handle):
            picture = opened(handle).convert("RGB")
            middle = picture.width // 2
            box = (0, 0, middle, picture.height) if which == 0 else None
            box = box or (middle, 0, picture.width, picture.height)
            picture.paste((255, 0, 0), box)
            return picture

        return open_painted

    try:
        for which in (0, 1):
            module._photographs.cache_clear()
            monkeypatch.setattr(Image, "open", painted(which))
            after = digit_scenes(part, count=20, seed=1)["image"].values
            same = (before == after).all((1, 2, 3))
            assert not same.any() if which == half else same.all()
    finally:
        module._photographs.cache_clear()


def test_backgrounds_are_the_photographs_of_scikit_learn():
    """Scenes have the mean colour of the named photograph's half, brought to where it is shown."""
    pictures = dict(zip(BACKGROUNDS, load_sample_images().images, strict=True))
    for part, half in (("train", slice(None, 320)), ("test", slice(320, None))):
        scenes = digit_scenes(part, count=500, seed=3, progress=False)
        means = scenes["image"].groupby("photograph").mean(("sample", "y", "x"))
        expected = {n: 0.3 + 0.4 * p[:, half].mean((0, 1)) / 255 for n, p in pictures.items()}
        for name, other in (BACKGROUNDS, BACKGROUNDS[::-1]):
            near, far = (
                np.linalg.norm(means.sel(photograph=name).values - expected[n])
                for n in (name, other)
            )
            assert near < far / 2


def test_contrast_is_that_of_the_colour_and_what_it_covers(scenes):
    contrast = scenes["train"]["contrast"].values
    assert (np.abs(contrast) > 0.19).all()
    assert (np.abs(contrast) < 0.3001).all()
    np.testing.assert_array_equal(scenes["train"]["tone"] == "light", contrast > 0)


@pytest.mark.parametrize("part", ["train", "test"])
def test_what_is_drawn_is_drawn_independently(part):
    """Photograph, tone and digit tell nothing of each other, the photograph none of contrast."""
    scenes = digit_scenes(part, count=2000, seed=11, progress=False)
    kinds = {name: scenes[name].values for name in ("photograph", "tone", "digit")}
    for one, other in itertools.combinations(kinds, 2):
        values = [np.unique(kinds[name], return_inverse=True)[1] for name in (one, other)]
        table = np.histogram2d(*values, bins=[value.max() + 1 for value in values])[0]
        assert chi2_contingency(table).pvalue > 0.001
    china = kinds["photograph"] == "china"
    contrast = np.abs(scenes["contrast"].values)
    assert ks_2samp(contrast[china], contrast[~china]).pvalue > 0.001
    assert abs((kinds["tone"] == "light").mean() - 0.5) < 0.04


def test_backgrounds_leave_room(scenes):
    for part in scenes.values():
        corner = part["image"].isel(sample=part["digit_x"] > 18, x=slice(0, 3))
        assert 0.3 - 1e-6 <= float(corner.min()) < 0.4
        assert 0.6 < float(corner.max()) <= 0.7 + 1e-6


def test_values_are_pictures_and_digits_are_balanced(scenes):
    image = scenes["train"]["image"]
    assert image.dtype == np.float32
    assert float(image.min()) >= 0
    assert float(image.max()) <= 1
    assert image.dims == ("sample", "color", "y", "x")
    twice = digit_scenes("test", count=1000, size=16)
    _, times = np.unique(twice["digit_index"], return_counts=True)
    assert (times == 2).all()


def test_a_seed_draws_the_same_scenes_whatever_the_count(scenes):
    again = digit_scenes("train", count=40, seed=3)
    assert again.identical(scenes["train"].isel(sample=slice(40)))
    other = digit_scenes("train", count=40, seed=4)
    assert (other["image"] != again["image"]).any(("color", "y", "x")).all()


def test_the_scenes_of_the_shipped_networks_have_not_changed():
    """Their cards' numbers hold for these pictures; rounding differs between processors."""
    images = digit_scenes("test", count=50, seed=1)["image"].values
    np.testing.assert_allclose(images.mean((0, 2, 3)), [0.49736, 0.50790, 0.49234], atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"part": "validation"}, "part must be 'train' or 'test'; got 'validation'"),
        ({"count": 0}, "count must be a whole number of at least 1; got 0"),
        ({"count": 2.5}, "count must be a whole number"),
        ({"size": 8}, "size must be a whole number of at least 16; got 8"),
        ({"seed": -1}, "seed must be a whole number of at least 0; got -1"),
    ],
)
def test_what_is_not_valid_is_refused(arguments, message):
    with pytest.raises(RetinaCodecError, match=message):
        digit_scenes(**arguments)
