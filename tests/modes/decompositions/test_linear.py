import numpy as np
import pytest
import torch
from sklearn.decomposition import TruncatedSVD

from retina_codec import RetinaCodecError
from retina_codec.modes.decompose import decompose
from retina_codec.modes.decompositions.linear import PCA, RawChannels, keep_largest
from tests.modes.test_decompose import make_tree
from tests.reference.modes import planted_modes


@pytest.fixture(scope="module")
def features():
    contribution, _, _ = planted_modes(0, samples=300, modes=5)
    flat = contribution.reshape(300, -1) * np.repeat([-1, 1], 8) / contribution.std()
    return torch.tensor(flat, dtype=torch.float32)


def test_components_are_those_of_scikit_learn(features):
    fitted = PCA(modes=4).fit(features)
    other = TruncatedSVD(4, algorithm="arpack", random_state=0).fit(features.double().numpy())
    cosine = np.abs(other.components_ @ fitted.dictionary.double().numpy().T)
    np.testing.assert_allclose(cosine, np.eye(4), atol=1e-5)
    rebuilt = (fitted.encode(features) @ fitted.dictionary).numpy()
    expected = other.inverse_transform(other.transform(features.double().numpy()))
    np.testing.assert_allclose(rebuilt, expected, atol=1e-4)
    assert bool((fitted.encode(features).sum(0) >= 0).all())


def test_error_is_the_energy_of_the_other_components(features):
    values = np.linalg.svd(features.double().numpy(), compute_uv=False)
    fitted = PCA(modes=3).fit(features)
    left = features - fitted.encode(features) @ fitted.dictionary
    np.testing.assert_allclose(float(left.square().sum()), (values[3:] ** 2).sum(), rtol=1e-4)


def test_sparse_components_are_the_best_choice_of_every_support(features):
    fitted = PCA(modes=4, active=2).fit(features)
    loading = fitted.encode(features)
    assert int((loading != 0).sum(1).max()) == 2
    whole = features @ fitted.dictionary.T  # orthonormal: dropping a loading costs its square
    dropped = whole.square().sort(1).values[:, :2].sum(1)
    error = (features - loading @ fitted.dictionary).square().sum(1)
    outside = (features - whole @ fitted.dictionary).square().sum(1)
    torch.testing.assert_close(error, outside + dropped, atol=1e-4, rtol=1e-4)


def test_raw_channels_are_the_features_themselves(features):
    fitted = RawChannels().fit(features)
    torch.testing.assert_close(fitted.encode(features) @ fitted.dictionary, features.clamp(min=0))
    sparse = RawChannels(active=3).fit(features).encode(features)
    for sample, kept in zip(features.numpy(), sparse.numpy(), strict=True):
        expected = np.zeros(16, np.float32)
        largest = np.argsort(-sample)[:3]
        expected[largest] = np.maximum(sample[largest], 0)
        np.testing.assert_array_equal(kept, expected)


def test_keep_largest_keeps_signs():
    loading = torch.tensor([[1.0, -3.0, 2.0], [0.0, 0.5, -0.1]])
    expected = torch.tensor([[0.0, -3.0, 2.0], [0.0, 0.5, -0.1]])
    assert torch.equal(keep_largest(loading, 2), expected)
    assert torch.equal(keep_largest(loading, None), loading)


def test_signed_loadings_pass_through_the_door():
    contribution, _, _ = planted_modes(1, samples=400, modes=4)
    modes = decompose(make_tree(contribution), PCA(modes=6), layers="conv1", progress=False)
    modes = modes["layers/conv1/modes"].to_dataset()
    assert (modes["loading"] < 0).any()
    size = abs(modes["loading"].values)
    np.testing.assert_array_equal(modes["active"].values, size > 0.01 * float(modes["scale"]))
    rebuilt = np.einsum("tm,msc->tsc", modes["loading"], modes["dictionary"])
    left = ((contribution - rebuilt) ** 2).sum()
    assert left < 0.01 * (contribution**2).sum()  # 4 true modes


def test_all_raw_channels_rebuild_everything():
    contribution = planted_modes(2, samples=400, modes=4, noise=0.0)[0]
    tree = make_tree(contribution)
    modes = decompose(tree, RawChannels(), layers="conv1", progress=False)["layers/conv1/modes"]
    assert float(modes["r2"]) == pytest.approx(1)
    assert modes.attrs["method"] == "RawChannels"


def test_bad_settings(features):
    with pytest.raises(RetinaCodecError, match="modes must be >= 1; got modes=0"):
        PCA(modes=0)
    with pytest.raises(RetinaCodecError, match="active must be >= 1"):
        RawChannels(active=0)
    with pytest.raises(RetinaCodecError, match=r"got modes=17 for features of shape \(300, 16\)"):
        PCA(modes=17).fit(features)
