"""Pearson r against SciPy."""

import numpy as np
import pytest
import xarray as xr
from scipy.stats import pearsonr

from retina_codec.errors import RetinaCodecError
from retina_codec.statistics.correlation import (
    column_correlations,
    paired_correlations,
    pearson,
)


def test_pearson_equals_scipy_per_cell():
    random = np.random.default_rng(0)
    one, other = random.normal(size=(2, 200, 3))
    result = pearson(
        xr.DataArray(one, dims=("time", "cell")), xr.DataArray(other, dims=("time", "cell"))
    )
    expected = [pearsonr(one[:, i], other[:, i]).statistic for i in range(3)]
    np.testing.assert_allclose(result, expected)


def test_constant_or_nan_gives_nan_not_zero():
    values = xr.DataArray(np.random.default_rng(0).normal(size=(20, 3)), dims=("time", "cell"))
    other = values.copy(deep=True)
    other[:, 0] = 1.0
    other[3, 1] = np.nan
    result = pearson(values, other).values
    assert np.isnan(result[:2]).all()
    assert result[2] == pytest.approx(1.0)


def test_labels_must_agree():
    values = xr.DataArray(np.arange(4.0), dims="time", coords={"time": np.arange(4)})
    with pytest.raises(RetinaCodecError, match="same labels"):
        pearson(values, values.assign_coords(time=np.arange(4) + 1))


@pytest.mark.parametrize("constant", [0.1, 1 / 3])
def test_constant_is_constant_though_its_mean_is_rounded(constant):
    values = np.random.default_rng(0).normal(size=1000)
    level = xr.DataArray(np.full(1000, constant), dims="time")
    assert np.isnan(pearson(level, xr.DataArray(values, dims="time")))


def test_pearson_pairs_what_is_not_shared_and_keeps_labels():
    random = np.random.default_rng(3)
    coords = {"time": np.arange(50) / 100, "part": ("time", ["a"] * 50)}
    rate = xr.DataArray(random.normal(size=(50, 2)), dims=("time", "cell"), coords=coords)
    rate = rate.assign_coords(cell=[5, 6], name=("cell", ["x", "y"]))
    loading = xr.DataArray(random.normal(size=(3, 50)), dims=("mode", "time"))
    found = pearson(rate, loading.assign_coords(coords))
    assert found.dims == ("cell", "mode")
    assert set(found.coords) == {"cell", "name"}
    expected = [[pearsonr(r, z).statistic for z in loading.values] for r in rate.values.T]
    np.testing.assert_allclose(found, expected)
    lazy = pearson(rate.chunk(time=20), loading.assign_coords(coords).chunk(mode=1))
    np.testing.assert_allclose(lazy.compute(), expected)


def test_arrays_are_paired_along_the_last_axis():
    one, other = np.random.default_rng(4).normal(size=(2, 3, 4, 30))
    expected = [[pearsonr(one[i, j], other[i, j]).statistic for j in range(4)] for i in range(3)]
    np.testing.assert_allclose(paired_correlations(one, other), expected)
    one[0, 1], other[2, 3, 5], one[1, 1] = 0.1, np.nan, 1e5 * (1 + 1e-15 * one[1, 1])
    found = np.isnan(paired_correlations(one, other))
    assert list(zip(*found.nonzero(), strict=True)) == [(0, 1), (1, 1), (2, 3)]


def test_every_column_is_paired_with_every_other():
    one, other = np.random.default_rng(5).normal(size=(2, 40, 3))
    one[:, 1], other[7, 2] = 2.0, np.nan
    found = column_correlations(one, other[:, 1:])
    assert np.isnan(found[1]).all()
    assert np.isnan(found[:, 1]).all()
    for row in (0, 2):
        assert found[row, 0] == pytest.approx(pearsonr(one[:, row], other[:, 1]).statistic)
