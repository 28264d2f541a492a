"""A target of one's own: one class in one file goes the whole road."""

import numpy as np
import pytest
import torch

import retina_codec as rc
from tests.newcomers.road import explain_retina, import_file, report_retina

SOURCE = '''
"""How far every cell's rate is from its mean, in standard deviations."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
import xarray as xr

from retina_codec.targets import Target


@dataclass(frozen=True)
class Deviation(Target):
    """F = ½ Σ_i ((y_i − μ_i) / σ_i)²."""

    centre: Any = None
    spread: Any = None
    units: ClassVar[str] = "squared deviations"

    def __call__(self, outputs):
        centre = torch.as_tensor(self.centre).to(outputs)
        spread = torch.as_tensor(self.spread).to(outputs)
        return ((outputs - centre) / spread).square().sum(1) / 2

    @property
    def incomplete(self):
        return self.centre is None

    def prepare(self, *, responses=None, cells=None):
        if not self.incomplete:
            return self
        return replace(self, centre=responses.mean(0), spread=responses.std(0))

    def unfitted(self):
        return Deviation()

    def statistics(self):
        return {
            "centre": xr.Variable("cell", self.centre, {"units": "Hz"}),
            "spread": xr.Variable("cell", self.spread, {"units": "Hz"}),
            "overlap": xr.Variable(("cell", "other_cell"), np.outer(self.spread, self.spread)),
        }

    @classmethod
    def from_results(cls, responses):
        return cls(responses["centre"].values, responses["spread"].values)
'''


@pytest.fixture
def deviation(tmp_path):
    return import_file(tmp_path, "deviation", SOURCE).Deviation


def test_a_new_target_goes_the_whole_road(tmp_path, deviation):
    method = rc.methods.IntegratedGradients(4)
    here, stored = explain_retina(tmp_path, deviation(), method)
    for tree in (here, stored):
        responses = tree["responses"].to_dataset()
        rates = responses["prediction"].values.astype(float)
        np.testing.assert_allclose(responses["centre"], rates.mean(0))
        np.testing.assert_allclose(responses["spread"], rates.std(0))
        assert responses["centre"].attrs["units"] == "Hz"
        assert responses["overlap"].dims == ("cell", "other_cell")
        assert responses["other_cell"].values.tolist() == responses["cell"].values.tolist()
        expected = (((rates - rates.mean(0)) / rates.std(0)) ** 2).sum(1) / 2
        np.testing.assert_allclose(responses["target"], expected, rtol=1e-3)
        assert tree["layers/conv1/contribution"].attrs["units"] == "squared deviations"
    fitted = deviation.from_results(stored["responses"].to_dataset())
    results, page = report_retina(tmp_path, stored, target=fitted)
    assert "Deviation(" in page
    assert np.isfinite(results["layers/conv1/score/noise_r2"])


def test_a_registered_target_is_found_again_in_results(tmp_path, deviation, monkeypatch):
    monkeypatch.setattr(rc.targets.registry, "_items", dict(rc.targets.registry._items))
    rc.targets.registry.register("Deviation", deviation)
    explained, _ = explain_retina(tmp_path, deviation(), rc.methods.ActGrad())
    found = rc.targets.target_of(explained)
    assert isinstance(found, deviation)
    np.testing.assert_array_equal(found.centre, explained["responses/centre"])


def test_a_statistic_may_not_take_the_name_of_something_else(deviation):
    class Taken(deviation):
        def statistics(self):
            return {"prediction": super().statistics()["centre"]}

    with pytest.raises(rc.RetinaCodecError, match="Taken has prediction"):
        rc.contribute(
            torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 2)),
            torch.randn(5, 3),
            target=Taken(np.zeros(2), np.ones(2)),
            method=rc.methods.ActGrad(),
            layers=["0"],
        )
