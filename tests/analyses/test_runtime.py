"""The script of the runtime section: its arithmetic on times that are known, and its verdicts."""

import json

import numpy as np
import pytest
import torch

import retina_codec as rc
from tests.analyses.small_study import holds, load_script, save_networks
from tests.analyses.small_timings import ONE, PATH, timings

NAME = "runtime"


@pytest.fixture(scope="module")
def script():
    return load_script(NAME)


def test_cost_leaves_out_what_is_done_once(script):
    card = script.card_of(timings(noise=0))
    for name, each in ((PATH, 0.02), (ONE, 0.02 / 3)):
        assert card[name]["seconds_per_image"] == pytest.approx([each] * 3)
        assert card[name]["seconds_once"] == pytest.approx([0.5] * 3)
        hours = card[name]["hours_of_50000_extrapolated"]
        assert hours == pytest.approx([50_000 * each / 3600] * 3)
    assert card["ratio"] == pytest.approx([3] * 3)
    # 0.1 s per step of 16 images, over 0.02 / 3 s per gradient
    assert card["one_more_step_over_one_gradient"] == pytest.approx([0.1 / 16 / (0.02 / 3)] * 3)
    assert card["tokens"][PATH] == pytest.approx([0.8] * 3)


def test_verdicts_follow_the_times(script):
    found = holds(script.claims_of(timings()))
    assert [name for name, verdict in found.items() if verdict is None] == [PATH, ONE, "minutes"]
    assert all(verdict for verdict in found.values() if verdict is not None)


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"ratio": 11}, {"ratio"}),
        ({"power": 1.5}, {"linear in steps", "linear in images", "ratio"}),
        ({"site": 1.3}, {"hook location", "depth", "bound"}),
        ({"late": 0.7}, {"depth"}),
        ({"late": 1.5}, {"depth", "bound"}),
        ({"length": 1.2}, {"tokens"}),
        ({"width": 0.9}, {"width ResNet-50", "width ViT-B"}),
    ],
)
def test_each_verdict_turns_with_its_own_times(script, change, names):
    found = holds(script.claims_of(timings(**change)))
    assert {name for name, verdict in found.items() if verdict is False} == names


def test_one_bad_round_turns_no_verdict(script):
    table = timings()
    before = holds(script.claims_of(table))
    table["processor"][:, 2] *= np.random.default_rng(0).uniform(1, 4, table.sizes["setting"])
    assert holds(script.claims_of(table)) == before


def test_few_rounds_and_no_language_model_are_not_tested(script):
    assert set(holds(script.claims_of(timings(rounds=4))).values()) == {None}
    found = holds(script.claims_of(timings(language=False)))
    assert found["ratio"] is True
    for name in ("language ratio", "hook location", "depth", "bound", "tokens"):
        assert found[name] is None


def test_times_of_the_paper_are_held_against_its_network_alone(script):
    table = timings()
    table.attrs |= {"model": "resnet50", "device": "cuda", "clock": "wall"}
    verdicts = holds(script.claims_of(table))
    assert verdicts[PATH] is verdicts[ONE] is True
    table["wall"] *= 100
    assert holds(script.claims_of(table))[ONE] is False


def test_settings_of_a_language_model(script):
    """Shares of weights above a layer fall with depth; the work explains what it names."""
    network = script.language_model(16, 0, None)
    rows = script.language_rows(network, [4, 8, 16])
    for site in script.SITES:
        above = [r["above"] for r in rows if r["sweep"] == site and r["method"] == ONE]
        assert 1 > above[0] > above[1] > above[2] > 0
    last = next(r for r in rows if r["sweep"] == "post_mlp" and r["depth"] == 1)
    blocks = sum(p.numel() for p in network.transformer.h.parameters())
    head = network.lm_head.weight.numel() + 2 * script.GPT2["n_embd"]  # and the last norm
    assert last["above"] == pytest.approx(head / (blocks + head), rel=1e-3)
    row = rows[0] | {"method": ONE}
    units = script.language_work(network, row, 0)()
    assert list(units.contribution) == [row["layers"]]
    words = torch.randint(
        0, script.GPT2["vocab_size"], (1, 8), generator=torch.Generator().manual_seed(0)
    )
    with torch.no_grad():
        chance = network(words).logits[0, -1].softmax(0)
    assert float(units.value[0]) == pytest.approx(float(-(chance * chance.log()).sum()), rel=1e-4)


@pytest.mark.slow
def test_the_script_measures_and_draws_again(script, tmp_path, monkeypatch, capsys):
    save_networks(tmp_path)
    words = ["--out", str(tmp_path), "--model", str(tmp_path / "cnn"), "--count", "8"]
    words += ["--rounds", "2", "--batch", "2", "--tokens", "8", "16", "32"]
    threads = torch.get_num_threads()
    script.main(words)
    assert torch.get_num_threads() == threads
    saved = rc.open_tree(tmp_path / "runtime.nc", lazy=False).to_dataset()
    steps = script.chosen(saved, sweep="steps")["seconds"].median("round").values
    assert steps[-1] > steps[0]  # 20 steps against 2
    first = json.loads((tmp_path / "runtime.json").read_text())
    assert first["IntegratedGradients"]["seconds_per_image"][0] == pytest.approx(
        script.grown(script.by_method(saved, "images")[0], "images", script.slope)[0]
    )
    monkeypatch.setattr(script, "study_of", lambda *_: pytest.fail("measured again"))
    script.main([*words, "--reuse"])
    assert json.loads((tmp_path / "runtime.json").read_text()) == first
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "runtime.png")
