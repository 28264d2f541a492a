import numpy as np
import pytest
import xarray as xr
from sklearn.metrics import silhouette_score

from retina_codec import RetinaCodecError
from retina_codec.analysis.pathways.pathways import find_pathways
from retina_codec.nulls import SegmentPermutation, assess_significance
from retina_codec.statistics.clustering import cluster_cells
from tests.reference.modes import adjusted_rand, silhouette

TYPES = np.repeat(["OFF transient", "OFF sustained", "ON", "motion"], 4)


@pytest.fixture
def tree():
    """Four types of four cells; modes of two layers carry the drive of the types, mixed."""
    generator = np.random.default_rng(0)
    drive = generator.gamma(1.0, 1.0, (500, 4))
    order = generator.permutation(16)
    types = TYPES[order]
    number = np.unique(types, return_inverse=True)[1]
    rate = drive[:, number] + 0.3 * generator.gamma(1.0, 1.0, (500, 16))
    time = np.arange(500) / 100
    cells = {"cell": np.arange(16) + 100, "type": ("cell", types)}
    nodes = {
        "/responses": xr.Dataset(
            {
                "prediction": (("time", "cell"), rate, {"units": "Hz"}),
                "rate": (("time", "cell"), rate[::-1], {"units": "Hz"}),
            },
            coords={"time": time, **cells},
        )
    }
    for name in ("conv1", "conv2"):
        mix = generator.gamma(0.5, 1.0, (4, 10))
        nodes[f"/layers/{name}/modes"] = xr.Dataset(
            {"loading": (("time", "mode"), drive @ mix)},
            coords={"time": time, "mode": np.arange(10)},
        )
    return xr.DataTree.from_dict(nodes)


def test_correlation_is_numpys(tree):
    found = find_pathways(tree)["layers/conv1/pathways/correlation"]
    rate = tree["responses/prediction"].values
    loading = tree["layers/conv1/modes/loading"].values
    expected = np.corrcoef(rate.T, loading.T)[:16, 16:]
    np.testing.assert_allclose(found.values, expected, atol=1e-12)
    assert found.dims == ("cell", "mode")


def test_planted_pathways_come_back(tree):
    found = find_pathways(tree)
    types = tree["responses/type"].values
    for name in ("conv1", "conv2"):
        node = found[f"layers/{name}/pathways"]
        assert node.attrs["k"] == 4
        groups = node["pathway"].values
        assert len({(a, b) for a, b in zip(types, groups, strict=True)}) == 4
        assert types[np.argsort(groups, kind="stable")].tolist() == sorted(types)
    np.testing.assert_allclose(found["pathways/agreement"], 1)
    np.testing.assert_allclose(found["pathways/type_agreement"], 1)


def test_pathways_are_numbered_by_their_commonest_type_then_by_first_cells(tree):
    mixed = tree.copy(deep=True)
    types = mixed["responses/type"].values.astype("U20")
    groups = find_pathways(mixed)["layers/conv1/pathways/pathway"].values
    first = np.flatnonzero(groups == 0)
    types[first[:3]], types[first[3]] = "zebra", "ON"  # the commonest type decides
    mixed["responses"] = xr.DataTree(
        mixed["responses"].to_dataset().assign_coords(type=("cell", types))
    )
    node = find_pathways(mixed)["layers/conv1/pathways"]
    np.testing.assert_array_equal(node["pathway"], (groups - 1) % 4)
    mixed["responses"] = xr.DataTree(mixed["responses"].to_dataset().drop_vars("type"))
    plain = find_pathways(mixed)["layers/conv1/pathways/pathway"].values
    assert list(dict.fromkeys(plain)) == [0, 1, 2, 3]


def test_standardising_gives_every_mode_one_vote(tree):
    node = find_pathways(tree)["layers/conv1/pathways"]
    r = node["correlation"].values
    points = (r - r.mean(0)) / r.std(0)
    chosen = int(node.attrs["k"])
    expected = silhouette(points, node["pathway"].values)
    np.testing.assert_allclose(node["silhouette"].sel(k=chosen), expected)
    assert int(node["silhouette"].idxmax()) == chosen


def test_silhouette_slow_reference_and_sklearn():
    generator = np.random.default_rng(1)
    points = generator.normal(size=(9, 3))
    for k in range(2, 9):
        found = cluster_cells(points, [k])
        groups, score = found["pathway"].values, found["silhouette"].values
        np.testing.assert_allclose(score, silhouette(points, groups))
        np.testing.assert_allclose(score, silhouette_score(points, groups))


def test_agreement_slow_reference(tree):
    changed = tree.copy(deep=True)
    rate, types = tree["responses/prediction"], tree["responses/type"].values
    private = rate.groupby("type") - rate.groupby("type").mean()
    across = np.argsort(np.argsort(types, kind="stable")) % 4  # one cell of each type
    loading = changed["layers/conv2/modes/loading"]
    for mode in range(10):
        loading.values[:, mode] = private.values[:, across == mode % 4].sum(1)
    found = find_pathways(changed)
    one, two = (found[f"layers/{name}/pathways/pathway"].values for name in ("conv1", "conv2"))
    table = found["pathways/agreement"].values
    np.testing.assert_allclose(table, table.T)
    np.testing.assert_allclose(table[0, 1], adjusted_rand(one, two))
    assert table[0, 1] < 0.5
    np.testing.assert_allclose(
        found["pathways/type_agreement"],
        [adjusted_rand(tree["responses/type"].values, groups) for groups in (one, two)],
    )


def test_agreement_with_types_is_over_known_cells(tree):
    types = tree["responses/type"].values.astype("U20")
    swapped = types.copy()
    swapped[:2] = swapped[1::-1]
    for changed, expected in ((swapped, None), (np.where(swapped != types, "unknown", types), 1.0)):
        other = tree.copy()
        other["responses"] = xr.DataTree(
            tree["responses"].to_dataset().assign_coords(type=("cell", changed))
        )
        found = find_pathways(other)
        groups = found["layers/conv1/pathways/pathway"].values
        score = float(found["pathways/type_agreement"][0])
        assert score == pytest.approx(
            adjusted_rand(changed, groups) if expected is None else expected
        )
    assert found["pathways"].attrs["cells_of_known_type"] == int((types == swapped).sum())
    other["responses"] = xr.DataTree(tree["responses"].to_dataset().drop_vars("type"))
    assert np.isnan(find_pathways(other)["pathways/type_agreement"].values).all()


def test_one_known_type_agrees_with_nothing(tree):
    one = np.where(np.arange(tree["responses"].sizes["cell"]) > 1, "OFF", "unknown")
    other = tree.copy()
    typed = tree["responses"].to_dataset().assign_coords(type=("cell", one))
    other["responses"] = xr.DataTree(typed)
    found = find_pathways(other)["pathways"]
    assert np.isnan(found["type_agreement"].values).all()
    assert np.isnan(found["type_agreement_interval"].values).all()
    assert found.attrs["cells_of_known_type"] == len(one) - 2


def test_every_argument_counts(tree):
    only = find_pathways(tree, layers=["conv2"], clusters=[3], seed=5)
    assert "pathways" not in only["layers/conv1"].children
    node = only["layers/conv2/pathways"]
    assert node["k"].values.tolist() == [3]
    assert (node.attrs["k"], node.attrs["seed"]) == (3, 5)
    recorded = find_pathways(tree, rates="rate")["layers/conv2/pathways/correlation"].values
    assert abs(recorded).max() < 0.5 < abs(node["correlation"].values).max()


def test_clusters_stop_below_the_number_of_cells():
    points = np.random.default_rng(3).normal(size=(5, 2))
    assert cluster_cells(points, range(2, 9))["k"].values.tolist() == [2, 3, 4]
    with pytest.raises(RetinaCodecError, match="clusters must hold a number from 2 to cells − 1"):
        cluster_cells(points[:2], range(2, 9))


def test_seed_is_all_the_chance_there_is():
    points = np.random.default_rng(4).normal(size=(12, 3))
    first, again = (cluster_cells(points, range(2, 9), seed=1) for _ in range(2))
    assert first.identical(again)


def test_significance_and_intervals_stand_beside_the_correlations(tree):
    null = SegmentPermutation(segments=6, draws=300)
    found = find_pathways(tree, null=null, resamples=30, block=0.25, layers=["conv1"])
    node = found["layers/conv1/pathways"].to_dataset()
    loading, rate = tree["layers/conv1/modes/loading"], tree["responses/prediction"]
    test = assess_significance(rate, loading, null=null)
    np.testing.assert_array_equal(node["p_value"], test["p_value"])
    np.testing.assert_array_equal(node["q_value"], test["q_value"])
    assert node["p_value"].attrs["null"] == "SegmentPermutation"
    assert (node.attrs["block_bins"], node.attrs["resamples"]) == (24, 30)
    inside = (node["correlation_lower"] <= node["correlation"]) & (
        node["correlation"] <= node["correlation_upper"]
    )
    assert inside.mean() > 0.9
    recorded = find_pathways(tree, rates="rate", null=null, resamples=30, block=0.25)
    for name in ("correlation", "p_value", "q_value"):
        np.testing.assert_array_equal(
            node[f"recorded_{name}"], recorded[f"layers/conv1/pathways/{name}"]
        )
    assert "correlation_lower" not in find_pathways(tree, resamples=0)["layers/conv1/pathways"]


def test_own_drive_describes_cells_where_it_is_known(tree):
    number = np.unique(tree["responses/type"].values, return_inverse=True)[1] % 2
    loading = np.full((16, 50, 10), 0.1) + np.random.default_rng(8).random((16, 50, 10)) / 10
    loading[number == 1, :, :5] += 1.0
    total = loading.sum(1)
    own = xr.Dataset(
        {
            "own_loading": (("cell", "window", "mode"), loading),
            "share": (("cell", "mode"), total / total.sum(1, keepdims=True)),
        },
        coords={
            "cell": tree["responses/cell"].values,
            "mode": np.arange(10),
            "window_time": ("window", np.arange(50) / 10),
        },
    )
    tree["layers/conv1/own"] = xr.DataTree(own)
    found = find_pathways(tree, resamples=30)
    node = found["layers/conv1/pathways"]
    assert node.attrs["k"] == 2
    group = node["pathway"].values
    assert len(set(zip(number.tolist(), group.tolist(), strict=True))) == len(set(group)) == 2
    np.testing.assert_allclose(node["confidence"], 1)
    assert found["layers/conv2/pathways"].attrs["k"] == 4
    plain = find_pathways(tree, description="correlation", resamples=0)
    assert plain["layers/conv1/pathways"].attrs["k"] == 4
    with pytest.raises(RetinaCodecError, match="layer 'conv2' must have own contributions"):
        find_pathways(tree, description="own")
    tree["layers/conv1/own"] = xr.DataTree(own.isel(mode=slice(1, None)))
    with pytest.raises(RetinaCodecError, match="own contributions must be those of these cells"):
        find_pathways(tree)


def test_modes_of_constant_parts_are_left_out(tree):
    """They have no correlation in time; the pathways are those of the other modes."""
    expected = find_pathways(tree)["layers/conv1/pathways"].to_dataset()
    modes = tree["layers/conv1/modes"].to_dataset(inherit=False)
    constant = xr.full_like(modes.isel(mode=[0]), 7.0).assign_coords(mode=[10])
    whole = xr.concat([constant, modes], "mode").assign_coords(
        origin=("mode", ["constant"] + ["fit"] * 10)
    )
    tree["layers/conv1/modes"] = xr.DataTree(whole)
    found = find_pathways(tree)["layers/conv1/pathways"].to_dataset()
    xr.testing.assert_identical(found, expected)
    share = np.random.default_rng(0).random((16, 11))
    own = xr.Dataset(
        {
            "share": (("cell", "mode"), share / share.sum(1, keepdims=True)),
            "own_loading": (("cell", "window", "mode"), np.ones((16, 3, 11))),
            "window_time": ("window", [0.1, 2.0, 4.0]),
        },
        coords={"cell": tree["responses/cell"].values, "mode": whole["mode"].values},
    ).set_coords("window_time")
    tree["layers/conv1/own"] = xr.DataTree(own)
    alone = tree.copy()
    alone["layers/conv1/modes"] = xr.DataTree(modes)
    rest = own.isel(mode=slice(1, None))
    alone["layers/conv1/own"] = xr.DataTree(
        rest.assign(share=rest["share"] / rest["share"].sum("mode"))
    )
    both = [find_pathways(one, layers=["conv1"])["layers/conv1/pathways"] for one in (tree, alone)]
    np.testing.assert_array_equal(both[0]["pathway"], both[1]["pathway"])
    assert both[0].attrs["description"].startswith("the square root")


def test_input_stays_as_it_was(tree):
    before = tree.copy(deep=True)
    find_pathways(tree)
    assert tree.identical(before)


def test_result_survives_a_file(tree, tmp_path):
    found = find_pathways(tree)
    found.to_netcdf(tmp_path / "results.nc", engine="h5netcdf")
    with xr.open_datatree(tmp_path / "results.nc", engine="h5netcdf") as opened:
        assert opened.load().identical(found)


def edited(tree, path, change):
    tree = tree.copy(deep=True)
    change(tree[path].values)
    return tree


def silence(values):
    values[:, 3] = 2.0


def spoil(values):
    values[7, 3] = np.nan


@pytest.mark.parametrize(
    ("path", "change", "message"),
    [
        ("responses/prediction", silence, r"rates must vary.*cell \[103\]"),
        ("responses/prediction", spoil, r"rates must be finite.*cell \[103\]"),
        ("layers/conv2/modes/loading", silence, r"mode \[3\] \(layer 'conv2'\) is constant"),
    ],
)
def test_bad_cells_and_modes_are_named(tree, path, change, message):
    with pytest.raises(RetinaCodecError, match=message):
        find_pathways(edited(tree, path, change))


def test_bad_arguments(tree):
    with pytest.raises(RetinaCodecError, match=r"of \['conv9'\]; they hold modes of \['conv1', "):
        find_pathways(tree, layers=["conv9"])
    with pytest.raises(RetinaCodecError, match="rates must be 'prediction' or 'rate'"):
        find_pathways(tree, rates="counts")
    with pytest.raises(RetinaCodecError, match=r"run decompose\(\)"):
        find_pathways(xr.DataTree())
