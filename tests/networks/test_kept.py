"""After every public call the caller's network and arrays are what they were, to the byte."""

import threading
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import retina_codec as rc
from retina_codec.analysis.hypotheses.silencing import silence_channels
from retina_codec.errors import RecordingWarning
from retina_codec.networks import kept
from retina_codec.networks.borrowed import borrow
from retina_codec.networks.retina.model import RetinaCNN
from retina_codec.probing.interventions import Silencing
from tests.networks.restless import MISCHIEF, Alarm, Crash, Restless, seen_of
from tests.small import small_network, small_recording

KINDS = tuple(MISCHIEF)
LAYERS = ["parts.0", "parts.1"]
SIGNS = ["inhibitory", "excitatory"]
COUNT = 6


def restless(seed: int = 0) -> Restless:
    """All kinds of change in two parts; flags and gradients of all sorts."""
    network = Restless((KINDS[::2], KINDS[1::2]), seed=seed)
    network.train()
    network.parts[0].norm.eval()
    network.read.weight.requires_grad_(False)
    network.read.bias.grad = torch.ones(3)
    network.read.register_forward_pre_hook(lambda *_: None)
    return network


def modes_of(samples: int = COUNT, channels: int = 4) -> xr.DataTree:
    random = np.random.default_rng(1)
    data = xr.Dataset(
        {
            "dictionary": (("mode", "sign", "channel"), random.random((2, 2, channels))),
            "loading": (("sample", "mode"), random.random((samples, 2))),
        },
        coords={"mode": [0, 1], "sign": SIGNS},
    )
    labels = xr.Dataset({"target": ("sample", random.random(samples))})
    return xr.DataTree.from_dict({"/layers/parts.0/modes": data, "/responses": labels})


def inputs_of(samples: int = COUNT) -> torch.Tensor:
    return torch.randn(samples, 4, generator=torch.Generator().manual_seed(2))


def explain(method: Any, **options: Any) -> Callable[[nn.Module, Any], Any]:
    def run(network: nn.Module, inputs: Any) -> Any:
        return rc.contribute(
            network, inputs, target=rc.targets.TopK(1), method=method, layers=LAYERS,
            progress=False, **options,
        )  # fmt: skip

    return run


def scored(network: nn.Module, inputs: Any) -> Any:
    target, method = rc.targets.Sum(), rc.methods.IntegratedGradients(2)
    options = {"target": target, "progress": False}
    tree = rc.contribute(network, inputs, layers=LAYERS[:1], method=method, **options)
    tree = rc.decompose(tree, rc.modes.NMF(modes=2, active=2), gap=0, progress=False)
    chosen = rc.modes.ScoreSettings(limits=(2,), times=3)
    return rc.score_modes(tree, settings=chosen, network=network, inputs=inputs, seeds=2, **options)


def controlled(network: nn.Module, inputs: Any) -> Any:
    labels = np.arange(len(inputs)) % 3
    modes = explain(rc.methods.ActGrad())(network, inputs)
    modes = rc.decompose(modes, rc.modes.NMF(modes=2, active=2), gap=0, progress=False)
    chosen = rc.analysis.ControlSettings(bootstraps=4, trials=2)
    return rc.analysis.control_curves(
        network, inputs, labels, modes, mode_labels=labels, settings=chosen, progress=False
    )


def mapped(network: nn.Module, inputs: Any) -> Any:
    return rc.analysis.input_map(
        network, inputs, "parts.1", target=rc.targets.Sum(), method=rc.methods.ActGrad(), steps=2
    )


def mode_mapped(network: nn.Module, inputs: Any) -> Any:
    return rc.analysis.mode_maps(network, inputs, modes_of(len(inputs)), "parts.0", 0)


def perturbed(network: nn.Module, inputs: Any) -> Any:
    return rc.analysis.perturb(
        network, inputs, "parts.0", np.eye(4), held_at="mean", progress=False
    )


USES = {
    "contribute, integrated gradients": explain(rc.methods.IntegratedGradients(2)),
    "contribute, hidden path": explain(rc.methods.IntegratedGradients(2, path="hidden")),
    "contribute, input × gradient": explain(rc.methods.InputGrad()),
    "contribute, gradients": explain(rc.methods.ActGrad()),
    "contribute, smooth": explain(rc.methods.SmoothGrad()),
    "contribute, float64": explain(rc.methods.ActGrad(), dtype=torch.float64),
    "input_map": mapped,
    "mode_maps": mode_mapped,
    "perturb": perturbed,
    "control_curves": controlled,
    "score_modes": scored,
    "adapt": lambda network, _: rc.adapt(network, "*"),
}


def check(use: Callable[[nn.Module, Any], Any], network: nn.Module, inputs: Any) -> None:
    """The network and the inputs are byte for byte as before, whether it works or not."""
    before, copied = seen_of(network), inputs.clone()
    try:
        use(network, inputs)
    except Crash:
        pass
    assert seen_of(network) == before
    assert torch.equal(inputs, copied)
    assert inputs.grad is None
    assert not inputs.requires_grad


@pytest.mark.parametrize("use", USES)
def test_a_restless_network_comes_back_as_it_was(use: str) -> None:
    check(USES[use], restless(), inputs_of(30 if use == "score_modes" else COUNT))


@pytest.mark.parametrize("crash_at", [1, 3])
@pytest.mark.parametrize("use", [use for use in USES if use != "adapt"])
def test_it_comes_back_after_a_crash_in_the_middle(use: str, crash_at: int) -> None:
    network = restless()
    network.alarm.crash_at = crash_at
    check(USES[use], network, inputs_of(30 if use == "score_modes" else COUNT))
    assert network.alarm.runs >= min(crash_at, 2) or "float64" in use  # there a copy runs


@pytest.mark.parametrize("crash_at", [1, 2, 3])
def test_it_comes_back_after_a_crash_in_the_target(crash_at: int) -> None:
    alarm = Alarm()
    alarm.crash_at = crash_at

    def target(outputs: torch.Tensor) -> torch.Tensor:
        alarm.tick()
        return outputs.sum(1)

    def use(network: nn.Module, inputs: torch.Tensor) -> None:
        options = {"target": target, "method": rc.methods.IntegratedGradients(3), "batch_size": 2}
        with pytest.raises(Crash):
            rc.contribute(network, inputs, layers=LAYERS, progress=False, **options)

    check(use, restless(), inputs_of())


class RestlessRetina(RetinaCNN):
    """A retina network that counts and remembers."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.seen = getattr(self, "seen", 0) + len(inputs)
        self.conv1.weight.data = self.conv1.weight.data.clone()
        self.alarm.tick()
        return super().forward(inputs)


@pytest.fixture(scope="module")
def retina_results() -> tuple[xr.DataTree, xr.DataTree]:
    network = small_network()
    recording = small_recording(network, bins=300)
    chosen = rc.analysis.AnalysisSettings(
        steps=2, modes=4, active=2, clusters=range(2, 4), own_windows=10, copies=0
    )
    return recording, rc.analyze(
        recording, network, settings=chosen, hypotheses=False, progress=False
    )


RETINA_USES = {
    "predict_rates": lambda n, rec, _: rc.networks.predict_rates(n, rec["test"]),
    "contribute": lambda n, rec, _: rc.contribute(
        n, rec["test"], target=rc.targets.Sum(), method=rc.methods.InputGrad(), progress=False
    ),
    "own_contributions": lambda n, rec, found: rc.analysis.own_contributions(
        n, rec["test"], found, windows=10, steps=2, progress=False
    ),
    "receptive_fields": lambda n, rec, found: rc.receptive_fields(
        n, rec["test"], found, layer="conv2", progress=False
    ),
    "all_fields": lambda n, rec, _: rc.analysis.all_fields(n, rec["test"], every=20),
    "separable_kernels": lambda n, rec, _: rc.analysis.separable_kernels(n, rec["test"], samples=2),
    "silence_channels": lambda n, rec, _: silence_channels(
        n, rec["test"], [Silencing("conv1", (0,))], block=0.1
    ),
    "hypothesize": lambda n, rec, found: rc.hypothesize(
        n, rec, found, found, progress=False,
        settings=rc.analysis.HypothesisSettings(bootstraps=20, shifts=19),
    ),
    "analyze": lambda n, rec, _: rc.analyze(
        rec, n, hypotheses=False, progress=False,
        settings=rc.analysis.AnalysisSettings(
            steps=2, modes=4, active=2, clusters=range(2, 4), own_windows=10, copies=0
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("crash_at", [0, 2])
@pytest.mark.parametrize("use", RETINA_USES)
def test_a_retina_network_and_its_recording_come_back(
    use: str, crash_at: int, retina_results: tuple[xr.DataTree, xr.DataTree]
) -> None:
    network = small_network()
    network.__class__, network.alarm = RestlessRetina, Alarm()
    network.alarm.crash_at = crash_at
    network.train()
    network.norm2.eval()
    recording, found = retina_results
    before, copies = seen_of(network), [recording.copy(deep=True), found.copy(deep=True)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            RETINA_USES[use](network, recording, found)
        except Crash:
            assert crash_at
    assert seen_of(network) == before
    xr.testing.assert_identical(recording, copies[0])
    xr.testing.assert_identical(found, copies[1])


QUICK = ["contribute, integrated gradients", "contribute, gradients", "perturb", "input_map"]


def draw_and_check(data: st.DataObject) -> None:
    kinds = st.lists(st.sampled_from(KINDS), max_size=4).map(tuple)
    network = Restless((data.draw(kinds), data.draw(kinds)), seed=data.draw(st.integers(0, 3)))
    for module in network.modules():
        module.training = data.draw(st.booleans())
    for parameter in network.parameters():
        parameter.requires_grad_(data.draw(st.booleans()))
        if data.draw(st.integers(0, 3)) == 0:
            parameter.grad = torch.ones_like(parameter)
    network.alarm.crash_at = data.draw(st.integers(0, 8))
    check(USES[data.draw(st.sampled_from(QUICK))], network, inputs_of(data.draw(st.integers(1, 3))))


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_networks_drawn_at_random_come_back(data: st.DataObject) -> None:
    draw_and_check(data)


@pytest.mark.slow
@settings(max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_many_networks_drawn_at_random_come_back(data: st.DataObject) -> None:
    draw_and_check(data)


def test_large_weights_are_checked_and_a_change_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond some size nothing is copied: buffers first, then the small weights."""
    monkeypatch.setattr(kept, "COPIED_BYTES", 100)
    network = Restless((("clamped_weight", "inplace", "bounded_weight"),))
    with pytest.warns(RecordingWarning, match=r"parts\.0\.linear\.weight.*copy\.deepcopy"):
        explain(rc.methods.ActGrad())(Restless((("clamped_weight",), ())), inputs_of())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with borrow(network) as lent:
            del lent
            network.parts[0].level.add_(1)
    assert not network.parts[0].level.any()


@pytest.mark.filterwarnings("ignore:Sparse CSR:UserWarning")
@pytest.mark.parametrize("layout", ["to_sparse", "to_sparse_csr"])
def test_sparse_and_complex_buffers_come_back(layout: str) -> None:
    network = nn.Linear(3, 3)
    dense = torch.eye(3)
    network.register_buffer("graph", getattr(dense, layout)())
    network.register_buffer("phase", torch.ones(2, dtype=torch.complex64))
    with borrow(network):
        network.graph.values().mul_(2) if layout == "to_sparse_csr" else network.graph.mul_(2)
        network.phase.mul_(1j)
    assert torch.equal(network.graph.to_dense(), dense)
    assert torch.equal(network.phase, torch.ones(2, dtype=torch.complex64))


def test_two_threads_take_turns_also_at_what_two_networks_share() -> None:
    """The second waits; what is shared is never left in evaluation mode."""
    torch.manual_seed(0)
    body = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 16))
    heads = [nn.Sequential(body, nn.ReLU(), nn.Linear(16, n + 2)) for n in range(3)]
    inputs = torch.randn(40, 4)
    options = {
        "target": rc.targets.TopK(1), "method": rc.methods.IntegratedGradients(8, path="hidden"),
        "layers": ["0.0", "0.2"], "progress": False, "batch_size": 4,
    }  # fmt: skip
    alone = [rc.contribute(head, inputs, **options)["layers/0.0/contribution"] for head in heads]
    wrong: list[Any] = []

    def work(number: int) -> None:
        try:
            found = rc.contribute(heads[number % 3], inputs, **options)["layers/0.0/contribution"]
            np.testing.assert_allclose(found, alone[number % 3], atol=1e-6)
        except Exception as error:  # an assertion in a thread would be lost
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert all(module.training for head in heads for module in head.modules())
    assert all(p.requires_grad for head in heads for p in head.parameters())


def test_threads_with_networks_of_their_own_do_not_disturb_torchs_switches() -> None:
    """Transformers at once: fused blocks and forward-mode derivatives are the process's own."""
    torch.manual_seed(0)
    networks = []
    for _ in range(3):
        block = nn.TransformerEncoderLayer(8, 2, 8, batch_first=True, dropout=0.0)
        encoder = nn.TransformerEncoder(block, 1, enable_nested_tensor=False)
        networks.append(nn.Sequential(encoder, nn.Flatten(), nn.Linear(24, 3)))
    inputs = torch.randn(8, 3, 8)
    options = {
        "target": rc.targets.TopK(1), "method": rc.methods.InputGrad(), "progress": False,
        "layers": ["0.layers.0.linear1"], "batch_size": 1,
    }  # fmt: skip
    where = "layers/0.layers.0.linear1/contribution"
    alone = [rc.contribute(network, inputs, **options)[where] for network in networks]
    switch, wrong = torch.backends.mha.get_fastpath_enabled(), []

    def work(number: int) -> None:
        try:
            found = rc.contribute(networks[number], inputs, **options)[where]
            np.testing.assert_allclose(found, alone[number], atol=1e-6)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert torch.backends.mha.get_fastpath_enabled() == switch


FITS = ["SparseAutoencoder", "TopKAutoencoder", "NMF", "PCA"]


@pytest.mark.parametrize("what", [*FITS, "fit_network"])
def test_what_fits_weights_does_not_heed_the_callers_context(
    what: str, retina_results: tuple[xr.DataTree, xr.DataTree]
) -> None:
    """Autocast, inference mode and no_grad of the caller: the same modes to the last bit."""
    found, own = retina_results[1], small_recording(bins=60, train_bins=300)

    def use() -> Any:
        if what == "fit_network":
            fitted = rc.fit_network(
                own, history=8, channels=(2, 2), kernel_sizes=(3, 3, 3), progress=False,
                settings=rc.networks.TrainingSettings(epochs=1),
            )  # fmt: skip
            return rc.networks.predict_rates(fitted, own["test"])
        decomposition = rc.modes.registry.get(what)()
        return rc.decompose(found, decomposition, layers=["conv2"], progress=False)

    expected = use()
    for context in (lambda: torch.autocast("cpu", torch.bfloat16), torch.inference_mode):
        with context():
            again = use()
        assert again.identical(expected)
