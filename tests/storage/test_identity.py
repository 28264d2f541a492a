"""What a run is called: the same in every process, another for anything that decides a number."""

import copy
import functools
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import transformers
from torch import nn

from retina_codec.storage.context import Context
from retina_codec.storage.identity import (
    describe_network,
    function_text,
    mark_written,
    object_text,
)
from retina_codec.storage.provenance import ADDRESS, WRITTEN, state_hash

ROOT = Path(__file__).resolve().parents[2]


def scaled(factor: Any) -> Callable[[Any], Any]:
    return lambda outputs: factor * outputs


def default(outputs: Any, factor: float = 2.0) -> Any:
    return factor * outputs


def other_default(outputs: Any, factor: float = 3.0) -> Any:
    return factor * outputs


class Bound:
    def __init__(self, factor: float) -> None:
        self.factor = factor

    def call(self, outputs: Any) -> Any:
        return self.factor * outputs


class OtherBound(Bound):
    def __call__(self, outputs: Any) -> Any:
        return outputs


def linear(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Linear(2, 2)


@pytest.mark.parametrize(
    ("make", "others"),
    [
        (lambda: scaled(2.0), [scaled(3.0), scaled(torch.ones(1)), lambda outputs: outputs]),
        (lambda: scaled(torch.ones(2)), [scaled(torch.zeros(2))]),
        (lambda: scaled(scaled(1)), [scaled(scaled(2))]),
        (lambda: default, [other_default]),
        (lambda: functools.partial(default, factor=1.0), [functools.partial(default, factor=4.0)]),
        (lambda: Bound(1.0).call, [Bound(2.0).call]),
        (lambda: linear(0), [linear(1), nn.Bilinear(1, 1, 1)]),
        (lambda: lambda x: [y + 1 for y in x], [lambda x: [y + 2 for y in x]]),
        (lambda: torch.relu, [torch.tanh]),
        (lambda: functools.lru_cache(default), [functools.lru_cache(other_default)]),
    ],
)
def test_functions_by_code_and_what_they_carry(make: Any, others: list[Any]) -> None:
    text = function_text(make())
    assert text == function_text(make())
    assert ADDRESS.search(text) is None
    assert text not in [function_text(other) for other in others]


@pytest.mark.parametrize(
    ("make", "others"),
    [
        (lambda: {"a": [1, (2.0, None)]}, [{"a": [1, (2.0, False)]}, {"b": [1, (2.0, None)]}]),
        (lambda: np.arange(3), [np.arange(3.0), np.arange(4)]),
        (lambda: np.array([{"a": 1}, None]), [np.array([{"a": 2}, None])]),
        (lambda: torch.arange(1000), [torch.arange(1000).flip(0)]),
        (lambda: {"b", "a", "c"}, [{"a", "b"}]),
        (lambda: SimpleNamespace(x=Bound(1.0)), [SimpleNamespace(x=Bound(2.0))]),
        (lambda: Bound(1.0), [OtherBound(1.0)]),
        (lambda: "x" * 500, ["x" * 499 + "y"]),
        (lambda: slice(1, 2), [slice(1, 3)]),
        (lambda: torch.float16, [torch.bfloat16]),
    ],
)
def test_objects_by_class_and_values(make: Any, others: list[Any]) -> None:
    text = object_text(make())
    assert text == object_text(make())
    assert ADDRESS.search(text) is None
    assert text not in [object_text(other) for other in others]


def test_objects_that_hold_each_other_or_nothing_to_read_come_to_an_end() -> None:
    def pair() -> SimpleNamespace:
        one, other = SimpleNamespace(), SimpleNamespace(lock=threading.Lock())
        one.other, other.one = other, one
        return one

    assert object_text(pair()) == object_text(pair())
    assert ADDRESS.search(object_text(pair())) is None


# Networks

SCALE = 1.5
WORDS = frozenset({"a", "b", "c", "d", "e"})


def helper(values: torch.Tensor) -> torch.Tensor:
    return values * SCALE


class Small(nn.Module):
    """A network with something of every kind that decides numbers."""

    sharpness: ClassVar[float] = 1.0

    def __init__(self, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        held = {"heads": 2, "powers": [1, 2], "act": torch.relu, "mode": "a"} | options
        self.first, self.inner = nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.ReLU())
        self.others = [nn.Linear(4, 4)]
        self.config = SimpleNamespace(window={"size": 3}, table=np.arange(3))
        self.register_buffer("kept", torch.ones(4))
        self.register_buffer("hidden", torch.ones(4), persistent=False)
        for name, value in held.items():
            setattr(self, name, value)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = helper(self.mix(self.first(x)).view(len(x), self.heads, -1).flatten(1))
        x = self.inner(x) + self.config.window["size"] * self.kept
        return self.others[0](x) if self.mode in {"a", "b", "c", "d"} else x

    def mix(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([self.act(x) ** power for power in self.powers]).sum(0) * self.hidden

    def plot(self) -> None:
        """Not reached from forward."""


def set_deep(network: Small, value: Any) -> None:
    network.config.window["size"] = value


def fill(values: torch.Tensor) -> None:
    with torch.no_grad():
        values[0] += 1


def patch_forward(network: Small) -> None:
    network.inner[0].forward = lambda x: x  # type: ignore[method-assign]


CHANGES: dict[str, Callable[[Any], Any]] = {
    "network.heads": lambda n: setattr(n, "heads", 4),
    "network.powers": lambda n: n.powers.append(3),
    "network.act": lambda n: setattr(n, "act", torch.tanh),
    "network.config": lambda n: set_deep(n, 5),
    "network.others": lambda n: fill(n.others[0].bias),
    "network.hidden": lambda n: fill(n.hidden),
    "network.kept": lambda n: fill(n.kept),
    "network.inner.0.weight": lambda n: fill(n.inner[0].weight),
    "network.inner.1": lambda n: n.inner.__setitem__(1, nn.GELU()),
    "network.inner.0.forward": patch_forward,
    "hooks of network.first": lambda n: n.first.register_forward_hook(lambda *_: None),
    "hooks of network.inner": lambda n: n.inner.register_full_backward_hook(lambda *_: None),
}


def differing(one: dict[str, str], other: dict[str, str]) -> set[str]:
    return {key for key in {**one, **other} if one.get(key) != other.get(key)}


@pytest.mark.parametrize("name", CHANGES)
def test_one_change_is_one_difference_of_that_name(name: str) -> None:
    network, same = Small(), Small()
    assert describe_network(network) == describe_network(same)
    CHANGES[name](network)
    found = differing(describe_network(network), describe_network(same))
    assert any(key.startswith(name) for key in found)
    assert all(key.startswith((name, "code of", "version of")) for key in found), found


def test_code_that_forward_reaches_counts_and_other_code_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = describe_network(Small())
    assert "code of Small.plot" not in before
    for owner, name, value, told in (
        (Small, "mix", lambda self, x: x, "code of test_code"),  # noqa: ARG005
        (Small, "sharpness", 2.0, "Small.sharpness"),
        (sys.modules[__name__], "SCALE", 2.0, "global SCALE"),
        (sys.modules[__name__], "helper", lambda x: x, "code of helper"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, value)
            found = differing(before, describe_network(Small()))
        assert any(key.startswith(told) for key in found), (told, found)
    monkeypatch.setattr(Small, "plot", lambda self: 1)  # noqa: ARG005
    assert describe_network(Small()) == before


def test_attributes_that_no_code_reads_are_left_out_unless_others_may_read_them() -> None:
    class Whole(Small):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return take(self, x)

    class Asking(Small):
        def mix(self, x: torch.Tensor) -> torch.Tensor:
            return x * getattr(self, "created")  # noqa: B009

    class Wide(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x)

    def take(network: Any, x: torch.Tensor) -> torch.Tensor:
        return x * network.__dict__["created"]

    for kind, counts in ((Small, False), (Whole, True), (Asking, True)):
        network, same = kind(created=1), kind(created=2)
        found = differing(describe_network(network), describe_network(same))
        assert found == ({"network.created"} if counts else set()), kind
    assert "network.in_features" in describe_network(Wide(2, 2)), "torch's own code reads it"


def test_settings_of_torchs_own_modules_count() -> None:
    torch.manual_seed(0)
    for make, changed in (
        (nn.MultiheadAttention, [(8, 2), (8, 4)]),
        (nn.TransformerEncoderLayer, [(8, 2), (8, 4)]),
        (nn.Softmax, [(0,), (1,)]),
        (nn.Hardtanh, [(-1.0, 1.0), (-1.0, 2.0)]),
    ):
        kind: Any = make
        one, other = (describe_network(kind(*given), weights=False) for given in changed)
        assert one == describe_network(kind(*changed[0]), weights=False)
        assert one != other, make
    assert describe_network(nn.LSTM(2, 3), weights=False) == describe_network(
        nn.LSTM(2, 3), weights=False
    )
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))
    assert describe_network(normed) == describe_network(copy.deepcopy(normed))


def test_modules_that_hold_one_another_are_described_once() -> None:
    network = Small()
    network.powers = [network]  # a cycle that torch does not see
    network.twin = network.first
    assert describe_network(network)["network.powers"] == "[<network>]"
    assert describe_network(network) == describe_network(copy.deepcopy(network))


def test_scripted_networks_differ_by_constants_and_code() -> None:
    class Scaled(nn.Module):
        def __init__(self, scale: int) -> None:
            super().__init__()
            self.scale = scale

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.scale

    texts = [describe_network(torch.jit.script(Scaled(scale))) for scale in (2, 2, 3)]
    assert texts[0] == texts[1]
    assert differing(texts[0], texts[2]) == {"code of network"}


def test_what_a_run_writes_is_no_difference() -> None:
    class Counting(Small):
        def __init__(self) -> None:
            super().__init__()
            self.calls, self.cache = 0, {}

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return self.cache.setdefault(len(x), super().forward(x))

    network = Counting()
    before = describe_network(network)
    network(torch.ones(1, 4))
    found = mark_written(before, before, describe_network(network))
    assert {key for key, text in found.items() if text == WRITTEN} == {
        "network.calls",
        "network.cache",
    }


def language_model() -> nn.Module:
    config = transformers.GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=11, n_positions=6)
    torch.manual_seed(0)
    return transformers.GPT2LMHeadModel(config)  # type: ignore[no-any-return]


def test_networks_of_a_package_differ_by_their_configuration() -> None:
    one, other = language_model(), language_model()
    assert describe_network(one) == describe_network(other)
    other.config.scale_attn_weights = False
    assert "network.config" in differing(describe_network(one), describe_network(other))
    other = language_model()
    other.transformer.h[0].attn.num_heads = 4
    assert differing(describe_network(one), describe_network(other)) == {
        "network.transformer.h.0.attn.num_heads"
    }


def test_another_process_finds_the_same_texts() -> None:
    program = (
        "from tests.storage.test_identity import *;"
        "print(sorted(describe_network(language_model()).items()));"
        "print(function_text(scaled(torch.ones(2))), function_text(linear(0)),"
        " sorted(describe_network(Small()).items()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "1", "PATH": "", "OMP_NUM_THREADS": "1"},
    ).stdout.strip()
    here = f"{function_text(scaled(torch.ones(2)))} {function_text(linear(0))}"
    own = f"{here} {sorted(describe_network(Small()).items())}"
    # sets of texts must not have another order there
    assert done == f"{sorted(describe_network(language_model()).items())}\n{own}"


# Buffers of every kind


def sparse(layout: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One matrix, the same again, and one with the same values elsewhere."""
    one = torch.tensor([[0, 1.0, 0, 0], [0, 0, 2, 0]])
    other = torch.tensor([[0, 1.0, 0, 0], [0, 0, 0, 2]])
    makers: dict[str, Any] = {
        "coo": torch.Tensor.to_sparse,
        "csr": torch.Tensor.to_sparse_csr,
        "csc": torch.Tensor.to_sparse_csc,
        "bsr": lambda t: t.to_sparse_bsr((1, 2)),
        "bsc": lambda t: t.to_sparse_bsc((1, 2)),
    }
    make = makers[layout]
    return make(one), make(one.clone()), make(other)


def quantised(channels: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    values = torch.tensor([[0.1, 0.2], [0.3, 0.4]])

    def make(scale: float) -> torch.Tensor:
        if channels:
            scales, zeros = torch.tensor([scale, 0.2]), torch.zeros(2, dtype=torch.long)
            return torch.quantize_per_channel(values, scales, zeros, 0, torch.qint8)
        return torch.quantize_per_tensor(values * scale, scale, 0, torch.qint8)

    return make(0.1), make(0.1), make(0.2)


def unordered() -> torch.Tensor:
    indices, values = torch.tensor([[1, 0, 1], [2, 1, 2]]), torch.tensor([1.0, 1, 1])
    return torch.sparse_coo_tensor(indices, values, (2, 4))


TENSORS: dict[str, Callable[[], tuple[torch.Tensor, torch.Tensor, torch.Tensor]]] = {
    **{layout: functools.partial(sparse, layout) for layout in ("coo", "csr", "csc", "bsr", "bsc")},
    "coo with repeats": lambda: (unordered(), unordered().coalesce(), unordered() * 2),
    "quantised": lambda: quantised(channels=False),
    "quantised by channel": lambda: quantised(channels=True),
    "complex": lambda: (torch.tensor([1 + 2j]), torch.tensor([1 - 2j]).conj(), torch.tensor([1j])),
    "negated": lambda: (
        torch.tensor([2j]).conj().imag,
        torch.tensor([-2.0]),
        torch.tensor([2.0]),
    ),
    "half": lambda: (torch.ones(2).half(), torch.ones(2).half(), torch.zeros(2).half()),
    "eight bits": lambda: tuple(  # type: ignore[return-value]
        torch.tensor(values).to(torch.float8_e4m3fn) for values in ([1.0], [1.0], [2.0])
    ),
    "no values": lambda: (
        torch.empty(2, device="meta"),
        torch.empty(2, device="meta"),
        torch.empty(3, device="meta"),
    ),
    "nested": lambda: tuple(  # type: ignore[return-value]
        torch.nested.nested_tensor([torch.ones(2), torch.full((3,), v)]) for v in (1.0, 1.0, 2.0)
    ),
    "a scalar": lambda: (torch.tensor(1.0), torch.tensor(1.0), torch.tensor(2.0)),
    "a view": lambda: (torch.arange(8.0)[::2], torch.arange(0.0, 8, 2), torch.arange(4.0)),
    "flags": lambda: (torch.tensor([True]), torch.tensor([True]), torch.tensor([False])),
}


@pytest.mark.filterwarnings("ignore:.*(Sparse|prototype|deprecated|beta)")
@pytest.mark.parametrize("kind", TENSORS)
@pytest.mark.parametrize("persistent", [False, True])
def test_buffers_of_every_kind_are_told_apart(kind: str, persistent: bool) -> None:
    def network(values: torch.Tensor) -> nn.Module:
        made = nn.Module()
        made.register_buffer("values", values, persistent=persistent)
        return made

    one, same, other = (network(values) for values in TENSORS[kind]())
    assert state_hash(one) == state_hash(same)
    assert (state_hash(one) != state_hash(other)) == persistent
    assert describe_network(one) == describe_network(same)
    assert "network.values" in differing(describe_network(one), describe_network(other))


def test_the_hash_of_plain_weights_is_that_of_earlier_versions() -> None:
    torch.manual_seed(0)
    network = nn.Linear(2, 1)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[0.5, -1.0]]))
        network.bias.zero_()
    assert state_hash(network).startswith("86ff280b16d42c8c")


# The caller's context


def test_the_context_of_a_call_is_described_and_entered_elsewhere() -> None:
    plain = Context.here()
    assert plain.describe()["autocast"] == "off"
    torch.set_default_dtype(torch.float64)
    try:
        with torch.autocast("cpu", torch.bfloat16):
            other = Context.here()
    finally:
        torch.set_default_dtype(torch.float32)
    assert other.describe()["autocast"] == "cpu bfloat16"
    assert other.describe()["default_dtype"] == "float64"
    with other.entered():
        assert Context.here() == other
        assert (torch.ones(2, 2, dtype=torch.float32) @ torch.ones(2, 2).float()).dtype == (
            torch.bfloat16
        )
        with plain.entered():
            assert Context.here() == plain
    assert Context.here() == plain
    with pytest.raises(KeyError), other.entered():
        raise KeyError
    assert Context.here() == plain


def test_a_precision_of_one_kind_of_device_is_told() -> None:
    """In another process: the setting cannot be taken back wholly."""
    program = """
import torch
from retina_codec.storage.context import Context
plain = Context.here()
torch.backends.mkldnn.matmul.fp32_precision = "bf16"
other = Context.here()
torch.backends.mkldnn.matmul.fp32_precision = "ieee"
with other.entered():
    print(Context.here() == other != plain, other.float32_matmul_precision)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "True bf16, none", done.stderr
