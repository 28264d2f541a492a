"""Baselines of every kind, as batches of one input."""

from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from retina_codec.errors import RetinaCodecError
from retina_codec.methods.baselines import check_baseline, prepare_baseline, resolve_baselines

INPUTS = torch.zeros(4, 2, 3)
IMAGE = np.arange(6.0).reshape(2, 3)


@pytest.mark.parametrize(
    ("baseline", "expected"),
    [
        (0.0, [np.zeros((2, 3))]),
        (2, [np.full((2, 3), 2.0)]),
        (IMAGE, [IMAGE]),
        (torch.tensor(IMAGE), [IMAGE]),
        (xr.DataArray(IMAGE, dims=("y", "x")), [IMAGE]),
        ([1.0, IMAGE], [np.ones((2, 3)), IMAGE]),
    ],
)
def test_every_kind_becomes_one_input(baseline: Any, expected: list[np.ndarray]) -> None:
    check_baseline(baseline)
    found = resolve_baselines(baseline, INPUTS)
    assert len(found) == len(expected)
    for one, values in zip(found, expected, strict=True):
        assert one.dtype == torch.float32
        np.testing.assert_array_equal(one, values[None].astype("f4"))


def test_the_mean_is_put_in_only_when_asked_for() -> None:
    calls = []

    def mean() -> torch.Tensor:
        calls.append(1)
        return torch.full((2, 3), 5.0)

    assert prepare_baseline(0.5, mean) == 0.5
    assert not calls
    prepared = prepare_baseline(["mean", 1.0, "mean"], mean)
    assert len(calls) == 1
    found = resolve_baselines(prepared, INPUTS)
    assert [float(one.mean()) for one in found] == [5.0, 1.0, 5.0]


def test_inputs_by_name_have_baselines_by_name_and_numbers_stay() -> None:
    inputs = {"pixels": torch.ones(3, 2), "mask": torch.tensor([[1], [0], [1]])}
    (found,) = resolve_baselines({"pixels": 4.0}, inputs)
    # Token numbers and masks have no path: each input keeps its own.
    assert found["mask"].tolist() == [[1], [0], [1]]
    assert found["pixels"].tolist() == [[4.0, 4.0]] * 3
    (same,) = resolve_baselines(4.0, inputs)
    assert torch.equal(same["pixels"], found["pixels"])
    with pytest.raises(
        RetinaCodecError, match=r"inputs that paths change, \['pixels'\]; got \['depth'\]"
    ):
        resolve_baselines({"depth": 0.0}, inputs)


@pytest.mark.parametrize(
    ("baseline", "message"),
    [
        (float("nan"), "must be finite"),
        ([0.0, float("inf")], "must be finite"),
        ({"pixels": float("inf")}, "must be finite"),
        ("median", "'mean', or a list of these; got 'median'"),
        ([], "at least one"),
        (object(), "got object"),
    ],
)
def test_bad_baselines_are_refused_early(baseline: Any, message: str) -> None:
    with pytest.raises(RetinaCodecError, match=message):
        check_baseline(baseline)


def test_shapes_must_be_those_of_one_input() -> None:
    with pytest.raises(RetinaCodecError, match=r"shape \(2, 3\); got \(3, 2\)"):
        resolve_baselines(IMAGE.T, INPUTS)
    with pytest.raises(RetinaCodecError, match="known only within contribute"):
        resolve_baselines("mean", INPUTS)
