import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans as Clustering

from retina_codec import RetinaCodecError
from retina_codec.modes.decompositions.kmeans import KMeans


@pytest.fixture(scope="module")
def blobs():
    generator = np.random.default_rng(0)
    centre = generator.gamma(1.0, 5.0, (4, 6))
    group = generator.integers(0, 4, 200)
    points = centre[group] + 0.05 * generator.normal(size=(200, 6))
    return torch.tensor(points, dtype=torch.float32), centre, group


def test_centres_of_separate_groups_are_their_means(blobs):
    points, _, group = blobs
    fitted = KMeans(modes=4).fit(points)
    loading = fitted.encode(points)
    assert bool(((loading > 0).sum(1) == 1).all())
    found = loading.argmax(1).numpy()
    for number in range(4):
        own = found[group == number]
        assert (own == own[0]).all()
        mean = points.numpy()[group == number].mean(0)
        centre = fitted.dictionary[own[0]] * fitted.length[own[0]]
        np.testing.assert_allclose(centre, mean, rtol=1e-4)


def test_rebuilt_as_scikit_learn_does(blobs):
    points = blobs[0]
    fitted = KMeans(modes=7, seed=2, restarts=3).fit(points)
    model = Clustering(7, n_init=3, random_state=2).fit(points.numpy())
    rebuilt = (fitted.encode(points) @ fitted.dictionary).numpy()
    expected = model.cluster_centers_[model.predict(points.numpy())]
    np.testing.assert_allclose(rebuilt, expected, rtol=1e-4, atol=1e-5)
    left = ((points.numpy() - rebuilt) ** 2).sum()
    np.testing.assert_allclose(left, model.inertia_, rtol=1e-3)


@pytest.mark.parametrize("change", [{"modes": 5}, {"seed": 1}, {"restarts": 20}])
def test_every_setting_counts(change):
    noise = torch.rand((300, 6), generator=torch.Generator().manual_seed(1))
    one, two = (KMeans(**({"modes": 12, "restarts": 1} | more)).fit(noise) for more in ({}, change))
    assert one.dictionary.shape != two.dictionary.shape or not torch.equal(
        one.dictionary, two.dictionary
    )


def test_a_centre_at_zero_loads_nothing():
    points = torch.tensor([[0.0, 0.0]] * 5 + [[3.0, 4.0]] * 5)
    loading = KMeans(modes=2).fit(points).encode(points)
    np.testing.assert_allclose(loading.max(1).values, [0] * 5 + [5] * 5, atol=1e-6)


def test_more_modes_than_samples():
    with pytest.raises(RetinaCodecError, match="got 2 for modes=3"):
        KMeans(modes=3).fit(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]))
    with pytest.raises(RetinaCodecError, match="restarts must be >= 1"):
        KMeans(restarts=0)
