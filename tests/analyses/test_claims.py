"""All claims in one table: what is there is not run again, and every verdict is shown."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image

from retina_codec.errors import RetinaCodecError
from retina_codec.networks.pictures.cifar_resnet import CifarResNet
from retina_codec.paper.claims import judge, save_claims
from tests.analyses.small_study import load_script, save_networks


@pytest.fixture
def script():
    return load_script("claims")


def claim(found, name="sparser"):
    says = "Contributions are sparser."
    return judge(name, "Fig. 3", says, found, (found - 0.1, found + 0.1), low=0, measure="Hoyer")


class Script:
    """A script that writes one claim, or cannot."""

    calls: list

    def __init__(self, name, calls):
        self.name, self.calls = name, calls

    def main(self, words):
        self.calls.append((self.name, words))
        folder = words[words.index("--out") + 1]
        if self.name == "figure_7_maps":
            raise RetinaCodecError("there must be more images.")
        found = 0.5 if folder.endswith("cnn") else -0.5
        save_claims([claim(found)], f"{folder}/{self.name}_claims.csv")


@pytest.fixture
def words(tmp_path):
    save_networks(tmp_path)
    for name in ("cnn", "vit"):
        (tmp_path / "out" / name).mkdir(parents=True)
    models = [str(tmp_path / name) for name in ("cnn", "vit")]
    return ["--out", str(tmp_path / "out"), "--models", *models]


def test_every_network_has_its_column_and_verdict(script, words, tmp_path, monkeypatch, capsys):
    calls: list = []
    monkeypatch.setattr(script, "load", lambda name: Script(name, calls))
    assert script.main([*words, "--count", "40", "--", "--steps", "1"]) == 1
    shown = capsys.readouterr()
    assert shown.err.count("not run: figure_7_maps") == 2
    assert "YES: 0.5 (0.4 to 0.6) Hoyer" in shown.out
    assert "NO: −0.5 (−0.6 to −0.4) Hoyer" in shown.out
    # the ViT has two figures more, both lack figure 7
    assert "cnn: 8 claims: 8 yes, 0 no, 0 not tested" in shown.out
    assert "vit: 10 claims: 0 yes, 10 no, 0 not tested" in shown.out
    assert calls[0][1][-4:] == ["--steps", "1", "--count", "40"]
    with open(tmp_path / "out" / "claims.csv", newline="", encoding="utf-8") as file:
        assert [row["holds"] for row in csv.DictReader(file)] == ["yes"] * 8 + ["no"] * 10


def test_what_is_there_is_not_run_again(script, words, tmp_path, monkeypatch, capsys):
    calls: list = []
    monkeypatch.setattr(script, "load", lambda name: Script(name, calls))
    save_claims([claim(0.7)], tmp_path / "out" / "cnn" / "figure_3_layers_claims.csv")
    chosen = ["--scripts", "figure_3_layers", "--reuse"]
    assert script.main([*words, *chosen]) == 0
    assert [words[1] for _, words in calls] == [str(tmp_path / "out" / "vit")]
    assert "YES: 0.7 (0.6 to 0.8)" in capsys.readouterr().out
    assert script.main([*words, "--scripts", "figure_3_layers"]) == 0
    assert len(calls) == 3
    assert "YES: 0.5 (0.4 to 0.6)" in capsys.readouterr().out


def test_a_claim_of_one_network_leaves_the_other_empty(script):
    row = {"script": "s", "name": "n", "says": "It is so.", "source": "Fig. 1", "rule": "above 0"}
    row |= {"found": "nan", "low": "nan", "high": "nan", "measure": "r", "holds": "not tested"}
    other = row | {"model": "b", "name": "m"}
    text = script.combined_table([row | {"model": "a"}, other])
    first, second = (line.split() for line in text.splitlines() if "It is so" in line)
    assert first[-4:] == ["NOT", "TESTED:", "r", "—"]
    assert second[-4:] == ["—", "NOT", "TESTED:", "r"]
    assert "nan" not in text


def options_of(script, *words):
    models = ["--models", "digits_cnn", "cifar_resnet20:w.th", "timm:vit"]
    return script.arguments(["--out", "out", *models, *words])


def words_of(script, model, name, *words):
    found = script.words_for(model, name, options_of(script, *words))
    return dict(zip(found[::2], found[1::2], strict=True))


def test_each_network_has_its_own_images(script):
    words = ["--data", "all", "cifar_resnet20=cifar/test", "--count", "200", "digits_cnn=1000"]
    found = words_of(script, "cifar_resnet20:w.th", "figure_3_layers", *words)
    assert found == {
        "--out": "out/cifar_resnet20", "--model": "cifar_resnet20:w.th",
        "--data": "cifar/test", "--count": "200",
    }  # fmt: skip
    assert words_of(script, "timm:vit", "figure_3_layers", *words)["--data"] == "all"
    assert words_of(script, "digits_cnn", "figure_3_layers", *words)["--count"] == "1000"
    only = ["--data", "cifar_resnet20=cifar/test"]  # the others have digit scenes
    assert "--data" not in words_of(script, "digits_cnn", "figure_3_layers", *only)


def test_words_reach_the_script_or_network_they_are_for(script):
    one = "cifar_resnet20/figure_6_control=--late 'layer 3'"
    words = ["--set", "figure_6_control=--asked 60", "digits_cnn=--steps 5", one]
    words += ["--", "--device", "cpu"]
    found = words_of(script, "cifar_resnet20:w.th", "figure_6_control", *words)
    assert found["--asked"] == "60"
    assert found["--late"] == "layer 3"
    assert found["--device"] == "cpu"
    assert "--steps" not in found
    found = words_of(script, "digits_cnn", "figure_3_layers", *words)
    assert found["--steps"] == "5"
    assert not {"--asked", "--late"} & set(found)


@pytest.mark.parametrize("option", ["--data", "--count", "--hierarchy", "--set"])
def test_values_for_networks_that_are_not_run_are_refused(script, option):
    with pytest.raises(RetinaCodecError, match=f"{option} NAME=VALUE must name one of digits_cnn"):
        options_of(script, option, "resnet50=10")


def test_the_page_has_a_column_for_each_network(script):
    row = {"script": "figure_3_layers", "name": "n", "says": "It |is| so.", "source": "Fig. 1"}
    row |= {"rule": "interval above 0, in all 8", "holds": "yes"}
    row |= {"measure": "r, at worst stage1.0; 7 of 8 comply", "found": "0.5", "low": "0.4"}
    row |= {"high": "0.6"}
    other = row | {"model": "b", "name": "m", "holds": "not tested", "found": "nan"}
    text = script.page_table([row | {"model": "a"}, other])
    assert "| claim | a | b |" in text
    assert (
        "| It \\|is\\| so. *r; interval above 0* (Fig. 1) | **yes** 0.5 (0.4 to 0.6); "
        "stage1.0; 7 of 8 |  |" in text
    )
    assert text.splitlines()[-3].endswith("|  | not tested |")
    assert text.endswith("Claims that hold: a: 1 of 1; b: 0 of 1.\n")


def test_a_network_by_name_with_weights_and_images_of_its_own(script, tmp_path, capsys):
    """From nothing: a file of weights, folders of pictures, one command."""
    random = np.random.default_rng(0)
    for name in ("bird", "cat", "ship"):
        (tmp_path / "test" / name).mkdir(parents=True)
        for number in range(4):
            values = random.integers(0, 256, (32, 32, 3), np.uint8)
            Image.fromarray(values).save(tmp_path / "test" / name / f"{number}.png")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(CifarResNet(8).state_dict(), tmp_path / "w.th")
    words = ["--out", str(tmp_path / "out"), "--models", f"cifar_resnet8:{tmp_path / 'w.th'}"]
    words += ["--data", f"cifar_resnet8={tmp_path / 'test'}", "--count", "cifar_resnet8=12"]
    words += ["--scripts", "figure_3_layers", "figure_s10_superclasses"]
    words += ["--set", "figure_3_layers=--bootstraps 20", "--", "--steps", "2"]
    assert script.main(words) == 1
    shown = capsys.readouterr().err
    assert "figure_3_layers, cifar_resnet8: " in shown
    # there are no superclasses to speak of
    assert "not run: figure_s10_superclasses, cifar_resnet8: superclasses must hold" in shown
    page = (tmp_path / "out" / "claims.md").read_text(encoding="utf-8")
    assert "| claim | cifar_resnet8 |" in page
    assert "of 3 |" in page  # blocks
    assert (tmp_path / "out" / "cifar_resnet8" / "figure_3_layers.png").stat().st_size > 10_000
