import numpy as np
import pytest
import torch
from scipy.optimize import nnls

from retina_codec import RetinaCodecError
from retina_codec.modes.scores.controls import FrozenDecoder, FrozenEncoder, shuffle_features
from tests.reference.modes import planted_modes


@pytest.fixture(scope="module")
def features():
    contribution, _, _ = planted_modes(0, samples=400, modes=5)
    flat = contribution.reshape(400, -1) * np.repeat([-1, 1], 8) / contribution.std()
    return torch.tensor(flat, dtype=torch.float32)


def test_frozen_decoder_knows_nothing_of_the_data(features):
    one = FrozenDecoder(modes=6, active=2).fit(features)
    two = FrozenDecoder(modes=6, active=2).fit(torch.zeros(3, 16))
    assert torch.equal(one.dictionary, two.dictionary)
    assert bool((one.dictionary >= 0).all())
    torch.testing.assert_close(one.dictionary.norm(dim=1), torch.ones(6))


def test_frozen_decoder_loads_as_well_as_it_can(features):
    fitted = FrozenDecoder(modes=6, active=None).fit(features)
    loading = fitted.encode(features[:40]).numpy()
    for sample, found in zip(features[:40].double().numpy(), loading, strict=True):
        expected, error = nnls(fitted.dictionary.double().numpy().T, sample)
        left = np.linalg.norm(sample - found @ fitted.dictionary.numpy())
        assert left <= error * 1.001 + 1e-3
        assert expected.min() >= 0


def test_frozen_encoder_has_the_best_modes_for_its_loadings(features):
    fitted = FrozenEncoder(modes=6, active=2).fit(features)
    loading = fitted.encode(features).double().numpy()
    assert (loading > 0).sum(1).max() <= 2
    data = features.double().numpy()
    best = np.linalg.lstsq(loading, data, rcond=None)[0]
    error = ((data - loading @ fitted.dictionary.double().numpy()) ** 2).sum()
    np.testing.assert_allclose(error, ((data - loading @ best) ** 2).sum(), rtol=1e-4)


@pytest.mark.parametrize("method", [FrozenDecoder, FrozenEncoder])
@pytest.mark.parametrize(
    "change", [{"modes": 5}, {"active": 1}, {"seed": 1}, {"sign_consistent": False}]
)
def test_every_setting_counts(features, method, change):
    one, two = (
        method(**({"modes": 6, "active": 2} | more)).fit(features).encode(features)
        for more in ({}, change)
    )
    assert one.shape != two.shape or not torch.equal(one, two)


def test_shuffled_features_keep_values_within_parts_and_lose_relations():
    generator = np.random.default_rng(0)
    shared = generator.normal(size=1000)
    values = np.stack([shared, 2 * shared, shared + 1, -shared], 1).reshape(1000, 2, 2)
    before = values.copy()
    parts = np.repeat(["fit", "held_out"], [700, 300])
    found = shuffle_features(values, parts, generator)
    np.testing.assert_array_equal(values, before)
    for part in (slice(0, 700), slice(700, None)):
        np.testing.assert_array_equal(np.sort(found[part], 0), np.sort(values[part], 0))
    r = np.corrcoef(found.reshape(1000, 4).T)[~np.eye(4, dtype=bool)]
    assert np.abs(r).max() < 0.15


def test_bad_settings():
    with pytest.raises(RetinaCodecError, match="modes must be >= 1"):
        FrozenEncoder(modes=0)
