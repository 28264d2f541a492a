"""Scores that need the network: held at the right baseline, and against weights of noise."""

import numpy as np
import pytest
import torch
from torch import nn

import retina_codec as rc
from retina_codec.modes.scores.network import baseline_of, shuffled_network

WAY = torch.tensor([1.0, 0.0, 2.0, 0.5])
SHIFT = torch.tensor([1.5, -0.5, 2.0, 0.25])


def linear() -> nn.Sequential:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 1)).eval()
    with torch.no_grad():
        for layer in network:
            layer.weight.abs_()
    return network


def scores(begin, baseline, **options):
    """Score the modes of a linear network whose inputs begin at ``begin``."""
    network, random = linear(), np.random.default_rng(0)
    inputs = begin + torch.tensor(random.exponential(size=(300, 1)), dtype=torch.float32) * WAY
    method = rc.methods.IntegratedGradients(1, baseline=baseline)
    what = {"target": rc.targets.Sum(), "progress": False}
    tree = rc.contribute(network, inputs, layers=["0"], method=method, **what)
    tree = rc.decompose(tree, rc.modes.NMF(modes=2, active=2), progress=False)
    options = what | {"network": network, "inputs": inputs, "seeds": 2} | options
    settings = rc.modes.ScoreSettings(limits=(2,), times=8)
    return rc.score_modes(tree, settings=settings, **options)["layers/0/score"].to_dataset()


@pytest.mark.parametrize(
    ("begin", "baseline"), [(1.5, 1.5), (0.75, [0.5, 1.0]), (-1.0, [-1.0, -1.0])]
)
def test_channels_are_held_at_the_baseline_of_the_contributions(begin, baseline) -> None:
    """Contributions of a linear network depend on x − x′ alone, so its scores must too."""
    expected, found = scores(0.0, 0.0), scores(begin, baseline)
    for name in ("insertion", "deletion", "insertion_control", "insertion_gain", "effect"):
        np.testing.assert_allclose(found[name], expected[name], rtol=2e-3, atol=2e-3)
    assert float(found["noise_match"]) == pytest.approx(float(expected["noise_match"]), abs=2e-3)


def test_a_baseline_that_is_an_array_comes_with_the_method() -> None:
    method = rc.methods.IntegratedGradients(1, baseline=SHIFT)
    found = scores(SHIFT, SHIFT, method=method)
    expected = scores(0.0, 0.0)
    np.testing.assert_allclose(found["insertion"], expected["insertion"], rtol=2e-3, atol=2e-3)
    with pytest.raises(rc.RetinaCodecError, match=r"do not hold: it is array .* Give method="):
        scores(SHIFT, SHIFT)
    other = rc.methods.IntegratedGradients(1, baseline=2 * SHIFT)
    with pytest.raises(rc.RetinaCodecError, match="Give method="):
        scores(SHIFT, SHIFT, method=other)


def test_the_mean_of_the_inputs_is_taken_again() -> None:
    """Held at the mean input, all channels together give F of the mean input."""
    random = np.random.default_rng(0).exponential(size=(300, 1))
    mean = (1.0 + torch.tensor(random, dtype=torch.float32) * WAY).mean(0)
    at_mean = scores(1.0, "mean")
    given = scores(1.0, mean, method=rc.methods.IntegratedGradients(1, baseline=mean))
    np.testing.assert_allclose(at_mean["insertion"], given["insertion"], rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (0.5, 0.5),
        (1, 1.0),
        ("mean", "mean"),
        ("None", 0.0),
        ("[0.0, mean]", [0.0, "mean"]),
        ("mean embedding after first word", "mean embedding after first word"),
    ],
)
def test_baselines_are_read_from_the_attrs(written, read, tmp_path) -> None:
    import xarray as xr

    tree = xr.DataTree(xr.Dataset({"a": 1}, attrs={"baseline": written}))
    rc.save_tree(tree, tmp_path / "tree.nc")
    for one in (tree, rc.open_tree(tmp_path / "tree.nc", lazy=False)):
        assert baseline_of(one, None) == read
    assert baseline_of(xr.DataTree(), rc.methods.ActGrad()) == 0.0


def test_a_network_of_noise_keeps_weights_but_not_their_places() -> None:
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
    with pytest.raises(rc.RetinaCodecError, match="needs weights to shuffle"):
        shuffled_network(nn.ReLU(), None, 0)
