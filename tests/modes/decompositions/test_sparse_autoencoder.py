import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.decomposition import NMF

from retina_codec import RetinaCodecError
from retina_codec.modes.decompositions import sparse_coding as coding
from retina_codec.modes.decompositions.encoder import UnrolledEncoder, train_encoder
from retina_codec.modes.decompositions.sparse_autoencoder import SparseAutoencoder, without_cheapest
from tests.reference.modes import (
    best_code,
    explained_variance,
    planted_modes,
    projected_gradient,
)

SMALL = {"modes": 6, "active": 2, "restarts": 1, "epochs": 20, "encoder_epochs": 5}


def as_features(contribution):
    """Scale to one global standard deviation and turn inhibitory features positive."""
    flat = contribution.reshape(len(contribution), -1)
    width = flat.shape[1] // 2
    return torch.tensor(
        flat * np.repeat([-1, 1], width) / flat[: len(flat) * 3 // 4].std(), dtype=torch.float32
    )


def r2(features, loading, dictionary):
    rebuilt = (loading @ dictionary).numpy()
    return explained_variance(features.numpy().astype(float), rebuilt)[1]


def recovered(dictionary, planted):
    """Cosine of each planted mode with the found mode that is its own."""
    flat = planted.reshape(len(planted), -1) * np.repeat([-1, 1], planted.shape[2])
    cosine = flat @ dictionary.numpy().T
    return cosine[linear_sum_assignment(-cosine)]


def heavy_tailed(latents, samples=6000):
    """Dense, slow, heavy-tailed drives of a few latents: no time is sparse, few dimensions."""
    generator = np.random.default_rng(latents)
    kernel = np.exp(-np.arange(100) / 8)
    noise = generator.normal(size=(samples + 99, latents))
    drive = np.stack([np.convolve(column, kernel, "valid") for column in noise.T], 1)
    drive = np.exp(1.5 * drive / drive.std(0))
    clean = drive @ generator.gamma(0.7, 1.0, (latents, 16))
    clean += 0.02 * clean.std() * generator.normal(size=clean.shape)
    return torch.tensor(clean / clean.std(), dtype=torch.float32)


@pytest.mark.parametrize(
    ("seed", "amplitude", "settings"),
    [
        (0, "lognormal", {}),
        pytest.param(1, "gamma", {"modes": 12, "seed": 3}, marks=pytest.mark.slow),
        pytest.param(2, "lognormal", {"modes": 16, "active": 4}, marks=pytest.mark.slow),
        pytest.param(3, "gamma", {"seed": 1}, marks=pytest.mark.slow),
        pytest.param(4, "lognormal", {"modes": 12}, marks=pytest.mark.slow),
    ],
)
def test_planted_modes_come_back(seed, amplitude, settings):
    contribution, planted, loading = planted_modes(seed, amplitude=amplitude)
    features = as_features(contribution)
    fitted = SparseAutoencoder(**settings).fit(features[:4460], progress=False)
    held = features[4500:]
    found = fitted.encode(held)
    assert (recovered(fitted.dictionary, planted) >= 0.95).sum() >= 11
    assert len(fitted.dictionary) <= 14  # 32 were allowed; the spare ones are taken away
    assert r2(held, found, fitted.dictionary) >= 0.95
    assert r2(held, fitted.encode_unpolished(held), fitted.dictionary) >= 0.95
    assert float((found > 0.01).sum(1).float().mean()) < 2 * (loading > 0).sum(1).mean()


def test_stands_comparison_with_nmf_though_it_is_sparse():
    contribution, planted, _ = planted_modes(5, samples=2000)
    features = as_features(contribution)
    fitted = SparseAutoencoder(modes=12, restarts=1).fit(features[:1500], progress=False)
    nmf = NMF(12, init="nndsvda", max_iter=2000, tol=1e-3).fit(features[:1500].clamp(min=0).numpy())
    held = features[1500:]
    dense = torch.tensor(nmf.transform(held.clamp(min=0).numpy()))
    atoms = torch.tensor(nmf.components_)
    assert r2(held, fitted.encode(held), fitted.dictionary) > r2(held, dense, atoms) - 0.02
    unit = atoms / atoms.norm(dim=1, keepdim=True)
    assert recovered(fitted.dictionary, planted).min() > recovered(unit, planted).min()


@pytest.mark.parametrize("latents", [3, 5])
def test_few_dimensions_and_heavy_tails_do_not_collapse(latents):
    features = heavy_tailed(latents, samples=2000)
    energy = features.square().sum(1).sort().values
    assert energy[-20:].sum() > 0.25 * energy.sum()
    fitted = SparseAutoencoder(restarts=1).fit(features[:1500], progress=False)
    held = features[1500:]
    loading = fitted.encode(held)
    assert r2(held, loading, fitted.dictionary) > 0.95
    assert len(fitted.dictionary) >= latents
    assert int((loading > 0.01).any(0).sum()) >= latents


def test_loadings_are_close_to_the_best_of_every_support():
    features = as_features(planted_modes(6, samples=400, modes=5)[0])
    fitted = SparseAutoencoder(**SMALL | {"minimum_share": 0.0}).fit(features, progress=False)
    loading = fitted.encode(features[:80])
    error = (features[:80] - loading @ fitted.dictionary).square().sum(1).numpy()
    atoms = fitted.dictionary.numpy().astype(float)
    best = [best_code(x, atoms, 2) for x in features[:80].numpy().astype(float)]
    assert error.sum() <= 1.02 * np.sum(best) + 1e-4
    assert bool((loading >= 0).all())
    assert int((loading > 0).sum(1).max()) <= 2


@pytest.fixture(scope="module")
def features():
    return as_features(planted_modes(7, samples=300, modes=5)[0])


@pytest.mark.parametrize(
    "change",
    [
        {"modes": 3},
        {"active": 1},
        {"seed": 1},
        {"sign_consistent": False},
        {"minimum_gain": 0.2},
        {"minimum_share": 0.2},
        {"restarts": 3},
        {"epochs": 1},
        {"encoder_steps": 1},
        {"encoder_epochs": 0},
        {"batch_size": 32},
        {"validation": 0.4},
    ],
)
def test_every_setting_counts(features, change):
    one, two = (
        SparseAutoencoder(**settings).fit(features, progress=False)
        for settings in (SMALL, SMALL | change)
    )
    alike = [
        a.shape == b.shape and torch.equal(a, b)
        for a, b in (
            (one.dictionary, two.dictionary),
            (one.encode(features), two.encode(features)),
            (one.encode_unpolished(features), two.encode_unpolished(features)),
        )
    ]
    assert not all(alike)


def test_patience_and_exchanges_count():
    features = heavy_tailed(8, samples=400)
    base = SMALL | {"modes": 12, "active": 3, "epochs": 40, "encoder_epochs": 0}
    fitted = [
        SparseAutoencoder(**base | change).fit(features, progress=False)
        for change in ({}, {"patience": 1}, {"exchanges": 0})
    ]
    assert fitted[1].epochs < fitted[0].epochs
    assert torch.equal(fitted[2].dictionary, fitted[0].dictionary)
    rough, polished = (r2(features, one.encode(features), one.dictionary) for one in fitted[::-2])
    assert rough < polished


def test_same_seed_same_result_and_nothing_touched(features):
    before, state = features.clone(), torch.get_rng_state()
    one, two = (SparseAutoencoder(**SMALL).fit(features, progress=False) for _ in range(2))
    assert torch.equal(one.dictionary, two.dictionary)
    assert torch.equal(one.encode(features), two.encode(features))
    assert torch.equal(features, before)
    assert torch.equal(state, torch.get_rng_state())


def test_rounding_is_not_amplified():
    features = as_features(planted_modes(9, samples=1000)[0])
    noise = torch.randn(features.shape, generator=torch.Generator().manual_seed(0))
    one, two = (
        SparseAutoencoder(modes=16, restarts=1).fit(x, progress=False)
        for x in (features, features * (1 + 1e-6 * noise))
    )
    assert not torch.equal(one.dictionary, two.dictionary)
    assert one.dictionary.shape == two.dictionary.shape
    torch.testing.assert_close(one.dictionary, two.dictionary, rtol=0, atol=0.02)
    loadings = np.concatenate([one.encode(features), two.encode(features)], 1)
    count = len(one.dictionary)
    same = np.corrcoef(loadings.T)[:count, count:].diagonal()
    assert same.min() > 0.98


def test_twice_the_contribution_is_twice_the_loading(features):
    fitted = SparseAutoencoder(**SMALL).fit(features, progress=False)
    torch.testing.assert_close(fitted.encode(2 * features), 2 * fitted.encode(features))
    torch.testing.assert_close(
        fitted.encode_unpolished(2 * features), 2 * fitted.encode_unpolished(features)
    )


def test_each_sample_is_coded_alone(features):
    fitted = SparseAutoencoder(**SMALL).fit(features, progress=False)
    alone = torch.cat([fitted.encode(sample[None]) for sample in features[:20]])
    torch.testing.assert_close(alone, fitted.encode(features)[:20], rtol=1e-4, atol=1e-5)


def test_untrained_encoder_is_projected_gradient_descent(features):
    dictionary = torch.rand((7, 16), generator=torch.Generator().manual_seed(0))
    dictionary = dictionary / dictionary.norm(dim=1, keepdim=True)
    with torch.no_grad():
        found = UnrolledEncoder(dictionary, 5)(features[:20]).numpy()
    for sample, loading in zip(features[:20].numpy(), found, strict=True):
        expected = projected_gradient(sample.astype(float), dictionary.numpy().astype(float), 5)
        np.testing.assert_allclose(loading, expected, rtol=1e-4, atol=1e-5)


def test_training_brings_the_encoder_closer_to_the_codes(features):
    dictionary = SparseAutoencoder(**SMALL).fit(features, progress=False).dictionary
    codes = coding.sparse_codes(features, dictionary, 2)
    wanted = coding.to_dense(*codes, len(dictionary))
    before, after = (
        train_encoder(
            UnrolledEncoder(dictionary, 4),
            features,
            codes,
            active=2,
            epochs=epochs,
            batch_size=32,
            seed=0,
            progress=False,
        )
        for epochs in (0, 20)
    )
    miss = [float((net(features) - wanted).square().mean()) for net in (before, after)]
    assert miss[1] < 0.5 * miss[0]


def test_of_two_like_modes_only_one_leaves_at_once():
    close = torch.nn.functional.normalize(torch.tensor([[1.0, 0.1, 0.0], [1.0, 0.0, 0.0]]), dim=1)
    dictionary = torch.cat([close, torch.eye(3)[1:]])
    kept = without_cheapest(dictionary, torch.tensor([2.0, 1.0, 3.0, 9.0]), 2)
    assert kept.tolist() == [0, 3]  # 1 leaves, 0 takes its place, 2 is next
    assert without_cheapest(dictionary, torch.tensor([2.0, 1.0, 3.0, 9.0]), 1).tolist() == [0, 2, 3]


def test_more_modes_allowed_are_not_more_modes_found():
    contribution, planted, _ = planted_modes(8, samples=2000)
    features = as_features(contribution)
    fitted = SparseAutoencoder(modes=160, restarts=1, encoder_epochs=0).fit(
        features, progress=False
    )
    assert len(fitted.dictionary) <= 14
    assert (recovered(fitted.dictionary, planted) >= 0.95).sum() >= 11


def test_silent_samples_load_nothing(features):
    fitted = SparseAutoencoder(**SMALL).fit(
        torch.cat([torch.zeros(40, 16), features]), progress=False
    )
    assert bool((fitted.encode(torch.zeros(3, 16)) == 0).all())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"modes": 0}, "modes must be >= 1; got modes=0"),
        ({"active": 0}, "active must be >= 1"),
        ({"encoder_steps": 0}, "encoder_steps must be >= 1"),
        ({"minimum_gain": -0.1}, "minimum_gain must be >= 0"),
        ({"validation": 1.0}, "validation must lie between 0 and 1"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(RetinaCodecError, match=message):
        SparseAutoencoder(**settings)


def test_too_few_samples(features):
    with pytest.raises(RetinaCodecError, match="at least 2 training samples; got 2"):
        SparseAutoencoder().fit(features[:2])


def test_nothing_to_start_from(features):
    silent = torch.cat([torch.zeros(80, 16), features[:20]])
    with pytest.raises(RetinaCodecError, match="first 80 of 100 samples have no positive feature"):
        SparseAutoencoder(**SMALL).fit(silent)
