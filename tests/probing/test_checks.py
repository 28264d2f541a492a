"""Networks that do not treat every input on its own, or not always the same, are found at once."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

import retina_codec as rc
from retina_codec import RecordingWarning, RetinaCodecError
from retina_codec.contributions.maps import input_map
from retina_codec.methods import ActGrad, InputGrad, IntegratedGradients
from retina_codec.networks.adapter import adapt
from retina_codec.probing.hooks import HookedFunction
from retina_codec.probing.interventions import perturb
from retina_codec.targets import Sum, TopK, Unit


class Runs(nn.Module):
    """A small network that does something to its hidden layer."""

    def __init__(self, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.f, self.g, self.change = nn.Linear(5, 6), nn.Linear(6, 3), change

    def forward(self, x: torch.Tensor) -> Any:
        return self.g(self.change(self.f(x).relu()))


def run(network: nn.Module, inputs: Any = None, **more: Any) -> Any:
    torch.manual_seed(1)
    inputs = torch.randn(5, 5) if inputs is None else inputs
    options = {"target": TopK(1), "method": IntegratedGradients(4), "layers": ["f"]} | more
    return rc.contribute(network, inputs, **options)


RANDOM = {
    "dropout": functional.dropout,
    "noise": lambda h: h + torch.randn_like(h),
    "rare dropout": lambda h: functional.dropout(h, 0.05),
    "noise of numpy": lambda h: h + float(np.random.normal()),  # noqa: NPY002
}


@pytest.mark.parametrize("name", RANDOM)
def test_random_steps_that_never_sleep_are_refused(name: str) -> None:
    with pytest.raises(RetinaCodecError, match="draws random numbers in evaluation mode"):
        run(Runs(RANDOM[name]))


def test_a_state_that_is_kept_from_call_to_call_is_refused() -> None:
    calls: list[int] = []

    def grow(h: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return h * len(calls)

    with pytest.raises(RetinaCodecError, match="keeps something from call to call"):
        run(Runs(grow))


def test_random_numbers_that_are_not_seen_are_a_doubt() -> None:
    def rarely(h: torch.Tensor) -> torch.Tensor:
        return functional.dropout(h, 1e-9)

    with pytest.warns(RecordingWarning, match="draws random numbers"):
        run(Runs(rarely))


def test_seeded_or_sleeping_random_steps_are_healthy() -> None:
    run(Runs(nn.Dropout(0.5)))


BESIDE = {
    "batch normalisation": nn.BatchNorm1d(6, track_running_stats=False),
    "mean of the batch": lambda h: h - h.mean(0),
    "attention across the batch": lambda h: (h @ h.T).softmax(1) @ h,
    "the input before": lambda h: h + h.cumsum(0),
    "the input after": lambda h: h + h.flip(0).cumsum(0).flip(0),
    "sorted batch": lambda h: h.sort(0).values,
}


@pytest.mark.parametrize("name", list(BESIDE)[1:])
def test_outputs_that_depend_on_the_batch_are_refused_unless_inputs_are_alone(name: str) -> None:
    network = Runs(BESIDE[name])
    with pytest.raises(RetinaCodecError, match=r"another .*batch_size=1"):
        run(network)
    alone = run(network, batch_size=1)
    torch.manual_seed(1)
    x = torch.randn(5, 5)
    expected = torch.cat([network(one[None]) for one in x]).detach()
    np.testing.assert_allclose(alone["responses/prediction"], expected, rtol=1e-5, atol=1e-6)


def test_batch_normalisation_that_needs_two_inputs_is_refused() -> None:
    with pytest.raises(RetinaCodecError, match="Expected more than 1 value per channel"):
        run(Runs(BESIDE["batch normalisation"]))


def test_equal_inputs_do_not_hide_the_batch() -> None:
    with pytest.raises(RetinaCodecError, match="another stands beside it, it changes"):
        run(Runs(lambda h: h - h.mean(0)), torch.ones(4, 5))


def test_maps_and_perturbations_look_too() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 5)
    crossed = Runs(lambda h: h - h.mean(0))
    with pytest.raises(RetinaCodecError, match="beside"):
        input_map(crossed, x, "f", target=TopK(1), method=InputGrad())
    with pytest.raises(RetinaCodecError, match="beside"):
        perturb(crossed, x, "f", np.ones((2, 6), np.float32))
    found = perturb(crossed, x, "f", np.ones((2, 6), np.float32), batch_size=1)
    np.testing.assert_allclose(found["output"][0], found["unperturbed"])


class Towers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.f, self.b = nn.Linear(5, 4), nn.Linear(6, 4)

    def forward(self, image: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        return self.f(image).tanh() @ self.b(text).tanh().T


def test_products_across_the_batch_are_refused() -> None:
    pairs = {"image": torch.randn(5, 5), "text": torch.randn(5, 6)}
    with pytest.raises(RetinaCodecError, match=r"\(1,\) alone and \(3,\) beside"):
        run(Towers(), pairs, target=Sum())
    alone = run(Towers(), pairs, target=Sum(), batch_size=1)
    assert alone["responses/prediction"].shape == (5, 1)


@pytest.mark.parametrize(
    ("change", "rows"),
    [(lambda y: y.T[..., None], 3), (lambda y: y.repeat(2, 1), 2), (lambda y: y[:0], 0)],
)
def test_outputs_need_one_row_for_every_input(change: Any, rows: int) -> None:
    class Other(Runs):
        def forward(self, x: torch.Tensor) -> Any:
            return change(self.g(self.f(x)))

    with pytest.raises(RetinaCodecError, match=rf"for 1 input it returned \({rows},"):
        run(Other(nn.Identity()), method=ActGrad(), target=Sum())


def test_a_network_for_one_input_at_a_time() -> None:
    class One(Runs):
        def forward(self, x: torch.Tensor) -> Any:
            return super().forward(x.view(1, 5))

    with pytest.raises(RetinaCodecError, match="runs on one input, but not on several"):
        run(One(nn.Identity()))
    assert run(One(nn.Identity()), batch_size=1)["responses/prediction"].shape == (5, 3)


class Texts(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        return torch.arange(1, 4 + index)


def padded(rows: Any) -> torch.Tensor:
    return nn.utils.rnn.pad_sequence(rows, batch_first=True)


class Reads(nn.Module):
    def __init__(self, masked: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words, self.f, self.g = nn.Embedding(20, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.masked = masked

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        h, there = self.f(self.words(ids)).relu(), (ids > 0)[..., None]
        return self.g((h * there).sum(1) / there.sum(1) if self.masked else h.mean(1))


def test_padding_by_batch_is_told_where_it_changes_the_output() -> None:
    loader = torch.utils.data.DataLoader(Texts(), collate_fn=padded)
    with pytest.warns(RecordingWarning, match="Results depend on batch_size"):
        run(Reads(False), loader, batch_size=2)
    healthy = run(Reads(True), loader, batch_size=2)
    assert healthy["layers/f/contribution"].sizes == {"sample": 4, "sign": 2, "channel": 8}


def test_samples_of_several_lengths_need_padding() -> None:
    with pytest.raises(RetinaCodecError, match=r"samples must have one shape.*\[3\].*batch_size=1"):
        run(Reads(True), Texts())
    found = run(Reads(True), Texts(), batch_size=1)
    assert found["layers/f/contribution"].sizes["sample"] == 4


def test_units_of_several_lengths_cannot_stand_in_one_array() -> None:
    loader = torch.utils.data.DataLoader(Texts(), collate_fn=padded)
    whole = {"reduction": rc.reductions.AllUnits(), "batch_size": 2}
    with pytest.raises(RetinaCodecError, match=r"layer 'f' has \(8, 4\) for input 0, \(8, 3\)"):
        run(Reads(True), loader, **whole)
    with pytest.raises(RetinaCodecError, match="Pad all inputs to one length"):
        input_map(
            Reads(True), loader, "f", target=Sum(), method=IntegratedGradients(2), batch_size=2
        )
    with pytest.raises(RetinaCodecError, match="one input of shape"):
        run(Reads(True), loader, method=IntegratedGradients(2, baseline="mean"))


# ------------------------------------------------------------------ classes before time


class Over(nn.Module):
    """Classes at every moment; ``end`` makes (b, class, time) or (b, time, class)."""

    def __init__(self, end: Callable[[Any, torch.Tensor], torch.Tensor], classes: int = 6) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.f, self.end = nn.Conv1d(2, 4, 3), end
        self.conv, self.linear = nn.Conv1d(4, classes, 1), nn.Linear(4, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.end(self, self.f(x).relu())


BEFORE = {
    "convolution": lambda n, h: n.conv(h),
    "convolution without a module": lambda n, h: functional.conv1d(h, n.conv.weight),
    "log-probabilities": lambda n, h: n.conv(h).log_softmax(1),
    "turned": lambda n, h: n.linear(h.mT).mT,
}
AFTER = {
    "linear": lambda n, h: n.linear(h.mT),
    "tied weights": lambda n, h: h.mT @ n.linear.weight.T,
    "turned": lambda n, h: n.conv(h).mT,
}


@pytest.mark.parametrize("classes", [6, 18])  # 18 moments: sizes do not tell
@pytest.mark.parametrize("name", BEFORE)
def test_classes_before_time_are_asked_for(name: str, classes: int) -> None:
    network, x = Over(BEFORE[name], classes).eval(), torch.randn(3, 2, 20)
    for target in (TopK(1), rc.targets.Entropy("mean"), rc.targets.Contrast()):
        with pytest.raises(RetinaCodecError, match="class_axis="):
            run(network, x, target=target, method=ActGrad())
    told = run(adapt(network, ["f"], class_axis=1), x, layers=None, method=ActGrad())
    expected = network(x).detach()[:, :, -1].amax(1)
    np.testing.assert_allclose(told["responses/target"], expected, rtol=1e-6)
    assert told.attrs["class_axis"] == 1


@pytest.mark.parametrize("classes", [6, 18])
@pytest.mark.parametrize("name", AFTER)
def test_classes_after_time_are_taken(name: str, classes: int) -> None:
    network, x = Over(AFTER[name], classes).eval(), torch.randn(3, 2, 20)
    found = run(network, x, method=ActGrad())
    expected = network(x).detach()[:, -1].amax(1)
    np.testing.assert_allclose(found["responses/target"], expected, rtol=1e-6)


@pytest.mark.parametrize("axis", [0, 3, -3])
def test_an_axis_that_does_not_exist(axis: int) -> None:
    network = adapt(Over(BEFORE["convolution"]).eval(), ["f"], class_axis=axis)
    with pytest.raises(RetinaCodecError, match="class_axis must be between 1 and 2"):
        run(network, torch.randn(3, 2, 20), layers=None)


# ------------------------------------------------------------------ derivatives carried forward


CARRIED = [InputGrad(), IntegratedGradients(4, quadrature="gauss-legendre")]


@pytest.mark.parametrize(
    "method", [InputGrad(), IntegratedGradients(4, quadrature="gauss-legendre")]
)
@pytest.mark.parametrize("when", ["whole", "run before", "a part", "in place"])
def test_compiled_networks_have_the_numbers_of_plain_ones(method: Any, when: str) -> None:
    torch.manual_seed(0)
    network = Runs(nn.Tanh()).eval()
    plain = run(network, method=method)["layers/f/contribution"]
    layer = "f"
    if when == "a part":
        network.f, layer = torch.compile(network.f, backend="eager"), "f"
    elif when == "in place":
        network.compile(backend="eager")
    else:
        network, layer = torch.compile(network, backend="eager"), "_orig_mod.f"
    if when == "run before":
        network(torch.randn(2, 5))
    found = run(network, method=method, layers=[layer])[f"layers/{layer}/contribution"]
    np.testing.assert_allclose(found, plain, atol=1e-6)
    assert float(abs(plain).max()) > 0.01


class Drops(torch.autograd.Function):
    """The identity, with a backward pass and nothing carried forward."""

    @staticmethod
    def forward(values: torch.Tensor) -> torch.Tensor:
        return values.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(_: Any, gradient: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return gradient

    @staticmethod
    def jvp(_: Any, tangent: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return torch.zeros_like(tangent)


def test_derivatives_that_are_dropped_on_the_way_are_refused() -> None:
    class Wrapped(Runs):
        def forward(self, x: torch.Tensor) -> Any:
            return super().forward(Drops.apply(x))

    for method in (InputGrad(), IntegratedGradients(3, quadrature="gauss-legendre")):
        with pytest.raises(RetinaCodecError, match="derivatives carried forward must be those"):
            run(Wrapped(nn.Tanh()), method=method)
    with pytest.raises(RetinaCodecError, match="derivatives carried forward"):
        input_map(Wrapped(nn.Tanh()), torch.ones(2, 5), "f", target=Sum(), method=InputGrad())
    run(Wrapped(nn.Tanh()), method=IntegratedGradients(3))


def test_slopes_that_a_network_passes_on_on_purpose_are_not_refused() -> None:
    def straight_through(h: torch.Tensor) -> torch.Tensor:
        return h + (h.round() - h).detach()

    class Rounds(Runs):
        def forward(self, x: torch.Tensor) -> Any:
            return super().forward(straight_through(x))

    run(Rounds(nn.Tanh()), method=InputGrad())
    frozen = HookedFunction.open(Rounds(nn.Tanh()).eval(), torch.ones(1, 5), ["f"])
    assert frozen.layers == ("f",)


def test_a_first_input_at_the_baseline_is_no_proof() -> None:
    class Wrapped(Runs):
        def forward(self, x: torch.Tensor) -> Any:
            return super().forward(Drops.apply(x))

    x = torch.zeros(4, 5)
    x[2] = 1
    with pytest.raises(RetinaCodecError, match="derivatives carried forward"):
        run(Wrapped(nn.Tanh()), x, method=InputGrad())


# ------------------------------------------------------------------ alone as in a batch


STEPS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(24, 24),
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "layer norm": lambda: nn.LayerNorm(24),
    "batch norm": lambda: nn.BatchNorm1d(24),
    "sleeping dropout": lambda: nn.Dropout(0.5),
}


class Crossed(nn.Module):
    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        return h + self.share * h.mean(0)


class Noisy(nn.Module):
    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        return h * (1 + self.share * torch.rand_like(h))


drawn = st.tuples(
    st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=4),
    st.sampled_from(["none", "crossed", "noisy"]),
    st.floats(0.2, 2),
    st.integers(0, 4),
    st.integers(0, 2**16),
)


def holds_alone_as_in_a_batch(case: Any) -> None:
    """What is not refused has the same numbers alone and in a batch, run by run."""
    names, fault, share, place, seed = case
    torch.manual_seed(seed)
    steps: list[nn.Module] = [STEPS[name]() for name in names]
    if fault != "none":
        steps.insert(place % (len(steps) + 1), {"crossed": Crossed, "noisy": Noisy}[fault](share))
    network = nn.Sequential(nn.Linear(5, 24), *steps, nn.Linear(24, 3))
    x = torch.randn(4, 5)
    options = {"target": Unit(0), "method": IntegratedGradients(3), "layers": ["0"]}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            whole = rc.contribute(network, x, **options, batch_size=4)
    except (RetinaCodecError, RecordingWarning):
        assert fault != "none"
        return
    one = rc.contribute(network, x, **options, batch_size=1)
    for name in ("responses/prediction", "layers/0/contribution"):
        np.testing.assert_allclose(whole[name], one[name], rtol=1e-2, atol=1e-3)


@given(drawn)
@settings(max_examples=25, deadline=None)
def test_what_is_not_refused_is_the_same_alone_and_in_a_batch(case: Any) -> None:
    holds_alone_as_in_a_batch(case)


@pytest.mark.slow
@given(drawn)
@settings(max_examples=2000, deadline=None)
def test_what_is_not_refused_is_the_same_alone_and_in_a_batch_often(case: Any) -> None:
    holds_alone_as_in_a_batch(case)


class Speaks(nn.Module):
    """Words in, one output for each or one for all of them; notes what it is given."""

    def __init__(self, pooled: bool) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(50, 6), nn.Embedding(4, 6)
        self.f, self.g = nn.Linear(6, 6), nn.Linear(6, 3)
        self.pooled = pooled

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        h = self.words(ids) + self.places(torch.arange(4))
        h = torch.tanh(self.f(h))
        return self.g(h.mean(1) if self.pooled else h)


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("kind", ["numbers", "words, pooled", "words, one output for each"])
def test_checks_run_no_input_more_than_three_times(batch_size: int, kind: str) -> None:
    """The look at the layers, at where words enter and at the axis of classes among them."""
    seen: list[torch.Tensor] = []
    torch.manual_seed(0)
    network: nn.Module = Runs(torch.tanh)
    x = torch.randn(9, 5)
    if kind != "numbers":
        network, x = Speaks("pooled" in kind), torch.arange(36).reshape(9, 4)
    # After the run: one that only looks words up ends at the embedding.
    handle = network.register_forward_hook(lambda _, given, __: seen.append(given[0].detach()))
    run(network, x, method=ActGrad(), batch_size=batch_size)
    handle.remove()
    rows = torch.cat(seen)
    times = [int((rows == one).all(dim=1).sum()) for one in x]
    assert max(times) <= 3 + 1  # and once in the work itself
    assert min(times) == 1
    assert len(rows) <= len(x) + 6
