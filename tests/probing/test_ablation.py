import numpy as np
import pytest
import torch
from torch import nn

from retina_codec import RetinaCodecError
from retina_codec.modes.scores.network import shuffled_network, strong_times
from retina_codec.networks.adapter import adapt
from retina_codec.probing.hooks import HookedFunction
from retina_codec.probing.interventions import (
    Silencer,
    insertion_and_deletion,
    levels,
    silenced,
    single_effects,
)


class Linear(nn.Module):
    """F = Σ_c v_c (w_c·x + b_c): silencing channel c takes v_c w_c·x away, exactly."""

    def __init__(self):
        super().__init__()
        self.layer, self.last = nn.Linear(3, 5), nn.Linear(5, 1)

    def forward(self, x):
        return self.last(self.layer(x))


@pytest.fixture
def setting():
    torch.manual_seed(0)
    network = Linear().eval()
    function = HookedFunction(adapt(network, ["layer"]))
    point = torch.randn(7, 3)
    function.look(point)
    return network, Silencer(function, "layer", point, lambda y: y.sum(1)), point


def parts(network, point):
    """Return what each channel adds to F, (b, c)."""
    weight = network.layer.weight.detach()
    return ((point @ weight.T) * network.last.weight.detach()[0]).double().numpy()


def test_a_silenced_channel_takes_its_part_away(setting):
    network, value, point = setting
    effects = single_effects(value, np.arange(5), 5)
    np.testing.assert_allclose(effects, parts(network, point), atol=1e-5)


def test_curves_are_partial_sums(setting):
    network, value, point = setting
    order = np.array([3, 0, 4, 1, 2])
    insertion, deletion = insertion_and_deletion(value, order)
    share = parts(network, point)
    whole = network(point).detach().double().numpy()[:, 0]
    for count in range(6):
        inside = share[:, order[:count]].sum(1)
        np.testing.assert_allclose(insertion[count], whole - share.sum(1) + inside, atol=1e-5)
        np.testing.assert_allclose(deletion[count], whole - inside, atol=1e-5)


def test_hooks_are_gone_afterwards_even_after_a_crash(setting):
    network, value, point = setting
    before = network(point).detach()

    def crash():
        with silenced(value.function, "layer", torch.ones(5, dtype=torch.bool), torch.zeros(1), 1):
            raise KeyError("stop")

    with pytest.raises(KeyError):
        crash()
    assert not network.layer._forward_hooks
    assert torch.equal(network(point), before)


def test_a_question_is_asked_once(setting, monkeypatch):
    network, value, _ = setting
    calls = []
    forward = network.forward
    monkeypatch.setattr(network, "forward", lambda x: calls.append(1) or forward(x))
    for _ in range(3):
        value(np.array([True, False, False, False, False]))
    assert len(calls) == 1


def test_target_must_give_one_number_per_input(setting):
    _, value, point = setting
    wrong = Silencer(value.function, "layer", point, lambda y: y)
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


def test_a_network_of_noise_keeps_weights_but_not_their_places():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2)
    ).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    inputs = 5 + torch.randn(64, 1, 4, 4)
    noise = shuffled_network(network, inputs, 1)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])
    for name in ("0.weight", "4.weight"):
        new, old = noise.state_dict()[name].flatten(), before[name].flatten()
        assert torch.equal(new.sort().values, old.sort().values)
        assert not torch.equal(new, old)
    assert torch.equal(noise.state_dict()["0.bias"], before["0.bias"])
    with torch.no_grad():  # its norms fit its activations
        first = noise[1](noise[0](inputs))
    torch.testing.assert_close(first.mean((0, 2, 3)), torch.zeros(4), atol=1e-3, rtol=0)
    assert not noise.training
    with pytest.raises(RetinaCodecError, match="needs weights to shuffle"):
        shuffled_network(nn.ReLU(), None, 0)
