import numpy as np
import pytest
import torch

from retina_codec import RetinaCodecError
from retina_codec.modes.decompositions.gated import GatedAutoencoder
from tests.reference.modes import gated_loading, planted_modes

QUICK = {"modes": 30, "epochs": 30, "learning_rate": 3e-3, "threshold": 0.6}


@pytest.fixture(scope="module")
def features():
    contribution, _, _ = planted_modes(0, samples=800, modes=4)
    values = contribution.reshape(800, -1) * np.repeat([-1, 1], 8) / contribution.std()
    return torch.tensor(values, dtype=torch.float32)


@pytest.fixture(scope="module")
def fitted(features):
    return GatedAutoencoder(**QUICK).fit(features, progress=False)


def test_loadings_follow_the_formula(features, fitted):
    state = {key: value.numpy().astype(float) for key, value in fitted.network.state_dict().items()}
    found = fitted.encode(features[:50]).numpy()
    for sample, loading in zip(features[:50].numpy().astype(float), found, strict=True):
        length = np.linalg.norm(state["dictionary"], axis=1)
        np.testing.assert_allclose(
            loading, gated_loading(sample, state, 0.6) * length, rtol=1e-4, atol=1e-6
        )


def test_unit_modes_with_their_lengths_rebuild_the_same(features, fitted):
    gate = fitted.network.gates(features)
    rebuilt = gate @ fitted.network.dictionary
    torch.testing.assert_close(fitted.encode(features) @ fitted.dictionary, rebuilt)
    on = gate[gate > 0]
    assert len(on) > 0
    assert bool((on >= 0.6).all())
    torch.testing.assert_close(fitted.dictionary.norm(dim=1), torch.ones(30))
    assert bool((fitted.dictionary >= 0).all())
    assert torch.equal(fitted.encode(features), fitted.encode_unpolished(features))


def test_training_helps_and_keeps_the_best_epoch(features, fitted):
    def error(found):
        judge = features[-160:]
        return float((judge - found.encode(judge) @ found.dictionary).square().mean())

    short = GatedAutoencoder(**QUICK | {"epochs": 1}).fit(features, progress=False)
    assert error(fitted) < 0.8 * error(short)
    assert 1 < fitted.epochs <= 30


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"modes": 20},
        {"threshold": 0.7},
        {"loading_penalty": 0.5},
        {"dictionary_penalty": 0.5},
        {"learning_rate": 1e-3},
        {"decay": 0.1, "decay_every": 1},
        {"decay_every": 1},
        {"epochs": 2},
        {"batch_size": 64},
        {"dropout": 0.0},
        {"validation": 0.4},
        {"sign_consistent": False},
        {"hidden": 5},
        {"modes": None, "modes_per_feature": 2},
    ],
)
def test_every_setting_counts(features, change):
    few = QUICK | {"epochs": 4}
    one, two = (
        GatedAutoencoder(**settings).fit(features[:200], progress=False)
        for settings in (few, few | change)
    )
    assert one.dictionary.shape != two.dictionary.shape or not torch.equal(
        one.dictionary, two.dictionary
    )


def test_rate_falls_when_the_loss_stays(features):
    few = QUICK | {"epochs": 8, "learning_rate": 1e-2, "decay": 1e-4}
    steady, falling = (
        GatedAutoencoder(**few, plateau=epochs).fit(features[:200], progress=False)
        for epochs in (0, 1)
    )
    assert not torch.equal(steady.dictionary, falling.dictionary)


def test_number_of_modes_follows_the_features(features):
    fitted = GatedAutoencoder(epochs=1, modes_per_feature=3).fit(features, progress=False)
    assert fitted.dictionary.shape == (48, 16)
    wide = GatedAutoencoder(epochs=1, hidden=7).fit(features, progress=False)
    assert wide.dictionary.shape == (160, 16)
    assert [tuple(wide.network.encoder[i].weight.shape) for i in (0, 4, 8)] == [
        (7, 16),
        (7, 7),
        (160, 7),
    ]


def test_published_settings():
    retina, images = (GatedAutoencoder.published(name, seed=4) for name in ("retina", "images"))
    for method, expected in (
        (retina, (10, 1e-5, 800, 1e-4, 0.98, 25, 0)),
        (images, (3, 5e-5, 300, 5e-5, 0.5, 25, 10)),
    ):
        assert (method.threshold, method.batch_size, method.dropout, method.seed) == (
            0.9,
            128,
            0.05,
            4,
        )
        assert method.modes is None
        assert method.hidden is None
        assert (
            method.modes_per_feature,
            method.learning_rate,
            method.epochs,
            method.dictionary_penalty,
            method.decay,
            method.decay_every,
            method.plateau,
        ) == expected
    with pytest.raises(RetinaCodecError, match="one of 'retina', 'images'; got 'mouse'"):
        GatedAutoencoder.published("mouse")


def test_callers_random_state_stays(features):
    before = torch.get_rng_state()
    GatedAutoencoder(**QUICK | {"epochs": 1}).fit(features, progress=False)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"modes": 0}, "modes must be >= 1"),
        ({"threshold": 1.0}, "threshold must lie between"),
        ({"dropout": 1.0}, "dropout must be >= 0 and below 1"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(RetinaCodecError, match=message):
        GatedAutoencoder(**settings)


def test_too_few_samples(features):
    with pytest.raises(RetinaCodecError, match="at least 1 training sample; got 4"):
        GatedAutoencoder(validation=0.9).fit(features[:4])
