"""Pearson r and q-values against SciPy, the noise ceiling against simulated repeats."""

import numpy as np
import pytest
import xarray as xr
from scipy.stats import false_discovery_control, pearsonr

from retina_codec.errors import RetinaCodecError
from retina_codec.nulls import LinearShift
from retina_codec.recordings.quality.repeats import noise_ceiling
from retina_codec.statistics.correlation import assess_significance, benjamini_hochberg, pearson


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


def repeats_of(rate, count, random):
    return xr.DataArray(
        random.poisson(rate, (count, *rate.shape)).astype(float),
        dims=("repeat", "time", "cell"),
        coords={"cell": [5, 6]},
    )


def test_ceiling_is_the_correlation_of_the_true_rate_with_the_mean():
    random = np.random.default_rng(1)
    rate = np.exp(random.normal(0, 1, (20_000, 2))) * [0.5, 3.0]
    repeats = repeats_of(rate, 8, random)
    ceiling = noise_ceiling(repeats)
    mean = repeats.mean("repeat").values
    reached = [np.corrcoef(rate[:, i], mean[:, i])[0, 1] for i in (0, 1)]
    np.testing.assert_allclose(ceiling, reached, atol=0.01)
    assert ceiling["cell"].values.tolist() == [5, 6]


def test_ceiling_without_signal_is_near_zero_and_with_equal_repeats_one():
    random = np.random.default_rng(2)
    noise = repeats_of(np.full((5000, 2), 2.0), 10, random)
    assert (noise_ceiling(noise) < 0.2).all()
    same = xr.concat([noise.isel(repeat=0)] * 3, "repeat")
    np.testing.assert_allclose(noise_ceiling(same), 1.0)


@pytest.mark.parametrize("constant", [0.1, 1 / 3])
def test_constant_is_constant_though_its_mean_is_rounded(constant):
    values = np.random.default_rng(0).normal(size=1000)
    level = xr.DataArray(np.full(1000, constant), dims="time")
    assert np.isnan(pearson(level, xr.DataArray(values, dims="time")))
    repeats = xr.DataArray(
        np.full((4, 1000, 1), constant), dims=("repeat", "time", "cell"), coords={"cell": [0]}
    )
    assert np.isnan(noise_ceiling(repeats)).all()


def pair(seed=0):
    random = np.random.default_rng(seed)
    time = np.arange(200) / 100
    rate = xr.DataArray(
        random.gamma(1.0, 1.0, (200, 4)), dims=("time", "cell"), coords={"time": time}
    )
    loading = xr.DataArray(
        rate.values[:, :3] + random.normal(size=(200, 3)),
        dims=("time", "mode"),
        coords={"time": time},
    )
    return rate.assign_coords(cell=list("abcd")), loading.assign_coords(mode=[3, 1, 2])


@pytest.mark.parametrize("count", [1, 7, 240])
def test_q_values_are_scipys(count):
    p = np.random.default_rng(count).random(count) ** 3
    p[: count // 3] = p[0]  # ties
    np.testing.assert_allclose(benjamini_hochberg(p), false_discovery_control(p, method="bh"))


def test_q_values_by_hand():
    # sorted p M / rank: 0.04, 0.04, 0.0533.., 0.5; running minimum from the right
    np.testing.assert_allclose(
        benjamini_hochberg([[0.01, 0.5], [0.02, 0.04]]), [[0.04, 0.5], [0.04, 0.04 * 4 / 3]]
    )
    with pytest.raises(RetinaCodecError, match="Leave undefined pairs out"):
        benjamini_hochberg([0.1, np.nan])


def test_significance_labels_the_null():
    rate, loading = pair()
    found = assess_significance(rate, loading, null=LinearShift(share=0.3), progress=False)
    expected = LinearShift(share=0.3).p_values(rate.values, loading.values, False)
    np.testing.assert_array_equal(found["p_value"], expected)
    np.testing.assert_array_equal(found["q_value"], benjamini_hochberg(expected))
    assert found["p_value"].dims == ("cell", "mode")
    assert found["cell"].values.tolist() == list("abcd")
    for name in ("p_value", "q_value"):
        assert found[name].attrs["null"] == "LinearShift"
        assert found[name].attrs["draws"] == 120
    turned = assess_significance(rate.transpose("cell", "time"), loading, progress=False)
    assert turned.identical(assess_significance(rate, loading, null=LinearShift(), progress=False))


def test_significance_refuses():
    rate, loading = pair()
    with pytest.raises(RetinaCodecError, match="same labels"):
        assess_significance(rate.isel(time=slice(1, None)), loading)
    with pytest.raises(RetinaCodecError, match="null must be one of"):
        assess_significance(rate, loading, null="shuffle")
