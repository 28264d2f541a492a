import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment, nnls
from sklearn.decomposition import NMF as Factorisation

from retina_codec import RetinaCodecError
from retina_codec.modes.decompositions.nmf import NMF, SemiNMF, nonnegative_loadings
from tests.reference.modes import best_code, planted_modes


@pytest.fixture(scope="module")
def features():
    contribution, _, _ = planted_modes(0, samples=400, modes=5, noise=0.005)
    flat = contribution.reshape(400, -1) * np.repeat([-1, 1], 8) / contribution.std()
    return torch.tensor(flat, dtype=torch.float32)


def energy(left):
    return float(left.double().square().sum())


def test_loadings_are_non_negative_least_squares(features):
    generator = torch.Generator().manual_seed(0)
    dictionary = torch.rand((6, 16), generator=generator) - 0.3
    found = nonnegative_loadings(features[:60], dictionary)
    assert bool((found >= 0).all())
    for sample, loading in zip(features[:60].double().numpy(), found.numpy(), strict=True):
        expected, _ = nnls(dictionary.double().numpy().T, sample)
        np.testing.assert_allclose(loading, expected, atol=2e-3 * (1 + expected.max()))


def test_a_mode_of_zeros_loads_nothing(features):
    dictionary = torch.cat([torch.zeros(1, 16), torch.eye(16)])
    found = nonnegative_loadings(features, dictionary)
    torch.testing.assert_close(found[:, 1:], features.clamp(min=0))
    assert bool((found[:, 0] == 0).all())


def test_nmf_is_that_of_scikit_learn_with_unit_modes(features):
    fitted = NMF(modes=5, seed=3).fit(features)
    positive = features.clamp(min=0).numpy()
    model = Factorisation(5, init="random", random_state=3, max_iter=1000).fit(positive)
    atoms = model.components_ / np.linalg.norm(model.components_, axis=1, keepdims=True)
    np.testing.assert_allclose(fitted.dictionary.numpy(), atoms, rtol=1e-4, atol=1e-5)
    left = features.clamp(min=0) - fitted.encode(features.clamp(min=0)) @ fitted.dictionary
    assert energy(left) ** 0.5 <= 1.01 * model.reconstruction_err_
    assert fitted.epochs == model.n_iter_


def test_planted_modes_come_back(features):
    _, planted, _ = planted_modes(0, samples=400, modes=5, noise=0.005)
    flat = planted.reshape(5, -1) * np.repeat([-1, 1], 8)
    cosine = flat @ NMF(modes=5, tolerance=1e-6).fit(features).dictionary.numpy().T
    assert cosine[linear_sum_assignment(-cosine)].min() > 0.95


@pytest.mark.parametrize("method", [NMF, SemiNMF])
def test_sparse_codes_are_close_to_the_best_of_every_support(features, method):
    fitted = method(modes=5, active=2).fit(features)
    loading = fitted.encode(features[:60])
    assert int((loading > 0).sum(1).max()) <= 2
    error = energy(features[:60] - loading @ fitted.dictionary)
    atoms = fitted.dictionary.double().numpy()
    best = sum(best_code(x, atoms, 2) for x in features[:60].double().numpy())
    assert error <= 1.02 * best + 1e-4


def test_semi_nmf_lies_between_principal_components_and_nmf(features):
    semi = SemiNMF(modes=4, tolerance=1e-9).fit(features)
    error = energy(features - semi.encode(features) @ semi.dictionary)
    values = np.linalg.svd(features.double().numpy(), compute_uv=False)
    nmf = NMF(modes=4, tolerance=1e-7).fit(features)
    assert error >= 0.999 * (values[4:] ** 2).sum()
    assert error <= 1.05 * energy(features - nmf.encode(features) @ nmf.dictionary)


def test_semi_nmf_cannot_be_improved_by_either_half(features):
    semi = SemiNMF(modes=4, tolerance=0.0, iterations=200).fit(features)
    loading = semi.encode(features).double().numpy()
    data = features.double().numpy()
    error = ((data - loading @ semi.dictionary.double().numpy()) ** 2).sum()
    free = np.linalg.lstsq(loading, data, rcond=None)[0]
    assert error <= 1.001 * ((data - loading @ free) ** 2).sum() + 1e-6


def test_semi_nmf_follows_signs():
    generator = np.random.default_rng(0)
    loading = generator.gamma(0.5, 1.0, (200, 2))
    modes = np.array([[3.0, -4.0, 0.0], [0.0, 0.6, 0.8]])
    features = torch.tensor(loading @ modes, dtype=torch.float32)
    fitted = SemiNMF(modes=2, tolerance=0.0, iterations=1000).fit(features)
    error = energy(features - fitted.encode(features) @ fitted.dictionary)
    assert error < 1e-4 * energy(features)
    assert bool((fitted.dictionary < -0.1).any())


@pytest.mark.parametrize(
    ("method", "change"),
    [
        (NMF, {"modes": 4}),
        (NMF, {"seed": 1}),
        (NMF, {"iterations": 5}),
        (NMF, {"tolerance": 0.1}),
        (NMF, {"active": 1}),
        (SemiNMF, {"modes": 4}),
        (SemiNMF, {"seed": 1}),
        (SemiNMF, {"iterations": 2}),
        (SemiNMF, {"tolerance": 0.5}),
        (SemiNMF, {"active": 1}),
    ],
)
def test_every_setting_counts(features, method, change):
    one, two = (method(**({"modes": 5} | more)).fit(features) for more in ({}, change))
    alike = one.dictionary.shape == two.dictionary.shape and torch.equal(
        one.encode(features), two.encode(features)
    )
    assert not alike


@pytest.mark.parametrize("method", [NMF, SemiNMF])
def test_nothing_to_find(method):
    with pytest.raises(RetinaCodecError, match="network is active"):
        method().fit(torch.zeros(20, 16))


def test_bad_settings():
    with pytest.raises(RetinaCodecError, match="modes must be >= 1"):
        NMF(modes=0)
    with pytest.raises(RetinaCodecError, match="tolerance must be >= 0"):
        SemiNMF(tolerance=-1.0)
