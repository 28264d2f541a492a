"""Embeddings that stand in for token numbers, and padding that is missing."""

from typing import Any

import pytest
import torch
from torch import nn

from retina_codec.errors import RetinaCodecError
from retina_codec.networks.adapter import adapt
from retina_codec.networks.embeddings import (
    PREFIX,
    Entry,
    Place,
    embedded,
    find_entry,
    place_embeddings,
)
from tests.networks.families import LANGUAGE

IDS = torch.tensor([[3, 1, 4, 1, 5, 9], [2, 6, 5, 3, 5, 8]])
TOKENS = {
    "gpt2": "transformer.wte", "llama": "model.embed_tokens", "gemma2": "model.embed_tokens",
    "neox": "gpt_neox.embed_in", "opt": "model.decoder.embed_tokens",
    "bert": "bert.embeddings.word_embeddings",
}  # fmt: skip


def inputs(form: str) -> Any:
    if form == "bare":
        return IDS
    return {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}


@pytest.mark.parametrize("family", TOKENS)
@pytest.mark.parametrize("form", ["bare", "by name"])
def test_the_network_gives_the_same_when_its_own_embeddings_are_put_in(
    family: str, form: str
) -> None:
    """Also where the embedding scales what it reads (Gemma)."""
    network, given = LANGUAGE[family]().double(), inputs(form)
    adapter = adapt(network, "blocks")
    entry = find_entry(network, given, adapter.call)
    assert [place.name for place in entry.places] == [TOKENS[family]]
    assert entry.describe() == {"paths_in": PREFIX + TOKENS[family]}
    entered = embedded(network, entry.places, given)
    key = PREFIX + TOKENS[family]
    torch.testing.assert_close(entered[key], network.get_submodule(TOKENS[family])(IDS))
    torch.testing.assert_close(adapter.call(entered), adapter.call(given))
    assert not any(m._forward_hooks for m in network.modules())


@pytest.mark.parametrize("family", ["gpt2", "llama", "bert"])
def test_other_embeddings_do_what_inputs_embeds_does(family: str) -> None:
    network = LANGUAGE[family]().double()
    adapter, key = adapt(network, "blocks"), PREFIX + TOKENS[family]
    words = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(0)).double()
    found = adapter.call({**inputs("by name"), key: words})
    mask = torch.ones_like(IDS)
    expected = network(inputs_embeds=words, attention_mask=mask).logits
    torch.testing.assert_close(found, expected)


def test_only_the_embedding_of_the_input_is_replaced_and_nothing_is_overwritten() -> None:
    class Overwrites(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(10, 3)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            found = self.table(ids.view(-1)).mul_(2)
            return found + self.table(torch.zeros(12, dtype=torch.long))

    network = Overwrites()
    values, key = torch.ones(2, 6, 3), f"{PREFIX}table"
    with place_embeddings(network, {"ids": IDS, key: values}) as given:
        assert list(given) == ["ids"]
        found = network(**given)
    expected = 2 + network.table.weight[0].expand(12, 3)
    torch.testing.assert_close(found, expected)
    assert torch.equal(values, torch.ones(2, 6, 3))


def test_no_embedding_takes_the_input() -> None:
    class Scales(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.places = nn.Embedding(10, 3)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return ids[..., None] * self.places(torch.arange(6))

    network = Scales()
    assert find_entry(network, IDS, network) == Entry()


def test_a_crash_leaves_no_hooks() -> None:
    network = LANGUAGE["gpt2"]()

    def crash(given: Any) -> None:
        del given
        raise RuntimeError

    with pytest.raises(RuntimeError):
        find_entry(network, IDS, crash)
    with (
        pytest.raises(RuntimeError),
        place_embeddings(network, embedded(network, [Place("transformer.wte")], IDS)),
    ):
        raise RuntimeError
    assert not any(m._forward_hooks for m in network.modules())


def test_outputs_at_padding_are_missing() -> None:
    network = LANGUAGE["gpt2"]()
    mask = torch.tensor([[1, 1, 1, 1, 0, 0], [0, 1, 1, 1, 1, 1]])
    adapter = adapt(network, "blocks")
    found = adapter.call({"input_ids": IDS, "attention_mask": mask})
    plain = network(input_ids=IDS, attention_mask=mask).logits
    assert torch.equal(found.isnan().all(2), mask == 0)
    assert torch.equal(found[mask == 1], plain[mask == 1])
    assert torch.equal(adapter.call({"input_ids": IDS}), network(input_ids=IDS).logits)


def test_missing_at_a_token_that_is_no_padding_is_refused() -> None:
    network = LANGUAGE["gpt2"]()
    with torch.no_grad():
        network.transformer.wte.weight[5] = torch.nan
    given = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}
    with pytest.raises(RetinaCodecError, match="not finite at a token that is no padding"):
        adapt(network, "blocks").call(given)
