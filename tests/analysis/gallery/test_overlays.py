"""Every step from a map to a picture: by hand, by loops, and what must not change."""

import numpy as np
import pytest
import xarray as xr

from retina_codec.analysis.gallery.gallery import (
    as_mask,
    mean_over_color,
    median_filtered,
    overlay,
    scaled_to_one,
)
from retina_codec.errors import RetinaCodecError

RANDOM = np.random.default_rng(0)


def maps(values):
    return xr.DataArray(np.asarray(values, float), dims=("sample", "y", "x"))


def test_median_equals_a_loop():
    values = RANDOM.normal(size=(2, 6, 7))
    found = median_filtered(maps(values), 4).values
    for k in range(2):
        wide = np.pad(values[k], 2, mode="symmetric")
        for y in range(6):
            for x in range(7):
                window = np.sort(wide[y : y + 4, x : x + 4].ravel())
                assert found[k, y, x] == window[8]  # the upper of the middle two


def test_size_one_changes_nothing():
    values = maps(RANDOM.normal(size=(1, 4, 4)))
    xr.testing.assert_identical(median_filtered(values, 1), values)


def test_largest_becomes_one_and_zero_stays():
    found = scaled_to_one(maps([[[0, 2], [-1, 4]], [[0, 0], [-1, 0]]]))
    np.testing.assert_allclose(found[0], [[0, 0.5], [-0.25, 1]])
    assert np.isnan(found[1]).all()  # nothing was used of it


def test_contrast_saturates_and_negative_is_dark():
    found = as_mask(maps([[[-0.5, 0, 1 / 14, 1 / 7, 1]]]), 7)
    np.testing.assert_allclose(found[0, 0], [0, 0, 0.5, 1, 1])


def test_color_is_averaged_and_nan_stays():
    values = xr.DataArray(np.ones((1, 3, 2, 2)), dims=("sample", "color", "y", "x"))
    values[0, 0, 0, 0], values[0, 1, 1, 1] = 7.0, np.nan
    found = mean_over_color(values)
    assert float(found[0, 0, 0]) == 3
    assert np.isnan(found[0, 1, 1])


def test_overlay_is_the_steps_in_order():
    images = xr.DataArray(RANDOM.random((3, 3, 8, 8)), dims=("sample", "color", "y", "x"))
    one = xr.DataArray(RANDOM.normal(size=(3, 3, 8, 8)), dims=images.dims)
    found = overlay(images, one, filter_size=3, contrast=5)
    mask = as_mask(scaled_to_one(median_filtered(mean_over_color(one), 3)), 5)
    np.testing.assert_allclose(found["mask"], mask)
    np.testing.assert_allclose(found["overlay"], images.values * mask.values[:, None])
    for options in ({"filter_size": 1, "contrast": 5}, {"filter_size": 3, "contrast": 2}):
        assert (overlay(images, one, **options)["mask"] != found["mask"]).any()


def test_size_of_the_map_and_other_images_do_not_matter():
    images = xr.DataArray(RANDOM.random((3, 8, 8)), dims=("sample", "y", "x"))
    one = maps(RANDOM.normal(size=(3, 8, 8)))
    found = overlay(images, one)
    scaled = overlay(images, one * xr.DataArray([1e-6, 1.0, 1e6], dims="sample"))
    xr.testing.assert_allclose(found, scaled)
    alone = overlay(images.isel(sample=[1]), one.isel(sample=[1]))
    np.testing.assert_allclose(alone["overlay"][0], found["overlay"][1])


def test_inputs_are_left_alone():
    images = xr.DataArray(RANDOM.random((2, 3, 8, 8)), dims=("sample", "color", "y", "x"))
    one = maps(RANDOM.normal(size=(2, 8, 8)))
    before = images.copy(deep=True), one.copy(deep=True)
    overlay(images, one)
    assert images.identical(before[0])
    assert one.identical(before[1])


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({}, {"filter_size": 0}, "filter_size must be at least 1"),
        ({}, {"contrast": 0.0}, "contrast positive"),
        ({"y": slice(4)}, {}, "same samples and size"),
        ({"sample": [0, 0]}, {}, "same samples and size"),
        ({"sample": 0}, {}, "must be"),
    ],
)
def test_mistakes_are_named(change, options, message):
    images = xr.DataArray(
        RANDOM.random((2, 8, 8)), dims=("sample", "y", "x"), coords={"sample": [4, 5]}
    )
    with pytest.raises(RetinaCodecError, match=message):
        overlay(images, images.isel(change), **options)
