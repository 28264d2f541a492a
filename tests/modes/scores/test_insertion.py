"""Insertion and deletion of channels, on a network whose parts are known."""

import numpy as np
import pytest
import torch
from torch import nn

from retina_codec import RetinaCodecError
from retina_codec.modes.scores.insertion import (
    TargetWithout,
    insertion_and_deletion,
    levels,
    single_effects,
    strong_times,
)
from retina_codec.probing.from_layer import FromLayer
from retina_codec.probing.hooks import HookedFunction
from retina_codec.targets.base import Sum, as_target


class Linear(nn.Module):
    """F = Σ_c v_c (w_c·x + b_c): holding channel c at x′ takes v_c w_c·(x − x′) away, exactly."""

    def __init__(self):
        super().__init__()
        self.layer, self.last = nn.Linear(3, 5), nn.Linear(5, 1)

    def forward(self, x):
        return self.last(self.layer(x))


BASELINE = torch.tensor([0.5, -1.0, 2.0])


@pytest.fixture(params=[0.0, BASELINE, [0.0, 2 * BASELINE]], ids=["zero", "array", "several"])
def setting(request):
    torch.manual_seed(0)
    network, point = Linear().eval(), torch.randn(7, 3)
    above = FromLayer(HookedFunction.open(network, point, ["layer"]), "layer")
    begin = (
        0 * BASELINE if isinstance(request.param, float) else BASELINE
    )  # also the mean of the several
    return network, TargetWithout(above, point, Sum(), request.param), point, begin


def parts(network, point, begin):
    """Return what each channel adds to F, (b, c)."""
    weight = network.layer.weight.detach()
    return (((point - begin) @ weight.T) * network.last.weight.detach()[0]).double().numpy()


def test_a_channel_held_at_the_baseline_takes_its_part_away(setting):
    network, value, point, begin = setting
    effects = single_effects(value, np.arange(5), 5)
    np.testing.assert_allclose(effects, parts(network, point, begin), atol=1e-5)


def test_curves_are_partial_sums(setting):
    network, value, point, begin = setting
    order = np.array([3, 0, 4, 1, 2])
    insertion, deletion = insertion_and_deletion(value, order)
    share = parts(network, point, begin)
    whole = network(point).detach().double().numpy()[:, 0]
    for count in range(6):
        inside = share[:, order[:count]].sum(1)
        np.testing.assert_allclose(insertion[count], whole - share.sum(1) + inside, atol=1e-5)
        np.testing.assert_allclose(deletion[count], whole - inside, atol=1e-5)
    np.testing.assert_allclose(insertion[0], network(begin[None]).item(), atol=1e-5)


def test_the_network_is_left_without_hooks(setting):
    network, value, point, _ = setting
    before = network(point).detach()
    value(np.ones(5, bool))
    assert not any(m._forward_hooks or "forward" in m.__dict__ for m in network.modules())
    assert torch.equal(network(point), before)


def test_equal_sets_are_run_once(setting, monkeypatch):
    network, value, _, _ = setting
    value(np.zeros(5, bool))
    calls = []
    forward = network.forward
    monkeypatch.setattr(network, "forward", lambda x: calls.append(1) or forward(x))
    for _ in range(3):
        value(np.array([True, False, False, False, False]))
    assert len(calls) == len(value._levels)


def test_target_must_give_one_number_per_input(setting):
    _, value, point, _ = setting
    wrong = TargetWithout(value._above, point, as_target(lambda y: y), 0.0)
    with pytest.raises(RetinaCodecError, match="one number per input"):
        wrong(np.zeros(5, bool))


def test_levels_reach_from_none_to_all():
    assert levels(5).tolist() == [0, 1, 2, 3, 4, 5]
    assert levels(100).tolist() == [0, 12, 25, 38, 50, 62, 75, 88, 100]


def test_strong_times_are_the_largest_of_different_events():
    loading = np.zeros(100)
    loading[[5, 6, 30, 60, 61, 90]] = [3, 4, 1, 6, 5, 2]
    assert strong_times(loading, 3).tolist() == [6, 60, 90]
    assert strong_times(loading, 9).tolist() == [6, 30, 60, 90]
