"""What a run is called: the same in every process, another for anything that decides a number."""

import functools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from retina_codec.errors import RetinaCodecError
from retina_codec.storage.provenance import ADDRESS, check_same, function_text


def scaled(factor: Any) -> Callable[[Any], Any]:
    return lambda outputs: factor * outputs


def default(outputs: Any, factor: float = 2.0) -> Any:
    return factor * outputs


def other_default(outputs: Any, factor: float = 3.0) -> Any:
    return factor * outputs


class Bound:
    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __repr__(self) -> str:
        return f"Bound({self.factor})"

    def call(self, outputs: Any) -> Any:
        return self.factor * outputs


def linear(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Linear(2, 2)


@pytest.mark.parametrize(
    ("make", "others"),
    [
        (lambda: scaled(2.0), [scaled(3.0), scaled(torch.ones(1)), lambda outputs: outputs]),
        (lambda: scaled(torch.ones(2)), [scaled(torch.zeros(2))]),
        (lambda: scaled(scaled(1)), [scaled(scaled(2))]),
        (lambda: default, [other_default]),
        (lambda: functools.partial(default, factor=1.0), [functools.partial(default, factor=4.0)]),
        (lambda: Bound(1.0).call, [Bound(2.0).call]),
        (lambda: linear(0), [linear(1), nn.Bilinear(1, 1, 1)]),
        (lambda: lambda x: [y + 1 for y in x], [lambda x: [y + 2 for y in x]]),
    ],
)
def test_functions_by_code_and_what_they_carry(make: Any, others: list[Any]) -> None:
    text = function_text(make())
    assert text == function_text(make())
    assert ADDRESS.search(text) is None
    assert text not in [function_text(other) for other in others]


def test_another_process_finds_the_same_text() -> None:
    program = (
        "from tests.storage.test_provenance import *;"
        "print(function_text(scaled(torch.ones(2))), function_text(linear(0)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    here = f"{function_text(scaled(torch.ones(2)))} {function_text(linear(0))}"
    assert done.stdout.strip() == here


def test_only_differences_are_told_and_where_they_begin() -> None:
    here = {"same": "1", "long": "a" * 300 + "x" + "b" * 300, "new": "2"}
    there = here | {"long": "a" * 300 + "y" + "b" * 300}
    del there["new"]
    check_same(json.dumps(here), here, "run.zarr")
    with pytest.raises(RetinaCodecError) as caught:
        check_same(json.dumps(there), here, "run.zarr")
    told = str(caught.value)
    assert "same" not in told
    assert "new: nothing there, 2 here" in told
    assert "aay" in told.split(" there, ")[0]
    assert "aax" in told.split(" there, ")[1]
    assert len(told) < 500
    for garbage in (None, "{", "[1", "3"):
        with pytest.raises(RetinaCodecError, match="does not say which run it is"):
            check_same(garbage, here, "run.zarr")
