"""Sums of a class's modes: slow loops, NumPy, closed forms, and what must not change them."""

import numpy as np
import pytest
import xarray as xr
from scipy.stats import t

from retina_codec.analysis.concepts.aggregates import class_aggregates, compare_aggregates
from retina_codec.analysis.concepts.correlate import correlate_concepts
from retina_codec.errors import RetinaCodecError
from tests.analysis.planted_concepts import planted
from tests.reference import class_aggregates as slow

CLASSES = ["a", "b", "c", "d"]


def fit(seed=0, modes=7, samples=60, channels=9):
    """Random sparse modes, as `decompose` returns them for excitatory contributions."""
    random = np.random.default_rng(seed)
    dictionary = np.zeros((modes, 2, channels))
    dictionary[:, 1] = random.gamma(0.5, size=(modes, channels))
    dictionary /= np.sqrt((dictionary**2).sum((1, 2), keepdims=True))
    loading = random.gamma(1.0, size=(samples, modes)) * (random.random((samples, modes)) < 0.4)
    return xr.Dataset(
        {
            "dictionary": (("mode", "sign", "channel"), dictionary),
            "loading": (("sample", "mode"), loading, {"units": "logit"}),
        },
        coords={
            "mode": np.arange(modes),
            "sign": ["inhibitory", "excitatory"],
            "channel": np.arange(channels) + 5,
        },
        attrs={"signs": "excitatory"},
    )


def correlations(seed=0, modes=7):
    values = np.random.default_rng(seed + 100).uniform(-0.3, 0.6, (modes, len(CLASSES)))
    values[:, 2] -= 0.5  # no mode of class c reaches 0.2
    coords = {"feature": np.arange(modes), "concept": CLASSES}
    return xr.DataArray(values, dims=("feature", "concept"), coords=coords)


def aggregates(seed=0, **options):
    return class_aggregates(fit(seed), correlations(seed), **options)


def test_sums_are_those_of_slow_loops():
    modes, r = fit(), correlations()
    found = class_aggregates(modes, r, threshold=0.2)
    assert found["sign"].values.tolist() == ["excitatory"]
    for name in CLASSES:
        own = r.sel(concept=name).values.tolist()
        chosen = slow.best_modes(own, 0.2)
        dictionary = modes["dictionary"].sel(sign="excitatory").values.tolist()
        expected = slow.summed_mode(dictionary, modes["loading"].values.tolist(), chosen)
        here = found.sel(concept=name)
        np.testing.assert_allclose(here["aggregate"].values[0], expected)
        by_hand = modes["loading"].isel(mode=chosen).sum("mode")
        np.testing.assert_allclose(here["loading"].values, by_hand.values)
        assert float(here["count"]) == sum(one > 0.2 for one in own)
    assert float(found["count"].sel(concept="c")) == 0


def test_without_amplitudes_modes_count_alike():
    modes, r = fit(), correlations()
    found = class_aggregates(modes, r, amplitudes=False)
    chosen = np.flatnonzero(r.sel(concept="a").values > 0.2)
    expected = modes["dictionary"].values[chosen, 1].sum(axis=0)
    np.testing.assert_allclose(found["aggregate"].sel(concept="a").values[0], expected)
    larger = modes.assign(loading=modes["loading"] * 7)
    xr.testing.assert_allclose(
        class_aggregates(larger, r, amplitudes=False)["aggregate"], found["aggregate"]
    )


def test_similarity_is_that_of_numpy_and_of_slow_loops():
    one, other = aggregates(0), aggregates(1)
    found = compare_aggregates(one, other)
    a, b = (v["aggregate"].values.reshape(4, -1) for v in (one, other))
    table = np.corrcoef(a, b)[:4, 4:]
    np.testing.assert_allclose(found["similarity"].values, np.diag(table))
    np.testing.assert_allclose(
        found["other"].values, [np.delete(row, c).mean() for c, row in enumerate(table)]
    )
    assert float(found["similarity"][1]) == pytest.approx(slow.pearson(a[1], b[1]))
    gap = np.diag(table) - found["other"].values
    half = t.ppf(0.975, 3) * gap.std(ddof=1) / 2
    assert float(found["difference_mean"]) == pytest.approx(gap.mean())
    np.testing.assert_allclose(found["difference_interval"], [gap.mean() - half, gap.mean() + half])


def apart(order):
    """Every class has a mode of its own, which is one channel of four."""
    modes = fit(modes=4, channels=4)
    own = np.zeros((4, 2, 4))
    own[np.arange(4), 1, order] = 1
    modes["dictionary"].values[:] = own
    r = xr.DataArray(np.eye(4), dims=("feature", "concept"))
    return class_aggregates(modes, r.assign_coords(feature=range(4), concept=CLASSES))


def test_classes_of_one_channel_each_have_a_closed_form():
    """Indicators of 1 of n channels correlate by −1/(n − 1); all that agrees are fixed points."""
    found = compare_aggregates(apart([0, 1, 2, 3]), apart([0, 1, 2, 3]), permutations=4000)
    np.testing.assert_allclose(found["similarity"], 1)
    np.testing.assert_allclose(found["other"], -1 / 3)
    # of f classes in place the mean is (f − (4 − f)/3) / 4, and f is 1 on average
    assert float(found["null_mean"]) == pytest.approx(0, abs=0.02)
    assert float(found["p_value"]) == pytest.approx(1 / 24, abs=0.012)
    moved = compare_aggregates(apart([0, 1, 2, 3]), apart([1, 2, 3, 0]))
    np.testing.assert_allclose(moved["similarity"], -1 / 3)
    assert float(moved["p_value"]) == 1


def test_a_mode_cut_in_two_and_another_order_change_nothing():
    modes, r = fit(), correlations()
    doubled = [0, 0, 1, 2, 3, 4, 5, 6]
    order = np.random.default_rng(3).permutation(8)
    cut = modes.isel(mode=np.array(doubled)[order])
    # samples are dealt out between the two halves, so neither has a larger amplitude
    first, second = (int(np.flatnonzero(order == place)[0]) for place in (0, 1))
    z = cut["loading"].values.copy()
    z[:, [first, second]] /= 2
    cut = cut.assign(loading=(("sample", "mode"), z)).assign_coords(mode=range(8))
    same = r.isel(feature=np.array(doubled)[order]).assign_coords(feature=range(8))
    found, expected = class_aggregates(cut, same), class_aggregates(modes, r)
    xr.testing.assert_allclose(found["aggregate"], expected["aggregate"])
    np.testing.assert_allclose(compare_aggregates(found, expected)["similarity"], 1)


def test_it_joins_what_correlate_concepts_returns():
    tree = planted(layers=("one",))
    found = correlate_concepts(tree, of="modes", permutations=5, bootstraps=5, progress=False)
    node = found["layers/one/modes"].to_dataset()
    random = np.random.default_rng(0)
    modes = tree["layers/one/modes"].to_dataset(inherit=False)
    modes["dictionary"] = (("mode", "sign", "channel"), random.random((modes.sizes["mode"], 2, 3)))
    modes = modes.assign_coords(sign=["inhibitory", "excitatory"], channel=range(3))
    sums = class_aggregates(modes, node["correlation"])
    above = (node["correlation"] > 0.2).sum("feature")
    assert sums["count"].values.tolist() == above.values.tolist()
    best = compare_aggregates(sums, sums)
    np.testing.assert_allclose(best["similarity"], 1)


def test_a_class_without_correlations_takes_no_part():
    r = correlations()
    r.loc[{"concept": "b"}] = np.nan
    sums = class_aggregates(fit(), r)
    assert np.isnan(sums.sel(concept="b").drop_vars("concept").to_array()).all()
    other = aggregates(1)
    found = compare_aggregates(sums, other)
    rest = compare_aggregates(sums.isel(concept=[0, 2, 3]), other.isel(concept=[0, 2, 3]))
    assert np.isnan(found["similarity"].sel(concept="b"))
    assert found.attrs["classes"] == 3
    for name in ("difference_mean", "similarity_mean", "p_value"):
        assert float(found[name]) == pytest.approx(float(rest[name]))


def test_inputs_are_untouched_and_the_seed_decides():
    modes, r = fit(), correlations()
    before = modes.copy(deep=True), r.copy(deep=True)
    sums = class_aggregates(modes, r)
    kept = sums.copy(deep=True)
    first = compare_aggregates(sums, aggregates(1), permutations=50, seed=3)
    xr.testing.assert_identical(
        first, compare_aggregates(sums, aggregates(1), permutations=50, seed=3)
    )
    other = compare_aggregates(sums, aggregates(1), permutations=50, seed=4)
    assert float(other["null_mean"]) != float(first["null_mean"])
    xr.testing.assert_identical(modes, before[0])
    xr.testing.assert_identical(r, before[1])
    xr.testing.assert_identical(sums, kept)


def test_what_does_not_fit_is_refused():
    with pytest.raises(RetinaCodecError, match="of these 7 modes"):
        class_aggregates(fit(), correlations(modes=6))
    with pytest.raises(RetinaCodecError, match="same concepts"):
        compare_aggregates(aggregates(), aggregates().isel(concept=[0, 1]))
    with pytest.raises(RetinaCodecError, match="at least 1"):
        compare_aggregates(aggregates(), aggregates(), permutations=0)
