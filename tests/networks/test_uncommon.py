"""Networks of uncommon making: explained as plain ones, or refused in one line that helps."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune
from torch.utils.checkpoint import checkpoint

import retina_codec as rc
from retina_codec.errors import RetinaCodecError
from retina_codec.methods.base import Method
from retina_codec.methods.gradients import ActGrad, InputGrad, SmoothGrad
from retina_codec.methods.integrated_gradients import IntegratedGradients
from retina_codec.networks.borrowed import borrow, when_free

METHODS = [IntegratedGradients(3), IntegratedGradients(3, path="hidden"), ActGrad(), InputGrad()]


def inputs_of(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


X = inputs_of(6, 7)


def explain(network: nn.Module, inputs: Any = X, layers: Any = ("0",), **options: Any) -> Any:
    settings = {"target": rc.targets.TopK(1), "method": ActGrad(), "progress": False}
    return rc.contribute(network, inputs, layers=layers, **(settings | options))


def contribution(network: nn.Module, layer: str = "0", **options: Any) -> np.ndarray:
    return explain(network, layers=[layer], **options)[f"layers/{layer}/contribution"].values


def plain(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(7, 8), nn.Tanh(), nn.Linear(8, 3))


class Saving(nn.Module):
    """Blocks that are run again in the backward pass."""

    def __init__(self, run: Callable[..., Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.run, self.first = run, nn.Linear(7, 8)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8)) for _ in range(2)
        )
        self.last = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = x + self.run(block, x)
        return self.last(x)


class Again(torch.autograd.Function):
    """Checkpointing written by hand, as in fairscale."""

    @staticmethod
    def forward(ctx: Any, block: nn.Module, x: torch.Tensor) -> torch.Tensor:
        ctx.block = block
        ctx.save_for_backward(x)
        with torch.no_grad():
            return block(x)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        del ctx, gradient
        if not torch.autograd._is_checkpoint_valid():
            raise RuntimeError("Checkpointing is not compatible with .grad()")
        raise AssertionError


@pytest.mark.parametrize("method", METHODS, ids=repr)
@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointed_blocks_are_explained_as_plain_ones(method: Method, reentrant: bool) -> None:
    saving = Saving(lambda block, x: checkpoint(block, x, use_reentrant=reentrant))
    layers, options = ["first", "blocks.0.1", "blocks.1"], {"method": method}
    found = explain(saving, layers=layers, **options)
    expected = explain(Saving(lambda block, x: block(x)), layers=layers, **options)
    for layer in layers:
        np.testing.assert_allclose(
            found[f"layers/{layer}/contribution"], expected[f"layers/{layer}/contribution"],
            atol=1e-6,
        )  # fmt: skip


def test_checkpointing_goes_on_where_no_network_is_borrowed() -> None:
    """Also in another thread at the same time: there blocks are run twice, as wanted."""
    explain(plain())  # from here on torch's checkpointing heeds what is borrowed
    calls: list[int] = []
    block = plain()
    block[0].register_forward_hook(lambda *_: calls.append(1))

    def train() -> None:
        for reentrant in (True, False):
            checkpoint(block, X.clone().requires_grad_(), use_reentrant=reentrant).sum().backward()

    with borrow(plain()):
        thread = threading.Thread(target=train)
        thread.start()
        thread.join()
    assert len(calls) == 4
    train()
    assert len(calls) == 8
    with borrow(plain()):
        checkpoint(block, X, use_reentrant=False)
    assert len(calls) == 9


@pytest.mark.parametrize("layer", ["first", "blocks.0.1"])
def test_other_checkpointing_is_refused(layer: str) -> None:
    saving = Saving(Again.apply)
    with pytest.raises(RetinaCodecError, match=r"activation checkpointing|does not depend"):
        explain(saving, layers=[layer])
    assert saving.training


@pytest.mark.filterwarnings("ignore:`torch.jit.trace:DeprecationWarning")
def test_scripted_traced_and_exported_networks_are_refused() -> None:
    network = plain()
    for made in (torch.jit.script(network), torch.jit.trace(network, X)):
        with pytest.raises(RetinaCodecError, match=r"scripted or traced.*Give the module"):
            explain(made)
        with pytest.raises(RetinaCodecError, match=r"scripted or traced"):
            rc.adapt(made, "0")
    with pytest.raises(RetinaCodecError, match=r"evaluation mode.*exported from"):
        explain(torch.export.export(network, (X,)).module())


def test_a_scripted_part_is_run_and_cannot_be_a_layer() -> None:
    torch.manual_seed(0)
    parts = [nn.Linear(7, 8), nn.Sequential(nn.Linear(8, 8), nn.Tanh()), nn.Linear(8, 3)]
    network = nn.Sequential(*parts)
    expected = contribution(network)
    mixed = nn.Sequential(parts[0], torch.jit.script(parts[1]), parts[2])
    np.testing.assert_allclose(contribution(mixed), expected, atol=1e-6)
    np.testing.assert_allclose(contribution(mixed, dtype=torch.float64), expected, atol=1e-6)
    for layer in ("1", "1.0"):
        with pytest.raises(RetinaCodecError, match=r"scripted or traced. Explain other layers"):
            explain(mixed, layers=[layer])


def test_weights_that_are_not_there_yet() -> None:
    lazy = nn.Sequential(nn.LazyLinear(4), nn.ReLU(), nn.Linear(4, 3))
    for use in (
        lambda: explain(lazy),
        lambda: rc.adapt(lazy, "*"),
        lambda: rc.analysis.perturb(lazy, X, "0", np.ones((1, 4))),
    ):
        with pytest.raises(RetinaCodecError, match=r"'0\.weight' is lazy.*network\(inputs\[:1\]\)"):
            use()
    lazy(X[:1])  # the way out
    explain(lazy)
    with pytest.raises(RetinaCodecError, match=r"on the device 'meta'.*Load the weights"):
        explain(plain().to("meta"))


class Phases(nn.Module):
    """Complex weights."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two = nn.Linear(7, 8), nn.Linear(8, 3)
        self.turn = nn.Parameter(torch.randn(8, 8, dtype=torch.complex64))
        self.shift = torch.randn(8)  # neither weight nor buffer
        self.mix = torch.randn(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = (self.one(x) + self.shift) @ self.mix
        return self.two((hidden.to(self.turn.dtype) @ self.turn).abs())


def test_another_precision_keeps_imaginary_parts_and_converts_plain_tensors() -> None:
    network = Phases()
    found = contribution(network, "one", dtype=torch.float64)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, contribution(network, "one"), atol=1e-5)
    assert network.turn.dtype == torch.complex64
    assert network.shift.dtype == torch.float32


NORMS = {
    "weight_norm": nn.utils.weight_norm,
    "spectral_norm": nn.utils.spectral_norm,
    "parametrized weight_norm": nn.utils.parametrizations.weight_norm,
    "parametrized spectral_norm": nn.utils.parametrizations.spectral_norm,
    "pruned": lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
@pytest.mark.parametrize("name", NORMS)
def test_weights_made_from_others_in_another_precision(name: str) -> None:
    network = plain()
    NORMS[name](network[0])
    network(X)  # what is made has a graph, which torch does not copy
    expected = contribution(network)
    np.testing.assert_allclose(contribution(network, dtype=torch.float64), expected, atol=1e-5)
    assert network(X).requires_grad


def test_what_cannot_be_copied_says_so_and_runs_where_it_lies() -> None:
    network = plain()
    network.lock = threading.Lock()
    with pytest.raises(RetinaCodecError, match=r"must be copied.*lock.*network\.to\("):
        explain(network, dtype=torch.float64)
    assert explain(network.double(), X.double()).attrs["dtype"] == "float64"  # the way out


class InPieces(nn.Module):
    """Each channel of the input through the same modules, by vmap."""

    def __init__(self, derived: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.read = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(36, 3)
        self.norm.running_mean.normal_()
        self.by_hand, self.derived = False, derived

    def piece(self, one: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.norm(self.conv(one[:, None]))).flatten(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.derived:
            slopes = torch.func.jvp(self.piece, (x[:, 0],), (x[:, 1],))[1]
            return self.read(slopes)
        if self.by_hand:
            return self.read(torch.stack([self.piece(x[:, n]) for n in range(2)]).mean(0))
        return self.read(torch.vmap(self.piece, in_dims=1)(x).mean(0))


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_batch_norm_in_vmap(method: Method) -> None:
    pieces, x = InPieces(), inputs_of(4, 2, 5, 5)
    found = contribution(pieces, "read", inputs=x, method=method)
    pieces.by_hand = True
    expected = contribution(pieces, "read", inputs=x, method=method)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    pieces.by_hand = False
    with pytest.raises(RetinaCodecError, match=r"'conv' must see whole batches.*torch\.vmap"):
        explain(pieces, x, ["conv"], method=method)


def test_batch_norm_in_a_derivative_of_the_networks_own() -> None:
    """A network that returns a derivative of itself."""
    network, x = InPieces(derived=True), inputs_of(4, 2, 5, 5)
    expected = network.eval()(x).detach()
    found = explain(network, x, ["read"])["responses/prediction"]
    np.testing.assert_allclose(found, expected, atol=1e-6)


# ------------------------------------------------------------------------------ outputs, inputs


class Shaped(nn.Module):
    def __init__(self, shape: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two, self.shape = nn.Linear(7, 8), nn.Linear(8, 3), shape

    def forward(self, x: torch.Tensor) -> Any:
        return self.shape(self.two(self.one(x).tanh()))


SUM = {"target": rc.targets.Sum(), "layers": ["one"]}


@pytest.mark.parametrize(
    "shape", [lambda y: y[:, 0], lambda y: y[:, :1].squeeze(), lambda y: (y[:, 0], y)]
)
@pytest.mark.parametrize("count", [1, 6])
def test_one_number_per_input(shape: Callable[[torch.Tensor], Any], count: int) -> None:
    """(batch,) is (batch, 1): the same numbers, also where the batch of one loses its axis."""
    expected = explain(Shaped(lambda y: y[:, :1]), X[:count], **SUM)
    network = Shaped(shape)
    found = explain(network, X[:count], **SUM)
    for where in ("layers/one/contribution", "responses/prediction", "responses/target"):
        np.testing.assert_allclose(found[where], expected[where], atol=1e-6)
    ones = np.ones((1, 8))
    assert rc.analysis.perturb(network, X[:count], "one", ones)["output"].shape == (1, count, 1)
    mapped = rc.analysis.input_map(
        network, X[:count], "one", target=rc.targets.Sum(), method=InputGrad()
    )
    assert mapped["map"].shape == (count, 7)


@pytest.mark.parametrize("shape", [lambda y: y.squeeze(), lambda y: y.mean(0), lambda y: y.mean()])
def test_outputs_without_the_axis_of_inputs_are_refused(
    shape: Callable[[torch.Tensor], Any],
) -> None:
    with pytest.raises(RetinaCodecError, match=r"for a batch of \d.*no squeeze\(\) or mean\(\)"):
        explain(Shaped(shape), X, **SUM)


WHOLE = torch.randint(0, 255, (6, 7), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool])
@pytest.mark.parametrize("method", [*METHODS, SmoothGrad()], ids=repr)
def test_whole_numbers_are_refused_and_the_way_out_is_followed(
    dtype: torch.dtype, method: Method
) -> None:
    pixels = WHOLE.to(dtype)
    with pytest.raises(RetinaCodecError, match=r"convert them to float.*inputs\.float\(\)"):
        explain(plain(), pixels, method=method)
    explain(plain(), pixels.float() / 255, method=method)


def test_a_network_that_converts_pixels_itself() -> None:
    """Gradients at hidden layers need no path; paths and noise need floating inputs."""
    network = nn.Sequential(nn.Flatten(), plain())
    network[0].forward = lambda x: x.float() / 255  # type: ignore[method-assign]
    found = contribution(network, "1.0", inputs=WHOLE.to(torch.uint8))
    expected = contribution(plain(), inputs=WHOLE.float() / 255)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    for method in (IntegratedGradients(3), InputGrad(), SmoothGrad()):
        with pytest.raises(RetinaCodecError, match=r"Convert pixels to float"):
            explain(network, WHOLE.to(torch.uint8), ["1.0"], method=method)


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: x.numpy(), lambda x: {"input": x}])
def test_complex_numbers_are_refused(wrap: Callable[[Any], Any]) -> None:
    with pytest.raises(RetinaCodecError, match=r"must be real.*complex.*Convert them to float"):
        explain(plain(), wrap(X.to(torch.complex64)))


def test_inputs_that_the_network_cannot_take() -> None:
    with pytest.raises(
        RetinaCodecError, match=r"Sequential could not run.*\(1, 9\).*shape"
    ) as told:
        explain(plain(), inputs_of(4, 9))
    assert "\n" not in str(told.value)
    assert isinstance(told.value.__cause__, RuntimeError)
    with pytest.raises(RetinaCodecError, match=r"could not run"):
        rc.analysis.perturb(plain(), inputs_of(4, 9), "0", np.ones((1, 8)))


# ----------------------------------------------------------------------------- names, attributes


@pytest.mark.parametrize(
    "own", [3, 2.5, {"a": 1}, ["conv", "pool"], [1, 2], "all", torch.zeros(2), (), len, None]
)
def test_an_attribute_layers_that_names_no_layers(own: Any) -> None:
    network = plain()
    network.layers = own
    with pytest.raises(RetinaCodecError, match=r"layers must name the submodules.*0, 1, 2"):
        explain(network, layers=None)
    network.layers = ["0", "[2]"]
    assert list(explain(network, layers=None)["layers"]) == ["0", "2"]


class Searched(nn.Module):
    def __init__(self, cells: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two = nn.Linear(7, 8), nn.Linear(8, 3)
        self.cells = cells

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(self.one(x).tanh())


@pytest.mark.parametrize(
    "own", [nn.ModuleList([nn.Linear(2, 2)] * 3), [nn.Linear(2, 2)] * 3, 3, "abc", {"a": 1}]
)
def test_an_attribute_cells_that_names_no_cells(own: Any) -> None:
    found = explain(Searched(own), layers=["one"], target=rc.targets.Unit(1))
    assert found["responses/prediction"]["cell"].values.tolist() == [0, 1, 2]
    assert found["responses/prediction"].attrs["units"] == "1"


@pytest.mark.parametrize("name", ["x/y", "x\\y", "x@1", "x ", "x\n"])
def test_names_that_do_not_fit_into_results(name: str) -> None:
    """None is left out in silence, and the way out gives the numbers of a network named well."""
    network = nn.Sequential()
    for key, layer in zip(("x", name, "g"), plain(), strict=True):
        network.add_module(key, layer)
    for wanted in ([name], "*", ["x", name]):
        with pytest.raises(RetinaCodecError, match=r"must fit into results.*add_module"):
            explain(network, layers=wanted)
    network = nn.ModuleDict({"inner": network})
    network.forward = lambda x: network["inner"](x)  # type: ignore[method-assign]
    network.add_module("my_layer", network.get_submodule(f"inner.{name}"))
    found = explain(network, layers=["inner.x", "my_layer"], method=IntegratedGradients(4))
    assert rc.completeness(found)["layer"].values.tolist() == ["inner.x", "my_layer"]
    found = rc.decompose(found, rc.modes.PCA(modes=2), gap=0, progress=False)
    assert "modes" in found["layers/my_layer"]
    expected = contribution(plain(), "1", method=IntegratedGradients(4))
    np.testing.assert_allclose(found["layers/my_layer/contribution"], expected, atol=1e-6)


# ------------------------------------------------------------------------------------- contexts


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_autocast_of_the_caller_changes_nothing(method: Method) -> None:
    network = plain()
    found, options = explain(network, method=method), {"method": method}
    masks = np.eye(8)
    outputs = rc.analysis.perturb(network, X, "0", masks)["output"]
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.inference_mode():
        again = explain(network, **options)
        assert rc.analysis.perturb(network, X, "0", masks)["output"].equals(outputs)
    for where in ("layers/0/contribution", "layers/0/activation", "responses/prediction"):
        np.testing.assert_array_equal(again[where], found[where])
    assert again.attrs["dtype"] == "float32"


def test_a_network_is_described_when_no_thread_has_it() -> None:
    network, seen = plain(), []
    ready, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with borrow(network):
            ready.set()
            leave.wait(5)
            seen.append("lent")

    thread = threading.Thread(target=hold)
    thread.start()
    assert ready.wait(5)
    timer = threading.Timer(0.1, leave.set)
    timer.start()
    assert when_free(network, lambda free: free.training)
    assert seen == ["lent"]
    thread.join()


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
def test_scores_of_a_network_that_torch_does_not_copy() -> None:
    """Against a network of noise, made from a copy; under autocast too."""
    network = plain()
    nn.utils.weight_norm(network[0])
    network(X)
    inputs, options = inputs_of(40, 7), {"target": rc.targets.Sum(), "progress": False}
    tree = rc.contribute(
        network, inputs, layers=["0"], method=IntegratedGradients(2), **options
    )  # fmt: skip
    tree = rc.decompose(tree, rc.modes.NMF(modes=2, active=2), gap=0, progress=False)
    chosen = {"settings": rc.modes.ScoreSettings(limits=(2,), times=3), "seeds": 2, **options}
    expected = rc.score_modes(tree, network=network, inputs=inputs, **chosen)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = rc.score_modes(tree, network=network, inputs=inputs, **chosen)
    for one in (expected, found):
        assert np.isfinite(one["layers/0/score/noise_match"])
    np.testing.assert_array_equal(
        found["layers/0/score/noise_match"], expected["layers/0/score/noise_match"]
    )


@pytest.mark.parametrize("own", [5, "abc", nn.ModuleList([nn.Linear(2, 2)]), torch.zeros(3), None])
def test_an_attribute_classes_that_names_no_outputs(own: Any) -> None:
    network, inputs, labels = Searched(()), inputs_of(30, 7), np.arange(30) % 3
    network.classes = own
    modes = explain(network, inputs, ["one"], method=IntegratedGradients(2))
    modes = rc.decompose(modes, rc.modes.NMF(modes=2, active=2), gap=0, progress=False)
    found = rc.analysis.control_curves(
        network, inputs, labels, modes, mode_labels=labels, progress=False,
        settings=rc.analysis.ControlSettings(bootstraps=4, trials=2),
    )  # fmt: skip
    assert found["layer"].values.tolist() == ["one"]
