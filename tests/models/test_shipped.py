"""Networks that come with the package are found by name, also outside a clone."""

import shutil
from importlib.resources import files
from pathlib import Path

import pytest
import torch

import retina_codec as rc
from retina_codec.networks.checkpoints import SHIPPED, network_folder


@pytest.fixture
def outside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RETINA_CODEC_MODELS", raising=False)
    return tmp_path


@pytest.mark.usefixtures("outside")
def test_every_shipped_network_is_whole_and_has_a_card():
    folder = files("retina_codec") / "data" / "models"
    assert sorted(entry.name for entry in folder.iterdir()) == sorted(SHIPPED)
    total = 0
    for name in SHIPPED:
        found = network_folder(name)
        assert {entry.name for entry in found.iterdir()} == {
            "card.md",
            "config.json",
            "weights.safetensors",
        }
        total += sum(entry.stat().st_size for entry in found.iterdir())
        assert not rc.load_network(name).training
    assert total < 3e6


def test_a_folder_here_or_named_by_the_environment_comes_first(outside, monkeypatch):
    network = rc.load_network("insilico")
    with torch.no_grad():
        next(network.parameters()).zero_()
    rc.save_network(network, outside / "models" / "insilico")
    monkeypatch.setenv("RETINA_CODEC_MODELS", str(outside / "models"))
    assert network_folder("insilico") == outside / "models" / "insilico"
    assert not next(rc.load_network("insilico").parameters()).any()
    assert network_folder("digits_cnn").is_dir()  # of the package
    shutil.copytree(outside / "models" / "insilico", outside / "insilico")
    assert network_folder("insilico") == Path("insilico")


@pytest.mark.usefixtures("outside")
def test_other_names_are_left_as_they_are():
    for name in ("insilica", "models/insilico", "", "."):
        assert network_folder(name) == Path(name)
