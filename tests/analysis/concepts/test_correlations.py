"""Correlations in chunks against SciPy, p against all permutations, and calibration."""

import numpy as np
import pytest
from scipy.stats import norm, pearson3, pointbiserialr

from retina_codec.analysis.concepts import correlations as concept_correlations
from retina_codec.analysis.concepts.correlations import _Moments, correlate, resample_pairs, tail
from retina_codec.nulls import benjamini_hochberg
from tests.reference import statistics_of_contributions as slow


def chunked(values, rows=17):
    def chunks():
        for start in range(0, len(values), rows):
            part = slice(start, min(start + rows, len(values)))
            yield part, values[part]

    return chunks


def data(seed=0, samples=120, features=6, classes=4):
    random = np.random.default_rng(seed)
    values = random.gamma(0.3, size=(samples, features)) * (random.random((samples, 1)) < 0.6)
    labels = random.permutation(np.arange(samples) % classes)
    return values, labels[:, None] == np.arange(classes)


def run(values, table, permutations=20, seed=0, rows=17):
    return correlate(chunked(values, rows), table, permutations, seed, lambda r: {"r": r})


def test_correlation_equals_scipy():
    values, table = data()
    found = run(values + 1000, table)  # far from zero, which is hard for sums
    for f in range(6):
        for c in range(4):
            r = pointbiserialr(table[:, c], values[:, f]).statistic
            assert found.correlation[f, c] == pytest.approx(r, abs=1e-9)


def test_correlation_equals_a_loop_on_overlapping_concepts():
    values, table = data(1, samples=30)
    table = np.column_stack([table, table[:, 0] | table[:, 1]])
    expected = [[slow.pearson(values[:, f], table[:, c]) for c in range(5)] for f in range(6)]
    np.testing.assert_allclose(run(values, table).correlation, expected)


def test_what_does_not_vary_is_nan():
    values, table = data()
    values[:, 2] = 0.1
    table[:, 1], table[:, 3] = False, True
    found = run(values, table)
    for result in (found.correlation, found.p_value):
        assert np.isnan(result[2]).all()
        assert np.isnan(result[:, [1, 3]]).all()
        assert np.isfinite(np.delete(np.delete(result, 2, 0), [1, 3], 1)).all()


def test_moments_are_those_of_all_permutations():
    values = np.array([0.0, 0, 0.3, 1, 5, 0.2])
    table = np.array([1, 1, 0, 0, 0, 0], bool)[:, None]
    moments = _Moments.of(chunked(values[:, None], 4), table)
    mean, variance, skewness = slow.permutation_moments(values, table[:, 0].tolist())
    assert mean == pytest.approx(0, abs=1e-12)
    assert variance == pytest.approx(1 / 5)
    assert moments.skewness()[0, 0] == pytest.approx(skewness)


def test_tail_is_the_pearson_iii_law_and_normal_where_that_would_end():
    values, table = data(2)
    moments = _Moments.of(chunked(values), table)
    r = moments.correlation(moments.sums)
    t, skew = r * np.sqrt(119), moments.skewness()
    np.testing.assert_allclose(tail(r, moments), pearson3.sf(t, skew), rtol=1e-6)
    left = _Moments.of(chunked(-values), table)
    assert (left.skewness() < 0).all()
    np.testing.assert_allclose(tail(-r, left), norm.sf(-t))


def test_permutations_shuffle_rows_and_repeat_by_seed(monkeypatch):
    values, table = data(3)
    found = run(values, table, 5, seed=4)
    random = np.random.default_rng(4)
    for r in found.null["r"]:
        order = random.permutation(len(table))
        expected = np.corrcoef(np.column_stack([values, table[order]]).T)[:6, 6:]
        np.testing.assert_allclose(r, expected, atol=1e-12)
    monkeypatch.setattr(concept_correlations, "BYTES", 1)  # one permutation per pass
    again = run(values, table, 5, seed=4, rows=1000)
    np.testing.assert_allclose(again.p_value, found.p_value)


def test_p_counts_pooled_tails():
    values, table = data(5)
    found = run(values, table, 7)
    moments = _Moments.of(chunked(values), table)
    drawn = np.concatenate([tail(r, moments).ravel() for r in found.null["r"]])
    observed = tail(found.correlation, moments)
    expected = [[(1 + (drawn <= one).sum()) / (1 + 7 * 24) for one in row] for row in observed]
    np.testing.assert_allclose(found.p_value, expected)


def test_features_are_compared_by_their_most_surprising_concept():
    values, table = data(5)
    found = run(values, table, 7)
    moments = _Moments.of(chunked(values), table)
    drawn = np.array([tail(r, moments).min(1) for r in found.null["r"]])  # (P, F)
    observed = tail(found.correlation, moments).min(1)
    expected = [(1 + (drawn <= one).sum()) / (1 + drawn.size) for one in observed]
    np.testing.assert_allclose(found.feature_p, expected)
    expected = [[(1 + (drawn <= one).sum()) / (1 + drawn.size) for one in row] for row in drawn]
    np.testing.assert_allclose(found.feature_null, expected)


def test_p_is_near_that_of_permutations_of_each_pair():
    """Heavy tails and few members, where a normal tail would be far too small."""
    random = np.random.default_rng(8)
    values = random.gamma(0.3, size=(100, 300))
    table = (np.arange(100) < 8)[:, None]
    found = run(values, table, 100).p_value[:, 0]
    masks = np.stack([random.permutation(table[:, 0]) for _ in range(10_000)])
    drawn = masks.astype(float) @ values
    alone = (1 + (drawn >= table[:, 0] @ values).sum(0)) / 10_001
    rare = alone < 0.1
    assert rare.sum() > 15
    assert np.abs(np.log10(found / alone))[rare].max() < 0.35
    normal = norm.sf(run(values, table, 1).correlation[:, 0] * np.sqrt(99))
    assert (normal / alone).min() < 0.2


@pytest.mark.parametrize("kind", ["sparse", "normal", "heavy"])
def test_p_is_uniform_and_false_discoveries_are_rare_without_a_relation(kind):
    """1500 pairs, 40 times: p ≤ 0.05 in 5 %, and any discovery at all in about 5 % of runs."""
    any_found = any_feature = 0
    low, tiny, features = [], [], []
    for seed in range(40):
        random = np.random.default_rng(seed)
        values = random.normal(size=(150, 100))
        if kind == "sparse":
            values = np.maximum(values - 1.5, 0)
        if kind == "heavy":
            values = np.exp(2 * values)
        table = random.permutation(np.arange(150) % 15)[:, None] == np.arange(15)
        found = run(values, table, 20, seed)
        known = found.p_value[np.isfinite(found.p_value)]
        of_features = found.feature_p[np.isfinite(found.feature_p)]
        features.append(np.mean(of_features <= 0.05))
        any_feature += (benjamini_hochberg(of_features) <= 0.05).any()
        any_found += (benjamini_hochberg(known) <= 0.05).any()
        low.append(np.mean(known <= 0.05))
        tiny.append(np.mean(known <= 0.001))
    assert np.mean(low) == pytest.approx(0.05, abs=0.006)
    assert np.mean(tiny) == pytest.approx(0.001, abs=0.0007)
    assert np.mean(features) == pytest.approx(0.05, abs=0.012)
    assert any_feature <= 6
    assert any_found <= 6  # 2 expected; 7 or more have a chance of 0.3 %


def test_planted_relations_are_found_and_few_others():
    """A third of features goes with one class: nearly all found, ≤ 5 % of findings false."""
    hits = false = 0
    for seed in range(10):
        random = np.random.default_rng(seed)
        table = (np.arange(200) % 10)[:, None] == np.arange(10)
        values = random.gamma(0.3, size=(200, 60))
        for k in range(20):
            values[table[:, k % 10], k] += 1
        p = run(values, table, 50, seed).p_value
        called = benjamini_hochberg(p) <= 0.05
        true = np.zeros_like(called)
        true[np.arange(20), np.arange(20) % 10] = True
        hits += (called & true).sum()
        false += (called & ~true).sum()
    assert hits >= 0.95 * 200
    assert false <= 0.05 * (hits + false) * 1.3


def test_order_of_features_does_not_matter():
    values, table = data(6)
    order = np.random.default_rng(0).permutation(6)
    one, other = run(values, table), run(values[:, order], table)
    np.testing.assert_allclose(other.p_value, one.p_value[order])


def test_resampled_pairs_spread_like_a_plain_bootstrap():
    values, table = data(7, samples=150)
    best = np.array([0, 1, 2, 0])
    drawn = resample_pairs(chunked(values), table, best, 1500, 0)
    random = np.random.default_rng(1)
    plain = np.empty((1500, 4))
    for row in plain:
        chosen = random.integers(150, size=150)
        for c in range(4):
            row[c] = np.corrcoef(values[chosen, best[c]], table[chosen, c])[0, 1]
    np.testing.assert_allclose(drawn.std(0), plain.std(0), rtol=0.1)
    np.testing.assert_allclose(drawn.mean(0), plain.mean(0), atol=0.01)
    again = resample_pairs(chunked(values, 1000), table, best, 1500, 0)
    np.testing.assert_allclose(again, drawn, atol=1e-9)
