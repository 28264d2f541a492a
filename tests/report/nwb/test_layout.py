import numpy as np
import pytest
import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.report.nwb.layout import lay_out
from retina_codec.report.nwb.session import Units

UNITS = Units("/units", np.arange(16), np.arange(16), "session.nwb")


@pytest.fixture(scope="module")
def objects(results):
    built = lay_out(results, ["conv1", "conv2", "conv3"], UNITS)
    return {entry.name: entry for entry in built.objects}


def test_there_is_a_table_or_series_for_every_part(objects):
    each = ("modes", "features", "loadings", "active", "parts", "pathways", "pathways_k")
    expected = {f"conv{n}_{part}" for n in (1, 2, 3) for part in (*each, "clock_rounding")}
    assert set(objects) == expected | {"layers", "layer_agreement"}


def test_modes_are_rows_and_features_say_the_order_of_their_columns(objects, results):
    modes, features = objects["conv2_modes"], objects["conv2_features"]
    assert modes.colnames[:2] == ("mode", "dictionary")
    dictionary = results["layers/conv2/modes/dictionary"]
    for feature, sign in enumerate(features["sign"].data):
        channel = features["channel"].data[feature]
        by_label = dictionary.sel(sign=sign, channel=channel)
        np.testing.assert_array_equal(np.asarray(modes["dictionary"].data)[:, feature], by_label)
        score = results["layers/conv2/modes/r2_feature"].sel(sign=sign, channel=channel)
        assert features["r2_feature"].data[feature] == score


def test_pathways_are_rows_of_cells(objects, results):
    table, node = objects["conv1_pathways"], results["layers/conv1/pathways"]
    assert table.colnames[:2] == ("unit", "cell")
    assert table["unit"].data == list(range(16))
    np.testing.assert_array_equal(table["correlation"].data, node["correlation"])
    np.testing.assert_array_equal(table["pathway"].data, node["pathway"])
    assert list(table["type"].data) == node["type"].values.tolist()
    assert "mode: 0, 1, 2" in table["correlation"].description


def test_scores_are_a_row_per_layer(objects, results):
    table = objects["layers"]
    assert list(table["layer"].data) == ["conv1", "conv2", "conv3"]
    for name in ("r2", "r2_fit", "mean_active", "live_modes", "scale"):
        expected = [float(results[f"layers/conv{n}/modes/{name}"]) for n in (1, 2, 3)]
        np.testing.assert_array_equal(table[name].data, expected)
    assert table["scale"].description == "scale, nats"


def test_what_only_some_layers_have_is_missing_in_the_others(results):
    tree = results.copy()
    first, second = (results[f"layers/conv{n}/modes"].to_dataset(inherit=False) for n in (1, 2))
    tree["layers/conv1/modes"] = xr.DataTree(first.assign(unknown=np.nan))
    tree["layers/conv2/modes"] = xr.DataTree(second.drop_vars("r2"))
    built = lay_out(tree, ["conv1", "conv2"], UNITS)
    table = next(entry for entry in built.objects if entry.name == "layers")
    assert np.isnan(table["r2"].data).tolist() == [False, True]
    assert "r2" not in built.nodes["/layers/conv2/modes"]["variables"]
    assert "unknown" not in table.colnames  # the inspector dislikes columns without a number
    assert built.nodes["/layers/conv1/modes"]["variables"]["unknown"]["nan"] is True


def test_more_values_of_pathways_become_columns(results):
    tree = results.copy()
    node = tree["layers/conv1/pathways"].to_dataset(inherit=False)
    p = (node["correlation"] ** 2).transpose("mode", "cell")
    tree["layers/conv1/pathways"] = node.assign(p_value=p, stability=node["pathway"] / 7)
    built = lay_out(tree, ["conv1"], UNITS)
    table = next(entry for entry in built.objects if entry.name == "conv1_pathways")
    np.testing.assert_array_equal(table["p_value"].data, p.transpose("cell", "mode"))
    np.testing.assert_array_equal(table["stability"].data, node["pathway"] / 7)


def test_loadings_of_images_have_no_clock(results):
    modes = results["layers/conv1/modes"].to_dataset().drop_vars("time")
    tree = xr.DataTree.from_dict({"/layers/conv1/modes": modes.rename_dims(time="sample")})
    words = r"must lie along time .* 'conv1' .*'sample', 'mode'.*as \.nc or \.zarr"
    with pytest.raises(RetinaCodecError, match=words):
        lay_out(tree, ["conv1"], UNITS)


def test_cells_that_are_no_units_are_named(results):
    few = Units("/units", np.arange(14), np.arange(14), "session.nwb")
    with pytest.raises(RetinaCodecError, match=r"\[14, 15\] are not, session\.nwb has \[0, 1, "):
        lay_out(results, ["conv1"], few)
