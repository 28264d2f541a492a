"""Edges cut in the network: closed forms, a slow second form, the null, bad input."""

import numpy as np
import pytest
import torch
from torch import nn

from retina_codec.analysis.circuits.checks import check_circuit, compare_edges
from retina_codec.analysis.circuits.decomposition import circuit
from retina_codec.errors import RetinaCodecError
from retina_codec.targets.base import Sum, Unit
from tests.analysis.circuits.test_decomposition import Skipping, inputs_of
from tests.small import small_network, small_recording

LAYERS = ["lower", "upper"]


def test_in_a_linear_network_every_cut_is_the_share():
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 4), nn.Linear(4, 2)).double()
    found = circuit(net, inputs_of(size=3), target=Unit(1), layers=["0", "1"], steps=1)
    checked = check_circuit(net, inputs_of(size=3), found, target=Unit(1), permutations=99)
    for part in ("nodes/0", "nodes/1", "edges/1"):
        np.testing.assert_allclose(checked[part]["change"], found[part]["contribution"], atol=1e-12)
        for score in ("slope", "r2", "r2_equal", "sign"):
            np.testing.assert_allclose(checked[part][score], 1)
    assert float(checked["edges/1"]["r2_p"]) < 0.05
    assert float(checked["edges/1"]["r2_null"]) < 0.7


def test_cuts_are_computed_in_the_precision_of_the_circuit():
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 4), nn.Linear(4, 2))
    options = {"target": Unit(1), "layers": ["0", "1"], "steps": 1, "dtype": torch.float64}
    found = circuit(net, inputs_of(size=3), **options)
    assert found.attrs["dtype"] == "float64"
    checked = check_circuit(net, inputs_of(size=3), found, target=Unit(1), permutations=9)
    own, expected = checked["edges/1"]["change"], found["edges/1"]["contribution"]
    np.testing.assert_allclose(own, expected, atol=1e-13)
    assert next(net.parameters()).dtype == torch.float32


@pytest.mark.parametrize("held_at", ["baseline", "mean"])
def test_cuts_equal_a_slow_second_form(held_at):
    net, x = Skipping().double(), inputs_of()
    found = circuit(net, x, target=Sum(), layers=LAYERS)
    checked = check_circuit(net, x, found, target=Sum(), held_at=held_at, permutations=9)
    with torch.no_grad():
        zero = net.lower(torch.zeros_like(x[:1]))
        quiet = net.lower(x).mean(0, keepdim=True) if held_at == "mean" else zero
        first = net.lower(x)
        second = net.upper(torch.relu(first))
        around = first @ net.round

        def rest(upper):
            return net.top(torch.tanh(upper))[:, 0] + around

        for i in range(3):
            cut = first.clone()
            cut[:, i] = quiet[:, i]
            lost = net(x)[:, 0] - (net.top(torch.tanh(net.upper(torch.relu(cut))))[:, 0]
                                   + cut @ net.round)  # fmt: skip
            np.testing.assert_allclose(checked["nodes/lower"]["change"][:, i], lost, atol=1e-12)
            for j in range(2):
                upper = second.clone()
                upper[:, j] = net.upper(torch.relu(cut))[:, j]
                lost = rest(second) - rest(upper)
                own = checked["edges/upper"]["change"][:, i, j]
                np.testing.assert_allclose(own, lost, atol=1e-12)


def test_edges_to_cells_and_from_the_stimulus():
    network = small_network().double()
    split = small_recording(small_network(), bins=14)["test"]
    found = circuit(network, split, target=Unit("c"), steps=2, lags=1)
    checked = check_circuit(network, split, found, target=Unit("c"), permutations=9)
    with torch.no_grad():
        frames = (np.asarray(split["stimulus"], float) - 127.5) / 60.0
        windows = torch.as_tensor(np.stack([frames[t - 8 : t] for t in range(8, 14)]))
        plain, grey = network(windows)[:, 2], network(0 * windows)[:, 2]
    np.testing.assert_allclose(checked["nodes/input"]["change"][:, 0], plain - grey, atol=1e-6)
    cells = checked["edges/output"]["change"]
    own = checked["nodes/conv2"]["change"]
    np.testing.assert_allclose(cells.sel(target="c"), own, atol=1e-9)
    assert float(abs(cells.drop_sel(target="c")).max()) == 0


def test_scores_of_numbers_without_and_with_likeness():
    random = np.random.default_rng(0)
    share = random.normal(size=(40, 12)) + np.linspace(-2, 2, 12)
    same = compare_edges(share, 2 * share, permutations=199)
    assert same["slope"] == pytest.approx(2)
    assert same["r2"] == pytest.approx(1)
    assert same["r2_equal"] == pytest.approx(0.75)
    assert same["r2_p"] == same["sign_p"] == pytest.approx(1 / 200)
    other = [
        compare_edges(random.normal(size=(5, 8)), random.normal(size=(5, 8)), permutations=99)
        for _ in range(60)
    ]
    assert 0.3 < np.mean([one["r2_p"] for one in other]) < 0.7
    one = compare_edges(share[:, :1], share[:, :1])
    assert np.isnan(one["r2_p"])
    assert np.isnan(one["sign_null"])
    assert one["sign"] == 1


def test_bad_input():
    net, x = Skipping().double(), inputs_of()
    found = circuit(net, x, target=Sum(), layers=LAYERS)
    with pytest.raises(RetinaCodecError, match="must be one of these inputs and groups"):
        check_circuit(net, x[:2], found, target=Sum())
    with pytest.raises(RetinaCodecError, match="held_at must be 'baseline' or 'mean'"):
        check_circuit(net, x, found, target=Sum(), held_at="zero")
    with pytest.raises(RetinaCodecError, match="of one shape"):
        compare_edges(np.ones((2, 3)), np.ones((2, 2)))
