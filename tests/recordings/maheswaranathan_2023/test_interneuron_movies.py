"""Preparations of stimuli, each against a slow copy or numpy."""

import numpy as np
import pytest
import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.recordings.maheswaranathan_2023.interneurons import (
    center_in_frame,
    frames_of_lines,
    from_signed,
    spread_over_frame,
    to_signed,
)


def movie(*shape, dtype="float64", seed=0):
    values = np.random.default_rng(seed).integers(0, 9, shape).astype(dtype)
    return xr.DataArray(values, dims=("time", "y", "x"))


def test_signed_intensities_and_back():
    boxes = xr.DataArray(np.array([0, 1, 1, 0], dtype=np.uint8), dims="time")
    assert to_signed(boxes).values.tolist() == [-1, 1, 1, -1]
    np.testing.assert_array_equal(from_signed(to_signed(boxes)), boxes)
    assert boxes.values.tolist() == [0, 1, 1, 0]
    fine = xr.DataArray(np.random.default_rng(0).random(20), dims="time")
    np.testing.assert_allclose(from_signed(to_signed(fine)), fine, rtol=1e-15)
    assert to_signed(fine).dtype == np.float64


@pytest.mark.parametrize(("height", "width"), [(38, 38), (37, 40), (50, 49), (1, 2)])
def test_centred_padding_against_a_slow_copy(height, width):
    small = movie(3, height, width, seed=height)
    whole = center_in_frame(small, fill=0.5)
    expected = np.full((3, 50, 50), 0.5)
    top, left = int((50 - height) / 2), int((50 - width) / 2)
    for y in range(height):
        for x in range(width):
            expected[:, top + y, left + x] = small.values[:, y, x]
    np.testing.assert_array_equal(whole, expected)
    assert whole["y"].values.tolist() == list(range(50))


def test_a_movie_larger_than_the_frame_is_refused():
    with pytest.raises(RetinaCodecError, match="y has 51 px of 50"):
        center_in_frame(movie(2, 51, 3))
    with pytest.raises(RetinaCodecError, match="x has 4 px of 3"):
        center_in_frame(movie(2, 3, 4), (50, 3))


@pytest.mark.parametrize("width", [8, 9, 2])
def test_lines_become_frames_as_numpys_convolution_says(width):
    lines = movie(5, 1, width, dtype="uint8")
    frames = frames_of_lines(lines)
    for t in range(5):
        row = np.convolve(lines.values[t, 0].astype(float), [0.5, 0.5], mode="same")[::2]
        assert frames.sizes["y"] == frames.sizes["x"] == len(row)
        for y in range(len(row)):
            np.testing.assert_array_equal(frames[t, y], row)
    with pytest.raises(RetinaCodecError, match="one pixel along y to be repeated; it has 2"):
        frames_of_lines(movie(5, 2, 8))


def test_flashes_and_bars_are_repeated_over_the_frame():
    flash = spread_over_frame(movie(4, 1, 1), (38, 38))
    np.testing.assert_array_equal(flash, np.broadcast_to(movie(4, 1, 1).values, (4, 38, 38)))
    bar = spread_over_frame(movie(4, 1, 6), (3, 6))
    for y in range(3):
        np.testing.assert_array_equal(bar[:, y], movie(4, 1, 6)[:, 0])
    with pytest.raises(RetinaCodecError, match="one pixel along x to be repeated; it has 6"):
        spread_over_frame(movie(4, 1, 6), (3, 7))
