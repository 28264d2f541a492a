import inspect
from dataclasses import dataclass

import numpy as np
import pytest

from retina_codec import RetinaCodecError, open_tree, save_tree
from retina_codec.modes.base import Decomposition, decomposition_of, registry
from retina_codec.modes.decompose import decompose
from retina_codec.modes.decompositions.gated import GatedAutoencoder
from retina_codec.modes.decompositions.kmeans import KMeans
from retina_codec.modes.decompositions.nmf import NMF
from retina_codec.modes.decompositions.sparse_autoencoder import SparseAutoencoder
from retina_codec.modes.decompositions.topk import BatchTopKAutoencoder
from tests.modes.test_decompose import make_tree
from tests.reference.modes import planted_modes

FEW = {
    "SparseAutoencoder": {"modes": 4, "restarts": 1, "epochs": 5, "encoder_epochs": 1},
    "GatedAutoencoder": {"modes": 12, "epochs": 2, "threshold": 0.4},
    "TopKAutoencoder": {"modes": 4, "epochs": 2},
    "BatchTopKAutoencoder": {"modes": 4, "epochs": 2},
    "NMF": {"modes": 3},
    "SemiNMF": {"modes": 3, "active": 2},
    "PCA": {"modes": 3},
    "KMeans": {"modes": 4},
    "RawChannels": {"active": 2},
}


@pytest.mark.parametrize("name", FEW)
def test_results_tell_the_decomposition_even_from_a_file(name, tmp_path):
    tree = make_tree(planted_modes(0, samples=200, modes=4)[0])
    method = registry.get(name)(**FEW[name])
    result = decompose(tree, method, layers="conv1", progress=False)
    assert decomposition_of(result["layers/conv1/modes"].attrs) == method
    save_tree(result, tmp_path / "modes.nc")
    saved = open_tree(tmp_path / "modes.nc", lazy=False)["layers/conv1/modes"]
    assert decomposition_of(saved.attrs) == method
    again = decompose(tree, decomposition_of(saved.attrs), layers="conv1", progress=False)
    np.testing.assert_array_equal(
        again["layers/conv1/modes/loading"].values, saved["loading"].values
    )


@pytest.mark.parametrize("name", FEW)
def test_settings_are_keywords_with_defaults_and_frozen(name):
    for parameter in inspect.signature(registry.get(name)).parameters.values():
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
        assert parameter.default is not inspect.Parameter.empty
        assert f"{parameter.name}" in (registry.get(name).__doc__ + TOP)
    with pytest.raises(AttributeError):
        registry.get(name)().modes = 3


TOP = registry.get("TopKAutoencoder").__doc__  # its settings are those of the batch form


def test_settings_are_plain():
    assert NMF(modes=3).settings() == {
        "method": "NMF",
        "modes": 3,
        "seed": 0,
        "iterations": 1000,
        "tolerance": 1e-4,
    }
    assert GatedAutoencoder().settings()["sign_consistent"] == 1


def test_other_attributes_are_passed_over_and_truth_values_come_back():
    attrs = {"sign_consistent": np.int64(0), "modes": np.int64(5), "kept_epoch": 3}
    found = SparseAutoencoder.from_settings(attrs)
    assert found == SparseAutoencoder(sign_consistent=False, modes=5)
    assert found.sign_consistent is False
    assert type(found.modes) is int


def test_the_batch_form_is_not_the_other():
    assert BatchTopKAutoencoder().settings()["method"] == "BatchTopKAutoencoder"
    assert isinstance(decomposition_of({"method": "KMeans", "modes": 3}), KMeans)


@pytest.mark.parametrize("attrs", [{}, {"method": "ICA"}])
def test_unknown_decompositions_list_the_known_ones(attrs):
    with pytest.raises(RetinaCodecError, match="known are SparseAutoencoder, GatedAutoencoder"):
        decomposition_of(attrs)


def test_subclasses_are_registered_by_name_unless_told_not_to():
    class Plain(Decomposition):
        sign_consistent = True

        def fit(self, features, *, progress=None):
            raise NotImplementedError

    class Hidden(Plain, register=False):
        pass

    try:
        assert registry.get("Plain") is Plain
        assert decomposition_of({"method": "Plain", "kept_epoch": 3}).settings() == {
            "method": "Plain"
        }
        assert "Hidden" not in registry.list()
        with pytest.raises(RetinaCodecError, match="name of a decomposition must be new"):
            type("Plain", (Decomposition,), {"__module__": "another_package"})
    finally:
        registry._items.pop("Plain")
    assert set(FEW) <= set(registry.list())
    with pytest.raises(RetinaCodecError, match=r"must be a subclass of rc\.modes\.Decomposition"):
        registry.register("number", 3)


def test_settings_vary_only_where_there_are_some():
    assert NMF().vary(seed=3, active=2) == NMF(seed=3)  # active is None: no limit to vary
    assert NMF(active=1).vary(seed=3, active=2) == NMF(seed=3, active=2)
    assert KMeans().vary(active=2) == KMeans()
    assert [NMF(active=1).has(name) for name in ("active", "epochs")] == [True, False]


def test_settings_must_not_hide_what_results_say():
    @dataclass(frozen=True, kw_only=True)
    class Gap(KMeans, register=False):
        gap: int = 3

    with pytest.raises(RetinaCodecError, match="must not be called gap: results use"):
        Gap().settings()
