"""Embeddings that stand in for token numbers, and padding that is missing."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from retina_codec.errors import RetinaCodecError
from retina_codec.networks.adapter import adapt
from retina_codec.networks.embeddings import (
    PREFIX,
    Entry,
    EntrySearch,
    Place,
    embedded,
    mean_embedding,
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


def find_entry(module: nn.Module, given: Any, run: Any, paths: Any = None) -> Entry:
    search = EntrySearch(module, given, paths)
    with search.following() as copies:
        run(copies)
    return search.entry()


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


# ------------------------------------------------------------------ which inputs are words


class Reader(nn.Module):
    """Texts, positions, types and masks by names of one's own, as ``read`` puts them together."""

    def __init__(self, read: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words, self.others = nn.Embedding(12, 4), nn.Embedding(60, 4)
        self.mix, self.out, self.read = nn.Linear(4, 5), nn.Linear(5, 3), read

    def pool(self, h: torch.Tensor) -> torch.Tensor:
        return self.mix(h).tanh().mean(1)

    def forward(self, **inputs: torch.Tensor) -> torch.Tensor:
        return self.out(self.read(self, **inputs))


class Says(Reader):
    def get_input_embeddings(self) -> nn.Module:
        return self.words


def ids(seed: int, *shape: int, most: int = 12) -> torch.Tensor:
    return torch.randint(0, most, shape, generator=torch.Generator().manual_seed(seed))


A, B, AT = ids(0, 3, 6), ids(1, 3, 6), torch.arange(6).expand(3, 6).clone()


def entry_of(network: nn.Module, given: Any, paths: Any = None) -> Entry:
    adapter = adapt(network, ["mix"], paths=paths)
    return find_entry(network, given, adapter.call, adapter.paths)


def check_same(network: nn.Module, given: Any, paths: Any = None) -> dict[str, torch.Tensor]:
    """Entered inputs give the network's own output; return what paths lead through."""
    adapter = adapt(network, ["mix"], paths=paths)
    entered = entry_of(network, given, paths).enter(network, given)
    torch.testing.assert_close(adapter.call(entered), network(**given), rtol=0, atol=0)
    return {key: v for key, v in entered.items() if v.is_floating_point()}


def test_every_text_keeps_its_own_embedding() -> None:
    network = Reader(lambda n, a, b: n.pool(n.words(a)) * n.pool(n.words(b)))
    found = check_same(network, {"a": A, "b": B})
    assert entry_of(network, {"a": A, "b": B}).describe() == {
        "paths_in": "embedding of words (a), embedding of words (b)"
    }
    torch.testing.assert_close(list(found.values()), [network.words(A), network.words(B)])
    equal = check_same(network, {"a": A, "b": A})  # the same words, or even the same tensor
    assert len(equal) == 2


def test_the_same_words_read_twice_are_one_path() -> None:
    network = Reader(lambda n, a: n.pool(n.words(a)) + n.mix(n.words(a)).amax(1))
    assert list(check_same(network, {"a": A})) == ["embedding of words@1+2"]


def test_words_that_are_read_one_by_one() -> None:
    network = Reader(lambda n, a: sum(n.mix(n.words(a[:, k])).tanh() for k in range(6)))
    found = check_same(network, {"a": A})
    torch.testing.assert_close(torch.stack(list(found.values()), 1), network.words(A))
    assert entry_of(network, {"a": A}).describe() == {"paths_in": "embedding of words (a)"}


@pytest.mark.parametrize("name", ["position_ids", "positions", "token_type_ids", "pos"])
def test_positions_and_types_are_no_words_whatever_their_values(name: str) -> None:
    def read(n: Any, a: torch.Tensor, **more: torch.Tensor) -> torch.Tensor:
        return n.pool(n.words(a) + n.others(more[name]))

    for at in (AT, A):  # also where they look like words
        found = check_same(Reader(read), {"a": A, name: at})
        assert list(found) == ["embedding of words"]


def test_a_network_that_names_its_embedding_is_believed() -> None:
    def read(n: Any, a: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
        return n.pool(n.words(a) + n.others(where))

    given = {"a": A, "where": AT}
    assert list(check_same(Says(read), given)) == ["embedding of words"]
    asked = entry_of(Reader(read), given)
    assert not asked.places
    assert "looked up in different tables (a, where)" in asked.doubt
    assert list(check_same(Reader(read), given, "a")) == ["embedding of words"]
    assert len(check_same(Reader(read), given, ["a", "where"])) == 2


@pytest.mark.parametrize("name", ["mask", "attention_mask", "padding_mask", "attnMask"])
@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.long, torch.bool])
def test_masks_stand_still_whatever_their_type(name: str, kind: torch.dtype) -> None:
    def read(n: Any, a: torch.Tensor, **more: torch.Tensor) -> torch.Tensor:
        return n.pool(n.words(a) * more[name][..., None].to(n.words.weight.dtype))

    given = {"a": A, name: (A > 2).to(kind)}
    network = Reader(read)
    assert list(check_same(network, given)) == ["embedding of words"]
    told = entry_of(network, given).describe()
    assert told.get("held_still") == (name if kind.is_floating_point else None)


def test_floating_inputs_of_unknown_meaning_beside_words_are_asked_for() -> None:
    def read(n: Any, a: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        return n.pool(n.words(a) * keep[..., None])

    given = {"a": A, "keep": torch.rand(3, 6)}
    assert "floating inputs (keep)" in entry_of(Reader(read), given).doubt
    assert list(check_same(Reader(read), given, ["a"])) == ["embedding of words"]
    assert list(check_same(Reader(read), given, ["keep"])) == ["keep"]
    assert len(check_same(Reader(read), given, ["a", "keep"])) == 2
    for wrong, message in ((["b"], "paths must name inputs"), ([], "paths must name floating")):
        with pytest.raises(RetinaCodecError, match=message):
            entry_of(Reader(read), given, wrong)


def test_whole_numbers_that_are_looked_up_nowhere_have_no_path() -> None:
    network = Reader(lambda n, a, lengths: n.pool(n.words(a)) * lengths[:, None])
    given = {"a": A, "lengths": torch.tensor([1, 2, 3])}
    assert list(check_same(network, given)) == ["embedding of words"]
    with pytest.raises(RetinaCodecError, match="an embedding"):
        entry_of(network, given, ["lengths"])


WAYS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "copied": torch.clone,
    "cut": lambda a: a[:, 1:],
    "turned over": lambda a: a.flip(1),
    "in other numbers": lambda a: a.int(),
    "masked": lambda a: a.masked_fill(a > 7, 0),
    "shifted in place": lambda a: torch.zeros_like(a).index_copy_(1, torch.arange(5), a[:, 1:]),
    "with a first token": lambda a: torch.cat([torch.ones_like(a[:, :1]), a], 1),
    "modulo": lambda a: (a + 3) % 12,
}


@pytest.mark.parametrize("way", WAYS)
def test_words_are_followed_through_what_keeps_them(way: str) -> None:
    network = Reader(lambda n, a: n.pool(n.words(WAYS[way](a))))
    (found,) = check_same(network, {"a": A}).values()
    torch.testing.assert_close(found, network.words(WAYS[way](A)))


@pytest.mark.parametrize(
    "way", [lambda a: (a > 3).long(), lambda a: (a > 3).long().cumsum(1), torch.zeros_like]
)
def test_masks_and_positions_counted_from_words_are_no_words(way: Any) -> None:
    network = Reader(lambda n, a: n.pool(n.words(a) + n.others(way(a))))
    assert list(check_same(network, {"a": A})) == ["embedding of words"]


@pytest.mark.parametrize("rows", [1, 3, 6])
def test_inputs_come_first_in_embeddings_however_they_are_called(rows: int) -> None:
    given = {"a": ids(3, rows, 6)}
    for read in (
        lambda n, a: n.pool(n.words(a.T).transpose(0, 1)),
        lambda n, a: n.pool(n.words(a.reshape(-1)).view(len(a), -1, 4)),
    ):
        network = Reader(read)
        (found,) = check_same(network, given).values()
        torch.testing.assert_close(found, network.words(given["a"]))


def test_a_call_that_changes_with_the_input_is_refused() -> None:
    def read(n: Any, a: torch.Tensor) -> torch.Tensor:
        if len(a) > 1:
            n.words(torch.zeros(1, 1, dtype=torch.long))
        return n.pool(n.words(a))

    network = Reader(read)
    entry = entry_of(network, {"a": A[:1]})
    with pytest.raises(RetinaCodecError, match="the words of every input in the same way"):
        entry.enter(network, {"a": A})


@pytest.mark.parametrize(
    "place",
    [
        Place("a.b"),
        Place("a", (2,)),
        Place("a", (1, 3)),
        Place("a", (1,), None),
        Place("", (2,), 1),
    ],
)
def test_a_place_is_read_from_its_key(place: Place) -> None:
    assert Place.read(place.key) == place


case = st.fixed_dictionaries(
    {
        "texts": st.integers(1, 3),
        "tables": st.integers(1, 2),
        "extra": st.sampled_from(["", "position_ids", "token_type_ids", "mask", "float mask"]),
        "way": st.sampled_from(sorted(WAYS)),
        "turned": st.booleans(),
        "rows": st.integers(1, 4),
        "said": st.booleans(),
        "seed": st.integers(0, 2**16),
    }
)


def entered_output_is_the_networks(case: dict[str, Any]) -> None:
    """Whatever is not asked for: the same output, words alone on the path, each its own."""
    names = [f"text{n}" for n in range(case["texts"])]

    def read(n: Any, **given: torch.Tensor) -> torch.Tensor:
        total = torch.zeros(())
        for number, name in enumerate(names):
            table = n.others if number % case["tables"] else n.words
            chosen = WAYS[case["way"]](given[name])
            h = table(chosen.T).transpose(0, 1) if case["turned"] else table(chosen)
            if case["extra"].endswith("mask"):
                h = h * given["mask"][:, :1, None]
            elif case["extra"]:
                h = h + n.others(given[case["extra"]])[:, :1]
            total = total + (number + 1) * n.pool(h)
        return total

    given = {n: ids(case["seed"] + k, case["rows"], 6) for k, n in enumerate(names)}
    if case["extra"].endswith("mask"):
        mask = ids(case["seed"], case["rows"], 6, most=2)
        given["mask"] = mask.float() if "float" in case["extra"] else mask
    elif case["extra"]:
        given[case["extra"]] = ids(case["seed"] + 9, case["rows"], 6)
    network = (Says if case["said"] else Reader)(read)
    entry = entry_of(network, given)
    if entry.doubt:
        assert not case["said"]
        assert case["tables"] == 2
        assert case["texts"] > 1
        return
    found = check_same(network, given)
    own = [k for k in range(case["texts"]) if not (case["said"] and k % case["tables"])]
    tables = [network.others if k % case["tables"] else network.words for k in own]
    expected = [t(WAYS[case["way"]](given[names[k]])) for k, t in zip(own, tables, strict=True)]
    torch.testing.assert_close(list(found.values()), expected)


@given(case)
@settings(max_examples=40, deadline=None)
def test_entered_inputs_give_the_output_of_the_network(case: dict[str, Any]) -> None:
    entered_output_is_the_networks(case)


@pytest.mark.slow
@given(case)
@settings(max_examples=2000, deadline=None)
def test_entered_inputs_give_the_output_of_the_network_often(case: dict[str, Any]) -> None:
    entered_output_is_the_networks(case)


class Scaled(nn.Embedding):
    """As Gemma's: what is looked up is multiplied."""

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return 3 * super().forward(ids)


class NeedsMore(nn.Embedding):
    """Needs more than words."""

    def forward(self, ids: torch.Tensor, scale: float) -> torch.Tensor:
        return scale * super().forward(ids)


@pytest.mark.parametrize("words", [5, 9000])
def test_the_mean_embedding_is_that_of_what_the_module_gives(words: int) -> None:
    torch.manual_seed(0)
    network = nn.ModuleDict({"plain": nn.Embedding(words, 4), "scaled": Scaled(words, 4)})
    places = (Place("plain"), Place("scaled", (2, 3), None))
    found = mean_embedding(network, places)
    assert list(found) == [place.key for place in places]
    for key, name, scale in zip(found, network, (1, 3), strict=True):
        weight: Any = network[name].weight
        torch.testing.assert_close(found[key], scale * weight.detach().double().mean(0))


def test_the_mean_of_an_embedding_that_needs_more_is_to_be_given() -> None:
    network = nn.ModuleDict({"other": NeedsMore(5, 4)})
    with pytest.raises(RetinaCodecError, match=r"'other' does not .* baseline=\{'embedding of ot"):
        mean_embedding(network, [Place("other")])
