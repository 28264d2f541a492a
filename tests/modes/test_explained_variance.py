import numpy as np
import pytest
import xarray as xr
from sklearn.metrics import r2_score

from retina_codec import RetinaCodecError
from retina_codec.modes.explained_variance import explained_variance, scorecard
from tests.reference.modes import explained_variance as slow_explained_variance


def array(values):
    return xr.DataArray(
        values.reshape(len(values), 2, -1),
        dims=("time", "sign", "channel"),
        coords={"time": np.arange(len(values)) / 100},
    )


@pytest.fixture
def pair():
    generator = np.random.default_rng(0)
    values = generator.normal(size=(40, 6)) * [1, 2, 3, 4, 5, 6] + [0, 10, 20, 30, 40, 50]
    return values, values + generator.normal(size=values.shape)


def test_matches_slow_reference_and_sklearn(pair):
    values, rebuilt = pair
    found = explained_variance(array(values), array(rebuilt), "time")
    each, whole = slow_explained_variance(values, rebuilt)
    np.testing.assert_allclose(found["r2_feature"].values.ravel(), each)
    np.testing.assert_allclose(found["r2"], whole)
    np.testing.assert_allclose(
        found["r2_feature"].values.ravel(), r2_score(values, rebuilt, multioutput="raw_values")
    )
    np.testing.assert_allclose(
        found["r2"], r2_score(values, rebuilt, multioutput="variance_weighted")
    )


def test_knowing_only_the_means_is_worth_nothing(pair):
    values, _ = pair
    means = np.broadcast_to(values.mean(0), values.shape)
    found = explained_variance(array(values), array(means), "time")
    assert abs(float(found["r2"])) < 1e-12
    assert 1 - ((values - means) ** 2).sum() / ((values - values.mean()) ** 2).sum() > 0.9


def test_feature_that_does_not_vary_has_no_score(pair):
    values, rebuilt = pair
    values[:, 3] = rebuilt[:, 3] = 7.0
    found = explained_variance(array(values), array(rebuilt), "time")["r2_feature"].values.ravel()
    assert np.isnan(found).tolist() == [False, False, False, True, False, False]


def test_different_times_are_refused(pair):
    values, rebuilt = pair
    with pytest.raises(RetinaCodecError, match=r"same labels.*time"):
        explained_variance(array(values), array(rebuilt).isel(time=slice(1, None)), "time")


def test_nothing_varies(pair):
    with pytest.raises(RetinaCodecError, match="values that vary"):
        explained_variance(array(0 * pair[0]), array(pair[1]), "time")


def test_scorecard_by_hand():
    # one mode per sign; time 0-3 fitted, 4 left out, 5-7 held out
    loading = np.array([[1, 0], [2, 1], [0, 1], [0, 0], [9, 9], [1, 0], [1, 2], [0, 2.0]])
    dictionary = np.array([[[-1.0], [0.0]], [[0.0], [1.0]]])
    contribution = array(np.stack([-loading[:, 0], loading[:, 1]], 1))
    contribution[6, 0, 0] -= 1  # the only error on held-out times: inhibitory -1, -2, 0
    modes = xr.Dataset(
        {
            "dictionary": (("mode", "sign", "channel"), dictionary),
            "loading": (("time", "mode"), loading),
            "active": (("time", "mode"), loading > 0),
        },
        coords={
            "time": contribution["time"],
            "split": ("time", ["fit"] * 4 + ["gap"] + ["held_out"] * 3),
        },
    )
    found = scorecard(contribution, modes, unpolished=0 * modes["loading"])
    assert float(found["r2_fit"]) == 1
    np.testing.assert_allclose(found["r2_feature"].values.ravel(), [0.5, 1])  # 1 − 1/2
    np.testing.assert_allclose(found["r2"], 1 - 1 / (2 + 8 / 3))
    np.testing.assert_allclose(found["r2_encoder"], 1 - (5 + 8) / (2 + 8 / 3))
    np.testing.assert_allclose(found["mean_active"], 4 / 3)
    assert int(found["live_modes"]) == 2
    assert set(found.coords) <= {"sign", "channel"}


@pytest.mark.parametrize("side", [0, 1])
def test_what_is_not_finite_is_not_counted_as_rebuilt(pair, side):
    pair[side][3, 2] = np.nan
    with pytest.raises(RetinaCodecError, match="finite"):
        explained_variance(array(pair[0]), array(pair[1]), "time")
