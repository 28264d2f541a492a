"""One row per layer, for results of a retina, of images and of contributions alone."""

import numpy as np
import pytest
import torch
import xarray as xr

import retina_codec as rc
from retina_codec.contributions.results import completeness
from retina_codec.errors import RetinaCodecError
from retina_codec.report.layers import layer_table
from retina_codec.storage.trees import open_tree, save_tree


def test_every_number_is_that_of_the_results(results):
    found = layer_table(results)
    assert found["layer"].values.tolist() == ["conv1", "conv2", "conv3"]
    np.testing.assert_allclose(found["completeness_error"], completeness(results)["median"])
    for name in found["layer"].values:
        here, node = found.sel(layer=name), results[f"layers/{name}"]
        assert here["channels"] == node.sizes["channel"]
        for key in ("r2", "live_modes", "mean_active"):
            assert float(here[key]) == pytest.approx(float(node[f"modes/{key}"]))
        assert here["pathways"] == len(np.unique(node["pathways/pathway"]))
    assert found.attrs["target"] == results.attrs["target"]


def test_what_a_layer_has_not_is_nan_and_what_none_has_is_left_out(results, tmp_path):
    kept = {at: node for at, node in results.to_dict().items() if at != "/layers/conv1/modes"}
    less = xr.DataTree.from_dict(kept)
    found = layer_table(less)
    assert np.isnan(found["r2"].sel(layer="conv1"))
    assert found["r2"].sel(layer="conv2") == float(results["layers/conv2/modes/r2"])
    network = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Tanh(), torch.nn.Linear(2, 4))
    run = {"target": rc.targets.TopK(1), "layers": ["0"]}
    explained = rc.contribute(network, torch.randn(5, 3), method=rc.methods.ActGrad(), **run)
    save_tree(explained, tmp_path / "found.nc")
    table = layer_table(open_tree(tmp_path / "found.nc"))
    assert set(table.data_vars) == {"channels", "completeness"}
    assert "not defined for ActGrad" in str(table["completeness"].values[0])
    assert table.to_dataframe().shape == (1, 2)


def test_results_without_layers_are_refused():
    with pytest.raises(RetinaCodecError, match="contribute"):
        layer_table(xr.DataTree())
