"""A contribution method of one's own: one class in one file goes the whole road."""

import numpy as np
import pytest

import retina_codec as rc
from tests.newcomers.road import explain_retina, import_file, report_retina
from tests.small import small_network, small_recording

SOURCE = '''
"""Sensitivity to a unit, as if every activation were one."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from retina_codec.methods import InputPath, Method, UnitContributions, rule


@dataclass(frozen=True)
class MeanSlope(Method):
    """C_j = (h_j(x) − h_j(x′)) times the mean of g_j at both ends, over a scale."""

    scale: float = 1.0
    baseline: float = 0.0
    units: ClassVar[str] = "nats per scale"
    sums_to: ClassVar[str] = "nothing exact"

    def explain(self, function, target, inputs):
        end = function.start(inputs)
        held = []

        def bound(outputs):
            held[:] = held or [target.bind(outputs.detach())]
            return held[0](outputs)

        start = function.start(torch.full_like(inputs, self.baseline))
        at_x, at_start = function(end, bound), function(start, bound)
        found = {
            name: (h - at_start.activation[name])
            * (at_x.gradient[name] + at_start.gradient[name]) / (2 * self.scale)
            for name, h in at_x.activation.items()
        }
        change = (at_x.value - at_start.value) / self.scale
        return UnitContributions(found, at_x.value, at_x.output, at_x.activation, change)

    def passes(self, layers):
        return 2, 2

    def input_path(self, steps):
        nodes = rule("trapezoid", 1)
        return InputPath(type(nodes)(nodes.nodes, tuple(w / self.scale for w in nodes.weights)))
'''


@pytest.fixture
def slope(tmp_path):
    return import_file(tmp_path, "slope", SOURCE).MeanSlope


def test_a_new_method_goes_the_whole_road(tmp_path, slope):
    network, inputs = small_network(), small_recording().children["test"]
    method, target = slope(2.0), rc.targets.Surprisal()
    assert "MeanSlope: 2 passes forward, 2 back" in str(
        rc.summarize(network, inputs, method=method)
    )
    here, stored = explain_retina(tmp_path, target, method)
    # The published rule with one step is the same mean of gradients.
    plain = rc.contribute(
        network, inputs, target=target, method=rc.methods.IntegratedGradients(1), progress=False
    )
    for tree in (here, stored):
        assert tree.attrs["method"] == "MeanSlope"
        assert tree.attrs["scale"] == 2.0
        for name in ("conv1", "conv2", "conv3"):
            layer = tree[f"layers/{name}"].to_dataset()
            assert layer["contribution"].attrs["units"] == "nats per scale"
            assert layer["target_change"].attrs["units"] == "nats per scale"
            expected = plain[f"layers/{name}/contribution"].values
            scale = np.abs(expected).max()
            np.testing.assert_allclose(2 * layer["contribution"], expected, atol=1e-5 * scale)
        assert tree["responses/target"].attrs["units"] == "nats"
    results, page = report_retina(tmp_path, stored, method=method)
    assert "MeanSlope" in page
    assert np.isfinite(results["layers/conv1/score/noise_r2"])


def test_a_new_method_is_mapped_to_the_input(slope):
    network, inputs = small_network(), small_recording().children["test"].isel(time=slice(0, 12))
    options = {"target": rc.targets.Sum(), "weights": [1, 0, 2, 0]}
    found = rc.analysis.input_map(network, inputs, "conv1", method=slope(2.0), **options)
    plain = rc.methods.IntegratedGradients(1)
    expected = rc.analysis.input_map(network, inputs, "conv1", method=plain, **options)
    scale = float(abs(expected["map"]).max())
    np.testing.assert_allclose(2 * found["map"], expected["map"], atol=1e-5 * scale)
    assert found["map"].attrs["units"] == "nats per scale"
    assert found.attrs["method"] == "MeanSlope"


def test_a_method_without_an_input_path_is_not_mapped(slope):
    class Plain(slope):
        def input_path(self, steps):
            del steps

    with pytest.raises(rc.RetinaCodecError, match="maps are defined for"):
        rc.analysis.input_map(
            small_network(),
            small_recording().children["test"],
            "conv1",
            target=rc.targets.Sum(),
            method=Plain(),
        )


def test_a_method_must_be_a_dataclass():
    class Bare(rc.methods.Method):
        def explain(self, *given):
            raise AssertionError(given)

    with pytest.raises(rc.RetinaCodecError, match="must be a dataclass"):
        rc.contribute(
            small_network(),
            small_recording().children["test"],
            target=rc.targets.Sum(),
            method=Bare(),
        )
