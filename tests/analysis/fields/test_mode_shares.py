import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from retina_codec.analysis.fields.parts import mode_shares, unit_shares
from retina_codec.errors import RetinaCodecError

SIZES = st.floats(0, 100).filter(lambda v: v == 0 or v > 1e-6)


def slow_shares(loading, dictionary, contribution):
    """Go through the definition one number at a time."""
    events, modes = loading.shape
    found = np.zeros((events, modes + 1, *dictionary.shape[1:]))
    for e in range(events):
        for s, sigma in enumerate((-1, 1)):
            for k in range(dictionary.shape[2]):
                claims = [max(0, loading[e, m] * dictionary[m, s, k] * sigma) for m in range(modes)]
                whole = max(abs(contribution[e, s, k]), sum(claims))
                if whole > 0:
                    found[e, :-1, s, k] = [claim / whole for claim in claims]
                found[e, -1, s, k] = 1 - found[e, :-1, s, k].sum()
    return found


def test_modes_take_what_they_explain_and_the_remainder_the_rest():
    dictionary = np.zeros((2, 2, 2))
    dictionary[0, 1] = [0.5, 0.4]  # excitatory
    dictionary[1, 1] = [0.25, 0.8]
    dictionary[0, 0] = [-0.3, 0.0]  # inhibitory
    contribution = np.array([[[-0.6, -0.5], [1.0, 0.6]]])
    found = mode_shares(np.ones((1, 2)), dictionary, contribution)[0]
    np.testing.assert_allclose(found[:, 1, 0], [0.5, 0.25, 0.25])  # part of it is explained
    np.testing.assert_allclose(found[:, 1, 1], [1 / 3, 2 / 3, 0])  # twice as much is claimed
    np.testing.assert_allclose(found[:, 0, 0], [0.5, 0, 0.5])
    np.testing.assert_allclose(found[:, 0, 1], [0, 0, 1])  # nobody claims it


@settings(max_examples=30, deadline=None)
@given(
    arrays(np.float64, (3, 4), elements=SIZES),
    arrays(np.float64, (4, 2, 3), elements=SIZES),
    arrays(np.float64, (3, 2, 3), elements=SIZES),
)
def test_shares_follow_the_slow_rule_and_add_up_to_one(loading, dictionary, contribution):
    sigma = np.array([-1.0, 1.0])[:, None]
    dictionary, contribution = dictionary * sigma, contribution * sigma
    found = mode_shares(loading, dictionary, contribution)
    np.testing.assert_allclose(
        found, slow_shares(loading, dictionary, contribution), rtol=1e-12, atol=1e-12
    )
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-12)
    assert found.min() >= 0
    # A faithful reconstruction leaves nothing to the remainder.
    rebuilt = np.einsum("em,msk->esk", loading, dictionary)
    whole = mode_shares(loading, dictionary, rebuilt)
    np.testing.assert_allclose(whole[:, -1][rebuilt != 0], 0, atol=1e-12)


def test_claims_against_the_sign_count_as_none():
    dictionary = np.array([[[0.5], [-0.5]], [[-0.5], [0.5]]])
    found = mode_shares(np.ones((1, 2)), dictionary, np.array([[[-1.0], [1.0]]]))
    np.testing.assert_allclose(found[0, 0], 0)
    np.testing.assert_allclose(found[0, 1], 0.5)


def test_units_take_the_share_of_their_channel_and_sign():
    shares = torch.arange(2 * 3 * 2 * 4, dtype=torch.float64).reshape(2, 3, 2, 4)
    units = torch.randn(2, 4, 3, 2, dtype=torch.float64)
    units[1, 2, 0, 0] = 0
    found = unit_shares(shares, units)
    for e, k, y, x in np.ndindex(2, 4, 3, 2):
        value = float(units[e, k, y, x])
        expected = shares[e, :, int(value > 0), k].tolist() if value else [0, 0, 1]
        assert found[e, :, k, y, x].tolist() == expected


@pytest.mark.parametrize(
    ("loading", "dictionary", "contribution", "message"),
    [
        (np.ones((2, 3)), np.ones((4, 2, 5)), np.ones((2, 2, 5)), "fit each other"),
        (np.ones((2, 3)), np.ones((3, 2, 5)), np.ones((1, 2, 5)), "fit each other"),
        (np.full((1, 1), np.nan), np.ones((1, 2, 1)), np.ones((1, 2, 1)), "finite"),
    ],
)
def test_bad_input_is_one_clear_error(loading, dictionary, contribution, message):
    with pytest.raises(RetinaCodecError, match=message):
        mode_shares(loading, dictionary, contribution)
