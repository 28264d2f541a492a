"""The shipped networks of digit scenes do what their cards say; their recipe runs."""

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from torch import nn

from retina_codec.images.digits import digit_scenes
from retina_codec.networks.checkpoints import load_network, network_folder

MODELS = Path(__file__).parents[2] / "models"
KINDS = ["cnn", "vit"]


@pytest.fixture(scope="module")
def recipe():
    specification = importlib.util.spec_from_file_location(
        "train_digits", MODELS / "train_digits.py"
    )
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def scenes():
    return digit_scenes("test", count=300, seed=77, progress=False)  # not those of the cards


@pytest.mark.parametrize("kind", KINDS)
def test_accuracy_is_that_of_the_card(kind, scenes):
    card = (network_folder(f"digits_{kind}") / "card.md").read_text(encoding="utf-8")
    told = re.search(r"Accuracy = ([\d.]+) \(95 % Wilson interval ([\d.]+) to ([\d.]+);", card)
    accuracy, low, high = (float(number) for number in told.groups())
    assert low < accuracy < high
    network = load_network(f"digits_{kind}")
    with torch.no_grad():
        found = network(torch.from_numpy(scenes["image"].values)).argmax(1).numpy()
    correct = np.array(network.classes)[found] == scenes["label"].values
    interval = binomtest(int(correct.sum()), len(correct)).proportion_ci(0.999, method="wilson")
    assert interval.low < accuracy < interval.high
    rows = re.findall(r"\| (\d) \| (\d+) \| ([\d.]+) \| ([\d.]+) to ([\d.]+) \|", card)
    assert [row[0] for row in rows] == list(network.classes)
    count = np.array([int(row[1]) for row in rows])
    of_class = np.array([float(row[2]) for row in rows])
    assert (count * of_class).sum() / count.sum() == pytest.approx(accuracy, abs=1e-3)
    record = network.training_record
    assert f"{record['epochs']} epochs of {record['scenes_per_epoch']} scenes" in card
    parameters = sum(values.numel() for values in network.parameters())
    assert f"{parameters:,} parameters" in card
    assert (network_folder(f"digits_{kind}") / "weights.safetensors").stat().st_size < 1.5e6
    assert "## Doubts" in card


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_recipe_runs(kind, recipe, tmp_path, capsys):
    tiny = ["--kind", kind, "--epochs", "1", "--scenes", "70", "--test-scenes", "30"]
    assert recipe.main([*tiny, "--out", str(tmp_path / "one")]) == 0
    printed = re.findall(r"accuracy on the test part: ([\d.]+)", capsys.readouterr().out)
    network = load_network(tmp_path / "one")
    before = recipe.make(kind, 70, 0)
    for old, new in zip(before.parameters(), network.parameters(), strict=True):
        assert not torch.equal(old, new)
    card = (tmp_path / "one/card.md").read_text(encoding="utf-8")
    assert "1 epochs of 70 scenes" in card
    assert f"Accuracy = {float(printed[0]):.4f}" in card
    with torch.no_grad():
        test = digit_scenes("test", count=30, seed=recipe.TEST_SEED, progress=False)
        found = network(torch.from_numpy(test["image"].values)).argmax(1).numpy()
    assert (found == test["digit"].values).mean() == pytest.approx(float(printed[0]), abs=1e-4)


def test_training_lowers_the_loss_and_is_reproducible(recipe):
    losses = []
    for _ in range(2):
        network = recipe.make("cnn", 64, 3)
        losses.append(recipe.train(network, 64, 6, 32, 3e-3, 0.0, 3))
        assert not network.training
    assert losses[0] == losses[1]
    assert losses[0][-1] < losses[0][0]


def test_normalisation_is_that_of_the_train_scenes(recipe):
    network = recipe.make("vit", 200, 5)
    images = torch.from_numpy(digit_scenes("train", count=200, seed=5)["image"].values)
    normal = network.normalisation(images)
    torch.testing.assert_close(normal.mean((0, 2, 3)), torch.zeros(3), atol=2e-3, rtol=0)
    torch.testing.assert_close(normal.std((0, 2, 3)), torch.ones(3), atol=2e-3, rtol=0)


def test_intervals(recipe):
    """Wilson's against its formula; over digits it is wider when scenes of a digit agree."""
    correct = np.arange(400) % 10 > 0
    z, n, p = 1.959964, 400, 0.9
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert recipe.wilson(correct) == (f"{middle - half:.3f}", f"{middle + half:.3f}")
    grouped = np.repeat(np.arange(100) % 10 > 0, 4)  # four scenes of a digit are alike
    low, high = recipe.over_digits(grouped, np.repeat(np.arange(100), 4))
    wide = 2 * 1.96 * np.sqrt(0.09 / 100)
    assert float(high) - float(low) == pytest.approx(wide, rel=0.15)


def test_correct_answers_are_counted(recipe):
    class Echo(nn.Module):
        def forward(self, images):
            return nn.functional.one_hot(images[:, 0, 0, 0].long(), 10)

    images = torch.zeros(300, 3, 2, 2)
    images[:, 0, 0, 0] = torch.arange(300) % 10
    digits = np.arange(300) % 10
    digits[5] = 0
    np.testing.assert_array_equal(recipe.is_correct(Echo(), images, digits), np.arange(300) != 5)


@pytest.mark.parametrize("kind", KINDS)
def test_configs_hold_no_machine_paths(kind):
    config = json.loads(
        (network_folder(f"digits_{kind}") / "config.json").read_text(encoding="utf-8")
    )
    assert config["network"]["kind"] in ("SmallResNet", "SmallViT")
    assert "/" not in json.dumps(config["training"])
