"""The recipe of the published data: it finds, hashes, compares and opens what is there."""

import hashlib
import importlib.util
import json
import re
from pathlib import Path

import pytest

from retina_codec.errors import RetinaCodecError
from retina_codec.recordings.maheswaranathan_2023.constants import PUBLISHED_CELLS
from tests.recordings.published_files import write_interneurons, write_published

FOLDER = Path(__file__).parents[2] / "datasets" / "maheswaranathan_2023"


@pytest.fixture
def recipe():
    specification = importlib.util.spec_from_file_location("recipe", FOLDER / "recipe.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def data(tmp_path):
    root = tmp_path / "neural_code_data"
    size = {"size": (8, 9), "cells": 5}
    write_published(root / "ganglion_cell_data" / "15-10-07" / "naturalscene.h5", **size)
    write_published(root / "ganglion_cell_data" / "15-10-07" / "whitenoise.h5", seed=1, **size)
    write_interneurons(root / "interneuron_data" / "bipolars_late_2012.h5")
    return root


def expected_hashes(root):
    names = ["15-10-07/naturalscene.h5", "15-10-07/whitenoise.h5"]
    paths = [root / "ganglion_cell_data" / name for name in names]
    names.append("interneuron_data/bipolars_late_2012.h5")
    paths.append(root / names[-1])
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in zip(names, paths, strict=True)
    }


def with_card(recipe, tmp_path, monkeypatch, table):
    card = tmp_path / "card.md"
    card.write_text(f"# card\n\n```json\n{json.dumps(table)}\n```\n", encoding="utf-8")
    monkeypatch.setattr(recipe, "CARD", card)
    monkeypatch.setattr(recipe.known_hashes, "__defaults__", (card,))


def test_unknown_files_are_hashed_and_said_to_be_unverified(recipe, data, capsys):
    assert recipe.main(["--folder", str(data)]) == 0
    out, words = capsys.readouterr()
    assert json.loads(out) == expected_hashes(data)
    assert "not verified, no hash is known: 15-10-07/naturalscene.h5" in words
    assert "verified: 0 files" in words


def test_known_files_are_verified(recipe, data, tmp_path, monkeypatch, capsys):
    with_card(recipe, tmp_path, monkeypatch, expected_hashes(data))
    assert recipe.main(["--folder", str(data.parent)]) == 0
    assert capsys.readouterr().err == "verified: 3 files\n"


def test_a_changed_and_a_missing_file_are_named(recipe, data, tmp_path, monkeypatch, capsys):
    with_card(recipe, tmp_path, monkeypatch, expected_hashes(data))
    with (data / "ganglion_cell_data/15-10-07/whitenoise.h5").open("ab") as file:
        file.write(b"x")
    (data / "interneuron_data/bipolars_late_2012.h5").unlink()
    assert recipe.main(["--folder", str(data)]) == 2
    words = capsys.readouterr().err
    assert "15-10-07/whitenoise.h5 must have the hash" in words
    assert "interneuron_data/bipolars_late_2012.h5 is missing" in words
    assert "verified: 1 files" in words


def test_files_are_opened_on_request(recipe, data, capsys):
    assert recipe.main(["--folder", str(data), "--open"]) == 0
    words = capsys.readouterr().err
    assert "15-10-07/naturalscene.h5: 5 cells; /train 120 frames; /test 60 frames; clock: " in words
    assert "/bipolars_late_2012/boxes 3 cells, 80 samples" in words
    path = data / "ganglion_cell_data/15-10-07/naturalscene.h5"
    path.write_bytes(path.read_bytes()[:5000])
    assert recipe.main(["--folder", str(data), "--open"]) == 2
    words = capsys.readouterr().err
    assert "It may be damaged" in words
    assert "15-10-07/whitenoise.h5: 5 cells" in words  # the others are still opened


def test_the_folder_comes_from_the_environment(recipe, data, monkeypatch, capsys):
    monkeypatch.setenv("RETINA_CODEC_DATA", str(data))
    assert recipe.main([]) == 0
    assert json.loads(capsys.readouterr().out) == expected_hashes(data)


def test_without_files_it_says_where_they_are(recipe, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("RETINA_CODEC_DATA", raising=False)
    for arguments in ([], ["--folder", str(tmp_path / "none")], ["--folder", str(tmp_path)]):
        assert recipe.main(arguments) == 2
        out, words = capsys.readouterr()
        assert out == ""
        assert "https://doi.org/10.25740/rk663dm5577" in words
        assert words.count("\n") == 1


def test_two_files_of_one_name_are_refused(recipe, data, capsys):
    write_published(data / "copy" / "15-10-07" / "whitenoise.h5", size=(8, 9))
    assert recipe.main(["--folder", str(data)]) == 2
    assert "there must be one 15-10-07/whitenoise.h5" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no table", "it has 0 blocks of JSON"),
        ("```json\n{}\n```\n```json\n{}\n```\n", "it has 2 blocks"),
        ("```json\n{\n```\n", "must hold one table"),
        ('```json\n{"a": "12"}\n```\n', "not a table of names and 64 digits"),
    ],
)
def test_a_card_without_a_table_is_refused(recipe, tmp_path, text, message):
    (tmp_path / "card.md").write_text(text, encoding="utf-8")
    with pytest.raises(RetinaCodecError, match=message):
        recipe.known_hashes(tmp_path / "card.md")


def test_the_card_says_what_a_card_must(recipe):
    card = (FOLDER / "card.md").read_text(encoding="utf-8")
    for part in ("10.1016/j.neuron.2023.06.007", "10.25740/rk663dm5577", "100 Hz", "µm", "licence"):
        assert part in card
    assert recipe.known_hashes() == json.loads(re.search(r"```json\n(.*?)```", card, re.S)[1])
    assert all(experiment in card for experiment in PUBLISHED_CELLS)
    assert recipe.ADDRESS in card
