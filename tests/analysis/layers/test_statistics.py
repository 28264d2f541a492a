"""Statistics by layer: loops, SciPy, closed forms, chunks and files, and honest intervals."""

import numpy as np
import pytest
import xarray as xr
from scipy.stats import pearsonr
from sklearn.decomposition import PCA as Principal

from retina_codec.analysis.layers.statistics import measure_contributions
from retina_codec.errors import RetinaCodecError
from retina_codec.storage.results import QUANTITIES, read
from retina_codec.storage.trees import open_tree, save_tree
from tests.reference import statistics_of_contributions as slow

SIGNS = ["inhibitory", "excitatory"]


def results(seed=0, inputs=60, channels=7, classes=6, layers=("first", "second"), labels=True):
    random = np.random.default_rng(seed)
    nodes = {}
    for name in layers:
        plus = random.gamma(0.5, size=(inputs, channels))
        minus = -0.5 * plus - random.gamma(0.5, size=(inputs, channels))
        nodes[f"/layers/{name}"] = xr.Dataset(
            {
                "contribution": (("sample", "sign", "channel"), np.stack([minus, plus], 1)),
                "activation": (("sample", "channel"), random.gamma(2, size=(inputs, channels))),
            },
            coords={"sign": SIGNS, "sample": np.arange(inputs)},
        )
        if labels:
            names = np.array([f"c{i % classes}" for i in range(inputs)])
            nodes[f"/layers/{name}"].coords["label"] = ("sample", names)
    return xr.DataTree.from_dict(nodes)


def parts(tree, name):
    c = tree[f"layers/{name}/contribution"].values
    a = tree[f"layers/{name}/activation"].values
    return dict(zip(QUANTITIES, (c.sum(1), c[:, 1], c[:, 0], a), strict=True))


def statistics(tree, **options):
    return measure_contributions(tree, **{"bootstraps": 100, "class_draws": 20} | options)


def test_every_number_equals_loops():
    tree = results()
    found = statistics(tree)
    labels = tree["layers/first"].coords["label"].values.tolist()
    for name in ("first", "second"):
        values = parts(tree, name)
        by_input = {key: [slow.hoyer(row) for row in rows] for key, rows in values.items()}
        for key, rows in values.items():
            here = found.sel(layer=name, quantity=key)
            assert float(here["sparsity"]) == pytest.approx(np.mean(by_input[key]))
            means = slow.class_averages(rows, labels)
            fitted = Principal(0.95, svd_solver="full").fit(means)
            assert float(here["components"]) == fitted.n_components_
            share = Principal().fit(means).explained_variance_ratio_
            assert float(here["participation_ratio"]) == pytest.approx(1 / (share**2).sum())
        gap = np.array(by_input["contribution"]) - by_input["activation"]
        here = found.sel(layer=name, quantity="contribution")
        assert float(here["difference"]) == pytest.approx(gap.mean())
        r = [slow.pearson(p, -m) for p, m in zip(values["excitatory"], values["inhibitory"])]  # noqa: B905
        assert float(here["sign_correlation"]) == pytest.approx(np.mean(r))


def test_sign_correlation_equals_scipy_and_constant_inputs_are_counted():
    tree = results(seed=1)
    tree["layers/first/contribution"].values[3, 0] = 0.0  # nothing inhibits
    tree["layers/first/contribution"].values[4] = 0.0
    found = statistics(tree).sel(layer="first")
    values = parts(tree, "first")
    kept = [i for i in range(60) if i not in (3, 4)]
    r = [pearsonr(values["excitatory"][i], -values["inhibitory"][i]).statistic for i in kept]
    assert float(found["sign_correlation"]) == pytest.approx(np.mean(r))
    assert int(found["sign_correlation_undefined"]) == 2
    undefined = found["sparsity_undefined"].sel(quantity=list(QUANTITIES)).values
    np.testing.assert_array_equal(undefined, [1, 1, 2, 0])


def test_closed_forms():
    """One channel acts per input and all are equally active; signs mirror each other."""
    inputs = 40
    plus = np.eye(8)[np.arange(inputs) % 8]
    tree = results(inputs=inputs, channels=8, layers=("one",))
    tree["layers/one/contribution"].values[:] = np.stack([-0.25 * plus, plus], 1)
    tree["layers/one/activation"].values[:] = 3.0
    labels = [str(i % 8) for i in range(inputs)]
    found = statistics(tree, labels=labels).sel(layer="one")
    np.testing.assert_allclose(found["sparsity"], [1, 1, 1, 0], atol=1e-12)
    np.testing.assert_allclose(found["difference"][:3], 1)
    assert float(found["sign_correlation"]) == pytest.approx(1)
    # averages are the 8 corners of a simplex: 7 equal variances
    np.testing.assert_allclose(found["components"][:3], 7)
    np.testing.assert_allclose(found["participation_ratio"][:3], 7)
    assert np.isnan(found["components"].sel(quantity="activation"))
    assert (found["q_value"][:3] <= 0.02).all()
    assert np.isnan(found["q_value"].sel(quantity="activation"))


def test_chunks_and_files_change_nothing(tmp_path, monkeypatch):
    tree = results(seed=2)
    whole = statistics(tree)
    monkeypatch.setattr(read, "__kwdefaults__", {"size": 2000})
    xr.testing.assert_allclose(statistics(tree), whole)
    for suffix in (".zarr", ".nc"):
        save_tree(tree, tmp_path / f"tree{suffix}")
        with open_tree(tmp_path / f"tree{suffix}") as stored:
            found = statistics(stored, layers=["first", "second"])  # files forget the order
            xr.testing.assert_allclose(found, whole)


def test_order_of_channels_and_inputs_does_not_matter():
    tree, random = results(seed=3), np.random.default_rng(0)
    order, channels = random.permutation(60), random.permutation(7)
    other = xr.DataTree.from_dict(
        {
            node.path: node.to_dataset(inherit=False).isel(sample=order, channel=channels)
            for node in tree.subtree
            if node.path.count("/") == 2
        }
    )
    names = ["sparsity", "sign_correlation", "components", "participation_ratio", "difference"]
    names += ["varying_sparsity", "varying_difference", "constant_share"]
    xr.testing.assert_allclose(statistics(tree)[names], statistics(other)[names])


def test_inputs_are_left_alone_and_the_seed_decides():
    tree = results(seed=4)
    before = tree.copy(deep=True)
    one, same, other = (statistics(tree, seed=s) for s in (1, 1, 2))
    assert tree.identical(before)
    xr.testing.assert_identical(one, same)
    assert (one["sparsity_interval"] != other["sparsity_interval"]).any()


def test_interval_holds_the_true_mean_as_often_as_it_says():
    inside = 0
    truth = float(statistics(results(seed=99, inputs=4000), bootstraps=1)["sparsity"][0, 0])
    for seed in range(60):
        tree = results(seed=seed, inputs=40, layers=("one",))
        low, high = statistics(tree, bootstraps=200, class_draws=1)["sparsity_interval"][0, 0]
        inside += float(low) <= truth <= float(high)
    assert 50 <= inside <= 60


def test_without_labels_there_is_no_dimensionality():
    found = statistics(results(labels=False))
    assert "components" not in found
    assert "no labels" in found.attrs["dimensionality"]


def test_inputs_without_a_label_take_no_part_in_averages():
    tree = results(seed=5, layers=("one",))
    labels = tree["layers/one"].coords["label"].values.astype(object)
    labels[:10] = None
    found = statistics(tree, labels=labels)
    alone = tree.isel(sample=slice(10, None))
    expected = statistics(alone)
    np.testing.assert_allclose(found["participation_ratio"], expected["participation_ratio"])
    assert int(found["classes"]) == 6


def test_results_can_be_saved(tmp_path):
    found = statistics(results())
    tree = xr.DataTree(found)
    save_tree(tree, tmp_path / "found.nc")
    with open_tree(tmp_path / "found.nc") as stored:
        xr.testing.assert_identical(stored.to_dataset(), found)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": ["a"]}, "one label per input"),
        ({"layers": ["third"]}, r"must hold contributions of \['third'\]"),
        ({"variance": 0.0}, "variance must lie"),
        ({"block": 50}, "at least two blocks"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(RetinaCodecError, match=message):
        statistics(results(), **options)


def test_units_instead_of_sums_are_refused():
    tree = results()
    tree["layers/first"] = xr.DataTree(tree["layers/first"].to_dataset().drop_vars("activation"))
    with pytest.raises(RetinaCodecError, match="must hold contribution"):
        statistics(tree)
