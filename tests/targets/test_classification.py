"""Targets of classifiers: closed forms, scipy and autograd, and choices held along the path."""

from typing import Any

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from retina_codec.contributions.contribute import contribute
from retina_codec.errors import RetinaCodecError
from retina_codec.methods.integrated_gradients import IntegratedGradients
from retina_codec.targets.base import Target, Unit
from retina_codec.targets.classification import Contrast, Entropy, Probability, TopK

LOGITS = torch.tensor([[1.0, 4.0, 2.0, -1.0], [0.5, 0.0, 3.0, 2.5]], dtype=torch.float64)
TARGETS: list[Target] = [
    TopK(), TopK(3), TopK(2, reselect=True), Probability(), Probability(2), Entropy(), Contrast(),
    Contrast(reselect=True),
]  # fmt: skip


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (TopK(), [4.0, 3.0]),
        (TopK(2), [6.0, 5.5]),
        (TopK(4), [6.0, 6.0]),
        (TopK(2, reselect=True), [6.0, 5.5]),
        (Contrast(), [2.0, 0.5]),
        (Contrast(reselect=True), [2.0, 0.5]),
    ],
)
def test_sums_and_differences_of_the_winners(target: Target, expected: list[float]) -> None:
    np.testing.assert_allclose(target(LOGITS), expected)
    np.testing.assert_allclose(target.bind(LOGITS)(LOGITS), expected)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.01, 300))
def test_probabilities_and_entropy_agree_with_scipy(seed: int, scale: float) -> None:
    """Also where a probability underflows: 0 ln 0 = 0."""
    y = scale * np.random.default_rng(seed).normal(size=(5, 7))
    logits, p = torch.from_numpy(y), scipy.special.softmax(y, 1)
    np.testing.assert_allclose(Entropy()(logits), scipy.stats.entropy(p, axis=1), atol=1e-12)
    np.testing.assert_allclose(Probability(3)(logits), p[:, 3], rtol=1e-12)
    np.testing.assert_allclose(Probability()(logits), p.max(1), rtol=1e-12)
    shifted = logits + 1000.0  # softmax knows differences of logits alone
    np.testing.assert_allclose(Entropy()(shifted), Entropy()(logits), rtol=1e-6, atol=1e-9)


def test_entropy_of_known_distributions() -> None:
    even, sure = torch.zeros(1, 8), torch.tensor([[0.0, 200.0]])
    assert float(Entropy()(even)) == pytest.approx(np.log(8))
    assert float(Entropy()(sure)) == 0.0
    assert float(Entropy()(torch.log(torch.tensor([[0.25, 0.75]])))) == pytest.approx(
        -0.25 * np.log(0.25) - 0.75 * np.log(0.75)
    )
    assert Entropy.units == "nats"


def test_gradients_have_their_closed_forms() -> None:
    """∂H/∂y_i = −p_i (ln p_i + H); ∂p_c/∂y_i = p_c (δ_ic − p_i)."""
    p = LOGITS.softmax(1)
    entropy = -(p * p.log()).sum(1, keepdim=True)
    for target, expected in (
        (Entropy(), -p * (p.log() + entropy)),
        (Probability(2), p[:, 2:3] * (torch.eye(4)[2] - p)),
        (TopK(2), torch.tensor([[0.0, 1, 1, 0], [0, 0, 1, 1]])),
        (Contrast(), torch.tensor([[0.0, 1, -1, 0], [0, 0, 1, -1]])),
    ):
        leaf = LOGITS.clone().requires_grad_()
        (found,) = torch.autograd.grad(target(leaf).sum(), leaf)
        torch.testing.assert_close(found, expected.to(found))
        assert torch.autograd.gradcheck(target, (leaf,))


WORDS = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0)).double()
LENGTHS = (5, 2, 3)


def padded(side: str = "after") -> torch.Tensor:
    """Logits of three texts, missing where there is no token."""
    found = torch.full_like(WORDS, torch.nan)
    for number, length in enumerate(LENGTHS):
        place = slice(None, length) if side == "after" else slice(5 - length, None)
        found[number, place] = WORDS[number, :length]
    return found


@pytest.mark.parametrize("side", ["after", "before"])
@pytest.mark.parametrize("tokens", ["last", "mean", "sum"])
def test_entropy_of_tokens_is_that_of_each_by_scipy(side: str, tokens: Any) -> None:
    """Padding on either side counts nothing; its gradient is zero, not missing."""
    each = [
        scipy.stats.entropy(scipy.special.softmax(text[:length].numpy(), 1), axis=1)
        for text, length in zip(WORDS, LENGTHS, strict=True)
    ]
    expected = {
        "last": [h[-1] for h in each], "mean": [h.mean() for h in each],
        "sum": [h.sum() for h in each],
    }[tokens]  # fmt: skip
    leaf = padded(side).requires_grad_()
    found = Entropy(tokens)(leaf)
    np.testing.assert_allclose(found.detach(), expected, rtol=1e-12)
    (gradient,) = torch.autograd.grad(found.sum(), leaf)
    there = ~leaf.detach().isnan()
    assert bool((gradient[~there] == 0).all())
    p = WORDS.softmax(2)
    slope = -p * (p.log() + Entropy()(WORDS.flatten(0, 1)).view(3, 5, 1))  # of one token
    for number, length in enumerate(LENGTHS):
        found_there = gradient[number][there[number, :, 0]]
        by_hand = slope[number, :length] / (length if tokens == "mean" else 1)
        if tokens == "last":
            by_hand[:-1] = 0
        torch.testing.assert_close(found_there, by_hand)


@pytest.mark.parametrize(
    "target", [TopK(), TopK(2), Probability(), Probability(1), Contrast(), Entropy()], ids=repr
)
@pytest.mark.parametrize("side", ["after", "before"])
def test_other_targets_are_those_of_the_last_token(target: Target, side: str) -> None:
    last = torch.stack([text[length - 1] for text, length in zip(WORDS, LENGTHS, strict=True)])
    torch.testing.assert_close(target(padded(side)), target(last))
    elsewhere = padded(side) * torch.tensor([-1.0, 2.0, 0.5, 1.0]).double()
    bound, plain = target.bind(padded(side)), target.bind(last)
    torch.testing.assert_close(bound(elsewhere), plain(last * torch.tensor([-1.0, 2, 0.5, 1])))


def test_a_text_of_padding_alone_has_no_entropy() -> None:
    outputs = padded()
    outputs[1] = torch.nan
    for target in (Entropy(), Entropy("mean"), TopK()):
        with pytest.raises(RetinaCodecError, match="at least one token that is not padding"):
            target(outputs)


OTHER = torch.tensor([[5.0, 0.0, 1.0, 7.0], [9.0, 1.0, 2.0, 0.0]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("target", "there"),
    [
        (TopK(), [0.0, 2.0]),  # outputs 1 and 2 won at the input
        (TopK(2), [1.0, 2.0]),
        (TopK(reselect=True), [7.0, 9.0]),
        (Contrast(), [-1.0, 2.0]),
        (Contrast(reselect=True), [2.0, 7.0]),
        (Probability(), [OTHER.softmax(1)[0, 1], OTHER.softmax(1)[1, 2]]),
        (Probability(0), [OTHER.softmax(1)[0, 0], OTHER.softmax(1)[1, 0]]),
    ],
)
def test_what_was_decided_at_the_input_holds_elsewhere(target: Target, there: list[Any]) -> None:
    bound = target.bind(LOGITS)
    np.testing.assert_allclose(bound(OTHER), [float(value) for value in there])
    assert target.decides == (float(bound(OTHER)[0]) != float(target(OTHER)[0]))


@pytest.mark.parametrize("target", TARGETS, ids=repr)
def test_an_input_is_the_same_alone_and_in_a_batch(target: Target) -> None:
    bound = target.bind(LOGITS)(OTHER)
    alone = [target.bind(one[None])(other[None]) for one, other in zip(LOGITS, OTHER, strict=True)]
    torch.testing.assert_close(bound, torch.cat(alone))


def bent_net() -> nn.Sequential:
    """At the zero baseline output 1 leads (its bias), at the inputs used here another does."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    with torch.no_grad():
        network[2].bias.copy_(torch.tensor([0.0, 3.0, 0.5]))
        network[2].weight.mul_(6)
    return network


def inputs_led_by_others(network: nn.Module) -> torch.Tensor:
    x = torch.randn(60, 4, generator=torch.Generator().manual_seed(2)).double() * 3
    return x[network(x).argmax(1) != 1][:8]


@pytest.mark.parametrize("target", TARGETS, ids=repr)
def test_contributions_are_complete_for_the_choice_that_is_held(target: Target) -> None:
    network = bent_net()
    x = inputs_led_by_others(network)
    method = IntegratedGradients(800)
    tree = contribute(network, x, target=target, method=method, layers=["0", "1"], progress=False)
    bound = target.bind(network(x).detach())
    change = (bound(network(x)) - bound(network(torch.zeros_like(x)))).detach()
    for layer in tree["layers"].children.values():
        np.testing.assert_allclose(layer["target_change"], change, rtol=1e-9, atol=1e-12)
        # Where the choice changes on the way, the trapezoid crosses a bend: 1/steps, not 1/steps².
        error = 0.03 if getattr(target, "reselect", False) else 1e-4
        total = layer["contribution"].sum(("sign", "channel"))
        np.testing.assert_allclose(total, change, rtol=1e-3, atol=error)


@pytest.mark.parametrize(("held", "again"), [(TopK(), TopK(reselect=True)),
                                             (Contrast(), Contrast(reselect=True))])  # fmt: skip
def test_deciding_again_on_the_way_is_another_question(held: Target, again: Target) -> None:
    """Closed form on the last layer: held, only the winner's logit has a contribution."""
    network = bent_net()
    x = inputs_led_by_others(network)
    found = {}
    for target in (held, again):
        tree = contribute(
            network, x, target=target, method=IntegratedGradients(200), layers="2", progress=False
        )
        found[target] = torch.tensor(tree["layers/2/contribution"].values).sum(1)
    logits, start = network(x).detach(), network(torch.zeros_like(x)).detach()
    two = logits.topk(2, 1).indices
    sign = torch.zeros_like(logits).scatter(1, two[:, :1], 1.0)
    if isinstance(held, Contrast):
        sign = sign.scatter(1, two[:, 1:], -1.0)
    torch.testing.assert_close(found[held], sign * (logits - start))
    # Decided again, output 1, which leads near the baseline, has a part although it lost.
    assert float((found[again] - found[held])[:, 1].abs().min()) > 0.01
    lead = again(logits) - again(start)
    torch.testing.assert_close(found[again].sum(1), lead, rtol=0, atol=0.1)  # bends on the way


def test_classes_are_found_by_the_ids_of_a_network_that_names_them() -> None:
    cells = ["cat", "dog", "cello", "violin"]
    ready = Probability("cello").prepare(cells=cells)
    torch.testing.assert_close(ready(LOGITS), LOGITS.softmax(1)[:, 2])
    assert ready == Probability("cello")
    assert ready.describe() == "Probability(output='cello')"
    assert Probability().prepare(cells=cells) == Probability()
    with pytest.raises(RetinaCodecError, match="no cell 'bee'"):
        Probability("bee").prepare(cells=cells)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TopK(0), "k must be a whole number of at least 1; got 0"),
        (lambda: TopK(True), "k must be a whole number"),
        (lambda: TopK(2.0), "k must be a whole number"),  # type: ignore[arg-type]
        (lambda: TopK(5)(LOGITS), "TopK needs .* at least 5 classes"),
        (lambda: TopK(5).bind(LOGITS), "TopK needs .* at least 5 classes"),
        (lambda: Probability()(LOGITS[:, :1]), "Probability needs .* at least 2 classes"),
        (lambda: Probability().bind(LOGITS[:, :1]), "Probability needs .* at least 2 classes"),
        (lambda: Probability(4)(LOGITS), "between 0 and 3; got 4"),
        (lambda: Probability(-1)(LOGITS), "between 0 and 3; got -1"),
        (lambda: Probability("cello")(LOGITS), "Ids are understood only when"),
        (lambda: Entropy()(LOGITS[:, :1]), "Entropy needs .* at least 2 classes"),
        (lambda: Entropy()(LOGITS[:, :, None]), r"got shape \(2, 4, 1\)"),
        (lambda: Entropy("sum")(LOGITS[:, :, None]), r"got shape \(2, 4, 1\)"),
        (lambda: Entropy()(LOGITS[0]), r"got shape \(4,\)"),
        (lambda: Entropy("every"), "tokens must be one of .*got 'every'"),  # type: ignore[arg-type]
        (lambda: Contrast()(LOGITS[:, :1]), "Contrast needs .* at least 2 classes"),
        (lambda: Contrast().bind(LOGITS[:, :1]), "Contrast needs .* at least 2 classes"),
        (lambda: Unit(9)(LOGITS), "between 0 and 3; got 9"),
    ],
)
def test_what_cannot_be_a_target_is_refused(make: Any, message: str) -> None:
    with pytest.raises(RetinaCodecError, match=message):
        make()
