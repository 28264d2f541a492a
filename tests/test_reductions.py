"""Sign first, then space."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retina_codec.errors import RetinaCodecError
from retina_codec.reductions import SIGNS, mean_over_space, sum_by_sign
from tests.reference.contributions import split_by_sign


def test_opposite_places_do_not_cancel() -> None:
    """Closed form: +3 and −3 in one channel are 3 of each sign, not nothing."""
    values = torch.tensor([[[[3.0, -3.0]], [[0.0, -1.0]]]])  # (batch 1, channel 2, y 1, x 2)
    assert SIGNS == ("inhibitory", "excitatory")
    assert sum_by_sign(values).tolist() == [[[-3.0, -1.0], [3.0, 0.0]]]
    assert mean_over_space(values).tolist() == [[0.0, -0.5]]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), space=st.sampled_from([(), (1,), (5,), (3, 4), (2, 3, 2)]))
def test_agrees_with_loops_and_adds_up(seed: int, space: tuple[int, ...]) -> None:
    values = torch.from_numpy(np.random.default_rng(seed).normal(size=(3, 4, *space)))
    before = values.clone()
    found = sum_by_sign(values)
    for one, expected in zip(found, values, strict=True):
        np.testing.assert_allclose(one, split_by_sign(expected.numpy()), atol=1e-12)
    net = values.flatten(2).sum(2) if space else values
    torch.testing.assert_close(found.sum(1), net)
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(sum_by_sign(values[:, order]), found[..., order])
    assert torch.equal(values, before)


def test_nan_is_kept() -> None:
    assert sum_by_sign(torch.tensor([[[1.0, float("nan")]]])).isnan().all()


def test_a_layer_without_channels_is_refused() -> None:
    with pytest.raises(RetinaCodecError, match=r"\(batch, channel, ...\); got \(3,\)"):
        sum_by_sign(torch.ones(3))
