"""Nulls: against slow loops, and no findings where there is nothing to find."""

import warnings

import numpy as np
import pytest
import xarray as xr
from scipy.stats import false_discovery_control

import retina_codec as rc
from retina_codec.errors import RecordingWarning, RetinaCodecError
from retina_codec.nulls import (
    CircularShift,
    LinearShift,
    OtherSessions,
    SegmentPermutation,
    assess_significance,
    benjamini_hochberg,
)
from tests.reference.nulls import bursts, linear_shift, random_walks, segment_permutation

CELLS, MODES = 4, 3


def series(seed=0, bins=120):
    """Slow rates and loadings, of which cell 1 and mode 2 share a part."""
    random = np.random.default_rng(seed)
    rate, loading = bursts(random, bins, CELLS), bursts(random, bins, MODES)
    rate[:, 1] += 2 * loading[:, 2]
    return rate, loading


@pytest.mark.parametrize(
    ("null", "largest", "step"),
    [
        (LinearShift(), 30, 1),
        (LinearShift(share=0.4), 48, 1),
        (LinearShift(shifts=7), 30, 5),
    ],
)
def test_linear_shift_is_its_slow_reference(null, largest, step):
    rate, loading = series()
    found = null.p_values(rate, loading, False)
    expected = [
        [linear_shift(rate[:, i], loading[:, j], largest, step) for j in range(MODES)]
        for i in range(CELLS)
    ]
    np.testing.assert_allclose(found, expected)
    assert null.draws_of(120) == 2 * (largest // step)


def test_segment_permutation_approaches_all_permutations():
    rate, loading = series(1)
    found = SegmentPermutation(segments=6, draws=20_000).p_values(rate, loading, False)
    exact = np.array(
        [
            [segment_permutation(rate[:, i], loading[:, j], 6) for j in range(MODES)]
            for i in range(CELLS)
        ]
    )
    # 20,000 draws: three standard errors of a share are at most 0.011
    np.testing.assert_allclose(found, exact, atol=0.011)
    assert np.ptp(exact) > 0.3


def test_other_sessions_are_counted():
    rate, loading = series(2)
    random = np.random.default_rng(3)
    others = np.stack([bursts(random, 120, CELLS) for _ in range(19)])
    found = OtherSessions(others).p_values(rate, loading, False)
    for i in range(CELLS):
        for j in range(MODES):
            r = abs(np.corrcoef(rate[:, i], loading[:, j])[0, 1])
            drawn = [abs(np.corrcoef(other[:, i], loading[:, j])[0, 1]) for other in others]
            assert found[i, j] == (1 + sum(value >= r for value in drawn)) / 20
    assert found[1, 2] == 1 / 20


def test_circular_shift_warns_and_counts():
    rate, loading = series(4)
    with pytest.warns(RecordingWarning, match="LinearShift\\(\\) is valid there"):
        found = CircularShift(shifts=500).p_values(rate, loading, False)
    at = [abs(np.corrcoef(np.roll(rate[:, 0], v), loading[:, 0])[0, 1]) for v in range(120)]
    assert found[0, 0] == sum(value >= at[0] - 1e-12 for value in at) / 120


@pytest.mark.parametrize("null", [LinearShift(), SegmentPermutation(draws=500)])
def test_unit_offset_and_sign_do_not_matter(null):
    rate, loading = series(5)
    expected = null.p_values(rate, loading, False)
    before = rate.copy(), loading.copy()
    np.testing.assert_allclose(null.p_values(100 - 7 * rate, 3 * loading + 1, False), expected)
    assert (rate == before[0]).all()
    assert (loading == before[1]).all()


def shares(null, make, simulations=20, bins=900):
    """Share of pairs with p < 0.05, and with q < 0.05, over simulations without a relation."""
    below, found = [], []
    for seed in range(simulations):
        random = np.random.default_rng(seed)
        p = null.p_values(make(random, bins, 6), make(random, bins, 5), False)
        below.append((p < 0.05).mean())
        found.append((benjamini_hochberg(p) < 0.05).mean())
    return np.mean(below), np.mean(found)


@pytest.mark.parametrize("make", [random_walks, bursts])
def test_nothing_is_found_where_nothing_is(make):
    below, found = shares(LinearShift(), make)
    assert found <= 0.05
    assert below <= 0.05


def test_a_walk_fools_what_is_not_meant_for_it():
    """Circular shifts call slow walks related: the warning is earned, and the test above bites."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RecordingWarning)
        below, found = shares(CircularShift(shifts=200), random_walks)
    assert below > 0.1
    assert found > 0.05


def test_segments_of_walks_can_be_exchanged():
    below, found = shares(SegmentPermutation(draws=400), random_walks)
    assert found <= 0.05
    assert below <= 0.07


def test_a_relation_is_found():
    random = np.random.default_rng(6)
    rate, loading = bursts(random, 3000, 6), bursts(random, 3000, 5)
    rate[:, :3] += 2 * loading[:, [0, 1, 2]]
    q = benjamini_hochberg(LinearShift().p_values(rate, loading, False))
    assert (q < 0.05)[[0, 1, 2], [0, 1, 2]].all()
    assert (q < 0.05).sum() <= 4


def test_seed_and_draws_count():
    rate, loading = series(7)
    one, same, other = (
        SegmentPermutation(draws=300, seed=seed).p_values(rate, loading, False)
        for seed in (0, 0, 1)
    )
    assert (one == same).all()
    assert (one != other).any()
    assert SegmentPermutation(draws=9).p_values(rate, loading, False).min() >= 0.1


def test_settings_are_recorded():
    assert LinearShift(share=0.2).describe(1000) == {
        "null": "LinearShift",
        "share": 0.2,
        "shifts": 2000,
        "draws": 400,
    }
    assert SegmentPermutation(segments=8).describe(1000)["segments"] == 8
    assert OtherSessions(np.zeros((7, 5, 2))).describe(5) == {"null": "OtherSessions", "draws": 7}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LinearShift(share=0.5), "share must lie between 0 and 0.5"),
        (lambda: LinearShift(shifts=0), "shifts be at least 1"),
        (lambda: SegmentPermutation(segments=4), "segments must be at least 5"),
        (lambda: CircularShift(shifts=0), "shifts must be at least 1"),
        (lambda: OtherSessions(np.zeros((3, 4))), r"dims \(session, time, cell\)"),
        (lambda: OtherSessions(np.full((3, 4, 2), np.nan)), "must be finite"),
        (lambda: LinearShift().p_values(*series(bins=3), False), "Explain a longer recording"),
        (lambda: SegmentPermutation().p_values(*series(bins=40), False), "Use fewer segments"),
        (lambda: OtherSessions(np.zeros((3, 9, 4))).p_values(*series()), "Cut them to the same"),
    ],
)
def test_bad_settings(make, message):
    with pytest.raises(RetinaCodecError, match=message):
        make()


@pytest.mark.slow
def test_modes_of_one_movie_know_nothing_of_other_movies():
    """Loadings of one natural movie, rates to 20 others: at most 5 % of pairs found."""
    network = rc.load_network("insilico")
    duration, seeds = 40.0, range(1, 22)
    splits = [
        rc.simulate_retina(
            0, stimulus_seed=seed, train_duration=0, test_duration=duration, progress=False
        )[0]["test"]
        for seed in seeds
    ]
    explained = rc.contribute(
        network,
        splits[0],
        target=rc.targets.Surprisal(),
        method=rc.methods.IntegratedGradients(steps=5, quadrature="chords"),
        layers=["conv2"],
        progress=False,
    )
    modes = rc.decompose(explained, rc.modes.SparseAutoencoder(modes=12, seed=0), progress=False)
    loading = modes["layers/conv2/modes/loading"].values.astype(np.float64)
    rates = [split["rate"].values[network.history :].astype(np.float64) for split in splits]
    q = [benjamini_hochberg(LinearShift().p_values(rate, loading, False)) for rate in rates]
    assert (q[0] < 0.05).mean() > 0.1  # its own movie
    assert np.mean([(values < 0.05).mean() for values in q[1:]]) <= 0.05


def pair(seed=0):
    random = np.random.default_rng(seed)
    time = np.arange(200) / 100
    rate = xr.DataArray(
        random.gamma(1.0, 1.0, (200, 4)), dims=("time", "cell"), coords={"time": time}
    )
    loading = xr.DataArray(
        rate.values[:, :3] + random.normal(size=(200, 3)),
        dims=("time", "mode"),
        coords={"time": time},
    )
    return rate.assign_coords(cell=list("abcd")), loading.assign_coords(mode=[3, 1, 2])


@pytest.mark.parametrize("count", [1, 7, 240])
def test_q_values_are_scipys(count):
    p = np.random.default_rng(count).random(count) ** 3
    p[: count // 3] = p[0]  # ties
    np.testing.assert_allclose(benjamini_hochberg(p), false_discovery_control(p, method="bh"))


def test_q_values_by_hand():
    # sorted p M / rank: 0.04, 0.04, 0.0533.., 0.5; running minimum from the right
    np.testing.assert_allclose(
        benjamini_hochberg([[0.01, 0.5], [0.02, 0.04]]), [[0.04, 0.5], [0.04, 0.04 * 4 / 3]]
    )
    with pytest.raises(RetinaCodecError, match="Leave undefined pairs out"):
        benjamini_hochberg([0.1, np.nan])


def test_significance_labels_the_null():
    rate, loading = pair()
    found = assess_significance(rate, loading, null=LinearShift(share=0.3), progress=False)
    expected = LinearShift(share=0.3).p_values(rate.values, loading.values, False)
    np.testing.assert_array_equal(found["p_value"], expected)
    np.testing.assert_array_equal(found["q_value"], benjamini_hochberg(expected))
    assert found["p_value"].dims == ("cell", "mode")
    assert found["cell"].values.tolist() == list("abcd")
    for name in ("p_value", "q_value"):
        assert found[name].attrs["null"] == "LinearShift"
        assert found[name].attrs["draws"] == 120
    turned = assess_significance(rate.transpose("cell", "time"), loading, progress=False)
    assert turned.identical(assess_significance(rate, loading, null=LinearShift(), progress=False))


def test_significance_refuses():
    rate, loading = pair()
    with pytest.raises(RetinaCodecError, match="same labels"):
        assess_significance(rate.isel(time=slice(1, None)), loading)
    with pytest.raises(RetinaCodecError, match="null must be one of"):
        assess_significance(rate, loading, null="shuffle")
    assert rc.nulls.assess_significance is assess_significance
