import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from retina_codec.modes.decompositions import sparse_coding as coding
from tests.reference.modes import best_code


def random_problem(seed, samples=60, modes=6, features=5, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    dictionary = torch.rand((modes, features), generator=generator, dtype=dtype)
    dictionary = dictionary / dictionary.norm(dim=1, keepdim=True)
    return torch.rand((samples, features), generator=generator, dtype=dtype), dictionary


def errors(features, dictionary, codes):
    return (features - coding.reconstruct(*codes, dictionary)).square().sum(1)


def test_orthogonal_modes_give_the_largest_positive_projections():
    features = torch.tensor([[3.0, -5.0, 2.0, 1.0], [-1.0, -2.0, -3.0, 0.5]])
    codes = coding.sparse_codes(features, torch.eye(4), 2)
    expected = torch.tensor([[3.0, 0.0, 2.0, 0.0], [0.0, 0.0, 0.0, 0.5]])
    torch.testing.assert_close(coding.to_dense(*codes, 4), expected, rtol=2e-5, atol=0)


@pytest.mark.parametrize("active", [1, 2, 3])
def test_almost_as_good_as_every_support_tried(active):
    features, dictionary = random_problem(0)
    found = errors(features, dictionary, coding.sparse_codes(features, dictionary, active)).numpy()
    best = np.array([best_code(x, dictionary.numpy(), active) for x in features.numpy()])
    assert (found >= best - 1e-9).all()
    assert np.mean(found <= best * 1.001 + 1e-6) >= 0.9  # a local search: not always the best
    assert found.sum() <= 1.02 * best.sum() + 1e-6


def test_amplitudes_solve_non_negative_least_squares_on_their_support():
    features, dictionary = random_problem(1)
    support, amplitude = coding.sparse_codes(features, dictionary, 3)
    ridge = np.sqrt(coding.RIDGE) * np.eye(6)
    matrix = np.concatenate([dictionary.numpy().T, ridge])  # the small ridge, as extra rows
    for x, modes, found in zip(features.numpy(), support.numpy(), amplitude.numpy(), strict=True):
        used = modes[found > 0]
        expected, _ = nnls(matrix[:, used], np.concatenate([x, np.zeros(6)]))
        np.testing.assert_allclose(found[found > 0], expected, rtol=1e-9)


def test_start_is_used_and_exchanges_mend_it():
    features, _ = random_problem(2)
    dictionary = torch.eye(5, dtype=features.dtype)
    wrong = (features @ dictionary.T).argmin(1, keepdim=True)
    kept = coding.sparse_codes(features, dictionary, 1, support=wrong, exchanges=0)
    assert torch.equal(kept[0], wrong)
    mended = coding.sparse_codes(features, dictionary, 1, support=wrong, exchanges=1)
    assert torch.equal(mended[0][:, 0], (features @ dictionary.T).argmax(1))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), active=st.integers(1, 4))
def test_more_exchanges_never_hurt(seed, active):
    features, dictionary = random_problem(seed, samples=20)

    def error(active, exchanges):
        codes = coding.sparse_codes(features, dictionary, active, exchanges=exchanges)
        assert (codes[1] >= 0).all()
        assert ((codes[1] > 0).sum(1) <= active).all()
        return errors(features, dictionary, codes)

    assert (error(active, 3) <= error(active, 0) + 1e-9).all()


def test_more_modes_hardly_ever_hurt():
    """Of many samples of random dictionaries; each may lose, all together gain."""
    lost, total = 0, 0
    for seed in range(20):
        features, dictionary = random_problem(seed, samples=50)
        few, more = (
            errors(features, dictionary, coding.sparse_codes(features, dictionary, k, exchanges=0))
            for k in (3, 4)
        )
        lost, total = lost + int((more > few + 1e-4).sum()), total + len(few)
        assert more.sum() < few.sum()
    assert lost <= 0.01 * total


def test_minimum_share_leaves_out_what_explains_less():
    features = torch.tensor([[1.0, 0.2, 0.05]])  # shares 0.960, 0.038, 0.002
    codes = coding.sparse_codes(features, torch.eye(3), 3, minimum_share=0.01)
    assert (coding.to_dense(*codes, 3) > 0).tolist() == [[True, True, False]]


def test_equal_modes_and_empty_samples_are_no_trouble():
    dictionary = torch.tensor([[0.6, 0.8], [0.6, 0.8]])
    features = torch.tensor([[3.0, 4.0], [0.0, 0.0], [-1.0, -1.0]])
    loading = coding.to_dense(*coding.sparse_codes(features, dictionary, 2), 2)
    torch.testing.assert_close(loading.sum(1), torch.tensor([5.0, 0.0, 0.0]), rtol=1e-4, atol=0)


def test_blocks_of_samples_change_nothing(monkeypatch):
    features, dictionary = random_problem(3)
    whole = coding.sparse_codes(features, dictionary, 2)
    start = {
        "support": whole[0].flip(0),
        "used": torch.rand(whole[0].shape, generator=torch.Generator().manual_seed(0)) < 0.5,
        "forbidden": torch.arange(len(features)) % len(dictionary),
    }
    again = coding.sparse_codes(features, dictionary, 2, **start)
    monkeypatch.setattr(coding, "BLOCK_ELEMENTS", 70)
    for expected, options in ((whole, {}), (again, start)):
        parts = coding.sparse_codes(features, dictionary, 2, **options)
        assert torch.equal(expected[0], parts[0])
        torch.testing.assert_close(expected[1], parts[1])


def test_users_are_those_with_an_amplitude():
    support = torch.tensor([[2, 0], [0, 1]])
    amplitude = torch.tensor([[1.0, 0.0], [3.0, 2.0]])
    found = coding.users_by_mode(support, amplitude, 4)
    assert [(a.tolist(), b.tolist()) for a, b in found] == [
        ([1], [0]),
        ([1], [1]),
        ([0], [0]),
        ([], []),
    ]


def test_update_finds_the_one_mode_of_rank_one_data():
    mode = torch.tensor([0.6, 0.0, 0.8])
    features = torch.tensor([[1.0], [2.0], [5.0]]) * mode
    support, amplitude = torch.zeros((3, 1), dtype=torch.int64), torch.ones((3, 1))
    dictionary, amplitude = coding.update_dictionary(
        features,
        torch.tensor([[1.0, 0.0, 0.0]]),
        support,
        amplitude,
        torch.ones(3),
        non_negative=True,
    )
    torch.testing.assert_close(dictionary[0], mode)
    torch.testing.assert_close(amplitude[:, 0], torch.tensor([1.0, 2.0, 5.0]))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), non_negative=st.booleans())
def test_update_never_raises_the_weighted_error(seed, non_negative):
    features, dictionary = random_problem(seed)
    if not non_negative:
        features = features - 0.5
    weight = coding.sample_weights(features)
    codes = coding.sparse_codes(features, dictionary, 2)
    kept = dictionary.clone()
    new, amplitude = coding.update_dictionary(
        features, dictionary, *codes, weight, non_negative=non_negative
    )
    before = (weight * errors(features, dictionary, codes)).sum()
    after = (weight * errors(features, new, (codes[0], amplitude))).sum()
    assert after <= before + 1e-9
    assert torch.equal(dictionary, kept)
    torch.testing.assert_close(new.norm(dim=1), torch.ones(len(new), dtype=new.dtype))
    assert not non_negative or bool((new >= 0).all())


def test_weights_are_halfway_between_squared_and_relative_error():
    features = torch.tensor([[100.0, 0.0], [0.0, 50.0], [1e-3, 0.0]])
    weight = coding.sample_weights(features)
    floor = 0.01 * (100.0**2 + 50.0**2) / 3
    expected = 1 / torch.tensor([100.0**2 + floor, 50.0**2 + floor, floor]).sqrt()
    torch.testing.assert_close(weight, expected)


def test_removal_costs_what_an_irreplaceable_mode_explains():
    features = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 0.0]])
    codes = coding.sparse_codes(features, torch.eye(3), 2)
    weight = torch.tensor([1.0, 10.0])
    cost, weighted = coding.removal_costs(features, torch.eye(3), *codes, 2, weight)
    torch.testing.assert_close(cost, torch.tensor([4.0, 10.0, 0.0]), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(weighted, torch.tensor([4.0, 91.0, 0.0]), rtol=1e-4, atol=1e-6)


def test_removal_of_one_of_two_equal_modes_costs_nothing():
    dictionary = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    features = torch.tensor([[2.0, 1.0], [1.0, 3.0]])
    codes = coding.sparse_codes(features, dictionary, 2)
    cost, _ = coding.removal_costs(features, dictionary, *codes, 2, torch.ones(2))
    assert cost[:2].max() < 1e-3
    assert cost[2] > 5


def removal_cost(features, dictionary, active, codes, mode, weight):
    """Code every user of a mode again without it, all supports tried."""
    users = coding.users_by_mode(*codes, len(dictionary))[mode][0].tolist()
    before = errors(features, dictionary, codes)
    others = np.delete(dictionary.numpy(), mode, axis=0)
    rise = [
        best_code(features[user].numpy(), others, active) - float(before[user]) for user in users
    ]
    return sum(rise), float(np.dot(rise, weight[users].numpy()))


@pytest.mark.parametrize(("active", "excess"), [(1, 1e-6), (2, 0.1)])
def test_removal_costs_are_those_of_every_support_tried(active, excess):
    features, dictionary = random_problem(4, samples=40)
    weight = coding.sample_weights(features)
    codes = coding.sparse_codes(features, dictionary, active, exchanges=4)
    found = torch.stack(coding.removal_costs(features, dictionary, *codes, active, weight), 1)
    slow = np.array(
        [removal_cost(features, dictionary, active, codes, mode, weight) for mode in range(6)]
    )
    assert (found.numpy() >= slow - 1e-4).all()  # a local search: never cheaper than the best
    assert found.sum() <= (1 + excess) * slow.sum() + 1e-3


def test_a_forbidden_mode_is_as_one_that_is_not_there():
    features, dictionary = random_problem(5)
    forbidden = torch.arange(len(features)) % len(dictionary)
    found = coding.to_dense(*coding.sparse_codes(features, dictionary, 2, forbidden=forbidden), 6)
    for x, mode, loading in zip(features, forbidden.tolist(), found, strict=True):
        others = [other for other in range(6) if other != mode]
        alone = coding.to_dense(*coding.sparse_codes(x[None], dictionary[others], 2), 5)[0]
        torch.testing.assert_close(loading[others], alone)
        assert loading[mode] == 0


def test_slots_that_do_not_count_are_filled_anew():
    features = torch.tensor([[3.0, 2.0, 1.0]])
    support, used = torch.tensor([[2, 1]]), torch.tensor([[True, False]])
    kept = coding.sparse_codes(features, torch.eye(3), 2, support=support, used=used, exchanges=0)
    near = {"rtol": 2e-5, "atol": 0}  # the ridge
    torch.testing.assert_close(coding.to_dense(*kept, 3), torch.tensor([[0.0, 0.0, 1.0]]), **near)
    filled = coding.sparse_codes(features, torch.eye(3), 2, support=support, used=used, exchanges=1)
    torch.testing.assert_close(coding.to_dense(*filled, 3), torch.tensor([[3.0, 0.0, 1.0]]), **near)


def test_directions_are_different_data_points():
    features = torch.tensor([[1.0, 0.0], [5.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
    found = coding.choose_directions(
        features, 4, torch.Generator().manual_seed(0), non_negative=True
    )
    assert sorted(found.tolist()) == [[0.0, 1.0], [1.0, 0.0]]
