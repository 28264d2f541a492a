"""The measurement of the wide field: what is cut, and the interval of a gain."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.small import HISTORY, small_network

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    for name in ("wide_field", "pathways", "measure"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import wide_field

    return wide_field


def test_a_cut_wide_field_holds_its_input_at_grey(script):
    network = small_network(surround=True)
    cut = script.cut(network)
    grey, windows = torch.zeros(1, HISTORY, 16, 16), torch.randn(3, HISTORY, 16, 16)
    torch.testing.assert_close(cut(grey), network(grey), rtol=1e-4, atol=1e-4)
    assert bool(((cut(windows) - network(windows)).abs() > 1).any())
    held = torch.relu(network.norm1(network.conv1(grey))).mean((2, 3))  # (1, channel)
    first = torch.relu(network.norm1(network.conv1(windows)))
    local = torch.nn.functional.conv2d(first, network.conv2.weight, network.conv2.bias)
    wide = (held @ network.conv2.surround.T)[..., None, None]
    second = torch.relu(network.norm2(local + wide))
    expected = network.softplus(network.norm3(network.readout(network.conv3(second))))
    torch.testing.assert_close(cut(windows), expected, rtol=1e-4, atol=1e-4)
    assert network.conv2.surround.any()  # the network itself is left as it was


def test_the_interval_grows_with_what_differs_between_retinas(script):
    random = np.random.default_rng(0)
    cells = [random.normal(0.1, 0.01, 16) for _ in range(3)]
    low, high = script.interval(cells)
    assert low < 0.1 < high
    assert high - low < 0.02
    apart = [one + shift for one, shift in zip(cells, (-0.2, 0, 0.2), strict=True)]
    low, high = script.interval(apart)
    assert low < -0.05
    assert high > 0.25
