import numpy as np
import pytest
import xarray as xr

from retina_codec.modes.explained_variance import explained_variance
from retina_codec.report.nwb.layout import mode_statistics
from retina_codec.report.page.numbers import layer_numbers


@pytest.fixture
def modes():
    """Two modes at four times; the last two are held out."""
    return xr.Dataset(
        {
            "dictionary": (("mode", "sign", "channel"), [[[-0.6, 0], [0.8, 0]], [[0, 0], [0, 1]]]),
            "loading": (("time", "mode"), [[1.0, 0], [3, 2], [0, 2], [4, 4]], {"units": "nats"}),
            "active": (("time", "mode"), [[True, False], [True, True], [False, True], [True] * 2]),
        },
        coords={
            "time": np.arange(4) / 10,
            "mode": [7, 9],
            "sign": ["inhibitory", "excitatory"],
            "split": ("time", ["fit", "fit", "held_out", "held_out"]),
        },
    )


def test_numbers_by_hand(modes):
    found = mode_statistics(modes)
    by_hand = {
        "contribution_share": [8 * 1.4 / (8 * 1.4 + 8), 8 / (8 * 1.4 + 8)],
        "loading_share": [26 / 50, 24 / 50],
        "active_share": [0.5, 1.0],
        "peak_loading": [4, 4],
        "inhibitory_share": [0.6 / 1.4, 0],
        "effective_features": [1.4**2, 1],
    }
    assert set(found.data_vars) == set(by_hand)
    for name, values in by_hand.items():
        np.testing.assert_allclose(found[name], values, err_msg=name)
        assert found[name].attrs["units"] == ("nats" if name == "peak_loading" else "1")
    assert found["mode"].values.tolist() == [7, 9]


def test_r2_lost_is_what_leaving_a_mode_out_costs(results):
    for name in ("conv1", "conv3"):
        layer = results[f"layers/{name}"].to_dataset()
        modes = results[f"layers/{name}/modes"].to_dataset()
        found = mode_statistics(modes, layer["contribution"])["r2_lost"]
        held = np.flatnonzero(modes["split"].values == "held_out")
        values = layer["contribution"].isel(time=held)

        def score(keep, modes=modes, values=values, held=held):
            rebuilt = xr.dot(
                modes["loading"].isel(time=held).sel(mode=keep).astype(float),
                modes["dictionary"].sel(mode=keep),
                dim="mode",
            )
            return float(explained_variance(values, rebuilt, "time")["r2"])

        labels = modes["mode"].values.tolist()
        slow = [score(labels) - score([m for m in labels if m != mode]) for mode in labels]
        np.testing.assert_allclose(found, slow, rtol=1e-5, atol=1e-9)
        assert found.values.max() > 0.1


def test_the_report_says_the_same(results):
    error = xr.Dataset({"median": 0.0, "percentile_95": 0.0})
    rows = layer_numbers(results, "conv2", error)["modes"]
    found = mode_statistics(results["layers/conv2/modes"].to_dataset())
    np.testing.assert_allclose(found["loading_share"], [row["share"] for row in rows], rtol=1e-6)
    np.testing.assert_allclose(found["active_share"], [row["active"] for row in rows])
    assert found["contribution_share"].sum() == pytest.approx(1)


def test_a_mode_without_weights_has_no_shares(modes):
    kept = modes.copy(deep=True)
    modes["dictionary"][0] = 0.0
    found = mode_statistics(modes)
    assert np.isnan(found["inhibitory_share"].values).tolist() == [True, False]
    assert np.isnan(found["effective_features"].values).tolist() == [True, False]
    assert found["contribution_share"].values.tolist() == [0, 1]
    np.testing.assert_array_equal(modes["loading"], kept["loading"])
