"""Any module seen through hooks: exact values and gradients, and the caller's module left alone."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.modeling_outputs import BaseModelOutput

from retina_codec.contributions.contribute import contribute
from retina_codec.contributions.maps import input_map
from retina_codec.errors import RetinaCodecError
from retina_codec.methods.base import Method
from retina_codec.methods.gradients import ActGrad, ActNormGrad, InputGrad, SmoothGrad
from retina_codec.methods.integrated_gradients import IntegratedGradients
from retina_codec.networks.adapter import adapt
from retina_codec.networks.borrowed import borrow
from retina_codec.probing.hooks import HookedFunction
from retina_codec.probing.points import Evaluation
from retina_codec.reductions import AllUnits
from retina_codec.targets.base import Sum, as_target
from tests.contributions.tiny import HISTORY, tiny_retina, tiny_windows

SQUARE = as_target(lambda y: (y**2).sum(1))
METHODS: list[Method] = [
    ActGrad(), ActNormGrad(), InputGrad(), SmoothGrad(2), IntegratedGradients(2),
    IntegratedGradients(2, path="hidden"), IntegratedGradients(2, quadrature="gauss-legendre"),
    IntegratedGradients(2, quadrature="simpson"),
]  # fmt: skip


def chain(*, inplace: bool = False, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Linear(4, 5), nn.ReLU(inplace), nn.Linear(5, 6), nn.ReLU(inplace), nn.Linear(6, 3)
    )
    return network.double().eval()


def evaluate(
    network: nn.Module, x: Any, layers: Any = "*", target: Any = SQUARE, **choices: Any
) -> Evaluation:
    return HookedFunction.open(adapt(network, layers, **choices), x)(x, target)


def by_hand(below: Callable[..., Any], above: Callable[..., Any], x: torch.Tensor) -> tuple:
    """Activation of a cut and gradient there, by cutting the network in two by hand."""
    h = below(x).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(SQUARE(above(h)).sum(), h)
    return h.detach(), gradient


def check(found: Evaluation, name: str, expected: tuple[torch.Tensor, torch.Tensor]) -> None:
    torch.testing.assert_close(found.activation[name], expected[0])
    torch.testing.assert_close(found.gradient[name], expected[1])


@pytest.mark.parametrize("inplace", [False, True])
def test_values_and_gradients_of_all_layers_in_one_pass(inplace: bool) -> None:
    """Also before an in-place ReLU, which overwrites the layer's values after the hook."""
    network, plain = chain(inplace=inplace), chain()
    x = torch.randn(3, 4).double()
    found = evaluate(network, x)
    for cut in range(5):
        below, above = plain[: cut + 1], plain[cut + 1 :]
        check(found, str(cut), by_hand(below, above, x))
    torch.testing.assert_close(found.value, SQUARE(plain(x)))
    kept = HookedFunction.open(network, x, ["*"]).activations(x)
    for cut in range(5):
        torch.testing.assert_close(kept[str(cut)], plain[: cut + 1](x))


def test_derivatives_along_a_direction_are_those_of_differences() -> None:
    for inplace in (False, True):
        network, x, way = chain(inplace=inplace), torch.randn(3, 4).double(), torch.randn(3, 4)
        function = HookedFunction.open(network, x, ["*"])
        found = function.along(x, way.double(), SQUARE)
        step = 1e-6 * way
        up, down = function.activations(x + step), function.activations(x - step)
        for name, tangent in found.tangent.items():
            torch.testing.assert_close(
                tangent, (up[name] - down[name]) / 2e-6, rtol=1e-6, atol=1e-8
            )
            torch.testing.assert_close(function.tangent(name, x, way.double()), tangent)
        slope = (SQUARE(network(x + step)) - SQUARE(network(x - step))) / 2e-6
        torch.testing.assert_close(found.value_tangent, slope, rtol=1e-6, atol=1e-8)


class InPlaceResidual(nn.Module):
    """The way torchvision writes a block: in-place ReLU, then ``out += identity``."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.relu, self.readout = nn.ReLU(inplace=True), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        identity = self.stem(x)
        out = self.relu(self.one(identity))
        out = self.two(out)
        out += identity
        return self.readout(self.relu(out))


def test_a_residual_block_written_in_place() -> None:
    torch.manual_seed(1)
    network, x = InPlaceResidual().double().eval(), torch.randn(3, 4).double()
    n = network
    found = evaluate(network, x, ["stem", "one", "two", "relu"])
    stem = n.stem(x)
    one = n.one(stem)

    def rest(two: torch.Tensor, stem: torch.Tensor) -> torch.Tensor:
        return n.readout((two + stem).relu())

    check(found, "stem", by_hand(n.stem, lambda h: rest(n.two(n.one(h).relu()), h), x))
    check(found, "one", by_hand(lambda _: one, lambda h: rest(n.two(h.relu()), stem), x))
    check(found, "two", by_hand(lambda _: n.two(one.relu()), lambda h: rest(h, stem), x))
    last = by_hand(lambda _: (n.two(one.relu()) + stem).relu(), n.readout, x)
    check(found, "relu@2", last)
    tree = contribute(
        network, x, target=Sum(), method=IntegratedGradients(2000), layers=["stem", "relu"],
        progress=False,
    )  # fmt: skip
    assert set(tree["layers"].children) == {"stem", "relu@1", "relu@2"}
    for name in ("stem", "relu@2"):
        layer = tree["layers"].children[name]
        assert layer.attrs["completeness"].startswith("holds")
        change = float(abs(layer["target_change"]).max())
        # ReLU's bends cost the trapezoid an error of the order of 1/steps.
        assert float(abs(layer["completeness_error"]).max()) < 2e-3 * change
    assert tree["layers"].children["relu@1"].attrs["completeness"].startswith("cannot hold")


def test_an_identity_in_a_branch_sees_only_its_own_branch() -> None:
    class Branch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.same = nn.Linear(4, 4), nn.Identity()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.stem(x)
            return 3 * h + self.same(h)

    network, x = Branch().double(), torch.randn(2, 4).double()
    for layers in (["same"], ["stem", "same"]):
        found = evaluate(network, x, layers, target=Sum())
        torch.testing.assert_close(found.gradient["same"], torch.ones(2, 4).double())
    torch.testing.assert_close(found.gradient["stem"], 4 * torch.ones(2, 4).double())


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.shared, self.last = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.shared(self.shared(x).tanh()).tanh())


def test_every_call_of_a_module_is_explained_as_a_layer_of_its_own() -> None:
    torch.manual_seed(2)
    network, x = Twice().double().eval(), torch.randn(3, 4).double()
    n = network
    found = evaluate(network, x, "shared")
    upper = lambda h: n.last(h.tanh())  # noqa: E731
    check(found, "shared@1", by_hand(n.shared, lambda h: upper(n.shared(h.tanh())), x))
    check(found, "shared@2", by_hand(lambda x: n.shared(n.shared(x).tanh()), upper, x))
    for method in (IntegratedGradients(400), IntegratedGradients(400, path="hidden"), InputGrad()):
        tree = contribute(network, x, target=SQUARE, method=method, layers="shared", progress=False)
        for layer in tree["layers"].children.values():
            change = float(abs(layer["target_change"]).max())
            assert float(abs(layer["completeness_error"]).max()) < 1e-4 * change


class Parts(nn.Module):
    """A layer whose output has several parts, called with keywords."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.split, self.join, self.form = _Split(form), _Join(form), form
        self.stem = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.join(scale=2.0, parts=self.split(hidden=self.stem(x)))


class _Split(nn.Module):
    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form

    def forward(self, hidden: torch.Tensor) -> Any:
        first, second = hidden**2, hidden.sin()
        return {
            "tuple": (first, second),
            "dict": {"first": first, "second": second},
            "output": BaseModelOutput(last_hidden_state=first, hidden_states=second),
        }[self.form]


class _Join(nn.Module):
    def __init__(self, form: str) -> None:
        super().__init__()
        self.keys = {
            "tuple": (0, 1), "dict": ("first", "second"),
            "output": ("last_hidden_state", "hidden_states"),
        }[form]  # fmt: skip

    def forward(self, parts: Any, scale: float) -> torch.Tensor:
        return scale * parts[self.keys[0]] * parts[self.keys[1]]


@pytest.mark.parametrize("form", ["tuple", "dict", "output"])
@pytest.mark.parametrize("second", [False, True])
def test_the_part_of_an_output_that_was_chosen(form: str, second: bool) -> None:
    network, x = Parts(form).double(), torch.randn(3, 4).double()
    h = network.stem(x)
    element = network.join.keys[1] if second else None
    found = evaluate(network, x, "split", element=element)
    mine, other = (h.sin(), h**2) if second else (h**2, h.sin())
    check(found, "split", by_hand(lambda _: mine, lambda part: 2.0 * part * other, x))
    inside = evaluate(network, x, "split", hook="input")
    check(inside, "split", by_hand(network.stem, lambda h: 2.0 * h**2 * h.sin(), x))
    named = evaluate(network, x, "split", hook="input", element="hidden")
    torch.testing.assert_close(named.gradient["split"], inside.gradient["split"])


def test_the_input_of_a_module_is_the_output_of_the_one_before() -> None:
    network, x = chain(inplace=True), torch.randn(3, 4).double()
    at_input = evaluate(network, x, ["1", "2"], hook="input")
    at_output = evaluate(network, x, ["0", "1"])
    for name, before in (("1", "0"), ("2", "1")):
        torch.testing.assert_close(at_input.activation[name], at_output.activation[before])
        torch.testing.assert_close(at_input.gradient[name], at_output.gradient[before])


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.mix, self.last = nn.Embedding(9, 4), nn.Linear(5, 4), nn.Linear(4, 2)

    def forward(
        self, ids: torch.Tensor, mask: torch.Tensor, loud: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        h = self.mix(torch.cat([self.words(ids), loud[..., None]], -1)).tanh()
        return {"extra": ids, "scores": self.last((h * mask[..., None]).sum(1))}


def test_several_inputs_by_name_of_which_some_are_whole_numbers() -> None:
    torch.manual_seed(3)
    network = Masked().double()
    inputs = {
        "ids": torch.randint(0, 9, (3, 6)),
        "mask": (torch.rand(3, 6) > 0.3).long(),
        "loud": torch.randn(3, 6).double(),
    }
    adapter = adapt(network, "mix", output="scores")
    tree = contribute(
        adapter, inputs, target=SQUARE, method=IntegratedGradients(300, baseline={"loud": 0.5}),
        progress=False,
    )  # fmt: skip
    start = dict(inputs, loud=torch.full((3, 6), 0.5).double())
    change = SQUARE(network(**inputs)["scores"]) - SQUARE(network(**start)["scores"])
    total = torch.tensor(tree["layers/mix/contribution"].values).sum((1, 2))
    torch.testing.assert_close(total, change.detach(), rtol=1e-4, atol=1e-6)
    first = {name: values[:1] for name, values in inputs.items()}
    alone = contribute(
        adapter, first, target=SQUARE, method=IntegratedGradients(300, baseline={"loud": 0.5}),
        progress=False,
    )  # fmt: skip
    torch.testing.assert_close(
        torch.tensor(alone["layers/mix/contribution"].values),
        torch.tensor(tree["layers/mix/contribution"].values[:1]),
    )


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_half_precision_is_near_single_and_summed_in_single(method: Method) -> None:
    torch.manual_seed(4)
    network = nn.Sequential(nn.Linear(32, 64), nn.Tanh(), nn.Linear(64, 8)).eval()
    x = torch.randn(4, 32)
    half = nn.Sequential(nn.Linear(32, 64), nn.Tanh(), nn.Linear(64, 8)).bfloat16().eval()
    half.load_state_dict(network.state_dict())
    network.load_state_dict(half.state_dict())  # the same rounded weights
    found, single = (
        contribute(n, values, target=SQUARE, method=method, layers=["0"], progress=False)[
            "layers/0"
        ]
        for n, values in ((half, x.bfloat16()), (network, x.bfloat16().float()))
    )
    assert found["contribution"].dtype == "float32"
    expected = torch.tensor(single["contribution"].values)
    error = torch.tensor(found["contribution"].values) - expected
    # bfloat16 keeps 8 bits: every factor is off by up to 2^-9 of its size.
    assert float(error.norm() / expected.norm()) < 0.02
    assert float(error.norm()) > 0


def test_a_sum_over_many_steps_does_not_lose_small_parts() -> None:
    """500 parts of 1/500: added up in bfloat16, they would stop at 0.5 (2^-9 of 1 is lost)."""
    network = nn.Linear(1, 1, bias=False).bfloat16().requires_grad_(False)
    network.weight.fill_(1.0)
    method = IntegratedGradients(500, quadrature="gauss-legendre")
    tree = contribute(
        nn.Sequential(network), torch.ones(1, 1).bfloat16(), target=Sum(), method=method,
        layers="0", progress=False,
    )  # fmt: skip
    assert float(tree["layers/0/contribution"].sum()) == pytest.approx(1, rel=1e-5)


class SeesFloat64(TorchDispatchMode):
    """Remember every step that takes or gives a tensor of double precision."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):
        result = function(*args, **(kwargs or {}))
        for value in torch.utils._pytree.tree_leaves((args, kwargs, result)):
            if isinstance(value, torch.Tensor) and value.dtype == torch.float64:
                self.found.append(str(function))
        return result


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_no_step_of_a_single_precision_run_is_in_double(method: Method) -> None:
    """MPS has no float64 at all."""
    torch.manual_seed(5)
    network = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 5)
    ).eval()
    x = torch.randn(2, 1, 6, 6)
    with borrow(network), SeesFloat64() as mode:
        method.explain(HookedFunction.open(network, x, ["0", "2"]), SQUARE, x)
    assert not mode.found
    if not isinstance(method, SmoothGrad | ActNormGrad) and getattr(method, "path", "") != "hidden":
        weights = torch.rand(3, dtype=torch.float64).numpy()
        with SeesFloat64() as mode:
            input_map(network, x, "0", target=SQUARE, method=method, weights=weights, steps=2)
        assert not mode.found


class Counted(nn.Module):
    """Passes values on and counts the passes forward and back."""

    def __init__(self) -> None:
        super().__init__()
        self.forward_count = self.backward_count = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.forward_count += 1
        if x.requires_grad:
            x.register_hook(self._count)
        return x * 1.0

    def _count(self, gradient: torch.Tensor) -> None:
        del gradient
        self.backward_count += 1


def test_one_pass_back_per_point_that_ends_at_the_lowest_layer() -> None:
    below, above = Counted(), Counted()
    network = nn.Sequential(nn.Linear(4, 5), below, nn.Linear(5, 5), above, nn.Linear(5, 2))
    x = torch.randn(3, 4).double()
    function = HookedFunction.open(network.double().eval(), x, ["2", "4"])
    for counted in (below, above):
        counted.forward_count = counted.backward_count = 0
    IntegratedGradients(7, placement="uniform").explain(function, Sum(), x)
    assert (below.forward_count, above.forward_count) == (8, 8)
    assert (below.backward_count, above.backward_count) == (0, 8)


class WeightGradients(TorchDispatchMode):
    """Count the products that gradients of weights would need."""

    def __init__(self) -> None:
        super().__init__()
        self.masks: list[list[bool]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):
        if function is torch.ops.aten.convolution_backward.default:
            self.masks.append(list(args[-1]))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("trainable", [True, False])
def test_weights_are_never_reached(trainable: bool) -> None:
    network = nn.Sequential(nn.Conv1d(2, 3, 2), nn.Conv1d(3, 2, 2), nn.Conv1d(2, 2, 2))
    network.requires_grad_(trainable)
    method = IntegratedGradients(3, placement="uniform")
    with WeightGradients() as mode:
        contribute(
            network, torch.randn(2, 2, 7), target=as_target(lambda y: y.sum((1, 2))),
            method=method, layers=["0", "1"], progress=False,
        )  # fmt: skip
    steps = [mask for mask in mode.masks if mask]
    assert len(steps) == 4 * 2  # two convolutions lie above the lowest layer
    assert all(mask == [True, False, False] for mask in steps)


# ---------------------------------------------------------------- the caller's module


class Crash(Exception):
    pass


class Crashing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm, self.two = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)
        self.calls, self.crash_at = 0, 10**9

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        h = self.norm(self.one(x))
        if self.calls >= self.crash_at:
            raise Crash
        return self.two(h)


def snapshot(network: nn.Module) -> dict[str, Any]:
    return {
        "modes": [m.training for m in network.modules()],
        "trainable": [p.requires_grad for p in network.parameters()],
        "gradients": [p.grad for p in network.parameters()],
        "copies": [None if p.grad is None else p.grad.clone() for p in network.parameters()],
        "weights": {name: value.clone() for name, value in network.state_dict().items()},
        "hooks": [
            (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks))
            for m in network.modules()
        ],
        "attributes": [sorted(m.__dict__) for m in network.modules()],
    }


def assert_same(network: nn.Module, before: dict[str, Any]) -> None:
    after = snapshot(network)
    for part in ("modes", "trainable", "hooks", "attributes"):
        assert after[part] == before[part], part
    for now, then, copy in zip(
        after["gradients"], before["gradients"], before["copies"], strict=True
    ):
        assert now is then
        assert now is None or torch.equal(now, copy)
    for name, value in before["weights"].items():
        assert torch.equal(after["weights"][name], value), name


def lent() -> Crashing:
    torch.manual_seed(6)
    network = Crashing()
    network.train()
    network.two.eval()
    network.one.weight.requires_grad_(False)
    network.two(torch.randn(3, 4)).sum().backward()  # gradients that the caller still needs
    network.calls = 0
    return network


@pytest.mark.parametrize("method", METHODS, ids=repr)
@pytest.mark.parametrize("dtype", [None, torch.float64])
def test_the_module_comes_back_as_it_was(method: Method, dtype: torch.dtype | None) -> None:
    network = lent()
    before = snapshot(network)
    x = torch.randn(5, 4)
    kept = x.clone()
    contribute(
        network, x, target=SQUARE, method=method, layers=["one", "norm"], dtype=dtype,
        progress=False,
    )  # fmt: skip
    assert_same(network, before)
    assert torch.equal(x, kept)
    assert not x.requires_grad
    assert network.norm.forward.__func__ is nn.BatchNorm1d.forward


@pytest.mark.parametrize("method", METHODS, ids=repr)
@pytest.mark.parametrize("crash_at", [1, 2, 3, 4, 5])
def test_the_module_comes_back_after_a_crash_in_it(method: Method, crash_at: int) -> None:
    network = lent()
    network.crash_at = crash_at
    before = snapshot(network)
    try:
        contribute(
            network, torch.randn(5, 4), target=SQUARE, method=method, layers=["one"],
            progress=False,
        )  # fmt: skip
    except Crash:
        pass
    else:
        assert network.calls < crash_at
    assert_same(network, before)


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_the_module_comes_back_after_a_crash_in_target_or_hook(method: Method) -> None:
    network = lent()
    before = snapshot(network)

    def crash(*_: Any) -> Any:
        raise Crash

    x = torch.randn(5, 4)
    with pytest.raises(Crash):
        contribute(network, x, target=crash, method=method, layers=["one"], progress=False)
    assert_same(network, before)
    handle = network.two.register_forward_hook(crash)
    before = snapshot(network)
    with pytest.raises(Crash):
        contribute(network, x, target=SQUARE, method=method, layers=["one"], progress=False)
    assert_same(network, before)  # the caller's own hook is still there
    handle.remove()


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_the_callers_gradient_mode_does_not_matter(method: Method) -> None:
    network, x = chain(), torch.randn(3, 4).double()

    def run(values: torch.Tensor) -> Any:
        options = {"layers": ["0", "2"], "progress": False, "reduction": AllUnits()}
        return contribute(network, values, target=SQUARE, method=method, **options)

    expected = run(x)
    with torch.no_grad():
        without = run(x)
        assert not torch.is_grad_enabled()
    with torch.inference_mode():
        inference = run(x)
        assert torch.is_inference_mode_enabled()
    for found in (without, inference):
        for name in ("layers/0", "layers/2"):
            assert found[name].to_dataset().equals(expected[name].to_dataset())


def test_weights_that_were_made_in_inference_mode() -> None:
    with torch.inference_mode():
        network = chain()
    assert next(network.parameters()).is_inference()
    x, options = torch.randn(3, 4).double(), {"layers": ["0"], "progress": False}
    found = contribute(network, x, target=SQUARE, method=IntegratedGradients(3), **options)
    expected = contribute(chain(), x, target=SQUARE, method=IntegratedGradients(3), **options)
    assert found["layers/0"].to_dataset().equals(expected["layers/0"].to_dataset())


# ------------------------------------------------- steps of torch that need care


def norms() -> nn.Sequential:
    torch.manual_seed(7)
    network = nn.Sequential(
        nn.Conv2d(2, 3, 2), nn.BatchNorm2d(3), nn.Tanh(), nn.Conv2d(3, 4, 2),
        nn.BatchNorm2d(4, affine=False), nn.Flatten(), nn.Linear(36, 6), nn.BatchNorm1d(6),
        nn.Tanh(), nn.Linear(6, 2),
    ).double()  # fmt: skip
    for _ in range(5):
        network(torch.randn(20, 2, 5, 5).double() * 2 + 1)
    with torch.no_grad():
        network[1].weight.uniform_(-2, 2)
    return network.eval()


def test_batch_norm_lent_out_is_still_batch_norm() -> None:
    """Same values to the last bit; gradients and derivatives as torch's own."""
    network, x, way = norms(), torch.randn(3, 2, 5, 5).double(), torch.randn(3, 2, 5, 5).double()
    layers = ["0", "1", "3", "4", "6", "7"]
    network.requires_grad_(False)
    expected = HookedFunction.open(network, x, layers).along(x, way, SQUARE)
    plain = nn.BatchNorm2d.forward
    with borrow(network) as lent_out:
        assert getattr(network[1].forward, "__func__", None) is not plain
        found = HookedFunction.open(lent_out, x, layers).along(x, way, SQUARE)
    assert torch.equal(found.value, expected.value)
    for name in layers:
        torch.testing.assert_close(found.gradient[name], expected.gradient[name])
        torch.testing.assert_close(found.tangent[name], expected.tangent[name])
    torch.testing.assert_close(found.value_tangent, expected.value_tangent)


def test_batch_norm_keeps_nothing_but_its_scale() -> None:
    network, kept = norms(), []
    x = torch.randn(3, 2, 5, 5).double().requires_grad_()
    with borrow(network) as lent_out:
        first = lent_out[0](x)
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: kept.append(t.numel()) or t, lambda t: t
        ):
            lent_out[1](first)
    assert kept
    assert max(kept) == 3


def test_batch_norm_without_running_statistics_keeps_its_own_way() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, track_running_stats=False))
    x = torch.randn(5, 4)
    with borrow(network.eval()) as lent_out:
        assert "forward" not in lent_out[1].__dict__
        torch.testing.assert_close(lent_out(x), network(x))


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_a_transformer_encoder_does_not_skip_its_hooks(method: Method) -> None:
    """Its fast path would go round the modules inside, and has no forward-mode derivative."""
    torch.manual_seed(8)
    block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
    network = nn.Sequential(
        nn.TransformerEncoder(block, 2, enable_nested_tensor=False), nn.Flatten(), nn.Linear(40, 3)
    ).eval()
    x = torch.randn(2, 5, 8)
    layers = ["0.layers.0", "0.layers.1.linear1"]
    fast = torch.backends.mha.get_fastpath_enabled()
    found = contribute(
        network, x, target=SQUARE, method=method, layers=layers, progress=False,
        reduction=AllUnits(),
    )  # fmt: skip
    assert torch.backends.mha.get_fastpath_enabled() == fast
    inside = {}

    def keep(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        del module, inputs
        inside["h"] = output.detach()

    handle = network[0].layers[1].linear1.register_forward_hook(keep)
    network(x.clone().requires_grad_())
    handle.remove()
    seen = torch.tensor(found[f"layers/{layers[1]}/activation"].values).movedim(1, 2)
    torch.testing.assert_close(seen, inside["h"], rtol=1e-4, atol=1e-5)


class NoForwardMode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        del ctx
        return x * 2

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        del ctx
        return gradient * 2


def test_a_step_without_forward_mode_is_named_and_the_way_out() -> None:
    class Doubles(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return NoForwardMode.apply(x)

    network = nn.Sequential(nn.Linear(4, 4), Doubles(), nn.Linear(4, 2))
    x = torch.randn(2, 4)
    with pytest.raises(RetinaCodecError, match=r"without a forward-mode .*IntegratedGradients\(\)"):
        contribute(network, x, target=Sum(), method=InputGrad(), layers=["2"], progress=False)
    assert not any(m._forward_hooks for m in network.modules())
    found = contribute(
        network, x, target=Sum(), method=IntegratedGradients(1), layers=["0"], progress=False
    )
    expected = (x @ network[0].weight.T * (2 * network[2].weight.sum(0))).detach()
    total = torch.tensor(found["layers/0/contribution"].values).sum(1)
    torch.testing.assert_close(total, expected)


def test_another_error_of_torch_is_not_taken_for_a_missing_derivative() -> None:
    with pytest.raises(RetinaCodecError, match=r"could not run.*shapes cannot be multiplied"):
        contribute(
            nn.Sequential(nn.Linear(4, 2)), torch.zeros(2, 3), target=Sum(), method=InputGrad(),
            layers=["0"], progress=False,
        )  # fmt: skip


# ------------------------------------------------------------------------- errors


def test_what_cannot_be_explained_is_refused() -> None:
    x = torch.zeros(2, 3, dtype=torch.int64)
    network = nn.Sequential(nn.Identity(), nn.Embedding(4, 2), nn.Flatten(), nn.Linear(6, 2))
    with pytest.raises(RetinaCodecError, match=r"'0' must give floating values .*torch.int64"):
        evaluate(network, x, "0", target=Sum())
    network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    with pytest.raises(RetinaCodecError, match=r"does not depend on layers \['0', '1'\]"):
        evaluate(network, torch.zeros(2, 3), target=lambda y: y.detach().sum(1))
    with pytest.raises(RetinaCodecError, match=r"one number per input, shape \(2,\); got \(2, 2\)"):
        evaluate(network, torch.zeros(2, 3), target=lambda y: y)


def test_units_put_in_place_of_a_layer() -> None:
    network, x = chain(inplace=True), torch.randn(3, 4).double()
    function = HookedFunction.open(network, x, ["*"])
    units = torch.randn(3, 5).double()
    value, gradient = function.above("1", units, x, SQUARE)
    expected = by_hand(lambda _: units, chain()[2:], x)
    torch.testing.assert_close(gradient, expected[1])
    torch.testing.assert_close(value, SQUARE(chain()[2:](units)))


def test_the_retina_through_hooks_agrees_with_its_parts() -> None:
    network, x = tiny_retina().double(), tiny_windows(3)
    assert x.shape[1] == HISTORY
    found = evaluate(network, x, None)
    assert list(found.activation) == ["conv1", "conv2", "conv3"]
    first = network.conv1(x)
    torch.testing.assert_close(found.activation["conv1"], first)
    step = torch.zeros_like(first)
    step[1, 0, 2, 3] = 1e-6
    function = HookedFunction.open(network, x)
    up, down = (function.above("conv1", first + s, x, SQUARE)[0] for s in (step, -step))
    assert float((up - down)[1] / 2e-6) == pytest.approx(
        float(found.gradient["conv1"][1, 0, 2, 3]), rel=1e-5
    )


def test_layers_are_known_when_a_function_is_opened() -> None:
    words = nn.Sequential(nn.Embedding(4, 2), nn.Flatten(), nn.Linear(6, 2), nn.ReLU()).eval()
    numbers, relu = torch.tensor([[0, 1, 2], [3, 3, 3]]), nn.ReLU()
    function = HookedFunction.open(words, numbers, ["2", "3"])
    assert function.layers == ("2", "3")
    assert function.complete == {"2": True, "3": True}
    assert function.entry.describe() == {"paths_in": "embedding of 0"}
    assert function.survey["2"].shape == (2,)
    entered = function.enter(numbers)
    torch.testing.assert_close(entered["embedding of 0"], words[0](numbers).detach())
    torch.testing.assert_close(function.outputs(entered), words(numbers).detach())
    twice = HookedFunction.open(nn.Sequential(nn.Linear(3, 3), relu, relu), torch.ones(2, 3), ["1"])
    assert twice.layers == ("1@1", "1@2")
    assert twice.entry.describe() == {}
    assert twice.enter(numbers) is numbers
