"""Targets that pick or add outputs, and callables as targets."""

import pytest
import torch

from retina_codec.errors import RetinaCodecError
from retina_codec.targets.base import Sum, Target, Unit, as_target


def test_sum_and_unit_pick_what_they_say() -> None:
    y = torch.tensor([[1.0, 2.0, 4.0], [0.5, 0.25, 8.0]])
    assert Sum()(y).tolist() == [7.0, 8.75]
    assert Unit(1)(y).tolist() == [2.0, 0.25]
    # With named cells the id counts, never the position: cell 2 comes first here.
    assert Unit(2).prepare(cells=[2, 0, 1])(y).tolist() == [1.0, 0.5]
    assert Unit("off").prepare(cells=["on", "off", "x"])(y).tolist() == [2.0, 0.25]
    assert Unit(2) != Unit(1)
    with pytest.raises(RetinaCodecError, match=r"no cell 'q'. Its cells are \['on', 'off'\]"):
        Unit("q").prepare(cells=["on", "off"])
    for index in (3, -1, "off"):
        with pytest.raises(RetinaCodecError, match="between 0 and 2"):
            Unit(index)(y)


def test_a_callable_becomes_a_target_and_others_do_not() -> None:
    target = as_target(torch.nn.Flatten(0))
    assert isinstance(target, Target)
    assert target(torch.ones(3, 1)).shape == (3,)
    assert target.describe() == "Flatten"
    total = Sum()
    assert as_target(total) is total
    for wrong in ("Sum", Sum, 3):
        with pytest.raises(RetinaCodecError, match="target must be"):
            as_target(wrong)  # type: ignore[arg-type]
