"""Features under maps: closed forms, a slow second way, and what must not change them."""

import numpy as np
import pytest
import xarray as xr

import retina_codec as rc
from retina_codec.analysis.gallery.features import (
    digit_squares,
    features_under,
    likeness,
    local_features,
    object_gain,
)
from retina_codec.images.digits import digit_scenes

DIMS = ("sample", "color", "y", "x")


def pictures(count=3, side=16, seed=0):
    values = np.random.default_rng(seed).random((count, 3, side, side))
    return xr.DataArray(values, dims=DIMS)


@pytest.mark.parametrize("degrees", [0, 45, 270])
def test_a_slope_has_edges_in_its_direction_only(degrees):
    y, x = np.mgrid[:32, :32] / 32
    angle = np.deg2rad(degrees)
    slope = np.cos(angle) * x + np.sin(angle) * y
    image = xr.DataArray(slope[None], dims=("sample", "y", "x"))
    found = local_features(image).isel(y=slice(4, -4), x=slice(4, -4)).mean(("sample", "y", "x"))
    # |g| = 1/32 per pixel; 45 degrees away cos² = 1/2, 90 and more: nothing
    for name, value in zip(found["feature"].values[:8], found.values[:8], strict=True):
        away = np.deg2rad(float(name.split()[-1][:-1]) - degrees)
        assert value == pytest.approx(max(0, np.cos(away)) ** 2 / 32, abs=1e-6)


def test_light_dark_and_colours_are_departures_from_the_mean_of_the_image():
    image = np.zeros((1, 3, 8, 8))
    image[0, 0, :, :4] = 1.0  # left half red
    found = local_features(xr.DataArray(image, dims=DIMS))
    left = found.isel(sample=0, y=4, x=0)
    assert left.sel(feature="reddish") == pytest.approx(0.5)
    assert left.sel(feature="yellowish") == pytest.approx(0.25)
    assert left.sel(feature="light") == pytest.approx(1 / 6)
    right = found.isel(sample=0, y=4, x=7)
    assert right.sel(feature="greenish") == pytest.approx(0.5)
    assert right.sel(feature="light") == 0


def test_features_under_a_map_one_by_one():
    images = pictures()
    features = local_features(images)
    maps = xr.DataArray(np.random.default_rng(1).normal(size=images.shape), dims=DIMS)
    before = maps.copy(deep=True)
    found = features_under(features, maps)
    for s in range(3):
        m = np.maximum(maps.values[s].sum(0), 0)
        for k, f in enumerate(features.values[s]):
            inside = sum(m[y, x] * f[y, x] for y in range(16) for x in range(16)) / m.sum()
            assert found.values[s, k] == pytest.approx((inside - f.mean()) / f.std())
    xr.testing.assert_identical(maps, before)
    np.testing.assert_allclose(features_under(features, 5 * maps), found)  # scale does not count
    np.testing.assert_allclose(features_under(features * 0 + 1, maps), np.nan)


def test_an_even_map_knows_nothing_and_an_empty_one_says_nothing():
    features = local_features(pictures())
    even = xr.DataArray(np.ones((3, 16, 16)), dims=("sample", "y", "x"))
    np.testing.assert_allclose(features_under(features, even), 0, atol=1e-12)
    assert np.isnan(features_under(features, -even)).all()


def test_likeness_is_pearson_r_over_common_features():
    random = np.random.default_rng(2)
    one, other = random.normal(size=(4, 7)), random.normal(size=(5, 7))
    expected = np.corrcoef(np.concatenate([one, other]))[:4, 4:]
    np.testing.assert_allclose(likeness(one, other), expected)
    other[0, 2] = np.nan
    kept = np.delete(np.arange(7), 2)
    np.testing.assert_allclose(
        likeness(one, other)[1, 0], np.corrcoef(one[1, kept], other[0, kept])[0, 1]
    )
    other[0, 2:] = np.nan
    assert np.isnan(likeness(one, other)[:, 0]).all()


def test_gain_of_a_map_inside_outside_and_everywhere():
    inside = np.zeros((4, 8, 8), bool)
    inside[:, 2:6, 2:6] = True  # a quarter of the image
    maps = np.stack([inside[0] * 2.0, ~inside[0] * 1.0, np.ones((8, 8)), -np.ones((8, 8))])
    found = object_gain(xr.DataArray(maps, dims=("sample", "y", "x")), inside)
    np.testing.assert_allclose(found, [4, 0, 1, np.nan])


def test_squares_hold_the_digits():
    scenes = digit_scenes("test", count=20, seed=3, progress=False)
    inside = digit_squares(scenes["image"])
    np.testing.assert_array_equal(inside.sum((1, 2)), scenes["digit_size"].values ** 2)
    y, x = np.nonzero(inside[4])
    assert (y.mean(), x.mean()) == (scenes["digit_y"].values[4], scenes["digit_x"].values[4])


@pytest.mark.parametrize(
    "make",
    [
        lambda: local_features(xr.DataArray(np.zeros((2, 8, 8)), dims=("time", "y", "x"))),
        lambda: features_under(local_features(pictures()), pictures(2)),
        lambda: object_gain(pictures(), np.ones((3, 8, 8), bool)),
        lambda: digit_squares(pictures()),
    ],
)
def test_what_does_not_fit_is_refused(make):
    with pytest.raises(rc.RetinaCodecError):
        make()
