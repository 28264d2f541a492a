"""Concepts of features by layer: SciPy, planted classes, nulls, files, activation modes."""

import numpy as np
import pytest
import xarray as xr
from scipy.stats import binomtest, pearsonr

from retina_codec.analysis.concepts.correlate import activation_tree, correlate_concepts
from retina_codec.analysis.concepts.table import concept_table
from retina_codec.errors import RetinaCodecError
from retina_codec.modes.decompose import decompose
from retina_codec.modes.decompositions.nmf import NMF
from retina_codec.storage.trees import open_tree, save_tree
from tests.analysis.planted_concepts import planted

FAST = {"permutations": 20, "bootstraps": 50}


@pytest.fixture(scope="module")
def tree():
    return planted(layers=("one", "two"))


@pytest.fixture(scope="module")
def found(tree):
    return correlate_concepts(tree, permutations=60, bootstraps=200)


def test_correlations_equal_scipy(tree, found):
    layer = tree["layers/two"].to_dataset()
    arrays = {
        "modes": tree["layers/two/modes/loading"].values,
        "contributions": layer["contribution"].values[:, 1],
        "activations": layer["activation"].values,
    }
    for kind, values in arrays.items():
        r = found[f"layers/two/{kind}/correlation"]
        for concept in ("c0", "c3"):
            mask = layer["label"].values == concept
            for feature in (0, 5, 11):
                expected = pearsonr(values[:, feature], mask).statistic
                assert float(r.sel(concept=concept)[feature]) == pytest.approx(expected)


def test_planted_classes_are_found(found):
    for kind in ("modes", "contributions", "activations"):
        one = found[f"layers/one/{kind}"].to_dataset()
        called = one["q_value"].values <= 0.05
        assert {(f, c) for f, c in np.argwhere(called) if f < 3} == {(0, 0), (1, 1), (2, 2)}
        assert called.sum() <= 4
        assert (
            one["best_feature"].values[:3].tolist()
            == one["feature"].values[:3].astype(str).tolist()
        )
        low, high = one["best_interval"].values[:3].T
        best = one["best_correlation"].values[:3]
        assert ((low < best) & (best < high)).all()
        assert (low > 0.2).all()


def test_summaries_count_by_hand(found):
    for kind in ("modes", "activations"):
        r = found[f"layers/one/{kind}/correlation"].values
        here = found["summary"].to_dataset().sel(layer="one", kind=kind, level="class")
        assert float(here["concept_correlation"]) == pytest.approx(r.max(0).mean())
        assert float(here["feature_correlation"]) == pytest.approx(r.max(1).mean())
        assert int(here["correlated"]) == (r.max(1) > 0.2).sum()
        assert float(here["coverage"]) == pytest.approx((r.max(0) > 0.2).mean())
        q = found[f"layers/one/{kind}/feature_q_value"].values
        assert int(here["significant"]) == (q <= 0.05).sum()
        assert {0, 1, 2} <= set(np.flatnonzero(q <= 0.05).tolist())
        assert float(here["features"]) == 12


def test_true_labels_beat_shuffled_ones(found):
    here = found["summary"].to_dataset().sel(level="class")
    for name in ("concept_correlation", "correlated", "coverage"):
        assert (here[f"{name}_p"] <= 0.05).all()
        assert (here[name] > here[f"{name}_null_interval"].sel(bound="high")).all()
        low, high = (here[f"{name}_interval"].sel(bound=b) for b in ("low", "high"))
        assert ((low <= here[name]) & (here[name] <= high)).all()
    assert (here["significant_null"] < 1).all()


def test_intervals_of_counts_are_wilsons_and_of_means_a_bootstrap(found):
    here = found["summary"].to_dataset().sel(layer="one", kind="modes", level="class")
    count = int(here["correlated"])
    ends = binomtest(count, 12).proportion_ci(method="wilson")
    np.testing.assert_allclose(here["correlated_interval"], [12 * ends.low, 12 * ends.high])
    ends = binomtest(round(5 * float(here["coverage"])), 5).proportion_ci(method="wilson")
    np.testing.assert_allclose(here["coverage_interval"], [ends.low, ends.high])
    best = found["layers/one/modes/correlation"].values.max(0)
    random = np.random.default_rng(9)
    drawn = best[random.integers(5, size=(4000, 5))].mean(1)
    np.testing.assert_allclose(
        here["concept_correlation_interval"], np.quantile(drawn, [0.025, 0.975]), atol=0.06
    )


def test_without_classes_summaries_lie_within_their_nulls():
    """p of the summaries is uniform: below 0.1 in about a tenth of layers."""
    p = []
    for seed in range(40):
        tree = planted(seed, samples=80, known=0, features=8)
        some = correlate_concepts(tree, of="modes", permutations=39, bootstraps=2)
        p.append(float(some["summary/concept_correlation_p"][0, 0, 0]))
    assert np.mean(np.array(p) <= 0.1) <= 0.25
    assert 0.3 <= np.mean(p) <= 0.7


def test_null_is_that_of_shuffled_labels(tree):
    found = correlate_concepts(tree, of="modes", layers="one", seed=3, **FAST)
    labels = tree["layers/one"].coords["label"].values
    values = tree["layers/one/modes/loading"].values
    random = np.random.default_rng(3)
    top = []
    for _ in range(20):
        order = random.permutation(len(labels))
        masks = (labels[order][:, None] == np.unique(labels)).astype(float)
        r = np.corrcoef(np.column_stack([values, masks]).T)[:12, 12:]
        top.append(r.max(0).mean())
    here = found["summary"].to_dataset().isel(layer=0, kind=0, level=0)
    assert float(here["concept_correlation_null"]) == pytest.approx(np.mean(top))
    np.testing.assert_allclose(
        here["concept_correlation_null_interval"], np.quantile(top, [0.025, 0.975])
    )


def test_levels_are_summarised_apart(tree):
    labels = tree["layers/one"].coords["label"]
    table = concept_table(labels, {"c0": "low", "c1": "low", "c3": "high", "c4": "high"})
    both = correlate_concepts(tree, table, of="modes", layers="one", **FAST)
    alone = correlate_concepts(tree, of="modes", layers="one", **FAST)
    assert both["summary/level"].values.tolist() == ["class", "superclass"]
    for name in ("concept_correlation", "concept_correlation_null", "coverage", "correlated"):
        np.testing.assert_allclose(
            both[f"summary/{name}"].sel(level="class"), alone[f"summary/{name}"].sel(level="class")
        )
    r = both["layers/one/modes/correlation"].sel(concept=["high", "low"])
    assert float(
        both["summary/concept_correlation"].sel(level="superclass")[0, 0]
    ) == pytest.approx(float(r.max("feature").mean()))


def test_signs_of_contributions_can_be_chosen(tree):
    both = tree["layers/one/contribution"]
    mask = tree["layers/one"].coords["label"].values == "c1"
    for sign, values in (
        ("inhibitory", both.sel(sign="inhibitory")),
        ("net", both.sum("sign")),
    ):
        found = correlate_concepts(tree, of="contributions", layers="one", sign=sign, **FAST)
        r = float(found["layers/one/contributions/correlation"].sel(concept="c1")[1])
        assert r == pytest.approx(pearsonr(values[:, 1], mask).statistic)


def test_files_give_the_same_and_results_can_be_saved(tree, tmp_path):
    save_tree(tree, tmp_path / "tree.zarr")
    whole = correlate_concepts(tree, **FAST)
    with open_tree(tmp_path / "tree.zarr") as stored:
        again = correlate_concepts(stored, layers=["one", "two"], **FAST)  # files forget the order
    xr.testing.assert_allclose(again, whole)
    save_tree(whole, tmp_path / "found.nc")
    with open_tree(tmp_path / "found.nc") as stored:
        xr.testing.assert_identical(stored.load(), whole)


def test_inputs_are_left_alone_and_the_seed_decides(tree):
    before = tree.copy(deep=True)
    one, same, other = (correlate_concepts(tree, of="modes", seed=s, **FAST) for s in (1, 1, 2))
    assert tree.identical(before)
    xr.testing.assert_identical(one, same)
    assert (
        one["summary/concept_correlation_null"] != other["summary/concept_correlation_null"]
    ).any()


# Activation modes ---------------------------------------------------------------------------


def test_activations_take_the_place_of_contributions(tree):
    signed = tree.copy(deep=True)
    signed["layers/one/activation"].values[:] -= 0.5
    before = signed.copy(deep=True)
    other = activation_tree(signed)
    assert signed.identical(before)
    for name in ("one", "two"):
        split, a = other[f"layers/{name}/contribution"], signed[f"layers/{name}/activation"]
        np.testing.assert_allclose(split.sum("sign"), a)
        assert (split.sel(sign="inhibitory") <= 0).all()
        assert (split.sel(sign="excitatory") >= 0).all()
        assert split.dims == signed[f"layers/{name}/contribution"].dims
        assert "modes" not in other[f"layers/{name}"].children


def test_activation_modes_are_found_and_correlated(tree):
    modes = decompose(activation_tree(tree), NMF(modes=8), progress=False)
    found = correlate_concepts(tree, activation_modes=modes, layers="one", **FAST)
    assert found["summary/kind"].values.tolist() == [
        "modes", "contributions", "activations", "activation_modes",
    ]  # fmt: skip
    r = found["layers/one/activation_modes/correlation"]
    loading = modes["layers/one/modes/loading"].values
    mask = tree["layers/one"].coords["label"].values == "c2"
    expected = [pearsonr(column, mask).statistic for column in loading.T]
    np.testing.assert_allclose(r.sel(concept="c2"), expected, atol=1e-6)
    assert float(r.sel(concept="c2").max()) > 0.4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"of": "units"}, "of must name some of modes"),
        ({"of": "activation_modes"}, "must be given"),
        ({"sign": "both"}, "sign must be one of"),
        ({"layers": "three"}, r"must hold contributions of \['three'\]"),
        ({"concepts": concept_table(["a", "b"])}, "same samples"),
        ({"concepts": xr.DataArray(np.ones(3), dims="sample")}, "must be bool"),
    ],
)
def test_mistakes_are_named(tree, options, message):
    with pytest.raises(RetinaCodecError, match=message):
        correlate_concepts(tree, **FAST | options)


def test_labels_or_modes_that_are_missing_are_named(tree):
    bare = xr.DataTree.from_dict({"/layers/one": tree["layers/one"].to_dataset()})
    with pytest.raises(RetinaCodecError, match=r"must hold modes of \['one'\]"):
        correlate_concepts(bare, layers=["one"], **FAST)
    unlabelled = xr.DataTree.from_dict(
        {"/layers/one": tree["layers/one"].to_dataset().drop_vars("label")}
    )
    with pytest.raises(RetinaCodecError, match="carry no labels"):
        correlate_concepts(unlabelled, of="activations", **FAST)


def without_modes(tree, *layers):
    nodes = {n.path: n.to_dataset(inherit=False) for n in tree.subtree}
    for layer in layers:
        del nodes[f"/layers/{layer}/modes"]
    return xr.DataTree.from_dict(nodes)


def test_layers_without_modes_are_left_out_unless_asked_for(tree, found):
    """As after ``decompose(tree, method, layers=["two"])``, which keeps contributions of all."""
    partly = without_modes(tree, "one")
    options = {"permutations": 60, "bootstraps": 200}
    here = correlate_concepts(partly, **options)
    assert here["summary"]["layer"].values.tolist() == ["two"]
    xr.testing.assert_equal(
        here["layers/two/modes"].to_dataset(), found["layers/two/modes"].to_dataset()
    )
    both = correlate_concepts(partly, of=["contributions"], **FAST)
    assert both["summary"]["layer"].values.tolist() == ["one", "two"]
    with pytest.raises(RetinaCodecError, match=r"hold modes of \['one'\]; they hold .* \['two'\]"):
        correlate_concepts(partly, layers=["one"], **FAST)
    with pytest.raises(RetinaCodecError, match=r"no layer has modes .*of=\('contr"):
        correlate_concepts(without_modes(tree, "one", "two"), **FAST)


def test_layers_without_activation_modes_are_left_out_unless_asked_for(tree):
    others = without_modes(tree, "one")
    here = correlate_concepts(tree, activation_modes=others, **FAST)
    assert here["summary"]["layer"].values.tolist() == ["two"]
    with pytest.raises(RetinaCodecError, match=r"activation_modes must hold modes of .*'one'"):
        correlate_concepts(tree, activation_modes=others, layers="one", **FAST)
    with pytest.raises(RetinaCodecError, match="no layer has both"):
        correlate_concepts(without_modes(tree, "two"), activation_modes=others, **FAST)
