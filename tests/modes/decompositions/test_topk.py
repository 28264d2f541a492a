import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from retina_codec import RetinaCodecError
from retina_codec.modes.decompositions.topk import (
    BatchTopKAutoencoder,
    TopKAutoencoder,
    TopKNetwork,
)
from retina_codec.modes.decompositions.training import train_network
from tests.reference.modes import batch_top_k, planted_modes, top_k_loading

METHODS = [TopKAutoencoder, BatchTopKAutoencoder]
QUICK = {"modes": 8, "active": 2, "epochs": 12}


@pytest.fixture(scope="module")
def features():
    contribution, _, _ = planted_modes(0, samples=800, modes=5)
    flat = contribution.reshape(800, -1) * np.repeat([-1, 1], 8) / contribution.std()
    return torch.tensor(flat, dtype=torch.float32)


def state_of(fitted):
    return {name: value.double().numpy() for name, value in fitted.network.state_dict().items()}


def test_top_k_follows_the_formula(features):
    fitted = TopKAutoencoder(**QUICK).fit(features, progress=False)
    found = fitted.encode(features[:50]).numpy()
    state = state_of(fitted)
    for sample, loading in zip(features[:50].double().numpy(), found, strict=True):
        np.testing.assert_allclose(loading, top_k_loading(sample, state, 2), rtol=1e-4, atol=1e-5)
    assert (found > 0).sum(1).max() <= 2


def test_batch_top_k_follows_the_formula(features):
    fitted = BatchTopKAutoencoder(**QUICK).fit(features, progress=False)
    train = features[:640]  # the last fifth judged
    found = fitted.encode(train).numpy()
    expected = batch_top_k(train.double().numpy(), state_of(fitted), 2)
    different = np.abs(found - expected).max(1) > 1e-4
    assert different.sum() <= 1  # rounding at the threshold
    assert abs((found > 0).sum() - 2 * 640) <= 1
    assert (found > 0).sum(1).max() > 2  # rich samples use more


@pytest.mark.parametrize("method", METHODS)
def test_modes_are_unit_length_and_never_negative(features, method):
    fitted = method(**QUICK).fit(features, progress=False)
    torch.testing.assert_close(fitted.dictionary.norm(dim=1), torch.ones(8))
    assert bool((fitted.dictionary >= 0).all())
    assert torch.equal(fitted.encode(features), fitted.encode_unpolished(features))
    assert not fitted.dictionary.requires_grad


@pytest.mark.parametrize("method", METHODS)
def test_each_sample_is_coded_alone(features, method):
    fitted = method(**QUICK).fit(features, progress=False)
    alone = torch.cat([fitted.encode(sample[None]) for sample in features[:20]])
    torch.testing.assert_close(alone, fitted.encode(features)[:20], rtol=1e-4, atol=1e-5)


def test_planted_modes_come_back():
    contribution, planted, _ = planted_modes(0, samples=1000, modes=6)
    flat = contribution.reshape(1000, -1) * np.repeat([-1, 1], 8) / contribution.std()
    features = torch.tensor(flat, dtype=torch.float32)
    fitted = TopKAutoencoder(modes=12, epochs=60).fit(features, progress=False)
    cosine = planted.reshape(6, -1) * np.repeat([-1, 1], 8) @ fitted.dictionary.numpy().T
    assert (cosine[linear_sum_assignment(-cosine)] > 0.95).sum() >= 5
    left = features - fitted.encode(features) @ fitted.dictionary
    assert float(left.square().sum()) < 0.1 * float(features.square().sum())


def test_revival_calls_a_dead_mode_back(features):
    planted = planted_modes(0, samples=800, modes=5)[1].reshape(5, -1) * np.repeat([-1, 1], 8)
    start = torch.tensor(planted, dtype=torch.float32)

    def column(revival):
        """Encoder weights of a mode that is never among the largest."""
        network = TopKNetwork(start, TopKAutoencoder(modes=5, active=2, revival=revival))
        with torch.no_grad():
            network.weight[:, 0] *= 1e-3
            network.bias[1:] = 0.5
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
        epoch = train_network(
            network,
            features[:640],
            features[640:],
            scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 5),
            epochs=5,
            batch_size=128,
            generator=torch.Generator().manual_seed(0),
            description="top-k modes",
            progress=False,
        )
        assert epoch > 1
        return network.weight[:, 0]

    assert torch.equal(column(0.0), start[0] * 1e-3)  # no gradient reaches it
    called = column(1.0)
    assert float(called @ start[0]) > float(1e-3 * start[0] @ start[0])  # it grows again


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "change",
    [
        {"modes": 6},
        {"active": 3},
        {"seed": 1},
        {"sign_consistent": False},
        {"learning_rate": 1e-3},
        {"epochs": 2},
        {"batch_size": 32},
        {"validation": 0.5},
    ],
)
def test_every_setting_counts(features, method, change):
    few = QUICK | {"epochs": 4}
    one, two = (method(**more).fit(features[:200], progress=False) for more in (few, few | change))
    assert one.dictionary.shape != two.dictionary.shape or not torch.equal(
        one.dictionary, two.dictionary
    )


def test_callers_random_state_and_data_stay(features):
    before, state = features.clone(), torch.get_rng_state()
    one, two = (TopKAutoencoder(**QUICK).fit(features, progress=False) for _ in range(2))
    assert torch.equal(features, before)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(one.dictionary, two.dictionary)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"active": 0}, "active must be >= 1"),
        ({"revival": -1.0}, "revival must be >= 0"),
        ({"learning_rate": 0.0}, "learning_rate must lie between 0 and 1"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(RetinaCodecError, match=message):
        TopKAutoencoder(**settings)


def test_nothing_to_start_from():
    with pytest.raises(RetinaCodecError, match="first 80 of 100 have none"):
        TopKAutoencoder(**QUICK).fit(torch.zeros(100, 16))
