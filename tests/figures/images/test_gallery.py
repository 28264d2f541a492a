"""Galleries of a mode as a figure: pictures in their places, empty places, grey overlays."""

import numpy as np
import pytest
import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.figures.images.gallery import plot_gallery
from tests.figures.checks import assert_readable, images_of, words_of


def gallery(color=3, rows=3, pairs=4, low=0.0, high=1.0):
    random = np.random.default_rng(0)
    image = random.uniform(low, high, (rows, pairs, color, 8, 8)).astype(np.float32)
    image[0, 0, 0, 0, 0], image[0, 0, 0, 0, 1] = low, high
    mask = random.random((rows, pairs, 8, 8))
    loading = np.sort(random.gamma(2, size=(rows, pairs)))[:, ::-1].copy()
    loading[-1, 3], image[-1, 3] = np.nan, np.nan
    mask[int(rows > 1), 1] = np.nan  # nothing was used
    return xr.Dataset(
        {
            "image": (("concept", "rank", "color", "y", "x"), image),
            "overlay": (("concept", "rank", "color", "y", "x"), image * mask[:, :, None]),
            "loading": (("concept", "rank"), loading, {"units": "nats"}),
        },
        coords={"concept": ["cat", "dog", "oak"][:rows]},
        attrs={"layer": "stage2.0", "mode": 5},
    )


def test_page_is_readable():
    figure = plot_gallery(gallery())
    assert_readable(figure)
    words = words_of(figure)
    assert all(text in words for text in ("Mode 5 of stage2.0", "cat", "oak", "nats"))


def test_pictures_stand_in_their_places():
    found = gallery()
    shown = images_of(plot_gallery(found))
    assert len(shown) == 2 * 11  # one place is empty
    np.testing.assert_allclose(shown[2], found["image"][0, 1].values.transpose(1, 2, 0))
    np.testing.assert_allclose(shown[3], found["overlay"][0, 1].values.transpose(1, 2, 0))
    np.testing.assert_allclose(shown[8], found["image"][1, 0].values.transpose(1, 2, 0))


def test_overlay_without_anything_to_show_is_empty():
    shown = images_of(plot_gallery(gallery()))
    nothing = shown[2 * 5 + 1]
    assert nothing.shape == (1, 1, 4)
    assert nothing[..., 3] == 0


def test_one_color_and_other_ranges_are_mapped():
    found = gallery(color=1, low=-2.0, high=3.0)
    figure = plot_gallery(found)
    assert_readable(figure)
    shown = images_of(figure)
    np.testing.assert_allclose(shown[0], (found["image"][0, 0, 0] + 2) / 5, atol=1e-6)
    np.testing.assert_allclose(
        shown[1], ((found["overlay"][0, 0, 0] + 2) / 5).clip(0, 1), atol=1e-6
    )


def test_many_small_pictures_are_readable():
    assert_readable(plot_gallery(gallery(rows=1, pairs=4)))


def test_something_else_is_refused():
    with pytest.raises(RetinaCodecError, match="mode_gallery"):
        plot_gallery(xr.Dataset({"image": ("rank", [1.0])}))
