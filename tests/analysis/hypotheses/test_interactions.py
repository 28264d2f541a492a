"""Interactions: a slow second form, nets in which effects add, scores of pairs, bad input."""

from itertools import combinations

import numpy as np
import pytest
import torch
import xarray as xr

from retina_codec.analysis.hypotheses.interactions import (
    groups_of_modes,
    measure_interactions,
    pair_scores,
)
from retina_codec.analysis.hypotheses.silencing import silence_channels
from retina_codec.errors import RetinaCodecError
from retina_codec.probing.interventions import Silencing
from tests.reference.interactions import rates_without
from tests.small import RATE, small_network, small_recording

BIN = 1 / RATE
GROUPS = [
    (("conv1", 0), ("conv1", 3)),
    (("conv1", 2), ("conv2", 1)),
    (("conv2", 0), ("conv2", 3)),
    (("conv1", 1), ("conv1", 2), ("conv2", 0)),
]


@pytest.fixture(scope="module")
def network():
    return small_network()


@pytest.fixture(scope="module")
def split(network):
    return small_recording(network, bins=70)["test"].to_dataset()


@pytest.fixture(scope="module")
def found(network, split):
    return measure_interactions(network, split, GROUPS)


def test_numbers_equal_the_slow_second_form(network, split, found):
    plain = rates_without(network, split["stimulus"], ())
    for row, group in enumerate(GROUPS):
        joint = rates_without(network, split["stimulus"], group)
        parts = [rates_without(network, split["stimulus"], (one,)) for one in group]
        own = joint - plain - sum(part - plain for part in parts)
        one = found.isel(group=row)
        np.testing.assert_allclose(one["interaction"], own.mean(0), rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(one["size"], np.sqrt((own**2).mean(0)), rtol=1e-3, atol=1e-4)
        variance = joint.mean(0) + sum(part.mean(0) for part in parts)
        variance = variance + (len(group) - 1) ** 2 * plain.mean(0)
        d2 = own.mean(0) ** 2 * len(own) * BIN / variance
        np.testing.assert_allclose(one["d2"], d2, rtol=5e-3, atol=1e-7)
        np.testing.assert_allclose(one["strength"], np.sqrt((own**2).mean(0).sum()), rtol=1e-3)
    np.testing.assert_allclose(found["joint"] - found["apart"], found["interaction"], atol=1e-5)
    assert float(found["strength"].min()) > 0.05


def test_effects_of_the_second_layer_add_up_before_a_linear_output(split):
    linear = small_network()
    linear.softplus = torch.nn.Identity()
    same_layer, two_layers = GROUPS[2], GROUPS[1]
    found = measure_interactions(linear, split, [same_layer, two_layers])
    # relu(second) is read linearly: its channels cannot interact; below, the rectifier remains
    assert float(found["strength"][0]) < 1e-4 * float(abs(found["joint"]).max())
    assert float(found["strength"][1]) > 1e-2 * float(abs(found["joint"]).max())


def test_times_that_do_not_count_are_left_out(network, split, found):
    bins = len(silence_channels(network, split, [Silencing("conv1", (0,))], block=BIN)["time"])
    active = np.zeros((len(GROUPS), bins), dtype=bool)
    active[0, :20] = active[1, 20:] = active[2] = True
    some = measure_interactions(network, split, GROUPS, active=active)
    assert bool(np.isnan(some["interaction"][3]).all())
    assert bool(np.isnan(some["strength"][3]))
    xr.testing.assert_allclose(some.isel(group=[2]), found.isel(group=[2]))
    first = measure_interactions(network, split, GROUPS[:1], active=~active[:1])
    mean = (20 * some["interaction"][0] + (bins - 20) * first["interaction"][0]) / bins
    np.testing.assert_allclose(mean, found["interaction"][0], atol=1e-5)


def modes_of(dictionaries, loadings):
    layers = {}
    for layer, dictionary in dictionaries.items():
        layers[f"layers/{layer}/modes"] = xr.Dataset(
            {
                "dictionary": (("mode", "sign", "channel"), dictionary),
                "loading": (("time", "mode"), loadings[layer]),
            },
            {
                "time": np.arange(len(loadings[layer])) * BIN,
                "mode": np.arange(len(dictionary)),
                "sign": ["inhibitory", "excitatory"],
            },
        )
    return xr.DataTree.from_dict(layers)


@pytest.fixture(scope="module")
def modes():
    random = np.random.default_rng(0)
    dictionaries = {layer: random.normal(size=(5, 2, 4)) for layer in ("conv1", "conv2")}
    loadings = {layer: random.exponential(size=(60, 5)) for layer in dictionaries}
    return modes_of(dictionaries, loadings)


def test_scores_are_correlations_of_what_modes_rebuild(modes):
    channels = [("conv1", 1), ("conv2", 3), ("conv1", 0)]
    found = pair_scores(modes, channels)
    rebuilt = []
    for layer, number in channels:
        node = modes[f"layers/{layer}/modes"]
        each = sum(node["dictionary"].values[:, sign, number] for sign in range(2))
        rebuilt.append(sum(z * w for z, w in zip(node["loading"].values.T, each, strict=True)))
    expected = [abs(np.corrcoef(a, b)[0, 1]) for a, b in combinations(rebuilt, 2)]
    np.testing.assert_allclose(found, expected)
    assert found["pair"].values.tolist()[0] == "conv1/1 + conv2/3"
    other = pair_scores(modes, channels[::-1])
    np.testing.assert_allclose(other.values[::-1], expected)


def test_a_channel_in_no_mode_has_no_score(modes):
    silent = modes.copy(deep=True)
    silent["layers/conv1/modes/dictionary"].values[:, :, 1] = 0
    found = pair_scores(silent, [("conv1", 0), ("conv1", 1), ("conv1", 2)])
    assert np.isnan(found.values).tolist() == [True, False, True]


def test_groups_hold_strong_channels_at_the_events_of_their_mode(network, split):
    dictionary = np.zeros((2, 2, 4))
    dictionary[0, 1, [0, 2]], dictionary[1, 0, [1, 2, 3]] = [1.0, 0.9], [0.5, 0.6, 0.1]
    answer = silence_channels(network, split, [Silencing("conv1", (0,))], block=BIN)
    loading = np.random.default_rng(1).exponential(size=(answer.sizes["time"], 2))
    tree = modes_of({"conv2": dictionary}, {"conv2": loading})
    groups, active = groups_of_modes(tree)
    assert groups == [(("conv2", 0), ("conv2", 2)), (("conv2", 1), ("conv2", 2))]
    assert active["mode"].values.tolist() == [0, 1]
    assert active.sum("time").values.tolist() == [round(0.1 * len(loading))] * 2
    assert loading[active.values[1], 1].min() >= loading[~active.values[1], 1].max()
    found = measure_interactions(network, split, groups, active=active)
    assert found["group"].values.tolist() == active["group"].values.tolist()
    assert np.isfinite(found["repeats"].values).any()
    with pytest.raises(RetinaCodecError, match="3 strong channels or more; none has"):
        groups_of_modes(tree, size=3)


@pytest.mark.parametrize(
    ("groups", "options", "message"),
    [
        ([], {}, "at least one group of channels; got none"),
        ([(("conv1", 0),)], {}, "two to 4 distinct channels"),
        ([(("conv1", 0), ("conv1", 0))], {}, "two to 4 distinct channels"),
        ([(("conv1", 0), ("conv1", 9))], {}, "channels of conv1 must lie in 0..3"),
        ([(("conv1", 0), ("conv3", 1))], {}, "layer must be one of conv1, conv2"),
        (GROUPS[:1], {"active": np.ones((2, 3))}, "one row for each of 1 groups"),
        (GROUPS[:1], {"active": np.ones((1, 3)), "block": 0.1}, "block must be left out"),
    ],
)
def test_bad_input(network, split, groups, options, message):
    with pytest.raises(RetinaCodecError, match=message):
        measure_interactions(network, split, groups, **options)


def test_layers_without_modes_are_named(modes):
    only = xr.DataTree.from_dict({"layers/conv1/modes": modes["layers/conv1/modes"].to_dataset()})
    with pytest.raises(RetinaCodecError, match="must have modes; conv2 has none"):
        pair_scores(only, [("conv1", 0), ("conv2", 0)])


def test_cutting_a_channel_twice_is_refused(network, split):
    twice = (Silencing("conv1", (0, 1)), Silencing("conv1", (1,)))
    with pytest.raises(RetinaCodecError, match="every channel once"):
        silence_channels(network, split, [twice])
