"""The card of the digit scenes says what is so."""

import hashlib
import json
import re
from importlib.resources import files
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from retina_codec.images.digits import (
    BRIGHTEST,
    DARKEST,
    HIGHEST_CONTRAST,
    LOWEST_CONTRAST,
    digit_scenes,
)

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
    row = re.search(r"\| coordinates \| (.*) \|", CARD)[1]
    labels = set(re.findall(r"`(\w+)`", row))
    scenes = digit_scenes("test", count=3)
    assert labels == {name for name, one in scenes.coords.items() if one.dims == ("sample",)} - {
        "sample"
    }


def test_numbers_of_digits_are_those_of_the_card():
    assert "the first 1297 digits" in CARD
    assert "the last 500 digits" in CARD
    assert f"to {DARKEST} + {BRIGHTEST - DARKEST:.1f} v" in CARD
    assert f"lies {LOWEST_CONTRAST} to {HIGHEST_CONTRAST} above or below" in CARD
    assert digit_scenes("test", progress=False).sizes["sample"] == 500
