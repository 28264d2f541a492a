import numpy as np
import pytest
import xarray as xr

from retina_codec.report.page.numbers import (
    field_numbers,
    layer_numbers,
    numbers_of,
    pathway_rows,
    prediction_numbers,
)


def test_prediction_leaves_undefined_cells_out_and_names_them():
    responses = xr.Dataset(
        {
            "pearson": ("cell", [0.5, np.nan, 0.7]),
            "noise_ceiling": ("cell", [0.8, 0.9, np.nan]),
        },
        coords={"cell": ["a", "b", "c"]},
    )
    found = prediction_numbers(responses)
    assert found["mean"] == pytest.approx(0.6)
    assert (found["low"], found["low_cell"], found["high"]) == (0.5, "a", 0.7)
    assert found["undefined"] == ["b"]
    assert found["ceiling"] == pytest.approx(0.8)  # only cells with both count
    assert found["share"] == pytest.approx(0.5 / 0.8)
    assert prediction_numbers(responses[["noise_ceiling"]]) is None
    assert prediction_numbers(responses[["pearson"]])["share"] is None


def test_layer_numbers_by_hand():
    time = np.arange(200)
    contribution = np.ones((200, 2, 2))
    contribution[[7, 9]] = 10.0  # the top 1 %: 2 of 200 times
    held = time >= 150
    active = np.zeros((200, 2), dtype=bool)
    active[160:170, 0] = True
    loading = np.zeros((200, 2))
    loading[0] = [3.0, 1.0]
    dictionary = [[[0.0, -0.2], [0.1, 0.9]], [[-0.7, -0.6], [0.0, 0.0]]]
    tree = xr.DataTree.from_dict(
        {
            "/layers/conv1": xr.Dataset(
                {"contribution": (("time", "sign", "channel"), contribution)}
            ),
            "/layers/conv1/modes": xr.Dataset(
                {
                    "active": (("time", "mode"), active),
                    "loading": (("time", "mode"), loading),
                    "dictionary": (("mode", "sign", "channel"), dictionary),
                    "r2": 0.9,
                    "r2_fit": 0.95,
                    "live_modes": 2,
                    "mean_active": 0.2,
                },
                coords={
                    "mode": [0, 1],
                    "sign": ["inhibitory", "excitatory"],
                    "channel": [5, 6],
                    "split": ("time", np.where(held, "held_out", "fit")),
                },
            ),
        }
    )
    error = xr.Dataset({"median": 0.01, "percentile_95": 0.02})
    found = layer_numbers(tree, "conv1", error)
    assert found["top_share"] == pytest.approx(2 * 400 / (2 * 400 + 198 * 4))
    assert (found["channels"], found["held_out"], found["live"]) == (2, 50, 2)
    first, second = found["modes"]
    assert first["active"] == pytest.approx(10 / 50)
    assert first["share"] == pytest.approx(0.9)
    assert (first["excitatory"], first["inhibitory"]) == (["6"], [])  # 0.2 < 30 % of 0.9
    assert (second["excitatory"], second["inhibitory"]) == ([], ["5", "6"])


def test_pathway_rows_name_cells_types_and_the_modes_they_follow(results):
    rows = pathway_rows(results, "conv1")
    node = results["layers/conv1/pathways"]
    assert sorted(int(cell) for row in rows for cell in row["cells"]) == list(range(16))
    for row in rows:
        inside = node["correlation"].sel(cell=[int(cell) for cell in row["cells"]]).mean("cell")
        mode, mean = row["modes"][0]
        assert mean == pytest.approx(float(inside.max()))
        assert float(inside.sel(mode=int(mode))) == pytest.approx(mean)
        own = node["pathway"].sel(cell=[int(cell) for cell in row["cells"]])
        assert set(own.values.tolist()) == {row["label"]}
    assert {"OFF sustained": 1, "object motion": 4} in [row["types"] for row in rows]


def test_fields_are_compared_within_cells_over_pairs_of_events():
    y, x = np.mgrid[0:6, 0:6]
    a, b = np.sin(y + 2.0 * x), np.cos(3.0 * y - x)
    spatial = np.stack([[a, a], [2 * a + 1, b], [b, -a], [b, a]])  # (event, cell, y, x)
    fields = xr.Dataset(
        {
            "spatial": (("event", "cell", "y", "x"), spatial),
            "rank1": (("event", "cell"), [[0.9, 0.8], [0.7, 0.6], [0.5, np.nan], [0.1, 0.4]]),
            "responding": (
                ("event", "cell"),
                [[True, True], [True, True], [True, True], [False, False]],
            ),
        },
        coords={"combination": ("event", ["0", "0", "1", "1"])},
        attrs={"layer": "conv2", "minimum_rate": 1.0},
    )
    found = field_numbers(fields)
    r = np.corrcoef(a.ravel(), b.ravel())[0, 1]
    # Same modes: events 0 and 1 of either cell, r = 1 and r(a, b).
    assert found["same"] == pytest.approx(np.median([1.0, r]))
    # Other modes: events 0-2 and 1-2: r(a, b) twice; -1 and -r(a, b).
    assert found["other"] == pytest.approx(np.median([r, r, -1.0, -r]))
    assert (found["same_pairs"], found["other_pairs"]) == (2, 4)
    assert found["rank1"] == pytest.approx(np.median([0.9, 0.8, 0.7, 0.6, 0.5]))
    assert found["responding"] == 0.75
    assert found["combinations"] == ["0", "1"]


def test_summary_counts_cells_types_and_seconds(results):
    data = numbers_of(results)["data"]
    assert data["cells"] == 16
    assert data["types"] == dict.fromkeys(
        ("OFF sustained", "OFF transient", "ON sustained", "object motion"), 4
    )
    assert data["duration"] == pytest.approx(59.6)
    assert data["bin_ms"] == pytest.approx(10.0)
