"""Agreement of analyses against explicit matching, scikit-learn and unrelated results."""

import itertools

import numpy as np
import pytest
import xarray as xr
from scipy.signal import lfilter
from sklearn.metrics import adjusted_rand_score

import retina_codec as rc
from retina_codec.analysis.comparison import (
    compare_halves,
    reproducibility,
    shifted_copies,
)
from retina_codec.errors import RetinaCodecError
from retina_codec.modes.decompositions.sparse_autoencoder import SparseAutoencoder


def tree_of(loading, dictionary, pathway=None, share=None, start=0.0):
    time = start + np.arange(len(loading)) / 100
    modes = xr.Dataset(
        {
            "loading": (("time", "mode"), loading),
            "dictionary": (("mode", "sign", "channel"), dictionary),
        },
        coords={"time": time, "mode": np.arange(loading.shape[1])},
    )
    nodes = {"/layers/conv1/modes": modes}
    if pathway is not None:
        cells = np.arange(len(pathway))
        nodes["/layers/conv1/pathways"] = xr.Dataset(
            {"pathway": ("cell", pathway)}, coords={"cell": cells}
        )
        nodes["/layers/conv1/own"] = xr.Dataset(
            {"share": (("cell", "mode"), share)}, coords={"cell": cells}
        )
    return xr.DataTree.from_dict(nodes)


def drawn(seed=0, samples=1500, modes=4):
    random = np.random.default_rng(seed)
    slow = lfilter([1], [1, -0.95], random.normal(size=(samples, modes)), axis=0)
    loading = np.abs(slow)  # autocorrelated over 20 samples
    return loading, random.normal(size=(modes, 2, 5)), random


def best_match(likeness):
    """Mean likeness of the best one-to-one matching, by trying all of them."""
    count = len(likeness)
    tried = itertools.permutations(range(count))
    return max(np.mean([likeness[i, j] for i, j in enumerate(order)]) for order in tried)


def test_modes_are_matched_as_by_trying_all():
    loading, dictionary, random = drawn()
    order = random.permutation(4)
    noisy = loading[:, order] + random.normal(size=loading.shape)
    found = reproducibility(tree_of(loading, dictionary), tree_of(noisy, dictionary), draws=99)
    likeness = np.corrcoef(loading.T, noisy.T)[:4, 4:]
    value = float(found["agreement"].sel(layer="conv1", quantity="modes"))
    assert value == pytest.approx(best_match(likeness), abs=1e-6)
    assert float(found["p_value"].sel(layer="conv1", quantity="modes")) == 1 / 101  # the least
    low, high = found["interval"].sel(layer="conv1", quantity="modes").values
    assert low < value < high
    assert str(found["compared"].values[0]) == "loading"


def test_loadings_that_share_nothing_are_not_found_alike():
    """Slow loadings match well by chance; p must know. Uniform over 40 pairs, up to chance."""
    small = 0
    for seed in range(40):
        one, dictionary, _ = drawn(seed, 400)
        other, *_ = drawn(seed + 1000, 400)
        found = reproducibility(
            tree_of(one, dictionary), tree_of(other, dictionary), draws=19, seed=seed
        )
        small += float(found["p_value"].sel(layer="conv1", quantity="modes")) <= 0.1
    assert small <= 10  # 4 expected; more than 10 has a probability below .002


def test_the_same_result_agrees_in_everything():
    loading, dictionary, random = drawn()
    pathway, share = np.array([0, 0, 1, 1, 2, 2]), random.dirichlet(np.ones(4), 6)
    one = tree_of(loading, dictionary, pathway, share)
    found = reproducibility(one, one)
    np.testing.assert_allclose(found["agreement"], 1, atol=1e-6)
    np.testing.assert_array_equal(found["result"], ["one", "other"])
    assert found["modes"].values.tolist() == [[4, 4]]


def test_pathways_and_similarity_by_scikit_learn_and_by_hand():
    loading, dictionary, random = drawn()
    groups = random.integers(0, 3, (2, 9))
    shares = random.dirichlet(np.ones(4), (2, 9))
    trees = [
        tree_of(loading, dictionary, each, share)
        for each, share in zip(groups, shares, strict=True)
    ]
    found = reproducibility(*trees)["agreement"].sel(layer="conv1")
    assert float(found.sel(quantity="pathways")) == pytest.approx(adjusted_rand_score(*groups))
    pairs = []
    for share in shares:
        root = np.sqrt(share) - np.sqrt(share).mean(0)
        unit = root / np.linalg.norm(root, axis=1, keepdims=True)
        pairs.append([unit[i] @ unit[j] for i in range(9) for j in range(i + 1, 9)])
    assert float(found.sel(quantity="similarity")) == pytest.approx(np.corrcoef(*pairs)[0, 1])


def test_other_times_are_compared_by_dictionaries_against_shifted_copies():
    """Two halves of one planted set of modes agree; copies with shifted features do not."""
    random = np.random.default_rng(3)
    modes = (random.random((5, 2, 6)) < 0.3) * np.array([-1.0, 1.0])[:, None]
    sources = random.exponential(size=(2400, 5)) * (random.random((2400, 5)) < 0.2)
    values = np.einsum("tm,msc->tsc", sources, modes) * random.uniform(0.95, 1.05, (2400, 2, 6))
    halves = []
    for start in (0, 1200):
        layer = xr.Dataset(
            {
                "contribution": (
                    ("time", "sign", "channel"),
                    values[start : start + 1200].astype(np.float32),
                    {"units": "nats"},
                )
            },
            coords={
                "time": np.arange(start, start + 1200) / 100,
                "sign": ["inhibitory", "excitatory"],
            },
        )
        halves.append(xr.DataTree.from_dict({"/layers/conv1": layer}))
    quick = SparseAutoencoder(modes=8, active=2, restarts=1, epochs=12, encoder_epochs=1)
    found = [rc.decompose(half, quick, progress=False) for half in halves]
    null = shifted_copies(found[1], quick, copies=2, progress=False)
    result = reproducibility(*found, null=null).sel(layer="conv1", quantity="modes")
    assert str(result["compared"].values) == "dictionary"
    assert float(result["agreement"]) > 0.9
    assert float(result["null_high"]) < 0.8
    assert float(result["p_value"]) == pytest.approx(1 / 3)  # the least of 2 copies
    shifted = null[0]["layers/conv1/contribution"]
    np.testing.assert_allclose(  # every feature is the same, elsewhere in time
        np.sort(shifted, axis=0), np.sort(halves[1]["layers/conv1/contribution"], axis=0)
    )


def test_what_cannot_be_compared():
    loading, dictionary, _ = drawn(samples=300)
    one = tree_of(loading, dictionary)
    other = tree_of(loading[:200], dictionary[:, :, :3], start=7)
    with pytest.raises(RetinaCodecError, match="must have the same times or the same channels"):
        reproducibility(one, other)
    renamed = xr.DataTree.from_dict({"/layers/conv9/modes": one["layers/conv1/modes"].to_dataset()})
    with pytest.raises(RetinaCodecError, match="modes in a common layer"):
        reproducibility(one, renamed)
    with pytest.raises(RetinaCodecError, match="draws must be at least 1"):
        reproducibility(one, one, draws=0)
    without = reproducibility(one, one, draws=9)
    assert np.isnan(without["agreement"].sel(quantity="pathways")).all()


def contributions_of(loading, dictionary, rates=None):
    values = np.einsum("tm,msc->tsc", loading, dictionary)
    time = np.arange(len(values)) / 100
    layer = xr.Dataset(
        {"contribution": (("time", "sign", "channel"), values.astype(np.float32))},
        {
            "time": time,
            "sign": ["inhibitory", "excitatory"],
            "channel": np.arange(values.shape[2]),
        },
    )
    layer["contribution"].attrs["units"] = "nats"
    nodes = {"/layers/conv1": layer}
    if rates is not None:
        nodes["/responses"] = xr.Dataset(
            {"prediction": (("time", "cell"), rates, {"units": "Hz"})},
            {
                "time": time,
                "cell": np.arange(rates.shape[1]),
                "type": ("cell", ["unknown"] * rates.shape[1]),
            },
        )
    return xr.DataTree.from_dict(nodes)


def planted(changed, samples=1600):
    """Sparse groups of channels that drive two kinds of cells; other groups after half the time."""
    random = np.random.default_rng(3)
    loading = random.exponential(size=(samples, 4)) * (random.random((samples, 4)) < 0.4)
    dictionary = np.zeros((4, 2, 8))
    for mode, (a, b) in enumerate([(0, 1), (2, 3), (4, 5), (6, 7)]):
        dictionary[mode, 1, [a, b]] = 1.0, 0.5
    other = np.roll(dictionary, 1, axis=2) if changed else dictionary
    half = samples // 2
    values = np.vstack([loading[:half], loading[half:]])
    kinds = values[:, [0, 0, 0, 1, 1, 1]] + 0.1 * random.random((samples, 6))
    tree = contributions_of(loading[:half], dictionary)
    late = contributions_of(loading[half:], other)["layers/conv1/contribution"].values
    whole = contributions_of(loading, dictionary, rates=kinds)
    early = tree["layers/conv1/contribution"].values
    whole["layers/conv1/contribution"].values[:] = np.concatenate([early, late])
    settings = SparseAutoencoder(modes=6, active=2, restarts=1, epochs=20, encoder_epochs=1, seed=1)
    return rc.decompose(whole, settings, progress=False)


def test_halves_that_hold_the_same_modes_and_cells():
    found = compare_halves(planted(False), clusters=[2, 3], copies=2, progress=False)
    at = found.sel(layer="conv1")
    assert float(at["agreement"].sel(quantity="modes")) > 0.98
    assert float(at["agreement"].sel(quantity="modes")) > float(
        at["null_high"].sel(quantity="modes")
    )
    assert float(at["agreement"].sel(quantity="pathways")) == pytest.approx(1)
    assert found.attrs["samples"] == 780
    assert found.attrs["copies"] == 2


def test_halves_with_other_modes_do_not_agree():
    at = compare_halves(planted(True), clusters=[2, 3], copies=2, progress=False).sel(layer="conv1")
    assert float(at["agreement"].sel(quantity="modes")) < 0.7


def test_too_short_for_halves():
    with pytest.raises(RetinaCodecError, match="two halves need 80 samples each"):
        compare_halves(planted(False, samples=190), gap=40)


def test_halves_are_decomposed_as_the_results_were(monkeypatch):
    results, seen = planted(False), []
    again = rc.decompose(
        results,
        SparseAutoencoder(modes=6, active=2, restarts=1, epochs=5, encoder_epochs=1),
        signs="excitatory",
        held_out=0.4,
        progress=False,
    )

    def watched(tree, *given, **how):
        seen.append(how)
        return rc.decompose(tree, *given, **how)

    monkeypatch.setattr("retina_codec.analysis.comparison.decompose", watched)
    compare_halves(again, clusters=[2, 3], copies=1, gap=30, progress=False)
    assert len(seen) == 3  # two halves and a copy
    for how in seen:
        assert how == {"signs": ["excitatory"], "held_out": 0.4, "gap": 30, "progress": False}
    with pytest.raises(RetinaCodecError, match="copies must be at least 1; got 0"):
        compare_halves(results, copies=0)
