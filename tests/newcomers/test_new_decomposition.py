"""A way to find modes of one's own: one class in one file goes the whole road."""

import numpy as np
import pytest

import retina_codec as rc
from tests.newcomers.road import explain_retina, import_file, report_retina

SOURCE = '''
"""Truncated singular value decomposition whose loadings are cut at zero."""

from dataclasses import dataclass

import torch

from retina_codec.modes import Decomposition, Fitted


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedHalves(Fitted):
    """Rows of the dictionary are right singular vectors, and their opposites."""

    def encode(self, features):
        return (features @ self.dictionary.T).clamp(min=0)


@dataclass(frozen=True, kw_only=True)
class PositiveSVD(Decomposition):
    """X ≈ max(X Dᵀ, 0) D, D the first right singular vectors of X and their opposites."""

    modes: int = 4
    centre: bool = False
    sign_consistent = False

    def fit(self, features, *, progress=None):
        around = features - features.mean(0) if self.centre else features
        right = torch.linalg.svd(around.double(), full_matrices=False)[2][: self.modes // 2]
        return FittedHalves(dictionary=torch.cat([right, -right]).to(features.dtype))
'''


@pytest.fixture
def halves(tmp_path, monkeypatch):
    """The class of a lab, forgotten after the test."""
    monkeypatch.setattr(rc.modes.registry, "_items", dict(rc.modes.registry._items))
    return import_file(tmp_path, "halves", SOURCE).PositiveSVD


def test_a_new_decomposition_goes_the_whole_road(tmp_path, halves):
    assert rc.modes.registry.get("PositiveSVD") is halves
    _, explained = explain_retina(
        tmp_path, rc.targets.Surprisal(), rc.methods.IntegratedGradients(3)
    )
    own = halves(modes=6, centre=True)
    results, page = report_retina(tmp_path, explained, decomposition=own)
    modes = results["layers/conv2/modes"]
    assert f"R² = {float(modes['r2']):.2f} with {modes.sizes['mode']} modes" in page
    rc.save_tree(results, tmp_path / "results.nc")
    saved = rc.open_tree(tmp_path / "results.nc", lazy=False)
    for name in ("conv1", "conv2", "conv3"):
        layer = saved[f"layers/{name}"]
        modes, score = layer["modes"].to_dataset(), layer["score"].to_dataset()
        assert rc.modes.decomposition_of(modes.attrs) == own
        assert score.attrs["method"] == "PositiveSVD"
        # one signed factor rebuilds what its two halves do
        held = modes["split"].values == "held_out"
        x = layer["contribution"].transpose("time", "sign", "channel").values[held].astype(float)
        flat = x.reshape(len(x), -1)
        unit = modes["dictionary"].values.reshape(modes.sizes["mode"], -1).astype(float)
        rebuilt = np.clip(flat @ unit.T, 0, None) @ unit
        left = ((flat - rebuilt) ** 2).sum() / ((flat - flat.mean(0)) ** 2).sum()
        np.testing.assert_allclose(float(modes["r2"]), 1 - left, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(score["r2"].sel(limit=0), float(modes["r2"]))
        assert float(modes["r2_encoder"]) == float(modes["r2"])
        assert np.isnan(score["mode_match"]).all()  # it has no starting point
        for of_network in ("insertion_gain", "noise_r2"):
            assert np.isfinite(score[of_network]).any()
        assert "pathway" in layer["pathways"]


def test_results_name_it_where_it_is_not_known(halves):
    attrs = halves(modes=2).settings()
    assert attrs == {"method": "PositiveSVD", "modes": 2, "centre": 0}
    rc.modes.registry._items.pop("PositiveSVD")
    with pytest.raises(rc.RetinaCodecError, match=r"they name 'PositiveSVD'.*Import the module"):
        rc.modes.decomposition_of(attrs)
