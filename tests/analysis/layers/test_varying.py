"""The varying part: loops that leave one out, closed forms, offsets, and honest errors."""

import numpy as np
import pytest
import xarray as xr

from retina_codec.analysis.layers.sparsity import hoyer
from retina_codec.analysis.layers.statistics import measure_contributions
from retina_codec.analysis.layers.varying import constant_shares, gather_varying, normal_sparsity
from retina_codec.storage.results import QUANTITIES, read
from tests.reference import statistics_of_contributions as slow


def tree_of(plus, minus, activation, dim="sample"):
    values = {
        "contribution": ((dim, "sign", "channel"), np.stack([minus, plus], 1)),
        "activation": ((dim, "channel"), activation),
    }
    layer = xr.Dataset(values, coords={"sign": ["inhibitory", "excitatory"]})
    return xr.DataTree.from_dict({"/layers/one": layer})


def random_tree(seed=0, inputs=40, channels=7, **options):
    random = np.random.default_rng(seed)
    plus, minus, activation = random.gamma(0.5, size=(3, inputs, channels))
    return tree_of(plus, -minus, activation + 1, **options)


def parts(tree):
    c = tree["layers/one/contribution"].values
    values = (c.sum(1), c[:, 1], c[:, 0], tree["layers/one/activation"].values)
    return dict(zip(QUANTITIES, values, strict=True))


def gathered(tree):
    means = {key: values.mean(0) for key, values in parts(tree).items()}
    return gather_varying(tree, "one", means)


def statistics(tree, **options):
    return measure_contributions(tree, **{"bootstraps": 50} | options).sel(layer="one")


def test_the_rest_equals_loops_over_the_mean_of_the_others():
    tree = random_tree()
    found = statistics(tree)
    each = {key: np.array(slow.varying_hoyer(rows)) for key, rows in parts(tree).items()}
    for number, (key, rows) in enumerate(parts(tree).items()):
        np.testing.assert_allclose(gathered(tree).sparsity[:, number], each[key])
        here = found.sel(quantity=key)
        assert float(here["varying_sparsity"]) == pytest.approx(each[key].mean())
        assert float(here["varying_sparsity_sem"]) == pytest.approx(each[key].std(ddof=1) / 40**0.5)
        assert float(here["constant_share"]) == pytest.approx(slow.constant_share(rows))
        if key != "activation":
            gap = (each[key] - each["activation"]).mean()
            assert float(here["varying_difference"]) == pytest.approx(gap)


@pytest.mark.parametrize("offset", [0.0, 0.5, 30.0])
def test_pairs_around_an_offset_have_closed_forms(offset):
    """Input i is the offset ± 2 in one channel: the mean is the offset, the rest one channel."""
    channels = 8
    planted = 2 * np.concatenate([np.eye(channels), -np.eye(channels)])
    found = statistics(tree_of(planted, np.zeros_like(planted), planted + offset))
    here = found.sel(quantity="activation")
    assert float(here["varying_sparsity"]) == pytest.approx(1)
    size = channels * offset**2
    assert float(here["constant_share"]) == pytest.approx(size / (size + 4), abs=1e-12)
    one = np.full((2, channels), offset)
    one[:, 0] += [2, -2]
    assert float(here["sparsity"]) == pytest.approx(hoyer(one).mean())


def test_simplex_has_a_closed_form():
    """One channel of d acts in each input: the rest is 1 − 1/d there and −1/d elsewhere."""
    d = 9
    plus = np.eye(d)
    found = statistics(tree_of(plus, -plus / 2, plus + 1.0)).sel(quantity="contribution")
    expected = (np.sqrt(d) - 2 * np.sqrt((d - 1) / d)) / (np.sqrt(d) - 1)
    assert float(found["varying_sparsity"]) == pytest.approx(expected)
    assert float(found["constant_share"]) == pytest.approx(1 / d)


def test_an_offset_changes_sparsity_and_not_that_of_the_rest():
    tree = random_tree(1)
    other = tree.copy(deep=True)
    offset = np.zeros(7)
    offset[2] = 100.0  # one outlier dimension, the same for all inputs
    other["layers/one/activation"].values[:] += offset
    before, after = statistics(tree), statistics(other)
    varying = [name for name in before.data_vars if str(name).startswith("varying")]
    xr.testing.assert_allclose(before[varying], after[varying])
    one = {"quantity": "activation"}
    assert after["sparsity"].sel(one) > 0.9 > 0.5 > before["sparsity"].sel(one)
    assert after["constant_share"].sel(one) > 0.99


def test_an_offset_alone_decides_who_is_sparser():
    """Contributions are sparse and activations normal, with an outlier that never changes."""
    random = np.random.default_rng(2)
    plus = random.exponential(size=(80, 30)) * (random.random((80, 30)) < 0.1)
    activation = random.normal(size=(80, 30))
    activation[:, 4] += 400.0
    found = statistics(tree_of(plus, -0.1 * plus, activation)).sel(quantity="contribution")
    assert found["difference_interval"].sel(bound="high") < 0
    assert found["varying_difference_interval"].sel(bound="low") > 0
    assert found["varying_p_value"] <= 0.02
    assert found["varying_q_value"] <= 0.02


def test_inputs_that_are_all_alike_have_no_rest():
    """0.1 has no exact mean in binary; rounding must not pass for a signal."""
    tree = random_tree(3)
    tree["layers/one/activation"].values[:] = 0.1 * np.arange(1, 8)
    found = statistics(tree)
    here = found.sel(quantity="activation")
    assert np.isnan(here["varying_sparsity"])
    assert int(here["varying_sparsity_undefined"]) == 40
    assert float(here["constant_share"]) == pytest.approx(1)
    assert np.isnan(found["varying_difference"]).all()
    tree["layers/one/activation"].values[:] = 0.0
    assert np.isnan(statistics(tree)["constant_share"].sel(quantity="activation"))


def test_an_input_with_nan_takes_no_part():
    tree = random_tree(4)
    alone = tree.isel(sample=slice(1, None))
    tree["layers/one/activation"].values[0, 3] = np.nan
    found, expected = statistics(tree), statistics(alone)
    for name in ("varying_sparsity", "constant_share", "constant_share_sem"):
        one, other = (some[name].sel(quantity="activation") for some in (found, expected))
        assert float(one) == pytest.approx(float(other), rel=0.02 if "sem" in name else 1e-12)
    assert int(found["varying_sparsity_undefined"].sel(quantity="activation")) == 1


def test_chunks_and_movies_change_nothing(monkeypatch):
    tree, movie = random_tree(5), random_tree(5, dim="time")
    whole = statistics(tree)
    monkeypatch.setattr(read, "__kwdefaults__", {"size": 1000})
    xr.testing.assert_allclose(statistics(movie), whole)


def test_error_of_the_share_is_that_of_a_jackknife():
    tree = random_tree(6, inputs=1000)
    found = constant_shares([gathered(tree)])
    for number, rows in enumerate(parts(tree).values()):
        size = np.square(rows).sum(1)
        total, n = rows.sum(0), len(rows)
        left = (((total - rows) / (n - 1)) ** 2).sum(1) / ((size.sum() - size) / (n - 1))
        jackknife = np.sqrt((n - 1) / n * ((left - left.mean()) ** 2).sum())
        assert found["constant_share_sem"][1][0, number] == pytest.approx(jackknife, rel=0.02)


def test_interval_of_the_share_holds_the_truth_as_often_as_it_says():
    mean = np.linspace(0, 1, 10)
    truth, inside = (mean**2).sum() / ((mean**2).sum() + 10), 0
    for seed in range(100):
        values = np.random.default_rng(seed).normal(mean, 1, (400, 10))
        part = gathered(tree_of(values, 0 * values, values))
        low, high = constant_shares([part])["constant_share_interval"][1][0, 3]
        inside += low <= truth <= high
    assert 88 <= inside <= 99


def test_inputs_that_repeat_add_no_certainty_in_blocks():
    tree = random_tree(7)
    repeated = tree.isel(sample=np.repeat(np.arange(40), 3))
    one, blocks, singly = (
        constant_shares([gathered(some)], block)["constant_share_sem"][1]
        for some, block in ((tree, 1), (repeated, 3), (repeated, 1))
    )
    np.testing.assert_allclose(blocks, one)
    np.testing.assert_allclose(singly, one / np.sqrt(3), rtol=0.02)


def test_normal_numbers_have_the_sparsity_that_is_said():
    assert normal_sparsity(2) == pytest.approx((2**0.5 - 4 / np.pi) / (2**0.5 - 1))
    assert np.isnan(normal_sparsity(1))
    assert normal_sparsity(10**8) == pytest.approx(1 - (2 / np.pi) ** 0.5, abs=1e-4)
    for channels in (3, 64):
        drawn = hoyer(np.random.default_rng(0).normal(size=(20000, channels)))
        assert normal_sparsity(channels) == pytest.approx(drawn.mean(), abs=4 * drawn.std() / 141)
    values = np.random.default_rng(1).normal(size=(2000, 12))
    found = statistics(tree_of(values, 0 * values, values + 5.0), bootstraps=1)
    expected = float(found["normal_sparsity"])
    assert float(found["varying_sparsity"].sel(quantity="activation")) == pytest.approx(
        expected, abs=0.01
    )
