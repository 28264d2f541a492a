"""How results were computed is read from what they hold, through the registries."""

from dataclasses import dataclass

import numpy as np
import pytest
import xarray as xr

import retina_codec as rc
from retina_codec.analysis.fields.event_parts import explanation_of


def tree_with(**attrs):
    found = {"mean": ("cell", [1.0, 2.0]), "covariance": (("cell", "other_cell"), np.eye(2))}
    whole = {
        "target": "Surprisal(mean=given)",
        "method": "IntegratedGradients",
        "steps": np.int64(7),
        "path": "hidden",
        "baseline": np.float64(0.5),
        "quadrature": "simpson",
        "tolerance": "None",
    }
    tree = xr.DataTree.from_dict({"/responses": xr.Dataset(found)})
    tree.attrs = whole | attrs
    return tree


def test_settings_come_back_as_they_were():
    target, method = explanation_of(tree_with(steps=np.int64(8)))
    assert isinstance(target, rc.targets.Surprisal)
    np.testing.assert_array_equal(target.mean, [1, 2])
    expected = rc.methods.IntegratedGradients(8, path="hidden", baseline=0.5, quadrature="simpson")
    assert method == expected


@dataclass(frozen=True)
class Own(rc.methods.IntegratedGradients):
    """A path of one's own."""

    power: float = 1.0


def test_a_registered_method_is_found_by_its_name(monkeypatch):
    monkeypatch.setattr(rc.methods.registry, "_items", dict(rc.methods.registry._items))
    assert explanation_of(tree_with(method="Own", power=2.0, steps=8)) is None
    rc.methods.registry.register("Own", Own)
    _, method = explanation_of(tree_with(method="Own", power=2.0, steps=8))
    assert isinstance(method, Own)
    assert method.power == 2


@pytest.mark.parametrize(
    "attrs",
    [
        {"method": "ActGrad"},
        {"method": "Gone"},
        {"target": "TopK(k=1)"},
        {"target": "Gone(1)"},
        {"tolerance": 0.1},
        {"baseline": "mean"},
    ],
)
def test_what_results_do_not_say_whole_is_not_guessed(attrs):
    assert explanation_of(tree_with(**attrs)) is None
