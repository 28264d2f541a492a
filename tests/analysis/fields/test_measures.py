import numpy as np
import pytest
import xarray as xr

from retina_codec.analysis.fields.measures import measure_fields
from retina_codec.errors import RetinaCodecError

SIDE = 61
LAG = np.arange(40, 0, -1) / 100


def gaussian(y, x, long, short, degrees):
    rows, columns = np.mgrid[0:SIDE, 0:SIDE]
    angle = np.radians(degrees)
    along = (columns - x) * np.cos(angle) + (rows - y) * np.sin(angle)
    across = -(columns - x) * np.sin(angle) + (rows - y) * np.cos(angle)
    return np.exp(-(along**2) / (2 * long**2) - across**2 / (2 * short**2))


def dataset(image, course=None, **more):
    course = np.exp(-((LAG - 0.1) ** 2) / 2e-3) if course is None else course
    return xr.Dataset(
        {"spatial": (("y", "x"), image), "temporal": ("lag", course), **more},
        coords={"lag": LAG, "y": np.arange(SIDE), "x": np.arange(SIDE)},
    )


@pytest.mark.parametrize("degrees", [0.0, 30.0, 90.0, 145.0])
def test_a_gaussian_comes_back(degrees):
    found = measure_fields(dataset(-3 * gaussian(28.3, 33.8, 6.0, 3.0, degrees)))
    assert float(found["field_y"]) == pytest.approx(28.3, abs=0.05)
    assert float(found["field_x"]) == pytest.approx(33.8, abs=0.05)
    # The region of about 60 px is a grid of whole pixels: moments err by about 2 %.
    assert float(found["diameter"]) == pytest.approx(2 * np.sqrt(18), rel=0.03)
    assert float(found["eccentricity"]) == pytest.approx(np.sqrt(0.75), rel=0.03)
    turned = (float(found["orientation"]) - degrees + 90) % 180 - 90
    assert abs(turned) < 1.5
    assert float(found["polarity"]) == -1
    assert float(found["surround_ratio"]) == 0
    assert found["diameter"].attrs["units"] == "px"


def test_center_and_surround_follow_the_integrals_of_two_gaussians():
    a, b, weight = 3.0, 6.0, 0.2
    image = gaussian(30, 30, a, a, 0) - weight * gaussian(30, 30, b, b, 0)
    crossing = 2 * np.log(1 / weight) / (1 / a**2 - 1 / b**2)  # radius² where both are equal
    inner = a**2 * (1 - np.exp(-crossing / 2 / a**2))
    inner -= weight * b**2 * (1 - np.exp(-crossing / 2 / b**2))
    outer = weight * b**2 * np.exp(-crossing / 2 / b**2) - a**2 * np.exp(-crossing / 2 / a**2)
    found = measure_fields(dataset(image))
    assert float(found["surround_ratio"]) == pytest.approx(outer / inner, rel=0.01)
    assert float(found["eccentricity"]) == pytest.approx(0, abs=1e-6)


def test_a_grating_patch_has_the_orientation_of_its_bars():
    rows, columns = np.mgrid[0:SIDE, 0:SIDE] - 30.0
    angle = np.radians(60.0)  # of the bars
    across = -columns * np.sin(angle) + rows * np.cos(angle)
    image = gaussian(30, 30, 7, 7, 0) * np.cos(2 * np.pi * across / 12)
    found = measure_fields(dataset(image))
    assert float(found["orientation"]) == pytest.approx(60, abs=1.5)
    assert float(found["eccentricity"]) > 0.8
    # Bars of both signs nearly cancel: ∫ = exp(−2π²σ²/λ²) is 1e-3 of the envelope.
    assert float(found["surround_ratio"]) == pytest.approx(1, abs=0.01)


def test_two_lobes_of_known_height_and_peak():
    image = gaussian(30, 30, 4, 4, 0)
    course = np.exp(-((LAG - 0.083) ** 2) / 8e-4) - 0.4 * np.exp(-((LAG - 0.25) ** 2) / 8e-4)
    found = measure_fields(dataset(image, course))
    assert float(found["latency"]) == pytest.approx(0.083, abs=5e-4)  # between two frames
    top = np.exp(-(0.003**2) / 8e-4)  # of the frame nearest to the peak
    assert float(found["biphasic_index"]) == pytest.approx(0.4 / top, rel=1e-3)
    assert float(found["polarity"]) == 1
    one = measure_fields(dataset(image, np.exp(-((LAG - 0.08) ** 2) / 8e-4)))
    assert float(one["biphasic_index"]) == 0


def test_signs_of_both_parts_and_the_removed_mean_do_not_matter():
    image = gaussian(25, 31, 5, 3, 20) - 0.3 * gaussian(25, 31, 8, 8, 0)
    course = np.exp(-((LAG - 0.083) ** 2) / 8e-4) - 0.4 * np.exp(-((LAG - 0.25) ** 2) / 8e-4)
    course /= np.linalg.norm(course)
    plain = measure_fields(dataset(image, course))
    xr.testing.assert_allclose(measure_fields(dataset(-image, -course)), plain)
    mean = 0.05
    removed = dataset(image - mean * course.sum(), course, mean=((), mean))
    xr.testing.assert_allclose(measure_fields(removed), plain)
    scaled = measure_fields(dataset(7 * image, course))
    xr.testing.assert_allclose(scaled, plain)


def test_lengths_in_micrometres_and_from_the_first_pixel_in_sight():
    image = np.stack([gaussian(30, 30, 4, 2, 0), gaussian(20, 24, 4, 2, 0)])
    course = np.exp(-((LAG - 0.1) ** 2) / 2e-3)
    fields = xr.Dataset(
        {"spatial": (("cell", "y", "x"), image), "temporal": (("cell", "lag"), [course] * 2)},
        coords={"lag": LAG, "cell": ["a", "b"], "first_y": ("cell", [3, 5])},
    )
    kept = fields.copy(deep=True)
    found = measure_fields(fields, pixel_size=50.0)
    np.testing.assert_allclose(found["field_y"], [33 * 50, 25 * 50], rtol=1e-6)
    np.testing.assert_allclose(found["field_x"], [30 * 50, 24 * 50], rtol=1e-6)
    np.testing.assert_allclose(found["diameter"], 100 * np.sqrt(8), rtol=0.05)
    assert found["field_y"].attrs["units"] == found["diameter"].attrs["units"] == "µm"
    assert found["cell"].values.tolist() == ["a", "b"]
    xr.testing.assert_identical(fields, kept)


def test_what_is_constant_or_nan_has_no_measures():
    flat = measure_fields(dataset(np.full((SIDE, SIDE), 2.0)))
    silent = measure_fields(dataset(gaussian(30, 30, 4, 4, 0), np.full(len(LAG), np.nan)))
    for found in (flat, silent):
        assert all(np.isnan(float(value)) for value in found.data_vars.values())


def test_bad_input_is_one_clear_error():
    with pytest.raises(RetinaCodecError, match=r"there is no \['temporal'\]"):
        measure_fields(dataset(np.eye(SIDE)).drop_vars("temporal"))
    with pytest.raises(RetinaCodecError, match="pixel_size must be positive, in µm; got 0"):
        measure_fields(dataset(np.eye(SIDE)), pixel_size=0)
