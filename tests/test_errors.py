"""Options in messages are written as the reader of the message types them."""

import json
import shlex

import numpy as np
import pytest

from retina_codec.errors import command_line_words, option

CASES = [
    ("stimulus", "NAME", "stimulus=NAME", "--set stimulus=NAME"),
    ("units", "processing/a", "units='processing/a'", "--set units=processing/a"),
    ("repair_clock", True, "repair_clock=True", "--set repair_clock=true"),
    ("frame_rate", 60, "frame_rate=60", "--set frame_rate=60"),
    (
        "stimulus",
        {"train": "NAME", "test": "film"},
        "stimulus={'train': NAME, 'test': 'film'}",
        """--set 'stimulus={"train": "NAME", "test": "film"}'""",
    ),
    (
        "splits",
        {"test": ["A", 2]},
        "splits={'test': [A, 2]}",
        """--set 'splits={"test": ["A", 2]}'""",
    ),
]


@pytest.mark.parametrize(("name", "value", "python", "command"), CASES)
def test_an_option_in_python_and_on_the_command_line(name, value, python, command):
    assert option(name, value) == python
    with command_line_words():
        assert option(name, value) == command
        word, pair = shlex.split(command)
        given = pair.removeprefix(f"{name}=")
        assert word == "--set"
        assert given == value if isinstance(value, str) else json.loads(given) == value
    assert option(name, value) == python


def test_numbers_to_be_filled_in_have_no_quotes():
    assert option("splits", {"test": ["START", "STOP"]}) == "splits={'test': [START, STOP]}"
    with command_line_words():
        found = option("splits", {"test": ["START", "STOP"]})
    assert found == """--set 'splits={"test": [START, STOP]}'"""


def test_arrays_are_not_printed():
    assert option("frames", np.zeros((100, 50, 50))) == "frames=<ndarray>"
