"""Circuits: closed forms, a slow second form, sums of edges, remainders, bad input."""

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from retina_codec.analysis.circuits.decomposition import average_circuit, circuit
from retina_codec.analysis.circuits.stages import mode_shares
from retina_codec.errors import RetinaCodecError
from retina_codec.targets.base import Sum, Unit
from tests.reference import circuits as reference
from tests.small import small_network, small_recording

WIDE = torch.float64
RELATIVE = 1e-5


class Skipping(nn.Module):
    """``y = upper(relu(lower x)) + round · lower x``: the last part goes round the upper layer."""

    def __init__(self, channels=3, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.lower, self.relu = nn.Linear(4, channels), nn.ReLU()
        self.upper, self.top = nn.Linear(channels, 2), nn.Linear(2, 1)
        self.round = nn.Parameter(torch.randn(channels))
        self.skips = True

    def forward(self, x):
        first = self.lower(x)
        output = self.top(torch.tanh(self.upper(self.relu(first))))
        return output + (first @ self.round)[:, None] if self.skips else output


def inputs_of(count=5, size=4, seed=3):
    return torch.as_tensor(np.random.default_rng(seed).normal(size=(count, size)))


def largest(values):
    return float(np.abs(values).max())


def test_a_linear_network_has_the_products_of_its_weights():
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 4), nn.Linear(4, 2)).double()
    x = inputs_of(size=3)
    found = circuit(net, x, target=Unit(1), layers=["0", "1"], steps=1)
    first, second, third = (net[k].weight.detach().numpy() for k in range(3))
    way = x.numpy() @ first.T
    expected = way[:, :, None] * second.T[None] * third[1][None, None]
    np.testing.assert_allclose(found["edges/1"]["contribution"], expected, rtol=1e-12)
    np.testing.assert_allclose(found["nodes/1"]["completeness_error"], 0, atol=1e-12)
    np.testing.assert_allclose(found["target_change"], way @ second.T @ third[1], rtol=1e-12)


def test_a_rectifier_by_hand():
    """``F = 2 relu(x) − relu(3 x)`` at x = 1 from 0: edges 2 and −3."""
    net = nn.Sequential(nn.Linear(1, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False),
                        nn.Identity()).double()  # fmt: skip
    with torch.no_grad():
        net[0].weight[:] = torch.tensor([[1.0], [3.0]])
        net[2].weight[:] = torch.tensor([[2.0, -1.0]])
    found = circuit(net, torch.ones(1, 1, dtype=WIDE), target=Sum(), layers=["0", "2"])
    np.testing.assert_allclose(found["edges/2"]["contribution"][0, :, 0], [2, -3], rtol=1e-12)


@pytest.mark.parametrize("channels", [3, 1])
def test_edges_equal_the_slow_second_form_and_sum_to_nodes(channels):
    net = Skipping(channels).double()
    net.skips = False
    x = inputs_of()
    found = circuit(net, x, target=Sum(), layers=["lower", "upper"], steps=3, baseline=0.1)
    groups = [[k] for k in range(channels)], [[0], [1]]
    for row, one in enumerate(x):
        edges, lower, upper = reference.circuit(
            net.lower, lambda h: net.upper(torch.relu(h)), lambda h: net.top(torch.tanh(h))[0],
            one, torch.full_like(one, 0.1), 3, *groups,
        )  # fmt: skip
        np.testing.assert_allclose(found["edges/upper"]["contribution"][row], edges, atol=1e-12)
        np.testing.assert_allclose(found["nodes/lower"]["contribution"][row], lower, atol=1e-12)
        np.testing.assert_allclose(found["nodes/upper"]["contribution"][row], upper, atol=1e-12)
    edges = found["edges/upper"]["contribution"]
    scale = RELATIVE * largest(edges)
    assert largest(edges.sum("source") - found["nodes/upper"]["contribution"].values) < scale
    assert largest(edges.sum("target") - found["nodes/lower"]["contribution"].values) < scale


def test_what_goes_round_a_layer_is_the_remainder_of_the_node():
    net, x = Skipping().double(), inputs_of()
    found = circuit(net, x, target=Sum(), layers=["lower", "upper"])
    assert found["nodes/lower"].attrs["cuts"] == 1
    assert found["nodes/upper"].attrs["cuts"] == 0
    change = (x @ net.lower.weight.T).detach().numpy()
    expected = change * net.round.detach().numpy()
    remainder = found["nodes/lower"]["to_above_remainder"]
    np.testing.assert_allclose(remainder, expected, rtol=1e-9)
    error = found["nodes/upper"]["completeness_error"]
    assert largest(error) > 0.1
    assert largest(found["nodes/upper"]["from_below_remainder"]) < 1e-12


@pytest.fixture(scope="module")
def retina():
    network = small_network()
    return network.double(), small_recording(small_network(), bins=20)["test"]


def test_every_sum_of_a_retina_holds(retina):
    network, split = retina
    found = circuit(network, split, target=Unit("b"), steps=4, lags=3)
    layers = list(found["nodes"].children)
    assert layers == ["input", "conv1", "conv2", "output"]
    for layer in layers:
        node = found[f"nodes/{layer}"]
        scale = RELATIVE * largest(node["contribution"])
        if layer != "input":
            assert largest(node["from_below_remainder"]) < scale
        if layer != "output":
            assert largest(node["to_above_remainder"]) < scale
    for layer in ("conv1", "conv2"):
        edges = found[f"edges/{layer}"]["contribution"]
        own = found[f"nodes/{layer}"]["contribution"]
        assert largest(edges.sum("source").values - own.values) < RELATIVE * largest(own)
    other = found["nodes/output"]["contribution"].drop_sel(node="b")
    assert largest(other) == 0
    again = circuit(network, split, target=Unit("b"), steps=4, lags=3, batch_size=5)
    xr.testing.assert_allclose(again["edges/conv2"].to_dataset(), found["edges/conv2"].to_dataset())


def test_the_input_by_lags_is_what_frames_change(retina):
    network, split = retina
    found = circuit(network, split, target=Unit("b"), steps=2, lags=network.history)
    whole = circuit(network, split, target=Unit("b"), steps=2, lags=1)
    np.testing.assert_allclose(
        found["edges/conv1"]["contribution"].sum("source"),
        whole["edges/conv1"]["contribution"].sum("source"),
        rtol=1e-8,
    )
    assert found["edges/conv1"]["source"].values[-1] == "0-10 ms"


def test_modes_share_channels_out():
    tree = xr.DataTree.from_dict({"layers/lower/modes": xr.Dataset(
        {"dictionary": (("mode", "sign", "channel"), [[[1.0, 0, 0], [2.0, 1, 0]],
                                                      [[0.0, 1, 0], [1.0, -2, 0]]])},
        {"mode": [0, 4], "sign": ["inhibitory", "excitatory"]})})  # fmt: skip
    shares = mode_shares(tree, "lower")
    np.testing.assert_allclose(shares, [[0.75, 0.25, 0], [0.25, 0.75, 0]])
    net, x = Skipping().double(), inputs_of()
    net.skips = False
    plain = circuit(net, x, target=Sum(), layers=["lower", "upper"])
    found = circuit(net, x, target=Sum(), layers=["lower", "upper"], groups={"lower": shares})
    assert found["nodes/lower"]["node"].values.tolist() == ["mode 0", "mode 4", "rest"]
    whole = np.vstack([shares, [0, 0, 1]])
    edges = plain["edges/upper"]["contribution"].values
    expected = np.einsum("gc,tcj->tgj", whole, edges)
    np.testing.assert_allclose(found["edges/upper"]["contribution"], expected, atol=1e-12)


def test_means_over_events():
    net, x = Skipping().double(), inputs_of()
    found = circuit(net, x, target=Sum(), layers=["lower", "upper"])
    active = np.array([True, False, True, False, False])
    mean = average_circuit(found, active)
    expected = found["edges/upper"]["contribution"].values[[0, 2]].mean(0)
    np.testing.assert_allclose(mean["edges/upper"]["contribution"], expected)
    assert mean.attrs["inputs"] == 2
    with pytest.raises(RetinaCodecError, match="at least one active time; there is none"):
        average_circuit(found, ~np.ones(5, bool))
    with pytest.raises(RetinaCodecError, match="for each of 5 inputs"):
        average_circuit(found, active[:3])


@pytest.mark.parametrize(
    ("layers", "options", "message"),
    [
        (["upper", "lower"], {}, "must follow each other from the input to the output; 'lower'"),
        (["lower"], {}, "two or more distinct layers"),
        (["lower", "upper"], {"groups": {"top": np.eye(1)}}, "must be of layers of the circuit"),
        (["lower", "upper"], {"groups": {"lower": np.eye(2)}}, r"of its 3 channels.*\(2, 2\)"),
        (["lower", "upper"], {"groups": {"lower": 2 * np.eye(3)}}, "at most 1 in sum"),
        (["lower", "upper"], {"baseline": [0.0, 1.0]}, "has one baseline; got 2"),
        (["lower", "upper"], {"batch_size": 0}, "batch_size must be at least 1"),
    ],
)
def test_bad_input(layers, options, message):
    with pytest.raises(RetinaCodecError, match=message):
        circuit(Skipping().double(), inputs_of(), target=Sum(), layers=layers, **options)


def test_lags_must_fit_the_window(retina):
    with pytest.raises(RetinaCodecError, match=r"lags must lie in 1\.\.8; got 9"):
        circuit(*retina, target=Sum(), lags=9)
