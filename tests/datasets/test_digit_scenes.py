"""The card of the digit scenes says what is so."""

import hashlib
import json
import re
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from retina_codec.recordings.digit_scenes import digit_scenes

CARD = (Path(__file__).parents[2] / "datasets/digit_scenes/card.md").read_text(encoding="utf-8")


def test_the_hashes_are_those_of_what_scikit_learn_ships():
    known = json.loads(re.search(r"```json\n(.*?)```", CARD, re.S)[1])
    found = {
        name: hashlib.sha256((files("sklearn.datasets.images") / name).read_bytes()).hexdigest()
        for name in ("china.jpg", "flower.jpg")
    }
    digits = load_digits()
    content = digits.images.astype(np.uint8).tobytes() + digits.target.astype(np.uint8).tobytes()
    found["digits"] = hashlib.sha256(content).hexdigest()
    assert found == known


def test_every_label_is_named():
    row = re.search(r"\| labels \| (.*) \|", CARD)[1]
    labels = set(re.findall(r"`(\w+)`", row))
    scenes = digit_scenes("test", count=3)
    assert labels == {name for name, one in scenes.coords.items() if one.dims == ("sample",)} - {
        "sample"
    }


@pytest.mark.parametrize("part", ["train", "test"])
def test_the_shares_of_lighter_digits_are_those_of_the_doubts(part):
    told = re.search(r"(\d+) % are lighter than their ground in\s+train and (\d+) % in test", CARD)
    flower = re.search(r"On flower it is (\d+) and (\d+) %", CARD)
    scenes = digit_scenes(part, progress=False)
    light = (scenes["tone"] == "light").groupby(scenes["photograph"]).mean()
    place = 0 if part == "train" else 1
    for photograph, words in (("china", told), ("flower", flower)):
        share = 100 * float(light.sel(photograph=photograph))
        assert share == pytest.approx(float(words.groups()[place]), abs=0.6)


def test_numbers_of_digits_are_those_of_the_card():
    assert "the first 1297 digits" in CARD
    assert "the last 500 digits" in CARD
    assert digit_scenes("test", progress=False).sizes["sample"] == 500
