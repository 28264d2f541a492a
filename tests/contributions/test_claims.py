"""Results claim that contributions are complete, in Hz or in float32 only where they are."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import retina_codec as rc
from retina_codec.contributions.maps import input_map
from retina_codec.methods import ActGrad, InputGrad, IntegratedGradients
from retina_codec.targets import Probability, Sum, Surprisal, TopK, Unit
from tests.contributions.tiny import tiny_retina, tiny_split

CUTS: dict[str, Callable[[Any, torch.Tensor], torch.Tensor]] = {
    "no_grad below": lambda n, x: n.head(n.skip(n.frozen(x))),
    "detached below": lambda n, x: n.head(n.skip(n.body(x).detach())),
    "rounded below": lambda n, x: n.head(n.skip((2 * n.body(x)).round())),
}
AROUND: dict[str, Callable[[Any, torch.Tensor], torch.Tensor]] = {
    "detached around": lambda n, x: n.head(n.mlp(n.body(x)) + 2 * n.other(x).detach()),
    "no_grad around": lambda n, x: n.head(n.mlp(n.body(x)) + 2 * n.frozen(x)),
    "detached gain": lambda n, x: n.head(n.mlp(n.body(x)) * n.other(x).sigmoid().detach()),
    "data": lambda n, x: n.head(n.mlp(n.body(x)) + 2 * n.other(x).data),
    "steps": lambda n, x: n.head(n.mlp(n.body(x)) + 2 * (n.other(x) > 0).float()),
}
HEALTHY: dict[str, Callable[[Any, torch.Tensor], torch.Tensor]] = {
    "plain": lambda n, x: n.head(n.mlp(n.body(x))),
    "steep": lambda n, x: n.head(10 * n.mlp(5 * n.body(x)).tanh()),
    "squared": lambda n, x: n.head(n.mlp(n.body(x))).square(),
}


class Net(nn.Module):
    def __init__(self, way: Callable[[Any, torch.Tensor], torch.Tensor], seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.body, self.other, self.head = nn.Linear(7, 6), nn.Linear(7, 6), nn.Linear(6, 3)
        self.mlp = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6))
        self.way = way

    def frozen(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return self.other(x).relu()

    def skip(self, h: torch.Tensor) -> torch.Tensor:
        return h + self.mlp(h)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.way(self, x)


def explained(network: nn.Module, method: Any, inputs: int = 5, **more: Any) -> Any:
    x = torch.randn(inputs, 7, generator=torch.Generator().manual_seed(3))
    options = {"target": TopK(1), "layers": ["mlp"], **more}
    return rc.contribute(network, x, method=method, **options)["layers/mlp"]


def missed(layer: Any) -> float:
    error, change = layer["completeness_error"], layer["target_change"]
    return float(abs(error).sum() / abs(change).sum())


@pytest.mark.parametrize("name", CUTS)
@pytest.mark.parametrize("method", [IntegratedGradients(50), InputGrad()])
def test_completeness_is_not_known_where_no_derivative_leads_to_the_input(
    name: str, method: Any
) -> None:
    if name == "rounded below" and isinstance(method, InputGrad):
        return  # torch gives round() the derivative 0: nothing is cut
    layer = explained(Net(CUTS[name]), method)
    if name == "rounded below":
        assert not layer.attrs["completeness"].startswith("holds")
        return
    assert layer.attrs["completeness"].startswith("not known: no derivatives lead")


@pytest.mark.parametrize("name", AROUND)
@pytest.mark.parametrize("steps", [10, 200])
def test_an_error_that_steps_do_not_mend_retracts_the_claim(name: str, steps: int) -> None:
    layer = explained(Net(AROUND[name]), IntegratedGradients(steps))
    assert missed(layer) > 0.05
    assert layer.attrs["completeness"].startswith("does not hold: contributions miss F(x)")
    times = 16 if steps <= 50 else 4
    assert f"with {times * steps} steps" in layer.attrs["completeness"]


def test_a_bend_narrower_than_the_steps_is_not_a_cut() -> None:
    """y = tanh(400 (x − 0.0123)) has a derivative everywhere; 10 even steps miss its bend."""

    class Bend(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Identity()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tanh(400 * (self.layer(x) - 0.0123))

    def text(steps: int) -> str:
        method = IntegratedGradients(steps, placement="uniform")
        options = {"target": rc.targets.Unit(0), "layers": ["layer"], "progress": False}
        tree = rc.contribute(Bend(), torch.ones(1, 1), method=method, **options)
        return str(tree["layers/layer"].attrs["completeness"])

    assert text(10).startswith("not reached")
    assert text(800).startswith("holds")


@pytest.mark.parametrize("name", HEALTHY)
@pytest.mark.parametrize(
    "method",
    [
        IntegratedGradients(1), IntegratedGradients(2, quadrature="simpson"),
        IntegratedGradients(3, quadrature="gauss-legendre"), IntegratedGradients(20),
        IntegratedGradients(2, tolerance=0.5, most_steps=4), InputGrad(),
        IntegratedGradients(3, path="hidden"), IntegratedGradients(5, baseline=[0.0, "mean"]),
    ],
    ids=repr,
)  # fmt: skip
def test_few_steps_are_a_matter_of_quadrature(name: str, method: Any) -> None:
    layer = explained(Net(HEALTHY[name]), method)
    assert layer.attrs["completeness"].startswith("holds: contributions sum to")


def test_claims_of_a_store_are_measured_too(tmp_path: Any) -> None:
    network, method = Net(AROUND["detached around"]), IntegratedGradients(20)
    for name in ("run.zarr", "run.nc"):
        layer = explained(network, method, store=tmp_path / name)
        assert layer.attrs["completeness"].startswith("does not hold")
    again = explained(network, method, store=tmp_path / "run.zarr")
    assert again.attrs["completeness"].startswith("does not hold")


drawn = st.tuples(
    st.sampled_from(sorted(AROUND | HEALTHY | CUTS)),
    st.integers(0, 2**16),
    st.sampled_from([20, 100]),
    st.integers(1, 6),
)


def claim_implies_its_error(case: Any) -> None:
    name, seed, steps, inputs = case
    way = (AROUND | HEALTHY | CUTS)[name]
    layer = explained(Net(way, seed), IntegratedGradients(steps), inputs)
    text = layer.attrs["completeness"]
    if text.startswith("holds"):
        finer = explained(Net(way, seed), IntegratedGradients(2 * steps + 160), inputs)
        change = abs(finer["target_change"]).max()
        assert float(abs(finer["completeness_error"]).max()) <= 0.05 * float(change) + 1e-4
    else:
        assert name not in HEALTHY, text


@given(drawn)
@settings(max_examples=5, deadline=None)
def test_a_claim_of_completeness_implies_its_error(case: Any) -> None:
    claim_implies_its_error(case)


@pytest.mark.slow
@given(drawn)
@settings(max_examples=2000, deadline=None)
def test_a_claim_of_completeness_implies_its_error_often(case: Any) -> None:
    claim_implies_its_error(case)


# ------------------------------------------------------------------ units


CELLS: dict[str, Callable[[], Any]] = {
    "submodules": lambda: nn.ModuleList([nn.Linear(7, 7)]),
    "a number": lambda: 3,
    "kinds": lambda: ["gru", "lstm", "gru"],
    "widths": lambda: (4, 8, 16),
    "modules in a list": lambda: [nn.Identity()],
}


@pytest.mark.parametrize("name", CELLS)
def test_cells_of_other_networks_are_no_cells_of_a_retina(name: str) -> None:
    network = Net(HEALTHY["plain"])
    network.cells = CELLS[name]()
    x = torch.ones(2, 7)
    for target in (Sum(), Unit(1), Probability(1)):
        tree = rc.contribute(network, x, target=target, method=ActGrad(), layers=["mlp"])
        assert tree["responses/prediction"].attrs["units"] == "1"
        assert tree["responses/prediction"].attrs["long_name"] == "network output"
        assert tree["responses/cell"].values.tolist() == [0, 1, 2]
        assert tree["layers/mlp/contribution"].attrs["units"] == "1"
        found = input_map(network, x, "mlp", target=target, method=InputGrad())
        assert {found[key].attrs["units"] for key in found} == {"1"}


def test_statistics_of_outputs_without_a_unit_have_none() -> None:
    tree = rc.contribute(
        Net(HEALTHY["plain"]), torch.randn(9, 7), target=Surprisal(), method=ActGrad(),
        layers=["mlp"],
    )  # fmt: skip
    responses = tree["responses"]
    assert [responses[n].attrs["units"] for n in ("mean", "covariance")] == ["1", "1"]
    assert responses["target"].attrs["units"] == "nats"


def test_a_retina_is_in_hertz_and_a_network_may_say_its_unit() -> None:
    tree = rc.contribute(
        tiny_retina(), tiny_split(), target=Surprisal(shrinkage="ledoit-wolf"), method=ActGrad()
    )
    assert tree["responses/mean"].attrs["units"] == tree["responses/prediction"].attrs["units"]
    assert tree["responses/mean"].attrs["units"] == "Hz"
    network = Net(HEALTHY["plain"])
    network.output_units, network.cells = "spikes", ("a", "b", "c")
    run = {"method": InputGrad(), "target": Unit("b")}
    tree = rc.contribute(network, torch.ones(2, 7), layers=["mlp"], **run)
    assert tree["responses/prediction"].attrs["units"] == "spikes"
    assert tree["layers/mlp/contribution"].attrs["units"] == "spikes"
    assert tree["responses/cell"].values.tolist() == ["a", "b", "c"]
    assert input_map(network, torch.ones(2, 7), "mlp", **run)["map"].attrs["units"] == "spikes"


# ------------------------------------------------------------------ number type


class Lower(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return super().forward(x).float()


def test_the_number_type_that_is_claimed_is_that_of_the_layers() -> None:
    x, run = torch.randn(3, 7), {"target": TopK(1), "method": ActGrad(), "layers": ["mlp"]}
    with torch.autocast("cpu", torch.bfloat16):
        tree = rc.contribute(Net(HEALTHY["plain"]), x, **run)
    assert tree.attrs["dtype"] == "float32"
    plain = rc.contribute(Net(HEALTHY["plain"]), x, **run)
    np.testing.assert_array_equal(tree["layers/mlp/contribution"], plain["layers/mlp/contribution"])
    lower = rc.contribute(Lower(HEALTHY["plain"]), x, **run)
    assert lower.attrs["dtype"] == "float32, but the network computes mlp in bfloat16"
